//! The delivery loop: takes what is due from the engine, calls the receiver, tells how it went.
//!
//! Each delivery is a task of its own. It first waits for room at its receiver, then for room
//! among all calls; in this order a receiver that hangs fills its own room and leaves the rest
//! to others. A delivery whose wake is over is abandoned wherever it stands: the engine has
//! handed out the work anew or needs it no more.
//!
//! When the server drains, what waits is abandoned at once and calls under way may end; the
//! engine hands out again, after the restart, what was not finished.

use std::{future::Future, sync::Arc, time::Duration};

use hyper::header::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tracing::{debug, warn};
use weir_engine::{
    request::Error,
    subscribe::{Credential, Delivered, Due, SubscriptionId, Subscriptions, Wake},
    types::OffsetFormat,
};
use weir_io::{Clock, Tasks};

use super::{
    client::{Answer, Client, Failure},
    guard,
    hosts::{Hosts, Visitor},
    keys::Keys,
    message::{self, Bases},
    token::Tokens,
};
use crate::{
    App,
    app::Phase,
    metrics::{Deliveries, Outcome},
};

/// Calls at a time, to all receivers.
const CALLS_MAX: usize = 256;
/// Links in the messages of deliveries that were taken and are not over: about 128 bytes each.
/// A delivery counts for at least one.
const LINKS_TAKEN_MAX: u32 = 1 << 20;
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
    fn wake(&self) -> &Wake;
    /// How often it was tried before.
    fn failures(&self) -> u32;
    /// Resolves when the wake is over.
    fn superseded(&self) -> impl Future<Output = ()> + Send;
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

    fn wake(&self) -> &Wake {
        &self.wake
    }

    fn failures(&self) -> u32 {
        self.failures
    }

    async fn superseded(&self) {
        self.superseded().await;
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
    pub(super) calls: Semaphore,
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
            calls: Semaphore::new(CALLS_MAX),
        }
    }

    /// Waits for room at the receiver, then among all calls.
    async fn room(&self, visitor: &Visitor) -> (OwnedSemaphorePermit, SemaphorePermit<'_>) {
        let room = visitor.room().await;
        (room, self.calls.acquire().await.expect("this semaphore is never closed"))
    }

    /// One attempt.
    async fn call(&self, due: &impl Call) -> Result<Answer, Failure> {
        let began = self.clock.elapsed();
        let _under_way = self.figures.begin();
        let (body, signature) = self.message(due);
        let answer = self.client.post(due.url(), signature, body).await;
        self.figures.took(self.clock.elapsed().saturating_sub(began));
        answer
    }

    /// Signed when it is sent: receivers refuse what was signed long ago.
    fn message(&self, due: &impl Call) -> (bytes::Bytes, HeaderValue) {
        let (id, wake) = (due.subscription(), due.wake());
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
    let taken = Arc::new(Semaphore::new(usize::try_from(LINKS_TAKEN_MAX).expect("32 bits")));
    let (cut, cutting) = watch::channel(());
    let mut drain = phase.clone();
    loop {
        let next = async {
            let due = queue.next().await?;
            let links = u32::try_from(due.wake().links.listed.len()).unwrap_or(u32::MAX);
            let room = Arc::clone(&taken).acquire_many_owned(links.clamp(1, LINKS_TAKEN_MAX));
            Some((due, room.await.expect("this semaphore is never closed")))
        };
        let next = tokio::select! {
            biased;
            () = drained(&mut drain) => None,
            next = next => next,
        };
        let Some((due, room)) = next else { break };
        let work = deliver(Arc::clone(&courier), due, room, phase.clone(), cutting.clone());
        courier.tasks.spawn("delivery", Box::pin(work));
    }
    let all = || taken.acquire_many(LINKS_TAKEN_MAX);
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
    room: OwnedSemaphorePermit,
    mut phase: watch::Receiver<Phase>,
    mut cutting: watch::Receiver<()>,
) {
    let _room = room;
    // A URL that the guard refuses by now needs no room: the client says why.
    let authority = guard::check_url(due.url(), guard::Loopback::Allowed);
    let authority = authority.map_or_else(|_| String::new(), |target| target.authority());
    let visitor = courier.hosts.enter(authority);
    let room = tokio::select! {
        biased;
        () = due.superseded() => None,
        () = drained(&mut phase) => None,
        room = courier.room(&visitor) => Some(room),
    };
    let answer = match &room {
        None => None,
        Some(_) => tokio::select! {
            biased;
            () = due.superseded() => None,
            // The sender never sends: it is dropped.
            _ = cutting.changed() => None,
            answer = courier.call(&due) => Some(answer),
        },
    };
    drop(room);
    drop(visitor);
    let Some(answer) = answer else {
        debug!(subscription = %due.subscription(), "abandoned");
        courier.figures.ended(Outcome::Abandoned);
        return;
    };
    let delivered = judge(&due, &answer);
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
