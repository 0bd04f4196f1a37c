//! Merge: keeps the number of segments, and so of runs a read may touch, logarithmic in what is
//! stored: when [`FAN_IN`] neighbours lie side by side of which none outweighs the rest they
//! become one. Records that nobody can read any more are left out, and a segment of which about
//! a quarter is such, or which holds such for [`Config::erase_within`](crate::Config::erase_within),
//! is rewritten by itself. A merge gives way to a stop.

use std::{
    cell::Cell,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use rusqlite::Connection;

use super::{
    deaths,
    seal::{self, Failed, NewSegment},
    stow,
};
use crate::{
    core::Core,
    history,
    segment::{self, Segment},
    state::catalogue::{self, Failure, Place, SegmentRow},
    types::{Lsn, SegmentId, Seq, StreamId},
};

/// How many neighbours become one segment.
const FAN_IN: usize = 8;
/// Segments up to this size are merged whatever lies beside them.
const SMALL_BYTES_MAX: u64 = 1 << 20;

/// Whether something is to be erased that no seal brings about.
pub(crate) fn is_due(core: &Core) -> bool {
    deaths::is_overdue(core)
}

/// Merges as long as something is to be merged.
pub(crate) async fn run(core: &Arc<Core>) {
    let _turn = core.sealing.lock().await;
    while let Some(inputs) = choose(core).filter(|_| !core.stopping.load(Ordering::Acquire)) {
        let ids: Vec<SegmentId> = inputs.iter().map(|it| it.id()).collect();
        if let Err(error) = merge(core, inputs).await {
            tracing::warn!(%error, "merge failed and will be tried again");
            deaths::put_off(core, &ids);
            return;
        }
        weir_io::sometimes!("segments were merged");
    }
    if let Err(error) = super::ledgers::merge(core).await {
        tracing::warn!(%error, "merge of ledgers failed and will be tried again");
    }
    core.publisher.notify_one();
}

/// A segment that holds what died long ago or of which about a quarter is dead, or else the first
/// neighbours, oldest first, that are small or of which none outweighs the rest: so a byte is
/// rewritten only when what it lies in has about doubled.
fn choose(core: &Core) -> Option<Vec<Arc<Segment>>> {
    // While a fold is to be tried again the rows may say of records that they are dead which the
    // cut, and so the next manifest, still shows; and its segments, merged with others, would take
    // these out of what is published until then (INV-40).
    let Some(cut) = core.files.lock().settled() else {
        weir_io::sometimes!("a merge waited for a fold that had not been finished");
        return None;
    };
    let folded = cut.folded.lsn;
    let set = core.segments.load();
    let settled = set.all().partition_point(|it| it.footer().last_lsn <= folded);
    let settled = &set.all()[..settled];
    if let Some(segment) = deaths::rots(core, settled) {
        return Some(vec![segment]);
    }
    let sizes: Vec<u64> = settled.iter().map(|it| it.footer().file_bytes()).collect();
    neighbours(&sizes, core.config.merged_bytes_max).map(|range| settled[range].to_vec())
}

/// The first neighbours that are small or of which none outweighs the rest.
pub(super) fn neighbours(sizes: &[u64], bytes_max: u64) -> Option<std::ops::Range<usize>> {
    let start = sizes.windows(FAN_IN).position(|run| {
        let largest = run.iter().copied().max().unwrap_or_default();
        let sum: u64 = run.iter().sum();
        sum <= bytes_max && (largest <= SMALL_BYTES_MAX || largest <= sum / 2)
    })?;
    Some(start..start + FAN_IN)
}

async fn merge(core: &Arc<Core>, inputs: Vec<Arc<Segment>>) -> Result<(), Failed> {
    history::make_whole(core, &inputs).await?;
    let (builder, merging) = (Arc::clone(core), inputs.clone());
    let new = core.on_reader(move |conn| Ok(build(&builder, conn, &merging))).await?;
    let (new, sure) = new.inspect_err(|_| history::doubt(&inputs))?;
    let old: Vec<SegmentId> = inputs.iter().map(|it| it.id()).collect();
    let row = new.row;
    let gone: Vec<SegmentRow> = {
        let files = core.files.lock();
        old.iter().filter_map(|id| files.segment(*id)).map(|held| held.row).collect()
    };
    let empty = new.segment.footer().records == 0;
    if !empty {
        stow::run(core, row.id).await?;
    }
    // What may still be in there is looked for again in time.
    let left = deaths::left(core, &old).filter(|_| !sure && !empty);
    core.on_writer("merge", move |conn| -> Result<(), Failure> {
        let tx = conn.transaction()?;
        if !empty {
            catalogue::put_segment(&tx, &row)?;
        }
        for row in &gone {
            catalogue::drop_segment(&tx, row.id)?;
            catalogue::drop_death(&tx, row.id)?;
            if row.place == Place::Bucket {
                catalogue::put_garbage(&tx, super::publish::segment_key(row).as_str())?;
            }
        }
        if let Some(death) = left {
            catalogue::add_death(&tx, row.id, death)?;
        }
        Ok(tx.commit()?)
    })
    .await??;
    let mut gone = old.clone();
    if empty {
        weir_io::sometimes!("a segment went because nobody could read anything in it");
        gone.push(row.id);
    }
    core.files.lock().replace_segments(&old, Some(new.held()).filter(|_| !empty));
    core.replace_segments(&old, Some(new).filter(|_| !empty));
    deaths::moved(core, &old, left.map(|death| (row.id, death)));
    deaths::put_off(core, &[row.id]);
    if let Err(error) = stow::remove(core, gone).await {
        tracing::warn!(%error, "a merged segment stays until the next start");
    }
    Ok(())
}

/// Writes the merged segment without the records that nobody can read. Says also whether it was sure
/// of all of them.
fn build(
    core: &Core,
    conn: &Connection,
    inputs: &[Arc<Segment>],
) -> Result<(NewSegment, bool), Failed> {
    // Folds and merges take turns, so this holds for the whole merge.
    let folded = catalogue::meta_u64(conn, "folded_through").map(Lsn::new)?;
    let sure = Cell::new(true);
    let keep = |stream: StreamId| match catalogue::readable(conn, stream, folded) {
        Ok(ranges) => {
            match ranges.as_slice() {
                [] | [Range { end: Seq::LAST, .. }] => {}
                _ => weir_io::sometimes!("a merge met a stream that forks can read in part"),
            }
            ranges
        }
        // A look-up that fails must not cost records.
        Err(error) => {
            tracing::warn!(%stream, %error, "all of a stream is kept");
            sure.set(false);
            vec![Seq::ZERO..Seq::LAST]
        }
    };
    let first = inputs.iter().map(|it| it.footer().first_lsn).min().expect("a merge has inputs");
    let last = inputs.iter().map(|it| it.footer().last_lsn).max().expect("a merge has inputs");
    let cut = || core.stopping.load(Ordering::Acquire);
    let new = seal::write(core, segment::Codec::Zstd, (first, last), cut, |builder| {
        Ok(segment::merge(inputs, &keep, builder)?)
    })?;
    core.rack.sync()?;
    Ok((new, sure.get()))
}
