//! Requests with their checks: each takes a ticket, asks, and holds the answer against the model.

use bytes::Bytes;
use rand::RngExt;
use weir_engine::{
    Health,
    request::{Append, AppendOutcome, Appended, Error, From, Head, Page, Read, Rejection},
    types::{Expiry, Offset, Seq, WallMs},
};

use super::{Class, Client, Target};
use crate::{
    checks::{self, Breach},
    model::{Mark, Model, Ticket, Word},
    payload, require, verify,
    world::Host,
};

/// How a request was answered.
#[derive(Debug)]
pub enum Said<T> {
    Yes(T),
    No(Rejection),
    /// Nothing was done, or nothing could be read.
    Nothing,
    Unknown,
}

/// What the absence of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The name is free.
    Free,
    /// The name belongs to a deleted stream that is kept for its forks.
    Kept,
}

impl Host {
    /// Begins a request.
    #[must_use]
    pub fn ticket(&self, target: &Target) -> Ticket {
        let now_ms = self.sim.now_ms();
        let mut ticket = self.sim.model.borrow_mut().ticket(&target.name, now_ms);
        ticket.serving = self.door.health() == Health::Serving;
        ticket
    }

    /// Sorts an answer by what it means; absences and impossible errors are checked here.
    pub fn sort<T>(&self, ticket: &Ticket, what: &str, answer: Result<T, Error>) -> Said<T> {
        let sim = &self.sim;
        sim.model.borrow_mut().wall_is(sim.wall_ms());
        let error = match answer {
            Ok(value) => return Said::Yes(value),
            Err(error) => error,
        };
        sim.note(&format!("{what}: {error}"));
        let options = &sim.options;
        match error {
            Error::Rejected(rejection) => {
                match rejection {
                    Rejection::NotFound => self.absent(ticket, Absence::Free),
                    Rejection::Gone | Rejection::NameKept => self.absent(ticket, Absence::Kept),
                    _ => {}
                }
                Said::No(rejection)
            }
            Error::Busy | Error::Backlogged | Error::Draining => Said::Nothing,
            Error::Corrupt(_) | Error::Away(_) | Error::ReadFailed(_) if sim.damaged.get() => {
                weir_io::sometimes!("a read named damage");
                Said::Nothing
            }
            Error::DiskFull if options.disk_full => Said::Nothing,
            Error::Unknown if options.disturbs() || self.door.may_lose() => Said::Unknown,
            Error::LogFailed if options.disturbs() => Said::Nothing,
            Error::Away(_) | Error::ReadFailed(_)
                if options.disturbs()
                    && (sim.is_disturbed() || self.door.health() != Health::Serving) =>
            {
                Said::Nothing
            }
            Error::Away(_) if options.keeps_readers_waiting() && sim.may_lack_answers() => {
                weir_io::sometimes!("a read found no block here and none in the bucket");
                Said::Nothing
            }
            Error::Corrupt(what) => {
                let what = format!("'{}' is said to be damaged and is not: {what}", ticket.name);
                let model = sim.model.borrow();
                let fork = model.names.get(&ticket.name).is_some_and(|named| named.planned);
                let limits = model.has_limits(&ticket.name);
                drop(model);
                let broken = match what.contains("is in no segment") {
                    true if fork => Breach::of(checks::KEPT, what),
                    true if limits => Breach::of(checks::LIMITS, what),
                    _ => Breach::of(checks::DAMAGE, what),
                };
                sim.check::<()>(broken);
                Said::Nothing
            }
            other => {
                let what = format!("'{}' failed without a fault: {other}", ticket.name);
                sim.check::<()>(Breach::of(checks::SERVES, what));
                Said::Unknown
            }
        }
    }

    /// An answer said that a name is absent.
    pub(super) fn absent(&self, ticket: &Ticket, how: Absence) {
        let sim = &self.sim;
        let reads = sim.machine.drive().faults().read == 0.0;
        let word = match self.door.health() {
            Health::Serving if reads => Word::Final,
            Health::Serving | Health::DiskFull => Word::Lapsed,
            _ => Word::Unwritten,
        };
        let mut model = sim.model.borrow_mut();
        let checked = match how {
            Absence::Free => model.saw_absence(ticket, sim.now_ms(), word),
            Absence::Kept => model.saw_gone(ticket, sim.now_ms(), word != Word::Unwritten),
        };
        drop(model);
        sim.check(checked);
    }

