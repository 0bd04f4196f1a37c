//! Whoever only looks at a database leaves every file of it as it is, also after a crash.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![expect(clippy::disallowed_methods, reason = "the test compares files of the real disk")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use support::Scratch;
use weir_io::{Disk as _, Sqlite as _, os, sqlite::Role};

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = os::OsDisk.list(dir).unwrap();
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// The files of a database with a row in its log, as a crash of its writer leaves them.
fn crashed(scratch: &Scratch) -> PathBuf {
    let (live, dead) = (scratch.0.join("live"), scratch.0.join("dead"));
    for dir in [&live, &dead] {
        os::OsDisk.create_dir_all(dir).unwrap();
    }
    let writer = os::OsSqlite.open(&live.join("db"), Role::Writer).unwrap();
    writer.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (7)").unwrap();
    for (file, bytes) in contents(&live) {
        fs::write(dead.join(file.file_name().unwrap()), bytes).unwrap();
    }
    dead
}

fn look(dir: &Path) -> i64 {
    let looker = os::OsSqlite.open(&dir.join("db"), Role::Looker).unwrap();
    looker.query_row("SELECT v FROM t", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_look_after_a_crash_changes_no_file() {
    let scratch = Scratch::new("looking");
    let dir = crashed(&scratch);
    let before = contents(&dir);
    assert_eq!(before.len(), 3, "database, log and index: {:?}", before.keys());
    // Of an index that is damaged nothing is believed, and it is left as it is.
    for damage in [false, true] {
        if damage {
            let index = dir.join("db-shm");
            fs::write(&index, vec![0xa5; fs::read(&index).unwrap().len()]).unwrap();
        }
        let before = contents(&dir);
        assert_eq!(look(&dir), 7);
        assert!(contents(&dir) == before, "a file was changed");
    }
}

#[test]
fn a_look_beside_the_writer_sees_what_it_commits() {
    let scratch = Scratch::new("looking-beside");
    let writer = os::OsSqlite.open(&scratch.0.join("db"), Role::Writer).unwrap();
    writer.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (1)").unwrap();
    for value in 2..5 {
        writer.execute("UPDATE t SET v = ?1", [value]).unwrap();
        assert_eq!(look(&scratch.0), value);
    }
}
