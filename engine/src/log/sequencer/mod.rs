//! The sequencer: puts requests in order, decides each on top of everything decided before, and
//! writes what they change into the open group.
//!
//! It runs in the requests' own tasks under one lock and never touches disk. There is no timer:
//! the group fills while the one before it is in fsync. **Every** answer waits at the gate of the
//! youngest group whose effect its decision read, refusals and duplicates too (INV-2 visible
//! implies durable).

mod append;
mod create;
mod end;
mod retention;
mod subscription;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_io::Sabotage;

pub(crate) use self::{
    create::Source,
    end::Expired,
    subscription::{Announced, Origin, Tails},
};
use super::{
    commit,
    entry::{self, Entry},
    gate::{Gate, Outcome},
    group::{Change, Effect, Group},
};
use crate::{
    request::{Error, Rejection},
    state::{
        shelf::Shelf,
        stream::Producer,
        view::{Decided, Stream},
    },
    types::{Epoch, Lsn, ProducerId, StreamId, StreamName},
};

/// Orders and decides.
pub(crate) struct Sequencer {
    inner: Mutex<Inner>,
    shelf: Arc<Shelf>,
    /// Rings when there is something to commit.
    pub(crate) work: Notify,
    queue_requests_max: usize,
    queue_bytes_max: usize,
    /// The first epoch that was never used before the store was last recovered.
    floor: Epoch,
    /// None outside the simulator.
    sabotage: Sabotage,
}

struct Inner {
    mode: Mode,
    open: Group,
    full: VecDeque<Group>,
    /// Effects that wait for a commit, and the bytes of their entries.
    requests: usize,
    bytes: usize,
    /// The request being decided is a client's, and has put nothing into a group yet.
    is_clients: bool,
    next_stream: u64,
}

/// Whether writes are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Serving,
    DiskFull,
    Failed(String),
    /// Another process owns the store.
    Overtaken(String),
    Draining,
}

impl Mode {
    /// Whether nothing is written any more, whatever happens.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Overtaken(_))
    }
}

/// A decision, and the group it must wait for.
pub(crate) struct Decision<A> {
    pub(crate) answer: Result<A, Rejection>,
    pub(crate) gate: Option<Arc<Gate>>,
}

