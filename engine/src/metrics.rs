//! Counters, gauges and histograms of one store.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

pub use self::publish::PublishMetrics;
pub(crate) use self::publish::UnderWay;
use crate::types::WallMs;

mod publish;

/// Everything the engine counts. One value per store, so that two stores in a process do not mix.
#[derive(Debug)]
pub struct Metrics {
    /// Commits that became durable.
    pub commits: Counter,
    /// Commits that failed.
    pub commits_failed: Counter,
    /// Entries in those commits.
    pub entries: Counter,
    /// Bytes of those commits.
    pub commit_bytes: Counter,
    /// Seconds from handing a commit to SQLite until it is durable: one write and one fsync.
    pub commit_seconds: Histogram,
    /// How long the last commit took, in microseconds.
    pub commit_last_us: Gauge,
    /// The longest that a commit took, in microseconds.
    pub commit_max_us: Gauge,
    /// When the last commit became durable, in milliseconds since the Unix epoch.
    pub commit_last_ms: Gauge,
    /// Records appended.
    pub records: Counter,
    /// Payload bytes appended.
    pub record_bytes: Counter,
    /// Requests waiting for a commit.
    pub queue_requests: Gauge,
    /// Bytes waiting for a commit.
    pub queue_bytes: Gauge,
    /// Unsealed record bytes in memory.
    pub memtable_bytes: Gauge,
    /// Bytes in SQLite's write-ahead log file.
    pub wal_bytes: Gauge,
    /// Checkpoints that moved the whole WAL into the database.
    pub checkpoints: Counter,
    /// Seals finished.
    pub seals: Counter,
    /// Seals that failed and will be tried again.
    pub seals_failed: Counter,
    /// Merges of segments or ledgers that failed and will be tried again.
    pub merges_failed: Counter,
    /// Times a stream let go of its oldest records.
    pub trims: Counter,
    /// Live segments.
    pub segments: Gauge,
    /// Bytes of live segments.
    pub segment_bytes: Gauge,
    /// Files, segments or ledgers, that could not be read when they were to be merged or uploaded.
    pub files_unreadable: Gauge,
    /// Longest time in microseconds that work beside commits held the writer.
    pub writer_hold_max_us: Gauge,
    /// Streams whose state is in memory.
    pub streams_cached: Gauge,
    /// Attached live readers.
    pub live_readers: Gauge,
    /// Wakes of live readers.
    pub wakes: Counter,
    /// Blocks read from segments.
    pub blocks_read: Counter,
    /// Blocks asked for, read or in memory.
    pub blocks_asked: Counter,
    /// Blocks found in memory.
    pub blocks_hit: Counter,
    /// Requests to the bucket for blocks.
    pub fetches: Counter,
    /// Fetches of blocks that ended without them.
    pub fetches_failed: Counter,
    /// Blocks that came from the bucket.
    pub fetched_blocks: Counter,
    /// Bytes that came from the bucket for them.
    pub fetched_bytes: Counter,
    /// Local copies of segments that were evicted.
    pub evictions: Counter,
    /// Bytes of local copies of segments that the bucket has too.
    pub local_bytes: Gauge,
    /// Bytes of blocks in memory.
    pub block_cache_bytes: Gauge,
    /// Subscriptions there are.
    pub subscriptions: Gauge,
    /// Subscriptions with work.
    pub subscriptions_pending: Gauge,
    /// Wakes begun.
    pub subscription_wakes: Counter,
    /// Leases that ended without a report.
    pub subscription_leases_expired: Counter,
    /// Streams acknowledged, once per report.
    pub subscription_acks: Counter,
    /// What publishing counts.
    pub publish: PublishMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            commits: Counter::default(),
            commits_failed: Counter::default(),
            entries: Counter::default(),
            commit_bytes: Counter::default(),
            commit_seconds: Histogram::new([
                50e-6, 100e-6, 200e-6, 400e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.2, 1.0,
            ]),
            commit_last_us: Gauge::default(),
            commit_max_us: Gauge::default(),
            commit_last_ms: Gauge::default(),
            records: Counter::default(),
            record_bytes: Counter::default(),
            queue_requests: Gauge::default(),
            queue_bytes: Gauge::default(),
            memtable_bytes: Gauge::default(),
            wal_bytes: Gauge::default(),
            checkpoints: Counter::default(),
            seals: Counter::default(),
            seals_failed: Counter::default(),
            merges_failed: Counter::default(),
            trims: Counter::default(),
            segments: Gauge::default(),
            segment_bytes: Gauge::default(),
            files_unreadable: Gauge::default(),
            writer_hold_max_us: Gauge::default(),
            streams_cached: Gauge::default(),
            live_readers: Gauge::default(),
            wakes: Counter::default(),
            blocks_read: Counter::default(),
            blocks_asked: Counter::default(),
            blocks_hit: Counter::default(),
            fetches: Counter::default(),
            fetches_failed: Counter::default(),
            fetched_blocks: Counter::default(),
            fetched_bytes: Counter::default(),
            evictions: Counter::default(),
            local_bytes: Gauge::default(),
            block_cache_bytes: Gauge::default(),
            subscriptions: Gauge::default(),
            subscriptions_pending: Gauge::default(),
            subscription_wakes: Counter::default(),
            subscription_leases_expired: Counter::default(),
            subscription_acks: Counter::default(),
            publish: PublishMetrics::default(),
        }
    }
}

