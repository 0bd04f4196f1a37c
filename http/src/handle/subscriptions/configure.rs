//! Making, showing and ending subscriptions, and their links by name.

use std::net::IpAddr;

use hyper::{Response, StatusCode, body::Incoming, http::request::Parts};
use weir_engine::{
    request::Error,
    subscribe::{Delivery, Refused, Standing, Subscribe, SubscriptionId, SubscriptionView},
    types::StreamName,
};

use super::read;
use crate::{
    App,
    handle::{Answer, body::Body, reply},
    wire::{
        base,
        error::Refusal,
        subscription::{Surroundings, body, view_json},
    },
};

pub(super) async fn put(
    app: &App,
    parts: &Parts,
    peer: IpAddr,
    incoming: Incoming,
    id: SubscriptionId,
) -> Answer {
    let bytes = read(app, incoming).await?;
    let mut subscribe = body::subscribe(id, &bytes)?;
    check_url(app, &subscribe)?;
    subscribe.base = base_to_keep(app, parts, peer, &subscribe.delivery);
    let subscribed = app.engine.subscriptions().put(subscribe).await;
    let subscribed = subscribed.map_err(|error| refusal(app, error))?;
    let status = if subscribed.new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(show(app, parts, peer, status, &subscribed.subscription))
}

/// Judges the URL of a subscription that is new. One that exists says first whether this is its
/// configuration; if it is, the URL was judged when it was made, and is at every delivery.
fn check_url(app: &App, subscribe: &Subscribe) -> Result<(), Refusal> {
    let Delivery::Webhook { url } = &subscribe.delivery else { return Ok(()) };
    match app.engine.subscriptions().compare(subscribe) {
        Standing::Same => Ok(()),
        Standing::Taken => Err(Refusal::from_subscription(Refused::Exists)),
        Standing::Free => match app.webhooks.check_url(url) {
            Ok(()) => Ok(()),
            Err(rejected) => Err(Refusal::webhook_url(rejected.reason)),
        },
    }
}

/// Where the receiver of its webhooks is to report, unless the operator says it: a receiver may
/// not reach the address that the server listens at. Workers that claim need no such thing.
fn base_to_keep(app: &App, parts: &Parts, peer: IpAddr, delivery: &Delivery) -> Option<String> {
    let Delivery::Webhook { .. } = delivery else { return None };
    let base = base::of(&app.config, parts, peer);
    (base.len() <= Subscribe::BASE_BYTES_MAX).then(|| base.into_owned())
}

pub(super) async fn get(app: &App, parts: &Parts, peer: IpAddr, id: &SubscriptionId) -> Answer {
    let view = app.engine.subscriptions().get(id).await;
    let view = view.map_err(|error| refusal(app, error))?;
    Ok(show(app, parts, peer, StatusCode::OK, &view))
}

/// One that is not there is as good as one that was just deleted.
pub(super) async fn delete(app: &App, id: &SubscriptionId) -> Answer {
    done(app, app.engine.subscriptions().delete(id).await)
}

pub(super) async fn add(app: &App, incoming: Incoming, id: &SubscriptionId) -> Answer {
    let bytes = read(app, incoming).await?;
    let streams = body::streams(&bytes)?;
    done(app, app.engine.subscriptions().add(id, streams).await)
}

pub(super) async fn remove(app: &App, id: &SubscriptionId, stream: &StreamName) -> Answer {
    done(app, app.engine.subscriptions().remove(id, stream).await)
}

fn show(
    app: &App,
    parts: &Parts,
    peer: IpAddr,
    status: StatusCode,
    view: &SubscriptionView,
) -> Response<Body> {
    let base = base::of(&app.config, parts, peer);
    let kid = app.webhooks.keys.active_kid();
    let format = app.config.offset_format;
    let view = view_json(view, Surroundings { base: &base, kid: &kid, format });
    reply::json(status, view.to_string())
}

fn done(app: &App, result: Result<(), Error>) -> Answer {
    match result {
        Ok(()) => Ok(reply::empty(StatusCode::NO_CONTENT)),
        Err(error) => Err(refusal(app, error)),
    }
}

fn refusal(app: &App, error: Error) -> Refusal {
    Refusal::from_engine(error, app.config.offset_format)
}
