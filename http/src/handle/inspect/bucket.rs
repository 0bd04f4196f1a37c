//! What the bucket was asked, in figures of our own and in the peer's.
//!
//! All streams share the objects of a store, so no request belongs to one of them: a stream's
//! `object_store_requests` are the store's, and no part of its tag.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_io::objects::{Artifact, Figures, Recent, Snapshot, Verb};

use crate::{
    App,
    object_store::ObjectStore,
    prices::{self, Class},
};

/// `object_store` of the server's figures; null where there is none.
pub(super) fn document(app: &App) -> Value {
    let Some(store) = &app.object_store else { return Value::Null };
    let recent = store.counts.recent();
    let requests: Vec<Value> = store.counts.snapshot().iter().map(row).collect();
    json!({
        "kind": store.kind.as_str(),
        "place": store.place,
        "attempt_timeout_ms": attempt_ms(store),
        "attempts_max": store.patience.attempts_max,
        "requests": requests,
        "recent": recently(&recent),
        "estimated_usd_per_hour": prices::dollars_per_hour(store.kind, &recent),
    })
}

/// How long a request that moves no bytes may take; 0 where there is no bucket.
pub(super) fn timeout_ms(app: &App) -> u64 {
    app.object_store.as_ref().map_or(0, attempt_ms)
}

/// Requests so far, earlier runs included.
pub(super) fn requests(app: &App) -> u64 {
    let snapshot = snapshot(app);
    Verb::ALL.into_iter().map(|verb| snapshot.of_verb(verb).requests).sum()
}

/// `object_store_requests` in the peer's fields.
pub(super) fn in_peers_fields(app: &App) -> Value {
    let snapshot = snapshot(app);
    let mut artifacts: BTreeMap<&'static str, Asked> = BTreeMap::new();
    let mut all = Asked::default();
    for (artifact, verb, Figures { requests, .. }) in snapshot.iter() {
        all.add(verb, requests);
        artifacts.entry(peers_name(artifact)).or_default().add(verb, requests);
    }
    let by_artifact: Vec<Value> = artifacts
        .into_iter()
        .map(|(artifact, asked)| {
            let mut row = asked.document();
            row["artifact"] = json!(artifact);
            row
        })
        .collect();
    let mut document = all.document();
    document["by_artifact"] = json!(by_artifact);
    document
}

fn snapshot(app: &App) -> Snapshot {
    app.object_store.as_ref().map(|store| store.counts.snapshot()).unwrap_or_default()
}

fn attempt_ms(store: &ObjectStore) -> u64 {
    u64::try_from(store.patience.attempt.as_millis()).unwrap_or(u64::MAX)
}

fn row((artifact, verb, figures): (Artifact, Verb, Figures)) -> Value {
    json!({
        "artifact": artifact.as_str(),
        "verb": verb.as_str(),
        "requests": figures.requests,
        "bytes": figures.bytes,
        "errors": figures.errors,
        "total_ms": figures.micros / 1000,
    })
}

fn recently(recent: &Recent) -> Value {
    let classes = prices::by_class(recent);
    let of = |class| classes.get(&class).copied().unwrap_or(0);
    json!({
        "window_ms": u64::try_from(recent.window.as_millis()).unwrap_or(u64::MAX),
        "class_a": of(Class::A),
        "class_b": of(Class::B),
        "free": of(Class::Free),
    })
}

/// The peer's name for what an object is for.
const fn peers_name(artifact: Artifact) -> &'static str {
    match artifact {
        Artifact::Segments => "segment",
        Artifact::Manifest | Artifact::Pages => "manifest",
        Artifact::Rows | Artifact::Gc | Artifact::Probe | Artifact::Other => "meta",
    }
}

/// Requests by the verbs that the peer has.
#[derive(Clone, Copy, Default)]
struct Asked {
    puts: u64,
    gets: u64,
    heads: u64,
    lists: u64,
    deletes: u64,
}

impl Asked {
    fn add(&mut self, verb: Verb, requests: u64) {
        let figure = match verb {
            Verb::Create => &mut self.puts,
            Verb::Get | Verb::GetRange => &mut self.gets,
            Verb::Head => &mut self.heads,
            Verb::List => &mut self.lists,
            Verb::Delete => &mut self.deletes,
        };
        *figure = figure.saturating_add(requests);
    }

    fn document(self) -> Value {
        let Self { puts, gets, heads, lists, deletes } = self;
        let reads = gets.saturating_add(heads).saturating_add(lists);
        json!({
            "puts": puts.to_string(),
            "reads": reads.to_string(),
            "gets": gets.to_string(),
            "heads": heads.to_string(),
            "lists": lists.to_string(),
            "deletes": deletes.to_string(),
        })
    }
}
