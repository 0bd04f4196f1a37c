//! What an operator may turn, validated once at start.

use std::{path::PathBuf, time::Duration};

/// How a store lies in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A database, a file for each segment and each ledger, and some space set aside.
    Tree,
    /// One database, which has the segments too, for a store without a bucket. Beside it is
    /// nothing but the lock and what SQLite keeps while it runs.
    OneFile,
}

impl Layout {
    /// Name of the database.
    #[must_use]
    pub const fn database(self) -> &'static str {
        match self {
            Self::Tree => "weir.sqlite",
            Self::OneFile => "durable-streams.sqlite",
        }
    }

    /// Name of the file that a running store holds a lock on, and which says who that is.
    #[must_use]
    pub const fn lock(self) -> &'static str {
        match self {
            Self::Tree => "lock",
            Self::OneFile => "server.lock",
        }
    }
}

/// Settings of one store.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the store: SQLite file, segments, lock.
    pub dir: PathBuf,
    /// What is in it.
    pub layout: Layout,
    /// Unsealed record bytes that start a seal. Twice this much refuses appends.
    pub memtable_bytes_max: usize,
    /// Age of the oldest unsealed record that starts a seal.
    pub seal_age: Duration,
    /// Bytes of the segments that are merged into one, together. Up to 128 MiB what comes of it takes
    /// one request to upload, and lies in memory meanwhile; beyond, several.
    pub merged_bytes_max: u64,
    /// Bytes of requests waiting for a commit; more are refused.
    pub queue_bytes_max: usize,
    /// Requests waiting for a commit; more are refused.
    pub queue_requests_max: usize,
    /// Time within which a segment is written anew after a record in it was deleted or let go of.
    pub erase_within: Duration,
    /// Streams whose state is kept in memory although they are idle.
    pub streams_cached_max: usize,
    /// Bytes of segment blocks kept in memory.
    pub block_cache_bytes: u64,
    /// Bytes of local copies of segments that the bucket holds too; those unused for longest go
    /// when there are more. What is not in the bucket does not count and is never evicted.
    pub local_bytes_max: u64,
    /// The bucket lives as long as this process: at a start nothing counts as uploaded, and no
    /// local copy may go.
    pub bucket_is_volatile: bool,
    /// Bytes of sealed files that the bucket does not hold yet at which appends are refused.
    pub backlog_bytes_max: u64,
    /// How long the bucket keeps what newer manifests name no more: as far back as a store can
    /// be recovered, and as long as a writer may pause without doing harm.
    pub gc_grace: Duration,
    /// How long a stop waits until the bucket has everything.
    pub publish_at_stop: Duration,
    /// WAL bytes from which the checkpointer works.
    pub wal_checkpoint_bytes: u64,
    /// WAL bytes at which commits wait until the checkpointer has caught up.
    pub wal_bytes_max: u64,
}

/// Settings that can't be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// Checkpoints would begin only when commits already wait for them.
    #[error("wal_checkpoint_bytes must be below wal_bytes_max")]
    Checkpoint,
    /// Ledgers and evicted copies are files of their own.
    #[error("a store in one file has no bucket")]
    Bucket,
    /// Nothing could ever be admitted or kept.
    #[error("{0} must be more than zero")]
    Zero(&'static str),
}

impl Config {
    /// Looks for settings that can't be meant.
    ///
    /// # Errors
    /// [`BadConfig`] names the first one.
    pub fn check(&self) -> Result<(), BadConfig> {
        for (name, value) in [
            ("memtable_bytes_max", self.memtable_bytes_max),
            ("queue_bytes_max", self.queue_bytes_max),
            ("queue_requests_max", self.queue_requests_max),
            ("streams_cached_max", self.streams_cached_max),
        ] {
            if value == 0 {
                return Err(BadConfig::Zero(name));
            }
        }
        if self.merged_bytes_max == 0 {
            return Err(BadConfig::Zero("merged_bytes_max"));
        }
        if self.wal_checkpoint_bytes >= self.wal_bytes_max {
            return Err(BadConfig::Checkpoint);
        }
        Ok(())
    }

    /// The defaults for a store in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            layout: Layout::Tree,
            memtable_bytes_max: 64 << 20,
            seal_age: Duration::from_secs(10),
            merged_bytes_max: 128 << 20,
            queue_bytes_max: 64 << 20,
            queue_requests_max: 50_000,
            erase_within: Duration::from_secs(7 * 86_400),
            streams_cached_max: 100_000,
            block_cache_bytes: 64 << 20,
            local_bytes_max: 10 << 30,
            bucket_is_volatile: false,
            backlog_bytes_max: 1 << 30,
            gc_grace: Duration::from_secs(24 * 60 * 60),
            publish_at_stop: Duration::from_secs(30),
            wal_checkpoint_bytes: 4 << 20,
            wal_bytes_max: 128 << 20,
        }
    }

    /// The defaults for a store in one file in `dir`, which does with less memory: a segment is kept
    /// there until it is in the database.
    #[must_use]
    pub fn one_file(dir: impl Into<PathBuf>) -> Self {
        Self {
            layout: Layout::OneFile,
            memtable_bytes_max: 32 << 20,
            merged_bytes_max: 32 << 20,
            local_bytes_max: 0,
            ..Self::new(dir)
        }
    }
}
