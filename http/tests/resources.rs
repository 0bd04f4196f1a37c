//! Profiles and schemas of streams, the server's memory, and what its bucket was asked, over the
//! wire (core §5.9, §5.10, §5.14, §5.15).

mod support;

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use support::{JSON, Server, TEXT, fresh_dir, until};
use weir_http::{ObjectStore, cli::store::StoreKind, config::StoreSettings};
use weir_io::{
    World,
    disk::Create,
    net::Listener as _,
    objects::{Counts, Key},
    os::{
        self, OsListener,
        objects::{Bucket, Kind},
    },
};

const S: &str = "/v1/stream/s";
const PROFILE: &str = "/v1/stream/s/_profile";
const SCHEMA: &str = "/v1/stream/s/_schema";

fn generic() -> Value {
    json!({ "apiVersion": "durable.streams/profile/v1", "profile": { "kind": "generic" } })
}

fn empty_registry() -> Value {
    json!({
        "apiVersion": "durable.streams/schema-registry/v1", "schema": "s", "currentVersion": 0,
        "boundaries": [], "schemas": {}, "lenses": {},
    })
}

#[tokio::test]
async fn every_stream_is_generic_and_has_an_empty_registry() {
    let server = Server::start().await;
    for path in [PROFILE, SCHEMA] {
        assert_eq!(server.get(path).await.check(404).error().0, "not_found");
    }
    server.create(S, "application/json").await;
    for (path, expect) in [(PROFILE, generic()), (SCHEMA, empty_registry())] {
        let reply = server.get(path).await.check(200);
        assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
        assert_eq!(reply.header("cache-control"), "no-store");
        assert_eq!(reply.json(), expect);
        assert_eq!(&*server.head(path).await.check(200).body, b"");
        server.send("OPTIONS", path, &[], "").await.check(204);
        for method in ["PUT", "DELETE", "PATCH"] {
            let reply = server.send(method, path, JSON, "{}").await.check(405);
            assert_eq!(reply.header("allow"), "GET, HEAD, POST, OPTIONS");
        }
    }
    // A stream of such a name is another thing.
    server.create("/v1/stream/s%2F_schema", "text/plain").await;
    assert_eq!(server.get("/v1/stream/s%2F_schema").await.check(200).text(), "");
}

