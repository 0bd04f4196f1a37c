//! Forks over the wire (protocol §16, §19, §26 F), where the upstream suite does not prove it.

mod support;

use support::{JSON, Reply, Server, TEXT, until};

const SOURCE: &str = "/v1/stream/source";
const FORK: &str = "/v1/stream/fork";
const ZERO: &str = "0000000000000000_0000000000000000";
const ONE: &str = "0000000000000000_0000000000000002";
const TWO: &str = "0000000000000000_0000000000000004";

type Headers<'a> = &'a [(&'a str, &'a str)];

/// Forks with these headers besides the source's path.
async fn fork(server: &Server, path: &str, source: &str, headers: Headers<'_>) -> Reply {
    fork_with(server, path, source, headers, "").await
}

async fn fork_with(
    server: &Server,
    path: &str,
    source: &str,
    headers: Headers<'_>,
    body: &'static str,
) -> Reply {
    let headers: Vec<_> =
        [("stream-forked-from", source)].into_iter().chain(headers.iter().copied()).collect();
    server.put(path, &headers, body).await
}

/// A server with a text stream of two records, `one` and `two`.
async fn with_source() -> Server {
    let server = Server::start().await;
    server.put(SOURCE, TEXT, "one").await.check(201);
    server.append(SOURCE, "two").await;
    server
}

#[tokio::test]
async fn a_fork_begins_as_its_source_and_goes_its_own_way() {
    let server = with_source().await;
    let reply = fork(&server, FORK, SOURCE, &[]).await.check(201);
    assert_eq!(reply.header("location"), format!("http://{}{FORK}", server.address));
    assert_eq!((reply.header("content-type"), reply.next()), ("text/plain", TWO));
    server.append(SOURCE, "theirs").await;
    server.append(FORK, "ours").await;
    assert_eq!(server.get(SOURCE).await.text(), "onetwotheirs");
    assert_eq!(server.get(FORK).await.text(), "onetwoours");
    assert_eq!(server.get(&format!("{FORK}?offset={TWO}")).await.text(), "ours");
    server.post(SOURCE, &[("stream-closed", "true")], "").await.check(204);
    server.append(FORK, "!").await;
}

#[tokio::test]
async fn no_answer_carries_a_fork_header() {
    let server = with_source().await;
    let point = [("stream-fork-offset", ONE)];
    let live = format!("{FORK}?live=long-poll&offset=-1");
    let replies = [
        fork(&server, FORK, SOURCE, &point).await.check(201),
        fork(&server, FORK, SOURCE, &point).await.check(200),
        server.get(FORK).await.check(200),
        server.get(&live).await.check(200),
        server.head(FORK).await.check(200),
        server.post(FORK, TEXT, "x").await.check(204),
        server.delete(FORK).await.check(204),
    ];
    for reply in replies {
        for name in ["stream-forked-from", "stream-fork-offset", "stream-fork-sub-offset"] {
            assert_eq!(reply.find(name), None);
        }
    }
}

#[tokio::test]
async fn a_browser_may_ask_for_a_fork() {
    let server = Server::start().await;
    let preflight = [("access-control-request-method", "PUT")];
    let reply = server.send("OPTIONS", FORK, &preflight, "").await.check(204);
    let allowed = reply.header("access-control-allow-headers");
    for name in ["stream-forked-from", "stream-fork-offset", "stream-fork-sub-offset"] {
        assert!(allowed.split(", ").any(|it| it == name), "{name} in {allowed}");
    }
}

#[tokio::test]
async fn the_point_is_read_in_every_spelling() {
    let server = with_source().await;
    for (point, sub_offset, expect) in [
        ("-1", "0", ""),
        (ZERO, "0", ""),
        ("0_0", "2", "on"),
        (ONE, "0", "one"),
        ("0000000000000000_0000000000000003", "0", "one"),
        ("0000000000000000000G000000", "1", "onet"),
        (ONE, "3", "onetwo"),
        (TWO, "0", "onetwo"),
        ("now", "0", "onetwo"),
    ] {
        let headers = [("stream-fork-offset", point), ("stream-fork-sub-offset", sub_offset)];
        let path = format!("{FORK}/{point}-{sub_offset}");
        let reply = fork(&server, &path, SOURCE, &headers).await.check(201);
        let tail = reply.next().to_owned();
        let page = server.get(&path).await.check(200);
        assert_eq!((page.text().as_str(), page.next()), (expect, &*tail), "{headers:?}");
        fork(&server, &path, SOURCE, &headers).await.check(200);
        let at_tail = server.get(&format!("{path}?offset={tail}")).await.check(200);
        assert_eq!((at_tail.text().as_str(), at_tail.header("stream-up-to-date")), ("", "true"));
    }
}

