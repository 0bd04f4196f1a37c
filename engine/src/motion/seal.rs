//! Seal: writes what is in memory as segments, then folds state into the catalogue.
//!
//! Order (each step durable before the next): segments, the names of their files, their
//! rows, readers see them, state rows, `folded_through`, log rows go, memory goes. A crash in
//! between leaves either unknown files, which boot removes, or rows ahead of `folded_through`,
//! over which replay is idempotent because each carries the lsn it reflects.
//!
//! A try that fails leaves no file that nothing names, and one that its rows name is not written
//! again: on a full disk no try needs more room than the one before it.

use std::sync::Arc;

use weir_io::Sabotage;

use super::fold;
use crate::{
    core::{Burial, Core},
    log::commit::Link,
    segment,
    state::{
        catalogue::{Place, SegmentRow},
        chunks::Block,
        files::Held,
        rows::StreamRow,
        stream::ProducerRow,
        view::{Life, Stream},
    },
    subscribe::fold as subscriptions,
    types::{Chunk, Form, Lsn, ProducerId, SegmentId, Seq, StreamId},
};

/// A stream with this many unsealed bytes gets a segment of its own.
const OWN_SEGMENT_BYTES: usize = 16 << 20;

/// What is taken out of memory in one go.
pub(crate) struct Batch {
    pub(crate) through: Link,
    pub(crate) streams: Vec<Arc<Stream>>,
    pub(crate) burials: Vec<Burial>,
    /// As in [`Unfolded`](crate::core::Unfolded).
    ahead: Vec<(StreamId, ProducerId)>,
    subscriptions: subscriptions::Batch,
    log_bytes: u64,
}

/// A stream as it was when its turn came.
pub(crate) struct Snapshot {
    pub(crate) stream: Arc<Stream>,
    pub(crate) row: StreamRow,
    pub(crate) producers: Vec<(ProducerRow, Lsn)>,
    /// As in [`Durable`](crate::state::view::Durable).
    pub(crate) counted: Seq,
}

