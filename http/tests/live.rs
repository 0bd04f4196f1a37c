//! Long-poll and event streams (protocol §26 L, E, D05, Y05; core §10.6), where the upstream
//! suite does not prove it.

mod support;

use std::time::Duration;

use support::{Event, JSON, Server, TEXT, until, within};
use tokio::{io::AsyncReadExt as _, time::Instant};

const S: &str = "/v1/stream/s";
const ZERO: &str = "0000000000000000_0000000000000000";
const ONE: &str = "0000000000000000_0000000000000002";
const TWO: &str = "0000000000000000_0000000000000004";

fn poll(query: &str) -> String {
    format!("{S}?live=long-poll&{query}")
}

fn follow(query: &str) -> String {
    format!("{S}?live=sse&{query}")
}

/// Starts a request that waits, and returns when the server waits.
async fn waiting(server: &Server, query: &str) -> tokio::task::JoinHandle<support::Reply> {
    let before = server.figure("weir_live_readers").await;
    let (mut client, path) = (server.client().await, poll(query));
    let task = tokio::spawn(async move { client.send("GET", &path, &[], "").await });
    until("the reader waits", || async { server.figure("weir_live_readers").await > before }).await;
    task
}

async fn answer(task: tokio::task::JoinHandle<support::Reply>) -> support::Reply {
    within(task).await.expect("an answer")
}

#[tokio::test]
async fn a_long_poll_ends_when_it_was_asked_to() {
    let server = Server::start_with(|config| {
        config.long_poll_timeout = Duration::from_millis(800);
        config.long_poll_max = Duration::from_millis(1000);
    })
    .await;
    server.put(S, TEXT, "x").await.check(201);
    for (query, least, most) in [
        ("offset=now", 800, 5000),
        ("offset=now&timeout=0", 0, 800),
        ("offset=now&timeout=50", 50, 800),
        ("offset=now&timeout=50ms", 50, 800),
        ("offset=now&timeout_ms=50", 50, 800),
        ("offset=now&timeout=1h", 1000, 5000),
    ] {
        let began = Instant::now();
        let reply = server.get(&poll(query)).await.check(204);
        let took = began.elapsed().as_millis();
        assert!((least..most).contains(&took), "{query}: {took} ms");
        assert_eq!((reply.next(), reply.header("stream-up-to-date")), (ONE, "true"));
        assert_eq!(reply.header("cache-control"), "no-store");
        assert!(reply.header("stream-cursor").parse::<u64>().is_ok());
    }
}

#[tokio::test]
async fn data_ends_a_wait_at_once_with_what_a_catch_up_read_says() {
    let server = Server::start().await;
    server.create(S, "application/json").await;
    let task = waiting(&server, "offset=-1&timeout=60s").await;
    server.post(S, JSON, "[1,2]").await.check(204);
    let reply = answer(task).await.check(200);
    assert_eq!((&*reply.text(), reply.next()), ("[1,2]", TWO));
    assert_eq!(reply.header("stream-up-to-date"), "true");
    assert!(reply.header("cache-control").starts_with("public, max-age=60"));
    let tag = reply.header("etag").to_owned();
    let again = server.send("GET", &poll("offset=-1"), &[("if-none-match", &tag)], "").await;
    assert_eq!(again.check(304).next(), TWO);
    // What `now` was, no cache can know.
    let task = waiting(&server, "offset=now&timeout=60s").await;
    server.post(S, JSON, "3").await.check(204);
    let reply = answer(task).await.check(200);
    assert_eq!((&*reply.text(), reply.header("cache-control")), ("[3]", "no-store"));
    assert_eq!(reply.find("etag"), None);
}

#[tokio::test]
async fn an_echoed_cursor_grows_by_at_most_an_hour_of_intervals() {
    let server = Server::start().await;
    server.put(S, TEXT, "x").await.check(201);
    let first = server.get(&poll("offset=-1")).await.header("stream-cursor").to_owned();
    let client: u64 = first.parse().expect("digits");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let reply = server.get(&poll(&format!("offset=-1&cursor={client}"))).await.check(200);
        let cursor: u64 = reply.header("stream-cursor").parse().expect("digits");
        assert!((client + 1..=client + 180).contains(&cursor), "{client} → {cursor}");
        seen.insert(cursor);
    }
    assert!(seen.len() > 1, "the jitter is random: {seen:?}");
    for junk in ["x", "", "-1", "99999999999999999999999999", "18446744073709551615"] {
        server.get(&poll(&format!("offset=-1&cursor={junk}"))).await.check(200);
    }
}

