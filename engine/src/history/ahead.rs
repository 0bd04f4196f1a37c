//! How much to fetch at once: the block that is needed, and what its reader will need next.
//!
//! A page that has room for more of the stream takes the blocks that fill it. A reader that goes on
//! where a fetch ended gets twice as much as before, up to [`AHEAD_BYTES_MAX`]; where it goes on is
//! all that is remembered of it, so it may come back through any request. Blocks that are here, and
//! those of other streams, are not fetched.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use crate::{
    core::Core,
    segment::{BlockNo, Segment},
    types::{Seq, StreamId},
};

/// What a reader gets at its first step from fetch to fetch.
const AHEAD_BYTES_MIN: u64 = 256 << 10;
/// The most that is fetched at once, a single larger block excepted.
pub(super) const AHEAD_BYTES_MAX: u64 = 4 << 20;
/// Readers whose place is remembered; the one that moved longest ago is forgotten.
const TRAILS_MAX: usize = 256;

/// Why a block is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// For its bounds, or for one record.
    Probe,
    /// For a page of this stream that is to go on at this position and has this room in bytes.
    Page(StreamId, Seq, usize),
}

/// Blocks that have to come from the bucket.
pub(crate) struct Cold {
    pub(crate) segment: Arc<Segment>,
    /// The first one is needed, the others will be.
    pub(crate) blocks: Range<BlockNo>,
}

impl Cold {
    /// Stored bytes of the first block.
    pub(crate) fn first_bytes(&self) -> u64 {
        let span = self.segment.span(&(self.blocks.start..self.blocks.start.next()));
        span.end - span.start
    }
}

/// Where readers will go on, and how much the last fetch for them was.
#[derive(Default)]
pub(super) struct Trails {
    recent: VecDeque<Trail>,
}

struct Trail {
    stream: StreamId,
    next: Seq,
    bytes: u64,
}

impl Trails {
    /// How much to fetch for a reader that goes on here.
    fn bytes(&self, stream: StreamId, at: Seq) -> u64 {
        let trail = self.recent.iter().find(|it| it.stream == stream && it.next == at);
        trail.map_or(0, |trail| (trail.bytes * 2).clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX))
    }

    /// Notes where a reader will go on. `at`: where it was.
    fn note(&mut self, stream: StreamId, at: Seq, next: Seq, bytes: u64) {
        let same = |it: &Trail| it.stream == stream && (it.next == at || it.next == next);
        self.recent.retain(|it| !same(it));
        if self.recent.len() == TRAILS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Trail { stream, next, bytes });
    }
}

/// What to fetch so that a block which is not here can be read. Looks at the local copy; runs where
/// blocking is allowed.
pub(crate) fn plan(core: &Core, segment: &Arc<Segment>, no: BlockNo, purpose: Purpose) -> Cold {
    let segment = Arc::clone(segment);
    let mut limit = no.next();
    let Purpose::Page(stream, at, room) = purpose else {
        return Cold { segment, blocks: no..limit };
    };
    let on_trail = core.history.trails.lock().bytes(stream, at);
    // What a small cache would drop before it is read is not worth fetching.
    let most = AHEAD_BYTES_MAX.min(core.config.block_cache_bytes / 4);
    let room = u64::try_from(room).unwrap_or(u64::MAX);
    let bytes = room.max(on_trail).min(most);
    let length = |blocks: Range<BlockNo>| {
        let span = segment.span(&blocks);
        span.end - span.start
    };
    // Of a block in which the page begins in the middle it takes less.
    let start = if segment.begins(no, stream, at) { no } else { limit };
    while let Some(next) = segment.following(limit.before(), stream) {
        let here = core.blocks.holds(segment.id(), next) || segment.seems_there(next);
        let enough = length(start..limit) >= bytes || length(no..next.next()) > AHEAD_BYTES_MAX;
        if here || enough {
            break;
        }
        limit = next.next();
    }
    if let Some(next) = segment.limit_in(limit.before(), stream) {
        core.history.trails.lock().note(stream, at, next, length(no..limit));
    }
    Cold { segment, blocks: no..limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_goes_on_gets_twice_as_much_each_time() {
        let mut trails = Trails::default();
        let stream = StreamId::new(7);
        let mut got = Vec::new();
        let mut at = Seq::ZERO;
        for _ in 0..8 {
            let bytes = trails.bytes(stream, at).max(64 << 10);
            got.push(bytes >> 10);
            let next = at.after(bytes >> 10);
            trails.note(stream, at, next, bytes);
            at = next;
        }
        assert_eq!(got, [64, 256, 512, 1024, 2048, 4096, 4096, 4096]);
        assert_eq!(trails.recent.len(), 1, "one reader, one trail");
        assert_eq!(trails.bytes(stream, at.after(1)), 0, "nobody goes on there");
        assert_eq!(trails.bytes(StreamId::new(8), at), 0);
    }

    #[test]
    fn the_reader_that_moved_longest_ago_is_forgotten() {
        let mut trails = Trails::default();
        for id in 0..=u64::try_from(TRAILS_MAX).expect("a small constant") {
            trails.note(StreamId::new(id), Seq::ZERO, Seq::new(1), 1000);
        }
        assert_eq!(trails.recent.len(), TRAILS_MAX);
        assert_eq!(trails.bytes(StreamId::new(0), Seq::new(1)), 0);
        assert_eq!(trails.bytes(StreamId::new(1), Seq::new(1)), AHEAD_BYTES_MIN);
    }
}
