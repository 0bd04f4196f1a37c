//! The delivery loop: takes what is due from the engine, calls the receiver, tells how it went.
//!
//! Each delivery is a task of its own. It first waits for room at its receiver, then for room
//! among all calls; in this order a receiver that hangs fills its own room and leaves the rest
//! to others. Only then the engine is asked what there is to say and the lease runs: waiting takes
//! little memory and fails nobody. A delivery whose wake is over is abandoned wherever it stands:
//! the engine has handed out the work anew or needs it no more.
//!
//! When the server drains, what waits is abandoned at once and calls under way may end; the
//! engine hands out again, after the restart, what was not finished.

use std::{future::Future, sync::Arc, time::Duration};

use hyper::header::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, warn};
use weir_engine::{
    limits,
    request::Error,
    subscribe::{Credential, Delivered, Due, SubscriptionId, Subscriptions, Wake},
    types::OffsetFormat,
};
use weir_io::{Clock, Tasks};

use super::{
    client::{Answer, Client, Failure},
    guard,
    hosts::{Calls, Hosts, Slot, Standing, Visitor},
    keys::Keys,
    message::{self, Bases},
    token::Tokens,
};
use crate::{
    App,
    app::Phase,
    metrics::{Deliveries, Outcome},
};

/// Deliveries that wait or are under way. Each subscription has one, and for a moment another that
/// is about to end, so this is never waited for.
const DELIVERIES_MAX: u32 = 1 << 18;
const _: () = assert!(DELIVERIES_MAX as usize > 2 * limits::SUBSCRIPTIONS_MAX);
/// After they are cut, tasks end as soon as they run.
const CUT_TIME_MAX: Duration = Duration::from_secs(1);

/// Where deliveries come from: the engine, or a test.
pub(super) trait Queue: Send + Sync + 'static {
    type Due: Call;

    /// The next webhook to call; `None` when there will be no more.
    fn next(&self) -> impl Future<Output = Option<Self::Due>> + Send;
}

/// A webhook to call.
pub(super) trait Call: Send + Sync + 'static {
    fn subscription(&self) -> &SubscriptionId;
    fn url(&self) -> &str;
    /// Where its maker saw the server, if that is known.
    fn base(&self) -> Option<&str>;
    /// How often it was tried before.
    fn failures(&self) -> u32;
    /// Resolves when the wake is over.
    fn superseded(&self) -> impl Future<Output = ()> + Send;
    /// The call begins: what to say; `None` if the wake is over.
    fn begin(&self) -> impl Future<Output = Result<Option<Wake>, Error>> + Send;
    fn finish(self, delivered: Delivered) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Queue for Subscriptions {
    type Due = Due;

    async fn next(&self) -> Option<Due> {
        self.next_delivery().await
    }
}

impl Call for Due {
    fn subscription(&self) -> &SubscriptionId {
        &self.subscription
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    fn failures(&self) -> u32 {
        self.failures
    }

    async fn superseded(&self) {
        self.superseded().await;
    }

    async fn begin(&self) -> Result<Option<Wake>, Error> {
        self.begin().await
    }

    async fn finish(self, delivered: Delivered) -> Result<(), Error> {
        self.finish(delivered).await
    }
}

/// What every delivery needs.
pub(super) struct Courier {
    pub(super) client: Client,
    pub(super) keys: Arc<Keys>,
    pub(super) tokens: Tokens,
    pub(super) tasks: Arc<dyn Tasks>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) figures: Deliveries,
    pub(super) bases: Bases,
    pub(super) format: OffsetFormat,
    pub(super) hosts: Arc<Hosts>,
    pub(super) calls: Calls,
}

impl Courier {
    pub(super) fn new(app: &App) -> Self {
        Self {
            client: app.webhooks.client.clone(),
            keys: Arc::clone(&app.webhooks.keys),
            tokens: app.webhooks.tokens.clone(),
            tasks: Arc::clone(&app.world.tasks),
            clock: Arc::clone(&app.world.clock),
            figures: app.metrics.deliveries.clone(),
            bases: app.webhook_bases(),
            format: app.config.offset_format,
            hosts: Arc::default(),
            calls: Calls::default(),
        }
    }

    /// Waits for room at the receiver, then among all calls.
    async fn room(&self, visitor: &Visitor, failures: u32) -> (OwnedSemaphorePermit, Slot<'_>) {
        let room = visitor.room().await;
        let standing = if failures > 0 { Standing::Doubtful } else { visitor.standing() };
        (room, self.calls.slot(standing).await)
    }

    /// One attempt.
    async fn call(&self, due: &impl Call, wake: &Wake) -> Result<Answer, Failure> {
        let began = self.clock.elapsed();
        let _under_way = self.figures.begin();
        let (body, signature) = self.message(due, wake);
        let answer = self.client.post(due.url(), signature, body).await;
        self.figures.took(self.clock.elapsed().saturating_sub(began));
        answer
    }

