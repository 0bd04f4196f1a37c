//! The sequencer: puts requests in order, decides each on top of everything decided before, and
//! writes what they change into the open group.
//!
//! It runs in the requests' own tasks under one lock and never touches disk. There is no timer:
//! the group fills while the one before it is in fsync. **Every** answer waits at the gate of the
//! youngest group whose effect its decision read, refusals and duplicates too (INV-2 visible
//! implies durable).

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    commit,
    entry::{self, Entry},
    gate::{Gate, Outcome},
    group::{Change, Effect, Group},
};
use crate::{
    decide::{self, Now},
    request::{Append, Appended, Create, CreateOutcome, Error, Prepared, Rejection},
    state::{
        shelf::{Folds, Shelf},
        stream::{Identity, Producer, StreamState},
        view::{Decided, Stream},
    },
    types::{Epoch, Lsn, ProducerId, StreamId, StreamName},
};

/// Producers of a stream in memory at which those known to have no state are let go.
const PRODUCERS_LEARNT_MAX: usize = 1024;

/// Orders and decides.
pub(crate) struct Sequencer {
    inner: Mutex<Inner>,
    shelf: Arc<Shelf>,
    /// Rings when there is something to commit.
    pub(crate) work: Notify,
    queue_requests_max: usize,
    queue_bytes_max: usize,
}

struct Inner {
    mode: Mode,
    open: Group,
    full: VecDeque<Group>,
    requests: usize,
    bytes: usize,
    next_stream: u64,
}

/// Whether writes are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Serving,
    DiskFull,
    Failed(String),
    Draining,
}

/// A decision, and the group it must wait for.
pub(crate) struct Decision<A> {
    pub(crate) answer: Result<A, Rejection>,
    pub(crate) gate: Option<Arc<Gate>>,
}

/// What must be on the shelf before a request can be decided.
pub(crate) enum Missing {
    Name,
    Producer(Arc<Stream>, ProducerId),
}

/// How a submission went.
pub(crate) enum Submitted<A> {
    Decided(Decision<A>),
    /// Load this and try again.
    Load(Missing),
}

impl Sequencer {
    pub(crate) fn new(
        shelf: Arc<Shelf>,
        first: Lsn,
        next_stream: StreamId,
        config: &crate::Config,
    ) -> Self {
        Self {
            inner: Mutex::new(Inner {
                mode: Mode::Serving,
                open: Group::new(first),
                full: VecDeque::new(),
                requests: 0,
                bytes: 0,
                next_stream: next_stream.get(),
            }),
            shelf,
            work: Notify::new(),
            queue_requests_max: config.queue_requests_max,
            queue_bytes_max: config.queue_bytes_max,
        }
    }

