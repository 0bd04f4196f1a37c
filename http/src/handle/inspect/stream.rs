//! A stream's figures in the peer's fields.
//!
//! Counters that may exceed 2^53 are decimal strings, small counts are numbers, −1 stands for
//! "none yet". What this server does not have (schemas, indexes, profiles) reads as of
//! a peer's stream that has none of it. Fields of our own: `stream.producer_count`, `fork`,
//! `fork_count`, `retention`, `earliest_offset` and `trimmed_bytes`; `storage.local_storage.memtable_bytes` and `segment_file_bytes`.

use serde_json::{Value, json};
use weir_engine::{
    inspect::{Details, IndexStatus},
    types::{Expiry, OffsetFormat, Seq},
};

use super::bucket;
use crate::{
    App,
    wire::{date, hex::hex, resource, retention},
};

/// What of the document is the stream's own, and so all that its tag stands for: see [`add_shared`] and
/// [`add_passing`].
pub(super) fn details(details: &Details) -> Value {
    json!({
        "stream": stream(details),
        "profile": resource::profile(),
        "schema": resource::schema(&details.head.name),
        "index_status": index_status(&details.index),
        "storage": {
            "object_storage": object_storage(),
            "local_storage": local_storage(details),
            "companion_families": {
                "exact_bytes": "0",
                "col_bytes": "0",
                "fts_bytes": "0",
                "agg_bytes": "0",
                "mblk_bytes": "0",
            },
        },
    })
}

/// Adds what changes although nothing happens to the stream.
pub(super) fn add_passing(value: &mut Value, details: &Details, app: &App) {
    value["stream"]["expires_at"] = json!(details.expires_at.map(date::rfc3339));
    let shared = details.database_bytes.map(|bytes| bytes.to_string());
    value["storage"]["local_storage"]["sqlite_shared_total_bytes"] = json!(shared);
    let cached = json!(details.cached_bytes.to_string());
    value["storage"]["local_storage"]["segment_cache_bytes"] = cached;
    value["object_store_requests"] = bucket::in_peers_fields(app);
    let bytes = json!(details.index.manifest.map_or(0, |manifest| manifest.bytes).to_string());
    for field in ["manifest_and_meta_bytes", "manifest_bytes"] {
        value["storage"]["object_storage"][field] = bytes.clone();
    }
}

/// Adds the segments that hold some of the stream, and the newest manifest. Other streams share them:
/// what becomes of those changes these.
pub(super) fn add_shared(value: &mut Value, details: &Details) {
    let (sealed, uploaded) = (&details.sealed, &details.uploaded);
    let stream = &mut value["stream"];
    stream["segment_count"] = json!(sealed.segments);
    stream["uploaded_segment_count"] = json!(uploaded.segments);
    let cut_at = sealed.newest.unwrap_or(details.head.created);
    stream["last_segment_cut_at"] = json!(date::rfc3339(cut_at));
    let objects = &mut value["storage"]["object_storage"];
    for field in ["total_bytes", "segments_bytes"] {
        objects[field] = json!(uploaded.object_bytes.to_string());
    }
    objects["segment_object_count"] = json!(uploaded.segments);
    let file_bytes = json!(sealed.file_bytes.to_string());
    value["storage"]["local_storage"]["segment_file_bytes"] = file_bytes;
    add_files(&mut value["index_status"], &details.index);
}

/// The same of an index status.
pub(super) fn add_files(value: &mut Value, status: &IndexStatus) {
    value["segments"] = json!({
        "total_count": status.segments,
        "uploaded_count": status.uploaded_segments,
    });
    let manifest = status.manifest;
    let generation = manifest.map_or(0, |manifest| manifest.generation);
    value["manifest"] = json!({
        "generation": generation,
        "uploaded_generation": generation,
        "last_uploaded_at": manifest.map(|it| date::rfc3339(it.created)),
        "last_uploaded_etag": manifest.map(|it| hex(&it.digest)),
        "last_uploaded_size_bytes": manifest.map(|it| it.bytes.to_string()),
    });
}

