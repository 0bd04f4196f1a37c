//! How many calls each receiver gets at once, so that one that hangs takes no room from others;
//! and all together, so that many that hang leave some to those that answer.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use weir_engine::subscribe::Delivered;

/// Calls of one receiver at a time.
const CALLS_PER_HOST_MAX: usize = 16;
/// Calls at a time, to all receivers.
const CALLS_MAX: usize = 256;
/// Of these, calls to receivers that failed last time.
const CALLS_DOUBTFUL_MAX: usize = CALLS_MAX - 32;

/// What is expected of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    /// It failed last time.
    Doubtful,
}

/// The calls to all receivers.
pub(super) struct Calls {
    all: Semaphore,
    doubtful: Semaphore,
}

impl Default for Calls {
    fn default() -> Self {
        let (all, doubtful) = (Semaphore::new(CALLS_MAX), Semaphore::new(CALLS_DOUBTFUL_MAX));
        Self { all, doubtful }
    }
}

/// The right to call.
pub(super) struct Slot<'a> {
    _doubtful: Option<SemaphorePermit<'a>>,
    _one: SemaphorePermit<'a>,
}

impl Calls {
    /// Waits for the right to call; receivers that failed leave some to others.
    pub(super) async fn slot(&self, standing: Standing) -> Slot<'_> {
        let closed = "this semaphore is never closed";
        let doubtful = match standing {
            Standing::Good => None,
            Standing::Doubtful => Some(self.doubtful.acquire().await.expect(closed)),
        };
        Slot { _doubtful: doubtful, _one: self.all.acquire().await.expect(closed) }
    }
}

/// The receivers that somebody calls or waits to call; others take no memory.
#[derive(Default)]
pub(super) struct Hosts {
    visited: Mutex<BTreeMap<String, Visited>>,
}

struct Visited {
    visitors: usize,
    calls: Arc<Semaphore>,
    standing: Standing,
}

impl Hosts {
    /// Announces a call to a receiver, named by its authority.
    pub(super) fn enter(self: &Arc<Self>, authority: String) -> Visitor {
        let mut visited = self.visited.lock();
        let host = visited.entry(authority.clone()).or_insert_with(|| Visited {
            visitors: 0,
            calls: Arc::new(Semaphore::new(CALLS_PER_HOST_MAX)),
            standing: Standing::Good,
        });
        host.visitors += 1;
        let calls = Arc::clone(&host.calls);
        Visitor { hosts: Arc::clone(self), authority, calls }
    }
}

/// Somebody who calls a receiver or waits to.
pub(super) struct Visitor {
    hosts: Arc<Hosts>,
    authority: String,
    calls: Arc<Semaphore>,
}

impl Visitor {
    /// Waits for room at the receiver, first come, first served.
    pub(super) async fn room(&self) -> OwnedSemaphorePermit {
        let room = Arc::clone(&self.calls).acquire_owned().await;
        room.expect("this semaphore is never closed")
    }

    /// What is expected of the receiver, as long as somebody calls it or waits to.
    pub(super) fn standing(&self) -> Standing {
        self.hosts.visited.lock().get(&self.authority).expect(ENTERED).standing
    }

    /// A call went so.
    pub(super) fn went(&self, delivered: Delivered) {
        let standing = match delivered {
            Delivered::Done | Delivered::Accepted => Standing::Good,
            Delivered::Failed => Standing::Doubtful,
        };
        let mut visited = self.hosts.visited.lock();
        visited.get_mut(&self.authority).expect(ENTERED).standing = standing;
    }
}

const ENTERED: &str = "entered, and counted since";

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut visited = self.hosts.visited.lock();
        let host = visited.get_mut(&self.authority).expect(ENTERED);
        host.visitors -= 1;
        if host.visitors == 0 {
            visited.remove(&self.authority);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_receiver_keeps_only_its_own_waiting() {
        let hosts = Arc::new(Hosts::default());
        let visitors: Vec<_> =
            (0..=CALLS_PER_HOST_MAX).map(|_| hosts.enter("a".to_owned())).collect();
        let mut rooms = Vec::new();
        for visitor in &visitors[..CALLS_PER_HOST_MAX] {
            rooms.push(visitor.room().await);
        }
        let last = visitors[CALLS_PER_HOST_MAX].room();
        let day = std::time::Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, last).await.is_err());
        drop(hosts.enter("b".to_owned()).room().await);
        rooms.pop();
        drop(visitors[CALLS_PER_HOST_MAX].room().await);
        drop((rooms, visitors));
        assert!(hosts.visited.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn receivers_that_failed_leave_some_calls_to_others() {
        let day = std::time::Duration::from_secs(86_400);
        let calls = Calls::default();
        let mut slots = Vec::new();
        for _ in 0..CALLS_DOUBTFUL_MAX {
            slots.push(calls.slot(Standing::Doubtful).await);
        }
        let more = calls.slot(Standing::Doubtful);
        assert!(tokio::time::timeout(day, more).await.is_err());
        for _ in CALLS_DOUBTFUL_MAX..CALLS_MAX {
            slots.push(calls.slot(Standing::Good).await);
        }
        let more = calls.slot(Standing::Good);
        assert!(tokio::time::timeout(day, more).await.is_err(), "and nobody gets more than all");
    }

    #[test]
    fn a_receiver_is_known_by_its_last_call_as_long_as_it_is_called() {
        let hosts = Arc::new(Hosts::default());
        let (first, second) = (hosts.enter("a".to_owned()), hosts.enter("a".to_owned()));
        assert_eq!(second.standing(), Standing::Good);
        first.went(Delivered::Failed);
        drop(first);
        assert_eq!(second.standing(), Standing::Doubtful);
        second.went(Delivered::Accepted);
        assert_eq!(hosts.enter("a".to_owned()).standing(), Standing::Good);
    }
}
