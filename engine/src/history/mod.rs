//! History: segments whose bytes lie in the bucket, and their copies on the local disk.
//!
//! ```text
//! read ─▶ memory ─▶ local copy ─▶ (gap or damage)  ─▶ one ranged GET for all who wait
//!                       ▲                                     │ verified
//!                       └───────────── put back ◀─────────────┘
//! evict: the copies unused for longest lose their blocks when there are too many bytes of them
//! ```
//! The local copy of an uploaded segment is a cache; the log, the catalogue and segments that the
//! bucket does not have are no part of it and are never evicted. Whether the bucket answers matters
//! to reads of what is not here, and to nothing else.

mod adopt;
mod ahead;
mod bucket;
mod budget;
mod deadline;
mod fetch;
mod whole;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub(crate) use adopt::{AdoptError, Adoption, adopt};
pub(crate) use ahead::{Cold, Purpose, plan};
pub(crate) use bucket::Bucket;
pub(crate) use budget::run;
#[cfg(test)]
pub(crate) use budget::tidy;
pub(crate) use deadline::Deadline;
#[cfg(test)]
pub(crate) use deadline::WAIT_MAX;
pub(crate) use fetch::bring;
pub(crate) use whole::{doubt, make_whole};

use self::{ahead::Trails, fetch::Flights};
use crate::{segment::Segment, types::SegmentId};

/// Bytes of answers of the bucket that are awaited at once. A larger answer takes all of it.
const FETCH_BYTES_MAX: usize = 64 << 20;
/// What the smallest request counts for, so that there are at most 64 at once.
const FETCH_BYTES_MIN: usize = 1 << 20;
/// How long a request waits for its turn among them.
const FETCH_TURN_MAX: Duration = Duration::from_secs(10);

/// What is under way between the bucket and the local disk.
pub(crate) struct History {
    flights: Flights,
    trails: Mutex<Trails>,
    /// Kibibytes that may still be asked for.
    room: Semaphore,
    /// Counts the rounds of the evictor: the clock of what was used when.
    round: AtomicU64,
    /// Bytes of the local copies of uploaded segments: counted once a round, then added to.
    local_bytes: AtomicU64,
    /// Segments that are being merged: what was brought for that stays.
    kept: Mutex<BTreeSet<SegmentId>>,
}

/// Keeps the evictor from segments until it is dropped.
pub(crate) struct Keep<'a> {
    history: &'a History,
    segments: Vec<SegmentId>,
}

impl Drop for Keep<'_> {
    fn drop(&mut self) {
        let mut kept = self.history.kept.lock();
        kept.retain(|id| !self.segments.contains(id));
    }
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            flights: Flights::default(),
            trails: Mutex::default(),
            room: Semaphore::new(FETCH_BYTES_MAX >> 10),
            round: AtomicU64::new(1),
            local_bytes: AtomicU64::new(0),
            kept: Mutex::default(),
        }
    }

    /// Keeps the evictor from these segments. One caller at a time may.
    pub(crate) fn keep(&self, segments: &[Arc<Segment>]) -> Keep<'_> {
        let segments: Vec<SegmentId> = segments.iter().map(|it| it.id()).collect();
        self.kept.lock().extend(segments.iter().copied());
        Keep { history: self, segments }
    }

    /// Whether the evictor must let it be.
    fn is_kept(&self, id: SegmentId) -> bool {
        self.kept.lock().contains(&id)
    }

    /// The time by which uses are ordered.
    pub(crate) fn now(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
