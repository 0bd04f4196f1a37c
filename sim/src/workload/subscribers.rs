//! Subscriptions of a simulation, and those who make, delete, link and look at them. Changes of
//! one subscription come one after the other, so what is there is known but for lost answers.

use rand::RngExt;
use weir_engine::{
    request::{Create, Error},
    subscribe::{Delivery, Pattern, Refused, Subscribe, SubscriptionId, SubscriptionView},
    types::{ContentType, StreamName},
};

use super::{Client, verbs::Said, writers};
use crate::{
    checks::{self, Breach},
    model::Work,
    require,
    world::Host,
};

/// Where wakes are announced. Clients of the model do not use it.
pub const WAKES: &str = "wakes";

/// A subscription that clients use.
#[derive(Clone, Debug)]
pub struct Kind {
    pub id: SubscriptionId,
    pub pattern: Option<Pattern>,
    pub streams: Vec<StreamName>,
    pub is_pull: bool,
    pub lease_ms: u64,
}

/// All subscriptions of a simulation.
///
/// # Panics
/// Never: ids, patterns and names are good.
#[must_use]
pub fn kinds() -> Vec<Kind> {
    let name = |text: &&str| StreamName::new(text).expect("a good name");
    let kind = |id, pattern: &str, streams: &[&str], is_pull, lease_ms| Kind {
        id: SubscriptionId::new(id).expect("a good id"),
        pattern: (!pattern.is_empty()).then(|| Pattern::new(pattern).expect("a good pattern")),
        streams: streams.iter().map(name).collect(),
        is_pull,
        lease_ms,
    };
    vec![
        kind("pull-stable", "s/*", &[], true, 1000),
        kind("pull-churning", "c/*", &["e/0", "nowhere"], true, 2000),
        kind("pull-forked", "f/**", &[], true, 1500),
        kind("hook-stable", "s/*", &[], false, 1000),
        kind("hook-mixed", "*/1", &["c/0"], false, 3000),
        kind("hook-named", "", &["e/1", "s/0"], false, 1200),
    ]
}

impl Kind {
    /// As it is asked for; `other`: not as it should be there.
    fn subscribe(&self, other: bool) -> Subscribe {
        let wake_stream = StreamName::new(WAKES).expect("a good name");
        let delivery = match self.is_pull {
            true => Delivery::PullWake { wake_stream },
            false => Delivery::Webhook { url: format!("https://example.com/{}", self.id) },
        };
        Subscribe {
            id: self.id.clone(),
            pattern: self.pattern.clone(),
            streams: self.streams.clone(),
            delivery,
            lease_ttl_ms: self.lease_ms,
            description: other.then(|| "another".to_owned()),
            base: None,
        }
    }
}

/// Makes subscriptions and changes them.
pub(super) async fn subscriber(mut client: Client) {
    if client.host.store.is_none() {
        // What a client learns of subscriptions over HTTP is not held against the model yet.
        return writers::appender(client).await;
    }
    let kinds = kinds();
    client.host.announce().await;
    for kind in &kinds {
        client.host.subscribe(kind).await;
    }
    while client.think().await {
        let kind = &kinds[client.chance.random_range(0..kinds.len())];
        let host = client.host.clone();
        match client.chance.random_range(0..20) {
            0..6 => host.subscribe(kind).await,
            6 => host.unsubscribe(kind).await,
            7 => host.contradict(kind).await,
            8..11 => {
                let target = client.any();
                host.link(kind, &target.name, client.chance.random_bool(0.6)).await;
            }
            _ => drop(host.view(kind).await),
        }
    }
}

impl Host {
    /// Makes the stream in which wakes are announced.
    async fn announce(&self) {
        let create = Create::new(
            StreamName::new(WAKES).expect("a good name"),
            ContentType::parse("application/json"),
        );
        if self.engine().create(create).await.is_ok() {
            self.sim.announces.set(true);
        }
    }

    /// Begins a request to a subscription.
    #[must_use]
    pub fn asks(&self, kind: &Kind) -> Work {
        let now_ms = self.sim.now_ms();
        let mut model = self.sim.model.borrow_mut();
        model.subscription(&kind.id, kind.pattern.as_ref(), kind.lease_ms);
        model.asks(&kind.id, now_ms)
    }

    /// Sorts an answer of a subscription.
    pub fn told<T>(&self, what: &str, asked: &Work, answer: Result<T, Error>) -> Told<T> {
        let refused = match answer {
            Ok(value) => return Told::Yes(value),
            Err(Error::Refused(refused)) => refused,
            Err(error) => {
                let name = StreamName::new(WAKES).expect("a good name");
                let ticket = self.sim.model.borrow().nameless(name);
                return match self.sort::<()>(&ticket, &format!("{what} {}", asked.id), Err(error)) {
                    Said::Unknown => Told::Unknown,
                    Said::Yes(()) | Said::No(_) | Said::Nothing => Told::Nothing,
                };
            }
        };
        self.sim.note(&format!("{what} {}: {refused}", asked.id));
        if refused == Refused::NotFound {
            let seen = self.sim.model.borrow().saw_subscription(asked, false);
            self.sim.check(seen);
        }
        Told::No(refused)
    }

    /// Takes the right to change a subscription, if nobody else is about to.
    fn takes(&self, kind: &Kind) -> Option<bool> {
        let mut model = self.sim.model.borrow_mut();
        let known = model.subscription(&kind.id, kind.pattern.as_ref(), kind.lease_ms);
        if known.busy {
            return None;
        }
        let there = known.life.is_some();
        model.changes(&kind.id);
        Some(there)
    }

