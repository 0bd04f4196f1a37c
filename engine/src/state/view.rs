//! One incarnation of a stream in memory, with its two views: *decided*, which the sequencer
//! alone reads and which runs ahead of the disk, and *durable*, which is everybody else's.
//!
//! Locks: `decided` is taken only while the sequencer's own lock is held; `durable` is never
//! held while another lock is taken, nor across an await.

mod crowd;
mod tally;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::{AddAssign, SubAssign},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use self::{
    crowd::{Crowds, Wait, Waiting},
    tally::{Key, Move, Seen, Sums, Tally},
};
use super::{
    chunks::{Block, Chunks},
    stream::{Identity, Producer, StreamState},
    uploads::{Reach, Uploads},
};
use crate::{
    log::{
        entry::{Trim, Write},
        gate::Gate,
    },
    request::Rejection,
    subscribe::concerned::Concerned,
    types::{Chunk, Expiry, Lsn, ProducerId, ProducerTuple, Seq, StoreMs},
};

/// A stream in memory.
pub(crate) struct Stream {
    pub(crate) identity: Identity,
    pub(crate) decided: Mutex<Decided>,
    pub(crate) durable: Mutex<Durable>,
    /// Rings when durable records, a closure or the end arrive.
    pub(crate) bell: Notify,
    pub(crate) pulse: Pulse,
    /// The last encoded live frames, newest last.
    pub(crate) frames: Mutex<VecDeque<Frame>>,
    /// The subscriptions it concerns.
    pub(crate) concerned: Mutex<Concerned>,
    /// Which segments hold it, once anybody has asked. Taken with the lock of the files held.
    pub(crate) tally: Mutex<Option<Box<Tally>>>,
    /// Looked up since the eviction hand last passed.
    pub(crate) recent: AtomicBool,
}

/// What the sequencer has decided, durable or not.
pub(crate) struct Decided {
    pub(crate) state: StreamState,
    /// Producers looked up so far; `None`: known to have no state.
    pub(crate) producers: BTreeMap<ProducerId, Option<Producer>>,
    /// The group of the last change, until it is durable.
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) deleted: bool,
}

/// Where an incarnation is in its life, as far as the disk knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its creation is not durable yet: it does not exist for anybody.
    Unborn,
    Live,
    Dead,
}

/// What is durable.
pub(crate) struct Durable {
    pub(crate) state: StreamState,
    /// The row this was loaded from has every entry up to here in it. Unlike `state.lsn` it does
    /// not move: one commit may hold several entries of one stream.
    pub(crate) reflected: Lsn,
    pub(crate) life: Life,
    /// Records of its own before this lie in segments, those from here on in `chunks`.
    pub(crate) sealed: Seq,
    /// Records before this lie in segments that the catalogue has, too: more than `sealed` says if a
    /// fold failed after it had written them. The next seal does not write them again.
    pub(crate) written: Seq,
    /// What of `sealed` is in the bucket.
    pub(crate) uploads: Uploads,
    pub(crate) chunks: Chunks,
    /// Producers changed since the last fold.
    pub(crate) producers: BTreeMap<ProducerId, (Producer, Lsn)>,
    /// On the list of streams that the next fold will write.
    pub(crate) dirty: bool,
    /// Records before this are counted among the dead of their segments.
    pub(crate) counted: Seq,
}

/// What records in memory come to, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Of the payload alone.
    pub(crate) payload: usize,
    /// As a bound on memory counts them.
    pub(crate) cost: usize,
}

impl AddAssign for Weight {
    fn add_assign(&mut self, more: Self) {
        self.payload += more.payload;
        self.cost += more.cost;
    }
}

impl SubAssign for Weight {
    fn sub_assign(&mut self, less: Self) {
        self.payload -= less.payload;
        self.cost -= less.cost;
    }
}

/// Signs of life that need no log entry.
#[derive(Default)]
pub(crate) struct Pulse {
    /// Store time of the last touch plus one; 0 if none is remembered.
    touched: AtomicU64,
    /// Live readers attached.
    pub(crate) watchers: AtomicU32,
}

/// An encoded range of records.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) start: Seq,
    pub(crate) next: Seq,
    pub(crate) bytes: Bytes,
}

