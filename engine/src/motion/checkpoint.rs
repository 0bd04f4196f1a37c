//! Keeps SQLite's write-ahead log bounded (INV-13).
//!
//! A checkpoint beside the writer moves the WAL into the database file, but commits go on and the
//! WAL starts over only when all of it has been moved. So the checkpointer makes pass after pass,
//! each over what came during the one before, until little is left; that the writer moves itself
//! between two commits, and the next commit starts the WAL over, in place. A disk on which passes
//! don't catch up is the bottleneck anyway: then the writer waits for them.
//!
//! A pass that is not the last writes pages without a sync, and SQLite counts them as moved: a later
//! pass syncs them. If that sync fails, the kernel may have dropped them, and no further pass would
//! write them again. So after such a failure there is none, and no writes, until a restart moves the
//! whole WAL once more.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rusqlite::Connection;
use weir_io::{sqlite::Role, tasks};

use crate::core::Core;

/// Bytes the writer moves itself without being held up.
const REST_BYTES_MAX: u64 = 128 << 10;
/// Passes in one round; commits outrun them rarely, and then the next round goes on.
const PASSES_MAX: usize = 16;
/// What SQLite says of a sync that failed.
const SYNC_FAILED: i32 = rusqlite::ffi::SQLITE_IOERR_FSYNC;
/// How often the checkpointer looks around.
const ROUND: Duration = Duration::from_millis(50);

/// What a checkpoint saw and moved, in frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    frames: i64,
    moved: i64,
}

impl Progress {
    /// Whether the next commit starts the WAL over, if nobody reads it.
    pub(super) const fn is_all(self) -> bool {
        // SQLite says -1 of both if somebody else was at it.
        self.frames >= 0 && self.frames == self.moved
    }
}

/// Runs until the store stops.
pub(crate) async fn run(core: Arc<Core>) {
    while !core.stopping.load(Ordering::Acquire) && !core.unsynced.load(Ordering::Acquire) {
        tokio::time::sleep(ROUND).await;
        let few = core.wal_bytes.load(Ordering::Relaxed) < core.config.wal_checkpoint_bytes;
        if few && !core.shortened.swap(false, Ordering::Relaxed) {
            continue;
        }
        // A connection for each round: when the store stops, the writer's is to be the last.
        if let Err(error) = round(&core).await
            && !core.unsynced.load(Ordering::Acquire)
        {
            tracing::warn!(%error, "checkpoint failed and will be tried again");
        }
    }
}

async fn round(core: &Arc<Core>) -> Result<(), why::Failed> {
    let mut conn = None;
    for pass in 1.. {
        let before = core.wal_bytes.load(Ordering::Relaxed);
        let used = beside_writer(core, conn.take()).await?;
        conn = Some(used);
        let rest = core.wal_bytes.load(Ordering::Relaxed).saturating_sub(before);
        // The longer commits outrun the passes, the more the writer may take on itself.
        if rest <= REST_BYTES_MAX << (pass / 4) {
            finish(core).await?;
            break;
        }
        if pass == PASSES_MAX {
            weir_io::sometimes!("commits outran the checkpointer");
            break;
        }
    }
    let bytes = wal_len(core).await?;
    core.metrics.wal_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    Ok(())
}

/// One pass, without holding up anybody.
async fn beside_writer(
    core: &Arc<Core>,
    conn: Option<Connection>,
) -> Result<Connection, why::Failed> {
    let shared = Arc::clone(core);
    let conn = tasks::run(&*core.world.blocking, move || {
        let conn = match conn {
            Some(conn) => conn,
            None => shared.world.sqlite.open(&shared.database(), Role::Checkpointer)?,
        };
        checkpoint(&shared, &conn)?;
        Ok::<_, rusqlite::Error>(conn)
    })
    .await??;
    Ok(conn)
}

/// The last part, by the writer, between two commits.
async fn finish(core: &Arc<Core>) -> Result<(), why::Failed> {
    let shared = Arc::clone(core);
    core.on_writer("checkpoint", move |conn| -> rusqlite::Result<()> {
        let left = checkpoint(&shared, conn)?;
        if left.is_all() {
            // The next commit starts it over.
            shared.wal_bytes.store(0, Ordering::Relaxed);
            shared.metrics.checkpoints.inc();
        }
        Ok(())
    })
    .await??;
    Ok(())
}

/// Moves what can be moved without waiting for anybody. A sync that fails ends all writing.
pub(super) fn checkpoint(core: &Core, conn: &Connection) -> rusqlite::Result<Progress> {
    // One at a time, so that nobody begins before it is known that another one's sync has failed.
    let Some(_alone) = core.checkpointing.try_lock() else {
        return Ok(Progress { frames: -1, moved: -1 });
    };
    let moved = if core.unsynced.load(Ordering::Acquire) { Err(unsynced()) } else { pass(conn) };
    moved.inspect_err(|error| {
        let failed = error.sqlite_error().is_some_and(|it| it.extended_code == SYNC_FAILED);
        // Nobody is there any more to act on what a call says that a simulated power cut ended.
        let dead = core.world.disk.is_dead();
        if failed && !dead && !core.unsynced.swap(true, Ordering::AcqRel) {
            weir_io::sometimes!("a checkpoint's sync failed, and writes ended");
            tracing::error!(%error, "the database could not be synced: no writes until a restart");
            core.sequencer.give_up("the database could not be synced");
            // What waits for room in the WAL goes on.
            core.sequencer.work.notify_one();
        }
    })
}

fn unsynced() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(SYNC_FAILED), None)
}

/// Steps the pragma to its end.
fn pass(conn: &Connection) -> rusqlite::Result<Progress> {
    let mut pragma = conn.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
    let mut rows = pragma.query([])?;
    let mut progress = Progress { frames: 0, moved: 0 };
    while let Some(row) = rows.next()? {
        progress = Progress { frames: row.get(1)?, moved: row.get(2)? };
    }
    Ok(progress)
}

/// The WAL's file.
pub(super) fn wal(core: &Core) -> PathBuf {
    let mut path = core.database().into_os_string();
    path.push("-wal");
    PathBuf::from(path)
}

async fn wal_len(core: &Arc<Core>) -> Result<u64, why::Failed> {
    let (disk, path) = (Arc::clone(&core.world.disk), wal(core));
    Ok(tasks::run(&*core.world.blocking, move || disk.open(&path)?.len()).await??)
}

/// Why a round of checkpointing ended early.
mod why {
    #[derive(Debug, thiserror::Error)]
    pub(super) enum Failed {
        #[error(transparent)]
        Sqlite(#[from] rusqlite::Error),
        #[error(transparent)]
        Io(#[from] std::io::Error),
        #[error(transparent)]
        Gone(#[from] weir_io::tasks::Gone),
    }
}
