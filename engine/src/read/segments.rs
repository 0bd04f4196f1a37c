//! Records out of segments.
//!
//! Segments are ordered by the commits they cover, so the records of one stream lie in them in
//! order. Which of them hold a stream is asked of their filters in memory; the right one among
//! these is found by halving, so that a position or a moment costs a logarithmic number of
//! block reads. A filter that is wrong about a segment costs one block read, never a record.

use std::{ops::Range, sync::Arc};

use super::gather::Gather;
use crate::{
    core::Core,
    decide::retention::Walk,
    motion::seal::NewSegment,
    request::Error,
    segment::{Block, BlockNo, Part, ReadError, Segment},
    state::view::Stream,
    types::{Ancestry, Chunk, SegmentId, Seq, StreamId, StreamName, WallMs},
};

/// The live segments, oldest first.
#[derive(Default)]
pub(crate) struct SegmentSet {
    all: Vec<Arc<Segment>>,
}

impl SegmentSet {
    pub(crate) fn new(mut all: Vec<Arc<Segment>>) -> Self {
        // A seal that was tried again covers the same commits as the try before it. A merged segment
        // that ends with the first try begins earlier than the second, though its id is higher.
        all.sort_by_key(|segment| {
            let footer = segment.footer();
            (footer.last_lsn, footer.first_lsn, segment.id())
        });
        Self { all }
    }

    pub(crate) fn all(&self) -> &[Arc<Segment>] {
        &self.all
    }

    fn holding(&self, stream: StreamId) -> Vec<Arc<Segment>> {
        self.all.iter().filter(|segment| segment.holds(stream)).cloned().collect()
    }
}

impl Core {
    /// Shows finished segments to readers.
    pub(crate) fn show_segments(&self, files: Vec<NewSegment>) {
        let mut all = self.segments.load().all().to_vec();
        all.extend(files.into_iter().map(|file| file.segment));
        self.put_segments(SegmentSet::new(all));
    }

    /// Shows a merged segment instead of those it was made of.
    pub(crate) fn replace_segments(&self, old: &[SegmentId], new: Option<NewSegment>) {
        let all = self.segments.load();
        let kept = all.all().iter().filter(|segment| !old.contains(&segment.id())).cloned();
        self.put_segments(SegmentSet::new(kept.chain(new.map(|new| new.segment)).collect()));
    }

    pub(crate) fn put_segments(&self, set: SegmentSet) {
        let bytes: u64 = set.all.iter().map(|segment| segment.footer().file_bytes()).sum();
        self.metrics.segments.set(i64::try_from(set.all.len()).unwrap_or(i64::MAX));
        self.metrics.segment_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.segments.store(Arc::new(set));
        self.moves.send_modify(|moves| *moves += 1);
    }
}

/// Goes on with a page whose next record lies in a segment under `stream`, up to the page's fill,
/// `limit` or the segment's end. `reader`: whose page it is.
pub(crate) async fn read(
    core: &Arc<Core>,
    stream: StreamId,
    reader: &StreamName,
    limit: Seq,
    mut gather: Gather,
) -> Result<Gather, Error> {
    let (shared, reader) = (Arc::clone(core), reader.clone());
    blocking(core, move || {
        read_one(&shared, stream, &reader, limit, &mut gather)?;
        Ok(gather)
    })
    .await
}

/// Goes on with a page of a fork through every run that lies in segments.
pub(crate) async fn read_runs(
    core: &Arc<Core>,
    fork: &Arc<Stream>,
    ancestry: &Arc<Ancestry>,
    mut gather: Gather,
) -> Result<Gather, Error> {
    let (shared, fork, ancestry) = (Arc::clone(core), Arc::clone(fork), Arc::clone(ancestry));
    blocking(core, move || {
        while let Some(run) = ancestry.run_of(gather.next).filter(|_| !gather.is_done()) {
            let source = shared.shelf.source(run.stream);
            if source.is_some_and(|source| source.durable.lock().sealed <= gather.next) {
                break;
            }
            read_one(&shared, run.stream, &fork.identity.name, run.limit, &mut gather)?;
        }
        Ok(gather)
    })
    .await
}

