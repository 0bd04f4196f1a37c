//! `GET /v1/server/_mem`, and the memory that the server's figures tell of, in the peer's fields.
//!
//! What is accounted for, and what the system says of the process: null where it does not tell. 0
//! stands for what this server does not have (mapped files, a garbage collector, touch journals) and
//! for the statistics that SQLite is built without. Figures of our own in the peer's groups:
//! `heap_estimates.memtable_bytes` and `block_cache_bytes`, `configured_budgets.block_cache_budget_bytes`,
//! and in `counts` whatever does not begin like the peer's.

use serde_json::{Map, Value, json};
use weir_engine::inspect::ServerDetails;
use weir_io::process::Memory;

use super::{bucket, server};
use crate::{App, metrics::Mode, wire::date};

/// What a server must give back or grow; the peer watches these to find what it does not. This
/// server has none of them but the series of its metrics.
const LEAK_CANDIDATES: [&str; 26] = [
    "segment_cache.pinned_entries",
    "lexicon_file_cache.pinned_entries",
    "companion_file_cache.pinned_entries",
    "routing_run_disk_cache.pinned_entries",
    "exact_run_disk_cache.pinned_entries",
    "touch.journals.active_count",
    "touch.journals.created_total",
    "touch.journals.filter_bytes_total",
    "touch.journal.default_filter_bytes",
    "touch.maps.fine_lag_coarse_only_streams",
    "touch.maps.touch_mode_streams",
    "touch.maps.fine_token_bucket_streams",
    "touch.maps.hot_fine_streams",
    "touch.maps.lag_source_offset_streams",
    "touch.maps.restricted_template_bucket_streams",
    "touch.maps.runtime_totals_streams",
    "touch.maps.zero_row_backlog_streams",
    "live_template.last_seen_entries",
    "live_template.dirty_last_seen_entries",
    "live_template.rate_state_streams",
    "live_metrics.counter_streams",
    "notifier.latest_seq_streams",
    "notifier.details_version_streams",
    "secondary_index.stream_idle_ticks_streams",
    "mock_r2.in_memory_bytes",
    "mock_r2.object_count",
];

pub(super) fn document(app: &App) -> Value {
    let details = app.engine.server_details();
    let figures = Figures::of(app, &details);
    json!({
        "ts": date::rfc3339(details.now),
        "high_water": figures.high_water(app, &details),
        "process": figures.process,
        "process_breakdown": figures.breakdown,
        "sqlite": sqlite(),
        "gc": gc(),
        "counters": counters(app),
        "runtime_counts": counts(app, &details),
        "runtime_bytes": figures.groups,
        "runtime_totals": figures.totals,
        "top_streams": server::top_streams(&details),
    })
}

/// `runtime.memory` of the server's figures.
pub(super) fn runtime(app: &App, details: &ServerDetails) -> Value {
    let figures = Figures::of(app, details);
    let high_water = figures.high_water(app, details);
    let mut subsystems = figures.groups;
    subsystems["counts"] = counts(app, details);
    json!({
        "pressure_active": false,
        "pressure_limit_bytes": 0,
        "last_rss_bytes": figures.memory.map(|it| it.resident),
        "max_rss_bytes": figures.memory.map(|it| it.resident_max),
        "process": figures.process,
        "process_breakdown": figures.breakdown,
        "sqlite": sqlite(),
        "gc": gc(),
        "subsystems": subsystems,
        "totals": figures.totals,
        "high_water": high_water,
    })
}

/// What is told of memory in more than one place.
struct Figures {
    memory: Option<Memory>,
    process: Value,
    breakdown: Value,
    groups: Value,
    totals: Value,
}

impl Figures {
    fn of(app: &App, details: &ServerDetails) -> Self {
        let memory = app.world.process.memory();
        let held = held(details);
        Self {
            memory,
            process: process(memory.map(|it| it.resident)),
            breakdown: process_breakdown(memory, held),
            groups: Value::Object(groups(details)),
            totals: totals(details, held),
        }
    }

