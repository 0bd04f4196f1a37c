//! Creating, appending, producers, closing, deleting (protocol §26 P, W, I, X, D; core §10.3,
//! §10.4, §10.7), where the upstream suite does not prove it.

mod support;

use std::collections::BTreeSet;

use support::{JSON, Reply, Server, TEXT, until, within};
use tokio::{io::AsyncWriteExt as _, task::JoinSet};

const S: &str = "/v1/stream/s";
const ZERO: &str = "0000000000000000_0000000000000000";
const ONE: &str = "0000000000000000_0000000000000002";
const TWO: &str = "0000000000000000_0000000000000004";

/// Headers of a text body by a producer.
fn by<'a>(id: &'a str, epoch: &'a str, seq: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("content-type", "text/plain"),
        ("producer-id", id),
        ("producer-epoch", epoch),
        ("producer-seq", seq),
    ]
}

/// The same with another header.
fn and<'a>(headers: &[(&'a str, &'a str)], more: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
    headers.iter().copied().chain([more]).collect()
}

/// Runs requests at once and gives their answers.
async fn at_once(
    server: &Server,
    count: usize,
    request: impl Fn(usize) -> (&'static str, Vec<(&'static str, String)>, String),
) -> Vec<Reply> {
    let mut all = JoinSet::new();
    for number in 0..count {
        let mut client = server.client().await;
        let (method, headers, body) = request(number);
        all.spawn(async move {
            let headers: Vec<_> = headers.iter().map(|(name, it)| (*name, it.as_str())).collect();
            client.send(method, S, &headers, body).await
        });
    }
    within(all.join_all()).await
}

#[tokio::test]
async fn creating_again_confirms_and_ignores_the_body() {
    let server = Server::start().await;
    let reply = server.put(S, TEXT, "first").await.check(201);
    assert_eq!(reply.header("location"), format!("http://{}{S}", server.address));
    assert_eq!((reply.next(), reply.header("stream-durability")), (ONE, "local"));
    let reply = server.put(S, TEXT, "second").await.check(200);
    assert_eq!((reply.next(), reply.find("location")), (ONE, None));
    assert_eq!(server.get(S).await.text(), "first");
}

#[tokio::test]
async fn a_content_type_is_kept_as_written_and_means_its_media_type() {
    let server = Server::start().await;
    let written = [("content-type", "Application/JSON; charset=\"utf-8\"")];
    let reply = server.put(S, &written, "[1,2]").await.check(201);
    assert_eq!(reply.header("content-type"), written[0].1);
    server.put(S, JSON, "").await.check(200);
    server.post(S, JSON, "3").await.check(204);
    let reply = server.get(S).await;
    assert_eq!((reply.header("content-type"), &*reply.text()), (written[0].1, "[1,2,3]"));
    assert_eq!(server.head(S).await.header("content-type"), written[0].1);

    let reply = server.put("/v1/stream/plain", &[], "").await.check(201);
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    server.put("/v1/stream/bad", &[("content-type", "nonsense")], "").await.check(400);
}

#[tokio::test]
async fn a_creation_that_fails_leaves_nothing_behind() {
    let server = Server::start_with(|config| config.body_bytes_max = 100).await;
    for (headers, body, status) in [
        (JSON.to_vec(), "{".to_owned(), 400),
        (JSON.to_vec(), format!("\"{}\"", "x".repeat(100)), 413),
        (and(TEXT, ("stream-ttl", "01")), String::new(), 400),
        (and(TEXT, ("stream-expires-at", "Fri, 20 Nov 2026 08:30:00 GMT")), String::new(), 400),
        (and(TEXT, ("stream-forked-from", "/v1/stream/a")), String::new(), 404),
        (and(TEXT, ("stream-fork-offset", ZERO)), String::new(), 400),
        (
            and(&and(TEXT, ("stream-ttl", "60")), ("stream-expires-at", "2100-01-01T00:00:00Z")),
            String::new(),
            400,
        ),
    ] {
        server.put(S, &headers, body).await.check(status);
        server.head(S).await.check(404);
    }
}

#[tokio::test]
async fn closure_is_part_of_the_configuration() {
    let server = Server::start().await;
    let close = and(TEXT, ("stream-closed", "true"));
    server.put(S, &close, "all").await.check(201);
    server.put(S, &close, "").await.check(200);
    server.put(S, TEXT, "").await.check(409);
    server.create("/v1/stream/open", "text/plain").await;
    server.put("/v1/stream/open", &close, "").await.check(409);
}

