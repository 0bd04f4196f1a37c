//! Clock, chance, tasks and blocking jobs of one boot, all on the simulation's thread.
//!
//! Nothing here touches a real clock or starts a thread: time is tokio's, which the
//! simulation pauses and advances.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use super::{EPOCH_MS, Latency, MemoryDisk};
use crate::{
    Clock, Disk, Entropy,
    tasks::{Blocking, Job, Lane, Lanes, Tasks, Work},
};

/// Simulated time, and a wall clock that the harness may move.
#[derive(Debug)]
pub struct MemoryClock {
    /// Simulated time when this boot's runtime started.
    booted_at: Duration,
    booted: Instant,
    wall_offset_ms: Arc<AtomicI64>,
}

impl MemoryClock {
    pub(super) fn new(booted_at: Duration, wall_offset_ms: Arc<AtomicI64>) -> MemoryClock {
        MemoryClock { booted_at, booted: Instant::now(), wall_offset_ms }
    }
}

impl Clock for MemoryClock {
    fn wall_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.elapsed().as_millis());
        let since = elapsed.expect("milliseconds of a simulation fit 64 bits");
        (EPOCH_MS + since).saturating_add_signed(self.wall_offset_ms.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        self.booted_at + self.booted.elapsed()
    }
}

/// Chance from the seed.
#[derive(Debug)]
pub struct MemoryEntropy {
    chance: Mutex<ChaCha8Rng>,
}

impl MemoryEntropy {
    /// Hands out what `chance` draws.
    #[must_use]
    pub fn new(chance: ChaCha8Rng) -> MemoryEntropy {
        MemoryEntropy { chance: Mutex::new(chance) }
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.chance.lock().clone().next_u64()
    }
}

impl Entropy for MemoryEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        self.chance.lock().fill_bytes(buffer);
    }
}

/// Spawns on the current runtime. Lanes need a `LocalSet` around the caller, which a
/// simulated host has.
#[derive(Clone, Debug)]
pub struct MemoryTasks {
    lanes: Lanes,
}

impl MemoryTasks {
    pub(super) fn new() -> MemoryTasks {
        MemoryTasks { lanes: Lanes::new() }
    }
}

impl Tasks for MemoryTasks {
    fn spawn(&self, _name: &'static str, work: Work) {
        // Detached: the runtime of the host ends it.
        drop(tokio::spawn(work));
    }

    fn dedicate(&self, _name: &'static str, lane: Lane) {
        let running = self.lanes.enter();
        drop(tokio::task::spawn_local(async move {
            let _running = running;
            lane().await;
        }));
    }

    fn lanes_ended(&self) -> Work {
        self.lanes.ended()
    }
}

/// Runs a job inline, after a seeded wait on simulated time.
#[derive(Clone)]
pub struct MemoryBlocking {
    disk: MemoryDisk,
    latency: Arc<Mutex<Latency>>,
}

impl MemoryBlocking {
    pub(super) fn new(disk: MemoryDisk, latency: Arc<Mutex<Latency>>) -> MemoryBlocking {
        MemoryBlocking { disk, latency }
    }
}

impl Latency {
    fn draw(&mut self) -> Duration {
        if self.range.is_empty() {
            return self.range.start;
        }
        self.chance.random_range(self.range.clone())
    }
}

impl Blocking for MemoryBlocking {
    fn submit(&self, job: Job) {
        let wait = self.latency.lock().draw();
        let disk = self.disk.clone();
        drop(tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if disk.is_dead() {
                // Kept, not dropped: a closed reply channel would tell the submitter.
                std::future::pending::<()>().await;
            }
            job();
        }));
    }

    fn is_dead(&self) -> bool {
        self.disk.is_dead()
    }

    fn pause(&self) -> Option<Duration> {
        Some(self.latency.lock().draw())
    }
}