    /// Reads one page and takes it apart.
    pub async fn page(
        &self,
        target: &Target,
        from: From,
        key: Option<Bytes>,
        bytes_max: usize,
    ) -> (Ticket, Said<(Page, Vec<Mark>)>) {
        let ticket = self.ticket(target);
        let read = Read { name: target.name.clone(), from, key: key.clone(), bytes_max };
        let answer = self.door.read(read).await;
        let said = self.sort(&ticket, &format!("read {} {from:?}", target.name), answer);
        let said = match said {
            Said::Yes(page) => {
                self.sim.note(&format!(
                    "read {} {from:?}: {}_{}..{} of {}",
                    target.name, page.tail.epoch, page.start.next, page.next.next, page.tail.next
                ));
                let seen = self.take(&ticket, from, &key, &page);
                match self.sim.check(seen) {
                    Some(seen) => Said::Yes((begun(page, from, &key, &seen), seen)),
                    None => Said::Nothing,
                }
            }
            Said::No(Rejection::OffsetLost { next }) => {
                // Of a fork that may be an epoch which it inherited.
                if target.class != Class::Forked {
                    let fresh = self.sim.model.borrow_mut().saw_life(&ticket, next.epoch.get());
                    self.sim.check(fresh);
                }
                Said::No(Rejection::OffsetLost { next })
            }
            Said::No(Rejection::OffsetTrimmed { next }) => {
                if let From::At(asked) = from {
                    let seen = self.sim.model.borrow_mut().saw_trimmed(&ticket, asked, next);
                    self.sim.check(seen);
                }
                Said::No(Rejection::OffsetTrimmed { next })
            }
            Said::No(rejection) => Said::No(rejection),
            Said::Nothing => Said::Nothing,
            Said::Unknown => Said::Unknown,
        };
        (ticket, said)
    }

    /// Takes a page apart; reading it was a touch.
    ///
    /// # Errors
    /// The page contradicts something.
    pub fn take(
        &self,
        ticket: &Ticket,
        from: From,
        key: &Option<Bytes>,
        page: &Page,
    ) -> Result<Vec<Mark>, Breach> {
        let mut model = self.sim.model.borrow_mut();
        let seen = verify::page(&mut model, ticket, from, key, page)?;
        self.touched(&mut model, ticket, page.tail.epoch.get());
        Ok(seen)
    }

    /// A store that takes no writes can't write a window's new end down: what it still serves
    /// touches nothing that a restart would know of.
    pub(super) fn touched(&self, model: &mut Model, ticket: &Ticket, epoch: u32) {
        if ticket.serving && self.door.health() == Health::Serving {
            model.touched(ticket, epoch);
        }
    }

    /// Asks for metadata.
    pub async fn head(&self, target: &Target) -> Said<Head> {
        let ticket = self.ticket(target);
        let answer = self.door.head(&target.name).await;
        let said = self.sort(&ticket, &format!("head {}", target.name), answer);
        if let Said::Yes(head) = &said {
            let note = format!("head {}: {:?} closed {}", target.name, head.next, head.closed);
            self.sim.note(&note);
            self.sim.check(self.saw_head(&ticket, head));
        }
        said
    }

    pub(super) fn saw_head(&self, ticket: &Ticket, head: &Head) -> Result<(), Breach> {
        self.saw_state(ticket, head, Some(head.expiry), Some(head.earliest))
    }

    /// An answer showed where a stream ends and what limits it has, and perhaps its window and where it
    /// begins.
    pub(super) fn saw_state(
        &self,
        ticket: &Ticket,
        head: &Head,
        window: Option<Expiry>,
        earliest: Option<Offset>,
    ) -> Result<(), Breach> {
        let mut model = self.sim.model.borrow_mut();
        model.saw_tail(ticket, head.next)?;
        let epoch = head.next.epoch.get();
        let life = model.life(&ticket.name, epoch);
        life.expiry = window.or(life.expiry);
        life.created = Some(head.created.get());
        model.saw_limits(ticket, epoch, head.retention)?;
        if let Some(earliest) = earliest {
            model.saw_earliest(ticket, epoch, earliest.next.get())?;
        }
        if head.closed {
            model.saw_closed(ticket, head.next)
        } else {
            model.saw_open(ticket, epoch)
        }
    }

