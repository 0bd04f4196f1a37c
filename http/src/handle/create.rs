//! `PUT`: a stream, with its first records if the body has any.

use bytes::{Bytes, BytesMut};
use hyper::{
    StatusCode,
    body::Incoming,
    header::{HOST, HeaderValue, LOCATION},
    http::request::Parts,
};
use weir_engine::{
    request::{Create, CreateOutcome, Created},
    types::StreamName,
};

use super::{Answer, inbound, reply};
use crate::{
    App,
    wire::{error::Refusal, names, request},
};

pub(super) async fn answer(
    app: &App,
    parts: &Parts,
    incoming: Incoming,
    name: StreamName,
) -> Answer {
    let headers = &parts.headers;
    if request::asks_for_fork(headers) {
        return Err(Refusal::bad_request("forks are not available yet"));
    }
    let content = request::content_type(headers)?;
    let expiry = Some(request::expiry(headers)?);
    let key = request::key(headers)?;
    let closing = request::closing(headers);
    let inbound = inbound::read(app, incoming).await?;
    let body = inbound.bytes.clone();
    let create = Create { name, content, expiry, fork: None, closing, body, key };
    let created = app.engine.create(create).await;
    let created = created.map_err(|error| Refusal::from_engine(error, app.config.offset_format))?;
    Ok(describe(app, parts, &created))
}

fn describe(app: &App, parts: &Parts, created: &Created) -> hyper::Response<super::body::Body> {
    let new = created.outcome == CreateOutcome::New;
    let mut response = reply::empty(if new { StatusCode::CREATED } else { StatusCode::OK });
    let headers = response.headers_mut();
    if new {
        headers.insert(LOCATION, location(app, parts));
    }
    let head = &created.head;
    reply::content_type(headers, &head.content);
    reply::next_offset(app, headers, head.next);
    reply::closed(headers, head.closed);
    reply::expires_at(headers, head.expiry);
    headers.insert(names::STREAM_DURABILITY, names::LOCAL);
    response
}

/// The absolute URL of the request: as the operator says clients see it, or as this one did.
fn location(app: &App, parts: &Parts) -> HeaderValue {
    let mut url = BytesMut::with_capacity(128);
    if let Some(public) = &app.config.public_url {
        url.extend_from_slice(public.as_str().as_bytes());
    } else {
        url.extend_from_slice(b"http://");
        match (parts.uri.authority(), parts.headers.get(HOST)) {
            (Some(authority), _) => url.extend_from_slice(authority.as_str().as_bytes()),
            (None, Some(host)) => url.extend_from_slice(host.as_bytes()),
            // Only HTTP/1.0 may leave it out.
            (None, None) => url.extend_from_slice(b"localhost"),
        }
    }
    url.extend_from_slice(parts.uri.path().as_bytes());
    let url: Bytes = url.freeze();
    HeaderValue::from_maybe_shared(url).expect("a path and an authority are header text")
}
