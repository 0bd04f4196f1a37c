//! Requests made beforehand, with the parts that change written in place.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    measure::wide,
    record::{self, Mark},
};
use crate::client::Target;

/// Digits of a stream in its name, so that all requests have the same layout.
const STREAM_DIGITS: usize = 8;
/// Streams whose names stand in the command that deletes them.
const REMOVED_ONE_BY_ONE_MAX: usize = 4;
/// Room for `Producer-Seq`. Blanks before a value of a header do not count.
const SEQUENCE_DIGITS: usize = 16;

/// The streams of one run.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// Path, up to the number.
    prefix: String,
    /// The part of each head that is the same.
    common: String,
    /// The flags by which other commands find their server.
    server: String,
    pub(super) count: usize,
    pub(super) content_type: String,
    /// How their records look.
    pub(super) form: record::Form,
    /// Those that this run has made.
    made: Arc<[AtomicBool]>,
}

/// What a body is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bytes of a record.
    pub(super) record_bytes: usize,
    /// Records in a request.
    pub(super) batch: usize,
}

/// Headers that some appends have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Headers<'a> {
    /// `Producer-Id`; epoch and sequence come with it.
    pub(super) producer: Option<&'a str>,
    /// `Stream-Key`.
    pub(super) key: Option<&'a str>,
}

