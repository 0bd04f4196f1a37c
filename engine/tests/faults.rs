//! Full disks and failing ones, on the simulated machine.

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{End, live, name};
use weir_engine::{
    Config, Engine, Health,
    request::{Append, Create, Error, From, Read, Rejection},
    types::ContentType,
};
use weir_io::memory::{Faults, Machine};

async fn create(engine: &Engine, text: &str) -> Result<(), Error> {
    let create = Create::new(name(text), ContentType::parse("text/plain"));
    engine.create(create).await.map(drop)
}

async fn append(engine: &Engine, text: &str, body: Bytes) -> Result<(), Error> {
    let append = Append::new(name(text), ContentType::parse("text/plain"), body);
    engine.append(append).await.map(drop)
}

async fn length(engine: &Engine, text: &str) -> usize {
    let read = Read { name: name(text), from: From::Start, key: None, bytes_max: 64 << 20 };
    engine.read(read).await.expect("reads go on").bytes
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_takes_writes_again_when_there_is_room() {
    let machine = Machine::new(1);
    live(&machine, End::PowerCut, async |engine| {
        for stream in ["kept", "victim"] {
            create(&engine, stream).await.expect("creates");
            append(&engine, stream, Bytes::from(vec![b'a'; 1000])).await.expect("appends");
        }
        let capacity_bytes = Some(machine.drive().used_bytes() + (256 << 10));
        machine.drive().set_faults(Faults { capacity_bytes, ..Faults::default() });
        let big = Bytes::from(vec![b'b'; 1 << 20]);
        let refused = append(&engine, "kept", big.clone()).await;
        assert!(matches!(refused, Err(Error::DiskFull)), "{refused:?}");
        assert_eq!(engine.health(), Health::DiskFull);
        assert_eq!(length(&engine, "kept").await, 1000, "nothing of it is there");
        assert!(matches!(append(&engine, "kept", big.clone()).await, Err(Error::DiskFull)));
        engine.delete(&name("victim")).await.expect("room is set aside for deletions");

        machine.drive().set_faults(Faults::default());
        while engine.health() != Health::Serving {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        append(&engine, "kept", big).await.expect("appends again");
        assert_eq!(length(&engine, "kept").await, 1000 + (1 << 20));
    });
    live(&machine, End::PowerCut, async |engine| {
        assert_eq!(length(&engine, "kept").await, 1000 + (1 << 20), "and it is durable");
        let gone = engine.head(&name("victim")).await;
        assert!(matches!(gone, Err(Error::Rejected(Rejection::NotFound))));
    });
}

#[test]
fn after_a_failed_sync_reads_go_on_and_writes_wait_for_a_restart() {
    for seed in 0..10 {
        let machine = Machine::new(seed);
        live(&machine, End::PowerCut, async |engine| {
            create(&engine, "s").await.expect("creates");
            append(&engine, "s", Bytes::from_static(b"durable")).await.expect("appends");
            machine.drive().set_faults(Faults { sync: 1.0, ..Faults::default() });
            let unknown = append(&engine, "s", Bytes::from_static(b"?")).await;
            assert!(matches!(unknown, Err(Error::Unknown)), "{unknown:?}");
            assert!(matches!(engine.health(), Health::LogFailed { .. }));
            let refused = append(&engine, "s", Bytes::from_static(b"!")).await;
            assert!(matches!(refused, Err(Error::LogFailed)), "{refused:?}");
            assert_eq!(length(&engine, "s").await, 7, "what is not durable is not shown");
            machine.drive().set_faults(Faults::default());
        });
        live(&machine, End::PowerCut, async |engine| {
            let found = length(&engine, "s").await;
            assert!(found == 7 || found == 8, "durable, and perhaps the unknown one");
            append(&engine, "s", Bytes::from_static(b"after")).await.expect("writes again");
            assert_eq!(length(&engine, "s").await, found + 5);
        });
    }
}

#[test]
fn a_second_process_on_the_directory_is_told_who_holds_it() {
    let machine = Machine::new(7);
    live(&machine, End::PowerCut, async |engine| {
        let second =
            Engine::open(machine.boot(Duration::ZERO), Config::new("/data/store"), "second");
        let error = second.await.err().expect("the directory is taken").to_string();
        assert_eq!(error, "/data/store is in use by test");
        assert_eq!(engine.health(), Health::Serving);
    });
}
