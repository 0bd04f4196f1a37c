//! How many calls each receiver gets at once, so that one that hangs takes no room from others.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls of one receiver at a time.
const CALLS_MAX: usize = 16;

/// The receivers that somebody calls or waits to call; others take no memory.
#[derive(Default)]
pub(super) struct Hosts {
    visited: Mutex<BTreeMap<String, Visited>>,
}

struct Visited {
    visitors: usize,
    calls: Arc<Semaphore>,
}

impl Hosts {
    /// Announces a call to a receiver, named by its authority.
    pub(super) fn enter(self: &Arc<Self>, authority: String) -> Visitor {
        let mut visited = self.visited.lock();
        let host = visited
            .entry(authority.clone())
            .or_insert_with(|| Visited { visitors: 0, calls: Arc::new(Semaphore::new(CALLS_MAX)) });
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
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut visited = self.hosts.visited.lock();
        let host = visited.get_mut(&self.authority).expect("entered, and counted since");
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
        let visitors: Vec<_> = (0..=CALLS_MAX).map(|_| hosts.enter("a".to_owned())).collect();
        let mut rooms = Vec::new();
        for visitor in &visitors[..CALLS_MAX] {
            rooms.push(visitor.room().await);
        }
        let last = visitors[CALLS_MAX].room();
        let day = std::time::Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, last).await.is_err());
        drop(hosts.enter("b".to_owned()).room().await);
        rooms.pop();
        drop(visitors[CALLS_MAX].room().await);
        drop((rooms, visitors));
        assert!(hosts.visited.lock().is_empty());
    }
}
