//! Inspection of a server that publishes: what is told of shared files, and whom it wakes (core §5.11,
//! §5.12, §5.14, §5.15).

mod support;

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use support::{Server, until, within};
use weir_io::memory::{BucketFaults, MemoryBucket};

const S: &str = "/v1/stream/s";
const DETAILS: &str = "/v1/stream/s/_details";
const STATUS: &str = "/v1/stream/s/_index_status";
const OTHER: &str = "/v1/stream/other";
const OTHER_DETAILS: &str = "/v1/stream/other/_details";
const SERVER: &str = "/v1/server/_details";
const MEMORY: &str = "/v1/server/_mem";

/// Every request takes so long that whoever is woken between two of them sees what is between them.
fn slow() -> BucketFaults {
    let latency = Duration::from_millis(100)..Duration::from_millis(101);
    BucketFaults { latency, ..BucketFaults::default() }
}

async fn told(server: &Server, path: &str) -> Value {
    server.get(path).await.check(200).json()
}

/// Resolves when everything that a stream has is published.
async fn published(server: &Server, path: &str) {
    until("all is published", || async {
        let stream = &told(server, path).await["stream"];
        let next: u64 = stream["next_offset"].as_str().expect("text").parse().expect("a number");
        next > 0 && stream["uploaded_through"] == json!((next - 1).to_string())
    })
    .await;
}

#[tokio::test]
async fn whoever_waits_for_the_index_status_is_told_of_the_manifest_too() {
    let bucket = MemoryBucket::new(1);
    let server = Server::start_publishing(&bucket).await;
    server.create(S, "text/plain").await;
    let before = server.get(STATUS).await.check(200);
    let mut tag = before.header("etag").to_owned();
    bucket.set_faults(slow());
    server.append(S, "x").await;
    let live = format!("{STATUS}?live=long-poll&timeout=30s");
    let mut client = server.client().await;
    let last = loop {
        let known = [("if-none-match", &*tag)];
        let reply = client.send("GET", &live, &known, "").await.check(200);
        let fresh = reply.header("etag").to_owned();
        assert_ne!(fresh, tag);
        tag = fresh;
        let status = reply.json();
        let through = told(&server, DETAILS).await["stream"]["uploaded_through"].clone();
        // It may have been published since the client was answered.
        if through == "0" && tag == server.get(STATUS).await.header("etag") {
            break status;
        }
    };
    assert_eq!(last["segments"], json!({ "total_count": 1, "uploaded_count": 1 }));
    assert_eq!(last, told(&server, STATUS).await);

    let newest = bucket.keys().into_iter().find(|key| key.as_str().starts_with("manifest/"));
    let manifest = bucket.peek(&newest.expect("there is one")).expect("it is there");
    let hash = digest(&SHA256, &manifest);
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(last["manifest"]["last_uploaded_etag"], hash);
    assert_eq!(last["manifest"]["last_uploaded_size_bytes"], manifest.len().to_string());
    assert_eq!(told(&server, DETAILS).await["index_status"], last);
}

