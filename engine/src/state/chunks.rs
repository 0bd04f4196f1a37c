//! The records of a stream that lie in no segment yet: blocks that never change any more, and a last
//! one that grows.
//!
//! A seal shares the blocks and later lets go of them. Neither takes longer for more records while the
//! writer waits: it may wait for a few blocks to be counted, not for all records to be copied or freed.

use std::{collections::VecDeque, sync::Arc};

use super::view::Weight;
use crate::types::{Chunk, Seq};

/// Chunks of a block that is full.
const BLOCK_CHUNKS: usize = 512;

/// Consecutive chunks; at least one.
#[derive(Debug)]
pub(crate) struct Block {
    chunks: Vec<Chunk>,
    weight: Weight,
}

impl Block {
    /// A block of these chunks, which are weighed.
    ///
    /// # Panics
    /// One does not begin where the one before it ends, or there is none.
    pub(crate) fn new(chunks: Vec<Chunk>) -> Self {
        assert!(!chunks.is_empty(), "a block has at least one chunk");
        for (chunk, next) in chunks.iter().zip(&chunks[1..]) {
            assert!(next.first == chunk.limit(), "INV-7 what is sealed has no hole and no overlap");
        }
        let mut weight = Weight::default();
        for chunk in &chunks {
            weight += weigh(chunk);
        }
        Self { chunks, weight }
    }

    pub(crate) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Position of the first record.
    pub(crate) fn first(&self) -> Seq {
        self.chunks[0].first
    }

    /// The position after the last record.
    pub(crate) fn limit(&self) -> Seq {
        self.end().limit()
    }

    pub(crate) const fn weight(&self) -> Weight {
        self.weight
    }

    fn end(&self) -> &Chunk {
        self.chunks.last().expect("at least one")
    }
}

/// Consecutive chunks, old ones first.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    full: VecDeque<Arc<Block>>,
    last: Vec<Chunk>,
    last_weight: Weight,
    weight: Weight,
}

impl Chunks {
    /// Adds one. Returns what it costs.
    ///
    /// # Panics
    /// It does not begin where the newest one ends.
    pub(crate) fn push(&mut self, chunk: Chunk) -> usize {
        if let Some(newest) = self.newest() {
            assert!(
                chunk.first == newest.limit(),
                "INV-7 what is sealed has no hole and no overlap"
            );
        }
        let weight = weigh(&chunk);
        self.last_weight += weight;
        self.weight += weight;
        self.last.push(chunk);
        if self.last.len() == BLOCK_CHUNKS {
            self.close_block();
        }
        weight.cost
    }

    /// What all of it comes to.
    pub(crate) const fn weight(&self) -> Weight {
        self.weight
    }

    /// All there is now, to be kept and read without a lock.
    pub(crate) fn share(&mut self) -> Vec<Arc<Block>> {
        self.close_block();
        self.full.iter().cloned().collect()
    }

    /// Takes out what lies before `limit`. Whoever calls this under a lock drops it after.
    pub(crate) fn take_before(&mut self, limit: Seq) -> Vec<Arc<Block>> {
        if self.last.first().is_some_and(|chunk| chunk.limit() <= limit) {
            self.close_block();
        }
        let whole = self.full.partition_point(|block| block.limit() <= limit);
        let mut taken: Vec<_> = self.full.drain(..whole).collect();
        if let Some(cut) = self.full.front_mut().filter(|block| block.chunks[0].limit() <= limit) {
            let at = cut.chunks.partition_point(|chunk| chunk.limit() <= limit);
            let (old, kept) = cut.chunks.split_at(at);
            taken.push(Arc::new(Block::new(old.to_vec())));
            *cut = Arc::new(Block::new(kept.to_vec()));
        }
        for block in &taken {
            self.weight -= block.weight;
        }
        if self.full.is_empty() {
            self.full.shrink_to_fit();
        }
        taken
    }

    /// Takes out everything, as [`Self::take_before`] does.
    pub(crate) fn take(&mut self) -> Vec<Arc<Block>> {
        self.close_block();
        self.weight = Weight::default();
        std::mem::take(&mut self.full).into()
    }

