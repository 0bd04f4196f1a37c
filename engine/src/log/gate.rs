//! What the requests of one group wait for.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// How a group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is durable and visible.
    Durable,
    /// The disk was full; it is known not to be stored.
    Full,
    /// Nobody knows until a restart.
    Unknown,
}

/// Opens once, when the fate of its group is known.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// 0 while pending, else the outcome.
    outcome: AtomicU8,
    opened: Notify,
}

impl Gate {
    pub(crate) fn open(&self, outcome: Outcome) {
        let code = match outcome {
            Outcome::Durable => 1,
            Outcome::Full => 2,
            Outcome::Unknown => 3,
        };
        let before = self.outcome.swap(code, Ordering::AcqRel);
        assert!(before == 0, "a group has one fate");
        self.opened.notify_waiters();
    }

    pub(crate) fn is_open(&self) -> bool {
        self.outcome().is_some()
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match self.outcome.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Outcome::Durable),
            2 => Some(Outcome::Full),
            _ => Some(Outcome::Unknown),
        }
    }

    /// Waits for the fate of the group.
    pub(crate) async fn wait(&self) -> Outcome {
        loop {
            let opened = self.opened.notified();
            let mut opened = std::pin::pin!(opened);
            // Enlist before looking, or an opening in between would be missed.
            opened.as_mut().enable();
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            opened.await;
        }
    }
}
