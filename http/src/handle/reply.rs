//! Parts that answers are made of.

use bytes::Bytes;
use hyper::{
    Response, StatusCode, Version,
    header::{
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONNECTION,
        CONTENT_TYPE, DATE, HeaderMap, HeaderValue, X_CONTENT_TYPE_OPTIONS,
    },
};
use weir_engine::{
    request::Head,
    types::{ContentType, Expiry, Offset},
};

use super::body::Body;
use crate::{
    App,
    wire::{
        date,
        error::{Connection, Refusal, offset_value},
        names, retention,
    },
};

/// Whether the time an answer took says something of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// Waiting was what the request was for.
    Live,
}

impl Kind {
    pub(super) fn of(response: &Response<Body>) -> Self {
        let live = response.body().is_events()
            || response.headers().contains_key(names::STREAM_CURSOR)
            || response.extensions().get::<Waited>().is_some();
        if live { Self::Live } else { Self::Plain }
    }
}

/// Marks the answer of a long-poll that carries no cursor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited;

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    with_body(status, Body::empty())
}

pub(super) fn with_body(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    // One allocation for all that follow.
    response.headers_mut().reserve(20);
    response
}

/// A JSON document of this server's own.
pub(super) fn json(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = with_body(status, Body::whole(text.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, names::JSON);
    headers.insert(CACHE_CONTROL, names::NO_STORE);
    response
}

/// The answer of a refusal.
pub(super) fn refused(refusal: Refusal, version: Version) -> Response<Body> {
    let mut response = json(refusal.status, refusal.body());
    let headers = response.headers_mut();
    // HTTP/2 has no such header: there a stream ends by itself.
    if refusal.connection == Connection::Close && version <= Version::HTTP_11 {
        headers.insert(CONNECTION, names::CLOSE);
    }
    for (name, value) in refusal.headers {
        headers.insert(name, value);
    }
    response
}

/// What every answer carries.
pub(super) fn finish(app: &App, response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, names::NOSNIFF);
    headers.insert(names::CROSS_ORIGIN_RESOURCE_POLICY, names::CROSS_ORIGIN);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, names::STAR);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names::EXPOSED);
    headers.insert(DATE, app.date());
}

pub(super) fn next_offset(app: &App, headers: &mut HeaderMap, offset: Offset) {
    headers.insert(names::STREAM_NEXT_OFFSET, offset_value(offset, app.config.offset_format));
}

pub(super) fn end_offset(app: &App, headers: &mut HeaderMap, offset: Offset) {
    headers.insert(names::STREAM_END_OFFSET, offset_value(offset, app.config.offset_format));
}

pub(super) fn closed(headers: &mut HeaderMap, closed: bool) {
    if closed {
        headers.insert(names::STREAM_CLOSED, names::TRUE);
    }
}

pub(super) fn content_type(headers: &mut HeaderMap, content: &ContentType) {
    let value = HeaderValue::from_str(content.as_str()).expect("checked when it was parsed");
    headers.insert(CONTENT_TYPE, value);
}

/// What the stream keeps, and where that begins.
pub(super) fn kept(app: &App, headers: &mut HeaderMap, head: &Head) {
    if let Some(value) = retention::header(head.retention) {
        headers.insert(names::STREAM_RETENTION, value);
    }
    let earliest = offset_value(head.earliest, app.config.offset_format);
    headers.insert(names::STREAM_EARLIEST_OFFSET, earliest);
}

/// The instant at which the stream ends, if it has one.
pub(super) fn expires_at(headers: &mut HeaderMap, expiry: Expiry) {
    if let Expiry::At(at) = expiry {
        let value = HeaderValue::from_maybe_shared(Bytes::from(date::rfc3339(at)));
        headers.insert(names::STREAM_EXPIRES_AT, value.expect("a date is visible ASCII"));
    }
}
