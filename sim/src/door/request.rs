//! Engine requests as HTTP requests, spelled as a careful client would.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, header::HeaderMap};
use weir_engine::{
    request::{Append, Create, From, Read},
    types::{Closing, Expiry, Offset, OffsetFormat, StreamName, WallMs},
};

use super::retention;

/// What goes over the wire.
pub type Outgoing = Request<Full<Bytes>>;

/// The path of a stream.
#[must_use]
pub fn path(name: &StreamName) -> String {
    let mut path = String::from("/v1/stream/");
    for byte in name.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// A request with a body.
///
/// # Panics
/// A header is not one: the simulator made it.
#[must_use]
pub fn build(method: Method, path: &str, headers: HeaderMap, body: Bytes) -> Outgoing {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("the simulator makes good paths");
    *request.headers_mut() = headers;
    request.headers_mut().insert("host", "server".parse().expect("a host"));
    request
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    headers.insert(name, value.parse().expect("the simulator makes good headers"));
}

fn put_bytes(headers: &mut HeaderMap, name: &'static str, value: &[u8]) {
    let value = hyper::header::HeaderValue::from_bytes(value);
    headers.insert(name, value.expect("the simulator makes good headers"));
}

fn mint(offset: Offset) -> String {
    offset.mint(OffsetFormat::Reference)
}

/// `PUT`.
#[must_use]
pub fn create(create: &Create) -> Outgoing {
    let mut headers = HeaderMap::new();
    if let Some(content) = &create.content {
        put(&mut headers, "content-type", content.as_str());
    }
    match create.expiry {
        None | Some(Expiry::Never) => {}
        Some(Expiry::Sliding { ttl_seconds }) => {
            put(&mut headers, "stream-ttl", &ttl_seconds.to_string());
        }
        Some(Expiry::At(at)) => put(&mut headers, "stream-expires-at", &rfc3339(at)),
    }
    if create.closing == Closing::Close {
        put(&mut headers, "stream-closed", "true");
    }
    if let Some(limits) = retention::header(create.retention) {
        headers.insert("stream-retention", limits);
    }
    if let Some(key) = &create.key {
        put_bytes(&mut headers, "stream-key", key);
    }
    if let Some(fork) = &create.fork {
        put(&mut headers, "stream-forked-from", &path(&fork.source));
        if let Some(at) = fork.at {
            put(&mut headers, "stream-fork-offset", &mint(at));
        }
        if fork.sub_offset > 0 {
            put(&mut headers, "stream-fork-sub-offset", &fork.sub_offset.to_string());
        }
    }
    build(Method::PUT, &path(&create.name), headers, create.body.clone())
}

/// `POST`.
#[must_use]
pub fn append(append: &Append) -> Outgoing {
    let mut headers = HeaderMap::new();
    if let Some(content) = &append.content {
        put(&mut headers, "content-type", content.as_str());
    }
    if append.closing == Closing::Close {
        put(&mut headers, "stream-closed", "true");
    }
    if let Some(producer) = &append.producer {
        put(&mut headers, "producer-id", producer.id.as_str());
        put(&mut headers, "producer-epoch", &producer.epoch.to_string());
        put(&mut headers, "producer-seq", &producer.seq.to_string());
    }
    if let Some(seq) = &append.stream_seq {
        put_bytes(&mut headers, "stream-seq", seq);
    }
    if let Some(expected) = append.expected {
        put(&mut headers, "stream-expected-offset", &mint(expected));
    }
    if let Some(key) = &append.key {
        put_bytes(&mut headers, "stream-key", key);
    }
    if let Some(timestamp) = append.timestamp {
        put(&mut headers, "stream-timestamp", &rfc3339(timestamp));
    }
    build(Method::POST, &path(&append.name), headers, append.body.clone())
}

/// `DELETE`.
#[must_use]
pub fn delete(name: &StreamName, expected: Option<Offset>) -> Outgoing {
    let mut headers = HeaderMap::new();
    if let Some(expected) = expected {
        put(&mut headers, "stream-expected-offset", &mint(expected));
    }
    build(Method::DELETE, &path(name), headers, Bytes::new())
}

/// `GET`, with more of a query behind the position.
#[must_use]
pub fn read(read: &Read, live: &str) -> Outgoing {
    let position = match read.from {
        From::Start => "offset=-1".to_owned(),
        From::Now => "offset=now".to_owned(),
        From::At(offset) => format!("offset={}", mint(offset)),
        From::Since(since) => format!("since={}", since.get() * 1_000_000),
    };
    let key = read.key.as_ref().map(|key| format!("&key={}", String::from_utf8_lossy(key)));
    let path = format!("{}?{position}{}{live}", path(&read.name), key.unwrap_or_default());
    build(Method::GET, &path, HeaderMap::new(), Bytes::new())
}

/// A wall time as RFC 3339 with milliseconds.
fn rfc3339(at: WallMs) -> String {
    let ms = i64::try_from(at.get()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |it| it.to_string())
}
