//! Two halves of a stream's life, for a kill to happen in between.
//!
//! The first half makes a stream of every kind (bytes, text, JSON, with
//! producers, sequenced, closed three ways, with a time to live, deleted) and
//! remembers only what the server acknowledged. The second half holds the server
//! to that memory: the bytes are there, every offset still means the same place,
//! retries are duplicates, closed is closed, deleted is gone, and what comes
//! next comes strictly after. Both halves assume a server of their own.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::http::{Client, Header, Response};

const ROOT: &str = "/v1/stream/life";
const TTL_SECONDS: &str = "3600";
/// A second more than any promised second.
const EXPIRY_MAX: Duration = Duration::from_secs(10);
const EXPIRY_PAUSE: Duration = Duration::from_millis(50);

/// Pairs of what to send and how it must come back inside the JSON array.
const JSON_MESSAGES: [(&str, &[&str]); 3] = [
    (r#"{"b":1.0e2,"a":[ 1, 2 ]}"#, &[r#"{"b":1.0e2,"a":[ 1, 2 ]}"#]),
    (r#"[12345678901234567890,[1,[2]]]"#, &["12345678901234567890", "[1,[2]]"]),
    (r#"[null,"\u00e9"]"#, &["null", r#""\u00e9""#]),
];

/// A stream that got some appends, each acknowledged with the offset behind it.
struct Written {
    name: &'static str,
    content_type: &'static str,
    /// What a read from the start returns, before the closing of a JSON array.
    body: Vec<u8>,
    /// Offset and the length of `body` at that offset.
    marks: Vec<(String, usize)>,
}

/// What the server acknowledged in the first half.
pub struct Memory {
    written: Vec<Written>,
    /// The offset behind each request of the producer, by sequence.
    produced: Vec<String>,
    sequenced: String,
    /// Closed streams with the headers that closed them and the final offset.
    closed: Vec<(&'static str, Vec<Header<'static>>, String)>,
}

pub fn first_half(client: &mut Client) -> Result<Memory> {
    let bytes: Vec<u8> = (0..=255).collect();
    let written = vec![
        write(client, "bytes", "application/octet-stream", &[&bytes, b"\0", &bytes])?,
        write(client, "text", "text/plain", &["ä\r\n".as_bytes(), b"two\n", b"three"])?,
        write_json(client)?,
    ];
    let produced = produce(client)?;
    let sequenced = sequence(client)?;
    let closed = close(client)?;
    create(client, "ttl", &[("Content-Type", "text/plain"), ("Stream-TTL", TTL_SECONDS)])?;
    create(client, "short", &[("Content-Type", "text/plain"), ("Stream-TTL", "1")])?;
    create(client, "deleted", &[("Content-Type", "text/plain")])?;
    append(client, "deleted", &[("Content-Type", "text/plain")], b"before", 204)?;
    let gone = client.delete(&path("deleted"))?;
    expect_status(&gone, 204, "delete")?;
    Ok(Memory { written, produced, sequenced, closed })
}

pub fn second_half(client: &mut Client, memory: &Memory) -> Result<()> {
    for stream in &memory.written {
        keeps_what_was_acked(client, stream).with_context(|| format!("stream {}", stream.name))?;
        continues_after_it(client, stream).with_context(|| format!("stream {}", stream.name))?;
    }
    still_knows_its_producer(client, &memory.produced).context("stream producer")?;
    still_orders_its_writers(client, &memory.sequenced).context("stream sequenced")?;
    for (name, headers, last) in &memory.closed {
        stays_closed(client, name, headers, last).with_context(|| format!("stream {name}"))?;
    }
    stays_deleted(client).context("stream deleted")?;
    keeps_its_time_to_live(client)
}

// The first half.

fn path(name: &str) -> String {
    format!("{ROOT}/{name}")
}

fn create(client: &mut Client, name: &str, headers: &[Header<'_>]) -> Result<Response> {
    let answer = client.put(&path(name), headers, &[])?;
    expect_status(&answer, 201, &format!("create {name}"))?;
    Ok(answer)
}

fn append(
    client: &mut Client,
    name: &str,
    headers: &[Header<'_>],
    body: &[u8],
    status: u16,
) -> Result<Response> {
    let answer = client.post(&path(name), headers, body)?;
    expect_status(&answer, status, &format!("append to {name}"))?;
    Ok(answer)
}

fn write(
    client: &mut Client,
    name: &'static str,
    content_type: &'static str,
    records: &[&[u8]],
) -> Result<Written> {
    let headers = [("Content-Type", content_type)];
    let start = next_offset(&create(client, name, &headers)?)?;
    let mut stream = Written { name, content_type, body: Vec::new(), marks: vec![(start, 0)] };
    for record in records {
        let answer = append(client, name, &headers, record, 204)?;
        stream.body.extend_from_slice(record);
        stream.marks.push((next_offset(&answer)?, stream.body.len()));
    }
    Ok(stream)
}

fn write_json(client: &mut Client) -> Result<Written> {
    let (name, content_type) = ("json", "application/json");
    let headers = [("Content-Type", content_type)];
    let start = next_offset(&create(client, name, &headers)?)?;
    let mut stream = Written { name, content_type, body: Vec::new(), marks: vec![(start, 0)] };
    for (sent, messages) in JSON_MESSAGES {
        let answer = append(client, name, &headers, sent.as_bytes(), 204)?;
        for message in messages {
            stream.body.extend_from_slice(message.as_bytes());
            stream.body.push(b',');
        }
        stream.marks.push((next_offset(&answer)?, stream.body.len()));
    }
    Ok(stream)
}

fn producer<'a>(epoch: &'a str, seq: &'a str) -> Vec<Header<'a>> {
    let fixed = [("Content-Type", "text/plain"), ("Producer-Id", "p")];
    fixed.into_iter().chain([("Producer-Epoch", epoch), ("Producer-Seq", seq)]).collect()
}

fn produce(client: &mut Client) -> Result<Vec<String>> {
    create(client, "producer", &[("Content-Type", "text/plain")])?;
    let mut offsets = Vec::new();
    for seq in ["0", "1", "2"] {
        let body = format!("p{seq};");
        let answer = append(client, "producer", &producer("1", seq), body.as_bytes(), 200)?;
        offsets.push(next_offset(&answer)?);
    }
    Ok(offsets)
}

fn sequence(client: &mut Client) -> Result<String> {
    let headers = [("Content-Type", "text/plain"), ("Stream-Seq", "b")];
    create(client, "sequenced", &headers[..1])?;
    next_offset(&append(client, "sequenced", &headers, b"b", 204)?)
}

/// Closes a stream in each of the three ways.
fn close(client: &mut Client) -> Result<Vec<(&'static str, Vec<Header<'static>>, String)>> {
    let closing = [("Content-Type", "text/plain"), ("Stream-Closed", "true")];
    let mut by_producer = producer("0", "0");
    by_producer.push(("Stream-Closed", "true"));
    let ways: [(&str, &[Header<'static>], &[u8], u16); 3] = [
        ("closed-alone", &closing, b"", 204),
        ("closed-with-data", &closing, b"last", 204),
        ("closed-by-producer", &by_producer, b"last", 200),
    ];
    let mut closed = Vec::new();
    for (name, headers, body, status) in ways {
        create(client, name, &[("Content-Type", "text/plain")])?;
        append(client, name, &[("Content-Type", "text/plain")], b"first;", 204)?;
        let answer = append(client, name, headers, body, status)?;
        ensure!(answer.header("Stream-Closed") == Some("true"), "{name} does not say closed");
        closed.push((name, headers.to_vec(), next_offset(&answer)?));
    }
    Ok(closed)
}

// The second half.

fn keeps_what_was_acked(client: &mut Client, stream: &Written) -> Result<()> {
    let head = client.head(&path(stream.name))?;
    expect_status(&head, 200, "head")?;
    let (tail, _) = stream.marks.last().context("a stream has its start")?;
    ensure!(next_offset(&head)? == *tail, "the tail moved: {:?} is not {tail}", head.headers);
    ensure!(head.header("Content-Type") == Some(stream.content_type), "{:?}", head.headers);
    for (offset, length) in &stream.marks {
        let read = client.get(&format!("{}?offset={offset}", path(stream.name)))?;
        expect_status(&read, 200, "read")?;
        let expect = framed(stream, &stream.body[*length..]);
        ensure!(
            read.body == expect,
            "from {offset}: {:?} instead of {:?}",
            read.text(),
            String::from_utf8_lossy(&expect)
        );
    }
    Ok(())
}

/// As a read returns it: JSON messages in an array, other bytes as they are.
fn framed(stream: &Written, body: &[u8]) -> Vec<u8> {
    if stream.content_type != "application/json" {
        return body.to_vec();
    }
    let messages = body.strip_suffix(b",").unwrap_or(body);
    [b"[", messages, b"]"].concat()
}

fn continues_after_it(client: &mut Client, stream: &Written) -> Result<()> {
    let (tail, _) = stream.marks.last().context("a stream has its start")?;
    let headers = [("Content-Type", stream.content_type)];
    let answer = append(client, stream.name, &headers, b"123", 204)?;
    let next = next_offset(&answer)?;
    ensure!(next > *tail, "{next} is not after {tail}");
    let polled = client.get(&format!("{}?offset={tail}&live=long-poll", path(stream.name)))?;
    expect_status(&polled, 200, "long-poll")?;
    ensure!(polled.body == framed(stream, b"123"), "polled {:?}", polled.text());
    ensure!(next_offset(&polled)? == next, "{:?} is not {next}", polled.headers);
    Ok(())
}

fn still_knows_its_producer(client: &mut Client, offsets: &[String]) -> Result<()> {
    for (seq, offset) in ["0", "1", "2"].iter().zip(offsets) {
        let again = append(client, "producer", &producer("1", seq), b"again", 204)?;
        ensure!(again.header("Producer-Seq") == Some("2"), "{:?}", again.headers);
        // The peer names no offset with a duplicate; whoever names one names its own.
        let named = again.header("Stream-Next-Offset").unwrap_or(offset);
        ensure!(named == offset, "the duplicate of {seq} ends at {named}, not at {offset}");
    }
    let gap = append(client, "producer", &producer("1", "4"), b"gap", 409)?;
    ensure!(gap.header("Producer-Expected-Seq") == Some("3"), "{:?}", gap.headers);
    let stale = append(client, "producer", &producer("0", "3"), b"stale", 403)?;
    ensure!(stale.header("Producer-Epoch") == Some("1"), "{:?}", stale.headers);
    append(client, "producer", &producer("1", "3"), b"p3;", 200)?;
    append(client, "producer", &producer("2", "0"), b"q0;", 200)?;
    let read = client.get(&path("producer"))?;
    ensure!(read.text() == "p0;p1;p2;p3;q0;", "{:?}", read.text());
    Ok(())
}

fn still_orders_its_writers(client: &mut Client, tail: &str) -> Result<()> {
    for seq in ["a", "b"] {
        let headers = [("Content-Type", "text/plain"), ("Stream-Seq", seq)];
        append(client, "sequenced", &headers, b"late", 409)?;
    }
    let headers = [("Content-Type", "text/plain"), ("Stream-Seq", "c")];
    let answer = append(client, "sequenced", &headers, b"c", 204)?;
    ensure!(next_offset(&answer)?.as_str() > tail, "{:?}", answer.headers);
    let read = client.get(&path("sequenced"))?;
    ensure!(read.text() == "bc", "{:?}", read.text());
    Ok(())
}

fn stays_closed(client: &mut Client, name: &str, headers: &[Header<'_>], last: &str) -> Result<()> {
    let body: &[u8] = if name == "closed-alone" { b"" } else { b"last" };
    let refused = append(client, name, &[("Content-Type", "text/plain")], b"more", 409)?;
    ensure!(refused.header("Stream-Closed") == Some("true"), "{:?}", refused.headers);
    ensure!(next_offset(&refused)? == last, "{:?} is not {last}", refused.headers);
    // What closed it, once more: a duplicate where it can be told from new data.
    let status = if name == "closed-with-data" { 409 } else { 204 };
    let again = append(client, name, headers, body, status)?;
    ensure!(again.header("Stream-Closed") == Some("true"), "{:?}", again.headers);

    let read = client.get(&path(name))?;
    ensure!(read.body == [b"first;", body].concat(), "{:?}", read.text());
    ensure!(read.header("Stream-Closed") == Some("true"), "{:?}", read.headers);
    let polled = client.get(&format!("{}?offset={last}&live=long-poll", path(name)))?;
    expect_status(&polled, 204, "long-poll at the end")?;
    ensure!(polled.header("Stream-Closed") == Some("true"), "{:?}", polled.headers);
    Ok(())
}

fn stays_deleted(client: &mut Client) -> Result<()> {
    expect_status(&client.head(&path("deleted"))?, 404, "head")?;
    let headers = [("Content-Type", "text/plain")];
    append(client, "deleted", &headers, b"late", 404)?;
    create(client, "deleted", &headers)?;
    append(client, "deleted", &headers, b"after", 204)?;
    let read = client.get(&path("deleted"))?;
    ensure!(read.text() == "after", "{:?}", read.text());
    Ok(())
}

fn keeps_its_time_to_live(client: &mut Client) -> Result<()> {
    let long = client.head(&path("ttl"))?;
    expect_status(&long, 200, "an hour has not passed")?;
    ensure!(long.header("Stream-TTL") == Some(TTL_SECONDS), "{:?}", long.headers);
    // HEAD does not renew, so asking again and again lets the second pass.
    let start = Instant::now();
    while client.head(&path("short"))?.status != 404 {
        ensure!(start.elapsed() < EXPIRY_MAX, "a second outlived {EXPIRY_MAX:?}");
        thread::sleep(EXPIRY_PAUSE);
    }
    Ok(())
}

fn next_offset(answer: &Response) -> Result<String> {
    let header = answer.header("Stream-Next-Offset");
    Ok(header.with_context(|| format!("no offset in {answer:?}"))?.to_owned())
}

fn expect_status(answer: &Response, status: u16, what: &str) -> Result<()> {
    ensure!(
        answer.status == status,
        "{what}: {} instead of {status}: {:?} {:?}",
        answer.status,
        answer.headers,
        answer.text()
    );
    Ok(())
}
