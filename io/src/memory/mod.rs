//! The world that a seed can replay: one thread, tokio's paused clock, a disk in memory.
//!
//! A [`Machine`] outlives its boots. The harness keeps it, boots a [`World`] from it
//! inside the host's runtime, cuts its power through [`Drive`], and boots it again. Every
//! draw comes from the seed, each part on a `ChaCha` stream of its own, so that one more draw
//! in one part leaves the others as they were. The network is not the machine's: it stays up
//! while the machine is down.

mod content;
mod disk;
mod drive;
mod faults;
mod names;
mod net;
mod objects;
mod sqlite;
mod tasks;
mod trace;

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use content::Cut;
pub use disk::MemoryDisk;
pub use drive::{Drive, Moment, Op, Side};
pub use faults::Faults;
pub use net::{Hang, MemoryListener, MemoryOutbound, NetFaults};
pub use objects::{BucketFaults, MemoryBucket, Request, Verb};
pub use sqlite::{MemorySqlite, reseed_sqlite};
pub use tasks::{MemoryBlocking, MemoryClock, MemoryEntropy, MemoryTasks};
pub use trace::Trace;

use crate::{Process, World, process::Memory};

/// A process on a simulated machine: how much memory it occupies would differ from run to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryProcess;

impl Process for MemoryProcess {
    fn memory(&self) -> Option<Memory> {
        None
    }
}

/// Streams of the root seed used here. A simulator takes its own from [`STREAM_FREE`] up.
const STREAM_DRIVE: u64 = 1;
const STREAM_ENTROPY: u64 = 2;
const STREAM_LATENCY: u64 = 3;
const STREAM_SQLITE: u64 = 4;
const STREAM_NETWORK: u64 = 5;
const STREAM_BUCKET: u64 = 6;
/// The first stream of a seed that this crate never draws from.
pub const STREAM_FREE: u64 = 16;

/// 2026-01-01T00:00:00Z, when every simulation begins.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

/// How long a blocking job of a healthy drive takes to start.
const LATENCY: Range<Duration> = Duration::from_micros(50)..Duration::from_millis(3);

/// Chance number `stream` of `seed`: independent of all other streams, equal on every run.
#[must_use]
pub fn chance(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    chance.set_stream(stream);
    chance
}

/// One simulated machine: what stays when its power goes.
#[derive(Clone)]
pub struct Machine {
    drive: Drive,
    entropy: Arc<MemoryEntropy>,
    latency: Arc<Mutex<Latency>>,
    wall_offset_ms: Arc<AtomicI64>,
    outbound: MemoryOutbound,
    bucket: MemoryBucket,
}

/// Draws how long a blocking job waits for its turn.
#[derive(Debug)]
struct Latency {
    chance: ChaCha8Rng,
    range: Range<Duration>,
}

impl Machine {
    /// A machine with an empty drive.
    #[must_use]
    pub fn new(seed: u64) -> Machine {
        let latency = Latency { chance: chance(seed, STREAM_LATENCY), range: LATENCY };
        Machine {
            drive: Drive::new(seed),
            entropy: Arc::new(MemoryEntropy::new(chance(seed, STREAM_ENTROPY))),
            latency: Arc::new(Mutex::new(latency)),
            wall_offset_ms: Arc::new(AtomicI64::new(0)),
            outbound: MemoryOutbound::new(seed),
            bucket: MemoryBucket::new(seed),
        }
    }

    /// Starts the machine `at` this long after the simulation began, which the harness counts
    /// in steps: tokio's clock starts anew with every runtime. Call it inside the host's
    /// runtime, which must have its time paused.
    ///
    /// # Panics
    /// The drive is still dead: power it first.
    #[must_use]
    pub fn boot(&self, at: Duration) -> World {
        let disk = self.drive.mount();
        World {
            clock: Arc::new(MemoryClock::new(at, Arc::clone(&self.wall_offset_ms))),
            entropy: Arc::<MemoryEntropy>::clone(&self.entropy),
            tasks: Arc::new(MemoryTasks::new()),
            blocking: Arc::new(MemoryBlocking::new(disk.clone(), Arc::clone(&self.latency))),
            sqlite: Arc::new(MemorySqlite::new(disk.clone())),
            disk: Arc::new(disk),
            outbound: Arc::new(self.outbound.clone()),
            process: Arc::new(MemoryProcess),
            sabotage: crate::Sabotage::None,
        }
    }

    /// The machine's drive: its faults, its power, its trace.
    #[must_use]
    pub fn drive(&self) -> &Drive {
        &self.drive
    }

    /// The network around the machine: who listens there, under which names, and its faults.
    #[must_use]
    pub fn outbound(&self) -> &MemoryOutbound {
        &self.outbound
    }

    /// The bucket in reach of the machine. It is another machine's: no power cut touches it.
    #[must_use]
    pub fn bucket(&self) -> &MemoryBucket {
        &self.bucket
    }

    /// Gives the machine somebody else's bucket in place of its own.
    pub fn share_bucket(&mut self, bucket: &MemoryBucket) {
        self.bucket = bucket.clone();
    }

    /// Another machine with a copy of this one's drive, on the same bucket: what an operator gets
    /// who restores a disk image beside a machine that is not gone.
    #[must_use]
    pub fn twin(&self, seed: u64) -> Machine {
        let drive = self.drive.copied(seed);
        Machine { drive, bucket: self.bucket.clone(), ..Machine::new(seed) }
    }

    /// Moves the wall clock, forwards or backwards, also while the machine runs.
    pub fn jump_wall(&self, by_ms: i64) {
        self.wall_offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// How long blocking jobs wait from now on.
    pub fn set_latency(&self, range: Range<Duration>) {
        self.latency.lock().range = range;
    }

    /// A number that two runs of one seed share only if they did the same: everything the
    /// drive was asked, and how far each stream was drawn.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut trace = Trace::new();
        trace.add(self.drive.fingerprint());
        trace.add(self.entropy.fingerprint());
        trace.add(self.latency.lock().chance.clone().next_u64());
        trace.add(self.outbound.fingerprint());
        trace.add(self.bucket.fingerprint());
        trace.value()
    }
}
