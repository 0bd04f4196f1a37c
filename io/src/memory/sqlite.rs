//! The real SQLite on a simulated disk.

use std::{path::Path, sync::Arc};

use rusqlite::Connection;

use super::{MemoryDisk, STREAM_SQLITE, chance};
use crate::sqlite::{Role, Sqlite, mount::Mount, prove, vfs};

/// Opens connections to files of one simulated disk.
#[derive(Clone)]
pub struct MemorySqlite {
    disk: MemoryDisk,
    mount: Arc<Mount>,
}

impl MemorySqlite {
    /// SQLite on `disk`.
    #[must_use]
    pub fn new(disk: MemoryDisk) -> MemorySqlite {
        MemorySqlite { mount: Mount::new(disk.clone()), disk }
    }
}

impl Sqlite for MemorySqlite {
    fn open(&self, path: &Path, role: Role) -> rusqlite::Result<Connection> {
        vfs::register();
        prove::open((&self.disk, path), (&self.mount.route(path), vfs::NAME), role)
    }
}

/// Makes SQLite's own random generator, one for the whole process, start from `seed`: the salts
/// of a WAL come from it. To be called before each simulation; it also makes the simulated
/// VFS the process's default one, because SQLite seeds itself from that.
pub fn reseed_sqlite(seed: u64) {
    vfs::reseed(chance(seed, STREAM_SQLITE));
}
