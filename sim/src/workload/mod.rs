//! Random clients, each a task with a stream of chance of its own, which ends with its host.
//!
//! A client knows nothing that the model does not: whatever it was doing when the power went is
//! in the model as a maybe, and the next boot starts new clients.

pub mod creation;
pub mod events;
pub mod forks;
pub mod life;
pub mod live;
pub mod producer;
pub mod readers;
pub mod retention;
pub mod subscribers;
pub mod verbs;
pub mod workers;
pub mod writers;

use std::{future::Future, pin::Pin, rc::Rc, time::Duration};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::types::{ContentType, Expiry, Form, StreamName};

use crate::world::Host;

/// What may happen to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing but appends.
    Stable,
    /// It is closed at some time.
    Ending,
    /// It is deleted and created again and again.
    Churning,
    /// It has a sliding window.
    Sliding,
    /// It ends at an instant of the wall clock.
    Dated,
    /// It lets go of what is too old or too much.
    Trimmed,
    /// It is made as a fork of others, deleted, and made again.
    Forked,
}

/// A stream that clients use.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: StreamName,
    pub content: ContentType,
    pub class: Class,
    pub number: u64,
}

impl Target {
    /// How its bytes are treated.
    #[must_use]
    pub fn form(&self) -> Form {
        self.content.form()
    }

    /// Whether it has one life only.
    #[must_use]
    pub fn keeps(&self) -> bool {
        matches!(self.class, Class::Stable | Class::Ending)
    }

    /// The expiry it is created with, as far as its class says.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        match self.class {
            Class::Sliding => Expiry::Sliding { ttl_seconds: 1 + self.number * 2 },
            _ => Expiry::Never,
        }
    }
}

/// All streams of a simulation.
///
/// # Panics
/// Never: the names and types are good.
#[must_use]
pub fn targets() -> Vec<Target> {
    let classes = [
        (Class::Stable, "s", 4),
        (Class::Ending, "e", 4),
        (Class::Churning, "c", 4),
        (Class::Sliding, "t", 3),
        (Class::Dated, "d", 2),
        (Class::Trimmed, "r", 4),
        (Class::Forked, "f", 12),
    ];
    let mut all = Vec::new();
    for (class, prefix, count) in classes {
        for number in 0..count {
            let kind = ["application/json", "text/plain", "application/x-simulated"];
            let kind = kind[all.len() % kind.len()];
            all.push(Target {
                name: StreamName::new(&format!("{prefix}/{number}")).expect("a good name"),
                content: ContentType::parse(kind).expect("a good type"),
                class,
                number,
            });
        }
    }
    all
}

/// A client at work.
pub struct Client {
    pub host: Rc<Host>,
    pub no: u32,
    pub chance: ChaCha8Rng,
    pub targets: Rc<Vec<Target>>,
}

/// What a client is.
type Role = fn(Client) -> Pin<Box<dyn Future<Output = ()>>>;

/// What clients are that talk to the server over a network. Every seed has the first eight.
const AWAY: [Role; 20] = [
    |client| Box::pin(life::creator(client)),
    |client| Box::pin(writers::appender(client)),
    |client| Box::pin(subscribers::subscriber(client)),
    |client| Box::pin(forks::forker(client)),
    |client| Box::pin(workers::puller(client)),
    |client| Box::pin(events::follower(client)),
    |client| Box::pin(producer::producer(client)),
    |client| Box::pin(life::deleter(client)),
    |client| Box::pin(live::watcher(client)),
    |client| Box::pin(readers::scanner(client)),
    |client| Box::pin(events::follower(client)),
    |client| Box::pin(writers::appender(client)),
    |client| Box::pin(producer::producer(client)),
    |client| Box::pin(readers::keyed(client)),
    |client| Box::pin(readers::since(client)),
    |client| Box::pin(life::lister(client)),
    |client| Box::pin(workers::puller(client)),
    |client| Box::pin(writers::closer(client)),
    |client| Box::pin(forks::forker(client)),
    |client| Box::pin(live::watcher(client)),
];

const ROLES: [Role; 17] = [
    |client| Box::pin(life::creator(client)),
    |client| Box::pin(writers::appender(client)),
    |client| Box::pin(producer::producer(client)),
    |client| Box::pin(readers::scanner(client)),
    |client| Box::pin(forks::forker(client)),
    |client| Box::pin(subscribers::subscriber(client)),
    |client| Box::pin(workers::puller(client)),
    |client| Box::pin(workers::receiver(client)),
    |client| Box::pin(live::watcher(client)),
    |client| Box::pin(life::deleter(client)),
    |client| Box::pin(writers::appender(client)),
    |client| Box::pin(producer::producer(client)),
    |client| Box::pin(readers::keyed(client)),
    |client| Box::pin(readers::since(client)),
    |client| Box::pin(life::lister(client)),
    |client| Box::pin(writers::closer(client)),
    |client| Box::pin(workers::puller(client)),
];

/// Starts the clients of a boot.
#[must_use]
pub fn start(host: &Rc<Host>) -> Vec<tokio::task::JoinHandle<()>> {
    (0..host.sim.options.clients).map(|no| tokio::task::spawn_local(one(host, no))).collect()
}

/// The work of one client.
#[must_use]
pub fn one(host: &Rc<Host>, no: u32) -> Pin<Box<dyn Future<Output = ()>>> {
    let chance = host.sim.chance(no);
    let targets = Rc::new(targets());
    let client = Client { host: Rc::clone(host), no, chance, targets };
    let roles = if host.door.may_lose() { &AWAY[..] } else { &ROLES[..] };
    roles[usize::try_from(no).expect("small") % roles.len()](client)
}

impl Client {
    /// Waits a while. False: the client must end.
    pub async fn think(&mut self) -> bool {
        let most = self.host.sim.options.think_ms;
        let factor = if self.chance.random_bool(0.05) { 20 } else { 1 };
        let micros = self.chance.random_range(0..most * 2000 * factor);
        let until = tokio::time::Instant::now() + Duration::from_micros(micros);
        while tokio::time::Instant::now() < until {
            if self.host.stop.get() {
                return false;
            }
            let step = until.min(tokio::time::Instant::now() + Duration::from_millis(100));
            tokio::time::sleep_until(step).await;
        }
        // Even a client that never waits lets others run.
        tokio::task::yield_now().await;
        !self.host.stop.get() && self.host.sim.breach().is_none()
    }

    /// Any stream.
    pub fn any(&mut self) -> Target {
        let index = self.chance.random_range(0..self.targets.len());
        self.targets[index].clone()
    }

    /// Any stream of one of these classes.
    pub fn any_of(&mut self, classes: &[Class]) -> Target {
        loop {
            let target = self.any();
            if classes.contains(&target.class) {
                return target;
            }
        }
    }

    /// A routing key, or none.
    pub fn key(&mut self) -> Option<bytes::Bytes> {
        const KEYS: [&str; 3] = ["k0", "k1", "k2"];
        let index = self.chance.random_range(0..KEYS.len() * 2);
        KEYS.get(index).map(|key| bytes::Bytes::from_static(key.as_bytes()))
    }
}
