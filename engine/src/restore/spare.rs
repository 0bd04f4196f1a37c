//! After the loss of a list: nobody knows which objects it named, and who recovers names none of
//! them. They may be intact, and whoever has the list back, or only wants to look, must still find
//! them. So everything that is older than such a recovery is spared from collection: by an object of
//! the bucket, which outlives the store and is deleted by people only.
//!
//! ```text
//! files of the old store  0 1 2 3 4 5 6 7 8 │ 9 10 …  of the recovered one
//!                                  spared/9 ┘ nothing below 9 goes because nobody names it
//! ```

use weir_io::retry::Retrying;

use super::{
    RestoreError,
    find::{self, Choice},
};
use crate::{
    motion::publish::Problem,
    publish::keys::{self, Artifact},
    types::SegmentId,
};

/// How far the numbers of objects may be ahead of those in the newest manifest: more have no uploads
/// of one store between two manifests, so such a number is nobody's.
const AHEAD_MAX: u64 = 1 << 32;

/// Spares what there is, if a list is lost. Returns the first number that a new file may have.
pub(super) async fn spare(bucket: &Retrying, choice: &Choice) -> Result<SegmentId, RestoreError> {
    let (newest, chosen) = (&choice.newest.manifest, &choice.chosen.manifest);
    let known = newest.next_segment.max(chosen.next_segment);
    if !choice.lists_are_lost {
        return Ok(known);
    }
    let limit = SegmentId::new(known.get().saturating_add(AHEAD_MAX));
    let mut next = known;
    for prefix in [keys::SEGMENTS, keys::LEDGERS] {
        for key in find::list(bucket, prefix).await?.keys() {
            if let Some(Artifact::Segment(id, _) | Artifact::Ledger(id, _)) = Artifact::parse(key)
                && id < limit
            {
                next = next.max(SegmentId::new(id.get().saturating_add(1)));
            }
        }
    }
    let key = Artifact::Spared(next).key();
    // Before the claim: who starts over after a crash may find that and no loss.
    bucket.create(&key, &"spared\n".into()).await.map_err(Problem::from)?;
    tracing::warn!(%key, "a list is lost: what it may have named is not collected");
    Ok(next)
}
