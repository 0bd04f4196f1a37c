//! How a store looks at a fixed point: the figures of the server, and of each stream its details,
//! its index status and what a reader gets.
//!
//! Left out is what says nothing of the schedule and changes with every codec: bytes of files, of the
//! log and of memory, and how long a commit took.

use std::collections::BTreeMap;

use serde_json::Value;
use weir_engine::{
    Health,
    inspect::{Details, IndexStatus, Publishing, ServerDetails},
    types::{Expiry, WallMs},
};
use weir_http::measured;
use weir_io::memory::EPOCH_MS;

use super::{
    stage::Life,
    streams::{named, shown},
};

impl Life {
    /// Writes down how everything looks, and checks what readers get.
    pub(super) async fn look(&self, point: &str) {
        self.glance(point);
        let names: Vec<String> = self.scene.truths.borrow().keys().cloned().collect();
        for name in names {
            let inspected = self.engine().inspect(&named(&name)).await;
            let details = match inspected {
                Ok(inspection) => inspection.details().await,
                Err(error) => Err(error),
            };
            match details {
                Ok(details) => {
                    for (depth, line) in stream(&details) {
                        self.line(2 + depth, &line);
                    }
                    self.answers(&name, &details);
                }
                Err(error) => self.line(2, &format!("{name}: {error}")),
            }
            match self.engine().index_status(&named(&name)).await {
                Ok(status) => self.line(3, &index(&status)),
                Err(error) => self.line(3, &format!("index: {error}")),
            }
            let read = self.read(&name).await;
            self.line(3, &read);
        }
    }

    /// Writes down what of the answers over HTTP is new since they were shown before.
    fn answers(&self, name: &str, details: &Details) {
        let paths = ["_details", "_index_status"];
        let [mut whole, index] = measured::answers(details);
        assert_eq!(whole["index_status"].take(), index, "one status, in two answers");
        for (path, answer) in paths.into_iter().zip([whole, index]) {
            let mut fields = BTreeMap::new();
            flatten("", &answer, &mut fields);
            let mut shown = self.scene.answers.borrow_mut();
            let before = shown.insert(format!("{name}/{path}"), fields.clone()).unwrap_or_default();
            // Nothing yet is not worth a line, nothing any more is.
            let is_new = |field: &str, value: &String| match before.get(field) {
                Some(before) => before != value,
                None => !matches!(value.as_str(), "0" | "\"0\"" | "\"-1\""),
            };
            let fresh = fields.iter().filter(|(field, value)| is_new(field, value));
            let fresh = fresh.map(|(field, value)| format!("{field}: {value}"));
            let gone = before.keys().filter(|field| !fields.contains_key(*field));
            let gone = gone.map(|field| format!("{field}: no more"));
            let fresh: Vec<String> = fresh.chain(gone).collect();
            drop(shown);
            if !fresh.is_empty() {
                self.line(3, &format!("GET {path}"));
                fresh.iter().for_each(|line| self.line(4, line));
            }
        }
    }

    /// The same of the server alone.
    pub(super) fn glance(&self, point: &str) {
        self.say(&format!("look: {point}"));
        self.line(2, &server(&self.engine().server_details()));
    }

    fn line(&self, depth: usize, text: &str) {
        for line in text.lines() {
            self.scene.tell(depth, line);
        }
    }
}

/// The fields of an answer by their paths, but for those that are empty, and for bytes and hashes of
/// files, which change with every codec.
fn flatten(path: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, fields);
            }
        }
        Value::Null | Value::Bool(false) => {}
        Value::Array(items) if items.is_empty() => {}
        Value::String(text) if text.is_empty() => {}
        _ if path.starts_with("storage.") && path.ends_with("bytes") => {}
        _ if path.ends_with("last_uploaded_etag") => {}
        _ if path.starts_with("profile.") || path.starts_with("schema.") => {}
        value => drop(fields.insert(path.to_owned(), value.to_string())),
    }
}

