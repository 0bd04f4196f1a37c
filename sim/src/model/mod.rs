//! The truth as far as clients know it. Answers add to it; nothing is ever taken back but the
//! doubt about a request whose outcome nobody told.
//!
//! A record seen once, in an acknowledgement or in a page, is known at its place for ever. A
//! name is known to live only if an answer said so to a request that began when no deletion was
//! on its way, and known to be gone up to an epoch only by an answer too. So no order of
//! concurrent requests has to be guessed.

mod doubts;
mod forks;
mod records;
mod recovered;
mod retention;
mod subscriptions;

use std::collections::BTreeMap;

use weir_engine::{
    subscribe::SubscriptionId,
    types::{Expiry, Offset, Retention, StreamName},
};

pub use self::{
    doubts::Doubt,
    forks::{Asked, Origin, Plan},
    records::{Fate, Mark, Request},
    subscriptions::Work,
};
use crate::{
    checks::{self, Breach},
    require,
};

/// One life of a name.
#[derive(Clone, Debug, Default)]
pub struct Incarnation {
    /// Where it comes from, if it is a fork.
    pub origin: Option<Origin>,
    /// What is known at each position of its own: request and index.
    pub records: Vec<Option<Mark>>,
    /// The tail is at least here.
    pub tail: u64,
    /// What of it somebody was told is kept.
    pub acked: u64,
    /// What of the tail was known when the store was started the last time, and what of that was acked.
    pub kept: (u64, u64),
    /// The tail is here for ever.
    pub closed: Option<u64>,
    /// No deletion began since an answer said that it lives.
    pub alive: bool,
    /// When the last request that touched it began.
    pub touched_ms: Option<u64>,
    pub expiry: Option<Expiry>,
    /// It was not there any more because its window had passed. That is told although it can't be
    /// written down while the disk does not read; until it is, what the life comes from is kept.
    pub lapsed: bool,
    /// That may not have been written down: after a restart it may be there for a while.
    unwritten: bool,
    pub created: Option<u64>,
    /// What can be read begins here or later.
    pub earliest: u64,
    /// Where it begins, of a life without limits of its own.
    pub begins: Option<u64>,
    /// Its limits, while it is known which of those that were asked for are in force.
    pub retention: Option<Retention>,
}

/// What is known of a name.
#[derive(Clone, Debug, Default)]
pub struct Named {
    pub lives: BTreeMap<u32, Incarnation>,
    /// Epochs below are over.
    pub floor: u32,
    /// Epochs below are over and kept for nobody.
    pub free: u32,
    pub deletions_open: u32,
    pub deletions: u64,
    pub creations_open: u32,
    pub creations: u64,
    /// Forks use it: it is created by one request at a time.
    pub planned: bool,
    /// That request, until its outcome is known.
    pub plan: Option<Plan>,
    /// Limits of what it keeps that were ever asked for.
    pub limits: Vec<Retention>,
    pub changes_open: u32,
    /// How many changes of limits began or came to an end by themselves.
    pub changes: u64,
    /// The instant at which the next life is to expire, for dated streams.
    pub dated: Option<u64>,
}

/// How far an answer that something is absent can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It can't come back.
    Final,
    /// It can't until a restart: that a window has passed is told although it can't be written down.
    Lapsed,
    /// The store can't write down what it says.
    Unwritten,
}

/// What was known when a request began.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub name: StreamName,
    pub began_ms: u64,
    pub newest: Option<u32>,
    floor: u32,
    tail: u64,
    earliest: u64,
    closed: bool,
    alive: Option<u32>,
    calm: bool,
    deletions: u64,
    creations: u64,
    creations_open: bool,
    /// Limits that were known to be in force.
    retention: Option<Retention>,
    changes: u64,
    changes_open: bool,
    /// A live fork that keeps the name.
    keeper: Option<(StreamName, u32)>,
    /// It may have had forks.
    forked: bool,
    plans: u64,
    /// The store took writes.
    pub serving: bool,
}

