//! `GET /v1/streams`: streams by name, in the peer's fields.

use hyper::StatusCode;
use serde_json::{Value, json};
use weir_engine::{
    request::ListRow,
    types::{Offset, Seq},
};

use super::{Answer, reply};
use crate::{
    App,
    wire::{date, error::Refusal, query},
};

pub(super) async fn answer(app: &App, query: Option<&str>) -> Answer {
    let list = query::parse_list(query)?;
    let rows = app.engine.list(list).await;
    let rows = rows.map_err(|error| Refusal::from_engine(error, app.config.offset_format))?;
    let rows: Vec<Value> = rows.iter().map(row).collect();
    Ok(reply::json(StatusCode::OK, Value::Array(rows).to_string()))
}

/// Counters that may exceed 2^53 are decimal strings; −1 stands for "none yet".
fn row(row: &ListRow) -> Value {
    let head = &row.head;
    let last_before = |offset: Offset| match offset.next {
        Seq::ZERO => "-1".to_owned(),
        next => (next.get() - 1).to_string(),
    };
    json!({
        "name": head.name.as_str(),
        "created_at": date::rfc3339(head.created),
        "expires_at": row.expires_at.map(date::rfc3339),
        "epoch": head.next.epoch.get(),
        "next_offset": head.next.next.to_string(),
        "sealed_through": last_before(row.sealed_through),
        "uploaded_through": last_before(row.uploaded_through),
        "profile": "generic",
    })
}
