//! The writes of one commit, by stream: what concerns many subscriptions is told them once per
//! commit, not once per append.

use std::{collections::BTreeMap, sync::Arc};

use super::registry::Registry;
use crate::{
    state::view::Stream,
    types::{Lsn, Offset, StreamId},
};

/// Writes that subscriptions have not been told of.
#[derive(Default)]
pub(crate) struct Touches {
    streams: BTreeMap<StreamId, Touch>,
}

struct Touch {
    stream: Arc<Stream>,
    before: Offset,
    after: Offset,
}

impl Touches {
    /// A stream's tail was `before` and is `after`.
    pub(crate) fn wrote(&mut self, stream: &Arc<Stream>, before: Offset, after: Offset) {
        if before == after {
            return;
        }
        let touch = self.streams.entry(stream.identity.id);
        touch.and_modify(|touch| touch.after = after).or_insert_with(|| Touch {
            stream: Arc::clone(stream),
            before,
            after,
        });
    }

    /// Tells the subscriptions. Due before anything in the same commit that changes or ends what
    /// the writes were about.
    pub(crate) fn flush(&mut self, registry: &Registry, lsn: Lsn) {
        for Touch { stream, before, after } in std::mem::take(&mut self.streams).into_values() {
            registry.wrote(&stream, before, after, lsn);
        }
    }
}