#[tokio::test]
async fn what_a_stream_has_anyway_can_be_asked_for_and_nothing_else_can() {
    let server = Server::start().await;
    // Whether the stream exists is told first.
    for path in [PROFILE, SCHEMA] {
        server.post(path, JSON, "{").await.check(404);
    }
    server.create(S, "text/plain").await;
    let install = r#"{"profile":{"kind":"generic"}}"#;
    // The peer does not look at the type of the body.
    for headers in [JSON, TEXT] {
        assert_eq!(server.post(PROFILE, headers, install).await.check(200).json(), generic());
    }
    let clear = r#"{"routingKey":null}"#;
    assert_eq!(server.post(SCHEMA, JSON, clear).await.check(200).json(), empty_registry());
    for (path, body, status, code) in [
        (PROFILE, "{", 400, "bad_request"),
        (PROFILE, r#"{"profile":{"kind":"evlog"}}"#, 501, "not_implemented"),
        (SCHEMA, r#"{"foo":1}"#, 400, "bad_request"),
        (SCHEMA, r#"{"schema":{}}"#, 501, "not_implemented"),
    ] {
        assert_eq!(server.post(path, JSON, body).await.check(status).error().0, code, "{body}");
    }
    let long = format!(r#"{{"x":"{}"}}"#, "x".repeat(1 << 20));
    server.post(PROFILE, JSON, long).await.check(413);
    assert_eq!(server.get(PROFILE).await.json(), generic());
}

#[tokio::test]
async fn a_deleted_stream_that_has_forks_has_no_resources() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let from = [("stream-forked-from", S)];
    server.put("/v1/stream/fork", &from, "").await.check(201);
    server.delete(S).await.check(204);
    for path in [PROFILE, SCHEMA] {
        assert_eq!(server.get(path).await.check(410).error().0, "gone");
        server.post(path, JSON, "{").await.check(410);
    }
}

#[tokio::test]
async fn the_memory_has_the_peers_fields() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    server.post(S, TEXT, "hello").await.check(204);
    let body = server.get("/v1/server/_mem").await.check(200).json();
    let names = |value: &Value| -> Vec<String> {
        let mut names: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
        names.sort_unstable();
        names
    };
    let expect = [
        "counters",
        "gc",
        "high_water",
        "process",
        "process_breakdown",
        "runtime_bytes",
        "runtime_counts",
        "runtime_totals",
        "sqlite",
        "top_streams",
        "ts",
    ];
    assert_eq!(names(&body), expect);
    let counters = names(&body["counters"]);
    assert_eq!(counters.len(), 27);
    assert!(counters.iter().all(|it| it.starts_with("tieredstore.mem.leak_candidate.")));
    let series = &body["counters"]["tieredstore.mem.leak_candidate.metrics.series"];
    assert!(series.as_u64().expect("a number") > 10, "{series}");
    let groups = [
        "configured_budgets",
        "disk_caches",
        "heap_estimates",
        "mapped_files",
        "pipeline_buffers",
        "sqlite_runtime",
    ];
    assert_eq!(names(&body["runtime_bytes"]), groups);
    assert_eq!(names(&body["runtime_bytes"]["configured_budgets"]).len(), 10);
    assert_eq!(names(&body["process"]).len(), 5);
    // The system under test tells: a server occupies more than a MiB, and never more than its most.
    let rss = body["process"]["rss_bytes"].as_u64().expect("a number");
    let most = &body["high_water"]["process"]["rss_bytes"];
    assert!(rss > 1 << 20 && most["value"].as_u64().expect("a number") >= rss, "{rss} {most}");
    assert!(most["at"].is_string(), "{most}");
    assert_eq!(body["process_breakdown"]["source"], "linux_proc_status");
    let memtable = &body["high_water"]["runtime_bytes"]["heap_estimates"]["memtable_bytes"];
    assert!(memtable["value"].as_u64().expect("a number") > 5, "{memtable}");
    assert_eq!(names(&body["process_breakdown"]).len(), 10);
    assert_eq!(names(&body["sqlite"]).len(), 12);
    assert_eq!(names(&body["gc"]).len(), 8);
    let memtable = &body["runtime_bytes"]["heap_estimates"]["memtable_bytes"];
    assert!(memtable.as_u64().expect("a number") > 5, "{memtable}");
    assert_eq!(body["top_streams"]["pending_wal_bytes"][0]["stream"], "s");
    let details = server.get("/v1/server/_details").await.check(200).json();
    let memory = &details["runtime"]["memory"];
    assert_eq!(names(&memory["totals"]), names(&body["runtime_totals"]));
    assert!(memory["last_rss_bytes"].as_u64() <= memory["max_rss_bytes"].as_u64());
    assert!(memory["last_rss_bytes"].is_u64());
    assert_eq!(names(&memory["subsystems"]).len(), 7, "the six groups and the counts");
    assert_eq!(server.head("/v1/server/_mem").await.check(200).body.len(), 0);
}

fn settings(kind: StoreKind, bucket: Kind) -> StoreSettings {
    let bucket = Bucket { kind: bucket, name: None, prefix: None, variables: [].into() };
    StoreSettings { kind, bucket, place: "a place".to_owned() }
}

async fn in_memory(world: &World) -> ObjectStore {
    let settings = settings(StoreKind::Memory, Kind::Memory);
    ObjectStore::open(world, &settings).await.expect("memory is always there")
}

#[tokio::test]
async fn what_the_bucket_was_asked_is_told() {
    let world = os::world().expect("a runtime is running");
    // Billed as if it were a cloud.
    let store = ObjectStore { kind: StoreKind::S3, ..in_memory(&world).await };
    let server = Server::start_beside(store.clone()).await;
    server.create(S, "text/plain").await;
    let before = server.get("/v1/stream/s/_details").await.check(200);
    let key = Key::new("segments/1").expect("a key");
    store.bucket.create(&key, &"hello".into()).await.expect("it works");
    store.bucket.get_range(&key, 1..3).await.expect("it is there");
    store.bucket.head(&key).await.expect("it works");

    let body = server.get("/v1/server/_details").await.check(200).json();
    let told = &body["object_store"];
    assert_eq!((&told["kind"], &told["place"]), (&json!("s3"), &json!("a place")));
    let rows = told["requests"].as_array().expect("rows");
    let row = |artifact: &str, verb: &str| {
        let row = rows.iter().find(|it| it["artifact"] == artifact && it["verb"] == verb);
        let row = row.unwrap_or_else(|| panic!("no {artifact} {verb}: {told}"));
        ["requests", "bytes", "errors"].map(|figure| row[figure].as_u64().expect("a number"))
    };
    assert_eq!(row("segments", "create"), [1, 5, 0]);
    assert_eq!(row("segments", "get_range"), [1, 2, 0]);
    assert_eq!(row("probe", "create"), [2, 33, 0]);
    // Created three times and read three times, in what counts as five minutes.
    let recent = json!({ "window_ms": 300_000, "class_a": 3, "class_b": 3, "free": 1 });
    assert_eq!(told["recent"], recent);
    let dollars = told["estimated_usd_per_hour"].as_f64().expect("a number");
    let expect = 12.0 * (3.0 * 5.0 + 3.0 * 0.4) / 1e6;
    assert!((dollars - expect).abs() < 1e-6, "{dollars}");
    assert_eq!(body["configured_limits"]["timeouts"]["object_store_timeout_ms"], 10_000);

    let details = server.get("/v1/stream/s/_details").await.check(200);
    let asked = &details.json()["object_store_requests"];
    for (figure, expect) in
        [("puts", "3"), ("gets", "2"), ("heads", "1"), ("reads", "3"), ("deletes", "1")]
    {
        assert_eq!(asked[figure], expect, "{asked}");
    }
    let segment = json!({
        "artifact": "segment", "puts": "1", "gets": "1", "heads": "1", "lists": "0",
        "deletes": "0", "reads": "2",
    });
    assert_eq!(asked["by_artifact"][1], segment);
    assert_eq!(details.header("etag"), before.header("etag"), "the stream is as it was");

    let figure =
        |name: &str| format!("weir_bucket_{name}{{artifact=\"segments\",verb=\"create\"}}");
    for (name, expect) in [("requests_total", 1.0), ("bytes_total", 5.0), ("errors_total", 0.0)] {
        let told = server.figure(&figure(name)).await;
        assert!((told - expect).abs() < f64::EPSILON, "{name}: {told}");
    }
    assert!(server.figure("weir_bucket_estimated_dollars_per_hour").await > 0.0);
    assert!(server.get("/metrics").await.text().contains("\nweir_bucket_seconds_total{"));
}

/// Figures that are counted elsewhere are as new as the others whenever they are asked for.
#[tokio::test]
async fn gauges_tell_what_is_now() {
    let server = Server::start_sealing().await;
    server.create(S, "text/plain").await;
    let cached = || server.figure("weir_block_cache_bytes");
    assert!(cached().await < 1.0, "nothing was read yet");
    server.append(S, "x".repeat(100_000)).await;
    until("it is read out of a segment", || async {
        server.get(S).await.check(200);
        cached().await > 0.0
    })
    .await;
    let told = server.get("/v1/server/_details").await.check(200).json();
    let bytes = told["store"]["block_cache"]["bytes"].as_f64().expect("a number");
    assert!((bytes - cached().await).abs() < 1.0, "{bytes}");
}

#[tokio::test]
async fn what_earlier_runs_asked_the_bucket_is_told_too() {
    let world = os::world().expect("a runtime is running");
    let store = in_memory(&world).await;
    let earlier = Counts::new(Arc::clone(&world.clock));
    earlier.restore(&store.counts.snapshot());
    earlier.restore(&store.counts.snapshot());
    store.counts.restore(&earlier.snapshot());
    let server = Server::start_beside(store).await;
    let probes = "weir_bucket_requests_total{artifact=\"probe\",verb=\"create\"}";
    let told = server.figure(probes).await;
    assert!((told - 6.0).abs() < f64::EPSILON, "two of this run and four of the others: {told}");
}

#[tokio::test]
async fn a_bucket_that_cannot_be_opened_or_asked_is_refused() {
    let world = os::world().expect("a runtime is running");
    let dir = fresh_dir();
    let good = Kind::Local { directory: dir.join("deep/bucket") };
    let opened = ObjectStore::open(&world, &settings(StoreKind::Local, good)).await;
    assert!(opened.is_ok() && dir.join("deep/bucket").is_dir());

    let file = dir.join("file");
    world.disk.create(&file, Create::New).expect("created");
    let taken = Kind::Local { directory: file };
    assert!(ObjectStore::open(&world, &settings(StoreKind::Local, taken)).await.is_err());

    let missing = ObjectStore::open(&world, &settings(StoreKind::R2, Kind::R2)).await;
    let error = missing.err().expect("no account").to_string();
    assert!(error.contains("opened"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_silent_is_given_up() {
    let world = os::world().expect("a runtime is running");
    // Somebody who never answers.
    let listener = OsListener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut settings = settings(StoreKind::S3, Kind::S3);
    settings.bucket.name = Some("b".to_owned());
    settings.bucket.variables = [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "x".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "x".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let began = tokio::time::Instant::now();
    let error = ObjectStore::open(&world, &settings).await.err().expect("silence").to_string();
    assert!(error.contains("did not answer"), "{error}");
    assert_eq!(began.elapsed().as_secs(), Duration::from_secs(30).as_secs());
    drop(listener);
}
