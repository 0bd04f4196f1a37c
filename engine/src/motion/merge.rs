//! Merge: keeps the number of segments, and so of runs a read may touch, logarithmic in what is
//! stored: when [`FAN_IN`] neighbours lie side by side of which none outweighs the rest they
//! become one. Records of streams that are gone are left out. A merge gives way to a stop.

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering},
};

use rusqlite::Connection;

use super::seal::{self, Failed, NewSegment};
use crate::{
    core::{Core, segment_dir, segment_path},
    segment::{self, Keep, Segment},
    state::catalogue::{self, Failure, Readable},
    types::{Lsn, SegmentId, Seq, StreamId},
};

/// How many neighbours become one segment.
const FAN_IN: usize = 8;
/// What a merge makes of at most this size.
const MERGED_BYTES_MAX: u64 = 1 << 30;
/// Segments up to this size are merged whatever lies beside them.
const SMALL_BYTES_MAX: u64 = 1 << 20;

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

/// The first neighbours, oldest first, that are small or of which none outweighs the rest: so a
/// byte is rewritten only when what it lies in has about doubled.
fn choose(core: &Core) -> Option<Vec<Arc<Segment>>> {
    let set = core.segments.load();
    let run = set.all().windows(FAN_IN).find(|run| {
        let sizes = run.iter().map(|it| it.footer().file_bytes());
        let largest = sizes.clone().max().unwrap_or_default();
        let sum: u64 = sizes.sum();
        sum <= MERGED_BYTES_MAX && (largest <= SMALL_BYTES_MAX || largest <= sum / 2)
    })?;
    Some(run.to_vec())
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
    let paths: Vec<_> = old.iter().map(|id| segment_path(&core.config, *id)).collect();
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
    // Folds and merges take turns, so this holds for the whole merge.
    let folded = catalogue::meta_u64(conn, "folded_through").map(Lsn::new)?;
    // Parts of one stream come one after the other: one look-up each.
    let asked: Cell<Option<(StreamId, Keep)>> = Cell::new(None);
    let keep = |stream: StreamId, _: std::ops::Range<Seq>| {
        if let Some((_, keep)) = asked.get().filter(|(last, _)| *last == stream) {
            return keep;
        }
        let keep = match catalogue::readable(conn, stream, folded) {
            Ok(Readable::Nothing) => Keep::Nothing,
            Ok(Readable::Before(limit)) => {
                weir_io::sometimes!("a merge met a stream that only forks can read");
                Keep::Before(limit)
            }
            // A look-up that fails must not cost records.
            Ok(Readable::All) | Err(_) => Keep::All,
        };
        asked.set(Some((stream, keep)));
        keep
    };
    let first = inputs.iter().map(|it| it.footer().first_lsn).min().expect("a merge has inputs");
    let last = inputs.iter().map(|it| it.footer().last_lsn).max().expect("a merge has inputs");
    let cut = || core.stopping.load(Ordering::Acquire);
    let new = seal::write(core, segment::Codec::Zstd, (first, last), cut, |builder| {
        Ok(segment::merge(inputs, &keep, builder)?)
    })?;
    core.world.disk.sync_dir(&segment_dir(&core.config))?;
    Ok(new)
}
