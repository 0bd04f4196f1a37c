//! Catch-up reads, caching and offsets (protocol §26 G, H, J; core §10.2, §10.5), where the
//! upstream suite does not prove it.

mod support;

use support::{JSON, Server, TEXT, until};
use weir_engine::types::OffsetFormat;
use weir_io::memory::{BucketFaults, MemoryBucket};

const S: &str = "/v1/stream/s";
const ZERO: &str = "0000000000000000_0000000000000000";
const ONE: &str = "0000000000000000_0000000000000002";
const TWO: &str = "0000000000000000_0000000000000004";
const SHARED: &str = "public, max-age=60, stale-while-revalidate=300";
const FOR_EVER: &str = "public, max-age=31536000, immutable";

fn at(offset: &str) -> String {
    format!("{S}?offset={offset}")
}

/// A text stream of three records of 60 bytes on a server whose pages hold one.
async fn three_pages() -> Server {
    let server = Server::start_with(|config| config.read_bytes_max = 100).await;
    server.create(S, "text/plain").await;
    for letter in ["a", "b", "c"] {
        server.append(S, letter.repeat(60)).await;
    }
    server
}

#[tokio::test]
async fn a_page_that_is_not_the_last_says_neither_up_to_date_nor_closed() {
    let server = three_pages().await;
    server.post(S, &[("stream-closed", "true")], "").await.check(204);
    let (mut offset, mut all, mut pages) = ("-1".to_owned(), String::new(), 0);
    loop {
        let reply = server.get(&at(&offset)).await.check(200);
        all.push_str(&reply.text());
        pages += 1;
        let done = reply.find("stream-up-to-date") == Some("true");
        assert_eq!(reply.find("stream-closed"), done.then_some("true"), "{reply:?}");
        assert_eq!(reply.header("stream-end-offset"), "0000000000000000_0000000000000006");
        assert!(reply.next() > &*offset || done);
        offset = reply.next().to_owned();
        if done {
            break;
        }
    }
    assert_eq!((pages, all), (3, ["a", "b", "c"].map(|letter| letter.repeat(60)).concat()));
}

#[tokio::test]
async fn pages_of_json_never_split_a_message() {
    let server = Server::start_with(|config| config.read_bytes_max = 50).await;
    server.create(S, "application/json").await;
    let messages: Vec<String> = (0..40)
        .map(|number| format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(number)))
        .collect();
    server.post(S, JSON, format!("[{}]", messages.join(","))).await.check(204);
    let (mut offset, mut seen) = (ZERO.to_owned(), Vec::new());
    while seen.len() < messages.len() {
        let reply = server.get(&at(&offset)).await.check(200);
        let page = reply.json();
        let page = page.as_array().expect("each page is an array");
        assert!(!page.is_empty(), "at least one message a page");
        seen.extend(page.iter().map(|it| it["n"].as_u64().expect("a number")));
        offset = reply.next().to_owned();
    }
    assert!(seen.iter().copied().eq(0..40), "{seen:?}");
}

#[tokio::test]
async fn an_offset_beyond_the_tail_is_echoed_and_never_kept() {
    let server = Server::start().await;
    server.put(S, TEXT, "x").await.check(201);
    for offset in ["9999999999999999_9999999999999998", "0000000000000000_0000000000000008"] {
        let reply = server.get(&at(offset)).await.check(200);
        assert_eq!((&*reply.text(), reply.header("cache-control")), ("", "no-store"), "{offset}");
        assert_eq!((reply.find("stream-up-to-date"), reply.find("etag")), (None, None));
        assert_eq!(reply.header("stream-end-offset"), ONE);
    }
    let reply = server.get(&at("0000000000000000_0000000000000008")).await;
    assert_eq!(reply.next(), "0000000000000000_0000000000000008");
}