    /// The highest so far; the system knows the most that ever was resident.
    fn high_water(&self, app: &App, details: &ServerDetails) -> Value {
        let process = process(self.memory.map(|it| it.resident_max));
        let mut marks = app.high_water.lock();
        let mut note = |group, figures| marks.note(group, figures, details.now);
        json!({
            "process": note("process", &process),
            "process_breakdown": note("process_breakdown", &self.breakdown),
            "sqlite": {},
            "runtime_bytes": note("runtime_bytes", &self.groups),
            "runtime_totals": note("runtime_totals", &self.totals),
        })
    }
}

fn process(resident: Option<u64>) -> Value {
    json!({
        "rss_bytes": resident,
        "heap_total_bytes": 0,
        "heap_used_bytes": 0,
        "external_bytes": 0,
        "array_buffers_bytes": 0,
    })
}

/// `held`: bytes that are accounted for.
fn process_breakdown(memory: Option<Memory>, held: u64) -> Value {
    let source = match memory {
        Some(_) => "linux_proc_status",
        None => "process_memory_usage_only",
    };
    json!({
        "source": source,
        "rss_anon_bytes": memory.map(|it| it.anonymous),
        "rss_file_bytes": memory.map(|it| it.file),
        "rss_shmem_bytes": memory.map(|it| it.shared),
        "js_managed_bytes": 0,
        "js_external_non_array_buffers_bytes": 0,
        "mapped_file_bytes": 0,
        "sqlite_runtime_bytes": 0,
        "unattributed_anon_bytes": memory.map(|it| it.anonymous.saturating_sub(held)),
        "unattributed_rss_bytes": memory.map(|it| it.resident.saturating_sub(held)),
    })
}

fn sqlite() -> Value {
    json!({
        "available": false,
        "source": "unavailable",
        "memory_used_bytes": 0,
        "memory_highwater_bytes": 0,
        "pagecache_used_slots": 0,
        "pagecache_used_slots_highwater": 0,
        "pagecache_overflow_bytes": 0,
        "pagecache_overflow_highwater_bytes": 0,
        "malloc_count": 0,
        "malloc_count_highwater": 0,
        "open_connections": 0,
        "prepared_statements": 0,
    })
}

fn gc() -> Value {
    json!({
        "forced_gc_count": 0,
        "forced_gc_reclaimed_bytes_total": 0,
        "last_forced_gc_at_ms": null,
        "last_forced_gc_before_bytes": null,
        "last_forced_gc_after_bytes": null,
        "last_forced_gc_reclaimed_bytes": null,
        "heap_snapshots_written": 0,
        "last_heap_snapshot_at_ms": null,
    })
}

/// The six groups of bytes.
fn groups(details: &ServerDetails) -> Map<String, Value> {
    let groups = json!({
        "heap_estimates": {
            "ingest_queue_payload_bytes": details.queue.bytes,
            "routing_run_cache_bytes": 0,
            "exact_run_cache_bytes": 0,
            "mock_r2_in_memory_bytes": 0,
            "memtable_bytes": details.memtable.bytes,
            "block_cache_bytes": details.blocks.bytes,
        },
        "mapped_files": {
            "segment_cache_mapped_bytes": 0,
            "routing_run_disk_cache_mapped_bytes": 0,
            "exact_run_disk_cache_mapped_bytes": 0,
            "lexicon_index_mapped_bytes": 0,
            "companion_bundle_mapped_bytes": 0,
        },
        "disk_caches": {
            "segment_disk_cache_bytes": details.segments.cached_bytes,
            "routing_run_disk_cache_bytes": 0,
            "exact_run_disk_cache_bytes": 0,
            "lexicon_disk_cache_bytes": 0,
            "companion_disk_cache_bytes": 0,
        },
        "configured_budgets": {
            "sqlite_cache_budget_bytes": 0,
            "worker_sqlite_cache_budget_bytes": 0,
            "index_run_memory_cache_budget_bytes": 0,
            "index_run_disk_cache_budget_bytes": 0,
            "lexicon_index_cache_budget_bytes": 0,
            "segment_cache_budget_bytes": details.limits.config.local_bytes_max,
            "companion_toc_cache_budget_bytes": 0,
            "companion_section_cache_budget_bytes": 0,
            "companion_file_cache_budget_bytes": 0,
            "block_cache_budget_bytes": details.limits.config.block_cache_bytes,
        },
        "pipeline_buffers": {
            "segmenter_active_payload_bytes": 0,
            "segmenter_active_segment_bytes_estimate": 0,
            "uploader_inflight_segment_bytes": uploading_bytes(details),
        },
        "sqlite_runtime": {
            "sqlite_memory_used_bytes": 0,
            "sqlite_pagecache_overflow_bytes": 0,
        },
    });
    match groups {
        Value::Object(groups) => groups,
        _ => unreachable!("it is written as an object"),
    }
}

