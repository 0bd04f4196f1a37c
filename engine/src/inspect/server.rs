//! A store as a whole: what an operator needs to see why it is slow.
//!
//! Counters and gauges are those of [`Metrics`](crate::Metrics); nothing is measured twice.

use std::sync::{Arc, atomic::Ordering};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::{
    Unsealed,
    stream::{pending_bytes, reach, unsealed},
};
use crate::{
    Config, Health,
    core::Core,
    limits,
    state::view::{Stream, Waiting},
    subscribe::registry::Figures,
    types::{Lsn, StoreMs, StreamName, WallMs},
};

/// Streams with unsealed records that are looked at for the largest of them.
const STREAMS_EXAMINED_MAX: usize = 4096;
/// How many of these are told.
const STREAMS_TOLD_MAX: usize = 5;

/// What is known of a store.
#[derive(Clone, Debug)]
pub struct ServerDetails {
    /// The store's random identity.
    pub store: [u8; 16],
    /// Whether it takes writes.
    pub health: Health,
    /// The wall clock.
    pub now: WallMs,
    /// How long the store has been running, summed over all its runs.
    pub running: StoreMs,
    /// What is in force.
    pub limits: Limits,
    /// Requests that wait for a commit.
    pub queue: Queue,
    /// The log.
    pub commits: Commits,
    /// SQLite's write-ahead log.
    pub wal: Wal,
    /// What waits to be sealed.
    pub memtable: Memtable,
    /// Segments, seals and merges.
    pub segments: Segments,
    /// Blocks of segments in memory.
    pub blocks: Blocks,
    /// Streams in memory and their readers.
    pub streams: Streams,
    /// The streams that the most wait for, most first.
    pub crowds: Vec<Crowd>,
    /// Subscriptions.
    pub subscriptions: Subscribers,
    /// What of the store is in its bucket; `None` without one.
    pub publishing: Option<super::Publishing>,
    /// Longest time in microseconds that work beside commits has held the writer.
    pub writer_hold_max_us: u64,
}

/// Bounds in force: those an operator may turn, then those that are constants.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The settings.
    pub config: Config,
    /// Unsealed bytes at which appends are refused.
    pub unsealed_bytes_max: usize,
    /// Appends in one commit.
    pub group_entries_max: usize,
    /// Bytes in one commit, a single larger append excepted.
    pub group_bytes_max: usize,
    /// Producers of one stream.
    pub producers_per_stream_max: u32,
    /// Subscriptions of a store.
    pub subscriptions_max: usize,
    /// Streams a fork may draw on.
    pub fork_runs_max: usize,
    /// Uploads at a time.
    pub uploads_max: usize,
}

/// Requests that wait for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many.
    pub requests: usize,
    /// Their bytes.
    pub bytes: usize,
    /// There are so many requests or bytes that the next one is refused.
    pub full: bool,
}

/// Commits since the store was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commits {
    /// The last durable one's position in the log.
    pub durable: Lsn,
    /// How many became durable.
    pub made: u64,
    /// How many failed.
    pub failed: u64,
    /// Entries in them.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records appended by them.
    pub records: u64,
    /// Payload bytes of these records.
    pub record_bytes: u64,
    /// When the last one became durable; `None` if there was none.
    pub last: Option<WallMs>,
    /// How long that took, in microseconds: one write and one fsync.
    pub last_us: u64,
    /// The longest that one took, in microseconds.
    pub max_us: u64,
}

/// SQLite's write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wal {
    /// Bytes since it last started over.
    pub bytes: u64,
    /// Commits wait for the checkpointer.
    pub full: bool,
    /// Complete checkpoints since the store was opened.
    pub checkpoints: u64,
}

/// What waits to be sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memtable {
    /// Memory of unsealed records.
    pub bytes: usize,
    /// Bytes of commits that a boot would replay.
    pub log_bytes: u64,
    /// The larger of the two: what starts a seal, and at twice that refuses appends.
    pub unsealed_bytes: usize,
    /// Appends are refused.
    pub full: bool,
    /// Streams that the next fold will write.
    pub streams: usize,
    /// Age in milliseconds of the oldest unsealed change, in the store's running time.
    pub oldest_ms: Option<u64>,
    /// The streams that have most of it, largest first, as far as a bounded look can tell.
    pub largest: Vec<Unfolded>,
    /// Of the streams that look sees, those of which this disk alone has most, largest first.
    pub local: Vec<Local>,
}

