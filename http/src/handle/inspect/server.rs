//! The server's figures: the peer's fields, and under `store`, `object_store` and `http` what an
//! operator of this server needs to see why it is slow or dear.
//!
//! All numbers are JSON numbers. In the peer's fields 0 stands for what this server does not have
//! (a gate, a cache, a time-out, a garbage collector) and null for what it does not measure.

use serde_json::{Value, json};
use weir_engine::{
    Health,
    inspect::{Limits, Publishing, ServerDetails},
};

use super::{bucket, memory};
use crate::{
    App,
    metrics::Mode,
    wire::{date, hex::hex},
};

pub(super) fn document(app: &App) -> Value {
    let details = app.engine.server_details();
    let preset = app.config.preset_mb;
    json!({
        "auto_tune": {
            "enabled": preset.is_some(),
            "requested_memory_mb": preset,
            "preset_mb": preset,
            "effective_memory_limit_mb": preset,
        },
        "configured_limits": configured_limits(app, &details.limits),
        "runtime": {
            "memory": memory::runtime(app, &details),
            "ingest_queue": {
                "requests": details.queue.requests,
                "bytes": details.queue.bytes,
                "full": details.queue.full,
            },
            "local_backpressure": backpressure(&details),
            "uploads": {
                "pending_segments": details.publishing.as_ref().map_or(0, |it| it.pending_files),
            },
            "concurrency": {
                "ingest": no_gate(),
                "read": no_gate(),
                "search": no_gate(),
                "async_index": no_gate(),
            },
            "top_streams": top_streams(&details),
        },
        "store": store(app, &details),
        "object_store": bucket::document(app),
        "http": http(app),
    })
}

fn configured_limits(app: &App, limits: &Limits) -> Value {
    let config = &limits.config;
    json!({
        "caches": {
            "sqlite_cache_bytes": 0,
            "worker_sqlite_cache_bytes": 0,
            "index_run_memory_cache_bytes": 0,
            "index_run_disk_cache_bytes": 0,
            "lexicon_index_cache_bytes": 0,
            "segment_cache_bytes": config.local_bytes_max,
            "companion_toc_cache_bytes": 0,
            "companion_section_cache_bytes": 0,
            "companion_file_cache_bytes": 0,
        },
        "concurrency": {
            "ingest": 0,
            "read": 0,
            "search": 0,
            "async_index": 0,
            "upload": limits.uploads_max,
            "index_build": 0,
            "index_compact": 0,
        },
        "ingest": {
            "max_batch_requests": limits.group_entries_max,
            "max_batch_bytes": limits.group_bytes_max,
            "max_queue_requests": config.queue_requests_max,
            "max_queue_bytes": config.queue_bytes_max,
            "busy_timeout_ms": 0,
            "local_backlog_max_bytes": config.backlog_bytes_max,
        },
        "search": {
            "companion_batch_segments": 0,
            "companion_yield_blocks": 0,
            "wal_overlay_quiet_period_ms": 0,
            "wal_overlay_max_bytes": 0,
        },
        "segmenting": {
            "segment_max_bytes": config.memtable_bytes_max,
            "segment_target_rows": 0,
            "segmenter_workers": 0,
        },
        "timeouts": {
            "append_request_timeout_ms": 0,
            "search_request_timeout_ms": 0,
            "resolver_timeout_ms": 0,
            "object_store_timeout_ms": bucket::timeout_ms(app),
        },
        "memory": { "pressure_limit_bytes": 0 },
    })
}

/// What waits for the bucket; without one, for the next seal.
fn backpressure(details: &ServerDetails) -> Value {
    let limits = &details.limits;
    let (waiting, max) = match &details.publishing {
        Some(publishing) => (publishing.backlog_bytes, limits.config.backlog_bytes_max),
        None => (wide(details.memtable.unsealed_bytes), wide(limits.unsealed_bytes_max)),
    };
    json!({
        "enabled": true,
        "current_bytes": waiting,
        "max_bytes": max,
        "over_limit": waiting >= max || details.memtable.full,
    })
}

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("usize fits u64")
}

fn no_gate() -> Value {
    json!({ "configured_limit": 0, "current_limit": 0, "active": 0, "queued": 0 })
}

/// Only what can be told without a look at every stream: those with something unsealed. There are no
/// touch journals.
pub(super) fn top_streams(details: &ServerDetails) -> Value {
    let local: Vec<Value> = details
        .memtable
        .local
        .iter()
        .map(|it| {
            json!({
                "stream": it.name.as_str(),
                "bytes": it.unsealed_bytes.saturating_add(it.pending_bytes),
                "wal_retained_bytes": it.unsealed_bytes,
                "segment_cache_bytes": it.cached_bytes,
                "index_cache_bytes": 0,
            })
        })
        .collect();
    let pending: Vec<Value> = details
        .memtable
        .largest
        .iter()
        .map(|it| {
            json!({
                "stream": it.name.as_str(),
                "pending_wal_bytes": it.unsealed.bytes,
                "pending_rows": it.unsealed.records,
            })
        })
        .collect();
    let waiters: Vec<Value> = details
        .crowds
        .iter()
        .map(|it| {
            json!({
                "stream": it.name.as_str(),
                "waiters": it.readers,
                "details_waiters": it.lookers,
                "total_waiters": it.readers + it.lookers,
            })
        })
        .collect();
    json!({
        "local_storage_bytes": local,
        "pending_wal_bytes": pending,
        "touch_journal_filter_bytes": [],
        "notifier_waiters": waiters,
    })
}

