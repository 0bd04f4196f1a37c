//! Bodies of requests to the control plane: JSON objects whose unknown fields are ignored and
//! whose known ones are named when they are wrong. `null` is the same as nothing.
//!
//! Paths in bodies are names of streams as they are, not percent-encoded; slashes at their ends
//! do not count.

use serde_json::{Map, Value};
use weir_engine::{
    subscribe::{
        Ack, Credential, Delivery, Pattern, Refused, Report, Subscribe, SubscriptionId, WakeId,
    },
    types::{Offset, StreamName},
};

use super::parse_wake_id;
use crate::wire::error::Refusal;

/// Most bytes of a body.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// Most streams that one request links by name.
const STREAMS_MAX: usize = 1000;
/// Most acks of one report: as many as a wake lists.
const ACKS_MAX: usize = weir_engine::subscribe::LINKS_LISTED_MAX;
/// How long a worker may ask to be silent, in milliseconds.
const LEASE_MS: std::ops::RangeInclusive<u64> = 1000..=600_000;
const LEASE_MS_DEFAULT: u64 = 30_000;
const DESCRIPTION_BYTES_MAX: usize = 4096;
const WORKER_BYTES_MAX: usize = 256;

/// The body of `PUT`. It does not say where its sender sees the server.
pub(crate) fn subscribe(id: SubscriptionId, body: &[u8]) -> Result<Subscribe, Refusal> {
    let fields = Fields::read(body)?;
    let delivery = delivery(&fields)?;
    let pattern = match fields.text("pattern")? {
        None => None,
        Some(text) => match Pattern::new(text) {
            Ok(pattern) => Some(pattern),
            Err(bad) => return Err(invalid(format!("pattern: {bad}"))),
        },
    };
    let streams = fields.streams()?;
    if pattern.is_none() && streams.as_ref().is_none_or(Vec::is_empty) {
        return Err(invalid("give pattern or streams"));
    }
    let lease_ttl_ms = match fields.get("lease_ttl_ms") {
        None => LEASE_MS_DEFAULT,
        Some(value) => match value.as_u64().filter(|it| LEASE_MS.contains(it)) {
            Some(lease) => lease,
            None => return Err(invalid("lease_ttl_ms must be an integer from 1000 to 600000")),
        },
    };
    let description = fields.text("description")?;
    if description.is_some_and(|it| it.len() > DESCRIPTION_BYTES_MAX) {
        return Err(invalid("description is longer than 4096 bytes"));
    }
    Ok(Subscribe {
        id,
        pattern,
        streams: streams.unwrap_or_default(),
        delivery,
        lease_ttl_ms,
        description: description.map(str::to_owned),
        base: None,
    })
}

/// Whether the URL may be called is not judged here: a subscription that exists answers first.
fn delivery(fields: &Fields) -> Result<Delivery, Refusal> {
    match fields.text("type")? {
        Some("webhook") => {
            let webhook = fields.get("webhook").and_then(Value::as_object);
            match webhook.and_then(|it| it.get("url")).and_then(Value::as_str) {
                Some(url) => Ok(Delivery::Webhook { url: url.to_owned() }),
                None => Err(invalid("webhook.url must be a string")),
            }
        }
        Some("pull-wake") => match fields.text("wake_stream")? {
            Some(text) => Ok(Delivery::PullWake { wake_stream: stream("wake_stream", text)? }),
            None => Err(invalid("wake_stream is missing")),
        },
        Some(_) | None => Err(invalid("type must be 'webhook' or 'pull-wake'")),
    }
}

/// The body that links streams: sorted, each once.
pub(crate) fn streams(body: &[u8]) -> Result<Vec<StreamName>, Refusal> {
    Fields::read(body)?.streams()?.ok_or_else(|| invalid("streams is missing"))
}

