//! Inspection over the wire (core §5.11, §5.12, §5.14).

mod support;

use serde_json::{Value, json};
use support::{JSON, Server, TEXT, until};
use weir_http::{
    HttpConfig,
    config::{ApiKey, Auth},
};

const S: &str = "/v1/stream/s";
const DETAILS: &str = "/v1/stream/s/_details";
const STATUS: &str = "/v1/stream/s/_index_status";
const SERVER: &str = "/v1/server/_details";
const MEMORY: &str = "/v1/server/_mem";
const PROFILE: &str = "/v1/stream/s/_profile";
const SCHEMA: &str = "/v1/stream/s/_schema";
/// What is told of a stream itself.
const STREAM_FIELDS: &str = "name content_type profile created_at updated_at expires_at ttl_seconds stream_seq closed \
     epoch next_offset sealed_through uploaded_through segment_count uploaded_segment_count \
     pending_rows pending_bytes total_size_bytes wal_rows wal_bytes last_append_at \
     last_segment_cut_at producer_count fork fork_count retention earliest_offset trimmed_bytes";

/// The names of an object, sorted.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> =
        value.as_object().expect("an object").keys().map(|it| &**it).collect();
    keys.sort_unstable();
    keys
}

#[track_caller]
fn check_keys(value: &Value, expect: &str) {
    let mut expect: Vec<&str> = expect.split_whitespace().collect();
    expect.sort_unstable();
    assert_eq!(keys(value), expect);
}

/// Every value is a string of digits.
#[track_caller]
fn check_counters(value: &Value, fields: &str) {
    for field in fields.split_whitespace() {
        let text = value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"));
        assert!(!text.is_empty() && text.bytes().all(|it| it.is_ascii_digit()), "{field}: {text}");
    }
}

/// Resolves when a client waits for something new.
async fn waits(server: &Server) {
    let figure = "weir_http_live_readers{mode=\"inspection\"}";
    until("a client waits", || async { server.figure(figure).await > 0.0 }).await;
}

async fn details(server: &Server) -> Value {
    server.get(DETAILS).await.check(200).json()
}

#[tokio::test]
async fn a_fresh_stream_has_the_peers_fields_and_nothing_in_them() {
    let server = Server::start().await;
    server.create(S, "application/json").await;
    let reply = server.get(DETAILS).await.check(200);
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(reply.header("cache-control"), "no-store");
    let body = reply.json();
    check_keys(&body, "stream profile schema index_status storage object_store_requests");

    let stream = &body["stream"];
    check_keys(stream, STREAM_FIELDS);
    let created = stream["created_at"].as_str().expect("a date");
    for (field, expect) in [
        ("name", json!("s")),
        ("content_type", json!("application/json")),
        ("profile", json!("generic")),
        ("updated_at", json!(created)),
        ("last_append_at", json!(created)),
        ("last_segment_cut_at", json!(created)),
        ("expires_at", Value::Null),
        ("ttl_seconds", Value::Null),
        ("stream_seq", Value::Null),
        ("closed", json!(false)),
        ("epoch", json!(0)),
        ("next_offset", json!("0")),
        ("sealed_through", json!("-1")),
        ("uploaded_through", json!("-1")),
        ("segment_count", json!(0)),
        ("uploaded_segment_count", json!(0)),
        ("pending_rows", json!("0")),
        ("pending_bytes", json!("0")),
        ("total_size_bytes", json!("0")),
        ("fork", Value::Null),
        ("fork_count", json!(0)),
        ("retention", Value::Null),
        ("earliest_offset", json!("0")),
        ("trimmed_bytes", json!("0")),
    ] {
        assert_eq!(stream[field], expect, "{field}");
    }
    let profile = json!({
        "apiVersion": "durable.streams/profile/v1", "profile": { "kind": "generic" },
    });
    assert_eq!(body["profile"], profile);
    let schema = json!({
        "apiVersion": "durable.streams/schema-registry/v1", "schema": "s", "currentVersion": 0,
        "boundaries": [], "schemas": {}, "lenses": {},
    });
    assert_eq!(body["schema"], schema);
    assert_eq!(body["index_status"], server.get(STATUS).await.check(200).json());

    let storage = &body["storage"];
    check_keys(storage, "object_storage local_storage companion_families");
    check_counters(
        &storage["object_storage"],
        "total_bytes segments_bytes indexes_bytes manifest_and_meta_bytes manifest_bytes \
         schema_registry_bytes",
    );
    check_counters(
        &storage["local_storage"],
        "total_bytes wal_retained_bytes pending_tail_bytes pending_sealed_segment_bytes \
         segment_cache_bytes routing_index_cache_bytes exact_index_cache_bytes \
         lexicon_index_cache_bytes companion_cache_bytes sqlite_shared_total_bytes",
    );
    assert_eq!(storage["local_storage"]["total_bytes"], "0");
    assert_ne!(storage["local_storage"]["sqlite_shared_total_bytes"], "0");
    let families = "exact_bytes col_bytes fts_bytes agg_bytes mblk_bytes";
    check_counters(&storage["companion_families"], families);
    check_counters(&body["object_store_requests"], "puts reads gets heads lists deletes");
    assert_eq!(body["object_store_requests"]["by_artifact"], json!([]));
}