impl Pulse {
    pub(crate) fn touch(&self, now: StoreMs) {
        self.touched.fetch_max(now.get().saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn touched(&self) -> Option<StoreMs> {
        self.touched.load(Ordering::Relaxed).checked_sub(1).map(StoreMs::new)
    }
}

impl Stream {
    /// A stream loaded from the catalogue: both views agree.
    pub(crate) fn loaded(identity: Identity, state: StreamState, sealed: Seq) -> Self {
        let reflected = state.lsn;
        // A row shows what its fold has sealed, and nothing beyond.
        let sealed = Reach { seq: sealed, bytes: state.bytes };
        Self::new(identity, state, sealed, Life::Live, reflected)
    }

    /// A stream just decided, unknown to the disk.
    pub(crate) fn unborn(identity: Identity, state: StreamState) -> Self {
        let sealed = Reach { seq: identity.own_start(), bytes: 0 };
        Self::new(identity, state, sealed, Life::Unborn, Lsn::ZERO)
    }

    fn new(
        identity: Identity,
        state: StreamState,
        sealed: Reach,
        life: Life,
        reflected: Lsn,
    ) -> Self {
        let uploads = Uploads::new(identity.own_start(), reflected, sealed);
        let counted = state.kept.earliest;
        Self {
            identity,
            decided: Mutex::new(Decided {
                state: state.clone(),
                producers: BTreeMap::new(),
                gate: None,
                deleted: false,
            }),
            durable: Mutex::new(Durable {
                state,
                reflected,
                life,
                sealed: sealed.seq,
                written: Seq::ZERO,
                uploads,
                chunks: Chunks::default(),
                producers: BTreeMap::new(),
                dirty: false,
                counted,
            }),
            bell: Notify::new(),
            pulse: Pulse::default(),
            frames: Mutex::new(VecDeque::new()),
            concerned: Mutex::default(),
            tally: Mutex::default(),
            recent: AtomicBool::new(true),
        }
    }

    /// The sliding window in seconds, if the stream has one.
    pub(crate) const fn ttl_seconds(&self) -> Option<u64> {
        match self.identity.expiry {
            Expiry::Sliding { ttl_seconds } => Some(ttl_seconds),
            Expiry::Never | Expiry::At(_) => None,
        }
    }

    /// Whether it is not there for readers.
    pub(crate) fn is_absent(&self) -> bool {
        self.durable.lock().presence().is_err()
    }

    /// Whether the stream has ended by itself; attached readers keep a sliding window open.
    pub(crate) fn has_expired(&self, deadline: Option<StoreMs>, now: crate::decide::Now) -> bool {
        let sliding = matches!(self.identity.expiry, Expiry::Sliding { .. });
        if sliding && self.pulse.watchers.load(Ordering::Acquire) > 0 {
            return false;
        }
        let touched = self.pulse.touched();
        crate::decide::expiry::has_passed(self.identity.expiry, deadline, touched, now)
    }
}

impl Decided {
    /// Folds a decided write in. Returns the state of its producer after it.
    pub(crate) fn apply(&mut self, write: &Write, lsn: Lsn) -> Option<Producer> {
        self.state.apply(write, lsn);
        write.producer.as_ref().map(|tuple| self.advance(tuple))
    }

    /// A producer's request with this tuple ended at what is the next position now.
    pub(crate) fn advance(&mut self, tuple: &ProducerTuple) -> Producer {
        let known = self.producers.get(&tuple.id).and_then(Option::as_ref);
        let after = Producer::after(known, tuple, self.state.next);
        self.producers.insert(tuple.id.clone(), Some(after.clone()));
        after
    }

    /// Whether the stream takes nothing any more.
    pub(crate) const fn is_over(&self) -> bool {
        self.deleted || self.state.retired
    }

    /// Forgets everything that never became durable.
    pub(crate) fn roll_back(&mut self, durable: &Durable) {
        self.state = durable.state.clone();
        self.producers = durable
            .producers
            .iter()
            .map(|(id, (producer, _))| (id.clone(), Some(producer.clone())))
            .collect();
        self.gate = None;
        self.deleted = durable.life == Life::Dead;
    }
}

impl Durable {
    /// Whether it is there for readers; if not, what to tell them.
    pub(crate) const fn presence(&self) -> Result<(), Rejection> {
        match self.life {
            Life::Live if self.state.retired => Err(Rejection::Gone),
            Life::Live => Ok(()),
            Life::Unborn | Life::Dead => Err(Rejection::NotFound),
        }
    }

    /// Folds a durable write in and keeps its records. `after`: its producer's state after it.
    /// Returns the bytes that the memtable gained.
    pub(crate) fn apply(&mut self, write: Write, after: Option<Producer>, lsn: Lsn) -> usize {
        // A state row that a crash left ahead of the fold has this entry in it already.
        if lsn > self.reflected {
            self.state.apply(&write, lsn);
        }
        if let (Some(tuple), Some(after)) = (&write.producer, after) {
            self.producers.insert(tuple.id.clone(), (after, lsn));
        }
        let Some(records) = write.records else {
            return 0;
        };
        if write.first < self.sealed {
            return 0;
        }
        let Write { first, timestamp, key, .. } = write;
        self.chunks.push(Chunk { first, records, timestamp, key })
    }

    /// The records in memory among which a position lies.
    pub(crate) fn chunk_of(&self, seq: Seq) -> Option<Chunk> {
        let found = self.chunks.beyond(|chunk| chunk.limit() <= seq).next();
        found.filter(|chunk| chunk.first <= seq).cloned()
    }

    /// Lets go of the oldest records. Those in memory stay until they are sealed: forks may draw
    /// on them.
    pub(crate) fn trim(&mut self, trim: &Trim, lsn: Lsn) {
        // A state row that a crash left ahead of the fold has this entry in it already.
        if lsn > self.reflected {
            self.state.trim(trim, lsn);
        }
    }

    /// A fork draws on this stream from `lsn` on.
    pub(crate) fn refer(&mut self, lsn: Lsn) {
        // A state row that a crash left ahead of the fold has this entry in it already.
        if lsn > self.reflected {
            self.state.refs += 1;
            self.state.lsn = lsn;
        }
    }

    /// A fork that drew on this stream ended at `lsn`.
    pub(crate) fn release(&mut self, lsn: Lsn) {
        if lsn > self.reflected {
            let left = self.state.refs.checked_sub(1);
            self.state.refs = left.expect("INV-22 a source counts its forks");
            self.state.lsn = lsn;
        }
    }

    /// Takes out the records before `limit`: they lie in a segment now.
    pub(crate) fn sealed_through(&mut self, limit: Seq) -> Vec<Arc<Block>> {
        self.sealed = self.sealed.max(limit);
        self.chunks.take_before(limit)
    }
}