#[tokio::test]
async fn a_sub_offset_counts_messages_and_the_body_comes_after_it() {
    let server = Server::start().await;
    let messages = r#"[{"a":[1,2],"b":"x,y"},{"c":3},4]"#;
    server.put(SOURCE, JSON, messages).await.check(201);
    let point = [("stream-fork-offset", ZERO), ("stream-fork-sub-offset", "2")];
    let reply = fork_with(&server, FORK, SOURCE, &point, "[5,6]").await.check(201);
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(server.get(FORK).await.text(), r#"[{"a":[1,2],"b":"x,y"},{"c":3},5,6]"#);
    let whole = [("stream-fork-offset", ZERO), ("stream-fork-sub-offset", "4")];
    fork(&server, "/v1/stream/beyond", SOURCE, &whole).await.check(400);
    server.head("/v1/stream/beyond").await.check(404);
}

#[tokio::test]
async fn malformed_requests_are_refused_before_any_stream_is_looked_at() {
    let server = with_source().await;
    let cases: &[Headers<'_>] = &[
        &[("stream-fork-offset", ONE)],
        &[("stream-fork-sub-offset", "0")],
        &[("stream-forked-from", "")],
        &[("stream-forked-from", "source")],
        &[("stream-forked-from", "/v1/streams/source")],
        &[("stream-forked-from", "/v1/stream/__ds/jwks.json")],
        &[("stream-forked-from", SOURCE), ("stream-forked-from", SOURCE)],
        &[("stream-forked-from", SOURCE), ("stream-fork-offset", "")],
        &[("stream-forked-from", SOURCE), ("stream-fork-offset", "12")],
        &[("stream-forked-from", SOURCE), ("stream-fork-offset", ONE), ("stream-fork-offset", ONE)],
        &[("stream-forked-from", SOURCE), ("stream-fork-sub-offset", "")],
        &[("stream-forked-from", SOURCE), ("stream-fork-sub-offset", "05")],
        &[("stream-forked-from", SOURCE), ("stream-fork-sub-offset", "1.5")],
        &[("stream-forked-from", "/v1/stream/none"), ("stream-fork-sub-offset", "x")],
    ];
    for headers in cases {
        // Neither a missing target nor one that is there makes a difference.
        for path in [FORK, SOURCE] {
            let reply = server.put(path, headers, "").await;
            assert_eq!(reply.status, 400, "{path} {headers:?}: {reply:?}");
            assert_eq!(reply.error().0, "bad_request");
        }
    }
    server.head(FORK).await.check(404);
}

#[tokio::test]
async fn a_fork_that_cannot_be_leaves_no_trace() {
    let server = with_source().await;
    server.create("/v1/stream/taken", "text/plain").await;
    let binary = ("content-type", "application/octet-stream");
    for (path, source, headers, status) in [
        ("/v1/stream/taken", SOURCE, &[][..], 409),
        ("/v1/stream/taken", "/v1/stream/none", &[], 409),
        (FORK, "/v1/stream/none", &[], 404),
        (FORK, SOURCE, &[binary], 409),
        (FORK, SOURCE, &[binary, ("stream-fork-offset", "9_9")], 409),
        (FORK, SOURCE, &[("stream-fork-offset", "9999999999999999_9999999999999999")], 400),
        (FORK, SOURCE, &[("stream-fork-offset", ZERO), ("stream-fork-sub-offset", "4")], 400),
        (FORK, SOURCE, &[("stream-fork-sub-offset", "1")], 400),
        (FORK, SOURCE, &[("stream-fork-offset", "now"), ("stream-fork-sub-offset", "1")], 400),
    ] {
        let reply = fork(&server, path, source, headers).await;
        assert_eq!(reply.status, status, "{path} {source} {headers:?}: {reply:?}");
        let (_, message) = reply.error();
        assert!(!message.contains("sequence"), "{message}");
    }
    server.head(FORK).await.check(404);
    server.delete(SOURCE).await.check(204);
    server.head(SOURCE).await.check(404);
}

#[tokio::test]
async fn a_stream_that_its_forks_outlive_is_gone_and_keeps_its_name() {
    let server = with_source().await;
    fork(&server, FORK, SOURCE, &[]).await.check(201);
    server.delete(SOURCE).await.check(204);
    let live = format!("{SOURCE}?live=long-poll&offset=now");
    for (method, path) in
        [("GET", SOURCE), ("GET", &live), ("HEAD", SOURCE), ("POST", SOURCE), ("DELETE", SOURCE)]
    {
        let reply = server.send(method, path, TEXT, "x").await.check(410);
        assert!(method == "HEAD" || reply.error().0 == "gone", "{reply:?}");
    }
    // A request that makes no sense is told of the deletion first.
    server.post(SOURCE, &[], "").await.check(410);
    server.put(SOURCE, TEXT, "").await.check(409);
    assert_eq!(
        fork(&server, "/v1/stream/other", SOURCE, &[]).await.check(409).error().0,
        "conflict"
    );
    assert_eq!(server.get(FORK).await.text(), "onetwo");
    server.delete(FORK).await.check(204);
    until("the source is no longer kept", || async { server.head(SOURCE).await.status == 404 })
        .await;
    server.put(SOURCE, TEXT, "").await.check(201);
}

#[tokio::test]
async fn a_fork_lives_as_long_as_it_says_or_as_its_source_does() {
    let server = Server::start().await;
    let ttl = [TEXT[0], ("stream-ttl", "600")];
    let at = [TEXT[0], ("stream-expires-at", "2999-01-01T00:00:00Z")];
    server.put("/v1/stream/window", &ttl, "").await.check(201);
    server.put("/v1/stream/instant", &at, "").await.check(201);
    for (number, (source, headers, name, expect)) in [
        ("/v1/stream/window", &[][..], "stream-ttl", "600"),
        ("/v1/stream/window", &[("stream-ttl", "60")], "stream-ttl", "60"),
        ("/v1/stream/instant", &[], "stream-expires-at", "2999-01-01T00:00:00.000Z"),
        ("/v1/stream/instant", &[("stream-ttl", "60")], "stream-ttl", "60"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("{FORK}/{number}");
        fork(&server, &path, source, headers).await.check(201);
        assert_eq!(server.head(&path).await.header(name), expect, "{source} {headers:?}");
        fork(&server, &path, source, headers).await.check(200);
    }
}

#[tokio::test]
async fn live_readers_of_a_fork_see_both_parts_and_are_not_woken_by_the_source() {
    let server = with_source().await;
    fork(&server, FORK, SOURCE, &[]).await.check(201);
    let mut events = server.events(&format!("{FORK}?live=sse&offset=-1")).await;
    assert_eq!(events.expect("data").await.data, "onetwo");
    assert_eq!(events.expect("control").await.next_offset(), TWO);
    server.append(SOURCE, "theirs").await;
    server.append(FORK, "ours").await;
    assert_eq!(events.expect("data").await.data, "ours");
    let poll = format!("{FORK}?live=long-poll&offset={ONE}");
    assert_eq!(server.get(&poll).await.check(200).text(), "twoours");
}

#[tokio::test]
async fn a_producer_of_the_source_is_new_to_the_fork() {
    let server = with_source().await;
    let by = [TEXT[0], ("producer-id", "p"), ("producer-epoch", "0"), ("producer-seq", "0")];
    server.post(SOURCE, &by, "three").await.check(200);
    fork(&server, FORK, SOURCE, &[]).await.check(201);
    server.post(FORK, &by, "three").await.check(200);
    assert_eq!(server.get(FORK).await.text(), "onetwothreethree");
}

#[tokio::test]
async fn forks_and_what_they_keep_survive_a_restart() {
    let server = with_source().await;
    fork(&server, FORK, SOURCE, &[("stream-fork-offset", ONE)]).await.check(201);
    server.append(FORK, "!").await;
    server.delete(SOURCE).await.check(204);
    let server = server.restart().await;
    assert_eq!(server.get(FORK).await.text(), "one!");
    server.get(SOURCE).await.check(410);
    fork(&server, FORK, SOURCE, &[("stream-fork-offset", ONE)]).await.check(200);
    server.delete(FORK).await.check(204);
    until("the source is no longer kept", || async { server.head(SOURCE).await.status == 404 })
        .await;
}
