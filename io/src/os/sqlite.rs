//! SQLite on the files of the operating system.

use std::path::Path;

use rusqlite::Connection;

use super::OsDisk;
use crate::sqlite::{Role, Sqlite, prove, prove::Log};

/// Named, not left to the default: a simulation in the same process may have made its own
/// VFS the default one.
const VFS: &str = "unix";

/// Opens connections through SQLite's own unix VFS.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsSqlite;

impl Sqlite for OsSqlite {
    fn open(&self, path: &Path, role: Role) -> rusqlite::Result<Connection> {
        if role == Role::Looker {
            let there = prove::log_of(path).try_exists().unwrap_or(true);
            let log = if there { Log::Present } else { Log::Absent };
            return prove::open_to_look(path, VFS, log);
        }
        prove::open((&OsDisk, path), (path, VFS), role)
    }
}