/// Why a seal ended early; everything stays in memory and is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("segment: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Read(#[from] segment::ReadError),
    #[error(transparent)]
    Merge(#[from] segment::MergeError),
    #[error(transparent)]
    History(#[from] crate::request::Error),
    #[error(transparent)]
    Ledger(#[from] crate::ledger::ReadError),
    #[error(transparent)]
    Ledgers(#[from] crate::ledger::MergeError),
    #[error(transparent)]
    Catalogue(#[from] crate::state::catalogue::Failure),
    /// It was noted as such.
    #[error("file {0} can't be read")]
    Unreadable(SegmentId),
    #[error(transparent)]
    Gone(#[from] weir_io::tasks::Gone),
}

/// Seals everything that is in memory now. A failure is logged and leaves everything to the
/// next time.
pub(crate) async fn run(core: &Arc<Core>) {
    let _turn = core.sealing.lock().await;
    let Some(batch) = freeze(core) else { return };
    let (streams, burials) = (batch.streams.clone(), batch.burials.clone());
    let (ahead, subscriptions) = (batch.ahead.clone(), batch.subscriptions.clone());
    let log_bytes = batch.log_bytes;
    match seal(core, batch).await {
        Ok(()) => {
            core.metrics.seals.inc();
        }
        Err(error) => {
            core.metrics.seals_failed.inc();
            tracing::warn!(%error, "seal failed and will be tried again");
            weir_io::sometimes!("a seal failed and was tried again");
            core.log_bytes.fetch_add(log_bytes, std::sync::atomic::Ordering::Relaxed);
            thaw(core, streams, (burials, ahead), subscriptions);
        }
    }
}

/// Takes the list of what changed. The link is read first: every commit up to it has put its
/// streams on the list.
fn freeze(core: &Core) -> Option<Batch> {
    // Between two commits: a stream's end and the stream itself must not be parted.
    let _whole = core.settling.lock();
    let through = core.durable_link();
    let mut unfolded = core.unfolded.lock();
    let nothing = unfolded.streams.is_empty()
        && unfolded.burials.is_empty()
        && !core.subscriptions.has_unfolded();
    if unfolded.since.is_none() && nothing {
        return None;
    }
    unfolded.since = None;
    let log_bytes = core.log_bytes.swap(0, std::sync::atomic::Ordering::Relaxed);
    let streams = std::mem::take(&mut unfolded.streams);
    let burials = std::mem::take(&mut unfolded.burials);
    let ahead = std::mem::take(&mut unfolded.ahead);
    unfolded.folding = std::mem::take(&mut unfolded.names);
    let subscriptions = core.subscriptions.freeze();
    Some(Batch { through, streams, burials, ahead, subscriptions, log_bytes })
}

/// Puts everything back.
fn thaw(
    core: &Core,
    streams: Vec<Arc<Stream>>,
    (burials, ahead): (Vec<Burial>, Vec<(StreamId, ProducerId)>),
    subscriptions: subscriptions::Batch,
) {
    let _whole = core.settling.lock();
    core.subscriptions.thaw(subscriptions);
    let mut back = Vec::with_capacity(streams.len());
    for stream in streams {
        // Those that changed meanwhile are on the new list already.
        stream.durable.lock().dirty = true;
        back.push(stream);
    }
    let mut unfolded = core.unfolded.lock();
    back.append(&mut unfolded.streams);
    back.sort_by_key(|stream| stream.identity.id);
    back.dedup_by_key(|stream| stream.identity.id);
    unfolded.streams = back;
    let newer = std::mem::replace(&mut unfolded.burials, burials);
    unfolded.burials.extend(newer);
    // Only a replay puts something there.
    unfolded.ahead = ahead;
    let newer = std::mem::take(&mut unfolded.names);
    unfolded.names = std::mem::take(&mut unfolded.folding);
    unfolded.names.extend(newer);
    unfolded.since.get_or_insert(core.store_now());
}

async fn seal(core: &Arc<Core>, batch: Batch) -> Result<(), Failed> {
    let builder = Arc::clone(core);
    let mut streams = batch.streams;
    let through = batch.through;
    let (snapshots, files) = weir_io::tasks::run(&*core.world.blocking, move || {
        streams.sort_by_key(|stream| stream.identity.id);
        streams.dedup_by_key(|stream| stream.identity.id);
        build(&builder, streams, through.lsn)
    })
    .await??;
    let changes = fold::Changes {
        snapshots,
        burials: batch.burials,
        ahead: batch.ahead,
        subscriptions: &batch.subscriptions,
    };
    fold::run(core, through, changes, files).await
}

/// A finished segment file.
pub(crate) struct NewSegment {
    pub(crate) row: SegmentRow,
    pub(crate) segment: Arc<segment::Segment>,
}

impl NewSegment {
    pub(crate) fn held(&self) -> Held {
        Held { row: self.row, segment: Arc::clone(&self.segment) }
    }
}

/// Writes the segments of a batch: all of them, or none is left. Runs where blocking is allowed.
fn build(
    core: &Core,
    streams: Vec<Arc<Stream>>,
    through: Lsn,
) -> Result<(Vec<Snapshot>, Vec<NewSegment>), Failed> {
    let mut files = Vec::new();
    match fill(core, streams, through, &mut files) {
        Ok(snapshots) => Ok((snapshots, files)),
        Err(error) => {
            files.iter().for_each(|file| core.rack.discard(file.row.id));
            Err(error)
        }
    }
}

fn fill(
    core: &Core,
    streams: Vec<Arc<Stream>>,
    through: Lsn,
    files: &mut Vec<NewSegment>,
) -> Result<Vec<Snapshot>, Failed> {
    let mut snapshots = Vec::with_capacity(streams.len());
    let mut shared: Vec<Run> = Vec::new();
    for stream in streams {
        let (snapshot, blocks) = photograph(core, &stream);
        let form = stream.identity.content.form();
        let bytes: usize = blocks.iter().map(|block| block.weight().payload).sum();
        let run = Run { stream: stream.identity.id, form, blocks };
        snapshots.push(snapshot);
        if bytes >= OWN_SEGMENT_BYTES {
            files.push(write_runs(core, through, &[run])?);
        } else if bytes > 0 {
            shared.push(run);
        }
    }
    if !shared.is_empty() {
        files.push(write_runs(core, through, &shared)?);
    }
    if !files.is_empty() {
        // A row must not name a file that the crash forgets (INV-14).
        core.rack.sync()?;
    }
    Ok(snapshots)
}

/// The unsealed records of one stream.
struct Run {
    stream: StreamId,
    form: Form,
    blocks: Vec<Arc<Block>>,
}

fn write_runs(core: &Core, through: Lsn, runs: &[Run]) -> Result<NewSegment, Failed> {
    // Plain, so that the page cache is the hot cache.
    write(
        core,
        segment::Codec::None,
        (through, through),
        || false,
        |builder| {
            for run in runs {
                for chunk in run.blocks.iter().flat_map(|block| block.chunks()) {
                    builder.push(run.stream, run.form, chunk)?;
                }
            }
            Ok(())
        },
    )
}

/// A planted defect: the records without the second of those that came together.
fn passing_over(blocks: &[Arc<Block>]) -> Vec<Arc<Block>> {
    let chunks = blocks.iter().flat_map(|block| block.chunks());
    let mut chunks: Vec<Chunk> = chunks.cloned().collect();
    if chunks.len() > 2 {
        chunks.remove(1);
    }
    let block = (!chunks.is_empty()).then(|| Block::new(chunks));
    block.map(Arc::new).into_iter().collect()
}

/// Takes a stream's durable state and its unsealed records, and takes it off the list. What
/// changes from here on puts it on the next one.
fn photograph(core: &Core, stream: &Arc<Stream>) -> (Snapshot, Vec<Arc<Block>>) {
    let _between_commits = core.settling.lock();
    let mut durable = stream.durable.lock();
    durable.dirty = false;
    let state = durable.state.clone();
    let mut blocks = match durable.life {
        Life::Dead => Vec::new(),
        Life::Live | Life::Unborn => durable.chunks.share(),
    };
    if core.world.sabotage == Sabotage::SealPassesOver {
        blocks = passing_over(&blocks);
    }
    // A fold that failed has left segments, which nothing takes away: what they hold would need room
    // twice.
    let mut expected = durable.sealed.max(durable.written);
    if expected > durable.sealed {
        weir_io::sometimes!("a seal left out what a failed fold had written");
        blocks.retain(|block| block.limit() > expected);
    }
    for block in &blocks {
        assert!(block.first() == expected, "INV-7 what is sealed has no hole and no overlap");
        expected = block.limit();
    }
    let producers = durable
        .producers
        .iter()
        .map(|(id, (producer, lsn))| ((id.clone(), producer.clone()), *lsn))
        .collect();
    // A dead stream's records are dropped, not sealed: nobody can read them any more.
    let sealed = expected;
    let counted = durable.counted;
    drop(durable);
    let row = StreamRow { identity: stream.identity.clone(), state, sealed };
    (Snapshot { stream: Arc::clone(stream), row, producers, counted }, blocks)
}

/// Writes a segment that covers the given commits, complete and durable but for what
/// [`Rack::sync`](crate::rack::Rack::sync) and [`super::stow`] add. `cut` gives up.
pub(crate) fn write(
    core: &Core,
    codec: segment::Codec,
    (first, last): (Lsn, Lsn),
    cut: impl Fn() -> bool,
    fill: impl FnOnce(&mut segment::Builder<'_>) -> Result<(), Failed>,
) -> Result<NewSegment, Failed> {
    let id = core.new_file();
    let mut draft = core.rack.draft(id)?;
    let mut sink = |bytes: &[u8]| {
        if cut() {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        draft.write(bytes)
    };
    let mut builder = segment::Builder::new(core.store.0, id, codec, &mut sink)?;
    fill(&mut builder)?;
    let footer = builder.finish(first, last)?;
    let finished = draft.finish().map_err(Failed::from);
    let segment = finished.and_then(|file| Ok(segment::Segment::open(file)?));
    let segment = segment.inspect_err(|_| core.rack.discard(id))?;
    let bytes = footer.file_bytes();
    tracing::debug!(segment = %id, bytes, records = footer.records, "sealed");
    let row = SegmentRow { id, bytes, nonce: core.nonce, place: Place::Local };
    Ok(NewSegment { row, segment: Arc::new(segment) })
}
