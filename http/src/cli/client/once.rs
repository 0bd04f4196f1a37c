//! Requests that are carried out exactly once, and which of an input's they are.
//!
//! The producer has a name, and the journal says of which input its requests were made: nothing is
//! passed over that is not what was sent.

use anyhow::{Context as _, bail};
use bytes::Bytes;

use super::{
    cut::Mark,
    journal::{Journal, Resume, Slot},
};
use crate::client::{Done, Error, Position, Producer};

/// Said of an input that is not the one from before.
pub(super) const DIFFERS: &str = "this is not the input that the producer has begun with: what it \
                                  has appended is not what this begins with; take another \
                                  --producer-id for another input";

/// A producer and what it has done.
pub(super) struct Once {
    producer: Producer,
    journal: Journal,
    /// The request that was sent last, to be made again.
    again: Option<Slot>,
    /// What the server has.
    last: Option<Slot>,
}

/// What became of a request.
pub(super) enum Sent {
    /// It was carried out now.
    Now(Position),
    /// It was carried out before.
    Before,
}

impl Once {
    /// A producer of this name, and what its journal says.
    pub(super) const fn new(producer: Producer, journal: Journal, resume: Resume) -> Self {
        let Resume { base, again } = resume;
        Self { producer, journal, again, last: base }
    }

    /// What of the input the server has for sure.
    pub(super) fn base(&self) -> Option<Mark> {
        self.last.as_ref().map(|slot| slot.mark)
    }

    /// Where the request ends that has to be made again.
    pub(super) fn again(&self) -> Option<u64> {
        self.again.as_ref().filter(|slot| !slot.closed).map(|slot| slot.mark.bytes)
    }

    /// Requests that were carried out before this process.
    pub(super) fn before(&self) -> u64 {
        self.last.as_ref().map_or(0, |slot| slot.requests)
    }

    /// Carries out the next request, which ends at `mark`.
    pub(super) async fn send(&mut self, body: Bytes, mark: Mark) -> anyhow::Result<Sent> {
        self.note(body, mark, false).await
    }

    async fn note(&mut self, body: Bytes, mark: Mark, closed: bool) -> anyhow::Result<Sent> {
        let Self { producer, journal, again, last } = self;
        let number = producer.next();
        let slot = Slot { requests: number + 1, mark, closed, sure: false };
        let repeats = match again.take() {
            Some(before) if before == slot => true,
            Some(_) => bail!(DIFFERS),
            None => {
                journal.note(&slot).await?;
                false
            }
        };
        let done = match producer.append(body, closed).await {
            Ok(Done::Before { last, .. }) if !repeats || last > number => {
                journal.forget(slot.requests).await?;
                bail!(
                    "the producer has carried out {} requests already, and this machine does not \
                     know of which input: take another --producer-id to append all of it",
                    last + 1
                );
            }
            Ok(done) => done,
            Err(Error::NoProducers) => {
                journal.note(&Slot { sure: true, ..slot }).await?;
                return Err(Error::NoProducers.into());
            }
            Err(error) => {
                if !repeats && error.did_nothing() {
                    journal.forget(slot.requests).await?;
                }
                let path = journal.path().display();
                return match error {
                    Error::OutOfSequence { .. } => Err(error).with_context(|| {
                        format!("{path} says that it was used; without that file it begins anew")
                    }),
                    error => Err(error.into()),
                };
            }
        };
        *last = Some(slot);
        Ok(match done {
            Done::Now(position) => Sent::Now(position),
            Done::Before { .. } => Sent::Before,
        })
    }

    /// Closes the stream. The whole input ends at `mark`.
    pub(super) async fn close(&mut self, mark: Mark) -> anyhow::Result<Sent> {
        if self.last.as_ref().is_some_and(|slot| slot.closed) {
            return Ok(Sent::Before);
        }
        self.note(Bytes::new(), mark, true).await
    }

    /// All that was sent was answered.
    pub(super) async fn settle(&self) -> anyhow::Result<()> {
        match (&self.last, &self.again) {
            (Some(slot), None) if !slot.sure => {
                self.journal.note(&Slot { sure: true, ..slot.clone() }).await
            }
            _ => Ok(()),
        }
    }
}
