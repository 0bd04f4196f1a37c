//! SQLite connections. Both worlds run the real SQLite; only the VFS below it differs.

mod file;
mod lock;
pub(crate) mod mount;
pub(crate) mod prove;
mod shm;
pub(crate) mod vfs;

use std::path::Path;

use rusqlite::Connection;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one connection that writes; creates the database.
    Writer,
    /// Reads only (`query_only`).
    Reader,
    /// Moves the WAL into the database file.
    Checkpointer,
}

/// Opens connections that are proven to be in WAL mode with `synchronous=FULL` or stronger,
/// `wal_autocheckpoint=0`, `temp_store=MEMORY`, `mmap_size=0`.
///
/// The proof steps `PRAGMA journal_mode=WAL` to completion and checks that
/// `PRAGMA wal_checkpoint(PASSIVE)` reports a log (not -1): SQLite can claim `wal` and not be in
/// it when the commit of the header failed, and would then lose acknowledged commits.
pub trait Sqlite: Send + Sync {
    /// Opens `path`.
    fn open(&self, path: &Path, role: Role) -> rusqlite::Result<Connection>;
}
