//! Fold: brings the catalogue up to a commit in slices between appends, then lets go of the log
//! and of memory.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use rusqlite::Connection;

use super::{
    ledgers::Touched,
    seal::{Failed, NewSegment, Snapshot},
    stow,
};
use crate::{
    core::{Burial, Core},
    log::commit::Link,
    state::{
        catalogue::{self, Failure, LedgerRow, SegmentRow},
        files::{Cut, Fresh},
        uploads::Reach,
    },
    subscribe::fold as subscriptions,
    types::{Lsn, ProducerId, SegmentId, StreamId},
};

/// Rows written in one slice at most.
const ROWS_PER_SLICE: usize = 256;
/// Time after which a slice takes no further row.
const SLICE_MAX: std::time::Duration = std::time::Duration::from_millis(1);
/// Producers of a buried stream deleted in one slice.
const PRODUCERS_PER_SLICE: usize = 256;
/// Producer states a stream's decided view keeps beside those it needs.
const PRODUCERS_KEPT: usize = 64;

/// What a fold brings into the catalogue.
pub(crate) struct Changes<'a> {
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) burials: Vec<Burial>,
    /// Producers whose rows are there already.
    pub(crate) ahead: Vec<(StreamId, ProducerId)>,
    pub(crate) subscriptions: &'a subscriptions::Batch,
}

/// Folds a sealed batch.
pub(crate) async fn run(
    core: &Arc<Core>,
    through: Link,
    changes: Changes<'_>,
    files: Vec<NewSegment>,
) -> Result<(), Failed> {
    let Changes { snapshots, burials, ahead, subscriptions } = changes;
    core.files.lock().fold_begins();
    register(core, &files).await?;
    core.show_segments(files);
    for snapshot in &snapshots {
        snapshot.stream.durable.lock().written = snapshot.row.sealed;
    }
    super::deaths::mark(core, &snapshots, &burials).await?;
    bury(core, &burials).await?;
    // A stream that this batch buries must not get its row back. One that died after the batch
    // was taken gets a row, which the next batch will bury.
    let buried: BTreeSet<StreamId> = burials.iter().map(|burial| burial.id).collect();
    let (dead, snapshots): (Vec<_>, Vec<_>) =
        snapshots.into_iter().partition(|it| buried.contains(&it.row.identity.id));
    for snapshot in &snapshots {
        let counted = snapshot.stream.durable.lock().counted;
        let earliest = snapshot.row.state.kept.earliest;
        assert!(counted >= earliest, "INV-30 what is over is marked before a row says so");
    }
    let snapshots = Arc::new(snapshots);
    write_rows(core, &snapshots).await?;
    subscriptions::run(core, subscriptions).await?;
    let touched = Touched::by(&snapshots, (&burials, ahead), subscriptions);
    let ledger = super::ledgers::write(core, through, touched).await?;
    let cut = Cut {
        folded: through,
        through: ledger.as_ref().map_or(through, |fresh| fresh.through),
        next_stream: core.sequencer.next_stream().get(),
        next_subscription: core.subscriptions.next_number.load(Ordering::Relaxed),
        store_ms: core.store_now(),
    };
    let tail = core.durable_link().lsn;
    assert!(
        cut.folded.lsn <= tail,
        "INV-46 what is sealed was acked before: sealed is within tail"
    );
    assert!(cut.through.lsn <= tail, "INV-46 what is uploaded was acked before: it is within tail");
    let replaced: Vec<LedgerRow> = match &ledger {
        Some(fresh) if fresh.whole => core.files.lock().ledgers().to_vec(),
        _ => Vec::new(),
    };
    let gone = replaced.iter().map(|row| row.id).collect();
    let finished = core.on_writer("finish", move |conn| finish(conn, &cut, ledger, &replaced));
    if let Err(error) = finished.await? {
        let fresh = ledger.iter().map(|fresh| fresh.row.id).collect();
        super::ledgers::remove_refused(core, fresh, &error).await;
        return Err(error.into());
    }
    // From here on look-ups see the rows; whatever was looked up before must not be shelved when
    // memory has let go of what the rows have now.
    let names: Vec<_> = burials.iter().map(|burial| burial.name.clone()).collect();
    core.shelf.fold_finished(&names);
    release(core, through.lsn, snapshots.iter().chain(&dead));
    // Only now is it shown to the publisher: what is published is sealed for everybody (INV-46).
    core.files.lock().folded(cut, ledger);
    core.ledgers_whole.store(ledger.is_some(), Ordering::Release);
    core.moves.send_modify(|moves| *moves += 1);
    core.unfolded.lock().folding.clear();
    core.publisher.notify_one();
    super::ledgers::remove_files(core, gone).await;
    if let Err(error) = trim(core, through.lsn).await {
        // The fold is done: to undo it now would bury the same streams twice (INV-11).
        weir_io::sometimes!("folded log rows stayed until the next fold");
        tracing::warn!(%error, "folded log rows stay until the next fold");
    }
    Ok(())
}

