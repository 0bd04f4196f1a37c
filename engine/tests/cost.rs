//! What work costs where no machine makes a difference: what is asked of the disk and of the bucket, how
//! many statements SQLite runs, how often memory is allotted. Time is simulated, and everything
//! runs on one thread in an order that never changes; so a figure in `snapshots/cost` that moves
//! was moved by the code.
//!
//! A workload runs twice. On the simulated disk its operations are counted; on the real one, with
//! all else as before, allocations: the simulated disk makes some of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use allocation_counter::measure;
use bytes::Bytes;
use rusqlite::{Connection, trace::TraceEvent, trace::TraceEventCodes};
use tokio::{runtime::Runtime, task::LocalSet};
use weir_engine::{
    Change, Config, Engine,
    request::{Append, Create, From, Read},
    types::{ContentType, Offset, StreamName},
};
use weir_io::{
    Sqlite, World,
    memory::{Machine, Op, Verb},
    os::{OsDisk, OsSqlite},
    sqlite::Role,
};

/// Requests that are counted.
const REQUESTS: u64 = 1000;
/// Requests before that, which meet nothing for the first time afterwards.
const WARM_UP: u64 = 256;
/// Time after which everything is sealed and in the bucket, and nobody does anything any more.
const REST: Duration = Duration::from_secs(60);

/// A workload.
struct Work {
    name: &'static str,
    about: &'static str,
    /// Who append, each one request at a time.
    clients: u64,
    streams: u64,
    /// Records in a request.
    batch: usize,
    /// Bytes of a record.
    bytes: usize,
    /// Who read along, all of the first stream.
    readers: u64,
}

const WORKS: [Work; 4] = [
    Work {
        name: "alone",
        about: "one client, one stream, a record of 100 bytes a request",
        clients: 1,
        streams: 1,
        batch: 1,
        bytes: 100,
        readers: 0,
    },
    Work {
        name: "together",
        about: "64 clients, 1,000 streams, a record of 100 bytes a request",
        clients: 64,
        streams: 1000,
        batch: 1,
        bytes: 100,
        readers: 0,
    },
    Work {
        name: "batches",
        about: "4 clients, one stream, a JSON array of 100 messages of 100 bytes a request",
        clients: 4,
        streams: 1,
        batch: 100,
        bytes: 100,
        readers: 0,
    },
    Work {
        name: "live",
        about: "one client, one stream, a record of 100 bytes a request, and 100 live readers",
        clients: 1,
        streams: 1,
        batch: 1,
        bytes: 100,
        readers: 100,
    },
];

/// Which disk a workload runs on.
enum Ground {
    Simulated,
    Real(PathBuf),
}

/// Statements that SQLite ran.
static STATEMENTS: AtomicU64 = AtomicU64::new(0);

/// SQLite on real files whose statements are counted.
struct Counted;

impl Sqlite for Counted {
    fn open(&self, path: &Path, role: Role) -> rusqlite::Result<Connection> {
        let mut connection = OsSqlite.open(path, role)?;
        let count = |_: TraceEvent<'_>| {
            STATEMENTS.fetch_add(1, Ordering::Relaxed);
        };
        connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(count))?;
        Ok(connection)
    }
}

/// What was asked for so far.
#[derive(Clone, Copy, Default)]
struct Asked {
    commits: u64,
    syncs: u64,
    writes: u64,
    written: u64,
    reads: u64,
    requests: u64,
    stored: u64,
    statements: u64,
    allocations: u64,
}

impl Asked {
    fn since(self, before: Asked) -> Asked {
        Asked {
            commits: self.commits - before.commits,
            syncs: self.syncs - before.syncs,
            writes: self.writes - before.writes,
            written: self.written - before.written,
            reads: self.reads - before.reads,
            requests: self.requests - before.requests,
            stored: self.stored - before.stored,
            statements: self.statements - before.statements,
            ..self
        }
    }
}

/// A store that works, and what it asks for.
struct Site {
    machine: Machine,
    runtime: Runtime,
    tasks: LocalSet,
    engine: Engine,
}

impl Site {
    fn open(ground: &Ground) -> Site {
        let machine = Machine::new(7);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        let tasks = LocalSet::new();
        let engine = tasks.block_on(&runtime, async {
            let world = machine.boot(Duration::ZERO);
            let (world, dir) = match ground {
                Ground::Simulated => (world, Path::new("/data/store")),
                Ground::Real(dir) => {
                    let (disk, sqlite) = (Arc::new(OsDisk), Arc::new(Counted));
                    (World { disk, sqlite, ..world }, dir.as_path())
                }
            };
            world.disk.create_dir_all(dir).unwrap();
            let bucket = machine.bucket().client(Arc::clone(&world.clock));
            Engine::open_with(world, Config::new(dir), Some(bucket), "a test").await.unwrap()
        });
        Site { machine, runtime, tasks, engine }
    }

