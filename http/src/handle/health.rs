//! `GET /health`: whether the store serves.

use hyper::{Response, StatusCode, header::RETRY_AFTER};
use weir_engine::Health;

use super::{body::Body, reply};
use crate::{App, wire::names};

pub(super) fn answer(app: &App) -> Response<Body> {
    let health = if app.is_draining() { Health::Draining } else { app.engine.health() };
    match health {
        Health::Serving => reply::json(StatusCode::OK, r#"{"ok":true}"#),
        Health::DiskFull => reply::json(StatusCode::OK, r#"{"ok":true,"writes":"disk-full"}"#),
        Health::LogFailed { reason } => {
            let body = serde_json::json!({ "ok": false, "reason": reason });
            reply::json(StatusCode::SERVICE_UNAVAILABLE, body.to_string())
        }
        Health::Draining => {
            let body = r#"{"ok":false,"reason":"server shutting down"}"#;
            let mut response = reply::json(StatusCode::SERVICE_UNAVAILABLE, body);
            response.headers_mut().insert(RETRY_AFTER, names::FIVE_SECONDS);
            response
        }
    }
}
