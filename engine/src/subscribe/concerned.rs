//! What a stream remembers of whom it concerns, so that an append need not ask the index.

use std::sync::Arc;

use super::subscription::Subscription;

/// Whom a stream concerns, as of a version of the set of subscriptions.
#[derive(Default)]
pub(crate) struct Concerned {
    /// 0: nothing is remembered.
    version: u64,
    whom: Option<Arc<[Arc<Subscription>]>>,
}

impl Concerned {
    pub(crate) const fn new(version: u64, whom: Arc<[Arc<Subscription>]>) -> Self {
        Self { version, whom: Some(whom) }
    }

    /// What is remembered, if it is still true.
    pub(crate) fn at(&self, version: u64) -> Option<Arc<[Arc<Subscription>]>> {
        self.whom.clone().filter(|_| self.version == version)
    }
}
