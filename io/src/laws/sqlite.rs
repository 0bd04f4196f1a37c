//! What every [`Sqlite`] promises while the power is on.

use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use crate::sqlite::{Role, Sqlite};

/// Every law, each with a database of its own in `directory`, which must exist.
pub fn all(sqlite: &dyn Sqlite, directory: &Path) {
    every_role_is_set_up_and_in_wal_mode(sqlite, &directory.join("roles.db"));
    only_a_writer_creates(sqlite, &directory.join("missing.db"));
    a_reader_keeps_its_snapshot_and_writes_nothing(sqlite, &directory.join("snapshot.db"));
    a_looker_sees_what_is_committed_and_writes_nothing(sqlite, &directory.join("look?#%.db"));
    there_is_one_writer_at_a_time(sqlite, &directory.join("writers.db"));
    a_checkpoint_moves_the_log_beside_readers(sqlite, &directory.join("checkpoint.db"));
    a_writer_refuses_a_log_that_was_half_moved(sqlite, &directory.join("half.db"));
    a_statement_may_spill(sqlite, &directory.join("spill.db"));
    a_closed_database_opens_again(sqlite, &directory.join("again.db"));
}

fn every_role_is_set_up_and_in_wal_mode(sqlite: &dyn Sqlite, path: &Path) {
    let settings = |connection: &Connection| {
        let names = [
            "synchronous",
            "wal_autocheckpoint",
            "temp_store",
            "busy_timeout",
            "page_size",
            "auto_vacuum",
        ];
        names.map(|name| number(connection, &format!("PRAGMA {name}")))
    };
    let writer = ok(sqlite.open(path, Role::Writer));
    ok(writer.execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY)"));
    let reader = ok(sqlite.open(path, Role::Reader));
    let checkpointer = ok(sqlite.open(path, Role::Checkpointer));
    for connection in [&writer, &reader, &checkpointer] {
        assert_eq!(settings(connection), [3, 0, 2, 5000, 4096, 2]);
        let mode: rusqlite::Result<String> =
            connection.query_row("PRAGMA journal_mode", [], |row| row.get(0));
        assert_eq!(ok(mode), "wal");
    }
    assert_eq!(number(&reader, "PRAGMA query_only"), 1);
    assert_eq!(number(&writer, "PRAGMA query_only"), 0);
}

fn only_a_writer_creates(sqlite: &dyn Sqlite, path: &Path) {
    for role in [Role::Reader, Role::Checkpointer, Role::Looker] {
        let refused = sqlite.open(path, role).err().and_then(|error| error.sqlite_error_code());
        assert_eq!(refused, Some(ErrorCode::CannotOpen));
    }
    ok(sqlite.open(path, Role::Writer));
}

fn a_looker_sees_what_is_committed_and_writes_nothing(sqlite: &dyn Sqlite, path: &Path) {
    let writer = table(sqlite, path);
    insert(&writer, 1);
    let looker = ok(sqlite.open(path, Role::Looker));
    assert_eq!(rows(&looker), 1, "what lies in the log");
    assert!(looker.execute_batch("INSERT INTO t VALUES (2, 'x')").is_err());
    insert(&writer, 2);
    assert_eq!(rows(&looker), 2, "beside a writer");
    drop(writer);
    drop(looker);
    // Whoever closed last has moved the log into the database, or left it there.
    let looker = ok(sqlite.open(path, Role::Looker));
    assert_eq!(rows(&looker), 2);
    assert!(looker.execute_batch("DELETE FROM t").is_err());
    drop(looker);
    assert_eq!(rows(&ok(sqlite.open(path, Role::Writer))), 2);
}

fn a_reader_keeps_its_snapshot_and_writes_nothing(sqlite: &dyn Sqlite, path: &Path) {
    let writer = table(sqlite, path);
    let reader = ok(sqlite.open(path, Role::Reader));
    assert!(reader.execute_batch("INSERT INTO t VALUES (1, 'x')").is_err());
    ok(reader.execute_batch("BEGIN"));
    assert_eq!(rows(&reader), 0);
    insert(&writer, 1);
    assert_eq!(rows(&reader), 0, "the snapshot is older");
    ok(reader.execute_batch("COMMIT"));
    assert_eq!(rows(&reader), 1);
}

