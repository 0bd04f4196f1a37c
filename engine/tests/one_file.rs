//! A store in one file on the simulated machine: it keeps what it acked, and its file is as long
//! as it has to be.

mod support;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use rusqlite::Connection;
use support::{End, live_with, name};
use weir_engine::{
    BadConfig, Config, Engine, OpenError,
    request::{Append, Create, From, Read},
    types::ContentType,
    verify::Depth,
};
use weir_io::{
    Disk as _,
    memory::{Faults, Machine},
    sqlite::Role,
};

const DIR: &str = "/data/store";
const FILE: &str = "/data/store/durable-streams.sqlite";

fn config() -> Config {
    Config::one_file(DIR)
}

fn kind() -> Option<ContentType> {
    ContentType::parse("text/plain")
}

async fn make(engine: &Engine, stream: &str) {
    engine.create(Create::new(name(stream), kind())).await.expect("creates");
}

async fn say(engine: &Engine, stream: &str, text: &str) {
    let body = Bytes::copy_from_slice(text.as_bytes());
    engine.append(Append::new(name(stream), kind(), body)).await.expect("appends");
}

async fn read(engine: &Engine, stream: &str) -> String {
    let mut text = Vec::new();
    let mut from = From::Start;
    loop {
        let read = Read { name: name(stream), from, key: None, bytes_max: 1 << 20 };
        let page = engine.read(read).await.expect("reads");
        text.extend(page.pieces.concat());
        from = From::At(page.next);
        if page.up_to_date {
            return String::from_utf8(text).expect("text");
        }
    }
}

/// Long enough for a seal, for the merge after it, and for the keeper's next rounds.
async fn seal() {
    tokio::time::sleep(Duration::from_secs(20)).await;
}

fn names(machine: &Machine) -> Vec<String> {
    let paths = machine.drive().mount().list(Path::new(DIR)).expect("there");
    let names = paths.iter().map(|path| path.file_name().expect("a name").to_string_lossy());
    names.map(std::borrow::Cow::into_owned).collect()
}

fn file_bytes(machine: &Machine) -> u64 {
    machine.drive().mount().open(Path::new(FILE)).expect("there").len().expect("has a length")
}

/// What is found by who looks, and how many blocks were looked at.
fn verified(machine: &Machine) -> (Vec<&'static str>, u64) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let world = machine.boot(Duration::ZERO);
        let before = machine.drive().mutations();
        let found = Engine::verify(world, config(), None, Depth::Deep).await.expect("looks");
        assert_eq!(machine.drive().mutations(), before, "INV-45 who looks changes nothing");
        found.findings.iter().for_each(|finding| println!("{finding}"));
        let rules = found.findings.iter().map(|it| it.rule).collect();
        (rules, found.checked.blocks)
    })
}

/// Changes what is stored behind the store's back.
fn tamper(machine: &Machine, change: impl FnOnce(&Connection)) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let world = runtime.block_on(async { machine.boot(Duration::ZERO) });
    change(&world.sqlite.open(Path::new(FILE), Role::Writer).expect("opens"));
}

/// Flips a bit of the piece that `order` puts first.
fn flip(conn: &Connection, order: &str) {
    let sql = format!("SELECT at, body FROM pieces WHERE at > 0 ORDER BY at {order} LIMIT 1");
    let found = conn.query_row(&sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)));
    let (at, mut body): (i64, Vec<u8>) = found.expect("there is one");
    *body.last_mut().expect("it is not empty") ^= 1;
    let changed = conn.execute("UPDATE pieces SET body = ?2 WHERE at = ?1", (at, body));
    assert_eq!(changed.expect("is changed"), 1);
}

/// How many pieces there are of how many segments, and how many segments have a row.
fn counts(machine: &Machine) -> (u64, u64, u64) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let world = runtime.block_on(async { machine.boot(Duration::ZERO) });
    let conn = world.sqlite.open(Path::new(FILE), Role::Reader).expect("opens");
    let ask = |sql| {
        let count: i64 = conn.query_row(sql, [], |row| row.get(0)).expect("answers");
        u64::try_from(count).expect("a count")
    };
    (
        ask("SELECT count(*) FROM pieces"),
        ask("SELECT count(DISTINCT segment) FROM pieces"),
        ask("SELECT count(*) FROM segments"),
    )
}

