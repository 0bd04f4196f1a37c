//! What an operator may turn, validated once at start.

use std::{path::PathBuf, time::Duration};

/// Settings of one store.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the store: SQLite file, segments, lock.
    pub dir: PathBuf,
    /// Unsealed record bytes that start a seal. Twice this much refuses appends.
    pub memtable_bytes_max: usize,
    /// Age of the oldest unsealed record that starts a seal.
    pub seal_age: Duration,
    /// Bytes of requests waiting for a commit; more are refused.
    pub queue_bytes_max: usize,
    /// Requests waiting for a commit; more are refused.
    pub queue_requests_max: usize,
    /// Streams whose state is kept in memory although they are idle.
    pub streams_cached_max: usize,
    /// Bytes of segment blocks kept in memory.
    pub block_cache_bytes: u64,
    /// WAL bytes from which the checkpointer works.
    pub wal_checkpoint_bytes: u64,
    /// WAL bytes at which commits wait until the checkpointer has caught up.
    pub wal_bytes_max: u64,
}

impl Config {
    /// The defaults for a store in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            memtable_bytes_max: 64 << 20,
            seal_age: Duration::from_secs(10),
            queue_bytes_max: 64 << 20,
            queue_requests_max: 50_000,
            streams_cached_max: 100_000,
            block_cache_bytes: 64 << 20,
            wal_checkpoint_bytes: 4 << 20,
            wal_bytes_max: 128 << 20,
        }
    }
}
