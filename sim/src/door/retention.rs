//! Limits over HTTP: how they are asked for, and what the answers say of them, of where a stream
//! begins, and of both in a page's own words. Header and JSON are taken strictly: an answer that
//! says two different things is none that this server may give.

use std::num::NonZeroU64;

use bytes::Bytes;
use hyper::{
    Method, StatusCode,
    header::{HeaderMap, HeaderValue},
};
use serde_json::{Map, Value, json};
use weir_engine::{
    request::{Error, Head},
    types::{ContentType, Epoch, Expiry, Offset, Retention, Seq, StreamName, WallMs},
};

use super::{
    answer::{self, Reply},
    outside::Outside,
    request::{self, Outgoing},
};

/// Units of time as the server writes them, longest name first.
const UNITS_MS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// What a stream keeps, as an answer tells it.
#[derive(Clone, Debug)]
pub struct Kept {
    pub retention: Retention,
    pub earliest: Offset,
    /// The rest of it, where the answer tells that too.
    pub head: Option<Head>,
}

/// The header of a creation.
pub(super) fn header(retention: Retention) -> Option<HeaderValue> {
    let age = retention.max_age_ms.map(|age| format!("max-age={age}ms"));
    let bytes = retention.max_bytes.map(|bytes| format!("max-bytes={bytes}"));
    let items: Vec<String> = bytes.into_iter().chain(age).collect();
    let value = HeaderValue::from_str(&items.join(";"));
    (!items.is_empty()).then(|| value.expect("digits and letters"))
}

fn age(text: &str) -> Option<NonZeroU64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, unit_ms) = UNITS_MS.iter().find(|(name, _)| *name == unit)?;
    NonZeroU64::new(number.parse::<u64>().ok()?.checked_mul(*unit_ms)?)
}

/// The header of an answer; without one nothing is limited. `None`: it can't be read.
pub(super) fn shown(headers: &HeaderMap) -> Option<Retention> {
    let mut retention = Retention::NONE;
    let Some(value) = headers.get("stream-retention") else { return Some(retention) };
    for item in value.to_str().ok()?.split(';') {
        match item.trim().split_once('=')? {
            ("max-age", value) => retention.max_age_ms = Some(age(value)?),
            ("max-bytes", value) => retention.max_bytes = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some(retention)
}

/// The same in JSON.
fn listed(limits: &Map<String, Value>) -> Option<Retention> {
    let mut retention = Retention::NONE;
    for (name, value) in limits {
        match name.as_str() {
            "max-age" => retention.max_age_ms = Some(age(value.as_str()?)?),
            "max-bytes" => retention.max_bytes = Some(NonZeroU64::new(value.as_u64()?)?),
            _ => return None,
        }
    }
    Some(retention)
}

fn path(name: &StreamName) -> String {
    format!("{}/_retention", request::path(name))
}

/// `PUT` of limits.
fn change(name: &StreamName, retention: Retention) -> Outgoing {
    let limits = json!({
        "max-age": retention.max_age_ms.map(|age| format!("{age}ms")),
        "max-bytes": retention.max_bytes,
    });
    let body = Bytes::from(limits.to_string());
    request::build(Method::PUT, &path(name), HeaderMap::new(), body)
}

/// To `GET` or `PUT` of limits.
fn kept(name: &StreamName, reply: &Reply) -> Result<Kept, Error> {
    if reply.parts.status != StatusCode::OK {
        return Err(answer::refused(name, reply));
    }
    let headers = &reply.parts.headers;
    let strange = || answer::strange(reply, "of limits makes no sense");
    let limits: Map<String, Value> = serde_json::from_slice(&reply.body).map_err(|_| strange())?;
    let retention = listed(&limits).filter(|limits| shown(headers) == Some(*limits));
    Ok(Kept {
        retention: retention.ok_or_else(strange)?,
        earliest: answer::offset(headers, "stream-earliest-offset").ok_or_else(strange)?,
        head: None,
    })
}

/// To `GET` of the details, which tell no content type and not all of a window.
fn details(name: &StreamName, reply: &Reply) -> Result<Kept, Error> {
    if reply.parts.status != StatusCode::OK {
        return Err(answer::refused(name, reply));
    }
    let read = || {
        let whole: Value = serde_json::from_slice(&reply.body).ok()?;
        let of = &whole["stream"];
        let epoch = Epoch::new(u32::try_from(of["epoch"].as_u64()?).ok()?);
        let at = |field: &str| {
            let next = of[field].as_str()?.parse().ok()?;
            Some(Offset { epoch, next: Seq::new(next) })
        };
        let retention = match &of["retention"] {
            Value::Null => Retention::NONE,
            limits => listed(limits.as_object()?)?,
        };
        let (earliest, next) = (at("earliest_offset")?, at("next_offset")?);
        let head = Head {
            name: name.clone(),
            content: ContentType::octet_stream(),
            expiry: Expiry::Never,
            next,
            retention,
            earliest,
            closed: of["closed"].as_bool()?,
            created: WallMs::ZERO,
            last_append: WallMs::ZERO,
        };
        Some(Kept { retention, earliest, head: Some(head) })
    };
    read().ok_or_else(|| answer::strange(reply, "of details makes no sense"))
}

impl Outside {
    pub(super) async fn retain(
        &self,
        name: &StreamName,
        retention: Retention,
    ) -> Result<Kept, Error> {
        kept(name, &self.change(change(name, retention)).await?)
    }

    /// What a stream keeps, as it says itself.
    pub(crate) async fn kept(&self, name: &StreamName) -> Result<Kept, Error> {
        let outgoing = request::build(Method::GET, &path(name), HeaderMap::new(), Bytes::new());
        kept(name, &self.ask(outgoing).await?)
    }

    /// What its details say of that.
    pub(crate) async fn details(&self, name: &StreamName) -> Result<Kept, Error> {
        let path = format!("{}/_details", request::path(name));
        let outgoing = request::build(Method::GET, &path, HeaderMap::new(), Bytes::new());
        details(name, &self.ask(outgoing).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_server_writes_them() {
        let limits = |age, bytes| Retention {
            max_age_ms: NonZeroU64::new(age),
            max_bytes: NonZeroU64::new(bytes),
        };
        for (text, expect) in [
            ("max-age=7d; max-bytes=10", Some(limits(7 * 86_400_000, 10))),
            ("max-age=1500ms", Some(limits(1500, 0))),
            ("max-bytes=1", Some(limits(0, 1))),
            ("max-age=5", None),
            ("max-age=0s", None),
            ("max-bytes=0", None),
            ("max-records=1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("stream-retention", text.parse().expect("header text"));
            assert_eq!(shown(&headers), expect, "{text}");
        }
        assert_eq!(shown(&HeaderMap::new()), Some(Retention::NONE));
    }
}
