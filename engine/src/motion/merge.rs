//! Merge: keeps the number of segments, and so of runs a read may touch, logarithmic in what is
//! stored: when [`FAN_IN`] neighbours of one size class lie side by side they become one. Records
//! of streams that are gone are left out.

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering},
};

use rusqlite::Connection;

use super::seal::{self, Failed, NewSegment};
use crate::{
    core::Core,
    segment::{self, Keep, Segment},
    state::catalogue::{self, Failure},
    types::{SegmentId, Seq, StreamId},
};

/// How many neighbours of one class become one segment.
const FAN_IN: usize = 8;
/// Segments of at least this size are left alone.
const MERGED_BYTES_MAX: u64 = 256 << 20;
/// Segments up to this size are all of one class.
const CLASS_BYTES_MIN: u64 = 1 << 20;

/// Merges as long as something is to be merged.
pub(crate) async fn run(core: &Arc<Core>) {
    let _turn = core.sealing.lock().await;
    while let Some(inputs) = choose(core).filter(|_| !core.stopping.load(Ordering::Acquire)) {
        if let Err(error) = merge(core, inputs).await {
            tracing::warn!(%error, "merge failed and will be tried again");
            return;
        }
        weir_io::sometimes!("segments were merged");
    }
}

/// The first neighbours, oldest first, of which all are of one class.
fn choose(core: &Core) -> Option<Vec<Arc<Segment>>> {
    let set = core.segments.load();
    let all = set.all();
    let run = all.windows(FAN_IN).find(|run| {
        let classes = run.iter().map(|it| class(it.footer().file_bytes()));
        let top = classes.clone().max();
        let sum: u64 = run.iter().map(|it| it.footer().file_bytes()).sum();
        sum <= MERGED_BYTES_MAX && classes.min() == top
    })?;
    Some(run.to_vec())
}

/// Size class: each is eight times the one below.
fn class(bytes: u64) -> u32 {
    (bytes / CLASS_BYTES_MIN).checked_ilog2().map_or(0, |log| log / 3 + 1)
}

async fn merge(core: &Arc<Core>, inputs: Vec<Arc<Segment>>) -> Result<(), Failed> {
    let (builder, merging) = (Arc::clone(core), inputs.clone());
    let new = core.on_reader(move |conn| Ok(build(&builder, conn, &merging))).await??;
    let old: Vec<SegmentId> = inputs.iter().map(|it| it.id()).collect();
    let (id, bytes, gone) = (new.id, new.bytes, old.clone());
    core.on_writer("merge", move |conn| -> Result<(), Failure> {
        let tx = conn.transaction()?;
        catalogue::put_segment(&tx, id, bytes)?;
        for id in gone {
            catalogue::drop_segment(&tx, id)?;
        }
        Ok(tx.commit()?)
    })
    .await??;
    core.replace_segments(&old, new);
    let disk = Arc::clone(&core.world.disk);
    let paths: Vec<_> = old.iter().map(|id| seal::path(core, *id)).collect();
    let removed = weir_io::tasks::run(&*core.world.blocking, move || {
        paths.iter().try_for_each(|path| disk.remove(path))
    });
    if let Err(error) = removed.await? {
        tracing::warn!(%error, "a merged segment's file stays until the next start");
    }
    Ok(())
}

/// Writes the merged segment without the records of streams that are gone.
fn build(core: &Core, conn: &Connection, inputs: &[Arc<Segment>]) -> Result<NewSegment, Failed> {
    // Parts of one stream come one after the other: one look-up each.
    let asked: Cell<Option<(StreamId, Keep)>> = Cell::new(None);
    let keep = |stream: StreamId, _: std::ops::Range<Seq>| {
        if let Some((last, keep)) = asked.get().filter(|(last, _)| *last == stream) {
            debug_assert!(last == stream, "filtered");
            return keep;
        }
        // A look-up that fails must not cost records.
        let gone = matches!(catalogue::find_id(conn, stream), Ok(None));
        let keep = if gone { Keep::Nothing } else { Keep::All };
        asked.set(Some((stream, keep)));
        keep
    };
    let first = inputs.iter().map(|it| it.footer().first_lsn).min().expect("a merge has inputs");
    let last = inputs.iter().map(|it| it.footer().last_lsn).max().expect("a merge has inputs");
    let new = seal::write(core, segment::Codec::Zstd, (first, last), |builder| {
        Ok(segment::merge(inputs, &keep, builder)?)
    })?;
    core.world.disk.sync_dir(&core.segment_dir())?;
    Ok(new)
}
