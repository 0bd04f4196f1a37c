//! Parts of the world that lie.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::Connection;
use weir_io::{
    Blocking, Clock, Disk, File, Sqlite,
    disk::{Create, Lock},
    sqlite::Role,
    tasks::{Job, Lane, Tasks, Work},
};

use super::Sabotage;

pub(super) struct LyingSqlite {
    sqlite: Arc<dyn Sqlite>,
    defect: Sabotage,
    /// A reader in the middle of a transaction.
    pin: Mutex<Option<Connection>>,
}

impl LyingSqlite {
    pub(super) fn new(sqlite: Arc<dyn Sqlite>, defect: Sabotage) -> Self {
        Self { sqlite, defect, pin: Mutex::default() }
    }

    /// Begins another reader where the database is now, and then lets go of the one before.
    fn pin(&self, path: &Path) -> rusqlite::Result<()> {
        let conn = self.sqlite.open(path, Role::Reader)?;
        conn.execute_batch("BEGIN; SELECT count(*) FROM main.meta;")?;
        *self.pin.lock() = Some(conn);
        Ok(())
    }
}

impl Sqlite for LyingSqlite {
    fn open(&self, path: &Path, role: Role) -> rusqlite::Result<Connection> {
        match (role, self.defect) {
            (Role::Checkpointer, Sabotage::WalNeverRestarts) => self.pin(path)?,
            (Role::Looker, Sabotage::VerifyForgets) => {
                let conn = self.sqlite.open(path, Role::Writer)?;
                conn.execute_batch("DELETE FROM main.tombstones")?;
            }
            _ => {}
        }
        let conn = self.sqlite.open(path, role)?;
        if let (Role::Writer, Some(sql)) = (role, self.defect.statement()) {
            // Before the tables are made there is nothing to tamper with.
            drop(conn.execute_batch(&sql));
        }
        if (role, self.defect) == (Role::Reader, Sabotage::TailsLost) {
            // What reads the log without writing it is what makes a ledger.
            conn.execute_batch(
                "PRAGMA query_only=OFF;
                 CREATE TEMP VIEW log AS SELECT * FROM main.log WHERE 0;
                 PRAGMA query_only=ON;",
            )?;
        }
        if (role, self.defect) == (Role::Reader, Sabotage::CursorsPublished) {
            // Version, kind and stream, then the acked and the last offset: an epoch and a position
            // each, all of them numbers of one byte.
            conn.execute_batch(
                "PRAGMA query_only=OFF;
                 CREATE TEMP VIEW links AS SELECT subscription, path, lsn,
                     CASE WHEN length(row) = 7 THEN
                         CAST(substr(row, 1, 3) || substr(row, 6, 2) || substr(row, 6, 2) AS BLOB)
                     ELSE row END AS row
                     FROM main.links;
                 PRAGMA query_only=ON;",
            )?;
        }
        Ok(conn)
    }
}

pub(super) struct LyingClock {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) defect: Sabotage,
}

impl Clock for LyingClock {
    fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    fn elapsed(&self) -> Duration {
        match self.defect {
            Sabotage::FastClock => self.clock.elapsed() * 4,
            _ => Duration::from_millis(self.clock.wall_ms()),
        }
    }
}

/// Tasks of which those with one name never run.
struct ForgettingTasks {
    tasks: Arc<dyn Tasks>,
    forgotten: &'static str,
}

pub(super) fn forgetting(tasks: Arc<dyn Tasks>, forgotten: &'static str) -> Arc<dyn Tasks> {
    Arc::new(ForgettingTasks { tasks, forgotten })
}

impl Tasks for ForgettingTasks {
    fn spawn(&self, name: &'static str, work: Work) {
        if name != self.forgotten {
            self.tasks.spawn(name, work);
        }
    }

    fn dedicate(&self, name: &'static str, lane: Lane) {
        self.tasks.dedicate(name, lane);
    }

    fn lanes_ended(&self) -> Work {
        self.tasks.lanes_ended()
    }
}

pub(super) struct LosingJobs {
    pub(super) blocking: Arc<dyn Blocking>,
    pub(super) count: AtomicU64,
}

impl Blocking for LosingJobs {
    fn submit(&self, job: Job) {
        if self.count.fetch_add(1, Ordering::Relaxed) % 200 == 199 {
            // Forgotten, so that its reply channel stays open for ever.
            std::mem::forget(job);
            return;
        }
        self.blocking.submit(job);
    }

    fn is_dead(&self) -> bool {
        self.blocking.is_dead()
    }
}

pub(super) struct LyingDisk {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) defect: Sabotage,
}

struct UnsyncedFile(Arc<dyn File>);

impl File for UnsyncedFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn allocated(&self) -> io::Result<u64> {
        self.0.allocated()
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A lock that keeps nobody out.
struct NoLock;

impl Lock for NoLock {
    fn describe(&self, _holder: &str) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for LyingDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open(path)
    }
    fn open_to_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open_to_write(path)
    }
    fn create(&self, path: &Path, how: Create) -> io::Result<Arc<dyn File>> {
        let file = self.disk.create(path, how)?;
        match self.defect {
            Sabotage::NoSegmentSync => Ok(Arc::new(UnsyncedFile(file))),
            _ => Ok(file),
        }
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn create_private_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_private_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        match self.defect {
            Sabotage::NoDirectorySync => Ok(()),
            _ => self.disk.sync_dir(path),
        }
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.defect {
            Sabotage::NothingRemoved => Ok(()),
            _ => self.disk.remove(path),
        }
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        match self.defect {
            Sabotage::LockIgnored => Ok(Some(Box::new(NoLock))),
            _ => self.disk.lock(path),
        }
    }
    fn is_dead(&self) -> bool {
        self.disk.is_dead()
    }
}