#[tokio::test]
async fn ttls_are_equal_if_they_last_equally_long() {
    let server = Server::start().await;
    server.put(S, &and(TEXT, ("stream-ttl", "1h")), "").await.check(201);
    server.put(S, &and(TEXT, ("stream-ttl", "3600")), "").await.check(200);
    server.put(S, &and(TEXT, ("stream-ttl", "3601")), "").await.check(409);
    server.put(S, TEXT, "").await.check(409);
    assert_eq!(server.head(S).await.header("stream-ttl"), "3600");
    for (first, second) in [("2100-01-01T00:00:00Z", "2100-01-01T01:00:00.000+01:00")] {
        let path = "/v1/stream/at";
        server.put(path, &and(TEXT, ("stream-expires-at", first)), "").await.check(201);
        let reply = server.put(path, &and(TEXT, ("stream-expires-at", second)), "").await;
        assert_eq!(reply.check(200).header("stream-expires-at"), "2100-01-01T00:00:00.000Z");
    }
}

#[tokio::test]
async fn of_many_creations_at_once_one_is_new() {
    let server = Server::start().await;
    let replies = at_once(&server, 20, |_| {
        ("PUT", vec![("content-type", "text/plain".to_owned())], "x".to_owned())
    });
    let statuses: Vec<u16> = replies.await.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 201].contains(status)), "{statuses:?}");
    assert_eq!(server.get(S).await.text(), "x");
}

#[tokio::test]
async fn of_one_stream_seq_sent_by_many_one_is_taken() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let replies = at_once(&server, 5, |number| {
        let headers = vec![("content-type", "text/plain".into()), ("stream-seq", "a".into())];
        ("POST", headers, number.to_string())
    });
    let statuses: Vec<u16> = replies.await.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [204, 409].contains(status)), "{statuses:?}");
    assert_eq!(server.get(S).await.text().len(), 1);
}

#[tokio::test]
async fn a_sequence_conflict_says_what_was_expected() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    server.post(S, &and(TEXT, ("stream-seq", "5")), "a").await.check(204);
    let reply = server.post(S, &and(TEXT, ("stream-seq", "10")), "b").await.check(409);
    assert_eq!(reply.next(), ONE);
    assert_eq!(reply.header("stream-expected-seq"), "5");
    assert_eq!(reply.header("stream-received-seq"), "10");
    assert!(reply.error().1.contains("sequence"), "{reply:?}");
    server.post(S, &and(TEXT, ("stream-seq", "6")), "c").await.check(204);
    server.post(S, &and(TEXT, ("stream-seq", " ")), "d").await.check(400);
    server.post(S, &and(TEXT, ("stream-seq", "")), "d").await.check(400);
    let reply = server.post(S, JSON, "{}").await.check(409);
    assert!(!reply.error().1.contains("sequence"), "{reply:?}");
}

#[tokio::test]
async fn bad_appends_have_the_peers_messages() {
    let server = Server::start().await;
    server.create(S, "application/json").await;
    for (headers, body, message) in [
        (JSON, "[]", "empty JSON array"),
        (JSON, "", "empty body"),
        (&[], "1", "missing content-type"),
        (&[("content-type", "")], "1", "missing content-type"),
    ] {
        assert_eq!(server.post(S, headers, body).await.check(400).error().1, message, "{body}");
    }
    assert_eq!(server.post(S, TEXT, "1").await.check(409).error().1, "content-type mismatch");
    for body in ["{", "1 2", "[1,]", "\u{feff}1", "nul", "01", "\"\u{1}\"", &"[".repeat(100_000)] {
        let reply = server.post(S, JSON, body.to_owned()).await.check(400);
        assert!(reply.error().1.starts_with("invalid JSON"), "{reply:?}");
    }
    server.post(S, JSON, &b"\"\xff\""[..]).await.check(400);
    for header in ["stream-timestamp", "stream-expected-offset"] {
        for value in ["junk", "", "-1", "now"] {
            server.post(S, &and(JSON, (header, value)), "1").await.check(400);
        }
    }
    assert_eq!(server.get(S).await.text(), "[]");
}

#[tokio::test]
async fn json_keeps_every_byte_of_a_message() {
    let server = Server::start().await;
    server.create(S, "application/json").await;
    let messages = [
        r#"{"b":1.0e2,"a":[ 1, 2 ],"a":3}"#,
        "12345678901234567890",
        r#""\u00e9\/""#,
        "-0.0",
        "{\"x\":\n\t1}",
    ];
    let batch = format!(" [ {} ] ", messages.join(" , "));
    let reply = server.post(S, JSON, batch).await.check(204);
    assert_eq!(reply.next(), "0000000000000000_0000000000000010");
    let expect = format!("[{}]", messages.join(","));
    assert_eq!(server.get(S).await.text(), expect);
    let raw = server.get(&format!("{S}?format=raw")).await;
    assert_eq!(raw.text(), messages.concat());
}

