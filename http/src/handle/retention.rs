//! `…/_retention`: how much of its records a stream keeps, shown and changed. To look or to change
//! does not extend its life.

use hyper::{Response, StatusCode, body::Incoming};
use weir_engine::{request::Head, types::StreamName};

use super::{Answer, after_existence, body::Body, inbound, reply};
use crate::{
    App,
    wire::{error::Refusal, retention},
};

/// Most bytes of a change.
const BODY_BYTES_MAX: usize = 4096;

pub(super) async fn get(app: &App, name: &StreamName) -> Answer {
    let head = app.engine.head(name).await;
    let head = head.map_err(|error| Refusal::from_engine(error, app.config.offset_format))?;
    Ok(show(app, &head))
}

pub(super) async fn put(app: &App, incoming: Incoming, name: &StreamName) -> Answer {
    let read = inbound::read_up_to(app, incoming, BODY_BYTES_MAX).await?;
    let retention = match retention::from_json(&read.bytes) {
        Ok(retention) => retention,
        Err(refusal) => return Err(after_existence(app, name, refusal).await),
    };
    let head = app.engine.retain(name, retention).await;
    let head = head.map_err(|error| Refusal::from_engine(error, app.config.offset_format))?;
    Ok(show(app, &head))
}

fn show(app: &App, head: &Head) -> Response<Body> {
    let shown = retention::json(head.retention).to_string();
    let mut response = reply::json(StatusCode::OK, shown);
    reply::kept(app, response.headers_mut(), head);
    response
}
