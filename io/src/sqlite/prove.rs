//! Opens a connection and proves that it keeps what it acknowledges.
//!
//! `PRAGMA journal_mode=WAL` hands out its row before the commit that writes the new file
//! header. Whoever takes the row and resets the statement never learns that the commit
//! failed: the connection says `wal` for ever after and works with a rollback journal. So
//! every pragma that may write is stepped to its end, and the mode is then proven by
//! a question which only a connection with a real WAL answers. Knows no VFS: both worlds
//! share it.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, Error, ErrorCode, OpenFlags, config::DbConfig, ffi};

use super::Role;
use crate::{Disk, File, disk::is_full};

/// How long a statement waits for a lock of another connection before `SQLITE_BUSY`.
const BUSY_TIMEOUT_MS: u32 = 5000;
/// Bytes of the log that are read and written at once.
const REWRITTEN_BYTES: u64 = 1 << 20;
/// The page of most file systems and of most drives.
const PAGE_BYTES: u32 = 4096;

/// Opens `database`, a file of `disk`, through the VFS called `vfs`, which knows it as `path`; sets it up
/// for `role` and, unless that is to look, proves WAL mode.
///
/// # Errors
/// Those of SQLite. To a writer that the disk refuses something they name the file.
pub(crate) fn open(
    (disk, database): (&dyn Disk, &Path),
    (path, vfs): (&Path, &str),
    role: Role,
) -> rusqlite::Result<Connection> {
    match open_as((disk, database), (path, vfs), role) {
        Err(error) if role == Role::Writer => Err(blamed(disk, database, error)),
        opened => opened,
    }
}

fn open_as(
    (disk, database): (&dyn Disk, &Path),
    (path, vfs): (&Path, &str),
    role: Role,
) -> rusqlite::Result<Connection> {
    if role == Role::Looker {
        let there = |file: PathBuf| disk.exists(&file).unwrap_or(true);
        let has_index = disk.exists(&index_of(database)).unwrap_or(false);
        return open_to_look(path, vfs, there(log_of(database)), has_index);
    }
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if role == Role::Writer {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = Connection::open_with_flags_and_vfs(path, flags, vfs)?;
    // Whoever closes last would move the log into the database: the writer alone may, which knows whether
    // that is safe, and it knows once the log was written anew. If that fails, there may be holes in it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    run(&connection, &format!("PRAGMA busy_timeout={BUSY_TIMEOUT_MS}"))?;
    // A cached statement keeps the plan it has. Without this SQLite looks at the values bound to
    // it, and whenever one of them changes it may parse and plan the statement anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    run(&connection, "PRAGMA temp_store=MEMORY")?;
    run(&connection, "PRAGMA mmap_size=0")?;
    // Same as FULL in WAL mode. Should the connection ever work with a rollback journal, it
    // also syncs the directory after removing it: without that a crash brings the journal
    // back, and the journal rolls acknowledged commits back.
    run(&connection, "PRAGMA synchronous=EXTRA")?;
    if role == Role::Writer {
        create(&connection)?;
    }
    // Checkpoints have a connection of their own: in the commit path they make the tail
    // latency, and SQLite swallows their errors there.
    run(&connection, "PRAGMA wal_autocheckpoint=0")?;
    if role == Role::Writer {
        refuse_half_moved(&connection)?;
        // Nobody else writes the log meanwhile, whoever that may be.
        run(&connection, "BEGIN IMMEDIATE")?;
        rewrite_log(disk, database)?;
        run(&connection, "ROLLBACK")?;
    }
    prove_wal(&connection, role)?;
    if role == Role::Writer {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    }
    if role == Role::Reader {
        run(&connection, "PRAGMA query_only=ON")?;
    }
    Ok(connection)
}

/// Opens `path` for one who leaves everything as it is. Where there is no log, the database is all there
/// is, and SQLite need not make one to read it. Where there is an index of the log (`-shm`), it is
/// read and not written: one that nobody keeps any more SQLite makes anew in memory. Where a log has
/// none, which only a power cut leaves, SQLite makes the file.
fn open_to_look(
    path: &Path,
    vfs: &str,
    has_log: bool,
    has_index: bool,
) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let with = |parameter| -> rusqlite::Result<Connection> {
        let uri = format!("file:{}?{parameter}=1", escaped(path)?);
        let flags = flags | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags_and_vfs(uri, flags, vfs)
    };
    let connection = match (has_log, has_index) {
        (false, _) => with("immutable")?,
        (true, true) => with("readonly_shm")?,
        (true, false) => Connection::open_with_flags_and_vfs(path, flags, vfs)?,
    };
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    run(&connection, &format!("PRAGMA busy_timeout={BUSY_TIMEOUT_MS}"))?;
    run(&connection, "PRAGMA temp_store=MEMORY")?;
    run(&connection, "PRAGMA mmap_size=0")?;
    run(&connection, "PRAGMA query_only=ON")?;
    Ok(connection)
}

