//! Refusals: a status, a code of the peer's vocabulary, a sentence, and the headers that tell
//! the client what it needs.
//!
//! Old clients tell conflicts apart by the word "sequence" in the body: it stands in the
//! messages of sequence conflicts and in no other conflict's. The control plane has codes of its
//! own, in capitals, and may put facts beside the message.

use std::{borrow::Cow, fmt::Write as _};

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::Value;
use weir_engine::{
    request::{Error, From, Rejection},
    subscribe::Refused,
    types::{Offset, OffsetFormat, StreamName},
};

use super::names;

/// What becomes of the connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    Keep,
    /// The rest of the request is not read, so nothing can follow it.
    Close,
}

/// An answer that refuses.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: Cow<'static, str>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// What stands beside code and message in the body.
    pub(crate) facts: Vec<(&'static str, Value)>,
    pub(crate) connection: Connection,
}

impl Refusal {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
            facts: Vec::new(),
            connection: Connection::Keep,
        }
    }

    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(crate) fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(crate) fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// The body of a request to the control plane is not what it should be.
    pub(crate) fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message)
    }

    pub(crate) fn no_subscription() -> Self {
        Self::new(StatusCode::NOT_FOUND, "SUBSCRIPTION_NOT_FOUND", "no such subscription")
    }

    pub(crate) fn webhook_url(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "WEBHOOK_URL_REJECTED", message)
    }

    /// The bearer token of a worker is none of ours, or not for this.
    pub(crate) fn token_invalid() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "TOKEN_INVALID", "missing or invalid bearer token")
            .with(WWW_AUTHENTICATE, names::BEARER)
    }

    pub(crate) fn token_expired() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "TOKEN_EXPIRED", "the bearer token has expired")
            .with(WWW_AUTHENTICATE, names::BEARER)
    }

    pub(crate) fn too_large(body_bytes_max: usize) -> Self {
        let message = format!("body too large (max {body_bytes_max})");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message).closing()
    }

    pub(crate) fn busy(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", message)
            .with(RETRY_AFTER, names::ONE_SECOND)
    }

    pub(crate) fn draining() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "server shutting down")
            .with(RETRY_AFTER, names::FIVE_SECONDS)
            .closing()
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "unauthorized")
            .with(WWW_AUTHENTICATE, names::BEARER)
    }

    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "unsupported method")
            .with(ALLOW, HeaderValue::from_static(allow))
    }

    /// Adds a header.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds a fact to the body.
    fn stating(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.facts.push((name, value.into()));
        self
    }

    /// Ends the connection after this answer.
    pub(crate) fn closing(mut self) -> Self {
        self.connection = Connection::Close;
        self
    }

    /// `{"error":{"code":…,"message":…}}`, with the facts behind the message.
    pub(crate) fn body(&self) -> Bytes {
        let message = serde_json::to_string(&*self.message).expect("a string is JSON");
        let mut body = format!(r#"{{"error":{{"code":"{}","message":{message}"#, self.code);
        for (name, value) in &self.facts {
            write!(body, r#","{name}":{value}"#).expect("writing to a string cannot fail");
        }
        body.push_str("}}");
        Bytes::from(body)
    }

    /// What the engine's error is on the wire.
    pub(crate) fn from_engine(error: Error, format: OffsetFormat) -> Self {
        match error {
            Error::Rejected(rejection) => Self::from_rejection(rejection, format),
            Error::Refused(refused) => Self::from_subscription(refused),
            Error::Busy | Error::Backlogged => Self::busy(error.to_string()),
            Error::DiskFull => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "insufficient_storage",
                "disk full: nothing was written",
            )
            .with(RETRY_AFTER, names::FIVE_SECONDS),
            Error::Draining => Self::draining(),
            Error::LogFailed | Error::Overtaken | Error::Unknown => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string())
                    .with(RETRY_AFTER, names::FIVE_SECONDS)
            }
            // Which object it is is for the operator's log, not for the client.
            Error::Away(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the object store does not answer: try again",
            )
            .with(RETRY_AFTER, names::FIVE_SECONDS),
            // What exactly is damaged is for the operator's log, not for the client.
            Error::Corrupt(_) => Self::internal("stored data is damaged"),
            Error::ReadFailed(_) => Self::internal("read failed"),
        }
    }

    /// The same for a read of a stream from somewhere on: says which records it is about and where to
    /// go on.
    pub(crate) fn from_read(
        error: Error,
        name: &StreamName,
        from: From,
        format: OffsetFormat,
    ) -> Self {
        let asked = match from {
            From::At(offset) => format!("offset {}", offset.mint(format)),
            From::Start => "its start".to_owned(),
            From::Now => "its tail".to_owned(),
            From::Since(_) => "a time".to_owned(),
        };
        let message = match &error {
            Error::Rejected(Rejection::OffsetTrimmed { next }) => format!(
                "stream '{name}' no longer keeps the records from {asked} to offset {next}: read on \
                 from there (Stream-Next-Offset)",
                next = next.mint(format),
            ),
            Error::Rejected(Rejection::OffsetLost { next }) => format!(
                "{asked} belongs to an earlier life of stream '{name}', or to records that were lost \
                 when it was recovered: what is there now goes on at offset {next} \
                 (Stream-Next-Offset)",
                next = next.mint(format),
            ),
            // What exactly is damaged is for the operator's log, not for the client.
            Error::Corrupt(_) => format!(
                "stored data is damaged: records of stream '{name}' from {asked} on can't be read, \
                 others can; the server's log names what is damaged, `weir verify --deep` looks for \
                 all of it"
            ),
            Error::Away(_) => format!(
                "the object store does not answer: records of stream '{name}' from {asked} on are only \
                 there, try again"
            ),
            _ => return Self::from_engine(error, format),
        };
        Self { message: message.into(), ..Self::from_engine(error, format) }
    }

    fn internal(message: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    pub(crate) fn from_subscription(refused: Refused) -> Self {
        let conflict = |code, message| Self::new(StatusCode::CONFLICT, code, message);
        let message = refused.to_string();
        match refused {
            Refused::NotFound => Self::no_subscription(),
            Refused::WrongType(_) => Self::invalid_request(message),
            Refused::Exists => conflict("SUBSCRIPTION_ALREADY_EXISTS", message),
            Refused::AlreadyClaimed { holder, generation } => conflict("ALREADY_CLAIMED", message)
                .stating("current_holder", holder)
                .stating("generation", generation),
            Refused::NoPendingWork => conflict("NO_PENDING_WORK", message),
            Refused::Fenced => conflict("FENCED", message),
            Refused::InvalidOffset { .. } => conflict("INVALID_OFFSET", message),
            Refused::TooMany(_) => conflict("LIMIT_EXCEEDED", message),
        }
    }

    fn from_rejection(rejection: Rejection, format: OffsetFormat) -> Self {
        let next = |tail| (names::STREAM_NEXT_OFFSET, offset_value(tail, format));
        match rejection {
            Rejection::NotFound => Self::not_found("not_found"),
            Rejection::Gone => Self::new(StatusCode::GONE, "gone", "stream is deleted"),
            Rejection::OffsetLost { next: to } | Rejection::OffsetTrimmed { next: to } => {
                let (name, value) = next(to);
                Self::new(StatusCode::GONE, "gone", rejection.to_string()).with(name, value)
            }
            Rejection::NameKept => Self::conflict(rejection.to_string()),
            // The client knows which it named, and a name may say "sequence".
            Rejection::SourceGone(_) => Self::conflict("source stream is deleted"),
            Rejection::SourceNotFound(_) => Self::not_found("source stream not found"),
            Rejection::ForkPoint(_) | Rejection::ForkDepth => {
                Self::bad_request(rejection.to_string())
            }
            Rejection::ConfigurationDiffers => Self::conflict("stream config mismatch"),
            Rejection::ContentTypeDiffers => Self::conflict("content-type mismatch"),
            Rejection::TooManyProducers(_) => {
                Self::conflict("the stream has as many producers as it may have")
            }
            Rejection::Closed { tail } => {
                let (name, value) = next(tail);
                Self::conflict("stream is closed")
                    .with(names::STREAM_CLOSED, names::TRUE)
                    .with(name, value)
            }
            Rejection::StreamSeq { ref last, tail } => {
                let (name, value) = next(tail);
                let refusal = Self::conflict(rejection.to_string()).with(name, value);
                match HeaderValue::from_maybe_shared(last.clone()) {
                    Ok(last) => refusal.with(names::STREAM_EXPECTED_SEQ, last),
                    Err(_) => refusal,
                }
            }
            Rejection::ExpectedOffset { tail } => {
                let (name, value) = next(tail);
                Self::conflict("the tail is not at the expected offset").with(name, value)
            }
            Rejection::StaleEpoch { current } => {
                Self::new(StatusCode::FORBIDDEN, "stale_epoch", rejection.to_string())
                    .with(names::PRODUCER_EPOCH, current.into())
            }
            Rejection::ProducerGap { expected, received } => Self::conflict(rejection.to_string())
                .with(names::PRODUCER_EXPECTED_SEQ, expected.into())
                .with(names::PRODUCER_RECEIVED_SEQ, received.into()),
            Rejection::EmptyBody
            | Rejection::ContentTypeMissing
            | Rejection::InvalidJson { .. }
            | Rejection::EmptyArray
            | Rejection::EpochStart => Self::bad_request(rejection.to_string()),
        }
    }
}

