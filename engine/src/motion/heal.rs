//! Looks at files that could not be read: one that the bucket has too is fetched from there again, a
//! segment that is damaged beside its blocks is written anew, and of a ledger that nobody has all rows
//! are written anew.

use std::{
    io,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use weir_io::{disk::Create, objects::ObjectError, retry::Retrying};

use super::{
    intact, ledgers,
    seal::{Failed, NewSegment},
    unreadable::News,
};
use crate::{
    core::{Core, ledger_dir, ledger_path},
    history,
    ledger::{Ledger, Source},
    segment::Segment,
    state::catalogue::{Failure, LedgerRow, Place},
    types::{SegmentId, StoreMs},
};

/// Bytes of a ledger that are fetched with one request.
const PIECE_BYTES: u64 = 8 << 20;

/// Notes that a file can't be read, for those who would want it and for those who look.
pub(super) fn note(core: &Core, id: SegmentId, why: &dyn std::fmt::Display) {
    let news = core.unreadable.lock().put(id, core.store_now());
    show(core);
    match news {
        News::New => {
            weir_io::sometimes!("a file that could not be read was left out");
            tracing::warn!(file = %id, %why, "a file can't be read: it is left out until it can");
        }
        News::Known => tracing::debug!(file = %id, %why, "a file still can't be read"),
        News::GivenUp => {
            tracing::error!(file = %id, %why, "a file can't be read, and nobody waits for it now");
        }
    }
}

/// Notes files that were given up before this start and that nothing is here of.
pub(crate) fn give_up(core: &Core, lost: Vec<SegmentId>) {
    let now = core.store_now();
    lost.into_iter().for_each(|id| core.unreadable.lock().give_up(id, now));
    show(core);
}

/// Looks at the files whose time has come. Whether any of them is no trouble any more.
pub(super) async fn run(core: &Arc<Core>) -> bool {
    let due = core.unreadable.lock().due(core.store_now());
    forget(core);
    let mut healed = false;
    for id in due {
        if core.stopping.load(Ordering::Acquire) {
            break;
        }
        match look(core, id).await {
            Ok(()) => {
                core.unreadable.lock().remove(id);
                show(core);
                tracing::info!(file = %id, "a file can be read again, or nobody needs it any more");
                healed = true;
                core.publisher.notify_one();
            }
            Err(error) => note(core, id, &error),
        }
    }
    healed
}

/// Forgets files that are gone.
fn forget(core: &Core) {
    if core.unreadable.lock().len() > 0 {
        let files = core.files.lock();
        let ledgers = files.ledgers();
        let is_live = |id| files.segment(id).is_some() || ledgers.iter().any(|row| row.id == id);
        core.unreadable.lock().retain(is_live);
        drop(files);
        show(core);
    }
}

fn show(core: &Core) {
    let count = core.unreadable.lock().len();
    core.metrics.files_unreadable.set(i64::try_from(count).unwrap_or(i64::MAX));
}

async fn look(core: &Arc<Core>, id: SegmentId) -> Result<(), Failed> {
    let (segment, ledger) = {
        let files = core.files.lock();
        let segment = files.segment(id).map(|held| Arc::clone(&held.segment));
        (segment, files.ledgers().iter().find(|row| row.id == id).copied())
    };
    if let Some(segment) = segment {
        return look_at_segment(core, &segment).await;
    }
    match ledger {
        Some(row) => look_at_ledger(core, row).await,
        None => Ok(()),
    }
}

async fn look_at_segment(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<(), Failed> {
    if segment.remote().is_some() {
        history::doubt(std::slice::from_ref(segment));
        return Ok(history::make_whole(core, std::slice::from_ref(segment)).await?);
    }
    intact::make(core, segment).await?;
    if segment.is_lost() { found_again(core, segment.id()).await } else { Ok(()) }
}

/// A segment is there again that was lost at the start: from here on it is read.
async fn found_again(core: &Arc<Core>, id: SegmentId) -> Result<(), Failed> {
    // The set of segments is changed by one at a time.
    let _turn = core.sealing.lock().await;
    let shared = Arc::clone(core);
    let open = move || -> Result<Segment, Failed> { Ok(Segment::open(shared.rack.open(id)?)?) };
    let segment = Arc::new(weir_io::tasks::run(&*core.world.blocking, open).await??);
    let row = core.files.lock().segment(id).map(|held| held.row);
    if let Some(row) = row {
        weir_io::sometimes!("a segment was found again that was lost at the start");
        let found = NewSegment { row, segment };
        core.files.lock().replace_segments(&[id], Some(found.held()));
        core.replace_segments(&[id], Some(found));
    }
    Ok(())
}

/// A ledger that can't be read: its object is fetched, or all rows are written again.
pub(super) async fn look_at_ledger(core: &Arc<Core>, row: LedgerRow) -> Result<(), Failed> {
    let shared = Arc::clone(core);
    let verify = move || ledgers::verify(&shared, &row);
    let Err(error) = weir_io::tasks::run(&*core.world.blocking, verify).await? else {
        return Ok(());
    };
    if row.place == Place::Bucket
        && let Some(bucket) = &core.bucket
    {
        let fetched = core.unless_leaving(fetch(core, &bucket.patient, row)).await;
        let Some(fetched) = fetched else { return Err(error) };
        match fetched {
            Ok(()) => {
                weir_io::sometimes!("a damaged ledger was fetched from the bucket again");
                tracing::warn!(ledger = %row.id, %error, "a ledger was fetched from the bucket again");
                return Ok(());
            }
            // The bucket or this disk may do better later.
            Err(failed @ Failed::Io(_)) if !core.unreadable.lock().is_given_up(row.id) => {
                tracing::debug!(ledger = %row.id, error = %failed, "a ledger was not fetched");
                return Err(error);
            }
            Err(failed) => {
                tracing::warn!(ledger = %row.id, error = %failed, "a ledger is damaged for good");
            }
        }
    }
    write_all_again(core);
    Err(error)
}

/// All rows are written again: from the catalogue, which has all of them.
pub(super) fn write_all_again(core: &Core) {
    core.ledgers_whole.store(false, Ordering::Release);
    core.unfolded.lock().since.get_or_insert(StoreMs::ZERO);
    core.keeper.notify_one();
}

/// Replaces the file of a ledger by its object.
async fn fetch(core: &Arc<Core>, bucket: &Retrying, row: LedgerRow) -> Result<(), Failed> {
    let path = ledger_path(&core.config, row.id);
    let temporary = path.with_extension("tmp");
    let disk = &core.world.disk;
    let (made, name) = (Arc::clone(disk), temporary.clone());
    let blocking = &*core.world.blocking;
    let create = move || made.create(&name, Create::Truncate);
    let file = weir_io::tasks::run(blocking, create).await??;
    let key = super::publish::ledger_key(&row);
    let fetched = async {
        let mut at = 0;
        while at < row.bytes {
            let piece: Range<u64> = at..row.bytes.min(at + PIECE_BYTES);
            let got = bucket.get_range(&key, piece.clone()).await;
            let bytes = got.map_err(|error| match error {
                ObjectError::NotFound => Failed::Catalogue(Failure::Damaged(error.to_string())),
                error => Failed::Io(io::Error::other(error)),
            })?;
            if u64::try_from(bytes.len()) != Ok(piece.end - piece.start) {
                return Err(Failed::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            let target = Arc::clone(&file);
            let write = move || target.write_all_at(&bytes, at);
            weir_io::tasks::run(blocking, write).await??;
            at = piece.end;
        }
        Ok(())
    };
    let fetched = fetched.await;
    let (core, disk) = (Arc::clone(core), Arc::clone(disk));
    let place = move || -> Result<(), Failed> {
        let placed = fetched.and_then(|()| {
            file.sync()?;
            let ledger = Arc::new(Ledger::open(Source::File(disk.open(&temporary)?))?);
            ledgers::is_the_one(&core, &ledger, &row)?;
            ledgers::read_through(&ledger)?;
            Ok(disk.rename(&temporary, &path)?)
        });
        if let Err(error) = placed {
            // What is left of it goes at the next start, if not now.
            drop(disk.remove(&temporary));
            return Err(error);
        }
        Ok(disk.sync_dir(&ledger_dir(&core.config))?)
    };
    weir_io::tasks::run(blocking, place).await?
}

/// Which of these ledgers can't be read.
pub(crate) async fn blame_ledgers(
    core: &Arc<Core>,
    rows: &[LedgerRow],
) -> Result<Vec<(LedgerRow, Failed)>, weir_io::tasks::Gone> {
    let (shared, rows) = (Arc::clone(core), rows.to_vec());
    let look = move || {
        let bad = |row: LedgerRow| Some((row, ledgers::verify(&shared, &row).err()?));
        rows.into_iter().filter_map(bad).collect()
    };
    weir_io::tasks::run(&*core.world.blocking, look).await
}

/// Which of these segments can't be read here.
pub(super) async fn blame(
    core: &Arc<Core>,
    segments: &[Arc<Segment>],
) -> Result<Vec<(Arc<Segment>, Failed)>, weir_io::tasks::Gone> {
    let segments = segments.to_vec();
    let look = move || {
        let bad = |segment: Arc<Segment>| {
            let error = segment.read_through().err()?;
            Some((segment, Failed::Read(error)))
        };
        segments.into_iter().filter_map(bad).collect()
    };
    weir_io::tasks::run(&*core.world.blocking, look).await
}