#[test]
fn what_is_sealed_lies_in_the_one_file_and_nothing_beside_it() {
    let machine = Machine::new(1);
    let long = "0123456789".repeat(50_000);
    for life in 0..3 {
        live_with(&machine, End::PowerCut, config(), async |engine| {
            if life == 0 {
                make(&engine, "s").await;
                say(&engine, "s", &long).await;
                seal().await;
            }
            assert_eq!(engine.server_details().memtable.unsealed_bytes, 0, "it is sealed");
            assert_eq!(read(&engine, "s").await, long);
            let known =
                ["durable-streams.sqlite", "durable-streams.sqlite-wal", "server.lock"].as_slice();
            let names = names(&machine);
            assert!(names.iter().all(|name| known.contains(&name.as_str())), "{names:?}");
        });
    }
    let (pieces, segments, rows) = counts(&machine);
    assert!(pieces >= 1, "they are there");
    assert_eq!((segments, rows), (1, 1));
}

#[test]
fn damage_in_the_one_file_is_found() {
    let sql = |sql: &'static str| {
        move |conn: &Connection| assert!(conn.execute(sql, []).expect("is changed") > 0)
    };
    type Change = Box<dyn Fn(&Connection)>;
    let changes: [(&str, Change); 7] = [
        ("block", Box::new(|conn| flip(conn, "ASC"))),
        ("file", Box::new(|conn| flip(conn, "DESC"))),
        (
            "block",
            Box::new(sql(
                "DELETE FROM pieces WHERE at = (SELECT min(at) FROM pieces WHERE at > 0)",
            )),
        ),
        ("file", Box::new(sql("DELETE FROM pieces WHERE at = (SELECT max(at) FROM pieces)"))),
        ("file", Box::new(sql("DELETE FROM pieces"))),
        ("log", Box::new(sql("DELETE FROM log WHERE lsn = (SELECT max(lsn) - 1 FROM log)"))),
        ("row", Box::new(sql("UPDATE streams SET row = x'00'"))),
    ];
    for (expected, change) in changes {
        let machine = Machine::new(6);
        live_with(&machine, End::PowerCut, config(), async |engine| {
            make(&engine, "s").await;
            for round in 0..20 {
                say(&engine, "s", &format!("{round}").repeat(50_000)).await;
            }
            seal().await;
            for _ in 0..3 {
                say(&engine, "s", "in the log").await;
            }
        });
        let (rules, blocks) = verified(&machine);
        assert!(rules.is_empty() && blocks > 10, "{rules:?}, {blocks} blocks");
        tamper(&machine, change);
        let (rules, _) = verified(&machine);
        assert!(
            !rules.is_empty() && rules.iter().all(|it| *it == expected),
            "{expected}: {rules:?}"
        );
    }
}

#[test]
fn a_running_store_in_one_file_is_verified_whatever_it_does() {
    let machine = Machine::new(7);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let world = machine.boot(Duration::ZERO);
        let engine = Engine::open(world.clone(), config(), "test").await.expect("opens");
        make(&engine, "s").await;
        for round in 0..20 {
            say(&engine, "s", &format!("{round}").repeat(30_000)).await;
            let found = Engine::verify(world.clone(), config(), None, Depth::Deep).await;
            assert_eq!(found.expect("looks").findings, [], "round {round}");
            tokio::time::sleep(Duration::from_secs(7)).await;
        }
        engine.close().await;
    });
    assert_eq!(verified(&machine).0, [""; 0]);
}

#[test]
fn merged_segments_leave_the_file_and_their_readers_in_peace() {
    let machine = Machine::new(2);
    let mut all = String::new();
    live_with(&machine, End::Clean, config(), async |engine| {
        make(&engine, "s").await;
        for round in 0..9 {
            let text = format!("{round}").repeat(30_000);
            say(&engine, "s", &text).await;
            all += &text;
            seal().await;
            assert_eq!(read(&engine, "s").await, all);
        }
        seal().await;
    });
    let (_, segments, rows) = counts(&machine);
    assert_eq!((segments, rows), (2, 2), "eight became one, and one is left");
    live_with(&machine, End::Clean, config(), async |engine| {
        assert_eq!(read(&engine, "s").await, all);
    });
}

