//! The control plane: subscriptions, and the work of a worker that fetches its wakes.

use std::time::Duration;

use bytes::Bytes;
use hyper::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde_json::{Value, json};

use super::{
    call::{Call, Repeat},
    error::{ALREADY_CLAIMED, Error},
    names::segment,
    stream::{Client, header},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Subscriptions of a server.
#[derive(Clone)]
pub struct Subscriptions {
    client: Client,
}

/// Work that a worker has taken.
#[derive(Clone, Debug)]
pub struct Claim {
    id: String,
    wake_id: String,
    generation: Value,
    token: String,
    /// How long it may be silent, if the server says so.
    pub lease: Option<Duration>,
    /// The streams with work.
    pub streams: Vec<PendingStream>,
}

/// What came of asking for work.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// There is some.
    Work(Claim),
    /// There is none.
    Nothing,
    /// Another worker has it, which is this refusal.
    ByAnother(Error),
}

/// A stream with work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingStream {
    /// Its name.
    pub name: String,
    /// What was acked; `-1`: nothing.
    pub acked: String,
    /// Where it ends.
    pub tail: String,
}

impl Client {
    /// Its subscriptions.
    #[must_use]
    pub fn subscriptions(&self) -> Subscriptions {
        Subscriptions { client: self.clone() }
    }
}

impl Subscriptions {
    /// Makes one; the same again is fine. Returns what the server says of it.
    ///
    /// # Errors
    /// [`Error::SubscriptionConflict`]: there is another of this name.
    pub async fn create(&self, id: &str, body: &Value) -> Result<Value, Error> {
        self.ask(Method::PUT, id, "", Some(body), None, Repeat::Safe).await
    }

    /// What the server says of one.
    ///
    /// # Errors
    /// [`Error::NoSubscription`].
    pub async fn get(&self, id: &str) -> Result<Value, Error> {
        self.ask(Method::GET, id, "", None, None, Repeat::Safe).await
    }

    /// Deletes one, or none.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        self.ask(Method::DELETE, id, "", None, None, Repeat::Safe).await.map(drop)
    }

    /// Takes the work there is.
    ///
    /// # Errors
    /// The server refuses, or the answer was lost.
    pub async fn claim(&self, id: &str, worker: &str) -> Result<Claimed, Error> {
        let body = json!({ "worker": worker });
        let claimed = self.ask(Method::POST, id, "/claim", Some(&body), None, Repeat::Never).await;
        let claim = match claimed {
            Err(Error::SubscriptionConflict { message, .. })
                if message.contains("NO_PENDING_WORK") =>
            {
                return Ok(Claimed::Nothing);
            }
            Err(Error::SubscriptionConflict { id, message })
                if message.contains(ALREADY_CLAIMED) =>
            {
                return Ok(Claimed::ByAnother(Error::SubscriptionConflict { id, message }));
            }
            claimed => claimed?,
        };
        let text = |value: &Value, name: &str| {
            let text = value.get(name).and_then(Value::as_str).map(str::to_owned);
            text.ok_or_else(|| Error::Strange(format!("a claim without {name}")))
        };
        let listed = claim.get("streams").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut streams = Vec::new();
        for stream in listed {
            if stream.get("has_pending").and_then(Value::as_bool).unwrap_or(true) {
                streams.push(PendingStream {
                    name: text(&stream, "path")?,
                    acked: text(&stream, "acked_offset")?,
                    tail: text(&stream, "tail_offset")?,
                });
            }
        }
        Ok(Claimed::Work(Claim {
            id: id.to_owned(),
            wake_id: text(&claim, "wake_id")?,
            generation: claim.get("generation").cloned().unwrap_or(Value::Null),
            token: text(&claim, "token")?,
            lease: claim.get("lease_ttl_ms").and_then(Value::as_u64).map(Duration::from_millis),
            streams,
        }))
    }

    /// Says what was done: `acks` are streams and how far; `done` gives the work back. True if
    /// there is more.
    ///
    /// # Errors
    /// [`Error::SubscriptionConflict`]: the lease was lost, and somebody else has the work.
    pub async fn ack(
        &self,
        claim: &Claim,
        acks: &[(String, String)],
        done: bool,
    ) -> Result<bool, Error> {
        let acks: Vec<Value> = acks
            .iter()
            .map(|(stream, offset)| json!({"stream": stream, "offset": offset}))
            .collect();
        let body = json!({
            "wake_id": claim.wake_id,
            "generation": claim.generation,
            "acks": acks,
            "done": done,
        });
        let (post, token) = (Method::POST, Some(claim.token.as_str()));
        let said = self.ask(post, &claim.id, "/ack", Some(&body), token, Repeat::Never).await?;
        Ok(said.get("next_wake").and_then(Value::as_bool).unwrap_or(false))
    }

    /// Gives the work back undone.
    ///
    /// # Errors
    /// [`Error::SubscriptionConflict`]: it was lost already.
    pub async fn release(&self, claim: &Claim) -> Result<(), Error> {
        let body = json!({ "wake_id": claim.wake_id, "generation": claim.generation });
        let (post, token) = (Method::POST, Some(claim.token.as_str()));
        self.ask(post, &claim.id, "/release", Some(&body), token, Repeat::Never).await.map(drop)
    }

    async fn ask(
        &self,
        method: Method,
        id: &str,
        verb: &str,
        body: Option<&Value>,
        token: Option<&str>,
        repeat: Repeat,
    ) -> Result<Value, Error> {
        let mut headers = Vec::new();
        if body.is_some() {
            headers.push((CONTENT_TYPE, JSON));
        }
        if let Some(token) = token {
            headers.push((AUTHORIZATION, header(&format!("Bearer {token}"))?));
        }
        let root = &self.client.target().root;
        let call = Call {
            method,
            path: format!("{root}/__ds/subscriptions/{}{verb}", segment(id)),
            headers,
            body: body.map_or_else(Bytes::new, |body| body.to_string().into()),
            repeat,
            what: format!("subscription {id}"),
            ..self.client.stream("").get(&[])
        };
        let answer = match self.client.caller.call(&call).await {
            Err(Error::Unknown { reason }) => {
                return Err(Error::SubscriptionUnknown { id: id.to_owned(), reason });
            }
            answer => answer?,
        };
        match answer.status.as_u16() {
            200 | 201 => {
                let read = answer.read().await;
                let (_, body) = read.map_err(|error| Error::Strange(error.to_string()))?;
                serde_json::from_slice(&body).map_err(|_| Error::Strange("no JSON".to_owned()))
            }
            202 | 204 => Ok(Value::Null),
            404 | 410 => Err(Error::NoSubscription { id: id.to_owned() }),
            _ => Err(match answer.into_error(&call.what).await {
                Error::Conflict { message, .. } => {
                    Error::SubscriptionConflict { id: id.to_owned(), message }
                }
                error => error,
            }),
        }
    }
}