/// The body of a claim: the worker's name.
pub(crate) fn worker(body: &[u8]) -> Result<String, Refusal> {
    let fields = Fields::read(body)?;
    let worker = fields.text("worker")?;
    let worker = worker.filter(|it| (1..=WORKER_BYTES_MAX).contains(&it.len()));
    worker
        .map(str::to_owned)
        .ok_or_else(|| invalid(format!("worker must be 1 to {WORKER_BYTES_MAX} bytes of text")))
}

/// Which wake a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) wake_id: WakeId,
    pub(crate) generation: u64,
}

/// The body of a release.
pub(crate) fn about(body: &[u8]) -> Result<About, Refusal> {
    Fields::read(body)?.about()
}

/// The body of a callback and of an ack.
pub(crate) fn report(body: &[u8], credential: Credential) -> Result<Report, Refusal> {
    let fields = Fields::read(body)?;
    let done = match fields.get("done") {
        None => false,
        Some(Value::Bool(done)) => *done,
        Some(_) => return Err(invalid("done must be true or false")),
    };
    let acks = match fields.list("acks", ACKS_MAX)? {
        None => Vec::new(),
        Some(acks) => acks.iter().map(ack).collect::<Result<_, _>>()?,
    };
    let About { wake_id, generation } = fields.about()?;
    Ok(Report { credential, wake_id, generation, acks, done })
}

fn ack(value: &Value) -> Result<Ack, Refusal> {
    let field = |name| value.get(name).and_then(Value::as_str);
    let (Some(path), Some(offset)) = (field("stream").or_else(|| field("path")), field("offset"))
    else {
        return Err(invalid("acks must be objects with stream and offset"));
    };
    let stream = stream("acks", path)?;
    match Offset::parse(offset) {
        Ok(offset) => Ok(Ack { stream, offset }),
        // A word of requests, but nobody has processed what lies before the start.
        Err(_) if offset == "-1" => {
            let reason = "-1 is before every record";
            Err(Refusal::from_subscription(Refused::InvalidOffset { stream, reason }))
        }
        Err(bad) => Err(invalid(format!("acks: {bad}"))),
    }
}

fn stream(field: &str, text: &str) -> Result<StreamName, Refusal> {
    StreamName::new(text.trim_matches('/')).map_err(|bad| invalid(format!("{field}: {bad}")))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::invalid_request(message)
}

/// The fields of a body.
struct Fields(Map<String, Value>);

impl Fields {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(invalid("the body must be a JSON object")),
            Err(bad) => Err(invalid(format!("the body is no JSON: {bad}"))),
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(format!("{name} must be a string"))),
        }
    }

    fn list(&self, name: &str, length_max: usize) -> Result<Option<&[Value]>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() <= length_max => Ok(Some(items)),
            Some(Value::Array(_)) => Err(invalid(format!("{name} has more than {length_max}"))),
            Some(_) => Err(invalid(format!("{name} must be an array"))),
        }
    }

    fn streams(&self) -> Result<Option<Vec<StreamName>>, Refusal> {
        let Some(items) = self.list("streams", STREAMS_MAX)? else { return Ok(None) };
        let names = items.iter().map(|item| match item {
            Value::String(text) => stream("streams", text),
            _ => Err(invalid("streams must be strings")),
        });
        let mut names = names.collect::<Result<Vec<_>, _>>()?;
        names.sort_unstable();
        names.dedup();
        Ok(Some(names))
    }

    fn about(&self) -> Result<About, Refusal> {
        let Some(generation) = self.get("generation").and_then(Value::as_u64) else {
            return Err(invalid("generation must be an integer"));
        };
        let Some(text) = self.text("wake_id")? else {
            return Err(invalid("wake_id is missing"));
        };
        match parse_wake_id(text) {
            Some(wake_id) => Ok(About { wake_id, generation }),
            // It names no wake of ours, so not the current one.
            None => Err(Refusal::from_subscription(Refused::Fenced)),
        }
    }
}

#[cfg(test)]
mod tests;