/// Writes the log of a database once more, as it is read, and syncs it.
///
/// A sync that failed may have left holes in it that only the medium knows: the cache shows what was
/// dropped, and no later sync writes it. If the whole of it were moved into the database now and
/// the power went before the log begins anew, what is before the first hole would be laid over
/// younger pages.
///
/// # Errors
/// `SQLITE_FULL` if there is no room, as on a file system that never writes in place; `SQLITE_IOERR` for
/// all else.
fn rewrite_log(disk: &dyn Disk, database: &Path) -> rusqlite::Result<()> {
    let path = log_of(database);
    if !disk.exists(&path).map_err(|error| refused(&path, "looked for", &error))? {
        return Ok(());
    }
    let opened = disk.open_to_write(&path);
    let file = opened.map_err(|error| refused(&path, "opened for writing", &error))?;
    read_through(&*file, &path, |bytes, at| {
        let what = || format!("written at byte {at}");
        file.write_all_at(bytes, at).map_err(|error| refused(&path, &what(), &error))
    })?;
    file.sync().map_err(|error| refused(&path, "synced", &error))
}

/// Hands the bytes of a file over, at most a MiB at once, and where they begin.
fn read_through(
    file: &dyn File,
    path: &Path,
    mut each: impl FnMut(&[u8], u64) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let len = file.len().map_err(|error| refused(path, "measured", &error))?;
    let mut buffer = vec![0; usize::try_from(len.min(REWRITTEN_BYTES)).expect("a MiB")];
    let mut at = 0;
    while at < len {
        let limit = len.min(at + REWRITTEN_BYTES);
        let bytes = &mut buffer[..usize::try_from(limit - at).expect("a MiB")];
        let what = || format!("read between bytes {at} and {limit}");
        file.read_exact_at(bytes, at).map_err(|error| refused(path, &what(), &error))?;
        each(bytes, at)?;
        at = limit;
    }
    Ok(())
}

/// What the disk did not do with a file.
fn refused(path: &Path, what: &str, error: &io::Error) -> Error {
    let code = if is_full(error) { ffi::SQLITE_FULL } else { ffi::SQLITE_IOERR };
    let text = format!("{} can't be {what}: {error}", path.display());
    Error::SqliteFailure(ffi::Error::new(code), Some(text))
}

/// An error of the disk with the file that it is about, which SQLite does not name: looks for it by
/// reading the log and the database through. One that does not come again is left as it is.
fn blamed(disk: &dyn Disk, database: &Path, error: Error) -> Error {
    let Error::SqliteFailure(code, _) = &error else { return error };
    if code.extended_code == ffi::SQLITE_IOERR_SHMSIZE {
        return refused(&index_of(database), "made", &io::ErrorKind::StorageFull.into());
    }
    if code.code != ErrorCode::SystemIoFailure {
        return error;
    }
    let look = |path: &Path| {
        if !disk.exists(path).map_err(|error| refused(path, "looked for", &error))? {
            return Ok(());
        }
        let file = disk.open(path).map_err(|error| refused(path, "opened", &error))?;
        read_through(&*file, path, |_, _| Ok(()))
    };
    look(&log_of(database)).and_then(|()| look(database)).err().unwrap_or(error)
}

/// A path as part of a URI.
fn escaped(path: &Path) -> rusqlite::Result<String> {
    let text = path.to_str().ok_or_else(|| Error::InvalidPath(path.to_owned()))?;
    Ok(text.replace('%', "%25").replace('?', "%3f").replace('#', "%23"))
}