    /// Decides an append.
    pub(crate) fn append(
        &self,
        append: &Append,
        prepared: Prepared,
        now: Now,
    ) -> Result<Submitted<Appended>, Error> {
        let mut inner = self.admit(append.body.len())?;
        let Some(slot) =
            self.shelf.get(&append.name, |slot| (slot.latest.clone(), slot.gate.clone()))
        else {
            return Ok(Submitted::Load(Missing::Name));
        };
        let (Some(stream), gate) = slot else {
            return Ok(refuse(Rejection::NotFound, pending(slot.1)));
        };
        let mut decided = stream.decided.lock();
        if stream.has_expired(decided.state.deadline, now) {
            let gate = self.end(&mut inner, &stream, &mut decided, entry::Why::Expired);
            return Ok(refuse(Rejection::NotFound, Some(gate)));
        }
        let known = match &append.producer {
            Some(tuple) => match known_producer(&decided, &tuple.id) {
                Some(known) => known,
                None => {
                    return Ok(Submitted::Load(Missing::Producer(
                        Arc::clone(&stream),
                        tuple.id.clone(),
                    )));
                }
            },
            None => None,
        };
        let gate = pending(decided.gate.clone()).or(pending(gate));
        let verdict = decide::append::decide(
            &stream.identity,
            &decided.state,
            known.as_ref(),
            append,
            prepared,
            now,
        );
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(rejection) => return Ok(refuse(rejection, gate)),
        };
        stream.pulse.touch(now.store);
        let gate = match verdict.change {
            // A duplicate is a touch too.
            None => self.extend(&mut inner, &stream, &mut decided, now, 0).or(gate),
            Some(write) => Some(self.write(&mut inner, &stream, &mut decided, write)),
        };
        Ok(Submitted::Decided(Decision { answer: Ok(verdict.answer), gate }))
    }

    /// Decides a creation.
    pub(crate) fn create(
        &self,
        create: &Create,
        prepared: Prepared,
        now: Now,
    ) -> Result<Submitted<(CreateOutcome, Arc<Stream>, StreamState)>, Error> {
        let mut inner = self.admit(create.body.len())?;
        let known = self
            .shelf
            .get(&create.name, |slot| (slot.latest.clone(), slot.epoch, slot.gate.clone()));
        let Some((latest, mut epoch, gate)) = known else {
            return Ok(Submitted::Load(Missing::Name));
        };
        if let Some(stream) = latest {
            let mut decided = stream.decided.lock();
            if !stream.has_expired(decided.state.deadline, now) {
                let gate = pending(decided.gate.clone()).or(pending(gate));
                stream.pulse.touch(now.store);
                let gate = self.extend(&mut inner, &stream, &mut decided, now, 0).or(gate);
                let state = decided.state.clone();
                let answer = decide::create::over_existing(&stream.identity, &state, create)
                    .map(|outcome| (outcome, Arc::clone(&stream), state));
                return Ok(Submitted::Decided(Decision { answer, gate }));
            }
            epoch = Some(decided.state.lineage.newest());
            self.end(&mut inner, &stream, &mut decided, entry::Why::Expired);
        }
        let epoch = epoch.map_or(Epoch::ZERO, |last| Epoch::new(last.get() + 1));
        let id = StreamId::new(inner.next_stream);
        let birth = match decide::create::over_nothing(id, epoch, create, prepared, now) {
            Ok(verdict) => verdict.change.expect("a creation over nothing changes something"),
            Err(rejection) => return Ok(refuse(rejection, pending(gate))),
        };
        inner.next_stream += 1;
        let (stream, gate) = self.give_birth(&mut inner, birth, now);
        let state = stream.decided.lock().state.clone();
        let answer = Ok((CreateOutcome::New, stream, state));
        Ok(Submitted::Decided(Decision { answer, gate: Some(gate) }))
    }

    /// Decides a deletion.
    pub(crate) fn delete(&self, name: &StreamName, now: Now) -> Result<Submitted<()>, Error> {
        let mut inner = self.admit_internal()?;
        let slot = self.shelf.get(name, |slot| (slot.latest.clone(), slot.gate.clone()));
        let Some((latest, gate)) = slot else {
            return Ok(Submitted::Load(Missing::Name));
        };
        let Some(stream) = latest else {
            return Ok(refuse(Rejection::NotFound, pending(gate)));
        };
        let mut decided = stream.decided.lock();
        let expired = stream.has_expired(decided.state.deadline, now);
        let why = if expired { entry::Why::Expired } else { entry::Why::Asked };
        let gate = Some(self.end(&mut inner, &stream, &mut decided, why));
        let answer = if expired { Err(Rejection::NotFound) } else { Ok(()) };
        Ok(Submitted::Decided(Decision { answer, gate }))
    }

    /// Ends a stream whose time has passed. Returns the gate to wait for if there is one; `None`
    /// if the stream is alive or gone already.
    pub(crate) fn expire(
        &self,
        stream: &Arc<Stream>,
        now: Now,
    ) -> Result<Option<Arc<Gate>>, Error> {
        let mut inner = self.admit_internal()?;
        let mut decided = stream.decided.lock();
        if decided.deleted {
            return Ok(pending(decided.gate.clone()));
        }
        if !stream.has_expired(decided.state.deadline, now) {
            return Ok(None);
        }
        Ok(Some(self.end(&mut inner, stream, &mut decided, entry::Why::Expired)))
    }

    /// Makes sure that a sliding window touched now, and for `ahead_ms` longer, does not pass early
    /// after a crash. Returns the gate to wait for, if there is one.
    pub(crate) fn renew(
        &self,
        stream: &Arc<Stream>,
        now: Now,
        ahead_ms: u64,
    ) -> Result<Option<Arc<Gate>>, Error> {
        let mut inner = self.admit_internal()?;
        let mut decided = stream.decided.lock();
        Ok(self.extend(&mut inner, stream, &mut decided, now, ahead_ms))
    }

    fn extend(
        &self,
        inner: &mut Inner,
        stream: &Arc<Stream>,
        decided: &mut Decided,
        now: Now,
        ahead_ms: u64,
    ) -> Option<Arc<Gate>> {
        let end = decide::expiry::window_end(stream.ttl_seconds()?, now.store).plus(ahead_ms);
        if decided.deleted || decided.state.deadline.is_some_and(|deadline| deadline >= end) {
            return pending(decided.gate.clone());
        }
        let deadline = decide::expiry::deadline(stream.identity.expiry, now.store)?.plus(ahead_ms);
        decided.state.deadline = Some(deadline);
        decided.state.lsn = inner.open.lsn;
        let renew = Entry::Renew { stream: stream.identity.id, deadline };
        let gate = inner.put(stream, &renew, |_| Change::Renew(deadline));
        decided.gate = Some(Arc::clone(&gate));
        self.work.notify_one();
        Some(gate)
    }

    /// Puts a producer's stored state on the shelf, unless a fold has finished since it was asked
    /// for.
    pub(crate) fn learn(
        &self,
        stream: &Stream,
        id: ProducerId,
        found: Option<Producer>,
        asked: Folds,
    ) {
        let _inner = self.inner.lock();
        if self.shelf.folds() != asked {
            return;
        }
        let producers = &mut stream.decided.lock().producers;
        // Anybody can ask for names that nobody has used: what is not there can be asked again.
        if producers.len() >= PRODUCERS_LEARNT_MAX {
            producers.retain(|_, known| known.is_some());
        }
        producers.entry(id).or_insert(found);
    }

    fn write(
        &self,
        inner: &mut Inner,
        stream: &Arc<Stream>,
        decided: &mut Decided,
        write: entry::Write,
    ) -> Arc<Gate> {
        let after = decided.apply(&write, inner.open.lsn);
        let entry = Entry::Write(write);
        let gate = inner.put_write(stream, entry, after);
        decided.gate = Some(Arc::clone(&gate));
        self.work.notify_one();
        gate
    }

    fn give_birth(
        &self,
        inner: &mut Inner,
        birth: decide::create::Birth,
        now: Now,
    ) -> (Arc<Stream>, Arc<Gate>) {
        let create = birth.create;
        let lsn = inner.open.lsn;
        let identity = Identity {
            id: create.stream,
            name: create.name.clone(),
            content: create.content.clone(),
            expiry: create.expiry,
            created: create.created,
        };
        let (name, epoch) = (create.name.clone(), create.epoch);
        let state = StreamState::new(epoch, create.deadline, lsn);
        let stream = Arc::new(Stream::unborn(identity, state));
        stream.pulse.touch(now.store);
        let mut gate = inner.put(&stream, &Entry::Create(create), |_| Change::Born);
        if let Some(write) = birth.write {
            let mut decided = stream.decided.lock();
            let after = decided.apply(&write, lsn);
            gate = inner.put_write(&stream, Entry::Write(write), after);
        }
        stream.decided.lock().gate = Some(Arc::clone(&gate));
        self.shelf.change(&name, |slot| {
            assert!(slot.epoch < Some(epoch), "INV-10 a name never uses an epoch twice");
            slot.latest = Some(Arc::clone(&stream));
            slot.epoch = Some(epoch);
            slot.gate = Some(Arc::clone(&gate));
        });
        inner.close_if_full();
        self.work.notify_one();
        (stream, gate)
    }

    fn end(
        &self,
        inner: &mut Inner,
        stream: &Arc<Stream>,
        decided: &mut Decided,
        why: entry::Why,
    ) -> Arc<Gate> {
        let name = stream.identity.name.clone();
        let epoch = decided.state.lineage.newest();
        decided.deleted = true;
        decided.state.lsn = inner.open.lsn;
        let delete = entry::Delete { stream: stream.identity.id, name: name.clone(), epoch, why };
        let gate = inner.put(stream, &Entry::Delete(delete), |_| Change::Dead);
        decided.gate = Some(Arc::clone(&gate));
        self.shelf.change(&name, |slot| {
            slot.latest = None;
            slot.epoch = Some(epoch);
            slot.gate = Some(Arc::clone(&gate));
        });
        self.work.notify_one();
        gate
    }

    /// Admits a client's write if there is room.
    fn admit(&self, body: usize) -> Result<parking_lot::MutexGuard<'_, Inner>, Error> {
        let mut inner = self.inner.lock();
        match &inner.mode {
            Mode::Serving => {}
            Mode::DiskFull => return Err(Error::DiskFull),
            Mode::Failed(_) => return Err(Error::LogFailed),
            Mode::Draining => return Err(Error::Draining),
        }
        let bytes = inner.bytes.saturating_add(body);
        if inner.requests >= self.queue_requests_max
            || (bytes > self.queue_bytes_max && inner.bytes > 0)
        {
            return Err(Error::Busy);
        }
        inner.close_if_full();
        Ok(inner)
    }

    /// Admits what the server itself must write, and deletions, for which room is reserved on a
    /// full disk and in a full queue.
    fn admit_internal(&self) -> Result<parking_lot::MutexGuard<'_, Inner>, Error> {
        let mut inner = self.inner.lock();
        match &inner.mode {
            Mode::Serving | Mode::DiskFull => {}
            Mode::Failed(_) => return Err(Error::LogFailed),
            Mode::Draining => return Err(Error::Draining),
        }
        inner.close_if_full();
        Ok(inner)
    }

    pub(crate) fn mode(&self) -> Mode {
        self.inner.lock().mode.clone()
    }

    /// The id that the next stream will get.
    pub(crate) fn next_stream(&self) -> StreamId {
        StreamId::new(self.inner.lock().next_stream)
    }

    /// Lets go of producer states that the catalogue has, if there are more than `kept`.
    pub(crate) fn forget_producers(&self, stream: &Stream, kept: usize) {
        let _inner = self.inner.lock();
        let mut decided = stream.decided.lock();
        // A pending group may hold states that are in no other view yet.
        if decided.producers.len() > kept && pending(decided.gate.clone()).is_none() {
            let durable = stream.durable.lock();
            decided.producers.retain(|id, _| durable.producers.contains_key(id));
        }
    }

    /// Requests and bytes waiting for a commit.
    pub(crate) fn queued(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.requests, inner.bytes)
    }

    /// Refuses further writes; what was admitted goes on.
    pub(crate) fn drain(&self) {
        let mut inner = self.inner.lock();
        if matches!(inner.mode, Mode::Serving | Mode::DiskFull) {
            inner.mode = Mode::Draining;
        }
        drop(inner);
        self.work.notify_one();
    }

    /// Space has returned.
    pub(crate) fn disk_has_room(&self) {
        let mut inner = self.inner.lock();
        if inner.mode == Mode::DiskFull {
            inner.mode = Mode::Serving;
        }
    }

    /// The next group to commit, if anything waits.
    pub(crate) fn take(&self) -> Option<Group> {
        let mut inner = self.inner.lock();
        let group = match inner.full.pop_front() {
            Some(group) => group,
            None if inner.open.effects.is_empty() => return None,
            None => {
                let next = Group::new(inner.open.lsn.next());
                std::mem::replace(&mut inner.open, next)
            }
        };
        inner.requests -= group.effects.len();
        inner.bytes -= group.bytes.len() - commit::HEADER_BYTES;
        Some(group)
    }

    /// The group of `failed` is known not to be stored, and with it everything decided on top.
    /// Undoes the decisions and opens every gate.
    pub(crate) fn refuse_full(&self, failed: Group) {
        let mut inner = self.inner.lock();
        if inner.mode == Mode::Serving {
            inner.mode = Mode::DiskFull;
        }
        let groups = inner.void(failed);
        for group in &groups {
            for effect in &group.effects {
                self.roll_back(&effect.stream);
            }
        }
        drop(inner);
        for group in groups {
            group.gate.open(Outcome::Full);
        }
    }

    fn roll_back(&self, stream: &Arc<Stream>) {
        let mut decided = stream.decided.lock();
        decided.roll_back(&stream.durable.lock());
        drop(decided);
        self.shelf.change(&stream.identity.name, |slot| {
            slot.latest = slot.visible.clone();
            slot.gate = None;
        });
    }

    /// Nobody knows whether the group is stored: no more writes until a restart.
    pub(crate) fn fail(&self, failed: Group, reason: &str) {
        let mut inner = self.inner.lock();
        inner.mode = Mode::Failed(reason.to_owned());
        let groups = inner.void(failed);
        drop(inner);
        for group in groups {
            group.gate.open(Outcome::Unknown);
        }
    }
}

