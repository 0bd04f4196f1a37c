//! `DELETE`: the stream and its name.

use hyper::{StatusCode, header::HeaderMap};
use weir_engine::types::StreamName;

use super::{Answer, after_existence, reply};
use crate::{
    App,
    wire::{error::Refusal, request},
};

pub(super) async fn answer(app: &App, headers: &HeaderMap, name: &StreamName) -> Answer {
    let expected = match request::expected_offset(headers) {
        Ok(expected) => expected,
        Err(refusal) => return Err(after_existence(app, name, refusal).await),
    };
    let deleted = app.engine.delete_at(name, expected).await;
    deleted.map_err(|error| Refusal::from_engine(error, app.config.offset_format))?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
