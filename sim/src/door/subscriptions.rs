//! Subscriptions over HTTP: what is asked of them, what the answers say, and the tokens that come
//! with work and go back with reports.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, sync::Arc};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use hyper::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use weir_engine::{
    request::Error,
    subscribe::{
        Credential, Delivery, Link, LinkType, Links, Pattern, Refused, Report, Reported, Subscribe,
        Subscribed, SubscriptionId, SubscriptionView, Via, Wake, WakeId,
    },
    types::{Offset, OffsetFormat, StreamName, WallMs},
};

use super::{
    answer::{self, Reply},
    outside::Outside,
    request::{self, Outgoing},
};

/// Tokens that are kept: more than wakes that anybody remembers.
const TOKENS_MAX: usize = 1024;

/// Tokens by subscription and wake, of all workers: one may report for another.
pub type Tokens = Rc<RefCell<VecDeque<(SubscriptionId, WakeId, String)>>>;

/// Work that came in a webhook.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: SubscriptionId,
    pub wake: Wake,
    pub callback_url: String,
    pub token: String,
}

/// The path of a subscription, with something below it.
#[must_use]
pub fn path(id: &SubscriptionId, below: &str) -> String {
    format!("/v1/stream/__ds/subscriptions/{id}{below}")
}

fn ask(method: Method, path: &str, body: &Value) -> Outgoing {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    request::build(method, path, HeaderMap::new(), body)
}

/// With the token of a wake.
fn bear(method: Method, path: &str, body: &Value, token: &str) -> Outgoing {
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {token}").parse().expect("a token is header text");
    headers.insert("authorization", bearer);
    request::build(method, path, headers, Bytes::from(body.to_string()))
}

fn wake_id(id: WakeId) -> String {
    let digits: String = id.0.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("w_{digits}")
}

fn parse_wake_id(text: &str) -> Option<WakeId> {
    let digits = text.strip_prefix("w_")?;
    let mut id = WakeId([0; 12]);
    for (at, byte) in id.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    (digits.len() == id.0.len() * 2).then_some(id)
}

fn offset(text: &str) -> Option<Offset> {
    if text == "-1" { Some(Offset::START) } else { Offset::parse(text).ok() }
}

fn links(of: &Value) -> Option<Links> {
    let link = |link: &Value| {
        let link = Link {
            path: StreamName::new(link["path"].as_str()?).ok()?,
            kind: match link["link_type"].as_str()? {
                "glob" => LinkType::Glob,
                "explicit" => LinkType::Explicit,
                _ => return None,
            },
            acked: offset(link["acked_offset"].as_str()?)?,
            tail: offset(link["tail_offset"].as_str()?)?,
        };
        Some(link)
    };
    let listed: Option<Vec<Link>> = of["streams"].as_array()?.iter().map(link).collect();
    Some(Links { listed: listed?, pending: of["pending_count"].as_u64()? })
}

/// Which life of a subscription a token is of. A worker must not look; the judge does.
fn incarnation(token: &str) -> Option<u64> {
    let token = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    Some(u64::from_be_bytes(token.get(1..9)?.try_into().ok()?))
}

fn wake(of: &Value, token: &str) -> Option<Wake> {
    Some(Wake {
        incarnation: incarnation(token)?,
        wake_id: parse_wake_id(of["wake_id"].as_str()?)?,
        generation: of["generation"].as_u64()?,
        lease_ttl_ms: of["lease_ttl_ms"].as_u64().unwrap_or(0),
        links: links(of)?,
    })
}

/// What a webhook says.
#[must_use]
pub fn call(body: &[u8]) -> Option<Call> {
    let of: Value = serde_json::from_slice(body).ok()?;
    let token = of["callback_token"].as_str()?.to_owned();
    Some(Call {
        id: SubscriptionId::new(of["subscription_id"].as_str()?)?,
        wake: wake(&of, &token)?,
        callback_url: of["callback_url"].as_str()?.to_owned(),
        token,
    })
}