/// What must be on the shelf before a request can be decided.
pub(crate) enum Missing {
    Name(StreamName),
    /// The source of a fork that ends, and what may end with it.
    Ancestor(StreamName),
    Producer(Arc<Stream>, ProducerId),
    /// The stream that a fork is to be made of, and its record at the fork point.
    /// Durable when the gate opens, if there is one.
    Source(StreamName, Option<Arc<Gate>>),
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
        floor: Epoch,
        config: &crate::Config,
        sabotage: Sabotage,
    ) -> Self {
        Self {
            inner: Mutex::new(Inner {
                mode: Mode::Serving,
                open: Group::new(first),
                full: VecDeque::new(),
                requests: 0,
                bytes: 0,
                is_clients: false,
                next_stream: next_stream.get(),
            }),
            shelf,
            work: Notify::new(),
            queue_requests_max: config.queue_requests_max,
            queue_bytes_max: config.queue_bytes_max,
            floor,
            sabotage,
        }
    }

    /// Admits a client's write if there is room.
    fn admit(&self, body: usize) -> Result<parking_lot::MutexGuard<'_, Inner>, Error> {
        let mut inner = self.inner.lock();
        match &inner.mode {
            Mode::Serving => {}
            Mode::DiskFull => return Err(Error::DiskFull),
            Mode::Failed(_) => return Err(Error::LogFailed),
            Mode::Overtaken(_) => return Err(Error::Overtaken),
            Mode::Draining => return Err(Error::Draining),
        }
        let bytes = inner.bytes.saturating_add(body);
        if inner.requests >= self.queue_requests_max
            || (bytes > self.queue_bytes_max && inner.bytes > 0)
        {
            return Err(Error::Busy);
        }
        inner.is_clients = true;
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
            Mode::Overtaken(_) => return Err(Error::Overtaken),
            Mode::Draining => return Err(Error::Draining),
        }
        inner.is_clients = false;
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

    /// Refuses every write until a restart: the database can't be synced. What was admitted goes on.
    pub(crate) fn give_up(&self, reason: &str) {
        self.inner.lock().mode = Mode::Failed(reason.to_owned());
    }

    /// Refuses every write: another process owns the store now. What was admitted goes on.
    pub(crate) fn fence(&self, reason: &str) {
        self.inner.lock().mode = Mode::Overtaken(reason.to_owned());
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
        inner.check(self.queue_requests_max);
        let group = match inner.full.pop_front() {
            Some(group) => group,
            None if inner.open.effects.is_empty() => return None,
            None => {
                let next = inner.open.next();
                std::mem::replace(&mut inner.open, next)
            }
        };
        inner.requests -= group.effects.len();
        inner.bytes -= group.bytes.len() - commit::HEADER_BYTES;
        Some(group)
    }

    /// The stream that has a name, and what the name waits for; or what is to be answered where there
    /// is none.
    fn named<A>(&self, name: &StreamName) -> Result<Named, Submitted<A>> {
        let slot = self.shelf.get(name, |slot| (slot.latest.clone(), slot.gate.clone()));
        let Some((latest, gate)) = slot else {
            return Err(Submitted::Load(Missing::Name(name.clone())));
        };
        match latest {
            Some(stream) => Ok((stream, gate)),
            None => Err(refuse(Rejection::NotFound, pending(gate))),
        }
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
                // What subscriptions decide rests on what is durable: there is nothing to undo.
                if let Effect::Stream { stream, .. } = effect {
                    self.roll_back(stream);
                }
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
        let payload = self.encode(entry);
        self.also(stream, change(payload));
        Arc::clone(&self.open.gate)
    }

    /// Writes an entry into the open group. Returns where the payload of a write lies in it.
    fn encode(&mut self, entry: &Entry) -> std::ops::Range<usize> {
        let before = self.open.bytes.len();
        let payload = entry::encode(entry, &mut self.open.bytes);
        self.bytes += self.open.bytes.len() - before;
        self.open.entries += 1;
        payload
    }

    /// What waits is what was counted, and clients have no more of it than they may: by what is in the
    /// groups, not by what admits.
    fn check(&self, queue_requests_max: usize) {
        let (mut effects, mut bytes, mut admitted) = (0, 0, 0);
        for group in self.full.iter().chain([&self.open]) {
            effects += group.effects.len();
            bytes += group.bytes.len() - commit::HEADER_BYTES;
            admitted += group.admitted;
        }
        let counted = (self.requests, self.bytes);
        assert_eq!(counted, (effects, bytes), "INV-13 the queue is bounded: it is counted right");
        assert!(
            admitted <= queue_requests_max,
            "INV-13 the queue is bounded: {admitted} requests wait, at most {queue_requests_max}"
        );
    }

    /// The open group does this once it is durable.
    fn effect(&mut self, effect: Effect) {
        self.requests += 1;
        self.open.admitted += usize::from(std::mem::take(&mut self.is_clients));
        self.open.effects.push(effect);
    }

    fn put_write(
        &mut self,
        stream: &Arc<Stream>,
        entry: Entry,
        after: Option<Producer>,
    ) -> Arc<Gate> {
        let payload = self.encode(&entry);
        let Entry::Write(mut write) = entry else { unreachable!("called with writes only") };
        if let Some(records) = &mut write.records {
            // The memtable will share the commit's bytes: let go of the request's.
            records.payload = Bytes::new();
        }
        self.also(stream, Change::Write { write, payload, after });
        Arc::clone(&self.open.gate)
    }

    /// The entry that was put last changes this stream too.
    fn also(&mut self, stream: &Arc<Stream>, change: Change) {
        self.effect(Effect::Stream { stream: Arc::clone(stream), change });
    }

    /// Starts a new group if the open one has its fill. Only between requests: the entries of
    /// one request commit together.
    fn close_if_full(&mut self) {
        if self.open.is_full() {
            let next = self.open.next();
            self.full.push_back(std::mem::replace(&mut self.open, next));
        }
    }

    /// Empties the queue behind a failed group.
    fn void(&mut self, failed: Group) -> Vec<Group> {
        let next = self.open.next();
        let open = std::mem::replace(&mut self.open, next);
        let mut groups = vec![failed];
        groups.extend(self.full.drain(..));
        groups.push(open);
        self.requests = 0;
        self.bytes = 0;
        groups
    }
}

fn decided<A>(answer: Result<A, Rejection>, gate: Option<Arc<Gate>>) -> Submitted<A> {
    Submitted::Decided(Decision { answer, gate })
}

/// What to say of a stream that has just ended.
fn absence(ended: &Decided) -> Rejection {
    if ended.state.retired { Rejection::Gone } else { Rejection::NotFound }
}

/// A stream, and what its name waits for.
type Named = (Arc<Stream>, Option<Arc<Gate>>);

fn refuse<A>(rejection: Rejection, gate: Option<Arc<Gate>>) -> Submitted<A> {
    decided(Err(rejection), gate)
}

fn pending(gate: Option<Arc<Gate>>) -> Option<Arc<Gate>> {
    gate.filter(|gate| gate.outcome() != Some(Outcome::Durable))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue with so many requests of clients in two groups, which counts so many effects.
    fn queue(admitted: usize, requests: usize) -> Inner {
        let mut full = Group::new(Lsn::new(1));
        let mut open = full.next();
        (full.admitted, open.admitted) = (admitted / 2, admitted - admitted / 2);
        let mode = Mode::Serving;
        let full = VecDeque::from([full]);
        Inner { mode, open, full, requests, bytes: 0, is_clients: false, next_stream: 1 }
    }

    #[test]
    fn a_queue_within_its_bound_is_let_be() {
        queue(7, 0).check(7);
    }

    #[test]
    #[should_panic(expected = "INV-13 the queue is bounded: 8 requests wait, at most 7")]
    fn a_queue_beyond_its_bound_is_noticed_whatever_admits() {
        queue(8, 0).check(7);
    }

    #[test]
    #[should_panic(expected = "INV-13 the queue is bounded: it is counted right")]
    fn a_queue_that_is_counted_wrong_is_noticed() {
        queue(0, 1).check(7);
    }
}
