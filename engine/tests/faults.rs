//! Full disks and failing ones, on the simulated machine.

mod support;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use support::{End, live, live_in, name};
use weir_engine::{
    Config, Engine, Health,
    request::{Append, Create, Error, From, Read, Rejection},
    types::ContentType,
};
use weir_io::{
    Blocking, World,
    memory::{Faults, Machine},
    sqlite::Role,
    tasks::Job,
};

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

/// Jobs that begin a second late; who writes the log does not wait.
struct Late(Arc<dyn Blocking>);

impl Blocking for Late {
    fn submit(&self, job: Job) {
        let inner = Arc::clone(&self.0);
        drop(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            inner.submit(job);
        }));
    }

    fn is_dead(&self) -> bool {
        self.0.is_dead()
    }
}

#[test]
fn a_log_that_can_not_start_over_is_moved_as_soon_as_it_can() {
    let machine = Machine::new(9);
    let config = Config::new("/data/store");
    let database = config.dir.join(config.layout.database());
    let sqlite = OnceLock::new();
    let late = |world: World| {
        sqlite.get_or_init(|| Arc::clone(&world.sqlite));
        World { blocking: Arc::new(Late(world.blocking)), ..world }
    };
    live_in(&machine, End::Clean, config, late, async |engine| {
        create(&engine, "s").await.expect("creates");
        // Somebody looks at the database and does not go: what comes now can't be moved.
        let sqlite = sqlite.get().expect("set as the world was made");
        let guest = sqlite.open(&database, Role::Reader).expect("opens");
        guest.execute_batch("BEGIN; SELECT id FROM streams;").expect("looks");
        // Three MiB in each pass of the checkpointer, for more passes than there are in a round.
        for _ in 0..100 {
            append(&engine, "s", Bytes::from(vec![b'a'; 600 << 10])).await.expect("appends");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let mark = "commits outran the checkpointer";
        assert!(weir_io::sometimes::reached().contains(mark), "a round came to its end");
        assert_eq!(engine.metrics().checkpoints.get(), 0);
        drop(guest);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(engine.metrics().checkpoints.get() > 0, "the next round moves the rest");
        assert_eq!(length(&engine, "s").await, 100 * (600 << 10));
    });
    live(&machine, End::Clean, async |engine| {
        assert_eq!(length(&engine, "s").await, 100 * (600 << 10));
    });
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

/// An error with what caused it.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |inner| inner.source());
    causes.fold(error.to_string(), |text, inner| format!("{text}: {inner}"))
}

#[test]
fn a_start_that_the_disk_refuses_says_which_file_and_what_to_do() {
    let machine = Machine::new(11);
    live(&machine, End::PowerCut, async |engine| {
        create(&engine, "s").await.expect("creates");
        append(&engine, "s", Bytes::from(vec![b'a'; 1000])).await.expect("appends");
    });
    let config = Config::new("/data/store");
    let log = config.dir.join("weir.sqlite-wal");
    let start = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        let said = tokio::task::LocalSet::new().block_on(&runtime, async {
            let opened = Engine::open(machine.boot(Duration::ZERO), config.clone(), "test").await;
            machine.drive().kill();
            opened.err().map(|error| told(&error))
        });
        drop(runtime);
        machine.drive().restart_process();
        said
    };
    machine.drive().set_readable(&log, false).expect("there is a log");
    let said = start().expect("the log can't be read");
    for part in ["/data/store/weir.sqlite-wal can't be read between bytes 0 and", "weir bootstrap"]
    {
        assert!(said.contains(part), "{said}");
    }
    machine.drive().set_readable(&log, true).expect("there is a log");

    // Wherever it is that there is no room.
    machine.drive().set_faults(Faults { full: 0.4, ..Faults::default() });
    let said: Vec<String> = (0..60).filter_map(|_| start()).collect();
    for said in &said {
        assert!(said.contains("free some space and start again"), "{said}");
    }
    let named =
        |it: &&String| it.contains("/data/store/weir.sqlite-wal can't be written at byte 0");
    assert!(said.iter().filter(named).count() > 3, "{said:?}");
    machine.drive().set_faults(Faults::default());
    live(&machine, End::Clean, async |engine| {
        assert_eq!(length(&engine, "s").await, 1000, "nothing was lost");
    });
}
