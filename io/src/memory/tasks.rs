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

/// One result in so many comes late, and of these one in so many very late.
const LATE: u32 = 4;
const VERY_LATE: u32 = 8;
/// So many times as late as others, and no later than this.
const VERY_LATE_TIMES: u32 = 40;
const LATE_MAX: Duration = Duration::from_millis(500);

impl Latency {
    /// Results come at once, or after about as long as their jobs waited, or so late that others have
    /// done much in between.
    fn lag(&mut self) -> Option<Duration> {
        // A machine whose jobs all take equally long is one without surprises.
        if self.range.is_empty() || !self.chance.random_ratio(1, LATE) {
            return None;
        }
        let times = if self.chance.random_ratio(1, VERY_LATE) { VERY_LATE_TIMES } else { 1 };
        Some((self.draw() * times).min(LATE_MAX))
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

    fn lag(&self) -> Option<Duration> {
        self.latency.lock().lag()
    }
}