/// The WAL of a database.
fn log_of(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

fn index_of(path: &Path) -> PathBuf {
    beside(path, "-shm")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut file = path.as_os_str().to_owned();
    file.push(ending);
    file.into()
}

/// Decides what can be decided only once, before the first page exists, and asks for WAL.
fn create(connection: &Connection) -> rusqlite::Result<()> {
    if integers(connection, "PRAGMA page_count")?.first() == Some(&0) {
        run(connection, &format!("PRAGMA page_size={PAGE_BYTES}"))?;
        run(connection, "PRAGMA auto_vacuum=INCREMENTAL")?;
    }
    run(connection, "PRAGMA journal_mode=WAL")
}

/// Refuses a log of which somebody's SQLite believes that a part was moved into the database.
///
/// It may have been, but without a sync: the last pass makes it. If that failed, the pages are to be moved
/// again, and a database that another process keeps open goes on behind them. Whoever opens a
/// database that nobody else has open finds nothing moved.
fn refuse_half_moved(connection: &Connection) -> rusqlite::Result<()> {
    let row = integers(connection, "PRAGMA wal_checkpoint(NOOP)")?;
    match row[..] {
        [_, frames, moved] if 0 < moved && moved < frames => {
            let code = ffi::Error::new(ffi::SQLITE_BUSY);
            let why = "somebody has kept the database open since it was last written (a shell? a \
                       verify?): what of its log is on the disk is known only once that is closed";
            Err(Error::SqliteFailure(code, Some(why.to_owned())))
        }
        _ => Ok(()),
    }
}

fn prove_wal(connection: &Connection, role: Role) -> rusqlite::Result<()> {
    let mode = connection.prepare("PRAGMA journal_mode")?;
    if text(mode)? != "wal" {
        return Err(not_wal("the journal mode is another one"));
    }
    // Of pages that were moved into the database before a sync of it failed only the medium knows
    // that they are not there. So a writer moves everything in the log once more, and begins it
    // anew.
    let sql = match role {
        Role::Writer => "PRAGMA wal_checkpoint(TRUNCATE)",
        Role::Reader | Role::Checkpointer | Role::Looker => "PRAGMA wal_checkpoint(NOOP)",
    };
    let row = integers(connection, sql)?;
    let [busy, log, _] = row[..] else {
        return Err(not_wal("a checkpoint reports nothing"));
    };
    if busy == 0 && log < 0 {
        return Err(not_wal("a checkpoint finds no log"));
    }
    // Only the lock of a WAL can be busy, so to the others that proves as much as a log.
    if busy != 0 && role == Role::Writer {
        let code = ffi::Error::new(ffi::SQLITE_BUSY);
        return Err(Error::SqliteFailure(code, Some("the log is in use".to_owned())));
    }
    Ok(())
}

/// Steps a statement to its end, so that an error of its commit is seen.
fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// The only row of a statement, which is stepped to its end.
fn integers(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut values = Vec::with_capacity(columns);
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            values.push(row.get(column)?);
        }
    }
    Ok(values)
}

fn text(mut statement: rusqlite::Statement<'_>) -> rusqlite::Result<String> {
    let mut rows = statement.query([])?;
    let mut value = String::new();
    while let Some(row) = rows.next()? {
        value = row.get(0)?;
    }
    Ok(value)
}

fn not_wal(why: &str) -> Error {
    Error::SqliteFailure(
        ffi::Error::new(ffi::SQLITE_IOERR),
        Some(format!("the database is not in WAL mode: {why}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Machine;

    #[test]
    fn an_index_for_which_there_is_no_room_is_named() {
        let world = Machine::new(1).boot(std::time::Duration::ZERO);
        let database = Path::new("/data/weir.sqlite");
        let of = |code| Error::SqliteFailure(ffi::Error::new(code), None);
        let full = blamed(&*world.disk, database, of(ffi::SQLITE_IOERR_SHMSIZE));
        assert_eq!(full.sqlite_error_code(), Some(ErrorCode::DiskFull));
        assert!(full.to_string().starts_with("/data/weir.sqlite-shm can't be made"), "{full}");
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_IOERR_READ] {
            assert_eq!(
                blamed(&*world.disk, database, of(code)),
                of(code),
                "it does not come again"
            );
        }
    }
}