    /// Makes or confirms a subscription.
    pub async fn subscribe(&self, kind: &Kind) {
        if !self.sim.announces.get() {
            return;
        }
        let Some(there) = self.takes(kind) else { return };
        let asked = self.asks(kind);
        let answer = self.engine().subscriptions().put(kind.subscribe(false)).await;
        // It may have been made and then not been read.
        let unread = matches!(answer, Err(Error::ReadFailed(_)));
        match self.told("subscribe", &asked, answer) {
            Told::Yes(subscribed) => {
                self.sim.note(&format!("subscribe {}: new {}", kind.id, subscribed.new));
                let mut model = self.sim.model.borrow_mut();
                model.changed(&kind.id, Some(true));
                // A name may have been taken back since it was made.
                for stream in kind.streams.iter().filter(|_| subscribed.new) {
                    model.names_stream(&kind.id, stream, true);
                }
                drop(model);
                if subscribed.new == there {
                    let new = subscribed.new;
                    let what = format!("'{}' is new: {new}, it was there: {there}", kind.id);
                    self.sim.check::<()>(Breach::of(checks::STALE, what));
                }
            }
            Told::No(refused) => {
                self.sim.model.borrow_mut().changed(&kind.id, None);
                let what = format!("'{}' is refused: {refused}", kind.id);
                self.sim.check::<()>(Breach::of(checks::STALE, what));
            }
            Told::Nothing if !unread => self.sim.model.borrow_mut().changed(&kind.id, None),
            Told::Nothing | Told::Unknown => {}
        }
    }

    /// Deletes a subscription.
    pub async fn unsubscribe(&self, kind: &Kind) {
        let Some(_) = self.takes(kind) else { return };
        let asked = self.asks(kind);
        let answer = self.engine().subscriptions().delete(&kind.id).await;
        match self.told("unsubscribe", &asked, answer) {
            Told::Yes(()) => {
                self.sim.note(&format!("unsubscribe {}", kind.id));
                self.sim.model.borrow_mut().changed(&kind.id, Some(false));
            }
            Told::No(_) | Told::Nothing => self.sim.model.borrow_mut().changed(&kind.id, None),
            Told::Unknown => {}
        }
    }

    /// Asks for another subscription under the same id.
    async fn contradict(&self, kind: &Kind) {
        let Some(there) = self.takes(kind) else { return };
        if !there {
            // Another one would be made.
            return self.sim.model.borrow_mut().changed(&kind.id, None);
        }
        let asked = self.asks(kind);
        let answer = self.engine().subscriptions().put(kind.subscribe(true)).await;
        let told = self.told("contradict", &asked, answer);
        self.sim.model.borrow_mut().changed(&kind.id, None);
        if matches!(told, Told::Yes(_)) {
            let what = format!("'{}' was there and was made otherwise", kind.id);
            self.sim.check::<()>(Breach::of(checks::STALE, what));
        }
    }

    /// Links a stream by name, or takes that back.
    async fn link(&self, kind: &Kind, stream: &StreamName, linked: bool) {
        let Some(_) = self.takes(kind) else { return };
        if !linked {
            self.sim.model.borrow_mut().names_stream(&kind.id, stream, false);
        }
        let asked = self.asks(kind);
        let subscriptions = self.engine().subscriptions();
        let answer = match linked {
            true => subscriptions.add(&kind.id, vec![stream.clone()]).await,
            false => subscriptions.remove(&kind.id, stream).await,
        };
        let told = self.told("link", &asked, answer);
        self.sim.note(&format!("link {} {stream} {linked}: {told:?}", kind.id));
        let mut model = self.sim.model.borrow_mut();
        // Whether a link by name is there matters only to what it must show.
        model.changed(&kind.id, None);
        if linked && matches!(told, Told::Yes(())) {
            model.names_stream(&kind.id, stream, true);
        }
    }

    /// Looks at a subscription. `None`: there is no answer, or it was refused.
    pub async fn view(&self, kind: &Kind) -> Option<SubscriptionView> {
        let asked = self.asks(kind);
        let answer = self.engine().subscriptions().get(&kind.id).await;
        let Told::Yes(view) = self.told("view", &asked, answer) else { return None };
        self.sim.note(&format!("view {}: {} pending", kind.id, view.links.pending));
        let checked = self.saw_view(kind, &asked, &view);
        self.sim.check(checked);
        Some(view)
    }

    fn saw_view(&self, kind: &Kind, asked: &Work, view: &SubscriptionView) -> Result<(), Breach> {
        let mut model = self.sim.model.borrow_mut();
        model.saw_subscription(asked, true)?;
        require!(
            *view.config == kind.subscribe(false),
            checks::ACKED,
            "'{}' is {:?}",
            kind.id,
            view.config
        );
        model.saw_links(asked, &view.links)
    }

    /// After a restart: what is there of subscriptions whose last change nobody answered.
    pub async fn settle_subscriptions(&self) {
        for kind in kinds() {
            let known = self.sim.model.borrow().knows(&kind.id);
            let Some(busy) = known else { continue };
            if !busy {
                self.view(&kind).await;
                continue;
            }
            let there = match self.engine().subscriptions().get(&kind.id).await {
                Ok(_) => true,
                Err(Error::Refused(Refused::NotFound)) => false,
                Err(_) => continue,
            };
            self.sim.note(&format!("{} is there: {there}", kind.id));
            self.sim.model.borrow_mut().changed(&kind.id, Some(there));
        }
    }
}

/// How a subscription answered.
#[derive(Debug)]
pub enum Told<T> {
    Yes(T),
    No(Refused),
    /// Nothing was done.
    Nothing,
    Unknown,
}