impl Streams {
    /// Streams number 0 to `count - 1` of a run.
    pub(super) fn new(
        target: &Target,
        run: &str,
        count: usize,
        content_type: &str,
        record_bytes: usize,
    ) -> Self {
        let auth = target.auth.as_ref().map(|it| format!("Authorization: {it}\r\n"));
        let common = format!("Host: {}\r\n{}", target.authority(), auth.unwrap_or_default());
        let prefix = target.path(&format!("bench-{run}-"));
        Self {
            prefix,
            common,
            server: server_flags(target),
            count,
            content_type: content_type.to_owned(),
            form: record::Form::new(record_bytes, is_json(content_type)),
            made: (0..count).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// A stream is there now by this run.
    pub(super) fn made(&self, stream: usize) {
        self.made[stream].store(true, Ordering::Relaxed);
    }

    /// Whether it is this run that made it.
    pub(super) fn is_made(&self, stream: usize) -> bool {
        self.made[stream].load(Ordering::Relaxed)
    }

    pub(super) fn path(&self, stream: usize) -> String {
        format!("{}{stream:0STREAM_DIGITS$}", self.prefix)
    }

    /// The name of a stream, as other commands take it.
    pub(super) fn name(&self, stream: usize) -> String {
        let path = self.path(stream);
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// How those that this run has made are deleted by hand, if there are any.
    pub(super) fn removal(&self) -> Option<String> {
        let mut made = (0..self.count).filter(|stream| self.is_made(*stream));
        let first: Vec<String> =
            made.by_ref().take(REMOVED_ONE_BY_ONE_MAX).map(|it| self.name(it)).collect();
        if first.is_empty() {
            return None;
        }
        let server = &self.server;
        Some(match made.next() {
            None => format!("`weir rm {} {server}`", first.join(" ")),
            Some(_) => {
                let prefix = &first[0][..first[0].len() - STREAM_DIGITS];
                format!("`weir ls {prefix} {server} | xargs weir rm {server}`")
            }
        })
    }

    /// Whether bodies are JSON.
    pub(super) fn is_json(&self) -> bool {
        is_json(&self.content_type)
    }

    /// A request without a body.
    pub(super) fn plain(&self, method: &str, stream: usize, query: &str) -> Vec<u8> {
        let (path, common) = (self.path(stream), &self.common);
        format!("{method} {path}{query} HTTP/1.1\r\n{common}\r\n").into_bytes()
    }

    /// A request that makes a stream, without a body.
    pub(super) fn create(&self, stream: usize) -> Vec<u8> {
        let (path, common, content_type) = (self.path(stream), &self.common, &self.content_type);
        let head = format!(
            "PUT {path} HTTP/1.1\r\n{common}Content-Type: {content_type}\r\nContent-Length: 0\r\n\r\n"
        );
        head.into_bytes()
    }
}

/// As they are written in a shell.
fn server_flags(target: &Target) -> String {
    let url = target.to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/%".contains(&byte);
    let url = match url.bytes().all(is_plain) {
        true => url,
        false => format!("'{}'", url.replace('\'', "%27")),
    };
    // A URL without a path stands for another one.
    let root = if target.root.is_empty() { " --root /" } else { "" };
    format!("--url {url}{root}")
}

fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default();
    media.trim().eq_ignore_ascii_case("application/json")
}

/// An append whose stream, sequence and records are written in place.
pub(super) struct Append {
    bytes: Vec<u8>,
    stream_at: usize,
    sequence_at: Option<usize>,
    body_at: usize,
    /// Where the first record begins.
    record_at: usize,
    shape: Shape,
    writer: u32,
}

impl Append {
    pub(super) fn new(streams: &Streams, shape: Shape, writer: u32, headers: Headers<'_>) -> Self {
        let json = streams.is_json();
        let (body, first) = body(json, shape);
        let Streams { common, content_type, .. } = streams;
        let mut head = format!("POST {}", streams.prefix);
        let stream_at = head.len();
        head.push_str(&"0".repeat(STREAM_DIGITS));
        head.push_str(" HTTP/1.1\r\n");
        head.push_str(common);
        head.push_str(&format!(
            "Content-Type: {content_type}\r\nContent-Length: {}\r\n",
            body.len()
        ));
        if let Some(key) = headers.key {
            head.push_str(&format!("Stream-Key: {key}\r\n"));
        }
        let sequence_at = headers.producer.map(|id| {
            head.push_str(&format!("Producer-Id: {id}\r\nProducer-Epoch: 0\r\nProducer-Seq: "));
            let at = head.len();
            head.push_str(&" ".repeat(SEQUENCE_DIGITS));
            head.push_str("\r\n");
            at
        });
        head.push_str("\r\n");
        let body_at = head.len();
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&body);
        let record_at = body_at + first;
        Self { bytes, stream_at, sequence_at, body_at, record_at, shape, writer }
    }

    /// The how many-th request to which stream. Its records are numbered accordingly.
    pub(super) fn aim(&mut self, stream: usize, request: u64) {
        write_decimal(&mut self.bytes[self.stream_at..][..STREAM_DIGITS], wide(stream), b'0');
        if let Some(at) = self.sequence_at {
            write_decimal(&mut self.bytes[at..][..SEQUENCE_DIGITS], request, b' ');
        }
        self.each(|writer, index, record| {
            let number = request * index.1 + index.0;
            record::stamp(record, Mark { writer, number, sent: Duration::ZERO });
        });
    }

    /// Writes the time of sending into the records.
    pub(super) fn date(&mut self, sent: Duration) {
        self.each(|_, _, record| record::stamp_time(record, sent));
    }

    fn each(&mut self, mut write: impl FnMut(u32, (u64, u64), &mut [u8])) {
        let Shape { record_bytes, batch } = self.shape;
        let records = self.bytes[self.record_at..].chunks_mut(record_bytes + 1).take(batch);
        for (index, record) in records.enumerate() {
            write(self.writer, (wide(index), wide(batch)), record);
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn body(&self) -> Range<usize> {
        self.body_at..self.bytes.len()
    }
}

/// A body and where its first record begins. In JSON a batch is an array; elsewhere records end
/// with line breaks. Either way there is one byte between two of them.
fn body(json: bool, shape: Shape) -> (Vec<u8>, usize) {
    let blank = record::blank(shape.record_bytes);
    let mut body = Vec::with_capacity((shape.record_bytes + 1) * shape.batch + 2);
    let opened = json && shape.batch > 1;
    if opened {
        body.push(b'[');
    }
    for index in 0..shape.batch {
        if json && index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&blank);
        if !json {
            body.push(b'\n');
        }
    }
    if opened {
        body.push(b']');
    }
    (body, usize::from(opened))
}

fn write_decimal(digits: &mut [u8], mut value: u64, fill: u8) {
    let last = digits.len() - 1;
    for (at, digit) in digits.iter_mut().rev().enumerate() {
        *digit = if value == 0 && at > 0 {
            fill
        } else {
            DECIMAL[usize::try_from(value % 10).expect("a digit")]
        };
        value /= 10;
        debug_assert!(at < last || value == 0, "the room is enough for any run");
    }
}

const DECIMAL: &[u8; 10] = b"0123456789";

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(content_type: &str) -> Streams {
        let target = Target::parse("http://127.0.0.1:7", None).expect("valid");
        let target = target.with_auth(Some("secret")).expect("valid");
        Streams::new(&target, "run", 100, content_type, 60)
    }

    fn check(content_type: &str, batch: usize, opening: &str, between: &str, ending: &str) {
        let shape = Shape { record_bytes: 60, batch };
        let headers = Headers { producer: Some("p"), key: Some("k") };
        let mut append = Append::new(&streams(content_type), shape, 9, headers);
        append.aim(42, 7);
        append.date(Duration::from_nanos(0xff));
        let text = std::str::from_utf8(append.bytes()).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert_eq!(append.body().len(), body.len());
        for line in [
            "POST /v1/stream/bench-run-00000042 HTTP/1.1",
            "Host: 127.0.0.1:7",
            "Authorization: Bearer secret",
            &format!("Content-Length: {}", body.len()),
            &format!("Producer-Seq: {:>16}", 7),
            "Stream-Key: k",
        ] {
            assert!(head.lines().any(|it| it == line), "{line} in {head}");
        }
        let records: Vec<_> = (0..batch)
            .map(|index| {
                let mut record = record::blank(60);
                let number = 7 * wide(batch) + wide(index);
                record::stamp(
                    &mut record,
                    Mark { writer: 9, number, sent: Duration::from_nanos(0xff) },
                );
                String::from_utf8(record).expect("ASCII")
            })
            .collect();
        assert_eq!(body, format!("{opening}{}{ending}", records.join(between)));
    }

    #[test]
    fn parts_that_change_are_written_in_place() {
        check("application/json", 1, "", "", "");
        check("application/json; charset=utf-8", 3, "[", ",", "]");
        check("text/plain", 1, "", "", "\n");
        check("text/plain", 3, "", "\n", "\n");
    }

    #[test]
    fn what_stays_is_removed_by_a_command() {
        let streams = streams("text/plain");
        assert_eq!(streams.removal(), None, "there is nothing");
        [3, 8].iter().for_each(|stream| streams.made(*stream));
        let two = streams.removal().expect("two");
        let server = "--url http://127.0.0.1:7/v1/stream";
        assert_eq!(two, format!("`weir rm bench-run-00000003 bench-run-00000008 {server}`"));
        (0..9).for_each(|stream| streams.made(stream));
        let many = format!("`weir ls bench-run- {server} | xargs weir rm {server}`");
        assert_eq!(streams.removal().expect("many"), many);
    }

    #[test]
    fn a_server_is_named_as_a_shell_takes_it() {
        for (url, root, flags) in [
            ("https://example.org", None, "--url https://example.org/v1/stream"),
            ("http://h:1/a", None, "--url http://h:1/a"),
            ("http://h:1", Some("/"), "--url http://h:1 --root /"),
            ("http://[::1]:1/a;b'c", None, "--url 'http://[::1]:1/a;b%27c'"),
        ] {
            let target = Target::parse(url, root).expect("valid");
            assert_eq!(server_flags(&target), flags);
        }
    }

    #[test]
    fn zero_is_a_digit() {
        let mut digits = *b"xxxx";
        write_decimal(&mut digits, 0, b' ');
        assert_eq!(&digits, b"   0");
        write_decimal(&mut digits, 1_230, b' ');
        assert_eq!(&digits, b"1230");
    }
}
