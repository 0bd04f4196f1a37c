//! Subscriptions of a simulation, and those who make, delete, link and look at them. Changes of
//! one subscription come one after the other, so what is there is known but for lost answers.

use std::net::{Ipv4Addr, SocketAddrV4};

use rand::RngExt;
use weir_engine::{
    request::{Create, Error},
    subscribe::{Delivery, Pattern, Refused, Subscribe, SubscriptionId, SubscriptionView},
    types::{ContentType, StreamName},
};

use super::{Client, verbs::Said};
use crate::{
    checks::{self, Breach},
    model::{Doubt, Work},
    require,
    world::{Host, Sim},
};

/// Where wakes are announced. Clients of the model do not use it.
pub const WAKES: &str = "wakes";
/// Where receivers listen.
const RECEIVER_PORT: u16 = 9000;
/// In place of a receiver.
const PULLED: u8 = 0;

/// A subscription that clients use.
#[derive(Clone, Debug)]
pub struct Kind {
    pub id: SubscriptionId,
    pub pattern: Option<Pattern>,
    pub streams: Vec<StreamName>,
    pub is_pull: bool,
    pub lease_ms: u64,
    /// Who is called, if it is not pulled.
    pub receiver: SocketAddrV4,
}

/// All subscriptions of a simulation.
///
/// # Panics
/// Never: ids, patterns and names are good.
#[must_use]
pub fn kinds() -> Vec<Kind> {
    let name = |text: &&str| StreamName::new(text).expect("a good name");
    let kind = |id, pattern: &str, streams: &[&str], receiver: u8, lease_ms| Kind {
        id: SubscriptionId::new(id).expect("a good id"),
        pattern: (!pattern.is_empty()).then(|| Pattern::new(pattern).expect("a good pattern")),
        streams: streams.iter().map(name).collect(),
        is_pull: receiver == PULLED,
        lease_ms,
        receiver: SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, receiver), RECEIVER_PORT),
    };
    vec![
        kind("pull-stable", "s/*", &[], PULLED, 1000),
        kind("pull-churning", "c/*", &["e/0", "nowhere"], PULLED, 2000),
        kind("pull-forked", "f/**", &[], PULLED, 1500),
        kind("hook-stable", "s/*", &[], 2, 1000),
        kind("hook-mixed", "*/1", &["c/0"], 2, 3000),
        kind("hook-named", "", &["e/1", "s/0"], 3, 1200),
    ]
}

impl Kind {
    /// Where its receiver is. In a town that is a machine of its own, although the server takes
    /// it for itself: TLS would only hide what happens on the way.
    fn url(&self) -> String {
        format!("http://{}/{}", self.receiver, self.id)
    }

    /// As it is asked for; `other`: not as it should be there.
    fn subscribe(&self, other: bool) -> Subscribe {
        let wake_stream = StreamName::new(WAKES).expect("a good name");
        let delivery = match self.is_pull {
            true => Delivery::PullWake { wake_stream },
            false => Delivery::Webhook { url: self.url() },
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
    let kinds = kinds();
    client.host.announce().await;
    for kind in &kinds {
        client.host.subscribe(kind).await;
    }
    while client.think().await {
        let kind = &kinds[client.chance.random_range(0..kinds.len())];
        let host = client.host.clone();
        if !host.sim.announces.get() {
            host.announce().await;
        }
        host.look_for_subscription(kind).await;
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
        if self.door.create(create).await.is_ok() {
            self.sim.announces.set(true);
        }
    }

    /// Begins a request to a subscription.
    #[must_use]
    pub fn asks(&self, kind: &Kind) -> Work {
        Self::work(&self.sim, kind)
    }

    /// What is known of a subscription now.
    #[must_use]
    pub fn work(sim: &Sim, kind: &Kind) -> Work {
        let now_ms = sim.now_ms();
        let mut model = sim.model.borrow_mut();
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
        let answer = self.door.subscribe(kind.subscribe(false)).await;
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
            Told::Nothing | Told::Unknown => self.sim.doubt(Doubt::Change(kind.id.clone())),
        }
    }

    /// Deletes a subscription.
    pub async fn unsubscribe(&self, kind: &Kind) {
        let Some(_) = self.takes(kind) else { return };
        let asked = self.asks(kind);
        let answer = self.door.unsubscribe(&kind.id).await;
        match self.told("unsubscribe", &asked, answer) {
            Told::Yes(()) => {
                self.sim.note(&format!("unsubscribe {}", kind.id));
                self.sim.model.borrow_mut().changed(&kind.id, Some(false));
            }
            Told::No(_) | Told::Nothing => self.sim.model.borrow_mut().changed(&kind.id, None),
            Told::Unknown => self.sim.doubt(Doubt::Change(kind.id.clone())),
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
        let answer = self.door.subscribe(kind.subscribe(true)).await;
        let told = self.told("contradict", &asked, answer);
        if self.may_come_late(&told) {
            return self.sim.doubt(Doubt::Change(kind.id.clone()));
        }
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
        let answer = match linked {
            true => self.door.link(&kind.id, stream).await,
            false => self.door.unlink(&kind.id, stream).await,
        };
        let told = self.told("link", &asked, answer);
        self.sim.note(&format!("link {} {stream} {linked}: {told:?}", kind.id));
        if self.may_come_late(&told) {
            return self.sim.doubt(Doubt::Change(kind.id.clone()));
        }
        let mut model = self.sim.model.borrow_mut();
        // Whether a link by name is there matters only to what it must show.
        model.changed(&kind.id, None);
        if linked && matches!(told, Told::Yes(())) {
            model.names_stream(&kind.id, stream, true);
        }
    }

    /// Whether a request that was given up may still be heard.
    fn may_come_late<T>(&self, told: &Told<T>) -> bool {
        self.door.may_lose() && matches!(told, Told::Unknown)
    }

    /// Looks at a subscription. `None`: there is no answer, or it was refused.
    pub async fn view(&self, kind: &Kind) -> Option<SubscriptionView> {
        let asked = self.asks(kind);
        let answer = self.door.view(&kind.id).await;
        let Told::Yes(view) = self.told("view", &asked, answer) else { return None };
        self.sim.note(&format!("view {}: {} pending", kind.id, view.links.pending));
        let checked = self.saw_view(kind, &asked, &view);
        self.sim.check(checked);
        Some(view)
    }

    fn saw_view(&self, kind: &Kind, asked: &Work, view: &SubscriptionView) -> Result<(), Breach> {
        let mut model = self.sim.model.borrow_mut();
        model.saw_subscription(asked, true)?;
        let mut expect = kind.subscribe(false);
        if self.door.may_lose() {
            expect.streams.clear();
        }
        require!(
            view.config.configures_as(&expect),
            checks::ACKED,
            "'{}' is {:?}",
            kind.id,
            view.config
        );
        model.saw_links(asked, &view.links)
    }

    /// A change that nobody answered is over: whether there is a subscription is to be seen.
    async fn look_for_subscription(&self, kind: &Kind) {
        if !self.sim.model.borrow().is_unsettled(&kind.id) {
            return;
        }
        let there = match self.door.view(&kind.id).await {
            Ok(_) => true,
            Err(Error::Refused(Refused::NotFound)) => false,
            Err(_) => return,
        };
        if self.sim.model.borrow().is_unsettled(&kind.id) {
            weir_io::sometimes!("what nobody was told of a subscription was seen later");
            self.sim.note(&format!("{} is there after all: {there}", kind.id));
            self.sim.model.borrow_mut().changed(&kind.id, Some(there));
        }
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
            let there = match self.door.view(&kind.id).await {
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
