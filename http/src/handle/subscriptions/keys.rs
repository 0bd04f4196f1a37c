//! `GET /__ds/jwks.json`: the public keys of webhook signatures (protocol §17.4).

use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};

use crate::{
    App,
    config::Auth,
    handle::{body::Body, reply},
    wire::names,
};

pub(super) fn answer(app: &App) -> Response<Body> {
    let mut response = reply::json(StatusCode::OK, app.webhooks.keys.jwks_json());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, names::JWK_SET);
    // The keys are no secret, but with auth on nothing of this server is for shared caches.
    let cached = match app.config.auth {
        Auth::Open => names::PUBLIC_5_MINUTES,
        Auth::ApiKey(_) => names::PRIVATE_5_MINUTES,
    };
    headers.insert(CACHE_CONTROL, cached);
    response
}