/// An offset as a header.
pub(crate) fn offset_value(offset: Offset, format: OffsetFormat) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(offset.mint(format)))
        .expect("offsets are visible ASCII")
}

#[cfg(test)]
mod tests {
    use weir_engine::types::{Epoch, Seq};

    use super::*;

    fn refuse(rejection: Rejection) -> Refusal {
        Refusal::from_engine(rejection.into(), OffsetFormat::Reference)
    }

    #[test]
    fn only_sequence_conflicts_say_sequence() {
        let tail = Offset { epoch: Epoch::ZERO, next: Seq::new(3) };
        let name = StreamName::new("sequence").expect("valid");
        for (rejection, says) in [
            (Rejection::StreamSeq { last: Bytes::from_static(b"b"), tail }, true),
            (Rejection::ProducerGap { expected: 1, received: 5 }, true),
            (Rejection::Closed { tail }, false),
            (Rejection::ConfigurationDiffers, false),
            (Rejection::ContentTypeDiffers, false),
            (Rejection::ExpectedOffset { tail }, false),
            (Rejection::TooManyProducers(name.clone()), false),
            (Rejection::SourceGone(name), false),
            (Rejection::NameKept, false),
        ] {
            let refusal = refuse(rejection);
            assert_eq!(refusal.status, StatusCode::CONFLICT);
            assert_eq!(refusal.message.contains("sequence"), says, "{}", refusal.message);
        }
    }