fn server(details: &ServerDetails) -> String {
    let (commits, memtable, segments) = (&details.commits, &details.memtable, &details.segments);
    let health = match &details.health {
        Health::Serving => "serving".to_owned(),
        Health::DiskFull => "disk full".to_owned(),
        Health::LogFailed { reason } => format!("log failed ({reason})"),
        Health::Draining => "draining".to_owned(),
    };
    let log = if memtable.log_bytes > 0 { "has commits" } else { "is empty" };
    let bucket = details.publishing.as_ref().map(bucket).unwrap_or_default();
    format!(
        "server: {health}, running for {} s\n  \
         commits: through {}, {} made, {} failed, {} entries, {} records\n  \
         unsealed: {} streams, {} bytes, the log {log}{}\n  \
         segments: {} with {} records, {} seals, {} failed\n  \
         queue: {} requests, wal full: {}, cached: {} names, readers: {}{bucket}",
        details.running.get() / 1000,
        commits.durable,
        commits.made,
        commits.failed,
        commits.entries,
        commits.records,
        memtable.streams,
        memtable.bytes,
        if memtable.full { ", full" } else { "" },
        segments.count,
        segments.records,
        segments.seals,
        segments.seals_failed,
        details.queue.requests,
        details.wal.full,
        details.streams.cached,
        details.streams.readers,
    )
}

fn bucket(publishing: &Publishing) -> String {
    let newest = match publishing.newest {
        Some(newest) => format!(
            "manifest {} through {} made {}",
            newest.generation,
            newest.through,
            at(newest.created)
        ),
        None => "no manifest".to_owned(),
    };
    let told = [(publishing.full, "full"), (publishing.fenced, "fenced")];
    let told: String =
        told.iter().filter(|(is, _)| *is).map(|(_, word)| format!(", {word}")).collect();
    format!(
        "\n  bucket: {newest}, {} files wait{told}\n    \
         {} uploads, {} manifests, {} failures, {} holes, {} recoveries",
        publishing.pending_files,
        publishing.uploads,
        publishing.manifests,
        publishing.failed,
        publishing.holes,
        publishing.recoveries,
    )
}

fn stream(details: &Details) -> Vec<(usize, String)> {
    let (head, sealed, unsealed) = (&details.head, &details.sealed, &details.unsealed);
    let open = if head.closed { "closed" } else { "open" };
    let mut lines = vec![(
        0,
        format!("{}: {}, tail {}, {open}", head.name, head.content.as_str(), shown(head.next)),
    )];
    let mut add = |line: String| lines.push((1, line));
    add(format!(
        "bytes: {}, producers: {}, forks: {}",
        details.total_bytes, details.producers, details.forks
    ));
    add(format!("unsealed: {} records, {} bytes", unsealed.records, unsealed.bytes));
    add(format!(
        "sealed: through {}, {} records, {} bytes in {} segments",
        shown(sealed.through),
        sealed.records,
        sealed.bytes,
        sealed.segments
    ));
    if details.index.manifest.is_some() {
        let uploaded = &details.uploaded;
        add(format!("published: through {}, {} segments", uploaded.through, uploaded.segments));
    }
    add(format!("created {}, last append {}", at(head.created), at(head.last_append)));
    if let Some(seq) = &details.stream_seq {
        add(format!("stream-seq: {}", String::from_utf8_lossy(seq)));
    }
    if let Some(fork) = &details.fork {
        add(format!("fork: of {} at {}, {} runs", fork.source, fork.at, fork.runs));
    }
    match head.expiry {
        Expiry::Never => {}
        Expiry::Sliding { ttl_seconds } => add(format!(
            "ttl: {ttl_seconds} s, expires {}",
            details.expires_at.map_or_else(|| "never".to_owned(), at)
        )),
        Expiry::At(until) => add(format!("expires {}", at(until))),
    }
    lines
}

fn index(status: &IndexStatus) -> String {
    let published = status.manifest.map_or_else(String::new, |manifest| {
        format!(", {} uploaded, manifest {}", status.uploaded_segments, manifest.generation)
    });
    format!("index: {} segments{published}", status.segments)
}

/// Wall time as seconds since the world began.
fn at(wall: WallMs) -> String {
    match wall.get().checked_sub(EPOCH_MS) {
        Some(ms) => format!("at {} s", ms / 1000),
        None => format!("{} s before the beginning", (EPOCH_MS - wall.get()) / 1000),
    }
}