fn view(of: &Value) -> Option<SubscriptionView> {
    let text = |name: &str| of[name].as_str();
    let delivery = match text("type")? {
        "webhook" => Delivery::Webhook { url: of["webhook"]["url"].as_str()?.to_owned() },
        "pull-wake" => {
            Delivery::PullWake { wake_stream: StreamName::new(text("wake_stream")?).ok()? }
        }
        _ => return None,
    };
    let pattern = text("pattern").map(|it| Pattern::new(it).ok());
    let config = Subscribe {
        id: SubscriptionId::new(text("id")?)?,
        pattern: match pattern {
            Some(pattern) => Some(pattern?),
            None => None,
        },
        // They are not told, but as links.
        streams: Vec::new(),
        delivery,
        lease_ttl_ms: of["lease_ttl_ms"].as_u64()?,
        description: text("description").map(str::to_owned),
        base: None,
    };
    let failing = text("status")? == "failed";
    Some(SubscriptionView {
        config: Arc::new(config),
        created: WallMs::ZERO,
        failing,
        links: links(of)?,
    })
}

/// The JSON of an answer with one of these statuses.
fn said(reply: &Reply, statuses: &[StatusCode]) -> Result<Value, Error> {
    if !statuses.contains(&reply.parts.status) {
        return Err(denied(reply));
    }
    Ok(serde_json::from_slice(&reply.body).unwrap_or_default())
}

fn whole<T>(found: Option<T>, of: &Value) -> Result<T, Error> {
    found.ok_or_else(|| Error::Corrupt(format!("a subscription's answer is not whole: {of}")))
}

/// What a refusal of the control plane says.
fn denied(reply: &Reply) -> Error {
    let value: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let error = &value["error"];
    let stream = || StreamName::new("untold").expect("a good name");
    let refused = match error["code"].as_str().unwrap_or_default() {
        "SUBSCRIPTION_NOT_FOUND" => Refused::NotFound,
        "SUBSCRIPTION_ALREADY_EXISTS" => Refused::Exists,
        "INVALID_REQUEST" => Refused::WrongType("as the server says"),
        "NO_PENDING_WORK" => Refused::NoPendingWork,
        "FENCED" => Refused::Fenced,
        "INVALID_OFFSET" => {
            Refused::InvalidOffset { stream: stream(), reason: "as the server says" }
        }
        "LIMIT_EXCEEDED" => Refused::TooMany("as the server says"),
        "ALREADY_CLAIMED" => Refused::AlreadyClaimed {
            holder: error["current_holder"].as_str().unwrap_or_default().to_owned(),
            generation: error["generation"].as_u64().unwrap_or(0),
        },
        _ => return answer::refused(&stream(), reply),
    };
    Error::Refused(refused)
}

impl Outside {
    pub(super) async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscribed, Error> {
        let mut body = match &subscribe.delivery {
            Delivery::Webhook { url } => json!({ "type": "webhook", "webhook": { "url": url } }),
            Delivery::PullWake { wake_stream } => {
                json!({ "type": "pull-wake", "wake_stream": wake_stream.as_str() })
            }
        };
        body["streams"] = subscribe.streams.iter().map(StreamName::as_str).collect();
        body["lease_ttl_ms"] = subscribe.lease_ttl_ms.into();
        body["pattern"] = subscribe.pattern.as_ref().map(Pattern::as_str).into();
        body["description"] = subscribe.description.into();
        let reply = self.change(ask(Method::PUT, &path(&subscribe.id, ""), &body)).await?;
        let of = said(&reply, &[StatusCode::CREATED, StatusCode::OK])?;
        let new = reply.parts.status == StatusCode::CREATED;
        Ok(Subscribed { new, subscription: whole(view(&of), &of)? })
    }

    pub(super) async fn view(&self, id: &SubscriptionId) -> Result<SubscriptionView, Error> {
        let reply = self.ask(ask(Method::GET, &path(id, ""), &Value::Null)).await?;
        let of = said(&reply, &[StatusCode::OK])?;
        whole(view(&of), &of)
    }

    pub(super) async fn unsubscribe(&self, id: &SubscriptionId) -> Result<(), Error> {
        let reply = self.change(ask(Method::DELETE, &path(id, ""), &Value::Null)).await?;
        said(&reply, &[StatusCode::NO_CONTENT]).map(drop)
    }

    pub(super) async fn link(&self, id: &SubscriptionId, stream: &StreamName) -> Result<(), Error> {
        let body = json!({ "streams": [stream.as_str()] });
        let reply = self.change(ask(Method::POST, &path(id, "/streams"), &body)).await?;
        said(&reply, &[StatusCode::NO_CONTENT]).map(drop)
    }

