//! Records out of segments.
//!
//! Segments are ordered by the commits they cover, so the records of one stream lie in them in
//! order. Which of them hold a stream is asked of their filters in memory; the right one among
//! these is found by halving, so that a position or a moment costs a logarithmic number of
//! block reads. A filter that is wrong about a segment costs one block read, never a record.

use std::{ops::Range, sync::Arc};

use weir_io::Sabotage;

use super::{
    gather::Gather,
    sight::{Sight, Stop, ask, work},
};
use crate::{
    core::Core,
    decide::retention::Walk,
    history::{Deadline, Purpose},
    motion::seal::NewSegment,
    request::Error,
    segment::{Part, Segment},
    state::view::Stream,
    types::{Ancestry, Chunk, SegmentId, Seq, StreamId, StreamName, WallMs},
};

/// Bytes that a walk along a stream takes from the bucket at a time.
const WALK_BYTES: usize = 1 << 20;

/// The live segments, oldest first.
#[derive(Default)]
pub(crate) struct SegmentSet {
    all: Vec<Arc<Segment>>,
    /// Of all files.
    bytes: u64,
    /// In all of them.
    records: u64,
}

impl SegmentSet {
    pub(crate) fn new(mut all: Vec<Arc<Segment>>) -> Self {
        // A seal that was tried again covers the same commits as the try before it. A merged segment
        // that ends with the first try begins earlier than the second, though its id is higher.
        all.sort_by_key(|segment| {
            let footer = segment.footer();
            (footer.last_lsn, footer.first_lsn, segment.id())
        });
        let bytes = all.iter().map(|segment| segment.footer().file_bytes()).sum();
        let records = all.iter().map(|segment| segment.footer().records).sum();
        Self { all, bytes, records }
    }

    /// Bytes of all files.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records in all of them.
    pub(crate) const fn records(&self) -> u64 {
        self.records
    }

    pub(crate) fn all(&self) -> &[Arc<Segment>] {
        &self.all
    }

    /// Whether this segment is live.
    pub(crate) fn has(&self, id: SegmentId) -> bool {
        self.all.iter().any(|segment| segment.id() == id)
    }

    fn holding(&self, stream: StreamId) -> Vec<Arc<Segment>> {
        self.all.iter().filter(|segment| segment.holds(stream)).cloned().collect()
    }
}

impl Core {
    /// Shows finished segments to readers.
    pub(crate) fn show_segments(&self, files: Vec<NewSegment>) {
        let mut all = self.segments.load().all().to_vec();
        files.iter().for_each(|file| file.segment.touch(self.history.now()));
        all.extend(files.into_iter().map(|file| file.segment));
        self.put_segments(SegmentSet::new(all));
    }

    /// Shows a merged segment instead of those it was made of.
    pub(crate) fn replace_segments(&self, old: &[SegmentId], new: Option<NewSegment>) {
        new.iter().for_each(|new| new.segment.touch(self.history.now()));
        let all = self.segments.load();
        let kept = all.all().iter().filter(|segment| !old.contains(&segment.id())).cloned();
        self.put_segments(SegmentSet::new(kept.chain(new.map(|new| new.segment)).collect()));
    }

