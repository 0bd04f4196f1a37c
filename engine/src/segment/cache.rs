//! Decoded blocks, kept by bytes and loaded once for all who wait.
//!
//! Blocks are immutable and segment numbers are never reused, so nothing is ever stale;
//! blocks of a removed segment just grow cold. One number of shards on every machine and a
//! hasher seeded by the caller: what is evicted replays.

use std::{hash::BuildHasher, sync::Arc};

use prometheus_client::metrics::counter::Counter;
use quick_cache::{OptionsBuilder, Weighter, sync::Cache};

use super::{Block, BlockNo, ReadError, Segment};
use crate::{limits, types::SegmentId};

type Key = (SegmentId, BlockNo);

/// Enough that readers on all cores rarely meet at a lock.
const SHARDS: usize = 8;

/// A bounded cache of decoded blocks.
pub(crate) struct BlockCache<S> {
    blocks: Cache<Key, Arc<Block>, Bytes, S>,
    /// Counts blocks read from segments.
    read: Counter,
}

/// Weighs a block by the memory it holds.
#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Arc<Block>> for Bytes {
    fn weight(&self, _: &Key, block: &Arc<Block>) -> u64 {
        u64::try_from(block.bytes()).expect("usize fits u64")
    }
}

impl<S: BuildHasher + Clone> BlockCache<S> {
    /// A cache of at most `bytes_max` bytes. A block over an eighth of that is not kept.
    pub(crate) fn new(bytes_max: u64, hasher: S, read: Counter) -> Self {
        let target = u64::try_from(limits::BLOCK_BYTES_TARGET).expect("usize fits u64");
        let blocks_max = usize::try_from(bytes_max / target).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(blocks_max)
            .weight_capacity(bytes_max)
            .build()
            .expect("both capacities are given");
        let blocks = Cache::with_options(options, Bytes, hasher, Default::default());
        Self { blocks, read }
    }

    /// The block if it is in memory.
    pub(crate) fn get(&self, segment: SegmentId, no: BlockNo) -> Option<Arc<Block>> {
        self.blocks.get(&(segment, no))
    }

    /// The block, from memory or from the segment. Whoever asks for a block that is being
    /// loaded waits for that load; if it fails, the next one tries again.
    pub(crate) fn block(&self, segment: &Segment, no: BlockNo) -> Result<Arc<Block>, ReadError> {
        let key = (segment.id(), no);
        self.blocks.get_or_insert_with(&key, || {
            self.read.inc();
            segment.block(no).map(Arc::new)
        })
    }

    /// Whether a block is in memory.
    pub(crate) fn holds(&self, segment: SegmentId, no: BlockNo) -> bool {
        self.blocks.contains_key(&(segment, no))
    }

    /// Keeps a block that came from elsewhere than the local copy.
    pub(crate) fn put(&self, segment: SegmentId, no: BlockNo, block: Arc<Block>) {
        self.blocks.insert((segment, no), block);
    }

    /// Bytes held now.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.weight()
    }
}
