//! SQLite, as this crate opens it, keeps what it acknowledged through power cuts and failing
//! drives; and the harness that says so notices when a drive lies.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{path::Path, time::Duration};

use rand::RngExt;
use rusqlite::Connection;
use tokio::task::LocalSet;
use weir_io::{
    World,
    memory::{Faults, Machine, STREAM_FREE, chance},
    sqlite::Role,
};

const SEEDS: u64 = 1000;
const ROUNDS: u32 = 4;
const PATH: &str = "/data/weir.db";

/// What the writer was told, and what it asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    acked: i64,
    asked: i64,
}

/// What one seed did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    acked: i64,
    failures: u32,
    deaths_inside: u32,
    fingerprint: u64,
}

/// Gives a machine a durable data directory. The database is made under faults.
fn prepare(machine: &Machine) {
    let world = machine.boot(Duration::ZERO);
    world.disk.create_dir_all(Path::new("/data")).unwrap();
    world.disk.sync_dir(Path::new("/")).unwrap();
}

/// Rounds of writing, each ended by a power cut, each followed by a check.
fn run(seed: u64, faults: Faults) -> Result<Outcome, String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async { rounds(seed, faults) })
}

fn rounds(seed: u64, faults: Faults) -> Result<Outcome, String> {
    let machine = Machine::new(seed);
    prepare(&machine);
    let mut chance = chance(seed, STREAM_FREE);
    let mut told = Told::default();
    let mut outcome = Outcome::default();
    for round in 0..ROUNDS {
        machine.drive().set_faults(faults);
        if chance.random_bool(0.7) {
            machine.drive().kill_in(chance.random_range(1..120));
        }
        let world = machine.boot(Duration::ZERO);
        outcome.failures += write(&machine, &world, &mut told, &mut chance);
        outcome.deaths_inside += u32::from(machine.drive().is_dead());
        machine.drive().kill();
        machine.drive().set_faults(Faults::default());
        machine.drive().power_cycle();
        let world = machine.boot(Duration::ZERO);
        let found = check(&world, told).map_err(|why| format!("round {round}: {why}"))?;
        // What was not acknowledged and yet is there is kept from now on.
        told = Told { acked: found, asked: found };
    }
    outcome.acked = told.acked;
    outcome.fingerprint = machine.fingerprint();
    Ok(outcome)
}

/// Up to twelve transactions, with a checkpoint now and then. Any error but a full drive drops
/// the connections and opens new ones, as the engine does. Returns how many errors there were.
fn write(machine: &Machine, world: &World, told: &mut Told, chance: &mut impl rand::Rng) -> u32 {
    let mut failures = 0;
    let mut connections = None;
    for _ in 0..12 {
        if machine.drive().is_dead() {
            break;
        }
        let rows = chance.random_range(1..=3);
        let checkpoint = chance.random_bool(0.2);
        let step: rusqlite::Result<()> = (|| {
            let (writer, checkpointer) = match &mut connections {
                Some(open) => open,
                none => none.insert(open(world, told)?),
            };
            told.asked = told.acked + rows;
            append(writer, told.acked, rows)?;
            if !machine.drive().is_dead() {
                told.acked = told.asked;
            }
            if checkpoint {
                checkpointer.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
            }
            Ok(())
        })();
        if step.is_err() {
            failures += u32::from(!machine.drive().is_dead());
            connections = None;
        }
    }
    // A dying machine still runs destructors: the drive is dead before they do.
    machine.drive().kill();
    failures
}

/// Opens the writer as the contract of `Sqlite` asks: the directory is synced and something is
/// committed before anything is read.
fn open_writer(world: &World) -> rusqlite::Result<Connection> {
    let writer = world.sqlite.open(Path::new(PATH), Role::Writer)?;
    world.disk.sync_dir(Path::new("/data")).map_err(io_error)?;
    writer.execute_batch(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY, last INTEGER, opened INTEGER);
         CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, body TEXT);
         INSERT INTO counter VALUES (0, 0, 1) ON CONFLICT DO UPDATE SET opened = opened + 1;
         COMMIT;",
    )?;
    Ok(writer)
}

fn io_error(error: std::io::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// Opens both connections and learns what the last failed commit came to.
fn open(world: &World, told: &mut Told) -> rusqlite::Result<(Connection, Connection)> {
    let writer = open_writer(world)?;
    let last: i64 = writer.query_row("SELECT last FROM counter", [], |row| row.get(0))?;
    assert!((told.acked..=told.asked).contains(&last), "{last} is not in {told:?}");
    told.acked = last;
    Ok((writer, world.sqlite.open(Path::new(PATH), Role::Checkpointer)?))
}

fn append(writer: &mut Connection, from: i64, rows: i64) -> rusqlite::Result<()> {
    let transaction = writer.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for id in from + 1..=from + rows {
        transaction.execute("INSERT INTO entry VALUES (?1, ?2)", (id, body(id)))?;
    }
    transaction.execute("UPDATE counter SET last = ?1", [from + rows])?;
    transaction.commit()
}

fn body(id: i64) -> String {
    format!("{id} ").repeat(usize::try_from(id % 40).unwrap() + 1)
}

/// How many entries there are, if they are what they must be.
fn check(world: &World, told: Told) -> Result<i64, String> {
    let text = |error: rusqlite::Error| error.to_string();
    let writer = open_writer(world).map_err(text)?;
    let intact: String =
        writer.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(text)?;
    if intact != "ok" {
        return Err(intact);
    }
    let mut statement = writer.prepare("SELECT id, body FROM entry ORDER BY id").map_err(text)?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .map_err(text)?;
    for (expected, (id, found)) in (1..).zip(&rows) {
        if *id != expected || *found != body(expected) {
            return Err(format!("entry {expected} is missing or another"));
        }
    }
    let count = i64::try_from(rows.len()).unwrap();
    let last: i64 =
        writer.query_row("SELECT last FROM counter", [], |row| row.get(0)).map_err(text)?;
    if last != count {
        return Err(format!("the counter says {last}, there are {count}"));
    }
    if !(told.acked..=told.asked).contains(&count) {
        return Err(format!("{count} entries, but {told:?}"));
    }
    Ok(count)
}

#[test]
fn every_acknowledged_row_survives_power_cuts() {
    let (mut acked, mut deaths_inside) = (0, 0);
    for seed in 0..SEEDS {
        let outcome = run(seed, Faults::default());
        let outcome = outcome.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert_eq!(outcome.failures, 0, "seed {seed}: a healthy drive fails only in death");
        acked += outcome.acked;
        deaths_inside += outcome.deaths_inside;
    }
    assert!(acked > 25_000, "{acked} rows are no test");
    assert!(deaths_inside > 1000, "{deaths_inside} deaths inside a call are no test");
}

#[test]
fn every_acknowledged_row_survives_a_failing_drive() {
    let faults = Faults {
        read: 0.002,
        write: 0.005,
        name: 0.01,
        sync: 0.03,
        sync_forgets: 0.5,
        full: 0.005,
        ..Faults::default()
    };
    let mut failures = 0;
    for seed in 0..SEEDS {
        let outcome = run(seed, faults);
        failures += outcome.unwrap_or_else(|why| panic!("seed {seed}: {why}")).failures;
    }
    assert!(failures > 1000, "{failures} failures are no test");
}

#[test]
fn a_drive_that_lies_about_syncs_is_found_out() {
    let faults = Faults { sync_lies: 1.0, ..Faults::default() };
    let caught = (0..30).filter(|&seed| run(seed, faults).is_err()).count();
    assert!(caught > 15, "only {caught} of 30 seeds noticed");
}