    pub(crate) fn put_segments(&self, set: SegmentSet) {
        self.metrics.segments.set(i64::try_from(set.all.len()).unwrap_or(i64::MAX));
        self.metrics.segment_bytes.set(i64::try_from(set.bytes).unwrap_or(i64::MAX));
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
    gather: Gather,
) -> Result<Gather, Error> {
    let (reader, deadline) = (reader.clone(), gather.deadline);
    let read = work(core, deadline, gather, move |sight, gather| {
        read_one(sight, stream, &reader, limit, gather)
    });
    as_far_as_possible(read.await?)
}

/// Goes on with a page of a fork through every run that lies in segments.
pub(crate) async fn read_runs(
    core: &Arc<Core>,
    fork: &Arc<Stream>,
    ancestry: &Arc<Ancestry>,
    gather: Gather,
) -> Result<Gather, Error> {
    let (fork, ancestry) = (Arc::clone(fork), Arc::clone(ancestry));
    let read = work(core, gather.deadline, gather, move |sight, gather| {
        while let Some(run) = ancestry.run_of(gather.next).filter(|_| !gather.is_done()) {
            let source = sight.core.shelf.source(run.stream);
            if source.is_some_and(|source| source.durable.lock().sealed <= gather.next) {
                break;
            }
            read_one(sight, run.stream, &fork.identity.name, run.limit, gather)?;
        }
        Ok(())
    });
    as_far_as_possible(read.await?)
}

/// What can't be read ends the page before it, unless it is the first: it is for those to know who
/// want it.
fn as_far_as_possible((mut gather, read): (Gather, Result<(), Error>)) -> Result<Gather, Error> {
    match read {
        Err(_) if gather.has_begun() => gather.end(),
        read => read?,
    }
    Ok(gather)
}

fn read_one(
    sight: &Sight<'_>,
    stream: StreamId,
    reader: &StreamName,
    limit: Seq,
    gather: &mut Gather,
) -> Result<(), Stop> {
    // After `sealed` was read: whatever it promises is in this set.
    let candidates = sight.core.segments.load().holding(stream);
    let before = gather.next;
    let segment = find_position(sight, &candidates, stream, gather.next)?;
    take(sight, &segment, stream, limit, gather)?;
    if gather.next == before && !gather.is_done() {
        return Err(lost(before, reader).into());
    }
    Ok(())
}

/// Goes on with a walk along a stream's own records through the segment they lie in. Returns how
/// far it came, however it ended.
pub(crate) async fn walk(
    core: &Arc<Core>,
    stream: &Arc<Stream>,
    walk: Walk,
) -> Result<(Walk, Result<(), Error>), Error> {
    let stream = Arc::clone(stream);
    work(core, Deadline::of_now(), walk, move |sight, walk| {
        let id = stream.identity.id;
        let candidates = sight.core.segments.load().holding(id);
        let before = walk.at;
        let segment = find_position(sight, &candidates, id, before)?;
        while let Some(no) = segment.locate(id, walk.at).filter(|_| !walk.is_over()) {
            let block = sight.block(&segment, no, Purpose::Page(id, walk.at, WALK_BYTES))?;
            let part = block.part(id);
            let part = part.filter(|part| (part.first()..part.limit()).contains(&walk.at));
            let Some(part) = part else { break };
            part.chunks(walk.at..part.limit()).for_each(|chunk| walk.pass(&chunk));
        }
        if walk.at == before && !walk.is_over() {
            return Err(lost(before, &stream.identity.name).into());
        }
        Ok(())
    })
    .await
}

/// Takes a walk over records that can't be read, by what indexes say: to where the next ones of the
/// stream begin, as far as that can be told.
pub(crate) async fn pass_damage(
    core: &Arc<Core>,
    stream: &Arc<Stream>,
    walk: Walk,
) -> Result<Walk, Error> {
    let (walk, ended) = pass(core, stream, walk, Means::Probes).await?;
    match ended {
        // What would tell where the next ones begin is damaged too.
        Err(Error::Corrupt(_)) => {
            let (walk, ended) = pass(core, stream, walk, Means::Indexes).await?;
            ended.map(|()| walk)
        }
        ended => ended.map(|()| walk),
    }
}

/// What is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Means {
    /// Indexes, which are in memory.
    Indexes,
    /// The first block of each segment too, where its index does not tell.
    Probes,
}

async fn pass(
    core: &Arc<Core>,
    stream: &Arc<Stream>,
    walk: Walk,
    means: Means,
) -> Result<(Walk, Result<(), Error>), Error> {
    let stream = Arc::clone(stream);
    work(core, Deadline::of_now(), walk, move |sight, walk| {
        let (id, sealed) = (stream.identity.id, stream.durable.lock().sealed);
        let candidates = sight.core.segments.load().holding(id);
        let mut limit = sealed;
        for segment in candidates.iter().filter(|_| means == Means::Probes) {
            match first(sight, segment, id) {
                Ok(Some(first)) if first > walk.at => {
                    limit = limit.min(first);
                    break;
                }
                Ok(_) | Err(Stop::Failed(Error::Corrupt(_))) => {}
                Err(stop) => return Err(stop),
            }
        }
        let Beyond { limit, bytes, newest } = beyond(&candidates, id, walk.at..limit);
        walk.pass_unread(limit, bytes, newest);
        Ok(())
    })
    .await
}

/// What lies between a record that can't be read and the next that can be found without it.
struct Beyond {
    limit: Seq,
    /// No less than the bytes of the records in between.
    bytes: u64,
    /// No record in between is younger.
    newest: WallMs,
}

