//! Planted defects, to prove that the checks bite: each replaces one injected part of the world
//! by one that lies. None of them is reachable but from the simulator's command line.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;
use weir_io::{
    Blocking, Clock, Disk, File, Sqlite, World,
    disk::{Create, Lock},
    sqlite::Role,
    tasks::Job,
};

/// A defect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// None.
    #[default]
    None,
    /// The drive says that it synced and did not.
    LyingFsync,
    /// SQLite commits without a sync: an acknowledgement before durability.
    AckBeforeFsync,
    /// Directories are never synced.
    NoDirectorySync,
    /// Segment files are never synced.
    NoSegmentSync,
    /// Removed files stay.
    NothingRemoved,
    /// Elapsed time runs four times too fast.
    FastClock,
    /// Elapsed time follows the wall clock's jumps.
    WallForElapsed,
    /// Every 200th blocking job never runs.
    LostJobs,
    /// Producers' states are not stored.
    DedupeLost,
    /// The epochs of deleted names are not stored.
    EpochsLost,
    /// Rows of deleted streams stay.
    RowsStay,
    /// Rows of segments are not stored.
    SegmentRowsLost,
    /// Every 50th commit is not stored.
    CommitsLost,
    /// The log is trimmed as soon as it is written.
    TrimmedTooEarly,
    /// What forks come from is not stored where merges look.
    SourcesLost,
    /// Forks are stored as if they drew on one record less.
    PointsTooLow,
    /// That a deleted stream is kept for its forks is not stored.
    RetirementsLost,
    /// Rows of forks that have ended stay.
    ForkRowsStay,
    /// What subscriptions have to do is not stored.
    LinksLost,
    /// What workers have done is not stored.
    LinksStay,
    /// Wakes and leases of subscriptions are not stored.
    ControlLost,
    /// Subscriptions are not stored.
    SubscriptionsLost,
    /// Of the tasks that slept while the process was stopped, every third never wakes.
    TasksOversleep,
    /// What a reset cuts off a request's body is made up.
    TornBodies,
    /// Whatever a reader does not take is kept for it in memory.
    EndlessBuffers,
    /// While one reader takes nothing, nobody else is answered.
    WritersWait,
    /// After some hundred connections nobody is let in any more.
    DeafAfterMany,
    /// Every second webhook is said to be done, and nobody is called.
    CallsFeigned,
}

impl Sabotage {
    /// Every defect.
    pub const ALL: [Sabotage; 22] = [
        Sabotage::LyingFsync,
        Sabotage::AckBeforeFsync,
        Sabotage::NoDirectorySync,
        Sabotage::NoSegmentSync,
        Sabotage::NothingRemoved,
        Sabotage::FastClock,
        Sabotage::WallForElapsed,
        Sabotage::LostJobs,
        Sabotage::DedupeLost,
        Sabotage::EpochsLost,
        Sabotage::RowsStay,
        Sabotage::SegmentRowsLost,
        Sabotage::CommitsLost,
        Sabotage::TrimmedTooEarly,
        Sabotage::SourcesLost,
        Sabotage::PointsTooLow,
        Sabotage::RetirementsLost,
        Sabotage::ForkRowsStay,
        Sabotage::LinksLost,
        Sabotage::LinksStay,
        Sabotage::ControlLost,
        Sabotage::SubscriptionsLost,
    ];

    /// The world with the defect in it.
    #[must_use]
    pub fn plant(self, mut world: World) -> World {
        match self {
            // Those of a town are planted in its network.
            Sabotage::None
            | Sabotage::LyingFsync
            | Sabotage::TasksOversleep
            | Sabotage::TornBodies
            | Sabotage::EndlessBuffers
            | Sabotage::WritersWait
            | Sabotage::DeafAfterMany
            | Sabotage::CallsFeigned => {}
            Sabotage::NoDirectorySync | Sabotage::NoSegmentSync | Sabotage::NothingRemoved => {
                world.disk = Arc::new(LyingDisk { disk: world.disk, defect: self });
            }
            Sabotage::FastClock | Sabotage::WallForElapsed => {
                world.clock = Arc::new(LyingClock { clock: world.clock, defect: self });
            }
            Sabotage::LostJobs => {
                let count = AtomicU64::new(0);
                world.blocking = Arc::new(LosingJobs { blocking: world.blocking, count });
            }
            Sabotage::AckBeforeFsync
            | Sabotage::DedupeLost
            | Sabotage::EpochsLost
            | Sabotage::RowsStay
            | Sabotage::SegmentRowsLost
            | Sabotage::CommitsLost
            | Sabotage::TrimmedTooEarly
            | Sabotage::SourcesLost
            | Sabotage::PointsTooLow
            | Sabotage::RetirementsLost
            | Sabotage::ForkRowsStay
            | Sabotage::LinksLost
            | Sabotage::LinksStay
            | Sabotage::ControlLost
            | Sabotage::SubscriptionsLost => {
                world.sqlite = Arc::new(LyingSqlite { sqlite: world.sqlite, defect: self });
            }
        }
        world
    }

