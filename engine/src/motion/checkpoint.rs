//! Keeps SQLite's write-ahead log bounded (INV-13).
//!
//! A checkpoint beside the writer moves most of the WAL into the database file; it can't finish
//! while commits go on. When little is left, or the WAL has passed its bound, the writer itself
//! moves the rest between two commits, and the next commit starts the WAL over, in place.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rusqlite::Connection;
use weir_io::{sqlite::Role, tasks};

use crate::core::Core;

/// Frames the writer moves itself without being held up.
const REST_FRAMES_MAX: i64 = 256;
/// How often the checkpointer looks around.
const ROUND: Duration = Duration::from_millis(100);

/// What a checkpoint left.
#[derive(Clone, Copy, Debug)]
struct Progress {
    frames: i64,
    moved: i64,
}

/// Runs until the store stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut conn: Option<Connection> = None;
    while !core.stopping.load(Ordering::Acquire) {
        tokio::time::sleep(ROUND).await;
        if core.wal_growth.load(Ordering::Relaxed) < core.config.wal_checkpoint_bytes {
            continue;
        }
        core.wal_growth.store(0, Ordering::Relaxed);
        conn = match round(&core, conn.take()).await {
            Ok(conn) => Some(conn),
            Err(error) => {
                tracing::warn!(%error, "checkpoint failed and will be tried again");
                None
            }
        };
    }
}

async fn round(core: &Arc<Core>, conn: Option<Connection>) -> Result<Connection, why::Failed> {
    let (world, path) = (core.world.clone(), core.database());
    let (conn, progress) = tasks::run(&*core.world.blocking, move || {
        let conn = match conn {
            Some(conn) => conn,
            None => world.sqlite.open(&path, Role::Checkpointer)?,
        };
        let progress = checkpoint(&conn)?;
        Ok::<_, rusqlite::Error>((conn, progress))
    })
    .await??;
    let rest = progress.frames - progress.moved;
    let bound = i64::try_from(core.config.wal_bytes_max / 4096).unwrap_or(i64::MAX);
    if rest > 0 && (rest <= REST_FRAMES_MAX || progress.frames > bound) {
        let left = core.on_writer(|conn| checkpoint(conn)).await??;
        if left.frames == left.moved {
            core.metrics.checkpoints.inc();
        }
    } else if rest == 0 {
        core.metrics.checkpoints.inc();
    }
    let bytes = wal_len(core).await?;
    core.metrics.wal_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    Ok(conn)
}

/// Moves what can be moved without waiting for anybody. Steps the pragma to its end.
fn checkpoint(conn: &Connection) -> rusqlite::Result<Progress> {
    let mut pragma = conn.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
    let mut rows = pragma.query([])?;
    let mut progress = Progress { frames: 0, moved: 0 };
    while let Some(row) = rows.next()? {
        progress = Progress { frames: row.get(1)?, moved: row.get(2)? };
    }
    Ok(progress)
}

async fn wal_len(core: &Arc<Core>) -> Result<u64, why::Failed> {
    let disk = Arc::clone(&core.world.disk);
    let mut path = core.database().into_os_string();
    path.push("-wal");
    let path = PathBuf::from(path);
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