#[tokio::test]
async fn the_index_status_says_that_nothing_is_indexed() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let body = server.get(STATUS).await.check(200).json();
    check_keys(
        &body,
        "stream profile desired_index_plan_generation segments manifest routing_key_index \
         routing_key_lexicon exact_indexes bundled_companions search_families",
    );
    assert_eq!(body["segments"], json!({ "total_count": 0, "uploaded_count": 0 }));
    check_keys(
        &body["manifest"],
        "generation uploaded_generation last_uploaded_at last_uploaded_etag \
         last_uploaded_size_bytes",
    );
    for index in ["routing_key_index", "routing_key_lexicon"] {
        check_keys(
            &body[index],
            "configured indexed_segment_count lag_segments lag_ms bytes_at_rest object_count \
             active_run_count retired_run_count fully_indexed_uploaded_segments updated_at",
        );
        assert_eq!(body[index]["configured"], false);
        assert_eq!(body[index]["fully_indexed_uploaded_segments"], true);
    }
    assert_eq!((&body["exact_indexes"], &body["search_families"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn what_is_appended_is_pending_until_it_is_sealed() {
    let server = Server::start().await;
    let headers = [TEXT[0], ("stream-ttl", "600")];
    server.put(S, &headers, "").await.check(201);
    let by = [
        TEXT[0],
        ("producer-id", "p"),
        ("producer-epoch", "0"),
        ("producer-seq", "0"),
        ("stream-seq", "a1"),
        ("stream-closed", "true"),
    ];
    server.append(S, "one").await;
    server.post(S, &by, "four").await.check(200);
    let body = details(&server).await;
    let stream = &body["stream"];
    assert_eq!((&stream["ttl_seconds"], &stream["stream_seq"]), (&json!(600), &json!("a1")));
    assert_eq!((&stream["closed"], &stream["producer_count"]), (&json!(true), &json!(1)));
    assert!(stream["expires_at"].is_string());
    let local = &body["storage"]["local_storage"];
    for (value, expect) in [
        (&stream["next_offset"], "2"),
        (&stream["sealed_through"], "-1"),
        (&stream["pending_rows"], "2"),
        (&stream["pending_bytes"], "7"),
        (&stream["wal_bytes"], "7"),
        (&stream["total_size_bytes"], "7"),
        (&local["total_bytes"], "7"),
        (&local["pending_tail_bytes"], "7"),
        (&local["pending_sealed_segment_bytes"], "0"),
    ] {
        assert_eq!(value, expect, "{body}");
    }

    let server = server.restart().await;
    let body = details(&server).await;
    let (stream, local) = (&body["stream"], &body["storage"]["local_storage"]);
    for (value, expect) in [
        (&stream["sealed_through"], "1"),
        (&stream["uploaded_through"], "-1"),
        (&stream["pending_bytes"], "0"),
        (&stream["total_size_bytes"], "7"),
        (&local["total_bytes"], "7"),
        (&local["pending_sealed_segment_bytes"], "7"),
        (&local["memtable_bytes"], "0"),
    ] {
        assert_eq!(value, expect, "{body}");
    }
    assert_eq!(stream["segment_count"], 1);
    assert_eq!(stream["last_segment_cut_at"], stream["last_append_at"]);
    assert_eq!(body["index_status"]["segments"]["total_count"], 1);
}

#[tokio::test]
async fn forks_are_told_on_both_sides() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    server.append(S, "one").await;
    let from = [("stream-forked-from", S)];
    server.put("/v1/stream/a/fork", &from, "").await.check(201);
    let fork = server.get("/v1/stream/a%2Ffork/_details").await.check(200).json();
    let expect = json!({ "source": "s", "at": "1", "run_count": 1 });
    assert_eq!((&fork["stream"]["fork"], &fork["stream"]["next_offset"]), (&expect, &json!("1")));
    assert_eq!(details(&server).await["stream"]["fork_count"], 1);
    server.delete(S).await.check(204);
    for path in [DETAILS, STATUS] {
        assert_eq!(server.get(path).await.check(410).error().0, "gone");
    }
}

#[tokio::test]
async fn tags_change_with_the_stream_and_with_nothing_else() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    server.create("/v1/stream/other", "text/plain").await;
    for (path, prefix) in [(DETAILS, "W/\"details:"), (STATUS, "W/\"index_status:")] {
        let tag = server.get(path).await.check(200).header("etag").to_owned();
        let hash = tag.strip_prefix(prefix).expect("the peer's form").trim_end_matches('"');
        assert!(hash.len() == 40 && hash.bytes().all(|it| it.is_ascii_hexdigit()), "{tag}");
        server.append("/v1/stream/other", "x").await;
        let known = [("if-none-match", &*tag)];
        let reply = server.send("GET", path, &known, "").await.check(304);
        assert_eq!((reply.header("etag"), &*reply.body), (&*tag, &b""[..]));
        assert_eq!(reply.header("cache-control"), "no-store");
        server.send("GET", path, &[("if-none-match", "W/\"other\"")], "").await.check(200);
    }
    let before = server.get(DETAILS).await.header("etag").to_owned();
    server.append(S, "x").await;
    let known = [("if-none-match", &*before)];
    let reply = server.send("GET", DETAILS, &known, "").await.check(200);
    assert_ne!(reply.header("etag"), before);
}

#[tokio::test]
async fn a_client_that_has_it_can_wait_for_something_new() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let live = format!("{DETAILS}?live=long-poll&timeout=30s");
    // Who has nothing is answered at once.
    let reply = server.get(&live).await.check(200);
    let tag = reply.header("etag").to_owned();
    let known = [("if-none-match", &*tag)];
    let short = format!("{DETAILS}?live=true&timeout=20");
    let reply = server.send("GET", &short, &known, "").await.check(304);
    assert_eq!(reply.header("etag"), tag);

    let mut client = server.client().await;
    let (reply, ()) = tokio::join!(client.send("GET", &live, &known, ""), async {
        waits(&server).await;
        server.append(S, "x").await;
    });
    let reply = reply.check(200);
    assert_eq!(reply.json()["stream"]["next_offset"], "1");

    let tag = reply.header("etag").to_owned();
    let known = [("if-none-match", &*tag)];
    let (reply, ()) = tokio::join!(client.send("GET", &live, &known, ""), async {
        waits(&server).await;
        server.delete(S).await.check(204);
    });
    reply.check(404);
}

