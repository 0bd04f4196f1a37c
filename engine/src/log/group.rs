//! A group: the entries that will become durable together, as bytes for the log and as effects
//! for the state. The sequencer fills it, the writer commits it.

use std::sync::Arc;

use bytes::BytesMut;

use super::{commit, entry, gate::Gate};
use crate::{
    limits,
    state::{stream::Producer, view::Stream},
    subscribe::subscription,
    types::Lsn,
};

/// Room of the first group: a few small entries.
const FIRST_BYTES: usize = 512;
/// Room that a group is given at most because the one before it was as large.
const ROOM_BYTES_MAX: usize = 256 << 10;

/// Entries that will become durable together.
pub(crate) struct Group {
    pub(crate) lsn: Lsn,
    /// Room for the commit header, then the entries.
    pub(crate) bytes: BytesMut,
    pub(crate) effects: Vec<Effect>,
    pub(crate) entries: u32,
    /// How many requests of clients have something in it.
    pub(crate) admitted: usize,
    pub(crate) gate: Arc<Gate>,
}

impl Group {
    pub(crate) fn new(lsn: Lsn) -> Self {
        Self::with_room(lsn, FIRST_BYTES, 0)
    }

    /// The one after this. As load changes slowly it gets room for as much as this one has.
    pub(crate) fn next(&self) -> Self {
        let bytes = self.bytes.len().clamp(FIRST_BYTES, ROOM_BYTES_MAX);
        Self::with_room(self.lsn.next(), bytes + bytes / 4, self.effects.len())
    }

    fn with_room(lsn: Lsn, bytes: usize, effects: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(bytes);
        bytes.resize(commit::HEADER_BYTES, 0);
        let effects = Vec::with_capacity(effects);
        Self { lsn, bytes, effects, entries: 0, admitted: 0, gate: Arc::default() }
    }

    /// Whether nothing begins or ends with it, and nobody's subscription changes.
    pub(crate) fn only_writes(&self) -> bool {
        let is_write =
            |it: &Effect| matches!(it, Effect::Stream { change: Change::Write { .. }, .. });
        self.effects.iter().all(is_write)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= limits::GROUP_BYTES_MAX
            || self.effects.len() >= limits::GROUP_ENTRIES_MAX
    }
}

/// What an entry does once it is durable.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every effect is a write; a box would be an allocation per append"
)]
pub(crate) enum Effect {
    Stream { stream: Arc<Stream>, change: Change },
    Subscription(Box<subscription::Change>),
}

impl Effect {
    /// The stream that it changes, if it is one.
    pub(crate) const fn stream(&self) -> Option<&Arc<Stream>> {
        match self {
            Self::Stream { stream, .. } => Some(stream),
            Self::Subscription(_) => None,
        }
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly every change is a write; a box would be an allocation per append"
)]
pub(crate) enum Change {
    Born,
    Write {
        write: entry::Write,
        /// Where its payload lies in the group's bytes.
        payload: std::ops::Range<usize>,
        after: Option<Producer>,
    },
    Dead,
    /// Deleted, but kept for its forks.
    Retired,
    /// A fork draws on it.
    Referred,
    /// A fork that drew on it has ended.
    Released,
    Renew(crate::types::StoreMs),
    /// It has let go of its oldest records.
    Trim(entry::Trim),
    /// It is given other limits.
    Retain(crate::types::Retention),
}
