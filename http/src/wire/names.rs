//! Header names and constant values, declared once so that no request builds them.

use hyper::header::{HeaderName, HeaderValue};

pub(crate) const STREAM_NEXT_OFFSET: HeaderName = HeaderName::from_static("stream-next-offset");
pub(crate) const STREAM_END_OFFSET: HeaderName = HeaderName::from_static("stream-end-offset");
pub(crate) const STREAM_UP_TO_DATE: HeaderName = HeaderName::from_static("stream-up-to-date");
pub(crate) const STREAM_CLOSED: HeaderName = HeaderName::from_static("stream-closed");
pub(crate) const STREAM_CURSOR: HeaderName = HeaderName::from_static("stream-cursor");
pub(crate) const STREAM_TTL: HeaderName = HeaderName::from_static("stream-ttl");
pub(crate) const STREAM_EXPIRES_AT: HeaderName = HeaderName::from_static("stream-expires-at");
pub(crate) const STREAM_RETENTION: HeaderName = HeaderName::from_static("stream-retention");
pub(crate) const STREAM_EARLIEST_OFFSET: HeaderName =
    HeaderName::from_static("stream-earliest-offset");
pub(crate) const STREAM_SEQ: HeaderName = HeaderName::from_static("stream-seq");
pub(crate) const STREAM_KEY: HeaderName = HeaderName::from_static("stream-key");
pub(crate) const STREAM_TIMESTAMP: HeaderName = HeaderName::from_static("stream-timestamp");
pub(crate) const STREAM_EXPECTED_OFFSET: HeaderName =
    HeaderName::from_static("stream-expected-offset");
pub(crate) const STREAM_EXPECTED_SEQ: HeaderName = HeaderName::from_static("stream-expected-seq");
pub(crate) const STREAM_RECEIVED_SEQ: HeaderName = HeaderName::from_static("stream-received-seq");
pub(crate) const STREAM_DURABILITY: HeaderName = HeaderName::from_static("stream-durability");
pub(crate) const STREAM_SSE_DATA_ENCODING: HeaderName =
    HeaderName::from_static("stream-sse-data-encoding");
pub(crate) const STREAM_FORKED_FROM: HeaderName = HeaderName::from_static("stream-forked-from");
pub(crate) const STREAM_FORK_OFFSET: HeaderName = HeaderName::from_static("stream-fork-offset");
pub(crate) const STREAM_FORK_SUB_OFFSET: HeaderName =
    HeaderName::from_static("stream-fork-sub-offset");
pub(crate) const PRODUCER_ID: HeaderName = HeaderName::from_static("producer-id");
pub(crate) const PRODUCER_EPOCH: HeaderName = HeaderName::from_static("producer-epoch");
pub(crate) const PRODUCER_SEQ: HeaderName = HeaderName::from_static("producer-seq");
pub(crate) const PRODUCER_EXPECTED_SEQ: HeaderName =
    HeaderName::from_static("producer-expected-seq");
pub(crate) const PRODUCER_RECEIVED_SEQ: HeaderName =
    HeaderName::from_static("producer-received-seq");
pub(crate) const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(crate) const TRUE: HeaderValue = HeaderValue::from_static("true");
pub(crate) const NO: HeaderValue = HeaderValue::from_static("no");
pub(crate) const STAR: HeaderValue = HeaderValue::from_static("*");
pub(crate) const CLOSE: HeaderValue = HeaderValue::from_static("close");
pub(crate) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
pub(crate) const CROSS_ORIGIN: HeaderValue = HeaderValue::from_static("cross-origin");
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
pub(crate) const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
pub(crate) const BASE64: HeaderValue = HeaderValue::from_static("base64");
pub(crate) const LOCAL: HeaderValue = HeaderValue::from_static("local");
pub(crate) const BEARER: HeaderValue = HeaderValue::from_static("Bearer");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
pub(crate) const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");
pub(crate) const PUBLIC_5_MINUTES: HeaderValue = HeaderValue::from_static("public, max-age=300");
pub(crate) const PRIVATE_5_MINUTES: HeaderValue = HeaderValue::from_static("private, max-age=300");
pub(crate) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
pub(crate) const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// What a browser may read of an answer.
pub(crate) const EXPOSED: HeaderValue = HeaderValue::from_static(
    "stream-next-offset, stream-end-offset, stream-cursor, stream-up-to-date, stream-closed, \
     stream-ttl, stream-expires-at, stream-retention, stream-earliest-offset, \
     stream-sse-data-encoding, stream-durability, stream-expected-seq, stream-received-seq, producer-epoch, producer-seq, \
     producer-expected-seq, producer-received-seq, etag, location, content-type, \
     content-encoding, vary, retry-after",
);
/// What a browser may send. Named one by one: `*` would not cover `authorization`.
pub(crate) const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "content-type, authorization, if-none-match, accept, last-event-id, stream-seq, stream-ttl, \
     stream-expires-at, stream-retention, stream-closed, stream-expected-offset, stream-key, stream-timestamp, \
     stream-forked-from, stream-fork-offset, stream-fork-sub-offset, producer-id, \
     producer-epoch, producer-seq",
);
pub(crate) const ALLOWED_METHODS: HeaderValue =
    HeaderValue::from_static("GET, POST, PUT, DELETE, HEAD, OPTIONS");
pub(crate) const A_DAY: HeaderValue = HeaderValue::from_static("86400");
pub(crate) const ONE_SECOND: HeaderValue = HeaderValue::from_static("1");
pub(crate) const FIVE_SECONDS: HeaderValue = HeaderValue::from_static("5");
