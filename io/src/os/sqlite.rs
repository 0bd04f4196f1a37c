//! SQLite on the files of the operating system.

use std::path::Path;

use rusqlite::Connection;

use super::OsDisk;
use crate::sqlite::{Role, Sqlite, prove};

/// Named, not left to the default: a simulation in the same process may have made its own
/// VFS the default one.
const VFS: &str = "unix";

/// Opens connections through SQLite's own unix VFS.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsSqlite;

impl Sqlite for OsSqlite {
    fn open(&self, path: &Path, role: Role) -> rusqlite::Result<Connection> {
        prove::open((&OsDisk, path), (path, VFS), role)
    }
}
