//! The truth as far as clients know it. Answers add to it; nothing is ever taken back but the
//! doubt about a request whose outcome nobody told.
//!
//! A record seen once, in an acknowledgement or in a page, is known at its place for ever. A
//! name is known to live only if an answer said so to a request that began when no deletion was
//! on its way, and known to be gone up to an epoch only by an answer too. So no order of
//! concurrent requests has to be guessed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use weir_engine::types::{Expiry, Offset, StreamName};

use crate::{
    checks::{self, Breach},
    require,
};

/// What is known of a request's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is on its way.
    Pending,
    /// It may or may not have happened.
    Maybe,
    /// It has.
    Acked,
    /// It has not, and must not any more.
    Refused,
}

/// A request that carries records.
#[derive(Clone, Debug)]
pub struct Request {
    pub name: StreamName,
    pub records: Vec<Vec<u8>>,
    pub key: Option<Bytes>,
    pub stream_seq: Option<u64>,
    pub fate: Fate,
    /// An earlier attempt ended without an answer.
    pub in_doubt: bool,
    /// Bounds of the timestamp its records may have got by themselves.
    pub wall: (u64, u64),
    pub hint: Option<u64>,
    /// Epoch and first position, once known.
    pub at: Option<(u32, u64)>,
}

/// One life of a name.
#[derive(Clone, Debug, Default)]
pub struct Incarnation {
    /// What is known at each position: request and index.
    pub records: Vec<Option<(usize, usize)>>,
    /// The tail is at least here.
    pub tail: u64,
    /// The tail is here for ever.
    pub closed: Option<u64>,
    /// No deletion began since an answer said that it lives.
    pub alive: bool,
    /// When the last request that touched it began.
    pub touched_ms: Option<u64>,
    pub expiry: Option<Expiry>,
    pub created: Option<u64>,
}

/// What is known of a name.
#[derive(Clone, Debug, Default)]
pub struct Named {
    pub lives: BTreeMap<u32, Incarnation>,
    /// Epochs below are over.
    pub floor: u32,
    pub deletions_open: u32,
    pub deletions: u64,
    /// The instant at which the next life is to expire, for dated streams.
    pub dated: Option<u64>,
}

/// What was known when a request began.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub name: StreamName,
    pub began_ms: u64,
    pub newest: Option<u32>,
    floor: u32,
    tail: u64,
    closed: bool,
    alive: Option<u32>,
    calm: bool,
    deletions: u64,
}

impl Ticket {
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
    /// Those on their way.
    pending: BTreeSet<usize>,
    /// The latest wall time any engine has seen.
    pub wall_max: u64,
}

type Checked = Result<(), Breach>;

impl Model {
    /// Notes what is known as a request begins.
    pub fn ticket(&mut self, name: &StreamName, now_ms: u64) -> Ticket {
        let named = self.names.entry(name.clone()).or_default();
        let newest = named.lives.last_key_value();
        Ticket {
            name: name.clone(),
            began_ms: now_ms,
            newest: newest.map(|(epoch, _)| *epoch),
            floor: named.floor,
            tail: newest.map_or(0, |(_, life)| life.tail),
            closed: newest.is_some_and(|(_, life)| life.closed.is_some()),
            alive: newest.filter(|(_, life)| life.alive).map(|(epoch, _)| *epoch),
            calm: named.deletions_open == 0,
            deletions: named.deletions,
        }
    }

    /// Takes a new request; its records are made by `make` from its number.
    pub fn request(
        &mut self,
        name: &StreamName,
        wall: u64,
        make: impl FnOnce(usize) -> Vec<Vec<u8>>,
    ) -> usize {
        let id = self.requests.len();
        self.requests.push(Request {
            name: name.clone(),
            records: make(id),
            key: None,
            stream_seq: None,
            fate: Fate::Pending,
            in_doubt: false,
            wall: (wall, wall),
            hint: None,
            at: None,
        });
        id
    }

    /// The same request is sent (again).
    pub fn attempt(&mut self, id: usize, wall: u64) {
        let request = &mut self.requests[id];
        if request.fate != Fate::Acked {
            request.fate = Fate::Pending;
            self.pending.insert(id);
        }
        if request.at.is_none() {
            request.wall = (request.wall.0.min(wall), request.wall.1.max(wall));
        }
    }

