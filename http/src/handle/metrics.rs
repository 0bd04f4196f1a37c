//! `GET /metrics`: the exposition text or, to a client that wants JSON, the peer's summary.

use hyper::{
    Response, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, VARY},
};

use super::{body::Body, reply};
use crate::{App, wire::names};

pub(super) fn answer(app: &App, headers: &HeaderMap) -> Response<Body> {
    // Brings the gauges up to date that are counted elsewhere.
    let _ = app.engine.metrics();
    let text = app.metrics.text();
    let accept = headers.get(ACCEPT).map_or(&b""[..], |accept| accept.as_bytes());
    let mut response = if memchr::memmem::find(accept, b"application/json").is_some() {
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        let uptime_ms = app.uptime().as_millis();
        let body = format!(r#"{{"uptime_ms":{uptime_ms},"series":{series}}}"#);
        reply::json(StatusCode::OK, body)
    } else {
        let mut response = reply::with_body(StatusCode::OK, Body::whole(text.into()));
        response.headers_mut().insert(CONTENT_TYPE, names::OPEN_METRICS);
        response.headers_mut().insert(CACHE_CONTROL, names::NO_STORE);
        response
    };
    response.headers_mut().insert(VARY, hyper::header::HeaderValue::from_static("accept"));
    response
}
