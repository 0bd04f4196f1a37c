//! Workers of subscriptions: they claim or are called, read what is to be done, ack it in parts or
//! at once, say that they are alive, give work back, fall silent, and some come back as zombies.
//!
//! What a worker remembers outlives the boot, as a worker on another machine would.

use std::{cell::RefCell, time::Duration};

use rand::RngExt;
use weir_engine::{
    subscribe::{Ack, Credential, Delivered, Refused, Report, Via, Wake},
    types::{Offset, Seq, StreamName},
};

use super::{
    Client,
    subscribers::{Kind, Told, kinds},
};
use crate::{
    checks::{self, Breach},
    world::Host,
};

/// Wakes that workers remember.
pub type Wakes = RefCell<Vec<(Kind, Wake)>>;

/// Wakes kept for zombies.
const WAKES_KEPT: usize = 64;

/// Claims and works.
pub(super) async fn puller(mut client: Client) {
    let kinds: Vec<_> = kinds().into_iter().filter(|kind| kind.is_pull).collect();
    while client.think().await {
        if client.chance.random_bool(0.15) {
            client.haunt_subscription().await;
            continue;
        }
        let kind = kinds[client.chance.random_range(0..kinds.len())].clone();
        let worker = format!("worker-{}", client.no);
        if let Some(wake) = client.host.claim(&kind, &worker).await {
            client.work(&kind, &wake, Via::Pull).await;
        }
    }
}

/// Is called and works.
pub(super) async fn receiver(mut client: Client) {
    let kinds = kinds();
    while client.think().await {
        let host = client.host.clone();
        let subscriptions = host.engine().subscriptions();
        let patience = Duration::from_millis(client.chance.random_range(1..800));
        let due = tokio::time::timeout(patience, subscriptions.next_delivery()).await;
        let Ok(Some(due)) = due else { continue };
        let Some(kind) = kinds.iter().find(|kind| kind.id == due.subscription) else {
            let what = format!("'{}' wakes, and nobody made it", due.subscription);
            host.sim.check::<()>(Breach::of(checks::STALE, what));
            return;
        };
        let asked = host.asks(kind);
        let Told::Yes(Some(wake)) = host.told("call", &asked, due.begin().await) else { continue };
        host.sim.note(&format!("call {}: {}", kind.id, wake.generation));
        host.remember(kind, &wake);
        let seen = host.sim.model.borrow_mut().saw_wake(&asked, &wake);
        host.sim.check(seen);
        let delivered = match client.chance.random_range(0..10) {
            0..4 => Delivered::Done,
            4..7 => Delivered::Accepted,
            7..9 => Delivered::Failed,
            // The call never ends: nobody says how it went.
            _ => continue,
        };
        host.delivered(kind, due, &wake, delivered).await;
        if delivered == Delivered::Accepted {
            client.work(kind, &wake, Via::Callback).await;
        }
    }
}

impl Client {
    /// Does some of the work that a wake lists, all of it, or none.
    pub async fn work(&mut self, kind: &Kind, wake: &Wake, via: Via) {
        let mut left: Vec<_> = wake.links.listed.iter().filter(|it| it.has_pending()).collect();
        while !left.is_empty() && self.chance.random_bool(0.85) && self.think().await {
            let count = self.chance.random_range(0..=left.len());
            let acks: Vec<_> = left
                .iter()
                .take(count)
                .map(|link| {
                    let part = link.acked.epoch == link.tail.epoch
                        && self.chance.random_bool(0.4)
                        && !link.path.as_str().starts_with('f');
                    let first = if part { link.acked.next.get() + 1 } else { link.tail.next.get() };
                    let next = self.chance.random_range(first..=link.tail.next.get());
                    (link.path.clone(), Offset { next: Seq::new(next), ..link.tail })
                })
                .collect();
            if self.chance.random_bool(0.05) {
                self.host.overreach(kind, wake, via, &acks).await;
                continue;
            }
            let done = self.chance.random_bool(0.3);
            if !self.host.report(kind, wake, via, &acks, done).await || done {
                return;
            }
            left.drain(..count);
        }
        match self.chance.random_range(0..4) {
            0 => drop(self.host.report(kind, wake, via, &[], true).await),
            1 if via == Via::Pull => self.host.release(kind, wake).await,
            // Silence.
            _ => {}
        }
    }

    /// Reports on a wake of long ago.
    async fn haunt_subscription(&mut self) {
        let wakes = self.host.sim.wakes.borrow().clone();
        if wakes.is_empty() {
            return;
        }
        let (kind, wake) = &wakes[self.chance.random_range(0..wakes.len())];
        let via = if kind.is_pull { Via::Pull } else { Via::Callback };
        let links = wake.links.listed.iter().filter(|it| it.has_pending());
        let acks: Vec<_> = links.map(|link| (link.path.clone(), link.tail)).collect();
        let done = self.chance.random_bool(0.5);
        self.host.report(kind, wake, via, &acks, done).await;
    }
}

impl Host {
    /// Keeps a wake for those who come back from the dead.
    pub fn remember(&self, kind: &Kind, wake: &Wake) {
        let mut wakes = self.sim.wakes.borrow_mut();
        if wakes.len() == WAKES_KEPT {
            wakes.remove(0);
        }
        wakes.push((kind.clone(), wake.clone()));
    }

