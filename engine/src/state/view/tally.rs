//! Which segments hold a stream, summed up. Brought up to date by what became of segments since
//! the last look, so that a look costs the same however many there are.
//!
//! Knows segments by their filters alone: one in 256 of those that hold none of the stream may
//! count too.

use std::sync::{Arc, Weak};

use crate::{
    segment::Segment,
    types::{Lsn, SegmentId, StoreMs, StreamId, WallMs},
};

/// For how long a sum of local copies stands: as often the keeper looks for what to evict.
const CACHED_MS: u64 = 1000;

/// What became of a segment.
///
/// Holds none: what a segment takes up goes with the last who has it.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    /// It is there now; if it is no more, a later move says so.
    Came(Weak<Segment>, Seen),
    /// It is seen otherwise than before.
    Turned(Key, Seen),
    Went(Key),
}

/// Whether the bucket has a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Here,
    Uploaded,
}

/// Where a segment stands among all, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(Lsn, Lsn, SegmentId);

/// What the segments of a stream come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) segments: usize,
    pub(crate) file_bytes: u64,
    /// Of these, those that the bucket has.
    pub(crate) uploaded_segments: usize,
    pub(crate) object_bytes: u64,
    /// The newest record, of any stream, in the newest of them.
    pub(crate) newest: Option<WallMs>,
}

/// The segments of one stream.
#[derive(Debug)]
pub(crate) struct Tally {
    stream: StreamId,
    /// The number of the first move that is not in it.
    next: u64,
    /// Oldest first.
    held: Vec<Part>,
    sums: Sums,
    /// Bytes of local copies, and when they were added up.
    cached: Option<(StoreMs, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    key: Key,
    seen: Seen,
    bytes: u64,
    newest: WallMs,
}

impl Key {
    pub(crate) fn of(segment: &Segment) -> Self {
        let footer = segment.footer();
        Self(footer.last_lsn, footer.first_lsn, segment.id())
    }
}

impl Tally {
    /// Of a stream that no segment holds, before the move with this number.
    pub(crate) fn new(stream: StreamId, next: u64) -> Self {
        Self { stream, next, held: Vec::new(), sums: Sums::default(), cached: None }
    }

    /// The number of the first move that it does not know.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    pub(crate) const fn sums(&self) -> Sums {
        self.sums
    }

    /// Adds up the local copies of what the bucket has, if that was not done for a second: blocks come
    /// and go, and no move says so.
    pub(crate) fn cached_bytes(&mut self, now: StoreMs, of: impl Fn(SegmentId) -> u64) -> u64 {
        if let Some((at, bytes)) = self.cached
            && now < at.plus(CACHED_MS)
        {
            return bytes;
        }
        let uploaded = self.held.iter().filter(|it| it.seen == Seen::Uploaded);
        let bytes = uploaded.map(|it| of(it.key.2)).sum();
        self.cached = Some((now, bytes));
        bytes
    }

    /// Takes the next move in. Costs a look at one filter at most.
    pub(crate) fn take(&mut self, it: &Move) {
        self.next += 1;
        match it {
            Move::Came(segment, seen) => {
                if let Some(segment) = segment.upgrade() {
                    self.add(&segment, *seen);
                }
            }
            Move::Turned(key, seen) => {
                if let Some(part) = self.remove(*key) {
                    self.insert(Part { seen: *seen, ..part });
                }
            }
            Move::Went(key) => drop(self.remove(*key)),
        }
    }

    /// Counts a segment, if it holds the stream.
    pub(crate) fn add(&mut self, segment: &Arc<Segment>, seen: Seen) {
        if segment.holds(self.stream) {
            let footer = segment.footer();
            let (bytes, newest) = (footer.file_bytes(), footer.newest);
            self.insert(Part { key: Key::of(segment), seen, bytes, newest });
        }
    }

    fn insert(&mut self, part: Part) {
        let at = self.held.partition_point(|it| it.key < part.key);
        let is_new = self.held.get(at).is_none_or(|it| it.key != part.key);
        assert!(is_new, "a segment comes once");
        self.held.insert(at, part);
        let sums = &mut self.sums;
        sums.segments += 1;
        sums.file_bytes += part.bytes;
        if part.seen == Seen::Uploaded {
            sums.uploaded_segments += 1;
            sums.object_bytes += part.bytes;
        }
        sums.newest = self.held.last().map(|it| it.newest);
    }

    fn remove(&mut self, key: Key) -> Option<Part> {
        let at = self.held.binary_search_by_key(&key, |it| it.key).ok()?;
        let part = self.held.remove(at);
        let sums = &mut self.sums;
        sums.segments -= 1;
        sums.file_bytes -= part.bytes;
        if part.seen == Seen::Uploaded {
            sums.uploaded_segments -= 1;
            sums.object_bytes -= part.bytes;
        }
        sums.newest = self.held.last().map(|it| it.newest);
        Some(part)
    }
}