#[tokio::test]
async fn closing_ends_waits_at_once() {
    let server = Server::start().await;
    server.put(S, TEXT, "x").await.check(201);
    let task = waiting(&server, "offset=now&timeout=60s").await;
    let beyond = waiting(&server, "offset=0000000000000000_0000000000000099&timeout=60s").await;
    let began = Instant::now();
    server.post(S, &[("stream-closed", "true")], "").await.check(204);
    let reply = answer(task).await.check(204);
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    assert_eq!((reply.next(), reply.header("stream-closed")), (ONE, "true"));
    assert_eq!(reply.find("stream-cursor"), None);
    assert_eq!(answer(beyond).await.check(204).header("stream-closed"), "true");

    let other = "/v1/stream/other";
    server.create(other, "text/plain").await;
    let mut client = server.client().await;
    let path = format!("{other}?live=long-poll&offset=-1&timeout=60s");
    let task = tokio::spawn(async move { client.send("GET", &path, &[], "").await });
    let close = [TEXT[0], ("stream-closed", "true")];
    server.post(other, &close, "last").await.check(204);
    let reply = answer(task).await.check(200);
    assert_eq!((&*reply.text(), reply.header("stream-closed")), ("last", "true"));
}

#[tokio::test]
async fn no_answer_says_more_than_it_delivers() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    // Deadlines and appends as close to each other as they come.
    let readers: Vec<_> = (0..8_u64)
        .map(|reader| {
            let address = server.address;
            tokio::spawn(async move {
                let mut client = support::Client::connect(address).await;
                let (mut offset, mut all) = (ZERO.to_owned(), String::new());
                while !all.ends_with('!') {
                    let path = poll(&format!("offset={offset}&timeout={}", reader % 4));
                    let reply = client.send("GET", &path, &[], "").await;
                    match reply.status {
                        200 => all.push_str(&reply.text()),
                        204 => assert_eq!(reply.next(), offset, "moved without data"),
                        _ => panic!("{reply:?}"),
                    }
                    offset = reply.next().to_owned();
                }
                all
            })
        })
        .collect();
    let mut writer = server.client().await;
    let mut expect = String::new();
    for number in 0..200 {
        let body = if number == 199 { "!".to_owned() } else { format!("{number},") };
        expect.push_str(&body);
        writer.send("POST", S, TEXT, body).await.check(204);
    }
    for reader in readers {
        assert_eq!(within(reader).await.expect("a reader"), expect);
    }
}

#[tokio::test]
async fn beyond_the_tail_is_waited_at() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let beyond = "0000000000000000_0000000000000004";
    let reply = server.get(&poll(&format!("offset={beyond}&timeout=20"))).await.check(204);
    assert_eq!(reply.next(), beyond);
    let task = waiting(&server, &format!("offset={beyond}&timeout=60s")).await;
    server.append(S, "a").await;
    server.append(S, "b").await;
    assert!(!task.is_finished(), "nothing lies after the position");
    server.append(S, "c").await;
    let reply = answer(task).await.check(200);
    assert_eq!((&*reply.text(), reply.next()), ("c", "0000000000000000_0000000000000006"));
}

#[tokio::test]
async fn a_keyed_wait_passes_over_other_keys() {
    let server = Server::start().await;
    server.create(S, "application/json").await;
    let task = waiting(&server, "offset=-1&key=b&timeout=60s").await;
    for (key, body) in [("a", "1"), ("c", "2")] {
        server.post(S, &[JSON[0], ("stream-key", key)], body).await.check(204);
    }
    assert!(!task.is_finished());
    server.post(S, &[JSON[0], ("stream-key", "b")], "3").await.check(204);
    let reply = answer(task).await.check(200);
    assert_eq!((&*reply.text(), reply.next()), ("[3]", "0000000000000000_0000000000000006"));
    // The deadline reports how far it looked.
    server.post(S, &[JSON[0], ("stream-key", "a")], "4").await.check(204);
    let from = reply.next();
    let reply = server.get(&poll(&format!("offset={from}&key=b&timeout=20"))).await.check(204);
    assert_eq!(reply.next(), "0000000000000000_0000000000000008");
}

#[tokio::test]
async fn deletion_ends_live_readers() {
    let server = Server::start().await;
    server.put(S, TEXT, "x").await.check(201);
    let mut events = server.events(&follow("offset=-1")).await;
    events.expect("data").await;
    events.expect("control").await;
    let task = waiting(&server, "offset=now&timeout=60s").await;
    let began = Instant::now();
    server.delete(S).await.check(204);
    answer(task).await.check(404);
    let last = events.rest().await.pop_back().expect("a final event");
    assert_eq!(last.next_offset(), ONE);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // A stream of the same name is another one.
    server.create(S, "text/plain").await;
    server.get(&poll("offset=now&timeout=0")).await.check(204);
}