#[tokio::test]
async fn a_refused_append_changes_nothing() {
    let server = Server::start().await;
    server.create(S, "application/json").await;
    let producer = |seq| and(&by("p", "0", seq)[1..], ("content-type", "application/json"));
    let (first, second) = (producer("0"), producer("1"));
    for body in ["{", "[]"] {
        server.post(S, &and(&first, ("stream-seq", "a")), body).await.check(400);
    }
    server.post(S, &and(&first, ("stream-seq", "a")), "1").await.check(200);
    server.post(S, &and(&second, ("stream-seq", "a")), "2").await.check(409);
    server.post(S, &and(&second, ("stream-expected-offset", ZERO)), "2").await.check(409);
    server.post(S, &and(&second, ("stream-seq", "b")), "2").await.check(200);
    assert_eq!(server.get(S).await.text(), "[1,2]");
}

#[tokio::test]
async fn a_client_that_goes_away_in_its_body_stores_nothing() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    for framing in
        ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
    {
        let mut socket = server.socket().await;
        let head = format!("POST {S} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n");
        socket.write_all(format!("{head}{framing}").as_bytes()).await.expect("sent");
        socket.shutdown().await.expect("gone");
    }
    until("the connections are gone", || async {
        server.figure("weir_http_connections").await <= 1.0
    })
    .await;
    assert_eq!(server.get(S).await.check(200).text(), "");
}

#[tokio::test]
async fn a_deletion_can_be_bound_to_the_tail() {
    let server = Server::start().await;
    let delete = async |offset: &str| {
        server.send("DELETE", S, &[("stream-expected-offset", offset)], "").await
    };
    delete(ZERO).await.check(404);
    server.create(S, "text/plain").await;
    server.post(S, TEXT, "a").await.check(204);
    assert_eq!(delete(ZERO).await.check(409).next(), ONE);
    delete("nonsense").await.check(400);
    assert_eq!(server.get(S).await.check(200).text(), "a");
    delete(ONE).await.check(204);
    // Another one of its name ends elsewhere, whatever it holds.
    server.create(S, "text/plain").await;
    server.post(S, TEXT, "b").await.check(204);
    let tail = delete(ONE).await.check(409).next().to_owned();
    assert_ne!(tail, ONE);
    delete(ZERO).await.check(409);
    delete(&tail).await.check(204);
    server.get(S).await.check(404);
}

#[tokio::test]
async fn an_append_can_be_bound_to_the_tail() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let expect = |offset| and(TEXT, ("stream-expected-offset", offset));
    server.post(S, &expect(ZERO), "a").await.check(204);
    let reply = server.post(S, &expect(ZERO), "b").await.check(409);
    assert_eq!((reply.next(), reply.find("stream-closed")), (ONE, None));
    let reply = server.post(S, &expect("0000000000000000_0000000000000099"), "b").await;
    assert_eq!(reply.check(409).next(), ONE);
    // A producer's duplicate is told first.
    let retried = and(&by("p", "0", "0"), ("stream-expected-offset", ONE));
    assert_eq!(server.post(S, &retried, "c").await.check(200).next(), TWO);
    assert_eq!(server.post(S, &retried, "c").await.check(204).next(), TWO);
    let close = [("stream-closed", "true"), ("stream-expected-offset", ZERO)];
    server.post(S, &close, "").await.check(409);
    let close = [("stream-closed", "true"), ("stream-expected-offset", TWO)];
    server.post(S, &close, "").await.check(204);
    let reply = server.post(S, &expect(ZERO), "d").await.check(409);
    assert_eq!(reply.header("stream-closed"), "true");
}

