//! `DELETE`: the stream and its name.

use hyper::StatusCode;
use weir_engine::types::StreamName;

use super::{Answer, reply};
use crate::{App, wire::error::Refusal};

pub(super) async fn answer(app: &App, name: &StreamName) -> Answer {
    let deleted = app.engine.delete(name).await;
    deleted.map_err(|error| Refusal::from_engine(error, app.config.offset_format))?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
