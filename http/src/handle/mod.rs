//! From a request to its answer: who may ask, what for, and then one file a verb.

mod append;
mod body;
mod create;
mod delete;
mod events;
mod head;
mod health;
mod inbound;
pub(crate) mod inspect;
mod list;
mod long_poll;
mod metrics;
mod options;
mod read;
mod reply;
mod retention;
mod sse;
mod subscriptions;

use std::{net::IpAddr, sync::Arc};

use hyper::{
    Method, Request, Response, Version,
    body::Incoming,
    header::{AUTHORIZATION, HOST, ORIGIN, TRANSFER_ENCODING},
    http::{request::Parts, uri::Authority},
};
use tracing::Instrument as _;

pub(crate) use self::inspect::HighWater;
use self::{body::Body, reply::Kind};
use crate::{
    App,
    config::{Auth, Hosts},
    metrics::{Place, Verb},
    server::Ticket,
    wire::{
        error::Refusal,
        route::{self, Route},
    },
};

/// Longest path and query.
const URL_BYTES_MAX: usize = 16 << 10;

/// What a handler gives back.
type Answer = Result<Response<Body>, Refusal>;

/// Answers one request. The ticket lives until the answer's last byte.
pub(crate) async fn answer(
    app: &Arc<App>,
    request: Request<Incoming>,
    ticket: Ticket,
) -> Response<Body> {
    let began = app.world.clock.elapsed();
    let (parts, incoming) = request.into_parts();
    let id = app.next_request();
    let verb = verb(&parts.method);
    let route = route::parse(parts.uri.path());
    let place = place(&route);
    let version = parts.version;
    let span = tracing::debug_span!(
        "request",
        id,
        method = verb.as_str(),
        route = place.as_str(),
        stream = stream(&route),
    );
    let handled = async {
        admit(app, &parts, route.as_ref().ok())?;
        dispatch(app, &parts, ticket.peer(), incoming, route?).await
    };
    let handled = handled.instrument(span.clone()).await;
    let (kind, mut response) = match handled {
        Ok(response) => (Kind::of(&response), response),
        Err(refusal) => {
            span.in_scope(|| {
                tracing::debug!(status = refusal.status.as_u16(), message = %refusal.message,
                    "refused");
            });
            (Kind::Plain, reply::refused(refusal, version))
        }
    };
    let took = app.world.clock.elapsed().saturating_sub(began);
    let status = response.status().as_u16();
    app.metrics.answered(verb, place, status, (kind == Kind::Plain).then_some(took));
    reply::finish(app, &mut response);
    response.body_mut().keep(ticket);
    response
}

/// What must hold of every request, before anything is done for it.
fn admit(app: &App, parts: &Parts, route: Option<&Route>) -> Result<(), Refusal> {
    let authority = authority(parts)?;
    authenticate(app, parts, route)?;
    match authority {
        Some(authority) if !app.config.hosts.allow(&authority) => {
            return Err(Refusal::new(
                hyper::StatusCode::FORBIDDEN,
                "forbidden",
                "this server does not answer to that Host",
            ));
        }
        None if parts.version == Version::HTTP_11 => {
            return Err(Refusal::bad_request("missing Host"));
        }
        _ => {}
    }
    if !origin_is_welcome(app, parts) {
        return Err(Refusal::new(
            hyper::StatusCode::FORBIDDEN,
            "forbidden",
            "pages of that Origin may not use this server",
        ));
    }
    let url = parts.uri.path_and_query().map_or(0, |url| url.as_str().len());
    if url > URL_BYTES_MAX {
        return Err(Refusal::new(hyper::StatusCode::URI_TOO_LONG, "uri_too_long", "URL too long"));
    }
    let coding = parts.headers.get(TRANSFER_ENCODING).map(|it| it.as_bytes().trim_ascii());
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(Refusal::bad_request("unknown transfer coding").closing());
    }
    if app.is_draining() && parts.uri.path() != "/health" {
        return Err(Refusal::draining());
    }
    Ok(())
}

/// The host the client believes it talks to.
fn authority(parts: &Parts) -> Result<Option<Authority>, Refusal> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::bad_request("Host given more than once").closing());
    }
    match (parts.uri.authority(), host) {
        (Some(authority), _) => Ok(Some(authority.clone())),
        (None, None) => Ok(None),
        (None, Some(host)) => match Authority::try_from(host.as_bytes()) {
            Ok(authority) => Ok(Some(authority)),
            Err(_) => Err(Refusal::bad_request("invalid Host")),
        },
    }
}

/// An open server on loopback answers web pages of this machine only: any other page that a
/// browser here shows could read and write everything. A preflight tells nothing.
fn origin_is_welcome(app: &App, parts: &Parts) -> bool {
    let Some(origin) = parts.headers.get(ORIGIN) else { return true };
    if parts.method == Method::OPTIONS || matches!(app.config.hosts, Hosts::Any) {
        return true;
    }
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    authority
        .and_then(|(_, authority)| authority.parse::<Authority>().ok())
        .is_some_and(|authority| app.config.hosts.allow(&authority))
}

/// Probes need no key, nor do preflights: a browser cannot send one with them. Workers that
/// report have a token of their own in its place.
fn authenticate(app: &App, parts: &Parts, route: Option<&Route>) -> Result<(), Refusal> {
    let Auth::ApiKey(key) = &app.config.auth else { return Ok(()) };
    let preflight = parts.method == Method::OPTIONS
        && parts.headers.contains_key(hyper::header::ACCESS_CONTROL_REQUEST_METHOD);
    let open = match route {
        Some(Route::Health) => true,
        Some(Route::ControlPlane(control)) => subscriptions::is_for_workers(control, &parts.method),
        _ => false,
    };
    if preflight || open || bearer(parts).is_some_and(|offered| key.is(offered)) {
        return Ok(());
    }
    Err(Refusal::unauthorized())
}