#[tokio::test]
async fn a_producer_starts_at_zero_and_skips_nothing() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let gap = |reply: &Reply, expected: &str, received: &str| {
        assert_eq!(reply.header("producer-expected-seq"), expected);
        assert_eq!(reply.header("producer-received-seq"), received);
        assert!(reply.error().1.contains("sequence"), "{reply:?}");
    };
    gap(&server.post(S, &by("p", "3", "3"), "x").await.check(409), "0", "3");
    server.post(S, &by("p", "3", "0"), "a").await.check(200);
    gap(&server.post(S, &by("p", "3", "2"), "x").await.check(409), "1", "2");
    let reply = server.post(S, &by("p", "2", "1"), "x").await.check(403);
    assert_eq!((reply.header("producer-epoch"), &*reply.error().0), ("3", "stale_epoch"));
    server.post(S, &by("p", "4", "1"), "x").await.check(400);
    let max = "9007199254740991";
    server.post(S, &by("q", max, "0"), "b").await.check(200);
    server.post(S, &by("q", "9007199254740992", "0"), "x").await.check(400);
    assert_eq!(server.get(S).await.text(), "ab");
}

#[tokio::test]
async fn a_duplicate_is_answered_with_its_own_end() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    server.post(S, &by("p", "0", "0"), "a").await.check(200);
    server.post(S, &by("p", "0", "1"), "b").await.check(200);
    server.append(S, "c").await;
    let reply = server.post(S, &by("p", "0", "0"), "other body").await.check(204);
    assert_eq!((reply.next(), reply.header("producer-seq")), (ONE, "1"));
    assert_eq!(reply.header("stream-durability"), "local");
    assert_eq!(server.get(S).await.text(), "abc");
}

#[tokio::test]
async fn many_requests_of_one_producer_at_once_are_taken_once_each() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    // 10 sequences, each sent five times, retried until none is ahead of its turn.
    let mut left: BTreeSet<usize> = (0..10).collect();
    while !left.is_empty() {
        let turn: Vec<usize> = left.iter().copied().collect();
        let replies = at_once(&server, turn.len() * 5, |number| {
            let seq = turn[number % turn.len()];
            let headers = vec![
                ("content-type", "text/plain".to_owned()),
                ("producer-id", "p".to_owned()),
                ("producer-epoch", "0".to_owned()),
                ("producer-seq", seq.to_string()),
            ];
            ("POST", headers, format!("{seq};"))
        });
        for reply in replies.await {
            match reply.status {
                200 => {
                    let seq: usize = reply.header("producer-seq").parse().expect("a number");
                    assert!(left.remove(&seq), "{seq} was taken twice");
                }
                204 | 409 => {}
                _ => panic!("{reply:?}"),
            }
        }
    }
    assert_eq!(server.get(S).await.text(), "0;1;2;3;4;5;6;7;8;9;");
}

#[tokio::test]
async fn only_true_closes_and_its_case_does_not_matter() {
    let server = Server::start().await;
    for value in ["yes", "1", "false", ""] {
        let path = format!("/v1/stream/{}", if value.is_empty() { "empty" } else { value });
        server.create(&path, "text/plain").await;
        let reply = server.post(&path, &and(TEXT, ("stream-closed", value)), "x").await.check(204);
        assert_eq!(reply.find("stream-closed"), None);
        server.post(&path, &[("stream-closed", value)], "").await.check(400);
        assert_eq!(server.head(&path).await.find("stream-closed"), None);
    }
    for value in ["TRUE", "True", "true"] {
        let path = format!("/v1/stream/{value}");
        server.create(&path, "text/plain").await;
        let headers = [("stream-closed", value), ("content-type", "image/png")];
        let reply = server.post(&path, &headers, "").await.check(204);
        assert_eq!(reply.header("stream-closed"), "true");
        assert_eq!(server.head(&path).await.header("stream-closed"), "true");
    }
}

#[tokio::test]
async fn a_closed_stream_refuses_and_says_where_it_ends() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let close = and(TEXT, ("stream-closed", "true"));
    server.post(S, &close, "last").await.check(204);
    for headers in [
        TEXT.to_vec(),
        JSON.to_vec(),
        close.clone(),
        and(JSON, ("stream-closed", "true")),
        by("p", "0", "0").to_vec(),
    ] {
        let reply = server.post(S, &headers, "x").await.check(409);
        assert_eq!((reply.header("stream-closed"), reply.next()), ("true", ONE), "{headers:?}");
    }
    server.post(S, &[("stream-closed", "true")], "").await.check(204);
}

