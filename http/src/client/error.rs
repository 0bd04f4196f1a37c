//! What can go wrong, and what to do next.

use http_body_util::{BodyExt as _, Limited};
use hyper::{HeaderMap, StatusCode, body::Incoming};
use serde_json::Value;

use super::call::Key;

/// Bytes of a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Characters of it that are shown.
const SHOWN_MAX: usize = 300;
/// The status of a server that has as much to do as it takes on.
const BACKLOG: u16 = 429;

/// Codes of refusals: another worker has the work, or had it since.
pub(super) const ALREADY_CLAIMED: &str = "[ALREADY_CLAIMED]";
const FENCED: &str = "[FENCED]";

/// Why a request did not do what it was to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody answered; nothing was done.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// The server.
        server: String,
        /// What the system said.
        reason: String,
    },
    /// Answers began and did not come to their end; nothing was changed.
    #[error("what {server} answers breaks off: {reason}")]
    BrokenOff {
        /// The server.
        server: String,
        /// What the system said.
        reason: String,
    },
    /// The answer to a request that must not be repeated was lost.
    #[error("the answer was lost ({reason}): nobody knows whether the request was carried out")]
    Unknown {
        /// What happened to it.
        reason: String,
    },
    /// The same, of a subscription.
    #[error(
        "subscription {id}: the answer was lost ({reason}): nobody knows whether the request was \
         carried out"
    )]
    SubscriptionUnknown {
        /// Its name.
        id: String,
        /// What happened to it.
        reason: String,
    },
    /// There is no such stream.
    #[error("{what}: not there")]
    NotFound {
        /// Its name.
        what: String,
    },
    /// There is no such subscription.
    #[error("subscription {id}: not there")]
    NoSubscription {
        /// Its name.
        id: String,
    },
    /// It was there, or the records at this offset were.
    #[error("{what}: gone")]
    Gone {
        /// Its name.
        what: String,
        /// Where to go on, if the stream goes on.
        next: Option<String>,
    },
    /// The server wants another key.
    #[error("the server refuses the key: {message}")]
    Unauthorized {
        /// What it said.
        message: String,
    },
    /// The server wants a key.
    #[error("the server wants a key, and none was given: {message}")]
    KeyMissing {
        /// What it said.
        message: String,
    },
    /// The server does not let this client in, who has no key.
    #[error("the server refuses this: {message}")]
    Forbidden {
        /// What it said.
        message: String,
    },
    /// The stream is closed.
    #[error("{what}: closed at {tail}")]
    Closed {
        /// Its name.
        what: String,
        /// Where it ends.
        tail: String,
    },
    /// A producer with the same id has gone on.
    #[error("another producer has taken over with epoch {epoch}")]
    Fenced {
        /// The epoch in force.
        epoch: u64,
    },
    /// The producer's numbers do not fit what the server has.
    #[error("the server expects request {expected} of this producer, not {sent}")]
    OutOfSequence {
        /// What it expects.
        expected: u64,
        /// What it got.
        sent: u64,
    },
    /// The server takes appends of producers for any others.
    #[error("the server knows no producers: the request was appended, and would be again")]
    NoProducers,
    /// What is there stands in the way.
    #[error("{what}: {message}")]
    Conflict {
        /// What the request was about.
        what: String,
        /// What the server said.
        message: String,
    },
    /// What is there of this subscription stands in the way.
    #[error("subscription {id}: {message}")]
    SubscriptionConflict {
        /// Its name.
        id: String,
        /// What the server said.
        message: String,
    },
    /// The request is larger than the server takes.
    #[error("the server takes no request of this size: {message}")]
    TooLarge {
        /// What it said.
        message: String,
    },
    /// The server does not do this.
    #[error("the server does not do this ({status}): {message}")]
    Unsupported {
        /// The status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The request is wrong.
    #[error("refused ({status}): {message}")]
    Refused {
        /// The status.
        status: u16,
        /// What the server said.
        message: String,
    },
    /// The server could not do it now, nor in the time there was.
    #[error("the server {} ({status}): {message}", state(*status))]
    Busy {
        /// The status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The answer is none of this protocol.
    #[error("the answer makes no sense: {0}")]
    Strange(String),
}

impl Error {
    /// Whether the server has refused the request and done nothing.
    #[must_use]
    pub const fn did_nothing(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::NoSubscription { .. }
            | Self::Gone { .. }
            | Self::Unauthorized { .. }
            | Self::KeyMissing { .. }
            | Self::Forbidden { .. }
            | Self::Closed { .. }
            | Self::Fenced { .. }
            | Self::OutOfSequence { .. }
            | Self::Conflict { .. }
            | Self::SubscriptionConflict { .. }
            | Self::TooLarge { .. }
            | Self::Unsupported { .. }
            | Self::Refused { .. } => true,
            Self::Unreachable { .. }
            | Self::BrokenOff { .. }
            | Self::Unknown { .. }
            | Self::SubscriptionUnknown { .. }
            | Self::NoProducers
            | Self::Busy { .. }
            | Self::Strange(_) => false,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Gone { next: Some(next), .. } => {
                format!("what is left begins at --from {next}")
            }
            Self::SubscriptionUnknown { id, .. } => {
                format!(
                    "`weir sub ls {id}` says what is acked. Work that was taken unheard comes back \
                     when its lease ends: then the same command takes what is left"
                )
            }
            Self::Conflict { what, .. } => {
                format!(
                    "`weir head {what}` says what is there; take another name, or `weir rm {what}` \
                     first"
                )
            }
            Self::SubscriptionConflict { id, message } if is_lease(message) => {
                format!(
                    "another worker has the work, or this one took too long: wait until the lease \
                     has ended and call again. `weir sub ls {id}` says what is acked"
                )
            }
            Self::SubscriptionConflict { id, .. } => {
                format!(
                    "`weir sub ls {id}` says what is there; take another ID, or `weir sub rm {id}` \
                     first"
                )
            }
            error => error.usual_advice().to_owned(),
        })
    }

    /// What to do next, which says nothing of its own.
    const fn usual_advice(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "is a server running there? `weir local start` (or `weir serve`) starts one and \
                 says its URL, `weir local status` lists those that run; --url or WEIR_URL name \
                 another; --retry-for TIME waits for one that is about to start"
            }
            Self::BrokenOff { .. } => {
                "a proxy between may cut answers off, by their size or by how long they take; \
                 --url may name the server itself, and --retry-for TIME tries longer. Where the \
                 server is yours, smaller pages (`--read-bytes-max`) may come through"
            }
            Self::Unknown { .. } => {
                "read the stream's end to see; what has a --producer-id is sent again safely: a \
                 file or what comes by a pipe as a whole, a message with its number: `weir append \
                 STREAM -m TEXT --producer-id ID --producer-seq 0`, the next one with 1"
            }
            Self::NotFound { .. } => {
                "`weir ls` lists streams, `weir create` makes one; is the path in --url right?"
            }
            Self::NoSubscription { .. } => {
                "`weir sub create` makes one; the protocol has no list of subscriptions"
            }
            Self::Gone { .. } => "it was deleted; take another name while forks of it are left",
            Self::Unauthorized { .. } => {
                "is it this server's? --auth KEY or WEIR_AUTH give another"
            }
            Self::KeyMissing { .. } => "give the server's key as --auth KEY or WEIR_AUTH",
            Self::Forbidden { .. } => {
                "is it the right server, by its own name? If it wants a key, give it as --auth KEY \
                 or WEIR_AUTH"
            }
            Self::Closed { .. } => "a closed stream stays closed; `weir fork` makes one to go on",
            Self::Fenced { .. } => "two run with one --producer-id: stop one, or take another id",
            Self::OutOfSequence { .. } => {
                "two run with one --producer-id, or the stream or the server's memory of the \
                 producer was made anew: take another id"
            }
            Self::NoProducers => {
                "append what is missing without --producer-id; after a lost answer look at the \
                 stream's end"
            }
            Self::TooLarge { .. } => {
                "send less at a time: --ndjson or --lines with a smaller --batch; a single message \
                 must fit (this server: --body-max)"
            }
            Self::Busy { status: BACKLOG, .. } => {
                "more is written than it can put away, and it keeps a bound on what waits: nothing \
                 was done. What waits for the bucket, and whether that answers, is in `weir \
                 details` under store.publishing (backlog_bytes); send less, or wait longer with \
                 --retry-for"
            }
            Self::Busy { .. } => "try again; `/health` of the server says more",
            Self::Strange(_) => "is this a durable-streams server, and its path in --url?",
            Self::Unsupported { .. } => {
                "it is no part of the protocol, and not every server has it; is the path in --url \
                 right?"
            }
            Self::Refused { .. }
            | Self::Conflict { .. }
            | Self::SubscriptionConflict { .. }
            | Self::SubscriptionUnknown { .. } => {
                "the message says what is wrong; --help, what each flag wants"
            }
        }
    }

    /// What an answer with an unexpected status means for a request about `what`.
    pub(super) async fn of(
        what: &str,
        status: StatusCode,
        headers: &HeaderMap,
        key: Key,
        body: Incoming,
    ) -> Self {
        let body = Limited::new(body, REFUSAL_BYTES_MAX).collect().await;
        // Whatever keeps the words away, the status is there.
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let message = message(&body)
            .unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_owned());
        let text =
            |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
        let what = what.to_owned();
        match status.as_u16() {
            401 if key == Key::Missing => Self::KeyMissing { message },
            401 => Self::Unauthorized { message },
            403 => match (number("producer-epoch"), key) {
                (Some(epoch), _) => Self::Fenced { epoch },
                (None, Key::Given) => Self::Unauthorized { message },
                (None, Key::Missing) => Self::Forbidden { message },
            },
            404 => Self::NotFound { what },
            410 => Self::Gone { what, next: text("stream-next-offset") },
            409 if text("stream-closed").is_some() => {
                Self::Closed { what, tail: text("stream-next-offset").unwrap_or_default() }
            }
            409 => match number("producer-expected-seq") {
                Some(expected) => Self::OutOfSequence {
                    expected,
                    sent: number("producer-received-seq").unwrap_or(expected),
                },
                None => Self::Conflict { what, message },
            },
            413 => Self::TooLarge { message },
            405 | 501 => Self::Unsupported { status: status.as_u16(), message },
            408 | 429 | 500.. => Self::Busy { status: status.as_u16(), message },
            status => Self::Refused { status, message },
        }
    }
}

