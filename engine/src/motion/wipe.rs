//! Wipe: what the log held is not only deleted but leaves the files of the database, within the
//! time that a deleted record may stay (INV-30).
//!
//! ```text
//! row deleted ─▶ zeroed, in a page that is written anyway (`secure_delete=FAST`)
//!            └─▶ free page ─▶ taken from the file ┐
//! WAL ─▶ moved into the database ────────────────▶ begun anew, cut to nothing
//! ```
//! Twice in that time all free pages are taken from the file, in slices between commits, and the
//! WAL is made to begin anew with nothing behind it. A store in which commits take free pages as fast as they
//! come is looked at again every second; there they are overwritten by the commits.

use std::{
    io,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use rusqlite::Connection;
use weir_io::Disk;

use super::{
    checkpoint::{self, checkpoint},
    seal::Failed,
    stow,
};
use crate::{
    Layout,
    core::Core,
    state::catalogue::{self, Failure},
};

/// When it was last done, by the wall clock.
pub(crate) const WIPED: &str = "wiped";
/// When it was last tried.
const TRIED: &str = "wipe_tried";
/// Bytes of the WAL that the writer brings into the database itself.
const REST_BYTES_MAX: u64 = 1 << 20;
/// The longest WAL that has begun anew with one small commit.
const LOG_BYTES_MAX: u64 = 64 << 10;

/// Wipes what is due, as far as one round goes.
pub(super) async fn run(core: &Arc<Core>) {
    if !is_due(core) {
        return;
    }
    match wipe(core).await {
        Ok(true) => weir_io::sometimes!("what the log had held was wiped out"),
        Ok(false) => {}
        Err(error) => tracing::debug!(%error, "not wiped yet"),
    }
}

fn is_due(core: &Core) -> bool {
    let now = core.now().wall.get();
    let half_ms = u64::try_from(core.config.erase_within.as_millis() / 2).unwrap_or(u64::MAX);
    let wiped = core.wiped.load(Ordering::Relaxed);
    // A clock that was set back must not put it off.
    wiped > now || wiped.saturating_add(half_ms) <= now
}

async fn wipe(core: &Arc<Core>) -> Result<bool, Failed> {
    let now = core.now().wall.get();
    if core.wiped.load(Ordering::Relaxed) == 0 {
        // A new store, or one that was never wiped: half the time from here on.
        return note(core, now).await.map(|()| false);
    }
    if !stow::shorten_to(core, 0).await? || !begin_anew(core, now).await? {
        // The checkpointer brings the rest into the database.
        core.shortened.store(true, Ordering::Relaxed);
        return Ok(false);
    }
    note(core, now).await?;
    Ok(true)
}

async fn note(core: &Arc<Core>, now: u64) -> Result<(), Failed> {
    core.on_writer("wiped", move |conn| catalogue::put_meta(conn, WIPED, &now.to_le_bytes()))
        .await??;
    core.wiped.store(now, Ordering::Relaxed);
    Ok(())
}

/// Makes the WAL begin anew and be cut to that. False if somebody still reads it.
async fn begin_anew(core: &Arc<Core>, now: u64) -> Result<bool, Failed> {
    if core.wal_bytes() > REST_BYTES_MAX {
        return Ok(false);
    }
    let shared = Arc::clone(core);
    let slice = move |conn: &mut Connection| -> Result<bool, Failed> {
        let disk = &*shared.world.disk;
        let log = checkpoint::wal(&shared);
        let before = beginning(disk, &log)?;
        if !checkpoint(&shared, conn).map_err(Failure::from)?.is_all() {
            return Ok(false);
        }
        catalogue::keep_log_short(conn, Some(0))?;
        let tried = catalogue::put_meta(conn, TRIED, &now.to_le_bytes());
        let usual = match shared.config.layout {
            Layout::Tree => None,
            Layout::OneFile => Some(shared.config.wal_checkpoint_bytes),
        };
        catalogue::keep_log_short(conn, usual)?;
        tried?;
        // Somebody who reads it keeps it from beginning anew: then the commit went behind the rest.
        let is_new = beginning(disk, &log)? != before;
        Ok(is_new && disk.open(&log)?.len()? <= LOG_BYTES_MAX)
    };
    core.on_writer("wipe", slice).await?
}

/// Which time the WAL has begun: the sequence number and the salts of its header (SQLite's file
/// format, 4.1), zeros if it has not.
fn beginning(disk: &dyn Disk, log: &Path) -> io::Result<[u8; 12]> {
    let mut header = [0; 24];
    match disk.open(log)?.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    Ok(std::array::from_fn(|at| header[12 + at]))
}