#[tokio::test]
async fn a_closing_producer_may_repeat_itself_after_a_restart() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    server.post(S, &by("p", "0", "0"), "a").await.check(200);
    let closing = and(&by("p", "0", "1"), ("stream-closed", "true"));
    server.post(S, &closing, "b").await.check(200);
    let server = server.restart().await;
    let open = by("p", "0", "1").to_vec();
    for (headers, body) in
        [(&closing, "b"), (&closing, "other"), (&closing, ""), (&open, "b"), (&open, "other")]
    {
        let reply = server.post(S, headers, body).await.check(204);
        assert_eq!((reply.header("stream-closed"), reply.next()), ("true", TWO));
        assert_eq!(reply.header("producer-seq"), "1");
    }
    server.post(S, &by("p", "0", "2"), "x").await.check(409);
    server.post(S, &by("p", "0", "0"), "a").await.check(409);
    let reply = server.get(S).await.check(200);
    assert_eq!((&*reply.text(), reply.header("stream-closed")), ("ab", "true"));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    server.post(S, &by("p", "0", "0"), "a").await.check(200);
    server.post(S, &and(TEXT, ("stream-seq", "m")), "b").await.check(204);
    server.create("/v1/stream/gone", "text/plain").await;
    server.delete("/v1/stream/gone").await.check(204);
    let server = server.restart().await;
    assert_eq!(server.get(S).await.check(200).text(), "ab");
    server.get("/v1/stream/gone").await.check(404);
    assert_eq!(server.post(S, &by("p", "0", "0"), "a").await.check(204).next(), ONE);
    server.post(S, &by("p", "0", "1"), "c").await.check(200);
    server.post(S, &and(TEXT, ("stream-seq", "m")), "x").await.check(409);
    assert_eq!(server.get(S).await.text(), "abc");
}

#[tokio::test]
async fn a_name_used_again_is_another_stream() {
    let server = Server::start().await;
    server.put(S, TEXT, "old").await.check(201);
    server.post(S, &by("p", "0", "0"), "old").await.check(200);
    let tail = server.head(S).await.next().to_owned();
    server.delete(S).await.check(204);
    server.delete(S).await.check(404);
    server.put(S, JSON, "[1]").await.check(201);
    server.post(S, &and(&by("p", "0", "0")[1..], JSON[0]), "2").await.check(200);
    assert_eq!(server.get(S).await.text(), "[1,2]");
    // An offset of the life before must not be taken for one of this.
    let reply = server.get(&format!("{S}?offset={tail}")).await;
    assert!(reply.status == 410 || reply.text() == "[]", "{reply:?}");
}

#[tokio::test]
async fn the_list_is_ordered_paged_and_complete() {
    let server = Server::start().await;
    assert_eq!(server.get("/v1/streams").await.check(200).text(), "[]");
    for name in ["b", "a/1", "a/2", "c", "\u{e9}"] {
        let path = format!("/v1/stream/{}", name.replace('\u{e9}', "%C3%A9"));
        server.create(&path, "text/plain").await;
    }
    server.put("/v1/stream/dead", &and(TEXT, ("stream-ttl", "0")), "").await.check(201);
    server.append("/v1/stream/b", "x").await;
    server.put("/v1/stream/d", &and(TEXT, ("stream-expires-at", "2100-01-01T00:00:00Z")), "").await;
    server.delete("/v1/stream/c").await.check(204);
    let names = |query: &'static str| {
        let server = &server;
        async move {
            let reply = server.get(&format!("/v1/streams{query}")).await.check(200);
            let rows = reply.json();
            let rows = rows.as_array().expect("an array").clone();
            rows.iter()
                .map(|row| row["name"].as_str().expect("text").to_owned())
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(names("").await, ["a/1", "a/2", "b", "d", "\u{e9}"]);
    assert_eq!(names("?limit=2").await, ["a/1", "a/2"]);
    assert_eq!(names("?limit=2&offset=1").await, ["a/2", "b"]);
    assert_eq!(names("?after=a%2F1&limit=2").await, ["a/2", "b"]);
    assert_eq!(names("?prefix=a%2F").await, ["a/1", "a/2"]);
    assert!(names("?limit=0").await.is_empty());
    assert!(names("?limit=-1").await.is_empty());
    server.get("/v1/streams?limit=abc").await.check(400);

    let rows = server.get("/v1/streams").await.json();
    let row = |name: &str| {
        let mut rows = rows.as_array().expect("an array").iter();
        rows.find(|row| row["name"] == name).expect("listed").clone()
    };
    let row_b = row("b");
    assert_eq!((&row_b["next_offset"], &row_b["uploaded_through"]), (&"1".into(), &"-1".into()));
    assert_eq!((&row_b["epoch"], &row_b["profile"]), (&0.into(), &"generic".into()));
    assert!(row_b["expires_at"].is_null() && row_b["created_at"].is_string(), "{row_b}");
    assert!(row_b["sealed_through"].is_string(), "{row_b}");
    assert_eq!(row("d")["expires_at"], "2100-01-01T00:00:00.000Z");
}
