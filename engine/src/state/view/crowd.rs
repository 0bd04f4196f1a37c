//! Who waits for which stream, and for which of them the most do: kept in order as they come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Stream;
use crate::types::{StreamId, StreamName};

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Records.
    Read,
    /// A change of what inspection tells.
    Look,
}

/// How many wait for a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) readers: u32,
    pub(crate) lookers: u32,
}

/// The streams that somebody waits for.
#[derive(Default)]
pub(crate) struct Crowds {
    by_stream: BTreeMap<StreamId, (Arc<Stream>, Waiting)>,
    ranked: BTreeSet<(u32, StreamId)>,
}

impl Waiting {
    const fn total(self) -> u32 {
        self.readers + self.lookers
    }

    const fn count(&mut self, wait: Wait) -> &mut u32 {
        match wait {
            Wait::Read => &mut self.readers,
            Wait::Look => &mut self.lookers,
        }
    }
}

impl Crowds {
    pub(crate) fn enter(&mut self, stream: &Arc<Stream>, wait: Wait) {
        let id = stream.identity.id;
        let fresh = || (Arc::clone(stream), Waiting::default());
        let (_, waiting) = self.by_stream.entry(id).or_insert_with(fresh);
        self.ranked.remove(&(waiting.total(), id));
        *waiting.count(wait) += 1;
        self.ranked.insert((waiting.total(), id));
    }

    pub(crate) fn leave(&mut self, stream: &Stream, wait: Wait) {
        let id = stream.identity.id;
        let (_, waiting) = self.by_stream.get_mut(&id).expect("whoever leaves has entered");
        assert!(self.ranked.remove(&(waiting.total(), id)), "what is waited for has a rank");
        *waiting.count(wait) -= 1;
        match waiting.total() {
            0 => drop(self.by_stream.remove(&id)),
            left => drop(self.ranked.insert((left, id))),
        }
    }

    /// Wakes all readers.
    pub(crate) fn ring(&self) {
        self.by_stream.values().for_each(|(stream, _)| stream.bell.notify_waiters());
    }

    /// The streams for which the most wait, most first.
    pub(crate) fn largest(&self, count: usize) -> Vec<(StreamName, Waiting)> {
        let ids = self.ranked.iter().rev().take(count).map(|(_, id)| id);
        let found = ids.filter_map(|id| self.by_stream.get(id));
        found.map(|(stream, waiting)| (stream.identity.name.clone(), *waiting)).collect()
    }
}