/// What of the store is in its bucket.
fn publishing(it: &Publishing) -> Value {
    json!({
        "generation": it.newest.map(|newest| newest.generation),
        "published_at": it.newest.map(|newest| date::rfc3339(newest.created)),
        "through_commit": it.newest.map(|newest| newest.through.get()),
        "recoveries": it.recoveries,
        "pending_files": it.pending_files,
        "backlog_bytes": it.backlog_bytes,
        "full": it.full,
        "fenced": it.fenced,
        "holes": it.holes,
        "under_way_files": it.under_way_files,
        "under_way_bytes": it.under_way_bytes,
        "uploads": it.uploads,
        "upload_bytes": it.upload_bytes,
        "manifests": it.manifests,
        "failed": it.failed,
        "collected": it.collected,
    })
}

fn store(app: &App, details: &ServerDetails) -> Value {
    let config = &details.limits.config;
    let (memtable, segments) = (&details.memtable, &details.segments);
    let subscriptions = &details.subscriptions;
    let (state, reason) = health(app, &details.health);
    let id = hex(&details.store);
    json!({
        "id": id,
        "version": env!("CARGO_PKG_VERSION"),
        "state": state,
        "reason": reason,
        "now": date::rfc3339(details.now),
        "running_ms": details.running.get(),
        "commits": commits(details),
        "wal": {
            "bytes": details.wal.bytes,
            "checkpoint_bytes": config.wal_checkpoint_bytes,
            "max_bytes": config.wal_bytes_max,
            "full": details.wal.full,
            "checkpoints": details.wal.checkpoints,
        },
        "publishing": details.publishing.as_ref().map(publishing),
        "memtable": {
            "bytes": memtable.bytes,
            "log_bytes": memtable.log_bytes,
            "seal_bytes": config.memtable_bytes_max,
            "max_bytes": details.limits.unsealed_bytes_max,
            "full": memtable.full,
            "streams": memtable.streams,
            "oldest_ms": memtable.oldest_ms,
            "seal_age_ms": millis(config.seal_age),
        },
        "segments": {
            "count": segments.count,
            "bytes": segments.bytes,
            "records": segments.records,
            "seals": segments.seals,
            "seals_failed": segments.seals_failed,
            "unreadable": segments.unreadable,
            "dying": segments.dying,
            "dead_bytes": segments.dead_bytes,
            "dead_since": segments.dead_since.map(date::rfc3339),
            "erase_within_ms": millis(config.erase_within),
        },
        "block_cache": {
            "bytes": details.blocks.bytes,
            "max_bytes": config.block_cache_bytes,
            "asked": details.blocks.asked,
            "read": details.blocks.read,
        },
        "streams": {
            "cached": details.streams.cached,
            "cached_max": config.streams_cached_max,
            "live_readers": details.streams.readers,
            "live_wakes": details.streams.wakes,
        },
        "subscriptions": {
            "count": subscriptions.count,
            "max": details.limits.subscriptions_max,
            "pending": subscriptions.pending,
            "deliveries_waiting": subscriptions.deliveries_waiting,
            "wakes": subscriptions.wakes,
            "leases_expired": subscriptions.leases_expired,
            "acks": subscriptions.acks,
        },
        "limits": {
            "producers_per_stream_max": details.limits.producers_per_stream_max,
            "fork_runs_max": details.limits.fork_runs_max,
        },
    })
}

fn commits(details: &ServerDetails) -> Value {
    let commits = &details.commits;
    json!({
        "durable_lsn": commits.durable.get(),
        "made": commits.made,
        "failed": commits.failed,
        "entries": commits.entries,
        "bytes": commits.bytes,
        "records": commits.records,
        "record_bytes": commits.record_bytes,
        "last_at": commits.last.map(date::rfc3339),
        "last_us": commits.last_us,
        "max_us": commits.max_us,
        "writer_hold_max_us": details.writer_hold_max_us,
    })
}

fn health(app: &App, health: &Health) -> (&'static str, Option<String>) {
    match health {
        _ if app.is_draining() => ("draining", None),
        Health::Serving => ("serving", None),
        Health::DiskFull => ("disk-full", None),
        Health::LogFailed { reason } => ("log-failed", Some(reason.clone())),
        Health::Draining => ("draining", None),
    }
}

fn http(app: &App) -> Value {
    let (config, metrics) = (&app.config, &app.metrics);
    json!({
        "uptime_ms": millis(app.uptime()),
        "connections": metrics.connections.get(),
        "connections_max": config.connections_max,
        "body_bytes": app.body_bytes(),
        "body_bytes_max": config.bodies_bytes_max,
        "long_polls": metrics.readers(Mode::LongPoll),
        "inspections": metrics.readers(Mode::Inspection),
        "event_streams": metrics.readers(Mode::Sse),
        "deliveries_in_flight": metrics.deliveries.in_flight(),
        "request_body_bytes_max": config.body_bytes_max,
        "page_bytes_max": config.read_bytes_max,
        "long_poll_timeout_ms": millis(config.long_poll_timeout),
        "long_poll_max_ms": millis(config.long_poll_max),
        "webhook_timeout_ms": millis(config.webhook_timeout),
    })
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