impl Ticket {
    /// Where what can be read of it was known to begin.
    #[must_use]
    pub const fn earliest(&self) -> u64 {
        self.earliest
    }

    /// The same of one life of it.
    #[must_use]
    pub fn earliest_of(&self, epoch: u32) -> u64 {
        if self.newest == Some(epoch) { self.earliest } else { 0 }
    }

    /// Whether the stream was known to live.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.alive.is_some()
    }
}

/// The model of a store.
#[derive(Debug, Default)]
pub struct Model {
    pub names: BTreeMap<StreamName, Named>,
    pub requests: Vec<Request>,
    /// Those on their way, and how often each of them is.
    pending: BTreeMap<usize, u32>,
    /// The latest wall time any engine has seen.
    pub wall_max: u64,
    /// How many creations of streams that may be forks began.
    plans: u64,
    subscriptions: BTreeMap<SubscriptionId, subscriptions::Subscription>,
}

type Checked = Result<(), Breach>;

impl Model {
    /// Notes what is known as a request begins.
    pub fn ticket(&mut self, name: &StreamName, now_ms: u64) -> Ticket {
        let (keeper, forked) = (self.keeper(name), self.may_have_forks(name));
        let named = self.names.entry(name.clone()).or_default();
        let newest = named.lives.last_key_value();
        Ticket {
            name: name.clone(),
            began_ms: now_ms,
            newest: newest.map(|(epoch, _)| *epoch),
            floor: named.floor,
            tail: newest.map_or(0, |(_, life)| life.tail),
            earliest: newest.map_or(0, |(_, life)| life.earliest),
            closed: newest.is_some_and(|(_, life)| life.closed.is_some()),
            alive: newest.filter(|(_, life)| life.alive).map(|(epoch, _)| *epoch),
            calm: named.deletions_open == 0,
            deletions: named.deletions,
            creations: named.creations,
            creations_open: named.creations_open > 0,
            retention: newest.and_then(|(_, life)| life.retention),
            changes: named.changes,
            changes_open: named.changes_open > 0,
            keeper,
            forked,
            plans: self.plans,
            serving: false,
        }
    }

    /// Bytes of so many of the largest requests that were ever sent, each record with so much beside it.
    #[must_use]
    pub fn largest(&self, count: usize, beside: usize) -> usize {
        let bytes = |records: &[Vec<u8>]| records.iter().map(|it| it.len() + beside).sum();
        let mut sizes: Vec<usize> = self.requests.iter().map(|it| bytes(&it.records)).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.iter().take(count).sum()
    }

    /// For a request that is about no stream.
    #[must_use]
    pub fn nameless(&self, name: StreamName) -> Ticket {
        Ticket {
            name,
            began_ms: 0,
            newest: None,
            floor: 0,
            tail: 0,
            earliest: 0,
            closed: false,
            alive: None,
            calm: false,
            deletions: 0,
            creations: 0,
            creations_open: false,
            retention: None,
            changes: 0,
            changes_open: false,
            keeper: None,
            forked: false,
            plans: 0,
            serving: false,
        }
    }

    /// The machine died or was restarted: whatever was on its way may have happened.
    pub fn restart(&mut self) {
        for (id, _) in std::mem::take(&mut self.pending) {
            self.doubt(id);
        }
        for named in self.names.values_mut() {
            if named.deletions_open > 0 {
                named.deletions_open = 0;
                named.deletions += 1;
            }
            named.creations += u64::from(std::mem::take(&mut named.creations_open));
            named.changes += u64::from(std::mem::take(&mut named.changes_open));
            named.lives.values_mut().for_each(|life| life.kept = (life.tail, life.acked));
            let Some((epoch, life)) = named.lives.iter_mut().next_back() else { continue };
            if std::mem::take(&mut life.unwritten) && named.floor == epoch + 1 {
                (named.floor, named.free) = (*epoch, named.free.min(*epoch));
            }
        }
    }