/// A stream with unsealed records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfolded {
    /// Which.
    pub name: StreamName,
    /// What it has.
    pub unsealed: Unsealed,
}

/// A stream and what of it this disk has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Which.
    pub name: StreamName,
    /// Payload bytes that no segment holds.
    pub unsealed_bytes: u64,
    /// Payload bytes in segments that no manifest shows.
    pub pending_bytes: u64,
    /// As in [`Details::cached_bytes`](super::Details::cached_bytes).
    pub cached_bytes: u64,
}

/// Segments, and what was done to them since the store was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Live ones.
    pub count: usize,
    /// Bytes of their files.
    pub bytes: u64,
    /// Bytes on this disk of those that the bucket has too, whose blocks may go.
    pub cached_bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Seals finished.
    pub seals: u64,
    /// Seals that failed and will be tried again.
    pub seals_failed: u64,
    /// Segments and ledgers that could not be read when they were to be merged or uploaded.
    pub unreadable: u64,
    /// Those that hold records which were deleted or let go of.
    pub dying: usize,
    /// About how many bytes of these that are.
    pub dead_bytes: u64,
    /// When the first record that is still in one of them died.
    pub dead_since: Option<WallMs>,
}

/// Blocks of segments in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Bytes of them.
    pub bytes: u64,
    /// How many were asked for since the store was opened.
    pub asked: u64,
    /// How many of these were read from segments.
    pub read: u64,
}

/// Streams in memory and their readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Names of which something is in memory.
    pub cached: usize,
    /// Live readers attached.
    pub readers: u64,
    /// Wakes of live readers since the store was opened.
    pub wakes: u64,
}

/// A stream and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// Which.
    pub name: StreamName,
    /// Live readers attached.
    pub readers: u32,
    /// Who waits for a change of its figures.
    pub lookers: u32,
}

/// Subscriptions, and what they did since the store was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribers {
    /// How many there are.
    pub count: u64,
    /// How many have work.
    pub pending: u64,
    /// Webhooks that wait for somebody to call them.
    pub deliveries_waiting: usize,
    /// Wakes begun.
    pub wakes: u64,
    /// Leases that ended without a report.
    pub leases_expired: u64,
    /// Streams acknowledged, once per report.
    pub acks: u64,
}

pub(super) fn gather(core: &Core, health: Health) -> ServerDetails {
    let now = core.now();
    ServerDetails {
        store: core.store.0,
        health,
        now: now.wall,
        running: now.store,
        limits: limits(&core.config),
        queue: queue(core),
        commits: commits(core),
        wal: Wal {
            bytes: core.wal_bytes(),
            full: core.wal_is_full(),
            checkpoints: core.metrics.checkpoints.get(),
        },
        memtable: memtable(core),
        segments: segments(core),
        blocks: Blocks {
            bytes: core.blocks.bytes(),
            asked: core.metrics.blocks_asked.get(),
            read: core.metrics.blocks_read.get(),
        },
        streams: Streams {
            cached: core.shelf.len(),
            readers: level(&core.metrics.live_readers),
            wakes: core.metrics.wakes.get(),
        },
        crowds: crowds(core),
        subscriptions: subscriptions(core),
        publishing: super::publishing::publishing(core),
        writer_hold_max_us: level(&core.metrics.writer_hold_max_us),
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        config: config.clone(),
        unsealed_bytes_max: Core::unsealed_bytes_max(config),
        group_entries_max: limits::GROUP_ENTRIES_MAX,
        group_bytes_max: limits::GROUP_BYTES_MAX,
        producers_per_stream_max: limits::PRODUCERS_PER_STREAM_MAX,
        subscriptions_max: limits::SUBSCRIPTIONS_MAX,
        fork_runs_max: limits::FORK_RUNS_MAX,
        uploads_max: limits::UPLOADS_MAX,
    }
}

fn queue(core: &Core) -> Queue {
    let (requests, bytes) = core.sequencer.queued();
    let config = &core.config;
    let full = requests >= config.queue_requests_max || bytes >= config.queue_bytes_max;
    Queue { requests, bytes, full }
}