    /// The wall clock moved or time passed: requests on their way may get this timestamp.
    pub fn wall_is(&mut self, wall: u64) {
        self.wall_max = self.wall_max.max(wall);
        for id in &self.pending {
            let request = &mut self.requests[*id];
            request.wall = (request.wall.0.min(wall), request.wall.1.max(wall));
        }
    }

    /// The request was answered with a no. With an earlier attempt in doubt that proves little.
    pub fn refuse(&mut self, id: usize) {
        let request = &mut self.requests[id];
        if request.fate == Fate::Pending {
            request.fate = if request.in_doubt { Fate::Maybe } else { Fate::Refused };
        }
        self.pending.remove(&id);
    }

    /// The request's outcome is unknown.
    pub fn doubt(&mut self, id: usize) {
        let request = &mut self.requests[id];
        request.in_doubt = true;
        if request.fate == Fate::Pending {
            request.fate = Fate::Maybe;
        }
        self.pending.remove(&id);
    }

    /// The machine died or was restarted: whatever was on its way may have happened.
    pub fn restart(&mut self) {
        for id in std::mem::take(&mut self.pending) {
            self.doubt(id);
        }
        for named in self.names.values_mut() {
            if named.deletions_open > 0 {
                named.deletions_open = 0;
                named.deletions += 1;
            }
        }
    }

    /// After a restart the whole of a name was read: what was not there never will be.
    pub fn settle(&mut self, name: &StreamName) {
        for request in &mut self.requests {
            if request.name == *name && request.fate == Fate::Maybe && request.at.is_none() {
                request.fate = Fate::Refused;
                request.in_doubt = false;
            }
        }
    }

    /// A request is known to have happened at this place.
    pub fn place(&mut self, id: usize, epoch: u32, first: u64) -> Checked {
        let Some(request) = self.requests.get_mut(id) else {
            return Breach::of(checks::SENT, format!("request {id} was never made"));
        };
        let name = request.name.clone();
        require!(
            request.fate != Fate::Refused,
            checks::TRACE,
            "request {id} of '{name}' was refused or lost but lies at {epoch}_{first}"
        );
        if let Some((known_epoch, known)) = request.at {
            require!(
                known_epoch == epoch,
                checks::EPOCHS,
                "request {id} of '{name}' lies at {known_epoch}_{known} and at {epoch}_{first}"
            );
            require!(
                known == first,
                checks::ONCE,
                "request {id} of '{name}' lies at {known_epoch}_{known} and at {epoch}_{first}"
            );
            return Ok(());
        }
        request.at = Some((epoch, first));
        request.fate = Fate::Acked;
        let count = request.records.len();
        let life = self.names.entry(name.clone()).or_default().lives.entry(epoch).or_default();
        let start = usize::try_from(first).expect("simulated streams are short");
        if life.records.len() < start + count {
            life.records.resize(start + count, None);
        }
        for index in 0..count {
            let known = life.records[start + index].replace((id, index));
            if let Some((other, _)) = known {
                return Breach::of(
                    checks::SAME,
                    format!(
                        "requests {other} and {id} of '{name}' share {epoch}_{}",
                        start + index
                    ),
                );
            }
        }
        Ok(())
    }

    /// The request was answered.
    pub fn answered(&mut self, id: usize) {
        self.pending.remove(&id);
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
            require!(
                next >= ticket.tail,
                checks::ACKED,
                "the tail of '{name}' is {epoch}_{next} but was at least {} before",
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

    /// An answer said that there is no such stream. `final_word`: it can't come back.
    pub fn saw_absence(&mut self, ticket: &Ticket, now_ms: u64, final_word: bool) -> Checked {
        self.check_absence(ticket, now_ms)?;
        let named = self.names.entry(ticket.name.clone()).or_default();
        if final_word {
            named.bury(ticket.newest);
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

    /// Bounds of a position's timestamp; `None` if something before it is not known.
    #[must_use]
    pub fn timestamp(&self, name: &StreamName, epoch: u32, position: u64) -> Option<(u64, u64)> {
        let life = self.names.get(name)?.lives.get(&epoch)?;
        let limit = usize::try_from(position).ok()? + 1;
        // What comes first may be older than the stream: only records bound each other.
        let mut bounds = (0, 0);
        for known in life.records.get(..limit)? {
            let request = &self.requests[(*known)?.0];
            let hint = request.hint.unwrap_or(u64::MAX);
            bounds.0 = bounds.0.max(request.wall.0.min(hint));
            bounds.1 = bounds.1.max(request.wall.1.min(hint));
        }
        Some(bounds)
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
