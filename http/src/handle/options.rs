//! `OPTIONS`: what browsers ask before they send anything unusual.

use hyper::{
    Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, ALLOW,
    },
};

use super::{body::Body, reply};
use crate::wire::names;

/// The same for every path, so it tells nothing of what exists.
pub(super) fn answer() -> Response<Body> {
    let mut response = reply::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, names::ALLOWED_METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names::ALLOWED_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, names::A_DAY);
    headers.insert(ALLOW, names::ALLOWED_METHODS);
    response
}