/// The first position after `range.start` at which a block is known to begin.
fn beyond(candidates: &[Arc<Segment>], stream: StreamId, range: Range<Seq>) -> Beyond {
    let mut found = Beyond { limit: range.end, bytes: 0, newest: WallMs::ZERO };
    for segment in candidates {
        for block in segment.spanning(stream, range.clone()) {
            let first = segment.first_in(block.no, stream).filter(|first| *first > range.start);
            found.limit = found.limit.min(first.unwrap_or(range.end));
        }
    }
    for segment in candidates {
        for block in segment.spanning(stream, range.start..found.limit) {
            found.bytes = found.bytes.saturating_add(block.raw_len);
            found.newest = found.newest.max(segment.footer().newest);
        }
    }
    found
}

/// The record at a position that lies in a segment.
pub(crate) async fn record(
    core: &Arc<Core>,
    stream: StreamId,
    reader: &StreamName,
    seq: Seq,
    deadline: Deadline,
) -> Result<Chunk, Error> {
    let reader = reader.clone();
    ask(core, deadline, move |sight| {
        let candidates = sight.core.segments.load().holding(stream);
        let segment = find_position(sight, &candidates, stream, seq)?;
        let no = segment.locate(stream, seq).ok_or_else(|| lost(seq, &reader))?;
        let block = sight.block(&segment, no, Purpose::Probe)?;
        let part = block.part(stream).filter(|part| (part.first()..part.limit()).contains(&seq));
        let part = part.ok_or_else(|| lost(seq, &reader))?;
        Ok(part.chunks(seq..seq.after(1)).next().ok_or_else(|| lost(seq, &reader))?)
    })
    .await
}

fn lost(seq: Seq, reader: &StreamName) -> Error {
    Error::Corrupt(format!("record {seq} of stream '{reader}' is in no segment"))
}

/// Takes from one segment as much as is wanted, block by block.
fn take(
    sight: &Sight<'_>,
    segment: &Arc<Segment>,
    stream: StreamId,
    limit: Seq,
    gather: &mut Gather,
) -> Result<(), Stop> {
    while !gather.is_done() && gather.next < limit {
        let Some(no) = segment.locate(stream, gather.next) else {
            return Ok(());
        };
        let purpose = Purpose::Page(stream, gather.next, gather.room());
        let block = sight.block(segment, no, purpose)?;
        let Some(part) = block.part(stream) else {
            return Ok(());
        };
        if part.first() > gather.next || part.limit() <= gather.next {
            return Ok(());
        }
        if sight.core.world.sabotage == Sabotage::KeyOverlooked && gather.is_keyed() {
            gather.pass_over(0, gather.next.after(1));
        }
        gather.take_part(part, limit);
    }
    Ok(())
}

/// The position of the first record of a stream in a segment, if it has any there.
fn first(sight: &Sight<'_>, segment: &Arc<Segment>, stream: StreamId) -> Result<Option<Seq>, Stop> {
    if let Some(first) = segment.known_first(stream) {
        return Ok(Some(first));
    }
    let Some(no) = segment.locate(stream, Seq::ZERO) else {
        return Ok(None);
    };
    Ok(sight.block(segment, no, Purpose::Probe)?.part(stream).map(Part::first))
}

/// The position after the last record of a stream in a segment, if it has any there.
fn limit(sight: &Sight<'_>, segment: &Arc<Segment>, stream: StreamId) -> Result<Option<Seq>, Stop> {
    if let Some(limit) = segment.known_limit(stream) {
        return Ok(Some(limit));
    }
    let Some(no) = segment.locate_last(stream) else {
        return Ok(None);
    };
    Ok(sight.block(segment, no, Purpose::Probe)?.part(stream).map(Part::limit))
}

/// The timestamp of the last record of a stream in a segment, if it has any there.
fn newest(
    sight: &Sight<'_>,
    segment: &Arc<Segment>,
    stream: StreamId,
) -> Result<Option<WallMs>, Stop> {
    let Some(no) = segment.locate_last(stream) else {
        return Ok(None);
    };
    Ok(sight.block(segment, no, Purpose::Probe)?.part(stream).map(Part::newest))
}

/// The segment that has a record. A block that can't be read hides its own records and no others.
fn find_position(
    sight: &Sight<'_>,
    candidates: &[Arc<Segment>],
    stream: StreamId,
    position: Seq,
) -> Result<Arc<Segment>, Stop> {
    match halve(sight, candidates, stream, position) {
        Err(Stop::Failed(Error::Corrupt(what))) => {
            let found = find_beside(sight, candidates, stream, position)?;
            found.ok_or_else(|| Error::Corrupt(what).into())
        }
        found => found,
    }
}

