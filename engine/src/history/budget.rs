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
    time::Duration,
};

use bytes::Bytes;

use super::{AdoptError, Adoption, adopt};
use crate::{
    core::{Core, segment_dir, segment_path},
    segment::{BlockNo, CopyError, Segment},
};

/// How often the evictor looks around unrung.
const ROUND: Duration = Duration::from_secs(1);
/// Time after which a round takes no further file: then everything is counted anew.
const ROUND_MAX: Duration = Duration::from_secs(1);

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
        core.evictor.notify_one();
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

/// Evicts when rung, and once a second, until the store stops.
pub(crate) async fn run(core: Arc<Core>) {
    while !core.stopping.load(Ordering::Acquire) {
        tidy(&core).await;
        tokio::select! {
            biased;
            () = core.evictor.notified() => {}
            () = tokio::time::sleep(ROUND) => {}
        }
    }
}

/// One round of the evictor: counts what is here and evicts what was not read for longest until
/// there is room for an eighth of the budget, so that blocks can be put back again, or until the round
/// has taken as long as one may. Seals have their turn before each file.
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
    let began = core.world.clock.elapsed();
    let is_over = || core.world.clock.elapsed().saturating_sub(began) >= ROUND_MAX;
    let set = core.segments.load_full();
    let mut published: Vec<_> = set.all().iter().filter(|it| it.is_published()).collect();
    // Of those never read the oldest go first.
    published.sort_by_key(|segment| segment.last_used());
    let mut left = bytes;
    let mut damaged = Vec::new();
    for segment in published {
        if left <= max - max / 8 || is_over() {
            break;
        }
        match evict(core, segment).await {
            Ok(Evicted::Freed(freed)) => left = left.saturating_sub(freed),
            Ok(Evicted::Stays) => {}
            Ok(Evicted::Damaged) => damaged.push(segment),
            Err(error) => {
                tracing::warn!(segment = %segment.id(), %error, "a local copy was not evicted");
            }
        }
    }
    sync(core, bytes - left).await;
    // These wait for the bucket, and nothing waits for them.
    for segment in damaged {
        if left <= max - max / 8 || is_over() {
            break;
        }
        match renew(core, segment).await {
            Ok(freed) => {
                left = left.saturating_sub(freed);
                sync(core, freed).await;
            }
            Err(error) => {
                tracing::warn!(segment = %segment.id(), %error, "a local copy was not made anew");
            }
        }
    }
    count(core);
}

/// After copies were replaced: the file system keeps what the names before stand for until their
/// directory is synced.
async fn sync(core: &Arc<Core>, freed: u64) {
    if freed == 0 {
        return;
    }
    let (disk, dir) = (Arc::clone(&core.world.disk), segment_dir(&core.config));
    let synced = weir_io::tasks::run(&*core.world.blocking, move || disk.sync_dir(&dir)).await;
    if let Ok(Err(error)) = synced {
        tracing::warn!(%error, "evicted copies take room until their directory is synced");
    }
}

/// Adds up the local copies of uploaded segments.
fn count(core: &Core) -> u64 {
    let set = core.segments.load();
    let bytes = set.all().iter().filter(|it| is_uploaded(it)).map(|it| it.local_bytes()).sum();
    core.history.local_bytes.store(bytes, Ordering::Relaxed);
    core.metrics.local_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    bytes
}

/// What became of a local copy.
enum Evicted {
    /// It has no blocks any more, and so many bytes fewer.
    Freed(u64),
    /// It is to stay as it is, or is gone.
    Stays,
    /// What it would keep is damaged.
    Damaged,
}

/// Whether the blocks of a local copy may go. To be asked while `sealing` is held: a file that a merge
/// removes must not come back by a rename, nor lose what was brought for the merge.
fn may_go(core: &Core, segment: &Segment) -> bool {
    // What is uploaded and named by no manifest may be collected by the next writer, and so may what
    // this one's manifests name once there is another.
    let is_ours = core.metrics.publish.fenced.get() == 0;
    let is_there = core.files.lock().segment(segment.id()).is_some();
    is_ours && is_there && !segment.is_bare() && !core.history.is_kept(segment.id())
}

fn freed(core: &Core, segment: &Segment, bytes: u64) {
    core.metrics.evictions.inc();
    tracing::debug!(segment = %segment.id(), freed = bytes, "evicted");
}

/// Replaces a local copy by one of itself without blocks.
async fn evict(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<Evicted, AdoptError> {
    let _turn = core.sealing.lock().await;
    if !may_go(core, segment) {
        return Ok(Evicted::Stays);
    }
    let path = segment_path(&core.config, segment.id());
    let (disk, evicted) = (Arc::clone(&core.world.disk), Arc::clone(segment));
    let evict = move || evicted.evict(&*disk, &path);
    match weir_io::tasks::run(&*core.world.blocking, evict).await? {
        Ok(bytes) => {
            freed(core, segment, bytes);
            Ok(Evicted::Freed(bytes))
        }
        Err(CopyError::Write(error)) => Err(AdoptError::Write(error)),
        Err(CopyError::Read(_) | CopyError::Another) => Ok(Evicted::Damaged),
    }
}

/// Replaces a local copy of which even what is no block is damaged by one without blocks of its object.
/// That is made beside it, for as long as the bucket takes, and then takes its place. Says how many
/// bytes that freed.
async fn renew(core: &Arc<Core>, segment: &Arc<Segment>) -> Result<u64, AdoptError> {
    let (Some(bucket), Some(remote)) = (&core.bucket, segment.remote()) else {
        return Ok(0);
    };
    let path = segment_path(&core.config, segment.id());
    let beside = path.with_extension("new");
    let adoption = Adoption {
        store: segment.store(),
        id: segment.id(),
        mark: Some(segment.footer().mark()),
        remote: remote.clone(),
        path: beside.clone(),
    };
    let adopted = core.unless_leaving(adopt(&core.world, &bucket.reading, &adoption)).await;
    let copy = adopted.ok_or(weir_io::tasks::Gone)??;
    let _turn = core.sealing.lock().await;
    let stays = !may_go(core, segment);
    let disk = Arc::clone(&core.world.disk);
    let place = move || {
        if stays {
            return disk.remove(&beside).map(|()| false);
        }
        // What is left of it goes at the next start, if not now.
        disk.rename(&beside, &path).inspect_err(|_| drop(disk.remove(&beside))).map(|()| true)
    };
    let placed = weir_io::tasks::run(&*core.world.blocking, place).await?;
    if !placed.map_err(AdoptError::Write)? {
        tracing::debug!(segment = %segment.id(), "it was merged while its local copy was made anew");
        return Ok(0);
    }
    weir_io::sometimes!("a local copy was damaged beyond its blocks and made anew");
    let bytes = segment.evict_for(&copy);
    freed(core, segment, bytes);
    Ok(bytes)
}

fn is_uploaded(segment: &Segment) -> bool {
    segment.remote().is_some()
}
