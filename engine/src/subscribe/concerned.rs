//! What a stream remembers of whom it concerns, so that an append need not ask the index.

use std::sync::Arc;

use super::subscription::Subscription;

/// Most subscriptions that a stream remembers: 100,000 streams in memory take 50 MB for it. Of
/// more the index is asked at each commit, which touches every one of them anyway.
const REMEMBERED_MAX: usize = 64;

/// Whom a stream concerns, as of a version of the set of subscriptions.
#[derive(Default)]
pub(crate) struct Concerned {
    /// 0: nothing is remembered.
    version: u64,
    whom: Option<Arc<[Arc<Subscription>]>>,
}

impl Concerned {
    /// Nothing is remembered of too many.
    pub(crate) fn new(version: u64, whom: Arc<[Arc<Subscription>]>) -> Self {
        match whom.len() > REMEMBERED_MAX {
            true => Self::default(),
            false => Self { version, whom: Some(whom) },
        }
    }

    /// What is remembered, if it is still true.
    pub(crate) fn at(&self, version: u64) -> Option<Arc<[Arc<Subscription>]>> {
        self.whom.clone().filter(|_| self.version == version)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            entry::Number,
            request::{Delivery, Subscribe, SubscriptionId},
        },
        *,
    };
    use crate::types::WallMs;

    #[test]
    fn a_stream_remembers_a_few_and_asks_again_of_many() {
        let config = Arc::new(Subscribe {
            id: SubscriptionId::new("s").expect("a good id"),
            pattern: None,
            base: None,
            streams: Vec::new(),
            delivery: Delivery::Webhook { url: "https://example.com".to_owned() },
            lease_ttl_ms: 1000,
            description: None,
        });
        let one =
            |number| Subscription::new(Number::new(number), Arc::clone(&config), WallMs::ZERO);
        for (count, expect) in [(0, true), (64, true), (65, false), (10_000, false)] {
            let whom: Arc<[_]> = (0..count).map(one).map(Arc::new).collect();
            let concerned = Concerned::new(7, whom);
            assert_eq!(concerned.at(7).is_some(), expect, "{count}");
            assert!(concerned.at(8).is_none());
        }
    }
}