/// The same, if a block that would tell where to look can't be read: every segment is asked that may
/// have the record.
fn find_beside(
    sight: &Sight<'_>,
    candidates: &[Arc<Segment>],
    stream: StreamId,
    position: Seq,
) -> Result<Option<Arc<Segment>>, Stop> {
    for segment in candidates.iter().rev() {
        let later = segment.known_first(stream).is_some_and(|first| first > position);
        let earlier = segment.known_limit(stream).is_some_and(|limit| limit <= position);
        let Some(no) = segment.locate(stream, position).filter(|_| !later && !earlier) else {
            continue;
        };
        match sight.block(segment, no, Purpose::Probe) {
            Ok(block) => {
                let has = |part: &Part| (part.first()..part.limit()).contains(&position);
                if block.part(stream).is_some_and(has) {
                    weir_io::sometimes!("a record was found beside a block that could not be read");
                    return Ok(Some(Arc::clone(segment)));
                }
            }
            Err(Stop::Failed(Error::Corrupt(_))) => {}
            Err(stop) => return Err(stop),
        }
    }
    Ok(None)
}

/// The newest segment whose records of the stream begin at or before `position`.
fn halve(
    sight: &Sight<'_>,
    candidates: &[Arc<Segment>],
    stream: StreamId,
    position: Seq,
) -> Result<Arc<Segment>, Stop> {
    let mut candidates = candidates.to_vec();
    let (mut good, mut bad) = (0, candidates.len());
    // `..good` begin at or before the position, `bad..` after it.
    while good < bad {
        let middle = good.midpoint(bad);
        match first(sight, &candidates[middle], stream)? {
            None => {
                candidates.remove(middle);
                bad -= 1;
            }
            Some(first) if first <= position => good = middle + 1,
            Some(_) => bad = middle,
        }
    }
    // Segments of a seal that was tried again overlap: an older one may reach further.
    for segment in candidates[..good].iter().rev() {
        if limit(sight, segment, stream)?.is_some_and(|limit| limit > position) {
            return Ok(Arc::clone(segment));
        }
    }
    let set = sight.core.segments.load();
    let lost = set.all().iter().filter(|it| it.is_lost()).map(|it| it.id().to_string());
    let lost: Vec<String> = lost.collect();
    let what = format!("record {position} of stream {stream} is in no segment");
    Err(Error::Corrupt(match lost.is_empty() {
        true => what,
        false => format!("{what}, and lost are segments {}", lost.join(", ")),
    })
    .into())
}

/// About how many stored bytes a segment holds of a stream's records within `range`; `None` if it
/// holds none of them. Runs where blocking is allowed. Of a block that is not here it is taken to hold
/// as much of this stream as of any other.
pub(crate) fn held_within(
    core: &Core,
    segment: &Arc<Segment>,
    stream: StreamId,
    range: &Range<Seq>,
) -> Option<u64> {
    let mut held = None;
    for block in segment.spanning(stream, range.clone()) {
        let bytes = if block.is_whole {
            block.stored_len
        } else {
            match core.blocks.block(segment, block.no) {
                Err(_) => block.stored_len / block.streams_max.max(1),
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
    deadline: Deadline,
) -> Result<Seq, Error> {
    let stream = Arc::clone(stream);
    ask(core, deadline, move |sight| {
        let sealed = stream.durable.lock().sealed;
        let id = stream.identity.id;
        let mut candidates = sight.core.segments.load().holding(id);
        let (mut older, mut limit) = (0, candidates.len());
        // Everything in `..older` is older than `since`, something in `limit..` is not.
        while older < limit {
            let middle = older.midpoint(limit);
            match newest(sight, &candidates[middle], id)? {
                None => {
                    candidates.remove(middle);
                    limit -= 1;
                }
                Some(newest) if newest < since => older = middle + 1,
                Some(_) => limit = middle,
            }
        }
        let Some(segment) = candidates.get(older) else {
            return Ok(sealed);
        };
        let found = search(sight, segment, id, since)?;
        Ok(found.unwrap_or(sealed).min(sealed))
    })
    .await
}

/// The first record of the stream in this segment whose timestamp is not before `since`.
fn search(
    sight: &Sight<'_>,
    segment: &Arc<Segment>,
    stream: StreamId,
    since: WallMs,
) -> Result<Option<Seq>, Stop> {
    let get = |no| sight.block(segment, no, Purpose::Probe);
    let Some(no) = segment.locate_since(stream, since) else { return Ok(None) };
    if let Some(found) = get(no)?.part(stream).and_then(|part| part.first_at_or_after(since)) {
        return Ok(Some(found));
    }
    let Some(no) = segment.following(no, stream) else { return Ok(None) };
    Ok(get(no)?.part(stream).map(Part::first))
}