fn stream(details: &Details) -> Value {
    let (head, unsealed, sealed) = (&details.head, &details.unsealed, &details.sealed);
    let ttl_seconds = match head.expiry {
        Expiry::Sliding { ttl_seconds } => Some(ttl_seconds),
        Expiry::Never | Expiry::At(_) => None,
    };
    let stream_seq = details.stream_seq.as_deref().map(String::from_utf8_lossy);
    let fork = details.fork.as_ref().map(|fork| {
        json!({
            "source": fork.source.as_str(),
            "at": fork.at.to_string(),
            "run_count": fork.runs,
        })
    });
    json!({
        "name": head.name.as_str(),
        "content_type": head.content.as_str(),
        "profile": "generic",
        "created_at": date::rfc3339(head.created),
        // The youngest change whose time is known.
        "updated_at": date::rfc3339(head.last_append.max(head.created)),
        "expires_at": null,
        "ttl_seconds": ttl_seconds,
        "stream_seq": stream_seq,
        "closed": head.closed,
        "epoch": head.next.epoch.get(),
        "next_offset": head.next.next.to_string(),
        "sealed_through": last_before(sealed.through.next),
        "uploaded_through": last_before(details.uploaded.through),
        "segment_count": null,
        "uploaded_segment_count": null,
        "pending_rows": unsealed.records.to_string(),
        "pending_bytes": unsealed.bytes.to_string(),
        "total_size_bytes": details.total_bytes.to_string(),
        "wal_rows": unsealed.records.to_string(),
        "wal_bytes": unsealed.bytes.to_string(),
        "last_append_at": date::rfc3339(head.last_append),
        "last_segment_cut_at": null,
        "producer_count": details.producers,
        "fork": fork,
        "fork_count": details.forks,
        "retention": (!head.retention.is_none()).then(|| retention::json(head.retention)),
        "earliest_offset": head.earliest.next.to_string(),
        "trimmed_bytes": details.trimmed_bytes.to_string(),
    })
}

/// The position before this one.
fn last_before(limit: Seq) -> String {
    match limit.get().checked_sub(1) {
        None => "-1".to_owned(),
        Some(last) => last.to_string(),
    }
}

/// What a stream has in the bucket: segments, which other streams may share, and the manifest,
/// which is the whole store's and not counted with the stream.
fn object_storage() -> Value {
    json!({
        "total_bytes": null,
        "segments_bytes": null,
        "indexes_bytes": "0",
        "manifest_and_meta_bytes": null,
        "manifest_bytes": null,
        "schema_registry_bytes": "0",
        "segment_object_count": null,
        "routing_index_object_count": 0,
        "routing_lexicon_object_count": 0,
        "exact_index_object_count": 0,
        "bundled_companion_object_count": 0,
    })
}

/// The total is what of the stream this disk alone has: neither what the bucket has too, nor the
/// database and segment files, which may be everybody's.
fn local_storage(details: &Details) -> Value {
    let (unsealed, sealed) = (&details.unsealed, &details.sealed);
    json!({
        "total_bytes": unsealed.bytes.saturating_add(sealed.pending_bytes).to_string(),
        "wal_retained_bytes": unsealed.bytes.to_string(),
        "pending_tail_bytes": unsealed.bytes.to_string(),
        "pending_sealed_segment_bytes": sealed.pending_bytes.to_string(),
        "segment_cache_bytes": null,
        "routing_index_cache_bytes": "0",
        "exact_index_cache_bytes": "0",
        "lexicon_index_cache_bytes": "0",
        "companion_cache_bytes": "0",
        "sqlite_shared_total_bytes": null,
        "memtable_bytes": unsealed.memory_bytes.to_string(),
        "segment_file_bytes": null,
    })
}

/// How far the segments of a stream are indexed, without segments and manifest: see [`add_files`].
pub(super) fn index_status(status: &IndexStatus) -> Value {
    json!({
        "stream": status.name.as_str(),
        "profile": "generic",
        "desired_index_plan_generation": 0,
        "segments": null,
        "manifest": null,
        "routing_key_index": unconfigured_index(),
        "routing_key_lexicon": unconfigured_index(),
        "exact_indexes": [],
        "bundled_companions": {
            "object_count": 0,
            "bytes_at_rest": "0",
            "fully_indexed_uploaded_segments": true,
        },
        "search_families": [],
    })
}

/// How far a stream is in segments and in the bucket.
pub(super) fn reach(status: &IndexStatus) -> [String; 2] {
    let positions = [status.sealed_through, status.uploaded_through];
    positions.map(|it| it.mint(OffsetFormat::Reference))
}

fn unconfigured_index() -> Value {
    json!({
        "configured": false,
        "indexed_segment_count": 0,
        "lag_segments": 0,
        "lag_ms": null,
        "bytes_at_rest": "0",
        "object_count": 0,
        "active_run_count": 0,
        "retired_run_count": 0,
        "fully_indexed_uploaded_segments": true,
        "updated_at": null,
    })
}
