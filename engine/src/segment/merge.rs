//! Compaction: many segments into one, in order of (stream, sequence).
//!
//! Each input is read front to back, one block of each in memory. Records that several
//! inputs hold are the same records, so the first to come is written and the others are
//! skipped. What nobody can read any more is left out.

use std::{io, ops::Range, sync::Arc};

use super::{Block, BlockNo, Builder, Part, ReadError, Segment};
use crate::types::{Seq, StreamId};

/// What to keep of a stream: ranges of positions, in order and apart.
pub(crate) type Keep = Vec<Range<Seq>>;

/// Why a merge has no result. What it wrote so far is to be thrown away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// An input can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output can't be written.
    #[error("merged segment can't be written")]
    Write(#[from] io::Error),
}

/// Writes what `keep` wants of all inputs into `target`, once and in order. `keep` is asked
/// once for each stream, before anything of it is written.
pub(crate) fn merge(
    inputs: &[Arc<Segment>],
    keep: &dyn Fn(StreamId) -> Keep,
    target: &mut Builder<'_>,
) -> Result<(), MergeError> {
    let mut cursors = Vec::with_capacity(inputs.len());
    for segment in inputs {
        cursors.extend(Cursor::start(segment)?);
    }
    let mut done: Option<(StreamId, Seq)> = None;
    let mut kept: Option<(StreamId, Keep)> = None;
    // A handful of inputs, whole parts at a time: a linear search beats a heap.
    while let Some(at) = next(&cursors) {
        let part = cursors[at].part();
        let stream = part.stream();
        let start = match done {
            Some((last, limit)) if last == stream => limit.max(part.first()),
            _ => part.first(),
        };
        if start < part.limit() {
            let known = kept.take().filter(|(last, _)| *last == stream);
            let (_, ranges) = kept.insert(known.unwrap_or_else(|| (stream, keep(stream))));
            write(part, start, ranges, target)?;
            done = Some((stream, part.limit()));
        }
        if !cursors[at].advance()? {
            cursors.swap_remove(at);
        }
    }
    Ok(())
}

/// The cursor at the lowest record.
fn next(cursors: &[Cursor<'_>]) -> Option<usize> {
    let position = |cursor: &Cursor<'_>| (cursor.part().stream(), cursor.part().first());
    (0..cursors.len()).min_by_key(|&at| position(&cursors[at]))
}

fn write(
    part: &Part,
    start: Seq,
    ranges: &[Range<Seq>],
    target: &mut Builder<'_>,
) -> io::Result<()> {
    let first = ranges.partition_point(|range| range.end <= start);
    for range in ranges[first..].iter().take_while(|range| range.start < part.limit()) {
        for chunk in part.chunks(range.start.max(start)..range.end.min(part.limit())) {
            target.push(part.stream(), part.form(), &chunk)?;
        }
    }
    Ok(())
}

/// A position in one input, always at a part.
struct Cursor<'a> {
    segment: &'a Segment,
    rest: std::vec::IntoIter<BlockNo>,
    block: Block,
    index: usize,
}

impl<'a> Cursor<'a> {
    /// At the first part; `None` if the segment is empty.
    fn start(segment: &'a Segment) -> Result<Option<Self>, ReadError> {
        let mut rest = segment.blocks().collect::<Vec<_>>().into_iter();
        let Some(first) = rest.next() else {
            return Ok(None);
        };
        Ok(Some(Self { segment, rest, block: segment.block(first)?, index: 0 }))
    }

    fn part(&self) -> &Part {
        &self.block.parts()[self.index]
    }

    /// Goes to the next part; false at the end.
    fn advance(&mut self) -> Result<bool, ReadError> {
        self.index += 1;
        if self.index == self.block.parts().len() {
            let Some(no) = self.rest.next() else {
                return Ok(false);
            };
            self.block = self.segment.block(no)?;
            self.index = 0;
        }
        Ok(true)
    }
}
