//! Folds records of segments into rows that do not know of them: each block is fetched once, whoever
//! has records in it, several at a time and in the order in which segments are read.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use weir_io::{objects::Key, retry::Retrying};

use super::{
    RestoreError,
    object::{Bad, TRIES_MAX, piece},
    patch,
    report::Finding,
};
use crate::{
    segment::{Block, BlockNo, Part, Segment},
    state::rows::StreamRow,
    types::{Seq, StreamId},
};

/// Blocks fetched at a time.
const BLOCKS_AT_ONCE: usize = 16;

/// Rows whose ends are looked for.
pub(super) type Rows = BTreeMap<StreamId, StreamRow>;
/// A block and the place of its segment among all.
pub(super) type Place = (usize, BlockNo);

/// The blocks that may have records which these rows do not know of, in order. No I/O.
pub(super) fn blocks(segments: &[(Key, Segment)], rows: &Rows) -> BTreeSet<Place> {
    let mut blocks = BTreeSet::new();
    for (at, (_, segment)) in segments.iter().enumerate() {
        for (id, row) in rows {
            blocks.extend(beyond(segment, *id, row).map(|no| (at, no)));
        }
    }
    blocks
}

/// The blocks of a segment that may have records of a stream which its row does not know of.
fn beyond<'a>(
    segment: &'a Segment,
    id: StreamId,
    row: &StreamRow,
) -> impl Iterator<Item = BlockNo> + use<'a> {
    segment.spanning(id, row.state.next..Seq::LAST).map(|spanning| spanning.no)
}

/// Folds what these blocks have into rows. Names the rows of which something can't be read.
pub(super) async fn catch_up(
    bucket: &Retrying,
    segments: &[(Key, Segment)],
    blocks: BTreeSet<Place>,
    rows: &mut Rows,
    findings: &mut Vec<Finding>,
) -> Result<(), RestoreError> {
    let fetched = stream::iter(blocks).map(|place| fetch(bucket, segments, place));
    let mut fetched = fetched.buffered(BLOCKS_AT_ONCE);
    // Streams that lack a block of the segment at hand: what follows it there is left out.
    let mut broken: (usize, BTreeSet<StreamId>) = (0, BTreeSet::new());
    while let Some(((at, no), result)) = fetched.next().await {
        let (key, segment) = &segments[at];
        if broken.0 != at {
            broken = (at, BTreeSet::new());
        }
        match result {
            Ok(block) => {
                for part in block.parts() {
                    let row = rows.get_mut(&part.stream());
                    if let Some(row) = row.filter(|_| !broken.1.contains(&part.stream())) {
                        absorb(row, part);
                    }
                }
            }
            Err(Bad::Unknown(error)) => return Err(error),
            Err(bad) => {
                for (id, row) in rows.iter() {
                    if beyond(segment, *id, row).any(|it| it == no) && broken.1.insert(*id) {
                        let text = format!("'{key}': {bad}; records in it may be lost");
                        findings.push(Finding::new("row", patch::stream(row), text));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Fetches and verifies a block.
async fn fetch(
    bucket: &Retrying,
    segments: &[(Key, Segment)],
    place: Place,
) -> (Place, Result<Block, Bad>) {
    let (at, no) = place;
    let (key, segment) = &segments[at];
    let mut wrong = Bad::Missing;
    // What was spoiled on its way is asked for again.
    for _ in 0..TRIES_MAX {
        let stored = match piece(bucket, key, segment.span(&(no..no.next()))).await {
            Ok(stored) => stored,
            Err(bad) => return (place, Err(bad)),
        };
        match segment.decode(no, &stored) {
            Ok(block) => return (place, Ok(block)),
            Err(bad) => wrong = Bad::Damaged(bad.to_string()),
        }
    }
    (place, Err(wrong))
}

/// Folds the records of a stream into its row that are beyond its end.
fn absorb(row: &mut StreamRow, part: &Part) {
    let state = &mut row.state;
    if part.limit() <= state.next {
        return;
    }
    for chunk in part.chunks(state.next.max(part.first())..part.limit()) {
        state.kept.wrote(&chunk.records, chunk.timestamp, state.form);
        state.bytes += u64::try_from(chunk.records.payload.len()).expect("usize fits u64");
        state.last_append = state.last_append.max(chunk.timestamp);
        state.next = chunk.limit();
    }
}