    fn asked(&self) -> Asked {
        let (drive, bucket) = (self.machine.drive(), self.machine.bucket());
        Asked {
            commits: self.engine.metrics().commits.get(),
            syncs: drive.count(Op::Sync) + drive.count(Op::SyncDir),
            writes: drive.count(Op::Write),
            written: drive.written_bytes(),
            reads: drive.count(Op::Read),
            requests: bucket.requests(),
            stored: bucket
                .log()
                .iter()
                .filter(|it| it.verb == Verb::Create)
                .map(|it| it.bytes)
                .sum(),
            statements: STATEMENTS.load(Ordering::Relaxed),
            ..Asked::default()
        }
    }

    /// Does something, and says what was asked for meanwhile.
    fn count<R>(&self, work: impl Future<Output = R>) -> Asked {
        let before = self.asked();
        let memory = measure(|| {
            self.tasks.block_on(&self.runtime, work);
        });
        let asked = self.asked().since(before);
        Asked { allocations: memory.count_total, ..asked }
    }

    /// Runs a workload: what its requests cost, and what it costs to put everything in the bucket.
    fn run(&self, work: &Work) -> [Asked; 2] {
        self.tasks.block_on(&self.runtime, async {
            for stream in 0..work.streams {
                self.engine.create(Create::new(name(stream), json())).await.unwrap();
            }
            append(&self.engine, work, 0..WARM_UP).await;
            tokio::time::sleep(REST).await;
            append(&self.engine, work, 0..WARM_UP).await;
        });
        let appended = self.count(async {
            let readers: Vec<_> = (0..work.readers)
                .map(|_| tokio::task::spawn_local(follow(self.engine.clone())))
                .collect();
            append(&self.engine, work, 0..REQUESTS).await;
            for reader in readers {
                reader.await.unwrap();
            }
        });
        [appended, self.count(async { tokio::time::sleep(REST).await })]
    }
}

fn name(stream: u64) -> StreamName {
    StreamName::new(&format!("cost/{stream}")).unwrap()
}

fn json() -> ContentType {
    ContentType::parse("application/json").unwrap()
}

/// Requests of all clients, each to the stream of its number.
async fn append(engine: &Engine, work: &Work, requests: std::ops::Range<u64>) {
    let message = format!("\"{}\"", "x".repeat(work.bytes - 2));
    let body = match work.batch {
        1 => message,
        batch => format!("[{}]", vec![message; batch].join(",")),
    };
    let body = Bytes::from(body);
    let clients: Vec<_> = (0..work.clients)
        .map(|client| {
            let mine = requests.clone().skip(usize::try_from(client).unwrap());
            let mine: Vec<Append> = mine
                .step_by(usize::try_from(work.clients).unwrap())
                .map(|request| Append::new(name(request % work.streams), json(), body.clone()))
                .collect();
            let engine = engine.clone();
            tokio::task::spawn_local(async move {
                for append in mine {
                    engine.append(append).await.unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}

/// Reads what comes until all of it has come.
async fn follow(engine: Engine) {
    let watch = engine.watch(&name(0)).await.unwrap();
    let read = |from| watch.read(from, None, 1 << 20);
    let mut at: Offset = engine.head(&name(0)).await.unwrap().next;
    let last = at.next.after(REQUESTS);
    while at.next < last {
        assert_eq!(watch.changed(at).await, Change::Data);
        at = read(From::At(at)).await.unwrap().next;
    }
}

/// What both runs of a workload say of a thousand requests.
fn told(work: &Work) -> String {
    let on_drive = Site::open(&Ground::Simulated).run(work);
    let dir = format!("weir-cost-{}-{:010}", work.name, std::process::id());
    let dir = std::env::temp_dir().join(dir);
    let on_files = {
        let site = Site::open(&Ground::Real(dir.clone()));
        let counted = site.run(work);
        // Read once more from outside: both runs did the same.
        let read = Read { name: name(0), from: From::Start, key: None, bytes_max: 64 << 20 };
        let page = site.tasks.block_on(&site.runtime, site.engine.read(read)).unwrap();
        assert!(page.records > 0);
        site.tasks.block_on(&site.runtime, site.engine.close());
        counted
    };
    std::fs::remove_dir_all(&dir).unwrap();
    let mut text = format!("{}\n", work.about);
    let parts = ["a thousand requests", "until everything is in the bucket"];
    for ((part, drive), files) in parts.into_iter().zip(on_drive).zip(on_files) {
        assert_eq!(drive.commits, files.commits, "both runs do the same");
        writeln!(text, "\n{part}").unwrap();
        for (what, count) in [
            ("commits", drive.commits),
            ("SQL statements", files.statements),
            ("syncs", drive.syncs),
            ("writes to disk", drive.writes),
            ("bytes written to disk", drive.written),
            ("reads from disk", drive.reads),
            ("bucket requests", drive.requests),
            ("bytes put in the bucket", drive.stored),
            ("allocations", files.allocations),
        ] {
            writeln!(text, "  {what:<24}{count:>12}").unwrap();
        }
    }
    if work.readers > 0 {
        let each = on_files[0].allocations as f64 / (REQUESTS * work.readers) as f64;
        writeln!(text, "\nallocations per delivery: {each:.1}").unwrap();
    }
    text
}

#[test]
fn work_costs_what_it_did() {
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../snapshots/cost"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for work in &WORKS {
        let told = told(work);
        settings.bind(|| insta::assert_snapshot!(work.name, told));
    }
}
