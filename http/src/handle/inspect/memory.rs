//! `GET /v1/server/_mem`, and the memory that the server's figures tell of, in the peer's fields.
//!
//! What is accounted for. Nobody asks the operating system for the size of the process, so what
//! only it knows is null; 0 stands for what this server does not have (mapped files, a garbage
//! collector, touch journals) and for the statistics that SQLite is built without. Nothing
//! remembers the highest values yet: `high_water` is empty. Figures of our own in the peer's
//! groups: `heap_estimates.memtable_bytes` and `block_cache_bytes`, and in `counts` whatever
//! does not begin like the peer's.

use serde_json::{Map, Value, json};
use weir_engine::inspect::ServerDetails;

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
    json!({
        "ts": date::rfc3339(details.now),
        "process": process(),
        "process_breakdown": process_breakdown(),
        "sqlite": sqlite(),
        "gc": gc(),
        "high_water": high_water(),
        "counters": counters(app),
        "runtime_counts": counts(app, &details),
        "runtime_bytes": groups(&details),
        "runtime_totals": totals(&details),
        "top_streams": server::top_streams(&details),
    })
}

/// `runtime.memory` of the server's figures.
pub(super) fn runtime(app: &App, details: &ServerDetails) -> Value {
    let mut subsystems = groups(details);
    subsystems.insert("counts".to_owned(), counts(app, details));
    json!({
        "pressure_active": false,
        "pressure_limit_bytes": 0,
        "last_rss_bytes": null,
        "max_rss_bytes": null,
        "process": process(),
        "process_breakdown": process_breakdown(),
        "sqlite": sqlite(),
        "gc": gc(),
        "subsystems": subsystems,
        "totals": totals(details),
        "high_water": high_water(),
    })
}

fn process() -> Value {
    json!({
        "rss_bytes": null,
        "heap_total_bytes": 0,
        "heap_used_bytes": 0,
        "external_bytes": 0,
        "array_buffers_bytes": 0,
    })
}

fn process_breakdown() -> Value {
    json!({
        "source": "process_memory_usage_only",
        "rss_anon_bytes": null,
        "rss_file_bytes": null,
        "rss_shmem_bytes": null,
        "js_managed_bytes": 0,
        "js_external_non_array_buffers_bytes": 0,
        "mapped_file_bytes": 0,
        "sqlite_runtime_bytes": 0,
        "unattributed_anon_bytes": null,
        "unattributed_rss_bytes": 0,
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

fn high_water() -> Value {
    json!({
        "process": {},
        "process_breakdown": {},
        "sqlite": {},
        "runtime_bytes": {},
        "runtime_totals": {},
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
            "segment_disk_cache_bytes": 0,
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
            "segment_cache_budget_bytes": details.limits.config.block_cache_bytes,
            "companion_toc_cache_budget_bytes": 0,
            "companion_section_cache_budget_bytes": 0,
            "companion_file_cache_budget_bytes": 0,
        },
        "pipeline_buffers": {
            "segmenter_active_payload_bytes": 0,
            "segmenter_active_segment_bytes_estimate": 0,
            "uploader_inflight_segment_bytes": 0,
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
        "pending_upload_segments": 0,
        "uploader_inflight_segments": 0,
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

fn totals(details: &ServerDetails) -> Value {
    let config = &details.limits.config;
    let queue = to_u64(details.queue.bytes);
    let held = queue + to_u64(details.memtable.bytes) + details.blocks.bytes;
    let budget = to_u64(config.queue_bytes_max)
        .saturating_add(to_u64(details.limits.unsealed_bytes_max))
        .saturating_add(config.block_cache_bytes);
    json!({
        "heap_estimate_bytes": held,
        "mapped_file_bytes": 0,
        "disk_cache_bytes": 0,
        "configured_budget_bytes": budget,
        "pipeline_buffer_bytes": 0,
        "sqlite_runtime_bytes": 0,
    })
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("usize fits u64")
}