#[tokio::test]
async fn what_happens_to_other_streams_ends_no_wait() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    for path in [DETAILS, STATUS] {
        let tag = server.get(path).await.header("etag").to_owned();
        let known = [("if-none-match", &*tag)];
        let live = format!("{path}?live=long-poll&timeout=30s");
        let mut client = server.client().await;
        let mut waiting = std::pin::pin!(client.send("GET", &live, &known, ""));
        let others = async {
            waits(&server).await;
            server.put("/v1/stream/other", TEXT, "").await;
            server.append("/v1/stream/other", "x").await;
            server.delete("/v1/stream/other").await.check(204);
            // To ask whether the client is let go takes longer than to let it go.
            waits(&server).await;
        };
        tokio::select! {
            biased;
            reply = &mut waiting => panic!("let go by others: {reply:?}"),
            () = others => {}
        }
        // What happens to this one does.
        server.append(S, "x").await;
        if path == STATUS {
            // Nothing of it has been sealed yet, so nothing less than its end shows.
            server.delete(S).await.check(204);
        }
        waiting.await.check(if path == STATUS { 404 } else { 200 });
    }
}

#[tokio::test]
async fn whoever_waits_is_let_go_when_the_server_stops() {
    let mut server = Server::start().await;
    server.create(S, "text/plain").await;
    let tag = server.get(STATUS).await.header("etag").to_owned();
    let known = [("if-none-match", &*tag)];
    let live = format!("{STATUS}?live=1&timeout=30s");
    let mut client = server.client().await;
    let waiting = client.send("GET", &live, &known, "");
    let stopping = async {
        waits(&server).await;
        server.begin_stop();
    };
    let (reply, ()) = tokio::join!(waiting, stopping);
    reply.check(304);
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_told_before_the_query_is_judged() {
    let server = Server::start().await;
    for (path, status) in [
        ("/v1/stream/none/_details", 404),
        ("/v1/stream/none/_details?live=sse", 404),
        ("/v1/stream/none/_index_status?timeout=x", 404),
        ("/v1/stream/__ds/_details", 404),
        ("/v1/stream//a/_details", 400),
    ] {
        server.get(path).await.check(status);
    }
    server.create(S, "text/plain").await;
    for query in ["live=sse", "live=x", "timeout=x", "timeout_ms=-1"] {
        server.get(&format!("{DETAILS}?{query}")).await.check(400);
    }
    for path in [DETAILS, STATUS, SERVER, MEMORY] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let reply = server.send(method, path, JSON, "{}").await.check(405);
            assert_eq!(reply.header("allow"), "GET, HEAD, OPTIONS");
        }
        assert_eq!(&*server.head(path).await.check(200).body, b"");
        server.send("OPTIONS", path, &[], "").await.check(204);
    }
    // A stream of such a name is another thing.
    server.create("/v1/stream/s%2F_details", "text/plain").await;
    assert_eq!(server.get("/v1/stream/s%2F_details").await.check(200).text(), "");
}

