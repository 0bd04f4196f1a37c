//! `HEAD`: what is known of a stream without reading it. Does not extend its life.

use hyper::{StatusCode, header::CACHE_CONTROL};
use weir_engine::types::{Expiry, StreamName};

use super::{Answer, reply};
use crate::{
    App,
    wire::{error::Refusal, names},
};

pub(super) async fn answer(app: &App, name: &StreamName) -> Answer {
    let head = app.engine.head(name).await;
    let head = head.map_err(|error| Refusal::from_engine(error, app.config.offset_format))?;
    let mut response = reply::empty(StatusCode::OK);
    let headers = response.headers_mut();
    reply::content_type(headers, &head.content);
    reply::next_offset(app, headers, head.next);
    reply::end_offset(app, headers, head.next);
    reply::closed(headers, head.closed);
    reply::kept(app, headers, &head);
    reply::expires_at(headers, head.expiry);
    if let Expiry::Sliding { ttl_seconds } = head.expiry {
        headers.insert(names::STREAM_TTL, ttl_seconds.into());
    }
    headers.insert(CACHE_CONTROL, names::NO_STORE);
    Ok(response)
}