#[tokio::test]
async fn readers_that_go_away_are_forgotten() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    for query in [poll("offset=now&timeout=60s"), follow("offset=now")] {
        let mut sockets = Vec::new();
        for _ in 0..20 {
            let mut socket = server.socket().await;
            let request = format!("GET {query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes())
                .await
                .expect("sent");
            sockets.push(socket);
        }
        until("they are attached", || async { server.figure("weir_live_readers").await >= 20.0 })
            .await;
        let began = Instant::now();
        drop(sockets);
        until("they are forgotten", || async { server.figure("weir_live_readers").await == 0.0 })
            .await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn an_event_stream_says_where_it_is_after_each_batch() {
    let server = Server::start_with(|config| config.read_bytes_max = 10).await;
    server.create(S, "application/json").await;
    server.post(S, JSON, "[\"aaaaaaa\",\"bbbbbbb\"]").await.check(204);
    let mut events = server.events(&follow("offset=-1")).await;
    assert_eq!(events.headers["stream-next-offset"], ZERO);
    assert_eq!(events.headers["stream-end-offset"], TWO);
    assert_eq!(events.headers["x-accel-buffering"], "no");
    assert_eq!(events.expect("data").await.data, "[\"aaaaaaa\"]");
    let behind = events.expect("control").await;
    assert_eq!(behind.next_offset(), ONE);
    assert!(behind.control().get("upToDate").is_none(), "{behind:?}");
    assert_eq!(events.expect("data").await.data, "[\"bbbbbbb\"]");
    let there = events.expect("control").await.control();
    assert_eq!((&there["streamNextOffset"], &there["upToDate"]), (&TWO.into(), &true.into()));
    let cursor = there["streamCursor"].as_str().expect("a string");
    assert!(cursor.parse::<u64>().is_ok(), "{cursor}");
    assert_eq!(events.chunks, 2, "data and its control are one chunk");
    server.post(S, &[("stream-closed", "true")], "").await.check(204);
    let last = events.expect("control").await.control();
    assert_eq!((&last["streamClosed"], &last["upToDate"]), (&true.into(), &true.into()));
    assert!(last.get("streamCursor").is_none(), "{last}");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_keyed_event_stream_is_silent_about_other_keys() {
    let server = Server::start().await;
    server.create(S, "application/json").await;
    let mut events = server.events(&follow("offset=-1&key=b")).await;
    assert_eq!(events.expect("control").await.next_offset(), ZERO);
    for (key, body) in [("a", "1"), ("a", "2"), ("b", "3")] {
        server.post(S, &[JSON[0], ("stream-key", key)], body).await.check(204);
    }
    assert_eq!(events.expect("data").await.data, "[3]");
    let control = events.expect("control").await;
    assert_eq!(control.next_offset(), "0000000000000000_0000000000000006");
}

#[tokio::test]
async fn a_closed_stream_ends_its_readers_at_once() {
    let server = Server::start().await;
    server.put(S, &[TEXT[0], ("stream-closed", "true")], "all").await.check(201);
    for (query, events) in
        [("offset=-1", 2), ("offset=now", 1), ("offset=0000000000000000_0000000000000099", 2)]
    {
        let began = Instant::now();
        let all = server.events(&follow(query)).await.rest().await;
        assert!(began.elapsed() < Duration::from_secs(1));
        assert_eq!(all.len(), events, "{query}: {all:?}");
        let last = all.back().expect("a control").control();
        assert_eq!((&last["streamClosed"], &last["upToDate"]), (&true.into(), &true.into()));
    }
}

#[tokio::test]
async fn characters_cut_by_appends_arrive_whole() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    let mut events = server.events(&follow("offset=-1")).await;
    events.expect("control").await;
    let smile = "\u{1f600}".as_bytes();
    server.append(S, [b"a", &smile[..2]].concat()).await;
    assert_eq!(events.expect("data").await.data, "a");
    events.expect("control").await;
    server.append(S, smile[2..3].to_vec()).await;
    assert_eq!(events.expect("control").await.next_offset(), TWO);
    server.append(S, [&smile[3..], b" b"].concat()).await;
    assert_eq!(events.expect("data").await.data, "\u{1f600} b");
    assert_eq!(server.get(S).await.text(), "a\u{1f600} b");
}

#[tokio::test]
async fn many_readers_see_the_same_events() {
    let server = Server::start().await;
    server.create(S, "application/octet-stream").await;
    let mut readers = Vec::new();
    for _ in 0..10 {
        let mut events = server.events(&follow("offset=-1")).await;
        assert_eq!(events.headers["stream-sse-data-encoding"], "base64");
        events.expect("control").await;
        readers.push(events);
    }
    let headers = [("content-type", "application/octet-stream")];
    for body in [&b"\x00\x01"[..], b"\xff"] {
        server.post(S, &headers, body).await.check(204);
        for events in &mut readers {
            let data = events.expect("data").await.data;
            assert_eq!(data, if body.len() == 2 { "AAE=" } else { "/w==" });
            events.expect("control").await;
        }
    }
}

#[tokio::test]
async fn an_event_stream_is_never_silent_and_never_old() {
    let server = Server::start_with(|config| {
        config.sse_keepalive = Duration::from_millis(40);
        config.sse_recycle = Duration::from_millis(400);
    })
    .await;
    server.put(S, TEXT, "x").await.check(201);
    let began = Instant::now();
    let mut events = server.events(&follow("offset=-1")).await;
    events.expect("data").await;
    events.expect("control").await;
    let rest = events.rest().await;
    let lasted = began.elapsed().as_millis();
    assert!((360..2000).contains(&lasted), "{lasted} ms");
    let (last, before) = rest
        .iter()
        .rev()
        .collect::<Vec<_>>()
        .split_first()
        .map_or_else(|| panic!("nothing"), |(last, before)| ((*last).clone(), before.len()));
    assert!(before >= 2, "keep-alives: {rest:?}");
    assert!(rest.iter().take(before).all(|event| event.kind == "comment"), "{rest:?}");
    assert_eq!((last.next_offset(), &last.control()["upToDate"]), (ONE.into(), &true.into()));
}

#[tokio::test]
async fn a_reader_that_stalls_is_dropped_and_loses_nothing() {
    let server = Server::start_with(|config| {
        config.patience.stall = Duration::from_millis(200);
    })
    .await;
    server.create(S, "text/plain").await;
    let mut socket = server.socket().await;
    let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", follow("offset=-1"));
    tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes()).await.expect("sent");
    let mut expect = 0;
    // More than socket buffers hold, so that the server's writes have to wait.
    while expect == 0 || server.figure("weir_live_readers").await > 0.0 {
        server.append(S, vec![b'x'; 1 << 20]).await;
        expect += 1 << 20;
        assert!(expect < 200 << 20, "the reader is still there");
    }
    let mut received = Vec::new();
    // What was on its way is still delivered; the end is an error or not.
    drop(within(socket.read_to_end(&mut received)).await);
    assert!(received.len() < expect, "{} of {expect}", received.len());
    let (mut all, mut offset) = (0, "-1".to_owned());
    while all < expect {
        let reply = server.get(&format!("{S}?offset={offset}")).await.check(200);
        all += reply.body.len();
        offset = reply.next().to_owned();
    }
    assert_eq!(all, expect);
}

#[tokio::test]
async fn stopping_tells_live_readers_where_to_resume() {
    let mut server = Server::start().await;
    server.put(S, TEXT, "x").await.check(201);
    let mut events = server.events(&follow("offset=-1")).await;
    events.expect("data").await;
    events.expect("control").await;
    let task = waiting(&server, "offset=now&timeout=60s").await;
    let mut kept = server.client().await;
    kept.send("GET", "/health", &[], "").await.check(200);
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(answer(task).await.check(204).next(), ONE);
    let rest: Vec<Event> = events.rest().await.into();
    assert_eq!(rest.last().expect("a final control").next_offset(), ONE);
}

#[tokio::test]
async fn requests_under_way_are_finished_and_new_ones_told_when_to_return() {
    let mut server = Server::start().await;
    server.create(S, "text/plain").await;
    // A request whose head has come, but whose body has not.
    let mut slow = server.socket().await;
    let head = format!(
        "POST {S} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nda"
    );
    let send = tokio::io::AsyncWriteExt::write_all;
    send(&mut slow, head.as_bytes()).await.expect("sent");
    // One whose head has only begun.
    let mut late = server.socket().await;
    send(&mut late, b"GET /v1/stream/s HTTP/1.1\r\n").await.expect("sent");
    until("both connections are there", || async {
        server.figure("weir_http_connections").await >= 3.0
    })
    .await;
    server.begin_stop();
    until("nobody is let in", || async { refused(server.address).await }).await;
    send(&mut late, b"Host: localhost\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    drop(within(late.read_to_string(&mut answer)).await);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.is_empty() || answer.contains("retry-after: 5"), "{answer}");
    send(&mut slow, b"ta").await.expect("sent");
    let mut answer = String::new();
    drop(within(slow.read_to_string(&mut answer)).await);
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    let server = server.restart().await;
    assert_eq!(server.get(S).await.text(), "data");
}

async fn refused(address: std::net::SocketAddr) -> bool {
    support::try_connect(address).await.is_err()
}