#[test]
fn what_was_deleted_makes_the_file_shorter() {
    let machine = Machine::new(3);
    live_with(&machine, End::Clean, config(), async |engine| {
        make(&engine, "keep").await;
        make(&engine, "gone").await;
        say(&engine, "keep", "kept").await;
        for _ in 0..8 {
            say(&engine, "gone", &"x".repeat(1 << 20)).await;
        }
        seal().await;
        let before = file_bytes(&machine);
        assert!(before > 8 << 20, "{before}");
        engine.delete(&name("gone")).await.expect("deletes");
        seal().await;
        seal().await;
        let after = file_bytes(&machine);
        assert!(after < 1 << 20, "{after} bytes of {before} are left");
        say(&engine, "keep", " and more").await;
        let log = machine.drive().mount().open(Path::new(&format!("{FILE}-wal")));
        let log = log.expect("there").len().expect("has a length");
        assert!(log < 5 << 20, "{log} bytes of log are left when it starts over");
        assert_eq!(read(&engine, "keep").await, "kept and more");
    });
    live_with(&machine, End::Clean, config(), async |engine| {
        assert_eq!(read(&engine, "keep").await, "kept and more");
    });
}

#[test]
fn a_power_cut_at_any_moment_costs_nothing_that_was_acked() {
    let mut orphans = 0;
    for cut in (1..).step_by(3) {
        let machine = Machine::new(cut);
        let mut acked = String::new();
        let mut ended = true;
        live_with(&machine, End::PowerCut, config(), async |engine| {
            make(&engine, "s").await;
            let busy = async {
                for round in 0..9 {
                    say(&engine, "s", &format!("{round}").repeat(100_000)).await;
                    acked += &format!("{round}").repeat(100_000);
                    seal().await;
                }
            };
            machine.drive().kill_in(cut);
            ended = tokio::time::timeout(Duration::from_secs(600), busy).await.is_ok();
        });
        let (_, segments, rows) = counts(&machine);
        assert!(segments >= rows, "no row without its pieces");
        orphans += segments - rows;
        live_with(&machine, End::Clean, config(), async |engine| {
            let found = read(&engine, "s").await;
            assert!(found.starts_with(&acked), "cut {cut}: {} of {}", found.len(), acked.len());
        });
        let (_, segments, rows) = counts(&machine);
        assert_eq!(segments, rows, "cut {cut}: what no row names is gone");
        if ended {
            break;
        }
    }
    assert!(orphans > 0, "some cut left pieces behind");
}

#[test]
fn a_full_disk_is_survived_without_a_reserve() {
    let machine = Machine::new(4);
    live_with(&machine, End::Clean, config(), async |engine| {
        make(&engine, "s").await;
        say(&engine, "s", "before ").await;
        let capacity_bytes = Some(machine.drive().used_bytes());
        machine.drive().set_faults(Faults { capacity_bytes, ..Faults::default() });
        let body = Bytes::from(vec![b'x'; 1 << 20]);
        let refused = engine.append(Append::new(name("s"), kind(), body)).await;
        assert!(refused.is_err(), "there is no room");
        seal().await;
        machine.drive().set_faults(Faults::default());
        seal().await;
        say(&engine, "s", "after").await;
        assert_eq!(read(&engine, "s").await, "before after");
        assert!(!names(&machine).contains(&"reserve".to_owned()));
    });
}

#[tokio::test(start_paused = true)]
async fn a_file_of_another_program_and_a_bucket_are_refused() {
    let machine = Machine::new(5);
    let world = machine.boot(Duration::ZERO);
    world.disk.create_dir_all(Path::new(DIR)).expect("made");
    let conn = world.sqlite.open(Path::new(FILE), Role::Writer).expect("opens");
    conn.execute_batch("CREATE TABLE meta (name TEXT)").expect("made");
    drop(conn);
    let bytes = || {
        let file = world.disk.open(Path::new(FILE)).expect("there");
        let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("small")];
        file.read_exact_at(&mut bytes, 0).expect("reads");
        bytes
    };
    let before = bytes();
    let refused = Engine::open(world.clone(), config(), "test").await.err();
    let text = refused.expect("refused").to_string();
    assert!(text.contains("another program"), "{text}");
    assert!(bytes() == before, "it is as it was");
    let bucket = machine.bucket().client(std::sync::Arc::clone(&world.clock));
    let refused = Engine::open_with(world, config(), Some(bucket), "test").await.err();
    assert!(matches!(refused, Some(OpenError::Config(BadConfig::Bucket))), "{refused:?}");
    let world = machine.boot(Duration::ZERO);
    let looked = Engine::verify(world.clone(), config(), None, Depth::Local).await;
    let text = looked.expect_err("it is no store").to_string();
    assert!(text.contains("another program"), "{text}");
    let looked = Engine::verify(world, config(), None, Depth::Remote).await;
    assert!(looked.is_err_and(|error| error.to_string().contains("no bucket")));
}