fn there_is_one_writer_at_a_time(sqlite: &dyn Sqlite, path: &Path) {
    let writer = table(sqlite, path);
    let second = ok(sqlite.open(path, Role::Writer));
    ok(second.busy_timeout(std::time::Duration::ZERO));
    ok(writer.execute_batch("BEGIN IMMEDIATE"));
    let refused = second.execute_batch("BEGIN IMMEDIATE").err();
    let refused = refused.and_then(|error| error.sqlite_error_code());
    assert_eq!(refused, Some(ErrorCode::DatabaseBusy));
    ok(writer.execute_batch("COMMIT"));
    ok(second.execute_batch("BEGIN IMMEDIATE; COMMIT"));
}

fn a_checkpoint_moves_the_log_beside_readers(sqlite: &dyn Sqlite, path: &Path) {
    let writer = table(sqlite, path);
    let reader = ok(sqlite.open(path, Role::Reader));
    let checkpointer = ok(sqlite.open(path, Role::Checkpointer));
    for id in 0..50 {
        insert(&writer, id);
    }
    let moved = ok(checkpointer.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok([row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?])
    }));
    assert_eq!(moved[0], 0, "not busy");
    assert!(moved[1] > 0, "there was a log");
    assert_eq!(moved[1], moved[2], "all of it was moved");
    assert_eq!(rows(&reader), 50);
    insert(&writer, 50);
    assert_eq!(rows(&reader), 51);
}

fn a_writer_refuses_a_log_that_was_half_moved(sqlite: &dyn Sqlite, path: &Path) {
    let writer = table(sqlite, path);
    insert(&writer, 1);
    let reader = ok(sqlite.open(path, Role::Reader));
    ok(reader.execute_batch("BEGIN"));
    assert_eq!(rows(&reader), 1);
    insert(&writer, 2);
    // What the reader may still need of the database is not overwritten.
    let checkpointer = ok(sqlite.open(path, Role::Checkpointer));
    ok(checkpointer.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (frames, moved): (i64, i64) = (row.get(1)?, row.get(2)?);
        assert!(0 < moved && moved < frames, "{moved} of {frames}");
        Ok(())
    }));
    ok(reader.execute_batch("COMMIT"));
    let refused = sqlite.open(path, Role::Writer).err();
    let refused = refused.and_then(|error| error.sqlite_error_code());
    assert_eq!(refused, Some(ErrorCode::DatabaseBusy));
    // Closed one after the other without moving anything, so that nothing is believed any more.
    let left_alone = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    ok(writer.set_db_config(left_alone, true));
    drop((writer, checkpointer, reader));
    assert_eq!(rows(&ok(sqlite.open(path, Role::Writer))), 2);
}

fn a_statement_may_spill(sqlite: &dyn Sqlite, path: &Path) {
    let writer = table(sqlite, path);
    // A savepoint around many changed pages needs more than the 64 KiB that SQLite keeps in
    // memory for undoing it.
    ok(writer.execute_batch(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 499)
         INSERT INTO t SELECT i, printf('%.1000c', 'x') FROM n;
         BEGIN; SAVEPOINT s;
         UPDATE t SET word = printf('%.1000c', 'y');
         ROLLBACK TO s; COMMIT;",
    ));
    let kept = number(&writer, "SELECT count(*) FROM t WHERE word LIKE 'x%'");
    assert_eq!(kept, 500);
}

fn a_closed_database_opens_again(sqlite: &dyn Sqlite, path: &Path) {
    for id in 0..3 {
        let writer = table(sqlite, path);
        assert_eq!(rows(&writer), id);
        insert(&writer, id);
        ok(writer.close().map_err(|(_, error)| error));
    }
}

fn table(sqlite: &dyn Sqlite, path: &Path) -> Connection {
    let writer = ok(sqlite.open(path, Role::Writer));
    ok(writer.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, word TEXT)"));
    writer
}

fn insert(writer: &Connection, id: i64) {
    ok(writer.execute("INSERT INTO t VALUES (?1, 'word')", [id]));
}

fn rows(connection: &Connection) -> i64 {
    number(connection, "SELECT count(*) FROM t")
}

fn number(connection: &Connection, sql: &str) -> i64 {
    ok(connection.query_row(sql, [], |row| row.get(0)))
}

#[track_caller]
fn ok<T>(result: rusqlite::Result<T>) -> T {
    result.expect("a healthy disk serves this")
}