fn counts(app: &App, details: &ServerDetails) -> Value {
    json!({
        "pending_upload_segments": details.publishing.as_ref().map_or(0, |it| it.pending_files),
        "uploader_inflight_segments":
            details.publishing.as_ref().map_or(0, |it| it.under_way_files),
        "segmenter_active_builds": 0,
        "segment_pinned_files": 0,
        "lexicon_pinned_files": 0,
        "companion_pinned_files": 0,
        "sqlite_open_connections": 0,
        "sqlite_prepared_statements": 0,
        "ingest_queue_requests": details.queue.requests,
        "streams_cached": details.streams.cached,
        "streams_unsealed": details.memtable.streams,
        "segments": details.segments.count,
        "subscriptions": details.subscriptions.count,
        "live_readers": details.streams.readers,
        "inspections": app.metrics.readers(Mode::Inspection),
        "connections": app.metrics.connections.get(),
        "bucket_requests": bucket::requests(app),
    })
}

fn counters(app: &App) -> Value {
    let named = |suffix: &str| format!("tieredstore.mem.leak_candidate.{suffix}");
    let mut counters: Map<String, Value> =
        LEAK_CANDIDATES.iter().map(|suffix| (named(suffix), json!(0))).collect();
    counters.insert(named("metrics.series"), json!(app.metrics.series()));
    Value::Object(counters)
}

/// Bytes in memory that are accounted for.
fn held(details: &ServerDetails) -> u64 {
    to_u64(details.queue.bytes)
        .saturating_add(to_u64(details.memtable.bytes))
        .saturating_add(details.blocks.bytes)
}

/// The budget is that of memory: what the disk may cache has a limit of its own.
fn totals(details: &ServerDetails, held: u64) -> Value {
    let config = &details.limits.config;
    let budget = to_u64(config.queue_bytes_max)
        .saturating_add(to_u64(details.limits.unsealed_bytes_max))
        .saturating_add(config.block_cache_bytes);
    json!({
        "heap_estimate_bytes": held,
        "mapped_file_bytes": 0,
        "disk_cache_bytes": details.segments.cached_bytes,
        "configured_budget_bytes": budget,
        "pipeline_buffer_bytes": uploading_bytes(details),
        "sqlite_runtime_bytes": 0,
    })
}

/// Bytes of files that are being uploaded. They are not held in memory unless the bucket wants them so.
fn uploading_bytes(details: &ServerDetails) -> u64 {
    details.publishing.as_ref().map_or(0, |it| it.under_way_bytes)
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("usize fits u64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_does_not_tell_is_null_and_what_it_tells_is_split() {
        assert_eq!(process(None)["rss_bytes"], Value::Null);
        assert_eq!(process_breakdown(None, 7)["unattributed_rss_bytes"], Value::Null);
        let (resident, resident_max) = (50, 70);
        let (anonymous, file, shared) = (30, 15, 5);
        let memory = Memory { resident, resident_max, anonymous, file, shared };
        let told = process_breakdown(Some(memory), 20);
        assert_eq!(told["source"], "linux_proc_status");
        let figures = ["rss_anon_bytes", "rss_file_bytes", "rss_shmem_bytes"].map(|it| &told[it]);
        assert_eq!(figures, [30, 15, 5]);
        assert_eq!(
            (&told["unattributed_anon_bytes"], &told["unattributed_rss_bytes"]),
            (&json!(10), &json!(30))
        );
    }
}
