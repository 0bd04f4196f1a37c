//! Refusals: a status, a code of the peer's vocabulary, a sentence, and the headers that tell
//! the client what it needs.
//!
//! Old clients tell conflicts apart by the word "sequence" in the body: it stands in the
//! messages of sequence conflicts and in no other conflict's.

use std::borrow::Cow;

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use weir_engine::{
    request::{Error, Rejection},
    subscribe::Refused,
    types::{Offset, OffsetFormat},
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
    pub(crate) connection: Connection,
}

impl Refusal {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let message = message.into();
        Self { status, code, message, headers: Vec::new(), connection: Connection::Keep }
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

    /// Ends the connection after this answer.
    pub(crate) fn closing(mut self) -> Self {
        self.connection = Connection::Close;
        self
    }

    /// `{"error":{"code":…,"message":…}}`.
    pub(crate) fn body(&self) -> Bytes {
        let message = serde_json::to_string(&*self.message).expect("a string is JSON");
        Bytes::from(format!(r#"{{"error":{{"code":"{}","message":{message}}}}}"#, self.code))
    }

    /// What the engine's error is on the wire.
    pub(crate) fn from_engine(error: Error, format: OffsetFormat) -> Self {
        match error {
            Error::Rejected(rejection) => Self::from_rejection(rejection, format),
            Error::Refused(refused) => Self::from_subscription(refused),
            Error::Busy => Self::busy("ingest queue full"),
            Error::DiskFull => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "insufficient_storage",
                "disk full: nothing was written",
            )
            .with(RETRY_AFTER, names::FIVE_SECONDS),
            Error::Draining => Self::draining(),
            Error::LogFailed | Error::Unknown => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string())
                    .with(RETRY_AFTER, names::FIVE_SECONDS)
            }
            // What exactly is damaged is for the operator's log, not for the client.
            Error::Corrupt(_) => Self::internal("stored data is damaged"),
            Error::ReadFailed(_) => Self::internal("read failed"),
        }
    }

    fn internal(message: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    fn from_subscription(refused: Refused) -> Self {
        Self::conflict(refused.to_string())
    }

    fn from_rejection(rejection: Rejection, format: OffsetFormat) -> Self {
        let next = |tail| (names::STREAM_NEXT_OFFSET, offset_value(tail, format));
        match rejection {
            Rejection::NotFound => Self::not_found("not_found"),
            Rejection::Gone => Self::new(StatusCode::GONE, "gone", "stream is deleted"),
            Rejection::OffsetLost { next: to } => {
                let (name, value) = next(to);
                Self::new(StatusCode::GONE, "gone", rejection.to_string()).with(name, value)
            }
            Rejection::NameKept | Rejection::SourceGone(_) => Self::conflict(rejection.to_string()),
            Rejection::SourceNotFound(_) => Self::not_found(rejection.to_string()),
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
    use weir_engine::types::{Epoch, Seq, StreamName};

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
            (Rejection::TooManyProducers(name), false),
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
    fn damage_is_not_described_to_clients() {
        let refusal =
            Refusal::from_engine(Error::Corrupt("/secret/path".into()), OffsetFormat::Peer);
        assert_eq!(refusal.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!refusal.message.contains("secret"));
    }
}
