//! Retention over the wire: how it is asked for, shown and changed, and what a reader is told of
//! what is gone.

mod support;

use serde_json::json;
use support::{JSON, Server, TEXT, until};

const S: &str = "/v1/stream/s";
const SETTING: &str = "/v1/stream/s/_retention";

async fn make(server: &Server, retention: &str) -> support::Reply {
    server.put(S, &[TEXT[0], ("stream-retention", retention)], "").await
}

/// Makes a stream whose first records are gone; the offsets of the start, of a record that is gone
/// and of the earliest that is not.
async fn trimmed(server: &Server) -> (String, String, String) {
    let made = make(server, "max-bytes=10").await.check(201);
    let start = made.header("stream-next-offset").to_owned();
    let gone = server.append(S, "aaaaaaaaaa").await;
    let earliest = server.append(S, "bbbbbbbbbb").await;
    server.append(S, "cccccccccc").await;
    until("the first two are gone", || async {
        server.head(S).await.header("stream-earliest-offset") == earliest
    })
    .await;
    (start, gone, earliest)
}

#[tokio::test]
async fn a_stream_says_what_it_keeps_and_a_bad_wish_is_told_where_it_is_bad() {
    let server = Server::start().await;
    for (value, message) in [
        ("max-age=7x", "invalid Stream-Retention at byte 8: max-age wants a time"),
        ("", "invalid Stream-Retention at byte 0: want"),
    ] {
        let refused = make(&server, value).await.check(400);
        assert!(refused.text().contains(message), "{}", refused.text());
    }
    server.head(S).await.check(404);
    make(&server, "max-bytes=1000000;max-age=168h").await.check(201);
    let head = server.head(S).await.check(200);
    assert_eq!(head.header("stream-retention"), "max-age=7d; max-bytes=1000000");
    assert_eq!(head.header("stream-earliest-offset"), head.header("stream-next-offset"));
    let stream = server.get("/v1/stream/s/_details").await.json()["stream"].clone();
    assert_eq!(stream["retention"], json!({"max-age": "7d", "max-bytes": 1_000_000}));
    make(&server, "max-age=7d; max-bytes=1000000").await.check(200);
    for other in ["max-age=7d", "max-age=8d; max-bytes=1000000"] {
        make(&server, other).await.check(409);
    }
    server.put(S, TEXT, "").await.check(409);
}

#[tokio::test]
async fn what_a_stream_keeps_can_be_changed() {
    let server = Server::start().await;
    server.put(SETTING, JSON, "{}").await.check(404);
    server.put(SETTING, JSON, "{").await.check(404);
    server.get(SETTING).await.check(404);
    server.create(S, "text/plain").await;
    assert_eq!(server.get(SETTING).await.check(200).json(), json!({}));
    let body = r#"{"max-age":"90m","max-bytes":5000}"#;
    let changed = server.put(SETTING, JSON, body).await.check(200);
    assert_eq!(changed.json(), json!({"max-age": "90m", "max-bytes": 5000}));
    assert_eq!(changed.header("stream-retention"), "max-age=90m; max-bytes=5000");
    assert_eq!(changed.header("cache-control"), "no-store");
    for (body, message) in [
        ("", "want a JSON object"),
        (r#"{"max-age":90}"#, "max-age wants a time"),
        (r#"{"max-size":90}"#, "unknown field 'max-size'"),
    ] {
        let refused = server.put(SETTING, JSON, body).await.check(400);
        assert!(refused.text().contains(message), "{}", refused.text());
    }
    server.send("DELETE", SETTING, &[], "").await.check(405);
    let server = server.restart().await;
    assert_eq!(server.head(S).await.header("stream-retention"), "max-age=90m; max-bytes=5000");
    server.put(SETTING, JSON, r#"{"max-age":null}"#).await.check(200);
    assert_eq!(server.head(S).await.find("stream-retention"), None);
    server.put(S, TEXT, "").await.check(200);
}

#[tokio::test]
async fn a_reader_of_what_is_gone_is_told_where_to_go_on() {
    let server = Server::start_sealing().await;
    let (start, gone, earliest) = trimmed(&server).await;
    for offset in [&start, &gone] {
        for live in ["", "&live=long-poll", "&live=sse"] {
            let reply = server.get(&format!("{S}?offset={offset}{live}")).await.check(410);
            assert_eq!(reply.header("stream-next-offset"), earliest, "{offset}{live}");
            assert!(reply.text().contains("no longer keeps"), "{}", reply.text());
        }
    }
    for query in ["", "?offset=-1", "?since=0", &format!("?offset={earliest}")] {
        let reply = server.get(&format!("{S}{query}")).await.check(200);
        assert_eq!(reply.text(), "cccccccccc", "{query}");
        assert!(!reply.header("cache-control").contains("immutable"), "{query}");
    }
    let fork = [("stream-forked-from", S), ("stream-fork-offset", gone.as_str())];
    let refused = server.put("/v1/stream/f", &fork, "").await.check(400);
    assert!(refused.text().contains("before the earliest record"), "{}", refused.text());
    let fork = [("stream-forked-from", S), ("stream-fork-offset", earliest.as_str())];
    let made = server.put("/v1/stream/f", &fork, "").await.check(201);
    assert_eq!(made.header("stream-next-offset"), earliest);
    assert_eq!(server.get("/v1/stream/f?offset=-1").await.check(200).text(), "");
    let stream = server.get("/v1/stream/s/_details").await.json()["stream"].clone();
    assert_eq!((&stream["earliest_offset"], &stream["trimmed_bytes"]), (&json!("2"), &json!("20")));
}

#[tokio::test]
async fn a_reader_that_waits_is_not_disturbed_by_what_goes_behind_it() {
    let server = Server::start_sealing().await;
    let (.., earliest) = trimmed(&server).await;
    let mut events = server.events(&format!("{S}?offset={earliest}&live=sse")).await;
    events.until("cccccccccc").await;
    server.append(S, "dddddddddd").await;
    events.until("dddddddddd").await;
    let before = server.head(S).await.header("stream-earliest-offset").to_owned();
    until("more is gone", || async {
        server.head(S).await.header("stream-earliest-offset") != before
    })
    .await;
    server.append(S, "eeeeeeeeee").await;
    events.until("eeeeeeeeee").await;
}
