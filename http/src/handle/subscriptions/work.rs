//! Taking work, reporting on it and giving it back.
//!
//! A report carries the token that came with the work, and that is checked before anything
//! else: without it nothing is told of the subscription, nor is the body read.

use hyper::{StatusCode, body::Incoming, http::request::Parts};
use weir_engine::{
    request::Error,
    subscribe::{Credential, SubscriptionId, Via},
};

use super::read;
use crate::{
    App,
    handle::{Answer, bearer, reply},
    webhook::token::BadToken,
    wire::{
        error::Refusal,
        subscription::{
            body::{self, About},
            claim_json,
        },
    },
};

/// A webhook worker's callback and a pull-wake worker's ack are the same but for the way.
pub(super) async fn report(
    app: &App,
    parts: &Parts,
    incoming: Incoming,
    id: &SubscriptionId,
    via: Via,
) -> Answer {
    let credential = credential(app, parts, id)?;
    let bytes = read(app, incoming).await?;
    let report = body::report(&bytes, credential)?;
    let reported = app.engine.subscriptions().report(id, via, report).await;
    let reported = reported.map_err(|error| refusal(app, error))?;
    let body = if reported.next_wake { OK_AND_MORE } else { OK };
    Ok(reply::json(StatusCode::OK, body))
}

const OK: &str = r#"{"ok":true,"next_wake":false}"#;
const OK_AND_MORE: &str = r#"{"ok":true,"next_wake":true}"#;

pub(super) async fn claim(app: &App, incoming: Incoming, id: &SubscriptionId) -> Answer {
    let bytes = read(app, incoming).await?;
    let worker = body::worker(&bytes)?;
    let wake = app.engine.subscriptions().claim(id, &worker).await;
    let wake = wake.map_err(|error| refusal(app, error))?;
    let credential = Credential { incarnation: wake.incarnation, generation: wake.generation };
    let token = app.webhooks.tokens.issue(id, credential);
    let claimed = claim_json(&wake, &token, app.config.offset_format);
    Ok(reply::json(StatusCode::OK, claimed.to_string()))
}

pub(super) async fn release(
    app: &App,
    parts: &Parts,
    incoming: Incoming,
    id: &SubscriptionId,
) -> Answer {
    let credential = credential(app, parts, id)?;
    let bytes = read(app, incoming).await?;
    let About { wake_id, generation } = body::about(&bytes)?;
    let released = app.engine.subscriptions().release(id, credential, wake_id, generation).await;
    released.map_err(|error| refusal(app, error))?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// What the bearer token says, if it is one of this subscription's.
fn credential(app: &App, parts: &Parts, id: &SubscriptionId) -> Result<Credential, Refusal> {
    let token = bearer(parts).and_then(|token| std::str::from_utf8(token).ok());
    match token.map(|token| app.webhooks.tokens.check(id, token)) {
        Some(Ok(credential)) => Ok(credential),
        Some(Err(BadToken::Expired)) => Err(Refusal::token_expired()),
        Some(Err(BadToken::Invalid)) | None => Err(Refusal::token_invalid()),
    }
}

fn refusal(app: &App, error: Error) -> Refusal {
    Refusal::from_engine(error, app.config.offset_format)
}
