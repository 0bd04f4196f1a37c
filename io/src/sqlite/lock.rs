//! The five lock levels of a database file, as SQLite's unix VFS grants them.
//!
//! In WAL mode connections hold SHARED for their whole life and the rest happens in the
//! WAL index; the levels above are used while a database is created, converted and closed.

use rusqlite::ffi;

/// How far a connection may go. Ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    None,
    Shared,
    Reserved,
    Pending,
    Exclusive,
}

impl Level {
    pub(super) fn from_code(code: i32) -> Level {
        match code {
            ffi::SQLITE_LOCK_NONE => Level::None,
            ffi::SQLITE_LOCK_SHARED => Level::Shared,
            ffi::SQLITE_LOCK_RESERVED => Level::Reserved,
            ffi::SQLITE_LOCK_PENDING => Level::Pending,
            // SQLite knows no other level; the strictest is the safe reading of a new one.
            _ => Level::Exclusive,
        }
    }
}

/// All locks on one file.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// Connections at SHARED or above.
    holders: u32,
    /// The highest level above SHARED that one of them has.
    writer: Level,
}

impl Locks {
    /// Raises a connection from `from` to `to`. On refusal `from` may have become PENDING,
    /// which keeps new readers out until the old ones are gone.
    pub(super) fn raise(&mut self, from: &mut Level, to: Level) -> bool {
        if *from >= to {
            return true;
        }
        let others_write = *from < Level::Reserved && self.writer >= Level::Reserved;
        match to {
            Level::None => true,
            Level::Shared => {
                if self.writer >= Level::Pending {
                    return false;
                }
                self.holders += 1;
                *from = Level::Shared;
                true
            }
            Level::Reserved | Level::Pending => {
                if others_write {
                    return false;
                }
                self.writer = to;
                *from = to;
                true
            }
            Level::Exclusive => {
                // A hot journal is rolled back straight from SHARED, beside a RESERVED holder
                // there is none; a PENDING or EXCLUSIVE one refuses.
                if others_write {
                    return false;
                }
                let alone = self.holders == 1;
                let reached = if alone { Level::Exclusive } else { Level::Pending };
                self.writer = reached;
                *from = reached;
                alone
            }
        }
    }

    /// Lowers a connection from `from` to `to`, which is SHARED or NONE.
    pub(super) fn lower(&mut self, from: &mut Level, to: Level) {
        if *from <= to {
            return;
        }
        if *from >= Level::Reserved {
            self.writer = Level::None;
        }
        if to == Level::None {
            self.holders -= 1;
        }
        *from = to;
    }

    /// Whether any connection is at RESERVED or above.
    pub(super) fn is_reserved(&self) -> bool {
        self.writer >= Level::Reserved
    }
}

#[cfg(test)]
mod tests {
    use super::{Level, Locks};

    #[test]
    fn one_writes_while_others_read_and_writes_the_file_alone() {
        let mut locks = Locks::default();
        let (mut writer, mut reader, mut late) = (Level::None, Level::None, Level::None);
        assert!(locks.raise(&mut writer, Level::Shared));
        assert!(locks.raise(&mut reader, Level::Shared));
        assert!(locks.raise(&mut writer, Level::Reserved));
        assert!(locks.is_reserved());
        assert!(!locks.raise(&mut reader, Level::Reserved));
        assert!(!locks.raise(&mut writer, Level::Exclusive), "a reader is left");
        assert_eq!(writer, Level::Pending);
        assert!(!locks.raise(&mut late, Level::Shared), "no new reader while one is awaited");
        locks.lower(&mut reader, Level::None);
        assert!(locks.raise(&mut writer, Level::Exclusive));
        locks.lower(&mut writer, Level::Shared);
        assert!(locks.raise(&mut late, Level::Shared));
        assert!(!locks.is_reserved());
    }
}
