//! SQLite connections. Both worlds run the real SQLite; only the VFS below it differs.
//!
//! `prove` sets a connection up and proves it, for both worlds. The rest is the simulated
//! VFS: `mount` finds the disk, `file` answers with SQLite's codes, `lock` and `shm` are what
//! connections share, and `vfs` alone touches pointers.

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
    /// The one connection that writes; creates the database. Closed last, it moves the WAL into the
    /// database file.
    Writer,
    /// Reads only (`query_only`), and leaves the WAL alone.
    Reader,
    /// Moves the WAL into the database file when it is told to.
    Checkpointer,
    /// Reads, and leaves the database and its WAL as they are, also as the last to close them. It
    /// proves nothing: the mode may be another one.
    Looker,
}

/// Opens connections that are proven to be in WAL mode with `synchronous=FULL` or stronger,
/// `wal_autocheckpoint=0`, `temp_store=MEMORY`, `mmap_size=0`.
///
/// The proof steps `PRAGMA journal_mode=WAL` to completion and checks that
/// `PRAGMA wal_checkpoint` reports a log (not -1): SQLite can claim `wal` and not be in
/// it when the commit of the header failed, and would then lose acknowledged commits.
///
/// A writer also writes the log once more and begins it anew, because a sync that failed earlier may
/// have left a hole in it. This needs every reader to be between transactions; one that is not makes `open` fail
/// with `SQLITE_BUSY` after the busy timeout. So does, at once, a connection that was open when
/// a part of the log, but not all of it, was moved: what it believes to be moved may not be synced.
///
/// After a checkpoint whose sync failed the database file may lack pages which the cache still shows,
/// and of which SQLite believes that they need not be written again. They are written anew once every
/// connection of every process was closed without a checkpoint: what SQLite believes is kept as long
/// as anybody has the database open.
///
/// After any error but a full disk the outcome of the commit is unknown. Drop all connections,
/// open them again, sync the directory and commit something (a boot counter will do) before
/// believing what the new connection reads: until then a power cut may still bring back what it
/// does not show, or take away what it shows: one crash test in thousands did.
pub trait Sqlite: Send + Sync {
    /// Opens `path`.
    fn open(&self, path: &Path, role: Role) -> rusqlite::Result<Connection>;
}