#[tokio::test]
async fn seals_merges_and_manifests_because_of_others_end_no_wait() {
    let server = Server::start_publishing(&MemoryBucket::new(2)).await;
    for path in [S, OTHER] {
        server.create(path, "text/plain").await;
        server.append(path, "x").await;
    }
    published(&server, DETAILS).await;
    published(&server, OTHER_DETAILS).await;
    let before = told(&server, DETAILS).await;
    let tags = [
        server.get(DETAILS).await.header("etag").to_owned(),
        server.get(STATUS).await.header("etag").to_owned(),
    ];
    let mut clients = [server.client().await, server.client().await];
    let [first, second] = &mut clients;
    let known = tags.each_ref().map(|tag| [("if-none-match", &**tag)]);
    let live = [DETAILS, STATUS].map(|path| format!("{path}?live=long-poll&timeout=60s"));
    let mut waiting = pin!(async {
        tokio::select! {
            reply = first.begin("GET", &live[0], &known[0], Bytes::new()) => reply,
            reply = second.begin("GET", &live[1], &known[1], Bytes::new()) => reply,
        }
    });
    let file_bytes =
        |details: &Value| details["storage"]["local_storage"]["segment_file_bytes"].clone();
    let others = async {
        let both = "weir_http_live_readers{mode=\"inspection\"}";
        until("both wait", || async { server.figure(both).await >= 2.0 }).await;
        let mut turns = 0;
        while file_bytes(&told(&server, DETAILS).await) == file_bytes(&before) {
            turns += 1;
            assert!(turns < 32, "the segment of the quiet stream is merged with others");
            server.append(OTHER, "y").await;
            published(&server, OTHER_DETAILS).await;
        }
        // To ask whether the clients are let go takes longer than to let them go.
        assert!(server.figure(both).await >= 2.0);
    };
    tokio::select! {
        biased;
        reply = &mut waiting => panic!("let go by others: {reply:?}"),
        () = others => {}
    }
    for (path, tag) in [DETAILS, STATUS].into_iter().zip(&tags) {
        server.send("GET", path, &[("if-none-match", &**tag)], "").await.check(304);
    }
    // What happens to this one does.
    server.append(S, "z").await;
    assert_eq!(within(waiting).await.status(), 200);
}

#[tokio::test]
async fn the_server_tells_what_is_on_its_way_to_the_bucket_and_what_only_it_has() {
    let bucket = MemoryBucket::new(3);
    let server = Server::start_publishing(&bucket).await;
    server.create(S, "text/plain").await;
    server.append(S, "x").await;
    published(&server, DETAILS).await;
    bucket.set_faults(BucketFaults { hang: 1.0, ..BucketFaults::default() });
    server.append(S, "hello").await;
    // A segment and a ledger.
    until("uploads are under way", || async {
        told(&server, MEMORY).await["runtime_counts"]["uploader_inflight_segments"] == 2
    })
    .await;
    let memory = told(&server, MEMORY).await;
    let bytes = &memory["runtime_bytes"]["pipeline_buffers"]["uploader_inflight_segment_bytes"];
    assert!(bytes.as_u64() > Some(100), "{memory}");
    assert_eq!(&memory["runtime_totals"]["pipeline_buffer_bytes"], bytes);
    let body = told(&server, SERVER).await;
    assert_eq!(body["configured_limits"]["concurrency"]["upload"], 8);
    let publishing = &body["store"]["publishing"];
    assert_eq!(
        (&publishing["under_way_files"], &publishing["under_way_bytes"]),
        (&json!(2), bytes)
    );
    assert_eq!(server.figure("weir_uploads_under_way").await, 2.0);
    assert_eq!(server.figure("weir_uploads_under_way_bytes").await.to_string(), bytes.to_string());
}

#[tokio::test]
async fn the_server_names_the_streams_of_which_it_alone_has_most() {
    let server = Server::start().await;
    for (path, body) in [("/v1/stream/large", "hello"), ("/v1/stream/small", "x")] {
        server.create(path, "text/plain").await;
        server.append(path, body).await;
    }
    server.create("/v1/stream/empty", "text/plain").await;
    let row = |stream: &str, bytes: u64, unsealed: u64| {
        json!({
            "stream": stream, "bytes": bytes, "wal_retained_bytes": unsealed,
            "segment_cache_bytes": 0, "index_cache_bytes": 0,
        })
    };
    let local = async |server: &Server| {
        let told = told(server, MEMORY).await;
        told["top_streams"]["local_storage_bytes"].clone()
    };
    assert_eq!(local(&server).await, json!([row("large", 5, 5), row("small", 1, 1)]));
    // What is sealed at the stop has no bucket to go to.
    let server = server.restart().await;
    assert_eq!(local(&server).await, json!([]), "nothing was written since");
    server.append("/v1/stream/small", "yz").await;
    assert_eq!(local(&server).await, json!([row("small", 3, 2)]));
}
