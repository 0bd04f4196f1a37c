//! A store in one file on the simulated machine: it keeps what it acked, and its file is as long
//! as it has to be.

mod support;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use support::{End, live_with, name};
use weir_engine::{
    BadConfig, Config, Engine, OpenError,
    request::{Append, Create, From, Read},
    types::ContentType,
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
}