async fn register(core: &Arc<Core>, files: &[NewSegment]) -> Result<(), Failed> {
    let rows: Vec<SegmentRow> = files.iter().map(|file| file.row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<SegmentId> = rows.iter().map(|row| row.id).collect();
    for id in &ids {
        if let Err(error) = stow::run(core, *id).await {
            stow::remove(core, ids).await;
            return Err(error);
        }
    }
    let registered = core.on_writer("register", move |conn| -> Result<(), Failure> {
        let tx = conn.transaction()?;
        for row in &rows {
            catalogue::put_segment(&tx, row)?;
        }
        Ok(tx.commit()?)
    });
    if let Err(error) = registered.await? {
        stow::remove_refused(core, ids, &error).await;
        return Err(error.into());
    }
    core.files.lock().add_segments(files.iter().map(NewSegment::held));
    Ok(())
}

async fn bury(core: &Arc<Core>, burials: &[Burial]) -> Result<(), Failed> {
    let burials: Arc<[Burial]> = burials.into();
    let count = burials.len();
    in_slices(core, "bury", count, move |tx, index| {
        let Burial { id, name, epoch, .. } = &burials[index];
        // The producers of one stream can be many: some at a time, the stream last.
        if catalogue::drop_producers(tx, *id, PRODUCERS_PER_SLICE)? == PRODUCERS_PER_SLICE {
            return Ok(Step::Again);
        }
        catalogue::bury(tx, *id, name.as_str(), *epoch)?;
        Ok(Step::Next)
    })
    .await
}

async fn write_rows(core: &Arc<Core>, snapshots: &Arc<Vec<Snapshot>>) -> Result<(), Failed> {
    let snapshots = Arc::clone(snapshots);
    let rows = snapshots.iter().enumerate();
    let items: Vec<(usize, Option<usize>)> = rows
        .flat_map(|(at, snapshot)| {
            let producers = (0..snapshot.producers.len()).map(Some);
            producers.chain([None]).map(move |producer| (at, producer))
        })
        .collect();
    let count = items.len();
    in_slices(core, "rows", count, move |tx, index| {
        let (at, producer) = items[index];
        let row = &snapshots[at].row;
        match producer {
            Some(producer) => {
                let ((id, producer), lsn) = &snapshots[at].producers[producer];
                catalogue::put_producer(tx, row.identity.id, id, producer, *lsn)?;
            }
            None => catalogue::put_stream(tx, row)?,
        }
        Ok(Step::Next)
    })
    .await
}

/// What follows a piece of work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Next,
    /// There is more to do for the same item, in a slice to come.
    Again,
}

