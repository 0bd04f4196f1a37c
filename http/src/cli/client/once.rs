//! Requests that are carried out exactly once, and which of an input's they are.
//!
//! Either the producer's name is made of all the input and how it is cut: then its requests are
//! the same each time, and the server's count of them says enough. Or somebody named it: then the
//! journal says of which input its requests were made, and nothing is passed over that is not.

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
    memory: Memory,
}

enum Memory {
    /// The server's count.
    Count {
        /// So many of the next requests are carried out already.
        skip: u64,
        /// The stream is closed: whether by this producer, the request that closes it will say.
        closed: bool,
    },
    Journal {
        journal: Box<Journal>,
        /// The request that was sent last, to be made again.
        again: Option<Slot>,
        /// What the server has.
        last: Option<Slot>,
    },
}

/// What became of a request.
pub(super) enum Sent {
    /// It was carried out now.
    Now(Position),
    /// It was carried out before.
    Before,
}

impl Once {
    /// A producer whose name is that of the input.
    pub(super) const fn counted(producer: Producer) -> Self {
        Self { producer, memory: Memory::Count { skip: 0, closed: false } }
    }

    /// A producer whose name somebody gave.
    pub(super) fn remembered(producer: Producer, journal: Journal, resume: Resume) -> Self {
        let Resume { base, again } = resume;
        Self { producer, memory: Memory::Journal { journal: Box::new(journal), again, last: base } }
    }

    /// What of the input the server has for sure.
    pub(super) fn base(&self) -> Option<Mark> {
        match &self.memory {
            Memory::Count { .. } => None,
            Memory::Journal { last, .. } => last.as_ref().map(|slot| slot.mark),
        }
    }

    /// Where the request ends that has to be made again.
    pub(super) fn again(&self) -> Option<u64> {
        match &self.memory {
            Memory::Journal { again: Some(slot), .. } if !slot.closed => Some(slot.mark.bytes),
            _ => None,
        }
    }

    /// Whether parts of the input may be sent as they come. Otherwise the same input must make the
    /// same requests, however slowly it comes.
    pub(super) const fn may_linger(&self) -> bool {
        matches!(self.memory, Memory::Journal { .. })
    }

    /// Requests that were carried out before this process.
    pub(super) fn before(&self) -> u64 {
        match &self.memory {
            Memory::Count { .. } => 0,
            Memory::Journal { last, .. } => last.as_ref().map_or(0, |slot| slot.requests),
        }
    }

    /// Carries out the next request, which ends at `mark`.
    pub(super) async fn send(&mut self, body: Bytes, mark: Mark) -> anyhow::Result<Sent> {
        match &mut self.memory {
            Memory::Count { skip: skip @ 1.., .. } => {
                *skip -= 1;
                self.producer.pass();
                Ok(Sent::Before)
            }
            Memory::Count { closed: true, .. } => {
                self.producer.pass();
                Ok(Sent::Before)
            }
            Memory::Count { .. } => self.count(body).await,
            Memory::Journal { .. } => self.note(body, mark, false).await,
        }
    }

    async fn count(&mut self, body: Bytes) -> anyhow::Result<Sent> {
        let number = self.producer.next();
        let done = self.producer.append(body, false).await;
        let Memory::Count { skip, closed } = &mut self.memory else { unreachable!("counted") };
        match done {
            Ok(Done::Now(position)) => Ok(Sent::Now(position)),
            Ok(Done::Before { last, .. }) => {
                *skip = last.saturating_sub(number);
                Ok(Sent::Before)
            }
            Err(Error::Closed { .. }) if number == 0 => {
                *closed = true;
                self.producer.pass();
                Ok(Sent::Before)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn note(&mut self, body: Bytes, mark: Mark, closed: bool) -> anyhow::Result<Sent> {
        let number = self.producer.next();
        let Memory::Journal { journal, again, last } = &mut self.memory else {
            unreachable!("remembered")
        };
        let slot = Slot { requests: number + 1, mark, closed, sure: false };
        let repeats = match again.take() {
            Some(before) if before == slot => true,
            Some(_) => bail!(DIFFERS),
            None => {
                journal.note(&slot).await?;
                false
            }
        };
        let done = match self.producer.append(body, closed).await {
            Ok(Done::Before { last, .. }) if !repeats || last > number => {
                journal.forget(slot.requests).await?;
                bail!(
                    "the producer has carried out {} requests already, and this machine does not \
                     know of which input: take another --producer-id",
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
        match &self.memory {
            Memory::Count { skip: 1.., .. } => Ok(Sent::Before),
            Memory::Count { closed, .. } => {
                let was = *closed;
                let done = self.producer.append(Bytes::new(), true).await?;
                Ok(match done {
                    Done::Now(position) if !was => Sent::Now(position),
                    // It takes the same request of the same producer again, and no other.
                    _ => Sent::Before,
                })
            }
            Memory::Journal { last: Some(slot), .. } if slot.closed => Ok(Sent::Before),
            Memory::Journal { .. } => self.note(Bytes::new(), mark, true).await,
        }
    }

    /// Whether a stream that was found closed has yet to be shown to be closed by this producer.
    pub(super) const fn must_close(&self) -> bool {
        matches!(self.memory, Memory::Count { closed: true, .. })
    }

    /// All that was sent was answered.
    pub(super) async fn settle(&self) -> anyhow::Result<()> {
        match &self.memory {
            Memory::Journal { journal, last: Some(slot), again: None } if !slot.sure => {
                journal.note(&Slot { sure: true, ..slot.clone() }).await
            }
            _ => Ok(()),
        }
    }
}
