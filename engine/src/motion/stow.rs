//! Stow: brings the pieces of new segments into the database, takes those of old ones out, and
//! gives the file's space back, all in slices between commits. Where segments are files it removes
//! those that nothing names.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rusqlite::Connection;

use super::{
    fold::{Step, in_slices},
    seal::Failed,
};
use crate::{
    core::Core,
    rack::{Files, Pieces, Rack},
    state::catalogue::{Failure, pieces},
    types::SegmentId,
};

/// Pieces deleted at once.
const PIECES_PER_STEP: u32 = 4;
/// Pages taken from the end of the file at once: a step of a slice, and a slice has some.
const PAGES_PER_STEP: u64 = 16;
/// Time after which a slice takes no further step.
const SLICE_MAX: std::time::Duration = std::time::Duration::from_millis(1);
/// Slices that shorten the file in one of the keeper's rounds: commits have their turn.
const SLICES_PER_ROUND: usize = 64;
/// Free pages that stay: what the next commits take.
const FREE_PAGES_KEPT: u64 = 64;
const PAGE_BYTES: u64 = 4096;

/// Makes a new segment durable, before the catalogue names it (INV-14).
pub(super) async fn run(core: &Arc<Core>, id: SegmentId) -> Result<(), Failed> {
    let Rack::Pieces(rack) = &core.rack else { return Ok(()) };
    let Some(draft) = rack.draft_of(id) else { return Ok(()) };
    let count = draft.len();
    let put = move |conn: &Connection, index: usize| {
        let piece = &draft[index];
        pieces::put(conn, id, piece.at, &piece.body)?;
        Ok(Step::Next)
    };
    if let Err(error) = in_slices(core, "stow", count, put).await {
        // It gets another number when it is tried again.
        rack.doom(id);
        return Err(error);
    }
    rack.stowed(id);
    Ok(())
}

/// Removes segments that nothing names: those that were merged, and new ones that the catalogue did not
/// take, so that a disk that is full does not keep what each try has left.
pub(super) async fn remove(core: &Arc<Core>, ids: Vec<SegmentId>) {
    match &core.rack {
        Rack::Pieces(rack) => ids.into_iter().for_each(|id| rack.doom(id)),
        Rack::Files(_) => {
            on_files(core, move |files| files.remove(ids.iter().map(|id| files.path(*id)))).await;
        }
    }
}

/// Removes new segments whose rows the catalogue refused, if that was for want of room: then nothing
/// names them. After any other error a crash may still bring the rows back, and the next start
/// removes what they do not name.
pub(super) async fn remove_refused(core: &Arc<Core>, ids: Vec<SegmentId>, why: &Failure) {
    if why.is_full() {
        weir_io::sometimes!("segments were removed that a full disk kept out of the catalogue");
        remove(core, ids).await;
    }
}

/// Does something with files. Nobody waits for it if the process is shutting down.
pub(super) async fn on_files(core: &Arc<Core>, job: impl FnOnce(&Files) + Send + 'static) {
    let shared = Arc::clone(core);
    let run = move || match &shared.rack {
        Rack::Files(files) => job(files),
        Rack::Pieces(_) => {}
    };
    drop(weir_io::tasks::run(&*core.world.blocking, run).await);
}

/// Takes out what nobody reads any more, and gives back what the file has too much.
pub(super) async fn tidy(core: &Arc<Core>) {
    let rack = match &core.rack {
        Rack::Files(files) => {
            if files.has_left() {
                weir_io::sometimes!("a file that could not be removed was tried again");
                on_files(core, Files::remove_left).await;
            }
            return;
        }
        Rack::Pieces(rack) => rack,
    };
    if let Err(error) = take_out(core, rack).await {
        // Those that are left go at the next start.
        tracing::warn!(%error, "segments that nothing names stay in the database");
    }
    if let Err(error) = shorten(core).await {
        tracing::warn!(%error, "the database keeps the space it does not need");
    }
}

async fn take_out(core: &Arc<Core>, rack: &Pieces) -> Result<(), Failed> {
    let gone = rack.take_doomed();
    if gone.is_empty() {
        return Ok(());
    }
    weir_io::sometimes!("a merged segment was taken out of the database");
    let count = gone.len();
    in_slices(core, "take out", count, move |conn, index| {
        match pieces::remove(conn, gone[index], PIECES_PER_STEP)? {
            0 => Ok(Step::Next),
            _ => Ok(Step::Again),
        }
    })
    .await
}

async fn shorten(core: &Arc<Core>) -> Result<(), Failed> {
    // While commits come, the next log takes what this one left.
    let is_idle = core.unfolded.lock().since.is_none();
    let log = u64::try_from(Core::unsealed_bytes_max(&core.config)).unwrap_or(u64::MAX);
    let kept = FREE_PAGES_KEPT + if is_idle { 0 } else { log / PAGE_BYTES };
    shorten_to(core, kept).await.map(drop)
}

/// Takes free pages from the file until no more than `kept` are left, for as long as a round may
/// take. Whether so few are left.
pub(super) async fn shorten_to(core: &Arc<Core>, kept: u64) -> Result<bool, Failed> {
    if core.on_reader(pieces::free_pages).await? <= kept {
        return Ok(true);
    }
    let mut is_done = false;
    let over = Arc::new(AtomicBool::new(false));
    for _ in 0..SLICES_PER_ROUND {
        let (clock, over) = (Arc::clone(&core.world.clock), Arc::clone(&over));
        let slice = move |conn: &mut Connection| -> Result<bool, Failure> {
            let started = clock.elapsed();
            let tx = conn.transaction()?;
            let mut free = pieces::free_pages(&tx)?;
            while free > kept {
                let before = free;
                pieces::shorten(&tx, PAGES_PER_STEP.min(free - kept))?;
                over.store(true, Ordering::Relaxed);
                free = pieces::free_pages(&tx)?;
                if free >= before {
                    return Err(Failure::Damaged("the database does not become shorter".into()));
                }
                if clock.elapsed() - started >= SLICE_MAX {
                    break;
                }
            }
            tx.commit()?;
            Ok(free > kept)
        };
        if !core.on_writer("shorten", slice).await?? {
            is_done = true;
            break;
        }
    }
    if over.load(Ordering::Relaxed) {
        weir_io::sometimes!("the database gave space back");
        // The file itself becomes shorter when the log is moved into it.
        core.shortened.store(true, Ordering::Relaxed);
    }
    Ok(is_done)
}