impl Inner {
    fn put(
        &mut self,
        stream: &Arc<Stream>,
        entry: &Entry,
        change: impl FnOnce(std::ops::Range<usize>) -> Change,
    ) -> Arc<Gate> {
        let before = self.open.bytes.len();
        let payload = entry::encode(entry, &mut self.open.bytes);
        self.bytes += self.open.bytes.len() - before;
        self.requests += 1;
        self.open.entries += 1;
        self.open.effects.push(Effect { stream: Arc::clone(stream), change: change(payload) });
        Arc::clone(&self.open.gate)
    }

    fn put_write(
        &mut self,
        stream: &Arc<Stream>,
        entry: Entry,
        after: Option<Producer>,
    ) -> Arc<Gate> {
        let before = self.open.bytes.len();
        let payload = entry::encode(&entry, &mut self.open.bytes);
        self.bytes += self.open.bytes.len() - before;
        self.requests += 1;
        self.open.entries += 1;
        let Entry::Write(mut write) = entry else { unreachable!("called with writes only") };
        if let Some(records) = &mut write.records {
            // The memtable will share the commit's bytes: let go of the request's.
            records.payload = Bytes::new();
        }
        let change = Change::Write { write, payload, after };
        self.open.effects.push(Effect { stream: Arc::clone(stream), change });
        Arc::clone(&self.open.gate)
    }