    /// A creation begins.
    pub fn creation_begins(&mut self, name: &StreamName) {
        let named = self.names.entry(name.clone()).or_default();
        named.creations += 1;
        named.creations_open += 1;
    }

    /// A creation was answered for certain.
    pub fn creation_ends(&mut self, name: &StreamName) {
        let named = self.names.entry(name.clone()).or_default();
        named.creations_open = named.creations_open.saturating_sub(1);
        if let Some(plan) = &mut named.plan {
            plan.open = plan.open.saturating_sub(1);
        }
    }

    /// A creation ended without an answer.
    pub fn creation_in_doubt(&mut self, name: &StreamName) {
        if let Some(plan) = self.names.get_mut(name).and_then(|named| named.plan.as_mut()) {
            plan.open = plan.open.saturating_sub(1);
            plan.doubts += 1;
        }
    }

    /// A deletion begins.
    pub fn deletion_begins(&mut self, name: &StreamName) {
        let named = self.names.entry(name.clone()).or_default();
        named.deletions += 1;
        named.deletions_open += 1;
        for life in named.lives.values_mut() {
            life.alive = false;
        }
    }

    /// A deletion was answered for certain. `done`: everything known before it is over.
    pub fn deletion_ends(&mut self, ticket: &Ticket, done: bool) {
        let named = self.names.entry(ticket.name.clone()).or_default();
        named.deletions_open = named.deletions_open.saturating_sub(1);
        if done {
            named.bury(ticket.newest);
        }
    }

    /// An answer showed that a life is, or was when the request was decided, alive.
    pub fn saw_life(&mut self, ticket: &Ticket, epoch: u32) -> Checked {
        let name = &ticket.name;
        require!(
            epoch >= ticket.floor,
            checks::STALE,
            "'{name}' shows epoch {epoch}, which was over (floor {}) before the request",
            ticket.floor
        );
        self.meet(name, epoch)?;
        let named = self.names.entry(name.clone()).or_default();
        let newest = named.lives.last_key_value().map(|(epoch, _)| *epoch);
        let calm = ticket.calm && ticket.deletions == named.deletions;
        if newest.is_none_or(|newest| epoch >= newest) {
            let life = named.lives.entry(epoch).or_default();
            life.alive |= calm;
            if epoch > 0 {
                named.bury(Some(epoch - 1));
            }
        }
        Ok(())
    }

    /// An answer showed a tail.
    pub fn saw_tail(&mut self, ticket: &Ticket, tail: Offset) -> Checked {
        let epoch = tail.epoch.get();
        let next = tail.next.get();
        self.saw_life(ticket, epoch)?;
        let name = &ticket.name;
        if ticket.newest == Some(epoch) {
            let (seen, acked) = self.life(name, epoch).kept;
            require!(
                next >= acked.min(ticket.tail),
                checks::ACKED,
                "the tail of '{name}' is {epoch}_{next} but {acked} was acked before the restart"
            );
            require!(
                next >= seen.min(ticket.tail),
                checks::DURABLE,
                "the tail of '{name}' is {epoch}_{next} but was seen at {seen} before the restart"
            );
            require!(
                next >= ticket.tail,
                checks::LINEAR,
                "the tail of '{name}' is {epoch}_{next} but was {} before the request began",
                ticket.tail
            );
        }
        let was_closed = ticket.closed && ticket.newest == Some(epoch);
        let life = self.life(name, epoch);
        if let Some(closed) = life.closed {
            require!(
                next <= closed && (next == closed || !was_closed),
                checks::CLOSED,
                "'{name}' was closed at {epoch}_{closed}, its tail is {next}"
            );
        }
        life.tail = life.tail.max(next);
        Ok(())
    }

    /// An append or a creation was answered: what lies before this is kept.
    pub fn told(&mut self, name: &StreamName, tail: Offset) {
        let life = self.life(name, tail.epoch.get());
        life.acked = life.acked.max(tail.next.get());
    }