    /// A worker did all that it was called for, and may be about to say so.
    pub fn worked(&self, kind: &Kind, wake: &Wake) {
        let links = wake.links.listed.iter().filter(|it| it.has_pending());
        let acks: Vec<_> = links.map(|link| (link.path.clone(), link.tail)).collect();
        let asked = self.asks(kind);
        self.sim.model.borrow_mut().acks(&asked, wake, &acks, true);
    }

    /// Takes the work.
    pub async fn claim(&self, kind: &Kind, worker: &str) -> Option<Wake> {
        let asked = self.asks(kind);
        let answer = self.door.claim(&kind.id, worker).await;
        match self.told("claim", &asked, answer) {
            Told::Yes(wake) => {
                let (generation, pending) = (wake.generation, wake.links.pending);
                self.sim.note(&format!("claim {}: {generation}, {pending} pending", kind.id));
                self.remember(kind, &wake);
                let now_ms = self.sim.now_ms();
                let seen = self.sim.model.borrow_mut().saw_claim(&asked, &wake, now_ms);
                self.sim.check(seen);
                Some(wake)
            }
            Told::No(Refused::NoPendingWork) => {
                let seen = self.sim.model.borrow().saw_no_work(&asked);
                self.sim.check(seen);
                None
            }
            Told::No(_) | Told::Nothing | Told::Unknown => None,
        }
    }

    /// Reports. False: it was not taken.
    pub async fn report(
        &self,
        kind: &Kind,
        wake: &Wake,
        via: Via,
        acks: &[(StreamName, Offset)],
        done: bool,
    ) -> bool {
        let asked = self.asks(kind);
        self.sim.model.borrow_mut().acks(&asked, wake, acks, done);
        let answer = self.door.report(&kind.id, via, paper(wake, acks, done)).await;
        match self.told("report", &asked, answer) {
            Told::Yes(_) => {
                let generation = wake.generation;
                self.sim.note(&format!("report {} {generation}: {acks:?} done {done}", kind.id));
                let seen = self.sim.model.borrow_mut().acked(&asked, wake, acks, done);
                self.sim.check(seen);
                true
            }
            Told::No(Refused::Fenced) => {
                let seen = self.sim.model.borrow().fenced(&asked, wake, self.sim.now_ms());
                self.sim.check(seen);
                false
            }
            Told::No(_) | Told::Nothing | Told::Unknown => false,
        }
    }

    /// Acks what does not exist.
    async fn overreach(&self, kind: &Kind, wake: &Wake, via: Via, acks: &[(StreamName, Offset)]) {
        let Some((stream, offset)) = acks.first() else { return };
        let beyond = Offset { next: Seq::new(offset.next.get() + 1_000_000), ..*offset };
        let mut acks = acks.to_vec();
        acks.push((stream.clone(), beyond));
        let asked = self.asks(kind);
        let answer = self.door.report(&kind.id, via, paper(wake, &acks, false)).await;
        if let Told::Yes(_) = self.told("overreach", &asked, answer) {
            let what = format!("'{}' took acks beyond the tail: {acks:?}", kind.id);
            self.sim.check::<()>(Breach::of(checks::CURSOR, what));
        }
    }

    /// Gives the work back.
    async fn release(&self, kind: &Kind, wake: &Wake) {
        let asked = self.asks(kind);
        self.sim.model.borrow_mut().acks(&asked, wake, &[], true);
        let generation = wake.generation;
        let answer = self.door.release(&kind.id, credential(wake), wake.wake_id).await;
        if let Told::Yes(()) = self.told("release", &asked, answer) {
            self.sim.note(&format!("release {} {generation}", kind.id));
            let seen = self.sim.model.borrow_mut().acked(&asked, wake, &[], true);
            self.sim.check(seen);
        }
    }

    /// Tells how a call went.
    pub async fn delivered(
        &self,
        kind: &Kind,
        due: weir_engine::subscribe::Due,
        wake: &Wake,
        delivered: Delivered,
    ) {
        let done = delivered == Delivered::Done;
        let links = wake.links.listed.iter().filter(|it| done && it.has_pending());
        let acks: Vec<_> = links.map(|link| (link.path.clone(), link.tail)).collect();
        let asked = self.asks(kind);
        self.sim.model.borrow_mut().acks(&asked, wake, &acks, done);
        let answer = due.finish(delivered).await;
        if let Told::Yes(()) = self.told("finish", &asked, answer) {
            self.sim.note(&format!("finish {} {}: {delivered:?}", kind.id, wake.generation));
            if done {
                let seen = self.sim.model.borrow_mut().acked(&asked, wake, &acks, true);
                self.sim.check(seen);
            }
        }
    }
}

fn credential(wake: &Wake) -> Credential {
    Credential { incarnation: wake.incarnation, generation: wake.generation }
}

fn paper(wake: &Wake, acks: &[(StreamName, Offset)], done: bool) -> Report {
    let acks = acks.iter().map(|(stream, offset)| Ack { stream: stream.clone(), offset: *offset });
    Report {
        credential: credential(wake),
        wake_id: wake.wake_id,
        generation: wake.generation,
        acks: acks.collect(),
        done,
    }
}
