//! One value that holds every way out of the process.

use std::sync::Arc;

use crate::{Blocking, Clock, Disk, Entropy, Process, Sabotage, Sqlite, Tasks, net::Outbound};

/// All the I/O an engine may do. Cloning is cheap: every part is shared.
#[derive(Clone)]
pub struct World {
    /// Wall time. Elapsed time is `tokio::time`, which both worlds control.
    pub clock: Arc<dyn Clock>,
    /// Seeds for hashers, ids and jitter.
    pub entropy: Arc<dyn Entropy>,
    /// Where futures run.
    pub tasks: Arc<dyn Tasks>,
    /// Where jobs that block on disk run.
    pub blocking: Arc<dyn Blocking>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// SQLite connections to files of `disk`.
    pub sqlite: Arc<dyn Sqlite>,
    /// Connections to others.
    pub outbound: Arc<dyn Outbound>,
    /// What the system knows of this process.
    pub process: Arc<dyn Process>,
    /// A planted defect; none outside the simulator.
    pub sabotage: Sabotage,
}