    /// An answer showed that a life is closed here.
    pub fn saw_closed(&mut self, ticket: &Ticket, tail: Offset) -> Checked {
        let life = self.life(&ticket.name, tail.epoch.get());
        let next = tail.next.get();
        let known = *life.closed.get_or_insert(next);
        require!(
            known == next && life.tail <= next,
            checks::CLOSED,
            "'{}' is closed at {next}, but at {known} before, and its tail was {}",
            ticket.name,
            life.tail
        );
        Ok(())
    }

    /// An answer showed that a life is open.
    pub fn saw_open(&mut self, ticket: &Ticket, epoch: u32) -> Checked {
        require!(
            !(ticket.closed && ticket.newest == Some(epoch)),
            checks::CLOSED,
            "'{}' was closed and is open again",
            ticket.name
        );
        Ok(())
    }

    /// A request touched a life.
    pub fn touched(&mut self, ticket: &Ticket, epoch: u32) {
        let began = ticket.began_ms;
        let life = self.life(&ticket.name, epoch);
        life.touched_ms = Some(life.touched_ms.map_or(began, |before| before.max(began)));
    }

    /// An answer said that there is no such stream.
    pub fn saw_absence(&mut self, ticket: &Ticket, now_ms: u64, word: Word) -> Checked {
        self.check_absence(ticket, now_ms)?;
        if word != Word::Unwritten {
            self.check_free(ticket)?;
            let named = self.names.entry(ticket.name.clone()).or_default();
            let over = if word == Word::Final { ticket.alive } else { ticket.newest };
            let over = over.and_then(|epoch| named.lives.get_mut(&epoch));
            if let Some(life) = over.filter(|life| life.expiry != Some(Expiry::Never)) {
                life.lapsed = true;
                life.unwritten |= word == Word::Lapsed;
            }
            named.bury(ticket.newest);
            named.free = named.free.max(ticket.newest.map_or(0, |newest| newest + 1));
        }
        Ok(())
    }

    fn check_absence(&self, ticket: &Ticket, now_ms: u64) -> Checked {
        let Some(named) = self.names.get(&ticket.name) else {
            return Ok(());
        };
        let Some((epoch, life)) = ticket.alive.and_then(|it| Some((it, named.lives.get(&it)?)))
        else {
            return Ok(());
        };
        if named.deletions != ticket.deletions || !life.alive {
            return Ok(());
        }
        let name = &ticket.name;
        match life.expiry {
            Some(Expiry::Sliding { ttl_seconds }) => {
                let Some(touched) = life.touched_ms else { return Ok(()) };
                let idle = now_ms.saturating_sub(touched);
                require!(
                    idle >= ttl_seconds * 1000,
                    checks::WINDOW,
                    "'{name}' epoch {epoch} is gone {idle} ms after a touch, its window is {ttl_seconds} s"
                );
            }
            Some(Expiry::At(at)) => require!(
                self.wall_max >= at.get(),
                checks::WINDOW,
                "'{name}' epoch {epoch} is gone before its hour {at}"
            ),
            Some(Expiry::Never) => {
                return Breach::of(
                    checks::ACKED,
                    format!("'{name}' epoch {epoch} is gone and nobody deleted it"),
                );
            }
            None => {}
        }
        Ok(())
    }

    /// Whether the ticket's stream must be there: `Some(epoch)`.
    #[must_use]
    pub fn must_live(&self, ticket: &Ticket, now_ms: u64) -> Option<u32> {
        ticket.alive.filter(|_| self.check_absence(ticket, now_ms).is_err())
    }

    /// A life of a name.
    pub fn life(&mut self, name: &StreamName, epoch: u32) -> &mut Incarnation {
        self.names.entry(name.clone()).or_default().lives.entry(epoch).or_default()
    }
}

impl Named {
    /// Everything up to this epoch is over.
    fn bury(&mut self, through: Option<u32>) {
        let Some(through) = through else { return };
        self.floor = self.floor.max(through + 1);
        for (_, life) in self.lives.range_mut(..=through) {
            life.alive = false;
        }
    }
}