/// What a server is that does not do it now.
const fn state(status: u16) -> &'static str {
    match status {
        BACKLOG => "takes no more for now",
        _ => "is busy or broken",
    }
}

/// Whether a refusal is about who has the work of a subscription, not about what that is.
fn is_lease(message: &str) -> bool {
    message.contains(ALREADY_CLAIMED) || message.contains(FENCED)
}

/// The words of a refusal: the message of a JSON error, or the text itself.
fn message(body: &[u8]) -> Option<String> {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let of_json = json.as_ref().and_then(|json| {
        let error = json.get("error")?;
        let (code, message) = (error.get("code"), error.get("message").or(Some(error)));
        match (code.and_then(Value::as_str), message.and_then(Value::as_str)) {
            (Some(code), Some(message)) => Some(format!("{message} [{code}]")),
            (None, Some(message)) => Some(message.to_owned()),
            _ => None,
        }
    });
    let text = of_json.or_else(|| Some(String::from_utf8_lossy(body).trim().to_owned()))?;
    let text: String = text.chars().filter(|it| !it.is_control()).take(SHOWN_MAX).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_refusal_are_found() {
        for (body, expect) in [
            (r#"{"error":{"code":"X","message":"no"}}"#, Some("no [X]")),
            (r#"{"error":"no"}"#, Some("no")),
            ("plain\n", Some("plain")),
            ("\u{1b}[31mred", Some("[31mred")),
            ("", None),
        ] {
            assert_eq!(message(body.as_bytes()).as_deref(), expect, "{body}");
        }
    }

    #[test]
    fn every_error_a_person_can_do_something_about_says_what() {
        let what = || "s".to_owned();
        for (error, advice) in [
            (Error::Unreachable { server: what(), reason: what() }, "weir local start"),
            (Error::Unreachable { server: what(), reason: what() }, "weir local status"),
            (Error::Unknown { reason: what() }, "--producer-id"),
            (Error::NotFound { what: what() }, "weir create"),
            (Error::NoSubscription { id: what() }, "weir sub create"),
            (Error::Gone { what: what(), next: Some("0_4".to_owned()) }, "--from 0_4"),
            (Error::Gone { what: what(), next: None }, "another name"),
            (Error::Unauthorized { message: what() }, "--auth"),
            (Error::KeyMissing { message: what() }, "--auth KEY or WEIR_AUTH"),
            (Error::Forbidden { message: what() }, "--auth KEY"),
            (Error::Unreachable { server: what(), reason: what() }, "--retry-for"),
            (Error::Closed { what: what(), tail: what() }, "weir fork"),
            (Error::Fenced { epoch: 3 }, "another id"),
            (Error::OutOfSequence { expected: 1, sent: 2 }, "another id"),
            (Error::NoProducers, "without --producer-id"),
            (Error::Conflict { what: what(), message: what() }, "weir head s"),
            (Error::Conflict { what: what(), message: what() }, "weir rm s"),
            (Error::SubscriptionConflict { id: what(), message: what() }, "weir sub rm s"),
            (
                Error::SubscriptionConflict { id: what(), message: "no [FENCED]".to_owned() },
                "lease",
            ),
            (
                Error::SubscriptionConflict { id: what(), message: "[ALREADY_CLAIMED]".to_owned() },
                "weir sub ls s",
            ),
            (Error::SubscriptionUnknown { id: what(), reason: what() }, "weir sub ls s"),
            (Error::BrokenOff { server: what(), reason: what() }, "--read-bytes-max"),
            (Error::TooLarge { message: what() }, "--batch"),
            (Error::Unsupported { status: 404, message: what() }, "is the path in --url right?"),
            (Error::Refused { status: 400, message: what() }, "--help"),
            (Error::Busy { status: 503, message: what() }, "/health"),
            (Error::Busy { status: 429, message: what() }, "backlog_bytes"),
            (Error::Strange(what()), "--url"),
        ] {
            let told = error.advice();
            assert!(told.as_ref().is_some_and(|it| it.contains(advice)), "{error}: {told:?}");
        }
    }
}