    pub(super) async fn unlink(
        &self,
        id: &SubscriptionId,
        stream: &StreamName,
    ) -> Result<(), Error> {
        let below = format!("/streams/{}", stream.as_str().replace('/', "%2F"));
        let reply = self.change(ask(Method::DELETE, &path(id, &below), &Value::Null)).await?;
        said(&reply, &[StatusCode::NO_CONTENT]).map(drop)
    }

    pub(super) async fn claim(&self, id: &SubscriptionId, worker: &str) -> Result<Wake, Error> {
        let body = json!({ "worker": worker });
        let reply = self.change(ask(Method::POST, &path(id, "/claim"), &body)).await?;
        let of = said(&reply, &[StatusCode::OK])?;
        let token = of["token"].as_str().unwrap_or_default();
        let wake = whole(wake(&of, token), &of)?;
        self.keep(id, &wake, token.to_owned());
        Ok(wake)
    }

    /// Takes the token of a wake, whoever it was told.
    pub(crate) fn keep(&self, id: &SubscriptionId, wake: &Wake, token: String) {
        let mut tokens = self.tokens.borrow_mut();
        if tokens.len() == TOKENS_MAX {
            tokens.pop_front();
        }
        tokens.push_back((id.clone(), wake.wake_id, token));
    }

    fn token(&self, id: &SubscriptionId, wake: WakeId) -> Result<String, Error> {
        let tokens = self.tokens.borrow();
        let known = tokens.iter().rev().find(|(of, other, _)| of == id && *other == wake);
        // Without one there is nothing to send.
        known.map(|(_, _, token)| token.clone()).ok_or(Error::Draining)
    }

    pub(super) async fn report(
        &self,
        id: &SubscriptionId,
        via: Via,
        report: Report,
    ) -> Result<Reported, Error> {
        let token = self.token(id, report.wake_id)?;
        let ack = |ack: &weir_engine::subscribe::Ack| {
            let offset = ack.offset.mint(OffsetFormat::Reference);
            json!({ "stream": ack.stream.as_str(), "offset": offset })
        };
        let acks: Vec<Value> = report.acks.iter().map(ack).collect();
        let body = json!({
            "wake_id": wake_id(report.wake_id),
            "generation": report.generation,
            "acks": acks,
            "done": report.done,
        });
        let below = match via {
            Via::Callback => "/callback",
            Via::Pull => "/ack",
        };
        let reply = self.change(bear(Method::POST, &path(id, below), &body, &token)).await?;
        let of = said(&reply, &[StatusCode::OK])?;
        Ok(Reported { next_wake: whole(of["next_wake"].as_bool(), &of)? })
    }

    pub(super) async fn release(
        &self,
        id: &SubscriptionId,
        credential: Credential,
        wake: WakeId,
    ) -> Result<(), Error> {
        let token = self.token(id, wake)?;
        let body = json!({ "wake_id": wake_id(wake), "generation": credential.generation });
        let reply = self.change(bear(Method::POST, &path(id, "/release"), &body, &token)).await?;
        said(&reply, &[StatusCode::NO_CONTENT]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_with_the_life_that_its_token_names() {
        let mut claims = vec![1];
        claims.extend(7_u64.to_be_bytes());
        claims.extend([0; 80]);
        let token = BASE64_URL_SAFE_NO_PAD.encode(claims);
        let id = WakeId([0xab; 12]);
        let body = json!({
            "subscription_id": "a", "wake_id": wake_id(id), "generation": 3, "pending_count": 1,
            "callback_url": "http://h/x", "callback_token": token,
            "streams": [{ "path": "s/0", "link_type": "glob", "acked_offset": "-1",
                "tail_offset": "0000000000000000_0000000000000004", "has_pending": true }],
        });
        let call = call(body.to_string().as_bytes()).expect("a call");
        assert_eq!((call.wake.incarnation, call.wake.generation), (7, 3));
        assert_eq!(call.wake.wake_id, id);
        assert_eq!(call.wake.links.listed[0].acked, Offset::START);
        assert!(call.wake.links.listed[0].has_pending());
    }
}
