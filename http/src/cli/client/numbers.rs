//! Messages that are numbered by whoever appends them, each stored once.
//!
//! The number says which message of the producer it is, so this machine remembers nothing, and any
//! other may send it again. The server compares numbers and no texts: a message whose number was
//! used is not appended, whatever it says, and that is told.

use bytes::Bytes;

use super::{exit::Told, once::Sent};
use crate::client::{Done, Error, Producer};

/// A producer whose next message has a given number.
pub(super) struct Numbers {
    producer: Producer,
    id: String,
    /// The last number that was used, of a message that was there before.
    last: Option<u64>,
}

impl Numbers {
    /// A producer that has come to the first number that was given.
    pub(super) fn new(producer: Producer, id: &str) -> Self {
        Self { producer, id: id.to_owned(), last: None }
    }

    /// Appends the message of the next number.
    pub(super) async fn send(&mut self, body: Bytes) -> anyhow::Result<Sent> {
        match self.producer.append(body, false).await {
            Ok(Done::Now(position)) => Ok(Sent::Now(position)),
            Ok(Done::Before { last, .. }) => {
                self.last = Some(last);
                Ok(Sent::Before)
            }
            Err(error) => {
                let told = self.passed_over(&error);
                let error = anyhow::Error::from(error);
                Err(match told {
                    Some(told) => error.context(told),
                    None => error,
                })
            }
        }
    }

    /// What to do about a number before which others are missing.
    fn passed_over(&self, error: &Error) -> Option<Told> {
        let Error::OutOfSequence { expected, .. } = error else { return None };
        let what = format!("no message of the producer {} may be left out", self.id);
        let advice = format!("the next one has --producer-seq {expected}");
        Some(Told { what, advice })
    }

    /// Said of messages that were there before.
    pub(super) fn before(&self) -> Option<String> {
        let (id, last) = (&self.id, self.last?);
        let next = last.saturating_add(1);
        Some(format!(
            "the producer {id} has appended its messages up to number {last} before: none of them \
             is appended again, whatever it says now. The next one has --producer-seq {next}"
        ))
    }
}
