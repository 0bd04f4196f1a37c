//! Seals on a disk that is full, with every amount of room that is left.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::LocalSet;
use weir_io::{
    World,
    memory::{Faults, Machine},
};

use super::seal;
use crate::{
    Config, Engine,
    core::{Core, ledger_dir, ledger_path, segment_dir, segment_path},
    request::{Append, Create, From, Read},
    types::{ContentType, StreamName},
};

const STREAMS: usize = 24;
const RECORD_BYTES: usize = 8 << 10;
/// By so much more room is left from case to case.
const STEP: u64 = 8 << 10;
/// Seals that are tried with the same room.
const TRIES: usize = 3;

fn name(at: usize) -> StreamName {
    StreamName::new(&format!("stream {at}")).expect("a good name")
}

fn record(at: usize) -> Bytes {
    vec![b'a' + u8::try_from(at).expect("few"); RECORD_BYTES].into()
}

/// How a case went.
#[derive(Default)]
struct Case {
    /// Tries that failed.
    failed: usize,
    /// Of these, tries after which the catalogue had the segment.
    behind_the_segment: usize,
}

/// The files of a directory that nothing names.
fn left(world: &World, core: &Core) -> Vec<PathBuf> {
    let files = core.files.lock();
    let mut named: BTreeSet<PathBuf> =
        files.segments().map(|held| segment_path(&core.config, held.row.id)).collect();
    named.extend(files.ledgers().iter().map(|row| ledger_path(&core.config, row.id)));
    let dirs = [segment_dir(&core.config), ledger_dir(&core.config)];
    let there = dirs.iter().flat_map(|dir| world.disk.list(dir).expect("lists"));
    there.filter(|path| !named.contains(path)).collect()
}

/// Seals one record of each stream while `room` bytes are left on the disk, and then with all there is.
async fn seal_with(room: u64, machine: &Machine, world: &World, engine: &Engine) -> Case {
    let core: &Arc<Core> = &engine.core;
    for at in 0..STREAMS {
        let content = ContentType::parse("text/plain");
        engine.create(Create::new(name(at), content.clone())).await.expect("creates");
        engine.append(Append::new(name(at), content, record(at))).await.expect("appends");
    }
    let records = || core.segments.load().records();
    let all = u64::try_from(STREAMS).expect("few");
    let capacity_bytes = Some(machine.drive().used_bytes() + room);
    machine.drive().set_faults(Faults { capacity_bytes, ..Faults::default() });
    let mut case = Case::default();
    for _ in 0..TRIES {
        seal::run(core).await;
        assert_eq!(left(world, core), [""; 0].map(PathBuf::from), "with {room} bytes");
        assert!(records() == 0 || records() == all, "{} records with {room} bytes", records());
        if engine.metrics().seals.get() == 1 {
            break;
        }
        case.failed += 1;
        case.behind_the_segment += usize::from(records() == all);
    }
    machine.drive().set_faults(Faults::default());
    if case.failed > 0 {
        // Records that came after a try are sealed with what it has left.
        let content = ContentType::parse("text/plain");
        engine.append(Append::new(name(0), content, record(0))).await.expect("appends");
        seal::run(core).await;
        assert_eq!(records(), all + 1, "with {room} bytes");
    }
    assert_eq!(engine.metrics().seals.get(), 1, "with {room} bytes");
    assert_eq!(left(world, core), [""; 0].map(PathBuf::from), "with {room} bytes");
    assert_eq!(core.memtable_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
    case
}

async fn check_reads(engine: &Engine, longer: bool) {
    for at in 0..STREAMS {
        let read = Read { name: name(at), from: From::Start, key: None, bytes_max: 1 << 20 };
        let page = engine.read(read).await.expect("reads");
        let mut expect = record(at).to_vec();
        if longer && at == 0 {
            expect.extend_from_slice(&record(at));
        }
        assert!(page.pieces.concat() == expect, "stream {at}");
    }
}

#[test]
fn a_seal_without_room_leaves_nothing_and_the_next_does_not_write_the_same_again() {
    let config = Config { seal_age: Duration::from_secs(1_000_000), ..Config::new("/data/store") };
    let (mut room, mut behind_the_segment) = (0, 0);
    loop {
        let machine = Machine::new(room);
        let mut failed = 0;
        // The second life has what the first has sealed.
        for life in 0..2 {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
            LocalSet::new().block_on(&runtime, async {
                let world = machine.boot(Duration::ZERO);
                let bucket = machine.bucket().client(Arc::clone(&world.clock));
                let opened =
                    Engine::open_with(world.clone(), config.clone(), Some(bucket), "test").await;
                let engine = opened.expect("opens");
                if life == 0 {
                    let case = seal_with(room, &machine, &world, &engine).await;
                    failed = case.failed;
                    behind_the_segment += case.behind_the_segment;
                }
                check_reads(&engine, failed > 0).await;
                machine.drive().kill();
            });
            drop(runtime);
            machine.drive().power_cycle();
        }
        if failed == 0 {
            break;
        }
        room += STEP;
    }
    assert!(room > 16 * STEP, "there are that many cases");
    assert!(behind_the_segment > 0, "some failed when the catalogue had the segment");
    let mark = "a seal left out what a failed fold had written";
    assert!(weir_io::sometimes::reached().contains(mark));
}