fn read_one(
    core: &Core,
    stream: StreamId,
    reader: &StreamName,
    limit: Seq,
    gather: &mut Gather,
) -> Result<(), Error> {
    // After `sealed` was read: whatever it promises is in this set.
    let candidates = core.segments.load().holding(stream);
    let before = gather.next;
    let segment = find_position(core, &candidates, stream, gather.next)?;
    take(core, &segment, stream, limit, gather)?;
    if gather.next == before && !gather.is_done() { Err(lost(before, reader)) } else { Ok(()) }
}

/// Goes on with a walk along a stream's own records through the segment they lie in.
pub(crate) async fn walk(
    core: &Arc<Core>,
    stream: &Arc<Stream>,
    mut walk: Walk,
) -> Result<Walk, Error> {
    let (shared, stream) = (Arc::clone(core), Arc::clone(stream));
    blocking(core, move || {
        let id = stream.identity.id;
        let candidates = shared.segments.load().holding(id);
        let before = walk.at;
        let segment = find_position(&shared, &candidates, id, before)?;
        while let Some(no) = segment.locate(id, walk.at).filter(|_| !walk.is_over()) {
            let block = get(&shared, &segment, no)?;
            let part = block.part(id);
            let part = part.filter(|part| (part.first()..part.limit()).contains(&walk.at));
            let Some(part) = part else { break };
            part.chunks(walk.at..part.limit()).for_each(|chunk| walk.pass(&chunk));
        }
        if walk.at == before && !walk.is_over() {
            return Err(lost(before, &stream.identity.name));
        }
        Ok(walk)
    })
    .await
}

/// The record at a position that lies in a segment.
pub(crate) async fn record(
    core: &Arc<Core>,
    stream: StreamId,
    reader: &StreamName,
    seq: Seq,
) -> Result<Chunk, Error> {
    let (shared, reader) = (Arc::clone(core), reader.clone());
    blocking(core, move || {
        let candidates = shared.segments.load().holding(stream);
        let segment = find_position(&shared, &candidates, stream, seq)?;
        let no = segment.locate(stream, seq).ok_or_else(|| lost(seq, &reader))?;
        let block = get(&shared, &segment, no)?;
        let part = block.part(stream).filter(|part| (part.first()..part.limit()).contains(&seq));
        let part = part.ok_or_else(|| lost(seq, &reader))?;
        part.chunks(seq..seq.after(1)).next().ok_or_else(|| lost(seq, &reader))
    })
    .await
}

fn lost(seq: Seq, reader: &StreamName) -> Error {
    Error::Corrupt(format!("record {seq} of stream '{reader}' is in no segment"))
}

/// Takes from one segment as much as is wanted, block by block.
fn take(
    core: &Core,
    segment: &Arc<Segment>,
    stream: StreamId,
    limit: Seq,
    gather: &mut Gather,
) -> Result<(), Error> {
    while !gather.is_done() && gather.next < limit {
        let Some(no) = segment.locate(stream, gather.next) else {
            return Ok(());
        };
        let block = get(core, segment, no)?;
        let Some(part) = block.part(stream) else {
            return Ok(());
        };
        if part.first() > gather.next || part.limit() <= gather.next {
            return Ok(());
        }
        gather.take_part(part, limit);
    }
    Ok(())
}

/// Where the records of a stream in a segment begin and end.
struct Extent {
    first: Seq,
    limit: Seq,
    newest: WallMs,
}

fn extent(core: &Core, segment: &Arc<Segment>, stream: StreamId) -> Result<Option<Extent>, Error> {
    let get = |no| get(core, segment, no);
    let Some(no) = segment.locate(stream, Seq::ZERO) else {
        return Ok(None);
    };
    let head = get(no)?;
    let Some(first) = head.part(stream).map(Part::first) else {
        return Ok(None);
    };
    let Some(no) = segment.locate_last(stream) else {
        return Ok(None);
    };
    let last = get(no)?;
    let Some(part) = last.part(stream) else {
        return Ok(None);
    };
    Ok(Some(Extent { first, limit: part.limit(), newest: part.newest() }))
}

