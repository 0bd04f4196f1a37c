//! Merge: keeps the number of segments, and so of runs a read may touch, logarithmic in what is
//! stored, up to segments of [`Config::merged_bytes_max`](crate::Config::merged_bytes_max), and as
//! many as there must be of those: when [`FAN_IN`] neighbours lie side by side of which none
//! outweighs the rest they become one. Records that nobody can read any more are left out, and a
//! segment of which about a quarter is such, or which holds such for
//! [`Config::erase_within`](crate::Config::erase_within), is rewritten by itself. No stream is taken
//! apart from the others it lies with: only a seal gives one a segment of its own.
//!
//! The merger works in steps of one output each. What a step reads is brought from the bucket
//! first; then seals wait, for as long as it takes to write that output from local copies, and no
//! longer: who waits for `sealing` has it before the next step. Files that can't be read are left
//! out ([`super::heal`]). A merge gives way to a stop.

use std::{
    cell::Cell,
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rusqlite::Connection;

use super::{
    condense, deaths, heal, keeper,
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

/// How many neighbours become one.
const FAN_IN: usize = 8;
/// Files up to this size are merged whatever lies beside them.
pub(super) const SMALL_BYTES_MAX: u64 = 1 << 20;
/// How often the merger looks around unrung.
const ROUND: Duration = Duration::from_secs(1);
/// The longest pause after something went wrong that is no file's fault.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    /// What there is waits for a fold or for uploads.
    Waits,
    /// Something went wrong.
    Failed,
}

/// Merges when rung, and erases in time, until the store stops.
pub(crate) async fn run(core: Arc<Core>) {
    let (mut wanted, mut pause) = (false, ROUND);
    while !is_stopping(&core) {
        if !core.sequencer.mode().is_over() {
            wanted |= heal::run(&core).await;
            if wanted || deaths::is_overdue(&core) || condense::is_overdue(&core).await {
                let rest = all(&core).await;
                wanted = rest != Rest::Nothing;
                pause = match rest {
                    Rest::Failed => pause.saturating_mul(2).min(PAUSE_MAX),
                    Rest::Nothing | Rest::Waits => ROUND,
                };
            }
        }
        tokio::select! {
            biased;
            () = core.merger.notified() => wanted = true,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn is_stopping(core: &Core) -> bool {
    core.stopping.load(Ordering::Acquire)
}

/// Merges as long as something is to be merged.
pub(crate) async fn all(core: &Arc<Core>) -> Rest {
    let _turn = core.merging.lock().await;
    let mut doubted = BTreeSet::new();
    let (mut waits, mut merged) = (false, false);
    while !is_stopping(core) {
        keeper::give_way(core).await;
        let inputs = match choose(core) {
            Choice::Merge(inputs) => inputs,
            Choice::Nothing => break,
            Choice::Waits => {
                waits = true;
                break;
            }
        };
        match step(core, &inputs).await {
            Ok(true) => {
                weir_io::sometimes!("segments were merged");
                merged = true;
            }
            Ok(false) => {}
            Err(error) if is_stopping(core) => {
                tracing::debug!(%error, "a merge was cut off by a stop");
            }
            Err(error) => {
                if !blamed(core, &inputs, &error, &mut doubted).await {
                    core.metrics.merges_failed.inc();
                    tracing::warn!(%error, "merge failed and will be tried again");
                    let ids: Vec<SegmentId> = inputs.iter().map(|it| it.id()).collect();
                    deaths::put_off(core, &ids);
                    return Rest::Failed;
                }
            }
        }
    }
    match condense::all(core).await {
        Ok(condensed) => merged |= condensed,
        Err(error) => {
            core.metrics.merges_failed.inc();
            tracing::warn!(%error, "merge of ledgers failed and will be tried again");
            return Rest::Failed;
        }
    }
    if merged {
        core.publisher.notify_one();
    }
    if waits { Rest::Waits } else { Rest::Nothing }
}

/// Finds the inputs that are to blame for a merge that failed: one that the bucket has is brought
/// from there by the next try, any other is left out. Whether there are any.
async fn blamed(
    core: &Arc<Core>,
    inputs: &[Arc<Segment>],
    error: &Failed,
    doubted: &mut BTreeSet<SegmentId>,
) -> bool {
    if !matches!(error, Failed::Read(_) | Failed::Merge(segment::MergeError::Read(_))) {
        return matches!(error, Failed::Unreadable(_));
    }
    let Ok(bad) = heal::blame(core, inputs).await else { return false };
    for (segment, error) in &bad {
        if segment.remote().is_some() && doubted.insert(segment.id()) {
            history::doubt(std::slice::from_ref(segment));
        } else {
            heal::note(core, segment.id(), error);
        }
    }
    !bad.is_empty()
}

enum Choice {
    Merge(Vec<Arc<Segment>>),
    Nothing,
    Waits,
}

/// A file that may be merged.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    bytes: u64,
    /// What a merge of it would add to what waits for its upload.
    uploaded: u64,
    /// It can't be read.
    out: bool,
}

/// What bounds a merge.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Bytes of what is merged.
    bytes_max: u64,
    /// Bytes of it that the bucket has.
    uploaded_max: u64,
}

/// A segment that holds what died long ago or of which about a quarter is dead, or else the first
/// neighbours, oldest first, that are small or of which none outweighs the rest: so a byte is
/// rewritten only when what it lies in has about doubled.
fn choose(core: &Core) -> Choice {
    let files = core.files.lock();
    // While a fold is to be tried again the rows may say of records that they are dead which the
    // cut, and so the next manifest, still shows; and its segments, merged with others, would take
    // these out of what is published until then (INV-40).
    let Some(cut) = files.settled() else {
        weir_io::sometimes!("a merge waited for a fold that had not been finished");
        return Choice::Waits;
    };
    let set = core.segments.load();
    let settled = set.all().partition_point(|it| it.footer().last_lsn <= cut.folded.lsn);
    let settled = &set.all()[..settled];
    let unreadable = core.unreadable.lock();
    let candidates: Vec<Candidate> = settled
        .iter()
        .map(|segment| {
            let (id, bytes) = (segment.id(), segment.footer().file_bytes());
            let place = files.segment(id).map(|held| held.row.place);
            let uploaded = if place == Some(Place::Bucket) { bytes } else { 0 };
            let out = unreadable.has(id) || segment.is_lost();
            Candidate { bytes, uploaded, out }
        })
        .collect();
    drop((unreadable, files));
    let bounds = Bounds { bytes_max: core.config.merged_bytes_max, uploaded_max: room(core) };
    let dying = deaths::rotting(core, settled);
    let readable = dying.into_iter().filter(|at| !candidates[*at].out);
    let mut waits = false;
    for at in readable {
        if candidates[at].uploaded <= bounds.uploaded_max {
            return Choice::Merge(vec![Arc::clone(&settled[at])]);
        }
        waits = true;
    }
    match neighbours(&candidates, bounds) {
        Some(range) => Choice::Merge(settled[range].to_vec()),
        None if waits => {
            weir_io::sometimes!("a merge waited for uploads");
            Choice::Waits
        }
        None => Choice::Nothing,
    }
}

/// Bytes that merges may add to what waits for its upload: half of what would refuse appends, but
/// something whenever nothing waits.
fn room(core: &Core) -> u64 {
    match core.bucket {
        Some(_) => spare(core.config.backlog_bytes_max, core.backlog.load(Ordering::Relaxed)),
        None => u64::MAX,
    }
}

const fn spare(backlog_bytes_max: u64, waiting: u64) -> u64 {
    match waiting {
        0 => u64::MAX,
        waiting => (backlog_bytes_max / 2).saturating_sub(waiting),
    }
}

/// The first neighbours within the bounds that are small or of which none outweighs the rest.
fn neighbours(files: &[Candidate], bounds: Bounds) -> Option<Range<usize>> {
    let start = files.windows(FAN_IN).position(|run| {
        let sum = |of: fn(&Candidate) -> u64| run.iter().map(of).sum::<u64>();
        let bytes = sum(|it| it.bytes);
        let fits = bytes <= bounds.bytes_max && sum(|it| it.uploaded) <= bounds.uploaded_max;
        fits && run.iter().all(|it| !it.out) && are_alike(run.iter().map(|it| it.bytes))
    })?;
    Some(start..start + FAN_IN)
}

/// Whether files of these sizes are small or none outweighs the rest.
pub(super) fn are_alike(sizes: impl Iterator<Item = u64> + Clone) -> bool {
    let largest = sizes.clone().max().unwrap_or_default();
    largest <= SMALL_BYTES_MAX || largest <= sizes.sum::<u64>() / 2
}

/// The same for ledgers, whose sum has no bound.
pub(super) fn first_alike(sizes: &[u64]) -> Option<Range<usize>> {
    let start = sizes.windows(FAN_IN).position(|run| are_alike(run.iter().copied()))?;
    Some(start..start + FAN_IN)
}

/// One output: false if a fold came in between.
async fn step(core: &Arc<Core>, inputs: &[Arc<Segment>]) -> Result<bool, Failed> {
    let _kept = core.history.keep(inputs);
    bring(core, inputs).await?;
    let _turn = core.sealing.lock().await;
    if core.files.lock().settled().is_none() {
        return Ok(false);
    }
    merge(core, inputs.to_vec()).await?;
    Ok(true)
}

/// Brings what the inputs lack here. Seals do not wait for it.
async fn bring(core: &Arc<Core>, inputs: &[Arc<Segment>]) -> Result<(), Failed> {
    for segment in inputs {
        let brought = core.unless_leaving(history::make_whole(core, std::slice::from_ref(segment)));
        if let Err(error) = brought.await.ok_or(weir_io::tasks::Gone)? {
            heal::note(core, segment.id(), &error);
            return Err(Failed::Unreadable(segment.id()));
        }
    }
    Ok(())
}

async fn merge(core: &Arc<Core>, inputs: Vec<Arc<Segment>>) -> Result<(), Failed> {
    let (builder, merging) = (Arc::clone(core), inputs.clone());
    let (new, sure) = core.on_reader(move |conn| Ok(build(&builder, conn, &merging))).await??;
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
    let stored = core.on_writer("merge", move |conn| -> Result<(), Failure> {
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
    });
    if let Err(error) = stored.await? {
        stow::remove_refused(core, vec![row.id], &error).await;
        return Err(error.into());
    }
    let mut gone = old.clone();
    if empty {
        weir_io::sometimes!("a segment went because nobody could read anything in it");
        gone.push(row.id);
    }
    core.files.lock().replace_segments(&old, Some(new.held()).filter(|_| !empty));
    core.replace_segments(&old, Some(new).filter(|_| !empty));
    deaths::moved(core, &old, left.map(|death| (row.id, death)));
    deaths::put_off(core, &[row.id]);
    stow::remove(core, gone).await;
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
    core.rack.sync().inspect_err(|_| core.rack.discard(new.row.id))?;
    Ok((new, sure.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The first neighbours that are merged of files of one size, which the bucket has or not.
    fn merged(uploaded: &[bool], uploaded_max: u64) -> Option<Range<usize>> {
        let file = |uploaded: &bool| Candidate {
            bytes: MIB,
            uploaded: if *uploaded { MIB } else { 0 },
            out: false,
        };
        let files: Vec<Candidate> = uploaded.iter().map(file).collect();
        neighbours(&files, Bounds { bytes_max: 128 * MIB, uploaded_max })
    }

    #[test]
    fn merges_leave_half_of_the_backlog_to_appends() {
        assert_eq!(spare(64 * MIB, 1), 32 * MIB - 1);
        assert_eq!(spare(64 * MIB, 28 * MIB), 4 * MIB);
        for waiting in [32 * MIB, 33 * MIB, 64 * MIB] {
            assert_eq!(spare(64 * MIB, waiting), 0, "{waiting}");
        }
        // Whenever nothing waits, something may be merged, however large.
        assert_eq!(spare(64 * MIB, 0), u64::MAX);
    }

    #[test]
    fn what_the_bucket_has_is_merged_only_if_there_is_room_for_its_upload() {
        let (new, old) = ([false; FAN_IN], [true; FAN_IN]);
        assert_eq!(merged(&new, 0), Some(0..FAN_IN), "it waits already");
        assert_eq!(merged(&old, 8 * MIB - 1), None);
        assert_eq!(merged(&old, 8 * MIB), Some(0..FAN_IN));
        // Others have their turn.
        assert_eq!(merged(&[old, new].concat(), 0), Some(8..16));
        assert_eq!(merged(&[old, new].concat(), MIB), Some(7..15));
    }
}
