//! Requests that nobody answered and that can have no effect any more: the machine that may have
//! heard them was restarted, or had more time than any request can take. In between, what they may
//! do stays open.

use weir_engine::{subscribe::SubscriptionId, types::StreamName};

use super::Model;

/// What a request without an answer may have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Ended a stream.
    Deletion(StreamName),
    /// Made a stream.
    Creation(StreamName),
    /// Wrote its records.
    Records(usize),
    /// Gave a stream other limits.
    Limits(StreamName),
    /// Made or ended a subscription, or changed its links.
    Change(SubscriptionId),
}

impl Model {
    /// Nothing comes of such a request any more.
    pub fn passed(&mut self, doubt: &Doubt) {
        match doubt {
            Doubt::Deletion(name) => {
                weir_io::sometimes!("a deletion that nobody answered was over");
                let named = self.names.entry(name.clone()).or_default();
                named.deletions_open = named.deletions_open.saturating_sub(1);
                named.deletions += 1;
            }
            Doubt::Creation(name) => {
                let named = self.names.entry(name.clone()).or_default();
                named.creations_open = named.creations_open.saturating_sub(1);
                named.creations += 1;
                if let Some(plan) = &mut named.plan {
                    plan.doubts = plan.doubts.saturating_sub(1);
                }
            }
            Doubt::Records(id) => self.answered(*id),
            Doubt::Limits(name) => {
                weir_io::sometimes!("what nobody was told of limits was over");
                let named = self.names.entry(name.clone()).or_default();
                named.changes_open = named.changes_open.saturating_sub(1);
                named.changes += 1;
            }
            Doubt::Change(id) => {
                if let Some(known) = self.subscriptions.get_mut(id) {
                    known.over = known.busy;
                }
            }
        }
    }

    /// Whether the creation under a name that forks use has come to its end, but for what there is
    /// now: nobody was told.
    #[must_use]
    pub fn is_doubtful(&self, name: &StreamName) -> bool {
        let plan = self.names.get(name).and_then(|named| named.plan.as_ref());
        plan.is_some_and(|plan| plan.open == 0 && plan.doubts == 0)
    }

    /// Whether the last change of a subscription has come to its end, but for what there is now.
    #[must_use]
    pub fn is_unsettled(&self, id: &SubscriptionId) -> bool {
        self.subscriptions.get(id).is_some_and(|known| known.busy && known.over)
    }
}
