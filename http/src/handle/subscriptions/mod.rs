//! The control plane: subscriptions, the work they hand out, and the keys that webhooks are
//! signed with (protocol §17.1).

mod configure;
mod keys;
mod work;

use std::net::IpAddr;

use bytes::Bytes;
use hyper::{Method, body::Incoming, http::request::Parts};
use weir_engine::subscribe::Via;

use super::{Answer, inbound};
use crate::{
    App,
    wire::{error::Refusal, route::Control, subscription::body::BODY_BYTES_MAX},
};

pub(super) async fn answer(
    app: &App,
    parts: &Parts,
    peer: IpAddr,
    incoming: Incoming,
    control: Control,
) -> Answer {
    let method = &parts.method;
    let read = method == Method::GET || method == Method::HEAD;
    let post = method == Method::POST;
    let delete = method == Method::DELETE;
    match control {
        Control::Keys if read => Ok(keys::answer(app)),
        Control::Keys => Err(Refusal::method_not_allowed("GET, HEAD, OPTIONS")),
        Control::Subscription(id) if method == Method::PUT => {
            configure::put(app, parts, peer, incoming, id).await
        }
        Control::Subscription(id) if read => configure::get(app, parts, peer, &id).await,
        Control::Subscription(id) if delete => configure::delete(app, &id).await,
        Control::Subscription(_) => {
            Err(Refusal::method_not_allowed("PUT, GET, HEAD, DELETE, OPTIONS"))
        }
        Control::Streams(id) if post => configure::add(app, incoming, &id).await,
        Control::Linked(id, stream) if delete => configure::remove(app, &id, &stream).await,
        Control::Linked(..) => Err(Refusal::method_not_allowed("DELETE, OPTIONS")),
        Control::Callback(id) if post => {
            work::report(app, parts, incoming, &id, Via::Callback).await
        }
        Control::Ack(id) if post => work::report(app, parts, incoming, &id, Via::Pull).await,
        Control::Claim(id) if post => work::claim(app, incoming, &id).await,
        Control::Release(id) if post => work::release(app, parts, incoming, &id).await,
        Control::Streams(_)
        | Control::Callback(_)
        | Control::Ack(_)
        | Control::Claim(_)
        | Control::Release(_) => Err(Refusal::method_not_allowed("POST, OPTIONS")),
        Control::Unknown => Err(Refusal::no_subscription()),
    }
}

/// Whether a request needs no API key: workers have a token of their own for what they report,
/// which the handler checks, and whoever gets a webhook may see how it is signed.
pub(super) fn is_for_workers(control: &Control, method: &Method) -> bool {
    match control {
        Control::Keys => method == Method::GET || method == Method::HEAD,
        Control::Callback(_) | Control::Ack(_) | Control::Release(_) => method == Method::POST,
        Control::Subscription(_)
        | Control::Streams(_)
        | Control::Linked(..)
        | Control::Claim(_)
        | Control::Unknown => false,
    }
}

/// A body of the control plane, which is small. It is parsed at once, so it is not kept.
async fn read(app: &App, incoming: Incoming) -> Result<Bytes, Refusal> {
    Ok(inbound::read_up_to(app, incoming, BODY_BYTES_MAX).await?.bytes.clone())
}