/// The newest segment whose records of the stream begin at or before `position`.
fn find_position(
    core: &Core,
    candidates: &[Arc<Segment>],
    stream: StreamId,
    position: Seq,
) -> Result<Arc<Segment>, Error> {
    let mut candidates = candidates.to_vec();
    let (mut good, mut bad) = (0, candidates.len());
    // `..good` begin at or before the position, `bad..` after it.
    while good < bad {
        let middle = good.midpoint(bad);
        match extent(core, &candidates[middle], stream)? {
            None => {
                candidates.remove(middle);
                bad -= 1;
            }
            Some(extent) if extent.first <= position => good = middle + 1,
            Some(_) => bad = middle,
        }
    }
    // Segments of a seal that was tried again overlap: an older one may reach further.
    for segment in candidates[..good].iter().rev() {
        let reaches = extent(core, segment, stream)?.is_some_and(|it| it.limit > position);
        if reaches {
            return Ok(Arc::clone(segment));
        }
    }
    Err(Error::Corrupt(format!("record {position} of stream {stream} is in no segment")))
}

/// About how many stored bytes a segment holds of a stream's records within `range`; `None` if it
/// holds none of them. Runs where blocking is allowed. Where a block can't be read it may hold some.
pub(crate) fn held_within(
    core: &Core,
    segment: &Segment,
    stream: StreamId,
    range: &Range<Seq>,
) -> Option<u64> {
    let mut held = None;
    for block in segment.spanning(stream, range.clone()) {
        let bytes = if block.is_whole {
            block.stored_len
        } else {
            match get(core, segment, block.no) {
                Err(_) => 0,
                Ok(found) => {
                    let part = found.part(stream);
                    let payload = part.map_or(0, |part| part.slice(range.clone()).len());
                    if payload == 0 {
                        continue;
                    }
                    let payload = u64::try_from(payload).expect("usize fits u64");
                    payload * block.stored_len / block.raw_len.max(1)
                }
            }
        };
        held = Some(held.unwrap_or(0) + bytes);
    }
    held
}

/// The first record in segments whose timestamp is not before `since`; the sealed position if
/// there is none.
pub(crate) async fn since(
    core: &Arc<Core>,
    stream: &Arc<Stream>,
    since: WallMs,
) -> Result<Seq, Error> {
    let (shared, stream) = (Arc::clone(core), Arc::clone(stream));
    blocking(core, move || {
        let sealed = stream.durable.lock().sealed;
        let id = stream.identity.id;
        let mut candidates = shared.segments.load().holding(id);
        let (mut older, mut limit) = (0, candidates.len());
        // Everything in `..older` is older than `since`, something in `limit..` is not.
        while older < limit {
            let middle = older.midpoint(limit);
            match extent(&shared, &candidates[middle], id)? {
                None => {
                    candidates.remove(middle);
                    limit -= 1;
                }
                Some(extent) if extent.newest < since => older = middle + 1,
                Some(_) => limit = middle,
            }
        }
        let Some(segment) = candidates.get(older) else {
            return Ok(sealed);
        };
        let found = search(&shared, segment, id, since)?;
        Ok(found.unwrap_or(sealed).min(sealed))
    })
    .await
}

/// The first record of the stream in this segment whose timestamp is not before `since`.
fn search(
    core: &Core,
    segment: &Arc<Segment>,
    stream: StreamId,
    since: WallMs,
) -> Result<Option<Seq>, Error> {
    let get = |no| get(core, segment, no);
    let Some(no) = segment.locate_since(stream, since) else { return Ok(None) };
    if let Some(found) = get(no)?.part(stream).and_then(|part| part.first_at_or_after(since)) {
        return Ok(Some(found));
    }
    let Some(no) = segment.following(no, stream) else { return Ok(None) };
    Ok(get(no)?.part(stream).map(Part::first))
}

fn get(core: &Core, segment: &Segment, no: BlockNo) -> Result<Arc<Block>, Error> {
    core.metrics.blocks_asked.inc();
    core.blocks.block(segment, no).map_err(|error| read_error(segment, &error))
}

fn read_error(segment: &Segment, error: &ReadError) -> Error {
    match error {
        ReadError::Damaged(damaged) => {
            Error::Corrupt(format!("segment {}: {damaged}", segment.id()))
        }
        ReadError::Failed { source, .. } => {
            Error::ReadFailed(format!("segment {}: {error}: {source}", segment.id()))
        }
    }
}

async fn blocking<R: Send + 'static>(
    core: &Core,
    job: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    weir_io::tasks::run(&*core.world.blocking, job).await.unwrap_or(Err(Error::Draining))
}
