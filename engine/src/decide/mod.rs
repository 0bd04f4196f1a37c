//! What one request does to one stream. Pure: the same state and the same request give the
//! same answer, without clock, disk or lock. The sequencer turns a [`Verdict`] into log entries.

pub(crate) mod append;
pub(crate) mod create;
pub(crate) mod expiry;
mod producer;
pub(crate) mod retention;
#[cfg(test)]
mod tests;

use crate::types::{StoreMs, WallMs};

/// The moment a decision is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall: WallMs,
    pub(crate) store: StoreMs,
}

/// What a decision asks for: an answer, and perhaps a change.
#[derive(Debug)]
pub(crate) struct Verdict<A, C> {
    pub(crate) answer: A,
    pub(crate) change: Option<C>,
}

impl<A, C> Verdict<A, C> {
    const fn unchanged(answer: A) -> Self {
        Self { answer, change: None }
    }
}