    /// Starts a new group if the open one has its fill. Only between requests: the entries of
    /// one request commit together.
    fn close_if_full(&mut self) {
        if self.open.is_full() {
            let next = Group::new(self.open.lsn.next());
            self.full.push_back(std::mem::replace(&mut self.open, next));
        }
    }

    /// Empties the queue behind a failed group.
    fn void(&mut self, failed: Group) -> Vec<Group> {
        let next = Group::new(self.open.lsn.next());
        let open = std::mem::replace(&mut self.open, next);
        let mut groups = vec![failed];
        groups.extend(self.full.drain(..));
        groups.push(open);
        self.requests = 0;
        self.bytes = 0;
        groups
    }
}

fn refuse<A>(rejection: Rejection, gate: Option<Arc<Gate>>) -> Submitted<A> {
    Submitted::Decided(Decision { answer: Err(rejection), gate })
}

fn pending(gate: Option<Arc<Gate>>) -> Option<Arc<Gate>> {
    gate.filter(|gate| gate.outcome() != Some(Outcome::Durable))
}

/// `None`: must be looked up first; `Some(None)`: has no state.
fn known_producer(decided: &Decided, id: &ProducerId) -> Option<Option<Producer>> {
    match decided.producers.get(id) {
        Some(known) => Some(known.clone()),
        None if decided.state.producers == 0 => Some(None),
        None => None,
    }
}
