//! What of a store is in its bucket, for an operator.

use super::server::level;
use crate::{
    core::Core,
    types::{Lsn, WallMs},
};

/// A store and its bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publishing {
    /// The newest manifest; `None` before the first.
    pub newest: Option<Newest>,
    /// Files that only this disk has.
    pub pending_files: usize,
    /// Bytes of these files.
    pub backlog_bytes: u64,
    /// Those of them that are being uploaded.
    pub under_way_files: u64,
    /// Bytes of these.
    pub under_way_bytes: u64,
    /// Whether so much waits that appends are refused.
    pub full: bool,
    /// Whether another process publishes, so that this one takes no writes.
    pub fenced: bool,
    /// Segments that were found damaged before they were uploaded.
    pub holes: usize,
    /// How many recoveries from the bucket the store has behind it.
    pub recoveries: u32,
    /// Counted since the start.
    pub uploads: u64,
    /// See `uploads`.
    pub upload_bytes: u64,
    /// See `uploads`.
    pub manifests: u64,
    /// See `uploads`.
    pub failed: u64,
    /// See `uploads`.
    pub collected: u64,
}

/// The newest manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its place in the chain, from 1.
    pub generation: u64,
    /// When it was made.
    pub created: WallMs,
    /// A store recovered from it has every commit up to this one.
    pub through: Lsn,
}

/// `None`: the store has no bucket.
pub(super) fn publishing(core: &Core) -> Option<Publishing> {
    core.bucket.as_ref()?;
    let files = core.files.lock();
    let (backlog_bytes, pending_files, holes) =
        (files.local_bytes(), files.local_files(), files.holes());
    drop(files);
    let metrics = &core.metrics.publish;
    Some(Publishing {
        newest: core.in_bucket.lock().map(|it| Newest {
            generation: it.generation.get(),
            created: it.created,
            through: it.through,
        }),
        pending_files,
        backlog_bytes,
        under_way_files: level(&metrics.under_way),
        under_way_bytes: level(&metrics.under_way_bytes),
        full: core.is_backlogged(),
        fenced: metrics.fenced.get() > 0,
        holes,
        recoveries: core.recoveries,
        uploads: metrics.uploads.get(),
        upload_bytes: metrics.upload_bytes.get(),
        manifests: metrics.manifests.get(),
        failed: metrics.failed.get(),
        collected: metrics.collected.get(),
    })
}