#[tokio::test]
async fn the_server_tells_limits_and_levels() {
    let server = Server::start_with(|config: &mut HttpConfig| config.connections_max = 77).await;
    server.create(S, "text/plain").await;
    server.append(S, "hello").await;
    let mut events = server.events(&format!("{S}?live=sse&offset=-1")).await;
    events.expect("data").await;
    let body = server.get(SERVER).await.check(200).json();
    check_keys(&body, "auto_tune configured_limits runtime store object_store http");
    assert_eq!(body["object_store"], Value::Null);
    let auto_tune = "enabled requested_memory_mb preset_mb effective_memory_limit_mb";
    check_keys(&body["auto_tune"], auto_tune);
    let limits = &body["configured_limits"];
    check_keys(limits, "caches concurrency ingest search segmenting timeouts memory");
    assert_eq!(limits["ingest"]["max_queue_requests"], 50_000);
    let runtime = &body["runtime"];
    check_keys(
        &runtime["memory"],
        "pressure_active pressure_limit_bytes last_rss_bytes max_rss_bytes process \
         process_breakdown sqlite gc subsystems totals high_water",
    );
    check_keys(runtime, "memory ingest_queue local_backpressure uploads concurrency top_streams");
    for gate in ["ingest", "read", "search", "async_index"] {
        let fields = "configured_limit current_limit active queued";
        check_keys(&runtime["concurrency"][gate], fields);
    }
    assert_eq!(runtime["local_backpressure"]["over_limit"], false);
    let pending = json!([{ "stream": "s", "pending_wal_bytes": 5, "pending_rows": 1 }]);
    assert_eq!(runtime["top_streams"]["pending_wal_bytes"], pending);
    let waiters = json!([
        { "stream": "s", "waiters": 1, "details_waiters": 0, "total_waiters": 1 }
    ]);
    assert_eq!(runtime["top_streams"]["notifier_waiters"], waiters);

    let (store, http) = (&body["store"], &body["http"]);
    assert_eq!((&store["state"], &store["reason"]), (&json!("serving"), &Value::Null));
    assert_eq!(store["commits"]["records"], 1);
    assert!(store["commits"]["last_at"].is_string());
    assert_eq!(store["streams"]["live_readers"], 1);
    assert_eq!((&http["event_streams"], &http["long_polls"]), (&json!(1), &json!(0)));
    assert_eq!(http["connections_max"], 77);
    assert_eq!(http["deliveries_in_flight"], 0);
}

#[tokio::test]
async fn inspection_asks_for_the_key() {
    let key = ApiKey::new("correct horse".into()).expect("long enough");
    let server = Server::start_with(|config| config.auth = Auth::ApiKey(key)).await;
    for path in [DETAILS, STATUS, SERVER, MEMORY, PROFILE, SCHEMA] {
        server.get(path).await.check(401);
    }
    let good = [("authorization", "Bearer correct horse")];
    server.send("GET", SERVER, &good, "").await.check(200);
}