/// The one bearer credential of a request.
fn bearer(parts: &Parts) -> Option<&[u8]> {
    let mut given = parts.headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (given.next()?, given.next());
    if second.is_some() { None } else { credential(first.as_bytes()) }
}

/// What follows `Bearer` and exactly one space.
fn credential(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(rest)
}

async fn dispatch(
    app: &Arc<App>,
    parts: &Parts,
    peer: IpAddr,
    incoming: Incoming,
    route: Route,
) -> Answer {
    let method = &parts.method;
    if method == Method::OPTIONS {
        return Ok(options::answer());
    }
    let read = method == Method::GET || method == Method::HEAD;
    match route {
        Route::Health if read => Ok(health::answer(app)),
        Route::Metrics if read => Ok(metrics::answer(app, &parts.headers)),
        Route::List if read => list::answer(app, parts.uri.query()).await,
        Route::Server if read => Ok(inspect::server(app)),
        Route::Memory if read => Ok(inspect::memory(app)),
        Route::Details(name) if read => {
            inspect::stream(app, parts, &name, inspect::Part::Details).await
        }
        Route::IndexStatus(name) if read => {
            inspect::stream(app, parts, &name, inspect::Part::IndexStatus).await
        }
        Route::Retention(name) if read => retention::get(app, &name).await,
        Route::Retention(name) if method == Method::PUT => {
            retention::put(app, incoming, &name).await
        }
        Route::Retention(_) => Err(Refusal::method_not_allowed("GET, PUT, HEAD, OPTIONS")),
        Route::Health
        | Route::Metrics
        | Route::List
        | Route::Server
        | Route::Memory
        | Route::Details(_)
        | Route::IndexStatus(_) => Err(Refusal::method_not_allowed("GET, HEAD, OPTIONS")),
        Route::Profile(name) => {
            inspect::resource(app, method, incoming, &name, inspect::Resource::Profile).await
        }
        Route::Schema(name) => {
            inspect::resource(app, method, incoming, &name, inspect::Resource::Schema).await
        }
        Route::Stream(name) => match *method {
            Method::GET => read::answer(app, parts, name, None).await,
            Method::POST => append::answer(app, parts, incoming, name).await,
            Method::PUT => create::answer(app, parts, peer, incoming, name).await,
            Method::HEAD => head::answer(app, &name).await,
            Method::DELETE => delete::answer(app, &parts.headers, &name).await,
            _ => Err(Refusal::method_not_allowed("GET, POST, PUT, DELETE, HEAD, OPTIONS")),
        },
        Route::Keyed(name, key) => match *method {
            Method::GET => read::answer(app, parts, name, Some(key)).await,
            Method::HEAD => head::answer(app, &name).await,
            _ => Err(Refusal::method_not_allowed("GET, HEAD, OPTIONS")),
        },
        Route::SubResource(suffix) => {
            Err(Refusal::not_found(format!("{suffix} of a stream is not available yet")))
        }
        Route::ControlPlane(control) => {
            subscriptions::answer(app, parts, peer, incoming, control).await
        }
        Route::Asterisk | Route::Unknown => Err(Refusal::not_found("not_found")),
    }
}

/// The existence of a stream is told before the request is criticised (protocol §19).
async fn after_existence(
    app: &App,
    name: &weir_engine::types::StreamName,
    refusal: Refusal,
) -> Refusal {
    match app.engine.head(name).await {
        Ok(_) => refusal,
        Err(error) => Refusal::from_engine(error, app.config.offset_format),
    }
}

fn verb(method: &Method) -> Verb {
    match *method {
        Method::GET => Verb::Get,
        Method::HEAD => Verb::Head,
        Method::PUT => Verb::Put,
        Method::POST => Verb::Post,
        Method::DELETE => Verb::Delete,
        Method::OPTIONS => Verb::Options,
        _ => Verb::Other,
    }
}

fn place(route: &Result<Route, Refusal>) -> Place {
    match route {
        Ok(Route::Health) => Place::Health,
        Ok(Route::Metrics) => Place::Metrics,
        Ok(Route::List) => Place::List,
        Ok(
            Route::Stream(_)
            | Route::Keyed(..)
            | Route::Details(_)
            | Route::IndexStatus(_)
            | Route::Profile(_)
            | Route::Schema(_)
            | Route::Retention(_)
            | Route::SubResource(_),
        ) => Place::Stream,
        Ok(Route::Server | Route::Memory) => Place::Server,
        Ok(Route::ControlPlane(_)) => Place::Control,
        Ok(Route::Asterisk | Route::Unknown) | Err(_) => Place::Other,
    }
}

fn stream(route: &Result<Route, Refusal>) -> &str {
    match route {
        Ok(
            Route::Stream(name)
            | Route::Keyed(name, _)
            | Route::Details(name)
            | Route::IndexStatus(name)
            | Route::Profile(name)
            | Route::Schema(name)
            | Route::Retention(name),
        ) => name.as_str(),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::credential;

    #[test]
    fn a_credential_follows_one_space() {
        for (value, expect) in [
            ("Bearer key", Some("key")),
            ("bEaReR key", Some("key")),
            ("Bearer  key", Some(" key")),
            ("Bearer ", Some("")),
            ("Bearer", None),
            ("Basic key", None),
            ("", None),
        ] {
            assert_eq!(credential(value.as_bytes()), expect.map(str::as_bytes), "{value}");
        }
    }
}