impl Metrics {
    /// Notes how long a commit took, however it ended.
    pub(crate) fn commit_took(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
        let took_us = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
        self.commit_last_us.set(took_us);
        self.commit_max_us.set(self.commit_max_us.get().max(took_us));
    }

    /// Counts a commit that has become durable.
    pub(crate) fn committed(&self, at: WallMs) {
        self.commits.inc();
        self.commit_last_ms.set(i64::try_from(at.get()).unwrap_or(i64::MAX));
    }

    /// Names every metric in a registry.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("weir_log_commits", "Commits made durable", self.commits.clone());
        r.register("weir_log_commits_failed", "Commits that failed", self.commits_failed.clone());
        r.register("weir_log_entries", "Entries committed", self.entries.clone());
        r.register("weir_log_bytes", "Bytes committed", self.commit_bytes.clone());
        r.register(
            "weir_log_commit_seconds",
            "One write and one fsync",
            self.commit_seconds.clone(),
        );
        r.register(
            "weir_log_commit_last_us",
            "How long the last took",
            self.commit_last_us.clone(),
        );
        r.register(
            "weir_log_commit_max_us",
            "How long the longest took",
            self.commit_max_us.clone(),
        );
        r.register("weir_log_commit_last_ms", "Unix time of the last", self.commit_last_ms.clone());
        r.register("weir_append_records", "Records appended", self.records.clone());
        r.register("weir_append_bytes", "Payload bytes appended", self.record_bytes.clone());
        r.register(
            "weir_queue_requests",
            "Requests awaiting a commit",
            self.queue_requests.clone(),
        );
        r.register("weir_queue_bytes", "Bytes awaiting a commit", self.queue_bytes.clone());
        r.register("weir_memtable_bytes", "Unsealed record bytes", self.memtable_bytes.clone());
        r.register("weir_wal_bytes", "Bytes of SQLite's WAL", self.wal_bytes.clone());
        r.register("weir_wal_checkpoints", "Complete checkpoints", self.checkpoints.clone());
        r.register("weir_seals", "Seals finished", self.seals.clone());
        r.register("weir_seals_failed", "Seals failed", self.seals_failed.clone());
        r.register("weir_merges_failed", "Merges failed", self.merges_failed.clone());
        r.register("weir_trims", "Times a stream let old records go", self.trims.clone());
        r.register("weir_segments", "Live segments", self.segments.clone());
        r.register("weir_segment_bytes", "Bytes of live segments", self.segment_bytes.clone());
        r.register("weir_files_unreadable", "Files left out", self.files_unreadable.clone());
        r.register(
            "weir_writer_hold_max_us",
            "Longest hold of the writer beside commits",
            self.writer_hold_max_us.clone(),
        );
        r.register("weir_streams_cached", "Streams in memory", self.streams_cached.clone());
        r.register("weir_live_readers", "Attached live readers", self.live_readers.clone());
        r.register("weir_live_wakes", "Wakes of live readers", self.wakes.clone());
        r.register("weir_blocks_read", "Blocks read from segments", self.blocks_read.clone());
        r.register("weir_blocks_asked", "Blocks asked for", self.blocks_asked.clone());
        r.register("weir_blocks_hit", "Blocks found in memory", self.blocks_hit.clone());
        self.register_history(r);
        self.register_subscriptions(r);
        r.register("weir_block_cache_bytes", "Blocks in memory", self.block_cache_bytes.clone());
        self.publish.register(r);
    }
    fn register_history(&self, r: &mut Registry) {
        r.register("weir_history_fetches", "Requests for blocks", self.fetches.clone());
        r.register("weir_history_fetches_failed", "Without blocks", self.fetches_failed.clone());
        r.register("weir_history_blocks", "Blocks fetched", self.fetched_blocks.clone());
        r.register("weir_history_bytes", "Bytes fetched", self.fetched_bytes.clone());
        r.register("weir_history_evictions", "Local copies evicted", self.evictions.clone());
        r.register(
            "weir_history_local_bytes",
            "Local copies of what the bucket has",
            self.local_bytes.clone(),
        );
    }

    fn register_subscriptions(&self, r: &mut Registry) {
        r.register("weir_subscriptions", "Subscriptions", self.subscriptions.clone());
        r.register(
            "weir_subscriptions_pending",
            "Subscriptions with work",
            self.subscriptions_pending.clone(),
        );
        r.register(
            "weir_subscription_wakes_issued",
            "Wakes begun",
            self.subscription_wakes.clone(),
        );
        r.register(
            "weir_subscription_leases_expired",
            "Leases that ended without a report",
            self.subscription_leases_expired.clone(),
        );
        r.register(
            "weir_subscription_acks",
            "Streams acknowledged",
            self.subscription_acks.clone(),
        );
    }
}
