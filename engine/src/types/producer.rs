//! Idempotent producers: who sent what (protocol §6).

use std::sync::Arc;

/// A producer's own name for itself: 1 to `limits::PRODUCER_ID_BYTES_MAX` bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(Arc<str>);

impl ProducerId {
    /// Takes a header value; `None` if it is empty or too long.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && text.len() <= crate::limits::PRODUCER_ID_BYTES_MAX)
            .then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a producer says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerTuple {
    /// Who.
    pub id: ProducerId,
    /// Which of its lives; at most 2^53 − 1.
    pub epoch: u64,
    /// Which request of that life; at most 2^53 − 1.
    pub seq: u64,
}