/// Works through `count` items in transactions between commits, each cut short by rows and time.
pub(crate) async fn in_slices(
    core: &Arc<Core>,
    what: &'static str,
    count: usize,
    each: impl Fn(&Connection, usize) -> Result<Step, Failure> + Send + Sync + 'static,
) -> Result<(), Failed> {
    let each = Arc::new(each);
    let mut done = 0;
    while done < count {
        let (clock, each) = (Arc::clone(&core.world.clock), Arc::clone(&each));
        let slice = move |conn: &mut Connection| -> Result<usize, Failure> {
            let started = clock.elapsed();
            let tx = conn.transaction()?;
            let limit = count.min(done + ROWS_PER_SLICE);
            let mut at = done;
            while at < limit && (at == done || clock.elapsed() - started < SLICE_MAX) {
                if each(&tx, at)? == Step::Again {
                    break;
                }
                at += 1;
            }
            tx.commit()?;
            Ok(at)
        };
        done = core.on_writer(what, slice).await??;
    }
    Ok(())
}

/// Everything up to the cut is in the catalogue and in segments.
fn finish(
    conn: &mut Connection,
    cut: &Cut,
    ledger: Option<Fresh>,
    replaced: &[LedgerRow],
) -> Result<(), Failure> {
    let before = catalogue::meta_u64(conn, "folded_through")?;
    assert!(cut.folded.lsn.get() >= before, "INV-8 the fold only moves forward");
    let tx = conn.transaction()?;
    cut.store(&tx)?;
    // A fold that writes none leaves a gap: the next one writes all rows.
    catalogue::put_meta(&tx, "ledgers_whole", &u64::from(ledger.is_some()).to_le_bytes())?;
    if let Some(fresh) = ledger {
        super::ledgers::drop_rows(&tx, replaced)?;
        catalogue::put_ledger(&tx, &fresh.row)?;
    }
    Ok(tx.commit()?)
}

/// Lets go of what is in the catalogue and in segments now.
fn release<'a>(core: &Core, folded: Lsn, snapshots: impl Iterator<Item = &'a Snapshot>) {
    let mut freed = 0;
    let published = core.in_bucket.lock().map_or(Lsn::ZERO, |it| it.folded);
    for snapshot in snapshots {
        let lsn = snapshot.row.state.lsn;
        let mut durable = snapshot.stream.durable.lock();
        let left = match durable.life {
            crate::state::view::Life::Dead => durable.chunks.take(),
            _ => {
                let row = &snapshot.row;
                let sealed = Reach { seq: row.sealed, bytes: row.state.bytes };
                durable.uploads.folded(folded, sealed, published);
                durable.sealed_through(row.sealed)
            }
        };
        durable.producers.retain(|_, (_, changed)| *changed > lsn);
        drop(durable);
        freed += left.iter().map(|block| block.weight().cost).sum::<usize>();
        core.sequencer.forget_producers(&snapshot.stream, PRODUCERS_KEPT);
    }
    let held = core.memtable_bytes.fetch_sub(freed, Ordering::Relaxed) - freed;
    core.metrics.memtable_bytes.set(i64::try_from(held).unwrap_or(i64::MAX));
    core.metrics.streams_cached.set(i64::try_from(core.shelf.len()).unwrap_or(i64::MAX));
}

/// Deletes the log rows that are folded, a few at a time.
async fn trim(core: &Arc<Core>, through: Lsn) -> Result<(), Failed> {
    loop {
        let clock = Arc::clone(&core.world.clock);
        let left = core
            .on_writer("trim", move |conn| -> Result<bool, Failure> {
                let started = clock.elapsed();
                let tx = conn.transaction()?;
                let mut rows = 0;
                while rows < ROWS_PER_SLICE && (rows == 0 || clock.elapsed() - started < SLICE_MAX)
                {
                    if catalogue::trim_log(&tx, through, 1)? == 0 {
                        tx.commit()?;
                        return Ok(false);
                    }
                    rows += 1;
                }
                tx.commit()?;
                Ok(true)
            })
            .await??;
        if !left {
            return Ok(());
        }
    }
}
