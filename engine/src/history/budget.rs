//! The budget of local copies: what a fetched block may take, and what goes when there is too much.
//!
//! What counts are the local copies of uploaded segments, as the file system measures them at start
//! and as blocks are added to them after that; so a restart neither forgets nor invents bytes. A
//! fetched block is put back only as far as there is room. An upload may take the sum above the
//! budget until the next round, and one without a manifest for as long as there is none: only what a
//! manifest in the bucket names is sure to stay there.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;

use super::{AdoptError, Adoption, adopt};
use crate::{
    core::{Core, segment_dir, segment_path},
    segment::{BlockNo, CopyError, Segment},
};

/// Whether a block is put back although there is no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Only within the budget.
    Limited,
    /// In any case: a merge is about to read it, and then the copy goes.
    Taken,
}

/// Puts verified blocks into the local copy, as far as that is possible.
pub(super) fn put_back(core: &Core, segment: &Segment, blocks: &[(BlockNo, Bytes)], room: Room) {
    let bytes: usize = blocks.iter().map(|(_, stored)| stored.len()).sum();
    let bytes = u64::try_from(bytes).expect("usize fits u64");
    let local = &core.history.local_bytes;
    let sum = local.load(Ordering::Relaxed).saturating_add(bytes);
    if room == Room::Limited && sum > core.config.local_bytes_max {
        weir_io::sometimes!("a fetched block was not put back because there was no room");
        core.keeper.notify_one();
        return;
    }
    let path = segment_path(&core.config, segment.id());
    match segment.put_back(&*core.world.disk, &path, blocks) {
        Ok(()) => {
            local.fetch_add(bytes, Ordering::Relaxed);
        }
        // A merge has removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            weir_io::sometimes!("a fetched block could not be put back");
            tracing::debug!(segment = %segment.id(), %error, "a fetched block was not put back");
        }
    }
}

/// One round of the evictor: counts what is here and evicts what was not read for longest until
/// there is room for an eighth of the budget, so that blocks can be put back again.
pub(crate) async fn tidy(core: &Arc<Core>) {
    // What nobody can bring back stays.
    if core.bucket.is_none() {
        return;
    }
    core.history.round.fetch_add(1, Ordering::Relaxed);
    let max = core.config.local_bytes_max;
    let bytes = count(core);
    if bytes <= max - max / 16 {
        return;
    }
    // A file that a merge removes must not come back by a rename.
    let _turn = core.sealing.lock().await;
    let set = core.segments.load_full();
    // What is uploaded and named by no manifest may be collected by the next writer, and so may what
    // this one's manifests name once there is another.
    if core.metrics.publish.fenced.get() != 0 {
        return;
    }
    let mut published: Vec<_> = set.all().iter().filter(|it| it.is_published()).collect();
    // Of those never read the oldest go first.
    published.sort_by_key(|segment| segment.last_used());
    let mut left = bytes;
    let before = core.metrics.evictions.get();
    for segment in published {
        if left <= max - max / 8 {
            break;
        }
        if segment.is_bare() || core.history.is_kept(segment.id()) {
            continue;
        }
        match evict(core, segment).await {
            Ok(freed) => {
                left = left.saturating_sub(freed);
                core.metrics.evictions.inc();
                tracing::debug!(segment = %segment.id(), freed, "evicted");
            }
            Err(error) => {
                tracing::warn!(segment = %segment.id(), %error, "a local copy was not evicted");
            }
        }
    }
    if core.metrics.evictions.get() > before {
        let (disk, dir) = (Arc::clone(&core.world.disk), segment_dir(&core.config));
        // The file system keeps what the names before stand for until then.
        let synced = weir_io::tasks::run(&*core.world.blocking, move || disk.sync_dir(&dir)).await;
        if let Ok(Err(error)) = synced {
            tracing::warn!(%error, "evicted copies take room until their directory is synced");
        }
    }
    count(core);
}

/// Adds up the local copies of uploaded segments.
fn count(core: &Core) -> u64 {
    let set = core.segments.load();
    let bytes = set.all().iter().filter(|it| is_uploaded(it)).map(|it| it.local_bytes()).sum();
    core.history.local_bytes.store(bytes, Ordering::Relaxed);
    core.metrics.local_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    bytes
}

/// Replaces a local copy by one without blocks: of itself, or of the object if even what is no
/// block is damaged here. Says how many bytes that freed.
async fn evict(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<u64, AdoptError> {
    let path = segment_path(&core.config, segment.id());
    let (disk, evicted, shown) = (Arc::clone(&core.world.disk), Arc::clone(segment), path.clone());
    let done =
        weir_io::tasks::run(&*core.world.blocking, move || evicted.evict(&*disk, &shown)).await?;
    let (Some(bucket), Some(remote)) = (&core.bucket, segment.remote()) else {
        return Ok(0);
    };
    match done {
        Ok(freed) => Ok(freed),
        Err(CopyError::Write(error)) => Err(AdoptError::Write(error)),
        Err(CopyError::Read(_) | CopyError::Another) => {
            weir_io::sometimes!("a local copy was damaged beyond its blocks and made anew");
            let adoption = Adoption {
                store: segment.store(),
                id: segment.id(),
                mark: Some(segment.footer().mark()),
                remote: remote.clone(),
                path,
            };
            let copy = adopt(&core.world, &bucket.reading, &adoption).await?;
            Ok(segment.evict_for(&copy))
        }
    }
}

fn is_uploaded(segment: &Segment) -> bool {
    segment.remote().is_some()
}
