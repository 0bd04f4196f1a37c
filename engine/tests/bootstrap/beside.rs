//! A verification beside a server: what that takes away, moves or has half done is no damage, and
//! its log can start over all the while.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;
use weir_engine::{
    Config, Engine,
    request::{Create, Fork},
    verify::Depth,
};
use weir_io::{
    Disk, File, Sqlite, World,
    disk::{Create as How, Lock},
    memory::{BucketFaults, Machine},
    sqlite::Role,
};

use crate::town::*;

/// A disk on which something happens when a file is opened.
struct Eventful<F> {
    disk: Arc<dyn Disk>,
    event: F,
}

impl<F: Fn(&Path) + Send + Sync> Disk for Eventful<F> {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        (self.event)(path);
        self.disk.open(path)
    }

    fn open_to_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open_to_write(path)
    }

    fn create(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>> {
        self.disk.create(path, how)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn create_private_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_private_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.disk.lock(path)
    }
}

/// A SQLite with which something happens before a connection is made to look.
struct Attended<F> {
    sqlite: Arc<dyn Sqlite>,
    event: F,
}

impl<F: Fn() + Send + Sync> Sqlite for Attended<F> {
    fn open(&self, path: &Path, role: Role) -> rusqlite::Result<Connection> {
        if role == Role::Looker {
            (self.event)();
        }
        self.sqlite.open(path, role)
    }
}

fn database() -> PathBuf {
    Path::new(DIR).join("weir.sqlite")
}

fn rules(found: &weir_engine::verify::Findings) -> Vec<String> {
    found.findings.iter().map(ToString::to_string).collect()
}

async fn look(world: &World) -> Vec<String> {
    let found = Engine::verify(world.clone(), config(), None, Depth::Local).await;
    rules(&found.expect("there is something to look at"))
}

#[test]
fn a_segment_that_is_evicted_just_then_is_not_damaged() {
    let machine = Machine::new(200);
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        append(&engine, "a", &"one ".repeat(30_000)).await;
        pass(15).await;
        engine.close().await;
    });
    life(&machine, async |world| {
        let writer = world.sqlite.open(&database(), Role::Writer).unwrap();
        // Not uploaded yet, as far as the look at the tables can tell.
        let uploaded: u32 =
            writer.query_row("SELECT place FROM segments", [], |it| it.get(0)).unwrap();
        writer.execute("UPDATE segments SET place = 0", []).unwrap();
        let (writer, disk) = (Mutex::new(writer), Arc::clone(&world.disk));
        let event = move |path: &Path| {
            if path.extension().is_some_and(|it| it == "seg") {
                let file = disk.open_to_write(path).unwrap();
                // Where its blocks were is a gap.
                file.write_all_at(&[0; 1000], 40).unwrap();
                let writer = writer.lock().unwrap();
                writer.execute("UPDATE segments SET place = ?1", [uploaded]).unwrap();
            }
        };
        let disk = Arc::new(Eventful { disk: Arc::clone(&world.disk), event });
        assert_eq!(look(&World { disk, ..world.clone() }).await, [""; 0]);
    });
}

#[test]
fn the_log_of_a_server_can_start_over_while_many_rows_are_looked_at() {
    let machine = Machine::new(201);
    life(&machine, async |world| {
        let engine = open(&world, &machine).await;
        for stream in 0..1500 {
            create(&engine, &format!("s{stream}")).await;
        }
        pass(15).await;
        create(&engine, "late").await;
        let started_over = Arc::new(AtomicU64::new(0));
        let (counted, sqlite) = (Arc::clone(&started_over), Arc::clone(&world.sqlite));
        let event = move || {
            let conn = sqlite.open(&database(), Role::Checkpointer).unwrap();
            let restart = "PRAGMA wal_checkpoint(RESTART)";
            let busy: u32 = conn.query_row(restart, [], |row| row.get(0)).unwrap();
            assert_eq!(busy, 0, "nobody holds the log");
            counted.fetch_add(1, Ordering::Relaxed);
        };
        let sqlite = Arc::new(Attended { sqlite: Arc::clone(&world.sqlite), event });
        assert_eq!(look(&World { sqlite, ..world.clone() }).await, [""; 0]);
        assert!(started_over.load(Ordering::Relaxed) >= 10, "{started_over:?}");
        engine.close().await;
    });
}

#[test]
fn a_fold_that_was_cut_short_is_no_damage() {
    let mut halves = 0;
    for k in (1..).step_by(2) {
        let machine = Machine::new(202);
        let ended = life(&machine, async |world| {
            let config = || Config { seal_age: Duration::from_secs(5), ..config() };
            let engine = Engine::open(world, config(), "a test").await.unwrap();
            create(&engine, "source").await;
            pass(15).await;
            for stream in 0..300 {
                create(&engine, &format!("s{stream}")).await;
            }
            let fork = Fork { source: name("source"), at: None, sub_offset: 0 };
            let fork = Create { fork: Some(fork), ..Create::new(name("fork"), None) };
            engine.create(fork).await.unwrap();
            machine.drive().kill_in(k);
            tokio::time::timeout(Duration::from_secs(60), async {
                pass(15).await;
                engine.close().await;
            })
            .await
            .is_ok()
                && !machine.drive().is_dead()
        });
        machine.drive().restart_process();
        life(&machine, async |world| {
            assert_eq!(look(&world).await, [""; 0], "killed at {k}");
            let conn = world.sqlite.open(&database(), Role::Looker).unwrap();
            let count = |sql| conn.query_row::<u32, _, _>(sql, [], |row| row.get(0)).unwrap();
            let rows = count("SELECT count(*) FROM streams");
            halves += u32::from(rows > 1 && rows < 302);
        });
        if ended {
            break;
        }
    }
    assert!(halves > 0, "some kill came between two slices");
}

#[test]
fn what_a_server_collects_meanwhile_is_not_missing() {
    let machine = Machine::new(203);
    life(&machine, async |world| {
        let bucket = || machine.bucket().client(world.clock.clone());
        let config = || Config { gc_grace: Duration::from_secs(60), ..config() };
        let opened = Engine::open_with(world.clone(), config(), Some(bucket()), "a test").await;
        let engine = opened.unwrap();
        create(&engine, "a").await;
        let (mut looks, done) = (0, std::cell::Cell::new(false));
        let appends = async {
            while !done.get() {
                append(&engine, "a", "more ").await;
                pass(3).await;
            }
        };
        let verify = async {
            pass(200).await;
            machine.bucket().set_faults(BucketFaults {
                latency: Duration::from_secs(4)..Duration::from_secs(6),
                ..BucketFaults::default()
            });
            for depth in [Depth::Remote, Depth::Deep, Depth::Both, Depth::Remote] {
                let found = Engine::verify(world.clone(), config(), Some(bucket()), depth).await;
                let found = found.expect("there is something to look at");
                assert_eq!(rules(&found), [""; 0], "{depth:?}");
                assert!(found.checked.manifests > 0, "{:?}", found.checked);
                looks += 1;
            }
            machine.bucket().set_faults(BucketFaults::default());
            done.set(true);
        };
        tokio::join!(appends, verify);
        assert_eq!(looks, 4);
        engine.close().await;
    });
}