    #[test]
    fn a_message_is_escaped() {
        let refusal = Refusal::bad_request("a \"b\"\n");
        let body = refusal.body();
        assert_eq!(&body[..], br#"{"error":{"code":"bad_request","message":"a \"b\"\n"}}"#);
    }

    #[test]
    fn subscriptions_refuse_with_codes_of_their_own() {
        let stream = StreamName::new("s").expect("valid");
        for (refused, status, code) in [
            (Refused::NotFound, 404, "SUBSCRIPTION_NOT_FOUND"),
            (Refused::Exists, 409, "SUBSCRIPTION_ALREADY_EXISTS"),
            (Refused::WrongType("not for webhooks"), 400, "INVALID_REQUEST"),
            (Refused::NoPendingWork, 409, "NO_PENDING_WORK"),
            (Refused::Fenced, 409, "FENCED"),
            (Refused::InvalidOffset { stream, reason: "beyond the tail" }, 409, "INVALID_OFFSET"),
            (Refused::TooMany("too many"), 409, "LIMIT_EXCEEDED"),
        ] {
            let refusal = Refusal::from_engine(refused.into(), OffsetFormat::Reference);
            assert_eq!((refusal.status.as_u16(), refusal.code), (status, code));
        }
        let claimed = Refused::AlreadyClaimed { holder: "a \"w\"".into(), generation: 7 };
        let body = Refusal::from_subscription(claimed).body();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let expect = serde_json::json!({"error": {
            "code": "ALREADY_CLAIMED", "message": "claimed by a \"w\"",
            "current_holder": "a \"w\"", "generation": 7,
        }});
        assert_eq!(body, expect);
    }

    #[test]
    fn damage_is_not_described_to_clients() {
        let refusal =
            Refusal::from_engine(Error::Corrupt("/secret/path".into()), OffsetFormat::Peer);
        assert_eq!(refusal.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!refusal.message.contains("secret"));
    }

    #[test]
    fn a_read_that_fails_names_the_stream_where_it_is_and_what_to_do() {
        let name = StreamName::new("a/b").expect("valid");
        let at = |next| Offset { epoch: Epoch::ZERO, next: Seq::new(next) };
        let (asked, next) = (at(3), at(9));
        let minted = |offset: Offset| offset.mint(OffsetFormat::Reference);
        for (error, status, says) in [
            (Rejection::OffsetTrimmed { next }.into(), 410, vec!["no longer keeps", &minted(next)]),
            (Rejection::OffsetLost { next }.into(), 410, vec!["lost", &minted(next)]),
            (Error::Corrupt("/secret".into()), 500, vec!["damaged", "weir verify --deep"]),
            (Error::Away("/secret".into()), 503, vec!["object store does not answer", "try again"]),
        ] {
            let from = From::At(asked);
            let refusal = Refusal::from_read(error, &name, from, OffsetFormat::Reference);
            assert_eq!(refusal.status.as_u16(), status);
            let message = &*refusal.message;
            for part in says.into_iter().chain(["'a/b'", &*minted(asked)]) {
                assert!(message.contains(part), "{part}: {message}");
            }
            assert!(!message.contains("secret"), "{message}");
            let has_next =
                refusal.headers.iter().any(|(name, _)| name == names::STREAM_NEXT_OFFSET);
            assert_eq!(has_next, status == 410);
            let says_when = refusal.headers.iter().any(|(name, _)| name == RETRY_AFTER);
            assert_eq!(says_when, status == 503, "an outage ends, damage does not");
        }
        let other = Rejection::NotFound.into();
        let refusal = Refusal::from_read(other, &name, From::Start, OffsetFormat::Peer);
        assert_eq!(refusal.status, StatusCode::NOT_FOUND);
    }
}
