//! What can be asked of subscriptions and what they answer (protocol §6, §7).

use std::sync::Arc;

use super::glob::Pattern;
use crate::types::{Offset, StreamName, WallMs};

/// A subscription's name, chosen by the client: 1 to [`SubscriptionId::BYTES_MAX`] bytes of
/// UTF-8 without control characters and without `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(Arc<str>);

impl SubscriptionId {
    /// Longest name.
    pub const BYTES_MAX: usize = 256;

    /// Checks and takes a decoded name; `None` if it is none.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=Self::BYTES_MAX).contains(&text.len());
        let plain = text.chars().all(|it| !it.is_control() && it != '/');
        (fits && plain && !matches!(text, "." | "..")).then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a worker learns that there is work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The server calls this URL.
    Webhook {
        /// As the client gave it.
        url: String,
    },
    /// The server appends an event to a stream that workers read.
    PullWake {
        /// That stream; the application makes it.
        wake_stream: StreamName,
    },
}

/// A subscription to create or to confirm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Its name.
    pub id: SubscriptionId,
    /// Streams whose name matches are linked, present and future ones.
    pub pattern: Option<Pattern>,
    /// Streams linked by name, whether they exist or not; sorted, each once.
    pub streams: Vec<StreamName>,
    /// How to wake.
    pub delivery: Delivery,
    /// How long a worker may be silent, in milliseconds.
    pub lease_ttl_ms: u64,
    /// For people.
    pub description: Option<String>,
    /// Where whoever made it saw the server: scheme and authority, and perhaps a path, without a
    /// slash at the end; at most [`Subscribe::BASE_BYTES_MAX`]. Receivers of its webhooks are told
    /// to report there. No part of the configuration: a request that confirms may come by
    /// another way.
    pub base: Option<String>,
}

impl Subscribe {
    /// Longest base. A longer one is not to be given.
    pub const BASE_BYTES_MAX: usize = 1024;

    /// Whether a request for the one confirms the other.
    #[must_use]
    pub fn configures_as(&self, other: &Self) -> bool {
        let Self { id, pattern, streams, delivery, lease_ttl_ms, description, base: _ } = self;
        *id == other.id
            && *pattern == other.pattern
            && *streams == other.streams
            && *delivery == other.delivery
            && *lease_ttl_ms == other.lease_ttl_ms
            && *description == other.description
    }
}

/// What is under the id of a [`Subscribe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: it would be new.
    Free,
    /// The same configuration.
    Same,
    /// Another configuration.
    Taken,
}

/// Answer to [`Subscribe`].
#[derive(Clone, Debug)]
pub struct Subscribed {
    /// It is new; otherwise it was there with the same configuration.
    pub new: bool,
    /// As it is now.
    pub subscription: SubscriptionView,
}

/// Why a stream is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// Its name matches the pattern.
    Glob,
    /// It was named.
    Explicit,
}

/// A stream as a subscription sees it. Offset [`Offset::START`] as `acked` is shown as `-1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The stream.
    pub path: StreamName,
    /// Why it is linked; named wins over matching.
    pub kind: LinkType,
    /// Everything before this has been processed.
    pub acked: Offset,
    /// The stream's tail.
    pub tail: Offset,
}

impl Link {
    /// Whether there is work.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.tail > self.acked
    }
}

/// Linked streams: those with work first, then others, at most
/// [`LINKS_LISTED_MAX`](super::LINKS_LISTED_MAX).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// The links.
    pub listed: Vec<Link>,
    /// How many streams have work, listed or not.
    pub pending: u64,
}

/// A subscription as it is.
#[derive(Clone, Debug)]
pub struct SubscriptionView {
    /// As created.
    pub config: Arc<Subscribe>,
    /// When.
    pub created: WallMs,
    /// The last delivery failed.
    pub failing: bool,
    /// Linked streams.
    pub links: Links,
}

/// Names one wake for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WakeId(pub [u8; 12]);

/// Work handed out.
#[derive(Clone, Debug)]
pub struct Wake {
    /// Which subscription, by its number: never reused, unlike its name.
    pub incarnation: u64,
    /// Which wake.
    pub wake_id: WakeId,
    /// Counts the wakes of this subscription; only the newest may report.
    pub generation: u64,
    /// How long the worker may be silent, in milliseconds.
    pub lease_ttl_ms: u64,
    /// What there is to do.
    pub links: Links,
}

/// What a bearer token says; checked by whoever issued it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential {
    /// [`Wake::incarnation`].
    pub incarnation: u64,
    /// [`Wake::generation`].
    pub generation: u64,
}

/// A worker has processed a stream up to here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The stream.
    pub stream: StreamName,
    /// Everything before this has been processed.
    pub offset: Offset,
}

/// A worker's report: a heartbeat, or the end of its work (protocol: callback and ack).
#[derive(Clone, Debug)]
pub struct Report {
    /// Of whom.
    pub credential: Credential,
    /// Which wake.
    pub wake_id: WakeId,
    /// As the body says.
    pub generation: u64,
    /// What was processed.
    pub acks: Vec<Ack>,
    /// The lease ends with this.
    pub done: bool,
}

/// Which way a report or a claim came; each belongs to one kind of subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// `/callback`, of webhook workers.
    Callback,
    /// `/claim`, `/ack` and `/release`, of pull-wake workers.
    Pull,
}

/// Answer to [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The lease has ended and there is work again.
    pub next_wake: bool,
}

/// How a webhook delivery went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// 2xx with `{"done":true}`: everything listed was processed.
    Done,
    /// Any other 2xx: the worker will report.
    Accepted,
    /// No answer, or another status: try again later.
    Failed,
}

/// Why a subscription refuses. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such subscription (404).
    #[error("no such subscription")]
    NotFound,
    /// The name is taken by another configuration (409).
    #[error("subscription exists with a different configuration")]
    Exists,
    /// Not for this kind of subscription (400).
    #[error("{0}")]
    WrongType(&'static str),
    /// Somebody else works (409).
    #[error("claimed by {holder}")]
    AlreadyClaimed {
        /// Who.
        holder: String,
        /// Since which wake.
        generation: u64,
    },
    /// Nothing to do (409).
    #[error("no stream has pending work")]
    NoPendingWork,
    /// The wake is over: somebody else may be at work (409).
    #[error("the wake is over: a newer generation holds the subscription")]
    Fenced,
    /// An ack that can't be meant (409). None of the request's acks was applied.
    #[error("ack of '{stream}': {reason}")]
    InvalidOffset {
        /// Which stream.
        stream: StreamName,
        /// What is wrong.
        reason: &'static str,
    },
    /// One more than the store may have (409).
    #[error("{0}")]
    TooMany(&'static str),
}
