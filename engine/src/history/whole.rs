//! Makes local copies whole before a merge reads them from front to back.
//!
//! Blocks that are not here, or do not verify, are fetched in stretches, one after the other and
//! with the patience of work that nobody waits for. The copies may take the budget over its limit
//! until the merge is done and they go.

use std::{ops::Range, sync::Arc};

use super::{ahead::AHEAD_BYTES_MAX, budget::Room, fetch};
use crate::{
    core::Core,
    request::Error,
    segment::{BlockNo, Segment},
};

/// Brings every block of these segments that is not here. Nothing is done for those that seem
/// whole, nor for those that the bucket does not have.
///
/// # Errors
/// As [`super::bring`], or the local disk takes no more.
pub(crate) async fn make_whole(core: &Arc<Core>, segments: &[Arc<Segment>]) -> Result<(), Error> {
    for segment in segments {
        if segment.remote().is_some() && !segment.is_whole() {
            core.unless_leaving(fill(core, segment)).await.ok_or(Error::Draining)??;
            segment.set_whole(true);
        }
    }
    Ok(())
}

/// Notes that blocks of these segments may be missing, although they seemed whole.
pub(crate) fn doubt(segments: &[Arc<Segment>]) {
    for segment in segments.iter().filter(|it| it.remote().is_some()) {
        segment.set_whole(false);
    }
}

async fn fill(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<(), Error> {
    let Some(bucket) = &core.bucket else { return Ok(()) };
    weir_io::sometimes!("a merge fetched blocks of a segment that was evicted");
    let mut missing = missing(core, segment).await?;
    while !missing.is_empty() {
        for blocks in stretches(segment, &missing) {
            fetch::fetch(core, &bucket.patient, segment, blocks, Room::Taken).await?;
        }
        let left = self::missing(core, segment).await?;
        if left.len() >= missing.len() {
            let what = format!("segment {}: blocks can't be put back", segment.id());
            return Err(Error::ReadFailed(what));
        }
        missing = left;
    }
    Ok(())
}

/// Blocks that the local copy does not have, or has damaged.
async fn missing(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<Vec<BlockNo>, Error> {
    let segment = Arc::clone(segment);
    let look = move || segment.blocks().filter(|no| segment.block(*no).is_err()).collect();
    weir_io::tasks::run(&*core.world.blocking, look).await.map_err(|_| Error::Draining)
}

/// Neighbours among these, together, up to what is fetched at once.
fn stretches(segment: &Segment, missing: &[BlockNo]) -> Vec<Range<BlockNo>> {
    let mut stretches: Vec<Range<BlockNo>> = Vec::new();
    for no in missing {
        if let Some(last) = stretches.last_mut().filter(|last| last.end == *no) {
            let span = segment.span(&(last.start..no.next()));
            if span.end - span.start <= AHEAD_BYTES_MAX {
                last.end = no.next();
                continue;
            }
        }
        stretches.push(*no..no.next());
    }
    stretches
}
