//! The keeper: looks around when rung, and once a second.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use weir_io::disk::Create;

use super::{seal, stow, wipe};
use crate::{Layout, core::Core, log::sequencer::Mode, state::catalogue, types::StreamName};

/// How often the keeper looks around unrung.
const ROUND: Duration = Duration::from_secs(1);
/// How far ahead of the window the deadline of a watched stream is written: two rounds.
pub(crate) const WATCHED_AHEAD_MS: u64 = 2000;
/// Expired streams ended in one round.
const EXPIRED_PER_ROUND: u32 = 1000;
/// Bytes set aside so that seals, deletions and merges can run on a full disk.
pub(crate) const RESERVE_BYTES: u64 = 8 << 20;

/// Runs until the store stops.
pub(crate) async fn run(core: Arc<Core>) {
    while !core.stopping.load(Ordering::Acquire) {
        if seal_is_due(&core) {
            seal::run(&core).await;
            core.merger.notify_one();
        }
        stow::tidy(&core).await;
        wipe::run(&core).await;
        if core.sequencer.mode() == Mode::DiskFull {
            probe_for_space(&core).await;
        }
        renew_watched(&core);
        core.renew_owed();
        end_expired(&core).await;
        tokio::select! {
            biased;
            () = core.keeper.notified() => {}
            () = tokio::time::sleep(ROUND) => {}
        }
    }
}

fn seal_is_due(core: &Core) -> bool {
    if core.sequencer.mode().is_over() {
        return false;
    }
    if core.wants_seal() {
        return true;
    }
    let since = core.unfolded.lock().since;
    // What a cut-off fold has sealed is published with the next one that is finished, and until then
    // it may be all that keeps appends waiting.
    if since.is_some() && core.is_backlogged() && core.files.lock().settled().is_none() {
        return true;
    }
    let age_ms = u64::try_from(core.config.seal_age.as_millis()).unwrap_or(u64::MAX);
    since.is_some_and(|since| core.store_now() >= since.plus(age_ms))
}

/// Lets a seal that is due go first, once: who goes on has had to wait for one.
pub(super) async fn give_way(core: &Arc<Core>) {
    if seal_is_due(core) && core.sealing.try_lock().is_ok() {
        weir_io::sometimes!("a merge left a seal its turn");
        let mut moves = core.moves.subscribe();
        core.keeper.notify_one();
        // A seal that fails moves nothing, and one may wait long for the writer.
        drop(tokio::time::timeout(ROUND, moves.changed()).await);
    }
}

/// Writes the deadlines of windows that attached readers keep open, ahead of the next round, so
/// that a crash does not end them early (INV-12).
fn renew_watched(core: &Core) {
    let watched: Vec<_> = core.watched.lock().values().cloned().collect();
    for stream in watched {
        if let Err(error) = core.sequencer.renew(&stream, core.now(), WATCHED_AHEAD_MS) {
            tracing::debug!(%error, "windows of attached readers were not renewed");
            return;
        }
    }
}

/// Ends streams whose stored deadline has passed; the sequencer decides whether it really has.
async fn end_expired(core: &Arc<Core>) {
    let now = core.now();
    let due =
        core.on_reader(move |conn| catalogue::due(conn, now.store, now.wall, EXPIRED_PER_ROUND));
    let due: Vec<StreamName> = match due.await {
        Ok(due) => due,
        Err(error) => {
            tracing::warn!(%error, "could not look for expired streams");
            return;
        }
    };
    for name in due {
        if let Ok(Some(stream)) = core.visible(&name).await
            && let Ok(Some(_)) = core.expire(&stream).await
        {
            tracing::debug!(stream = %name, "expired");
        }
    }
}

/// On a full disk: gives the reserve up so that seals can run, and takes it back when there is
/// room; then writes resume.
async fn probe_for_space(core: &Arc<Core>) {
    let disk = Arc::clone(&core.world.disk);
    let dir = core.config.dir.clone();
    let path = dir.join("reserve");
    let unsealed = core.unfolded.lock().since.is_some();
    let layout = core.config.layout;
    let room = weir_io::tasks::run(&*core.world.blocking, move || -> std::io::Result<bool> {
        if unsealed && disk.exists(&path)? {
            disk.remove(&path)?;
            // A removal that a crash could still undo has freed nothing.
            disk.sync_dir(&dir)?;
            return Ok(false);
        }
        set_aside(&*disk, &path)?;
        if layout == Layout::OneFile {
            // It was there to see whether there is room.
            disk.remove(&path)?;
        }
        Ok(true)
    });
    match room.await {
        Ok(Ok(true)) => {
            tracing::info!("the disk has room again: writes resume");
            core.sequencer.disk_has_room();
        }
        Ok(Ok(false)) => seal::run(core).await,
        Ok(Err(error)) => tracing::debug!(%error, "the disk is still full"),
        Err(_) => {}
    }
}

/// Fills the reserve file.
pub(crate) fn set_aside(disk: &dyn weir_io::Disk, path: &std::path::Path) -> std::io::Result<()> {
    let file = disk.create(path, Create::Truncate)?;
    let zeros = vec![0; 1 << 20];
    for offset in (0..RESERVE_BYTES).step_by(zeros.len()) {
        if let Err(error) = file.write_all_at(&zeros, offset) {
            // Half a reserve would itself keep the disk full.
            disk.remove(path)?;
            return Err(error);
        }
    }
    file.sync()
}