    /// What a writer's connection is made to do.
    fn statement(self) -> Option<String> {
        Some(match (self.lost(), self) {
            (Some(lost), _) => {
                format!("CREATE TEMP TRIGGER defect BEFORE {lost} BEGIN SELECT RAISE(IGNORE); END")
            }
            (None, Sabotage::AckBeforeFsync) => "PRAGMA synchronous=OFF".to_owned(),
            (None, Sabotage::TrimmedTooEarly) => {
                "CREATE TEMP TRIGGER defect AFTER INSERT ON main.log
                 BEGIN DELETE FROM main.log WHERE lsn < new.lsn - 20; END"
                    .to_owned()
            }
            (None, Sabotage::SourcesLost) => {
                "CREATE TEMP TRIGGER defect AFTER INSERT ON main.streams
                 WHEN new.source IS NOT NULL
                 BEGIN UPDATE streams SET source = NULL WHERE id = new.id; END"
                    .to_owned()
            }
            (None, Sabotage::PointsTooLow) => {
                "CREATE TEMP TRIGGER defect AFTER INSERT ON main.streams WHEN new.fork_at > 0
                 BEGIN UPDATE streams SET fork_at = fork_at - 1 WHERE id = new.id; END"
                    .to_owned()
            }
            (None, _) => return None,
        })
    }

    /// Which changes of the catalogue never happen, as a trigger names them.
    const fn lost(self) -> Option<&'static str> {
        Some(match self {
            Sabotage::DedupeLost => "INSERT ON main.producers",
            Sabotage::EpochsLost => "INSERT ON main.tombstones",
            Sabotage::RowsStay => "DELETE ON main.streams",
            Sabotage::SegmentRowsLost => "INSERT ON main.segments",
            Sabotage::CommitsLost => "INSERT ON main.log WHEN new.lsn % 50 = 0",
            Sabotage::RetirementsLost => "UPDATE ON main.streams WHEN new.retired",
            Sabotage::ForkRowsStay => "DELETE ON main.streams WHEN old.source IS NOT NULL",
            Sabotage::LinksLost => "INSERT ON main.links",
            Sabotage::LinksStay => "DELETE ON main.links",
            Sabotage::ControlLost => "UPDATE ON main.subscriptions",
            Sabotage::SubscriptionsLost => "INSERT ON main.subscriptions",
            _ => return None,
        })
    }
}

struct LyingSqlite {
    sqlite: Arc<dyn Sqlite>,
    defect: Sabotage,
}

impl Sqlite for LyingSqlite {
    fn open(&self, path: &Path, role: Role) -> rusqlite::Result<Connection> {
        let conn = self.sqlite.open(path, role)?;
        if let (Role::Writer, Some(sql)) = (role, self.defect.statement()) {
            // Before the tables are made there is nothing to tamper with.
            drop(conn.execute_batch(&sql));
        }
        Ok(conn)
    }
}

struct LyingClock {
    clock: Arc<dyn Clock>,
    defect: Sabotage,
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

struct LosingJobs {
    blocking: Arc<dyn Blocking>,
    count: AtomicU64,
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

struct LyingDisk {
    disk: Arc<dyn Disk>,
    defect: Sabotage,
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
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for LyingDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open(path)
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
        self.disk.lock(path)
    }
    fn is_dead(&self) -> bool {
        self.disk.is_dead()
    }
}
