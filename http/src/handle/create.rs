//! `PUT`: a stream, with its first records if the body has any; all of it new, or sharing the
//! beginning of another stream.

use std::net::IpAddr;

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    body::Incoming,
    header::{HeaderValue, LOCATION},
    http::request::Parts,
};
use weir_engine::{
    request::{Create, CreateOutcome, Created},
    types::StreamName,
};

use super::{Answer, body::Body, inbound, reply};
use crate::{
    App,
    wire::{base, error::Refusal, names, request},
};

pub(super) async fn answer(
    app: &App,
    parts: &Parts,
    peer: IpAddr,
    incoming: Incoming,
    name: StreamName,
) -> Answer {
    let headers = &parts.headers;
    let content = request::content_type(headers)?;
    let expiry = request::expiry(headers)?;
    let retention = request::retention(headers)?;
    let fork = request::fork(headers)?;
    let key = request::key(headers)?;
    let closing = request::closing(headers);
    let inbound = inbound::read(app, incoming).await?;
    let body = inbound.bytes.clone();
    let create = Create { name, content, expiry, fork, retention, closing, body, key };
    let created = app.engine.create(create).await;
    let created = created.map_err(|error| Refusal::from_engine(error, app.config.offset_format))?;
    Ok(describe(app, parts, peer, &created))
}

fn describe(app: &App, parts: &Parts, peer: IpAddr, created: &Created) -> Response<Body> {
    let new = created.outcome == CreateOutcome::New;
    let mut response = reply::empty(if new { StatusCode::CREATED } else { StatusCode::OK });
    let headers = response.headers_mut();
    if new {
        headers.insert(LOCATION, location(app, parts, peer));
    }
    let head = &created.head;
    reply::content_type(headers, &head.content);
    reply::next_offset(app, headers, head.next);
    reply::closed(headers, head.closed);
    reply::expires_at(headers, head.expiry);
    headers.insert(names::STREAM_DURABILITY, names::LOCAL);
    response
}

/// The absolute URL of the request, as the client sees it.
fn location(app: &App, parts: &Parts, peer: IpAddr) -> HeaderValue {
    let mut url = base::of(&app.config, parts, peer).into_owned();
    url.push_str(parts.uri.path());
    let url = HeaderValue::from_maybe_shared(Bytes::from(url));
    url.expect("a path and an authority are header text")
}