    /// Sends an append whose records are request `id`.
    pub async fn append(&self, target: &Target, append: Append, id: usize) -> Said<Appended> {
        let sim = &self.sim;
        let ticket = self.ticket(target);
        sim.model.borrow_mut().attempt(id, sim.wall_ms());
        let answer = self.door.append(append.clone()).await;
        let said = self.sort(&ticket, &format!("append {} #{id}", target.name), answer);
        let mut model = sim.model.borrow_mut();
        match &said {
            Said::Yes(appended) => {
                model.answered(id);
                drop(model);
                sim.note(&format!(
                    "append {} #{id}: {:?} {:?} closed {}",
                    target.name, appended.outcome, appended.next, appended.closed
                ));
                sim.check(self.saw_appended(&ticket, &append, id, appended));
            }
            Said::No(rejection) => {
                model.refuse(id);
                let tail = match rejection {
                    Rejection::Closed { tail } => {
                        let seen = model.saw_tail(&ticket, *tail);
                        Some(seen.and_then(|()| model.saw_closed(&ticket, *tail)))
                    }
                    Rejection::StreamSeq { tail, .. } | Rejection::ExpectedOffset { tail } => {
                        Some(model.saw_tail(&ticket, *tail))
                    }
                    _ => None,
                };
                drop(model);
                tail.map(|seen| sim.check(seen));
            }
            Said::Nothing => model.refuse(id),
            Said::Unknown => {
                drop(model);
                sim.doubt_records(id);
            }
        }
        said
    }

    fn saw_appended(
        &self,
        ticket: &Ticket,
        append: &Append,
        id: usize,
        appended: &Appended,
    ) -> Result<(), Breach> {
        let mut model = self.sim.model.borrow_mut();
        let epoch = appended.next.epoch.get();
        let next = appended.next.next.get();
        let count = if append.body.is_empty() { 0 } else { model.requests[id].records.len() };
        let first = next.checked_sub(u64::try_from(count).expect("small")).unwrap_or(u64::MAX);
        match appended.outcome {
            AppendOutcome::Written => {
                model.saw_open(ticket, epoch)?;
                model.saw_tail(ticket, Offset { next: Seq::new(first), ..appended.next })?;
                model.place(id, epoch, first)?;
                if let Some(expected) = append.expected {
                    require!(
                        expected.next.get() == first,
                        checks::TRACE,
                        "request {id} expected {expected:?} and was written at {first}"
                    );
                }
            }
            AppendOutcome::Duplicate => {
                let known = &model.requests[id];
                require!(
                    append.producer.is_some() && (known.in_doubt || known.at.is_some()),
                    checks::ONCE,
                    "request {id} of '{}' was sent once and called a duplicate",
                    ticket.name
                );
                if known.in_doubt && known.at.is_none() {
                    weir_io::sometimes!("a duplicate was answered after a restart");
                }
                // The last request of its producer: its own end is remembered.
                model.place(id, epoch, first)?;
            }
            AppendOutcome::Closed => {}
        }
        self.touched(&mut model, ticket, epoch);
        if appended.outcome == AppendOutcome::Duplicate {
            return model.saw_life(ticket, epoch);
        }
        model.saw_tail(ticket, appended.next)?;
        model.told(&ticket.name, appended.next);
        if appended.closed {
            model.saw_closed(ticket, appended.next)?;
        }
        Ok(())
    }
}

/// The page with its start, if it was not told and its records say it.
fn begun(page: Page, from: From, key: &Option<Bytes>, seen: &[Mark]) -> Page {
    let told = page.incarnation != 0 || !matches!(from, From::Since(_)) || key.is_some();
    let count = u64::try_from(seen.len()).expect("small");
    match page.next.next.get().checked_sub(count) {
        Some(start) if !told && count > 0 => {
            let start = Offset { next: Seq::new(start), ..page.start };
            Page { start, records: count, ..page }
        }
        _ => page,
    }
}

impl Client {
    /// A new request with records for a stream, and its append.
    pub fn request(&mut self, target: &Target) -> (usize, Append) {
        let count = self.chance.random_range(1..=4);
        let count = if target.class == Class::Stable && self.chance.random_bool(0.02) {
            count * 40
        } else {
            count
        };
        let form = target.form();
        // Only JSON bodies hold several records.
        let count = if form == weir_engine::types::Form::Json { count } else { 1 };
        let fill_max = self.host.sim.options.fill_max;
        let fill = self.chance.random_range(0..fill_max);
        let key = self.key();
        let hint = self.chance.random_bool(0.2).then(|| {
            let back = self.chance.random_range(0..20_000);
            self.host.wall_ms().saturating_sub(back) + 5_000
        });
        let mut model = self.host.sim.model.borrow_mut();
        let wall = self.host.sim.wall_ms();
        let id = model.request(&target.name, wall, |id| {
            (0..count).map(|index| payload::record(form, id, index, fill)).collect()
        });
        let request = &mut model.requests[id];
        request.key.clone_from(&key);
        request.hint = hint;
        let body = payload::body(form, &request.records);
        let append = Append {
            key,
            timestamp: hint.map(WallMs::new),
            ..Append::new(target.name.clone(), Some(target.content.clone()), body.into())
        };
        (id, append)
    }
}