fn commits(core: &Core) -> Commits {
    let metrics = &core.metrics;
    Commits {
        durable: core.durable_link().lsn,
        made: metrics.commits.get(),
        failed: metrics.commits_failed.get(),
        entries: metrics.entries.get(),
        bytes: metrics.commit_bytes.get(),
        records: metrics.records.get(),
        record_bytes: metrics.record_bytes.get(),
        last: (metrics.commits.get() > 0).then(|| WallMs::new(level(&metrics.commit_last_ms))),
        last_us: level(&metrics.commit_last_us),
        max_us: level(&metrics.commit_max_us),
    }
}

fn memtable(core: &Core) -> Memtable {
    let unfolded = core.unfolded.lock();
    let streams = unfolded.streams.len();
    let since = unfolded.since;
    let examined: Vec<_> = unfolded.streams.iter().take(STREAMS_EXAMINED_MAX).cloned().collect();
    drop(unfolded);
    let in_bucket = *core.in_bucket.lock();
    let (mut largest, mut here) = (Vec::new(), Vec::new());
    for stream in &examined {
        let durable = stream.durable.lock();
        let unsealed = unsealed(&durable);
        let pending = pending_bytes(&durable, unsealed, reach(&durable, in_bucket));
        drop(durable);
        if unsealed.records > 0 {
            largest.push(Unfolded { name: stream.identity.name.clone(), unsealed });
        }
        here.push((unsealed.bytes, pending, stream));
    }
    largest.sort_by(|a, b| (b.unsealed.bytes, &a.name).cmp(&(a.unsealed.bytes, &b.name)));
    largest.truncate(STREAMS_TOLD_MAX);
    Memtable {
        bytes: core.memtable_bytes.load(Ordering::Relaxed),
        log_bytes: core.log_bytes.load(Ordering::Relaxed),
        unsealed_bytes: core.unsealed_bytes(),
        full: core.has_room().is_err(),
        streams,
        oldest_ms: since.map(|since| core.store_now().get().saturating_sub(since.get())),
        largest,
        local: local(core, here),
    }
}

/// Those of which this disk alone has most, of streams with their unsealed and pending bytes.
fn local(core: &Core, mut here: Vec<(u64, u64, &Arc<Stream>)>) -> Vec<Local> {
    here.retain(|(unsealed, pending, _)| unsealed + pending > 0);
    here.sort_by(|(a, b, one), (c, d, other)| {
        (c + d, &one.identity.name).cmp(&(a + b, &other.identity.name))
    });
    here.truncate(STREAMS_TOLD_MAX);
    let (files, now) = (core.files.lock(), core.store_now());
    let told = here.into_iter().map(|(unsealed_bytes, pending_bytes, stream)| Local {
        name: stream.identity.name.clone(),
        unsealed_bytes,
        pending_bytes,
        cached_bytes: files.cached_bytes(stream, now),
    });
    told.collect()
}

fn segments(core: &Core) -> Segments {
    let set = core.segments.load();
    let deaths = core.deaths.lock();
    Segments {
        unreadable: level(&core.metrics.files_unreadable),
        dying: deaths.len(),
        dead_bytes: deaths.bytes(),
        dead_since: deaths.since(),
        count: set.all().len(),
        bytes: set.bytes(),
        cached_bytes: level(&core.metrics.local_bytes),
        records: set.records(),
        seals: core.metrics.seals.get(),
        seals_failed: core.metrics.seals_failed.get(),
    }
}

fn crowds(core: &Core) -> Vec<Crowd> {
    let largest = core.crowds.lock().largest(STREAMS_TOLD_MAX);
    let crowd = |(name, Waiting { readers, lookers })| Crowd { name, readers, lookers };
    largest.into_iter().map(crowd).collect()
}

fn subscriptions(core: &Core) -> Subscribers {
    let Figures { subscriptions, pending, wakes, leases_expired, acks } =
        &core.subscriptions.figures;
    Subscribers {
        count: level(subscriptions),
        pending: level(pending),
        deliveries_waiting: core.subscriptions.deliveries.lock().len(),
        wakes: count(wakes),
        leases_expired: count(leases_expired),
        acks: count(acks),
    }
}

fn count(counter: &Counter) -> u64 {
    counter.get()
}

/// What a gauge shows; they never show less than nothing.
pub(super) fn level(gauge: &Gauge) -> u64 {
    u64::try_from(gauge.get()).unwrap_or(0)
}