    /// From the first chunk on that is not `passed`; those before it all are.
    pub(crate) fn beyond(&self, passed: impl Fn(&Chunk) -> bool) -> impl Iterator<Item = &Chunk> {
        let whole = self.full.partition_point(|block| passed(block.end()));
        let (begun, tail) = match self.full.get(whole) {
            Some(block) => (block.chunks.as_slice(), self.last.as_slice()),
            None => (self.last.as_slice(), [].as_slice()),
        };
        let begun = &begun[begun.partition_point(passed)..];
        let between = self.full.iter().skip(whole + 1).flat_map(|block| &block.chunks);
        begun.iter().chain(between).chain(tail)
    }

    /// The oldest chunk.
    pub(crate) fn oldest(&self) -> Option<&Chunk> {
        self.full.front().map_or(&self.last, |block| &block.chunks).first()
    }

    /// The newest chunk.
    pub(crate) fn newest(&self) -> Option<&Chunk> {
        self.last.last().or_else(|| self.full.back().map(|block| block.end()))
    }

    fn close_block(&mut self) {
        if self.last.is_empty() {
            return;
        }
        // As `Block::new` would find them: each was looked at and weighed when it came.
        let chunks = std::mem::take(&mut self.last);
        let weight = std::mem::take(&mut self.last_weight);
        self.full.push_back(Arc::new(Block { chunks, weight }));
    }
}

fn weigh(chunk: &Chunk) -> Weight {
    Weight { payload: chunk.records.payload.len(), cost: chunk.cost() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{Records, WallMs};

    const MANY: u64 = 2 * 512 + 100;

    fn chunk(at: u64) -> Chunk {
        Chunk {
            first: Seq::new(at),
            records: Records::one(Bytes::from_static(b"abc")),
            timestamp: WallMs::new(at),
            key: None,
        }
    }

    fn filled() -> Chunks {
        let mut chunks = Chunks::default();
        for at in 0..MANY {
            chunks.push(chunk(at));
        }
        chunks
    }

    fn firsts(chunks: &Chunks, from: u64) -> Vec<u64> {
        let from = Seq::new(from);
        chunks.beyond(|chunk| chunk.limit() <= from).map(|chunk| chunk.first.get()).collect()
    }

    fn payload(blocks: &[Arc<Block>]) -> usize {
        blocks.iter().map(|block| block.weight().payload).sum()
    }

    #[test]
    fn what_lies_beyond_a_position_is_found_in_every_block() {
        let chunks = filled();
        for from in [0, 1, 511, 512, 513, 1023, 1024, MANY - 1, MANY] {
            assert_eq!(firsts(&chunks, from), (from..MANY).collect::<Vec<_>>(), "from {from}");
        }
        assert_eq!(chunks.oldest().map(|it| it.first), Some(Seq::new(0)));
        assert_eq!(chunks.newest().map(Chunk::limit), Some(Seq::new(MANY)));
    }

    #[test]
    fn what_was_shared_can_be_taken_out_and_weighs_what_it_should() {
        let mut chunks = filled();
        let shared = chunks.share();
        assert_eq!(payload(&shared), 3 * 1124);
        chunks.push(chunk(MANY));
        let taken = chunks.take_before(Seq::new(MANY));
        assert_eq!(payload(&taken), payload(&shared));
        assert_eq!(firsts(&chunks, 0), [MANY]);
        assert_eq!(chunks.weight().payload, 3);
        assert_eq!(payload(&chunks.take()), 3);
        assert_eq!((chunks.weight(), chunks.oldest()), (Weight::default(), None));
    }

    #[test]
    fn a_limit_inside_a_block_parts_it() {
        for limit in [1, 600, 1024, 1100] {
            let mut chunks = filled();
            let taken = chunks.take_before(Seq::new(limit));
            let count: usize = taken.iter().map(|block| block.chunks().len()).sum();
            assert_eq!(u64::try_from(count), Ok(limit));
            assert_eq!(firsts(&chunks, 0), (limit..MANY).collect::<Vec<_>>(), "limit {limit}");
            assert_eq!(chunks.weight().payload + payload(&taken), 3 * 1124);
        }
    }

    #[test]
    fn a_block_that_grew_weighs_what_it_would_if_it_were_made_of_its_chunks() {
        let mut chunks = filled();
        for block in chunks.share() {
            assert_eq!(block.weight(), Block::new(block.chunks().to_vec()).weight());
        }
    }

    #[test]
    #[should_panic(expected = "INV-7")]
    fn a_hole_is_refused() {
        let mut chunks = filled();
        chunks.push(chunk(MANY + 1));
    }
}
