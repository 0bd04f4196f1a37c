//! The production world: threads, files, sockets and clocks of the operating system.
//!
//! The only place where the bans of `clippy.toml` are lifted. Holds no logic beyond
//! translating a trait into system calls; what the traits promise is tested by `laws`
//! here as on the simulated world.
#![expect(clippy::disallowed_methods, reason = "this module is what the bans point to")]

mod crew;
mod disk;
mod net;
pub mod objects;
pub mod process;
mod sqlite;
pub mod stream;
mod tasks;
mod timer;
pub mod tls;
pub mod usage;
pub mod workers;

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

pub use crew::Crew;
pub use disk::OsDisk;
pub use net::{OsListener, OsOutbound, OsSocket, connect};
pub use sqlite::OsSqlite;
pub use tasks::{TokioBlocking, TokioTasks};
pub use timer::Timer;

use crate::{Clock, Entropy, World};

/// The production world. Tasks and blocking jobs run on the tokio runtime of the caller.
///
/// # Errors
/// The caller is outside a runtime, or the system has no randomness to give.
pub fn world() -> io::Result<World> {
    let handle = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    let tasks = TokioTasks::new(handle.clone());
    assemble(handle, tasks)
}

/// The production world of a server with many connections: they are spread over `threads` threads of
/// their own.
///
/// # Errors
/// The caller is outside a runtime, or the system has no randomness, thread or descriptor to give.
pub fn world_with_crew(threads: usize) -> io::Result<World> {
    let handle = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    let tasks = TokioTasks::new(handle.clone()).with_crew(Crew::start(threads)?);
    assemble(handle, tasks)
}

fn assemble(handle: tokio::runtime::Handle, tasks: TokioTasks) -> io::Result<World> {
    Ok(World {
        clock: Arc::new(OsClock::new()),
        entropy: Arc::new(OsEntropy::new()?),
        tasks: Arc::new(tasks),
        blocking: Arc::new(TokioBlocking::new(handle)),
        disk: Arc::new(OsDisk),
        sqlite: Arc::new(OsSqlite),
        outbound: Arc::new(OsOutbound::new()),
        process: Arc::new(usage::OsProcess),
        sabotage: crate::Sabotage::None,
    })
}

/// The clocks of the system.
#[derive(Debug)]
pub struct OsClock {
    started: Instant,
}

impl OsClock {
    /// A clock whose elapsed time starts now.
    #[must_use]
    pub fn new() -> OsClock {
        OsClock { started: Instant::now() }
    }
}

impl Default for OsClock {
    fn default() -> OsClock {
        OsClock::new()
    }
}

impl Clock for OsClock {
    fn wall_ms(&self) -> u64 {
        // A clock set before 1970 reads as 1970: wall time may jump anyway.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).expect("milliseconds since 1970 fit 64 bits")
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// `ChaCha`, keyed once by the operating system.
#[derive(Debug)]
pub struct OsEntropy {
    stream: Mutex<ChaCha12Rng>,
}

impl OsEntropy {
    /// Takes a key from the operating system.
    ///
    /// # Errors
    /// The system's source cannot be read.
    pub fn new() -> io::Result<OsEntropy> {
        let mut key = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(OsEntropy { stream: Mutex::new(ChaCha12Rng::from_seed(key)) })
    }
}

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        self.stream.lock().fill_bytes(buffer);
    }
}