#[tokio::test]
async fn an_offset_inside_a_record_starts_at_that_record() {
    let server = Server::start().await;
    server.create(S, "application/json").await;
    server.post(S, JSON, r#"["a","b","c"]"#).await.check(204);
    for (offset, expect) in [
        ("0000000000000000_0000000000000001", r#"["a","b","c"]"#),
        ("0000000000000000_0000000000000003", r#"["b","c"]"#),
        ("0_3", r#"["b","c"]"#),
        ("0000000000000000_0000000000000005", r#"["c"]"#),
        ("0000000000000000_0000000000000007", "[]"),
        ("0000000000000000000G000000", r#"["b","c"]"#),
    ] {
        assert_eq!(server.get(&at(offset)).await.check(200).text(), expect, "{offset}");
    }
    for offset in ["0", "", "a_b", "0_", "_0", "0-0", "U0000000000000000000000000"] {
        server.get(&at(offset)).await.check(400);
    }
}

#[tokio::test]
async fn offsets_are_written_in_the_form_that_was_asked_for() {
    let server = Server::start_with(|config| config.offset_format = OffsetFormat::Peer).await;
    server.create(S, "application/json").await;
    let reply = server.post(S, JSON, "[1,2]").await.check(204);
    assert_eq!(reply.next(), "00000000000000000010000000");
    for offset in ["0000000000000000000g000000", "OOOOOOOOOOOOOOOOOOOGOOOOOO", ONE] {
        let reply = server.get(&at(offset)).await.check(200);
        assert_eq!((&*reply.text(), reply.next()), ("[2]", "00000000000000000010000000"));
    }
    let start = server.get(&at("00000000000000000000000000")).await;
    assert_eq!(start.text(), server.get(&at("-1")).await.text());
}

#[tokio::test]
async fn only_complete_slices_behind_a_minted_offset_are_immutable() {
    let server = three_pages().await;
    for (query, expect) in [
        ("", SHARED),
        ("?offset=-1", SHARED),
        // The start of every stream, also of one that is created again.
        (&*format!("?offset={ZERO}"), SHARED),
        (&*format!("?offset={ONE}"), FOR_EVER),
        ("?offset=0_2", SHARED),
        ("?offset=0000000000000000_0000000000000003", SHARED),
        (&*format!("?offset={TWO}"), SHARED),
        ("?offset=0000000000000000_0000000000000006", SHARED),
        ("?offset=now", "no-store"),
        ("?since=0", SHARED),
    ] {
        let reply = server.get(&format!("{S}{query}")).await.check(200);
        assert_eq!(reply.header("cache-control"), expect, "{query}");
        assert_eq!(reply.find("etag").is_none(), query == "?offset=now", "{query}");
    }
    let fresh = Server::start().await;
    fresh.create(S, "text/plain").await;
    assert_eq!(fresh.get(S).await.header("cache-control"), SHARED);
}

#[tokio::test]
async fn a_tag_changes_with_everything_that_changes_the_answer() {
    let server = Server::start_with(|config| config.read_bytes_max = 10).await;
    server.create(S, "text/plain").await;
    let tag = || async { server.get(S).await.header("etag").to_owned() };
    let mut tags = vec![tag().await];
    server.append(S, "0123456789").await;
    tags.push(tag().await);
    // The same bytes, but no longer all there is.
    server.append(S, "x").await;
    tags.push(tag().await);
    server.delete(S).await.check(204);
    server.put(S, TEXT, "0123456789").await.check(201);
    tags.push(tag().await);
    // Closing adds no byte.
    server.post(S, &[("stream-closed", "true")], "").await.check(204);
    tags.push(tag().await);
    for (at, tag) in tags.iter().enumerate() {
        assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        assert!(!tags[..at].contains(tag), "{tags:?}");
    }
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let server = Server::start().await;
    server.put(S, TEXT, "x").await.check(201);
    server.post(S, &[("stream-closed", "true")], "").await.check(204);
    let whole = server.get(S).await.check(200);
    let tag = whole.header("etag");
    for condition in
        [tag.to_owned(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()]
    {
        let reply = server.send("GET", S, &[("if-none-match", &condition)], "").await.check(304);
        assert!(reply.body.is_empty());
        for name in [
            "etag",
            "stream-next-offset",
            "stream-end-offset",
            "stream-up-to-date",
            "stream-closed",
            "cache-control",
        ] {
            assert_eq!(reply.header(name), whole.header(name), "{name}");
        }
    }
    for condition in ["\"other\"", "W/\"other\", \"more\"", tag.trim_matches('"')] {
        let reply = server.send("GET", S, &[("if-none-match", condition)], "").await.check(200);
        assert_eq!(reply.text(), "x", "{condition}");
    }
    let now = format!("{S}?offset=now");
    server.send("GET", &now, &[("if-none-match", "*")], "").await.check(200);
}

#[tokio::test]
async fn formats_are_json_for_json_and_raw_otherwise() {
    let server = Server::start().await;
    server.put("/v1/stream/j", JSON, r#"[{"a":"x,y"},[1,2],3]"#).await.check(201);
    server.put("/v1/stream/t", TEXT, "text").await.check(201);
    for (query, status, expect) in [
        ("j", 200, r#"[{"a":"x,y"},[1,2],3]"#),
        ("j?format=json", 200, r#"[{"a":"x,y"},[1,2],3]"#),
        ("j?format=raw", 200, r#"{"a":"x,y"}[1,2]3"#),
        ("t", 200, "text"),
        ("t?format=raw", 200, "text"),
        ("t?format=json", 400, ""),
        ("t?format=json&live=sse&offset=-1", 400, ""),
        ("j?format=xml", 400, ""),
        ("j?filter=a", 400, ""),
        ("j?offset=now", 200, "[]"),
        ("t?offset=now", 200, ""),
    ] {
        let reply = server.get(&format!("/v1/stream/{query}")).await.check(status);
        if status == 200 {
            assert_eq!(reply.text(), expect, "{query}");
        }
    }
    let json = server.get("/v1/stream/j").await;
    let raw = server.get("/v1/stream/j?format=raw").await;
    assert_ne!(json.header("etag"), raw.header("etag"));
}

#[tokio::test]
async fn a_keyed_read_returns_all_of_a_key_and_moves_past_the_others() {
    let server = Server::start_with(|config| config.read_bytes_max = 64).await;
    server.create(S, "application/json").await;
    for number in 0..60 {
        let key = ["a", "b/c", "d"][number % 3];
        let headers = [JSON[0], ("stream-key", key)];
        server.post(S, &headers, format!("[{number}]")).await.check(204);
    }
    server.post(S, JSON, "[\"no key\"]").await.check(204);
    for query in ["?key=b%2Fc", "/pk/b%2Fc", "/pk/b%2Fc?key=a"] {
        let (mut from, mut seen) = ("-1".to_owned(), Vec::new());
        loop {
            let join = if query.contains('?') { '&' } else { '?' };
            let reply = server.get(&format!("{S}{query}{join}offset={from}")).await.check(200);
            let page = reply.json();
            let page = page.as_array().expect("an array");
            seen.extend(page.iter().map(|it| it.as_u64().expect("a number")));
            from = reply.next().to_owned();
            if reply.find("stream-up-to-date").is_some() {
                break;
            }
        }
        assert!(seen.iter().copied().eq((0..20).map(|it| it * 3 + 1)), "{query}: {seen:?}");
        assert_eq!(from, server.head(S).await.next(), "{query}");
    }
    assert_eq!(server.get(&format!("{S}?key=unknown")).await.text(), "[]");
    assert_eq!(server.get(&format!("{S}?key=&offset=now")).await.text(), "[]");
    server.put(&format!("{S}/pk/a"), JSON, "").await.check(405);
}

/// The wall clock in nanoseconds, at a whole millisecond that lies ahead of all before it.
async fn next_moment() -> String {
    let ms = support::wall_ms() + 1;
    until("time passes", || async { support::wall_ms() > ms }).await;
    (ms * 1_000_000).to_string()
}

#[tokio::test]
async fn since_finds_the_first_record_that_is_not_older() {
    let server = Server::start().await;
    let before = next_moment().await;
    server.create(S, "application/json").await;
    server.post(S, JSON, "[1,2]").await.check(204);
    let between = next_moment().await;
    server.post(S, JSON, "3").await.check(204);
    server.post(S, JSON, "4").await.check(204);
    let after = next_moment().await;
    for (since, expect) in [
        ("2019-01-01T00:00:00Z", "[1,2,3,4]"),
        ("2019-01-01T00:00:00.5%2B01:00", "[1,2,3,4]"),
        (&*before, "[1,2,3,4]"),
        (&*between, "[3,4]"),
        (&*after, "[]"),
        ("2090-01-01T00:00:00Z", "[]"),
    ] {
        let reply = server.get(&format!("{S}?since={since}")).await.check(200);
        assert_eq!(reply.text(), expect, "{since}");
        let live = format!("{S}?since={since}&live=long-poll&timeout=0");
        let status = if expect == "[]" { 204 } else { 200 };
        server.get(&live).await.check(status);
    }
    let both = server.get(&format!("{S}?since={after}&offset={TWO}")).await;
    assert_eq!(both.text(), "[3,4]");
    server.get(&format!("{S}?since=yesterday")).await.check(400);

    let server = server.restart().await;
    let sealed = server.get(&format!("{S}?since={between}")).await.check(200);
    assert_eq!(sealed.text(), "[3,4]");
}

#[tokio::test]
async fn timestamps_never_run_ahead_of_the_clock_nor_backwards() {
    let server = Server::start().await;
    server.create(S, "application/json").await;
    let ahead = [JSON[0], ("stream-timestamp", "2090-01-01T00:00:00Z")];
    server.post(S, &ahead, "1").await.check(204);
    assert_eq!(server.get(&format!("{S}?since=2089-01-01T00:00:00Z")).await.text(), "[]");
    let behind = [JSON[0], ("stream-timestamp", "2000-01-01T00:00:00Z")];
    server.post(S, &behind, "2").await.check(204);
    assert_eq!(server.get(&format!("{S}?since=2001-01-01T00:00:00Z")).await.text(), "[1,2]");
}

#[tokio::test]
async fn large_pages_arrive_whole() {
    let server = Server::start().await;
    server.create(S, "application/octet-stream").await;
    let headers = [("content-type", "application/octet-stream")];
    let mut expect = Vec::new();
    for size in [1_usize, 100_000, 3, 2_000_000, 50_000, 1_000_000] {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("small")).collect();
        expect.extend_from_slice(&body);
        server.post(S, &headers, body).await.check(204);
    }
    let reply = server.get(S).await.check(200);
    assert_eq!(reply.header("content-length"), expect.len().to_string());
    assert!(reply.body == expect, "the same bytes");
}

#[tokio::test]
async fn existence_is_told_before_parameters_are_criticised() {
    let server = Server::start().await;
    server.create(S, "text/plain").await;
    for query in ["?offset=", "?live=x&offset=-1", "?live=sse", "?timeout=x", "?since=x"] {
        server.get(&format!("/v1/stream/none{query}")).await.check(404);
        server.get(&format!("{S}{query}")).await.check(400);
    }
    let producer = [TEXT[0], ("producer-id", "p")];
    server.post("/v1/stream/none", &producer, "x").await.check(404);
    server.post(S, &producer, "x").await.check(400);
}

#[tokio::test]
async fn what_is_sealed_reads_as_before() {
    let server = Server::start().await;
    server.create(S, "application/json").await;
    for number in 0..10 {
        server.post(S, JSON, format!("[{number}]")).await.check(204);
    }
    let before = server.get(S).await;
    // Closing the engine seals.
    let server = server.restart().await;
    let after = server.get(S).await.check(200);
    assert_eq!((after.text(), after.next()), (before.text(), before.next()));
    assert_eq!(after.header("etag"), before.header("etag"));
    server.post(S, JSON, "[10]").await.check(204);
    let reply = server.get(&at(&format!("0000000000000000_{:016}", 18))).await;
    assert_eq!(reply.text(), "[9,10]");
    until("the list says what is sealed", || async {
        server.get("/v1/streams").await.json()[0]["sealed_through"] == "9"
    })
    .await;
}

#[tokio::test]
async fn a_read_of_what_only_a_bucket_that_is_away_has_says_when_to_ask_again() {
    let bucket = MemoryBucket::new(1);
    let server = Server::start_evicting(&bucket).await;
    server.create(S, "text/plain").await;
    // A copy of a few blocks of the file system is not worth its eviction.
    let record: String =
        (0..20_000_u32).map(|it| it.wrapping_mul(2_654_435_761).to_string()).collect();
    server.append(S, record.clone()).await;
    until("no copy is left here", || async {
        server.figure("weir_history_evictions_total").await >= 1.0
    })
    .await;
    bucket.set_faults(BucketFaults { outage: true, ..BucketFaults::default() });
    let reply = server.get(S).await.check(503);
    assert_eq!(reply.header("retry-after"), "5");
    let (code, message) = reply.error();
    assert_eq!(code, "unavailable");
    assert!(message.contains("object store") && message.contains("'s'"), "{message}");
    // What is not there alone goes on.
    server.head(S).await.check(200);
    bucket.set_faults(BucketFaults::default());
    assert!(server.get(S).await.check(200).text() == record, "as it was written");
    // Damage is no outage.
    let segment = bucket.keys().into_iter().find(|key| key.as_str().starts_with("segments/"));
    assert!(bucket.lose(&segment.expect("it is published")));
    let reply = server.get(S).await.check(500);
    assert_eq!((reply.find("retry-after"), &*reply.error().0), (None, "internal"));
}
