//! Manifests: what a store was at one moment. Each names the digest of the one before, so the
//! newest one vouches for the whole chain.
//!
//! ```text
//! through ─ everything up to here is in the manifest: in rows, or in the tail of the newest
//!    │      ledger, which has the log's commits after
//! folded ── everything up to here is in segments and rows
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    keys::{Artifact, Digest, Generation},
    listing::{ENTRY_BYTES, Listing, PAGE_REF_BYTES},
};
use crate::{
    limits::{MANIFEST_BYTES_MAX, PAGE_ENTRIES},
    log::{
        codec::{Malformed, Take},
        commit::{Link, StoreId},
    },
    types::{Lsn, SegmentId, StoreMs, StreamId, WallMs},
};

const MAGIC: &[u8; 8] = b"WEIRMANI";
const VERSION: u16 = 1;
const FIXED_BYTES: usize = 160 + 2 * 8 + 4;
/// Pages of both listings that fit beside all the entries that no page takes.
const PAGES_MAX: usize =
    (MANIFEST_BYTES_MAX - FIXED_BYTES - 2 * (PAGE_ENTRIES - 1) * ENTRY_BYTES) / PAGE_REF_BYTES;

// Sixty million files: a bound for the sum, not for any store.
const _: () = assert!(PAGES_MAX > 10_000);

/// 16 random bytes that tell two writers who claim one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim(pub(crate) [u8; 16]);

/// What a store was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) store: StoreId,
    pub(crate) generation: Generation,
    /// The digest of the manifest before; [`Digest::NONE`] for the first.
    pub(crate) before: Digest,
    /// Whose it is: an answer that was lost is found by it.
    pub(crate) claim: Claim,
    /// That of the process that published it.
    pub(crate) writer_epoch: u64,
    /// When it was made.
    pub(crate) created: WallMs,
    /// How many bootstraps the chain has seen.
    pub(crate) recoveries: u32,
    /// Everything up to this commit is in segments and rows.
    pub(crate) folded: Link,
    /// Everything up to this commit is in the manifest.
    pub(crate) through: Link,
    /// The first stream id that was never used.
    pub(crate) next_stream: StreamId,
    /// The first subscription number that was never used.
    pub(crate) next_subscription: u64,
    /// The first number that neither a segment nor a ledger ever had.
    pub(crate) next_segment: SegmentId,
    /// How long the store had been running.
    pub(crate) store_ms: StoreMs,
    /// In the order in which they are read.
    pub(crate) segments: Listing,
    /// Oldest first.
    pub(crate) ledgers: Listing,
}

/// A manifest's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
}

impl Manifest {
    /// Its object.
    pub(crate) const fn artifact(&self) -> Artifact {
        Artifact::Manifest(self.generation)
    }

    /// Its bytes. Whether they are few enough is for [`super::invariants`] to say.
    pub(crate) fn encode(&self) -> Encoded {
        let mut out = BytesMut::with_capacity(4096);
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_slice(&self.store.0);
        out.put_u64_le(self.generation.get());
        out.put_slice(self.before.get());
        out.put_slice(&self.claim.0);
        out.put_u64_le(self.writer_epoch);
        out.put_u64_le(self.created.get());
        out.put_u32_le(self.recoveries);
        for link in [self.folded, self.through] {
            out.put_u64_le(link.lsn.get());
            out.put_u32_le(link.crc);
        }
        out.put_u64_le(self.next_stream.get());
        out.put_u64_le(self.next_subscription);
        out.put_u64_le(self.next_segment.get());
        out.put_u64_le(self.store_ms.get());
        self.segments.put(&mut out);
        self.ledgers.put(&mut out);
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        let digest = Digest::of(&out);
        Encoded { bytes: out.freeze(), digest }
    }

    /// Whether these are bytes that somebody wrote as a manifest, of whatever version.
    pub(crate) fn is_whole(bytes: &[u8]) -> bool {
        let checked = bytes.len().checked_sub(4).filter(|_| bytes.starts_with(MAGIC));
        checked.is_some_and(|at| crc32c::crc32c(&bytes[..at]).to_le_bytes() == bytes[at..])
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// It is not one of this version, or not what was written.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut whole = Take::new(bytes.clone());
        if whole.array::<8>("manifest")? != *MAGIC {
            return Err(whole.malformed("manifest magic"));
        }
        let version = (whole.array("manifest")?, whole.array("manifest")?);
        let checked = bytes.len().checked_sub(4).filter(|_| bytes.len() <= MANIFEST_BYTES_MAX);
        let checked = checked.ok_or(whole.malformed("manifest length"))?;
        if crc32c::crc32c(&bytes[..checked]).to_le_bytes() != bytes[checked..] {
            return Err(whole.malformed("manifest checksum"));
        }
        if version != (VERSION.to_le_bytes(), [0; 2]) {
            return Err(whole.malformed("manifest version"));
        }
        let mut take = Take::new(bytes.slice(..checked));
        take.slice(12, "manifest")?;
        let manifest = Self {
            store: StoreId(take.array("store id")?),
            generation: Generation::new(take.u64("generation")?),
            before: Digest::new(take.array("predecessor")?),
            claim: Claim(take.array("nonce")?),
            writer_epoch: take.u64("writer epoch")?,
            created: WallMs::new(take.u64("created")?),
            recoveries: take.u32("recoveries")?,
            folded: take_link(&mut take)?,
            through: take_link(&mut take)?,
            next_stream: StreamId::new(take.u64("next stream")?),
            next_subscription: take.u64("next subscription")?,
            next_segment: SegmentId::new(take.u64("next segment")?),
            store_ms: StoreMs::new(take.u64("store time")?),
            segments: Listing::take(&mut take)?,
            ledgers: Listing::take(&mut take)?,
        };
        if !take.is_empty() {
            return Err(take.malformed("end of manifest"));
        }
        Ok(manifest)
    }
}

fn take_link(take: &mut Take) -> Result<Link, Malformed> {
    Ok(Link { lsn: Lsn::new(take.u64("commit")?), crc: take.u32("commit")? })
}

/// What a manifest's successor is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) store: StoreId,
    pub(crate) generation: Generation,
    pub(crate) digest: Digest,
    pub(crate) writer_epoch: u64,
    pub(crate) recoveries: u32,
    pub(crate) folded: Link,
    pub(crate) through: Link,
    pub(crate) next_stream: StreamId,
    pub(crate) next_subscription: u64,
    pub(crate) next_segment: SegmentId,
    pub(crate) store_ms: StoreMs,
}

impl Published {
    /// The summary of a manifest; `digest` is that of its bytes.
    pub(crate) const fn new(manifest: &Manifest, digest: Digest) -> Self {
        Self {
            store: manifest.store,
            generation: manifest.generation,
            digest,
            writer_epoch: manifest.writer_epoch,
            recoveries: manifest.recoveries,
            folded: manifest.folded,
            through: manifest.through,
            next_stream: manifest.next_stream,
            next_subscription: manifest.next_subscription,
            next_segment: manifest.next_segment,
            store_ms: manifest.store_ms,
        }
    }
}