    /// Signed when it is sent: receivers refuse what was signed long ago.
    fn message(&self, due: &impl Call, wake: &Wake) -> (bytes::Bytes, HeaderValue) {
        let id = due.subscription();
        let Wake { incarnation, generation, .. } = *wake;
        let token = self.tokens.issue(id, Credential { incarnation, generation });
        let url = message::callback_url(self.bases.of(due.base()), id);
        let body = message::body(id, wake, &url, &token, self.format);
        let signature = self.keys.sign(&body);
        (body, signature)
    }
}

/// Delivers until the server drains or there is nothing more, then waits for what is under way,
/// for `patience` at most.
pub(super) async fn run(
    courier: Arc<Courier>,
    queue: impl Queue,
    phase: watch::Receiver<Phase>,
    patience: Duration,
) {
    let taken = Arc::new(Semaphore::new(usize::try_from(DELIVERIES_MAX).expect("32 bits")));
    let (cut, cutting) = watch::channel(());
    let mut drain = phase.clone();
    loop {
        let next = async {
            let place = Arc::clone(&taken).acquire_owned().await;
            Some((queue.next().await?, place.expect("this semaphore is never closed")))
        };
        let next = tokio::select! {
            biased;
            () = drained(&mut drain) => None,
            next = next => next,
        };
        let Some((due, place)) = next else { break };
        let work = deliver(Arc::clone(&courier), due, place, phase.clone(), cutting.clone());
        courier.tasks.spawn("delivery", Box::pin(work));
    }
    let all = || taken.acquire_many(DELIVERIES_MAX);
    if tokio::time::timeout(patience, all()).await.is_err() {
        debug!("receivers have not answered: cutting them");
        drop(cut);
        // Their tasks end at their next poll; one that does not has nothing left to lose.
        drop(tokio::time::timeout(CUT_TIME_MAX, all()).await);
    }
}

async fn deliver(
    courier: Arc<Courier>,
    due: impl Call,
    place: OwnedSemaphorePermit,
    mut phase: watch::Receiver<Phase>,
    mut cutting: watch::Receiver<()>,
) {
    let _place = place;
    // A URL that the guard refuses by now needs no room: the client says why.
    let authority = guard::check_url(due.url(), guard::Loopback::Allowed);
    let authority = authority.map_or_else(|_| String::new(), |target| target.authority());
    let visitor = courier.hosts.enter(authority);
    let beginning = async {
        let room = courier.room(&visitor, due.failures()).await;
        (room, due.begin().await)
    };
    let begun = tokio::select! {
        biased;
        () = due.superseded() => None,
        () = drained(&mut phase) => None,
        (room, begun) = beginning => Some((room, begun)),
    };
    let answer = match begun {
        None | Some((_, Ok(None))) => None,
        Some((_, Err(error))) => {
            debug!(subscription = %due.subscription(), %error, "a call was not begun");
            None
        }
        Some((_room, Ok(Some(wake)))) => tokio::select! {
            biased;
            () = due.superseded() => None,
            // The sender never sends: it is dropped.
            _ = cutting.changed() => None,
            // In a box: those that wait are many, and take no memory for their call.
            answer = Box::pin(courier.call(&due, &wake)) => Some(answer),
        },
    };
    let delivered = answer.as_ref().map(|answer| judge(&due, answer));
    if let Some(delivered) = delivered {
        visitor.went(delivered);
    }
    drop(visitor);
    let Some(delivered) = delivered else {
        debug!(subscription = %due.subscription(), "abandoned");
        courier.figures.ended(Outcome::Abandoned);
        return;
    };
    courier.figures.ended(match delivered {
        Delivered::Done => Outcome::Done,
        Delivered::Accepted => Outcome::Accepted,
        Delivered::Failed => Outcome::Failed,
    });
    let subscription = due.subscription().clone();
    if let Err(error) = due.finish(delivered).await {
        // The wake is over, or the store takes no writes: the lease decides.
        debug!(%subscription, %error, "the outcome was not taken");
    }
}

/// Resolves when the server takes nothing new.
async fn drained(phase: &mut watch::Receiver<Phase>) {
    // An error means that the server is gone.
    drop(phase.wait_for(|it| *it != Phase::Serving).await);
}

/// What became of it, for the engine and for the operator.
fn judge(due: &impl Call, answer: &Result<Answer, Failure>) -> Delivered {
    let (subscription, first) = (due.subscription(), due.failures() == 0);
    match answer {
        Ok(answer) => {
            let delivered = message::meaning(answer);
            let status = answer.status;
            if delivered == Delivered::Failed && first {
                warn!(%subscription, status, "the receiver refused a webhook");
            } else {
                debug!(%subscription, status, ?delivered, "the receiver answered");
            }
            delivered
        }
        Err(error) => {
            if first {
                warn!(%subscription, %error, "a webhook failed");
            } else {
                debug!(%subscription, %error, "a webhook failed again");
            }
            Delivered::Failed
        }
    }
}
