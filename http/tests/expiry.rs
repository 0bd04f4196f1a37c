//! Streams that end by themselves (protocol §15, §26 Y), where the upstream suite does not
//! prove it. The windows are short; every wait is for a fact.

mod support;

use std::time::Duration;

use support::{Server, TEXT, until};
use tokio::time::Instant;

const S: &str = "/v1/stream/s";

/// Creates a text stream with a window of so many seconds.
async fn with_ttl(server: &Server, path: &str, ttl: &str) {
    server.put(path, &[TEXT[0], ("stream-ttl", ttl)], "x").await.check(201);
}

async fn gone(server: &Server, path: &str) {
    until("it is gone", || async { server.head(path).await.status == 404 }).await;
}

#[tokio::test]
async fn a_stream_that_ends_at_once_was_created_all_the_same() {
    let server = Server::start().await;
    for (name, value) in [
        ("stream-ttl", "0"),
        ("stream-expires-at", "2001-01-01T00:00:00Z"),
        ("stream-expires-at", "1000000000"),
    ] {
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            server.put(S, &[TEXT[0], (name, value)], "x").await.check(201);
            server.send(method, S, TEXT, "y").await.check(404);
        }
    }
    server.put(S, &[("content-type", "application/json")], "[1]").await.check(201);
    assert_eq!(server.get(S).await.text(), "[1]");
}

#[tokio::test]
async fn every_kind_of_read_and_write_renews_a_window_and_head_does_not() {
    let server = Server::start().await;
    with_ttl(&server, S, "1").await;
    with_ttl(&server, "/v1/stream/idle", "1").await;
    let none: &[(&str, &str)] = &[];
    let renewals = [
        ("GET", "", none, ""),
        ("GET", "?offset=now", &[], ""),
        ("POST", "", TEXT, "y"),
        ("PUT", "", &[("content-type", "text/plain"), ("stream-ttl", "1")], ""),
        ("GET", "?live=long-poll&offset=-1", &[], ""),
        ("POST", "", &[("stream-closed", "true")], ""),
    ];
    for (method, query, headers, body) in renewals {
        let began = Instant::now();
        // Two thirds of the window in between: more than one window in all.
        until("time passes", || async {
            assert_eq!(server.head(S).await.header("stream-ttl"), "1");
            began.elapsed() > Duration::from_millis(650)
        })
        .await;
        let reply = server.send(method, &format!("{S}{query}"), headers, body).await;
        assert!((200..300).contains(&reply.status), "{method} {query}: {reply:?}");
    }
    // HEAD was asked all the time and renewed nothing.
    server.head("/v1/stream/idle").await.check(404);
    gone(&server, S).await;
}

#[tokio::test]
async fn attached_readers_keep_a_stream_and_its_window_starts_when_they_leave() {
    let server = Server::start().await;
    for (name, query) in
        [("poll", "live=long-poll&offset=now&timeout=3s"), ("sse", "live=sse&offset=now")]
    {
        let path = format!("/v1/stream/{name}");
        with_ttl(&server, &path, "1").await;
        let mut client = server.client().await;
        let reader = format!("{path}?{query}");
        let reading = tokio::spawn(async move {
            let response = client.begin("GET", &reader, &[], "".into()).await;
            (response, client)
        });
        let began = Instant::now();
        until("the window has passed twice", || async {
            server.head(&path).await.check(200);
            began.elapsed() > Duration::from_millis(2200)
        })
        .await;
        server.post(&path, TEXT, "y").await.check(204);
        drop(support::within(reading).await);
        gone(&server, &path).await;
    }
}

#[tokio::test]
async fn an_instant_is_not_put_off() {
    let server = Server::start().await;
    let at = support::wall_ms() + 1200;
    // Nanoseconds, as the peer's clients may send them.
    let value = (at * 1_000_000).to_string();
    let reply = server.put(S, &[TEXT[0], ("stream-expires-at", &value)], "x").await.check(201);
    let written = reply.header("stream-expires-at").to_owned();
    assert_eq!(server.head(S).await.header("stream-expires-at"), written);
    assert_eq!(server.get(S).await.header("stream-expires-at"), written);
    until("it is gone", || async {
        let before = support::wall_ms();
        let status = server.get(S).await.status;
        assert!(status == 200 || support::wall_ms() >= at, "never early");
        assert!(status == 404 || before < at + 1000, "hardly late");
        status == 404
    })
    .await;
    server.post(S, TEXT, "y").await.check(404);
    server.head(S).await.check(404);
}

#[tokio::test]
async fn a_window_outlives_a_restart_and_still_ends() {
    let server = Server::start().await;
    with_ttl(&server, S, "1").await;
    with_ttl(&server, "/v1/stream/long", "3600").await;
    let server = server.restart().await;
    // Time in which the server is down does not count.
    server.head(S).await.check(200);
    gone(&server, S).await;
    assert_eq!(server.head("/v1/stream/long").await.header("stream-ttl"), "3600");
}
