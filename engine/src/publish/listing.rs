//! Listings: which files a manifest names, in order.
//!
//! ```text
//! entries 0 .. 4096 │ 4096 .. 8192 │ 8192 .. 8200
//!   page              page           in the manifest itself
//! ```
//! A page is an object named after the digest of its bytes: made once, shared by every manifest
//! whose listing begins with the same entries.

use bytes::{BufMut, Bytes, BytesMut};

use super::keys::{Artifact, Digest, Nonce};
use crate::{
    limits::PAGE_ENTRIES,
    log::codec::{Malformed, Take},
    types::{Lsn, SegmentId},
};

const MAGIC: &[u8; 8] = b"WEIRPAGE";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
/// Bytes of an entry.
pub(super) const ENTRY_BYTES: usize = 53;
/// Bytes of a reference to a page.
pub(super) const PAGE_REF_BYTES: usize = 40;
/// Bytes of a page: every one is full.
pub(crate) const PAGE_BYTES: usize = HEADER_BYTES + PAGE_ENTRIES * ENTRY_BYTES + CRC_BYTES;

/// Whether a listed file is in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Under the key that its id and nonce make.
    Stored,
    /// It was found damaged before it was uploaded: what it held is lost, and named so.
    Hole,
}

/// A file that belongs to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its number; segments and ledgers share one count.
    pub(crate) id: SegmentId,
    /// With the id, its object's name.
    pub(crate) nonce: Nonce,
    /// Its length.
    pub(crate) bytes: u64,
    /// The checksum of its footer, which pins everything in it.
    pub(crate) mark: u32,
    /// The first commit in it.
    pub(crate) first_lsn: Lsn,
    /// The last commit in it.
    pub(crate) last_lsn: Lsn,
    /// Records of a segment, rows of a ledger.
    pub(crate) records: u64,
    pub(crate) presence: Presence,
}

impl Entry {
    /// The order of a listing: that in which files are read, the newest last.
    pub(crate) const fn place(&self) -> (Lsn, Lsn, SegmentId) {
        (self.last_lsn, self.first_lsn, self.id)
    }

    /// Its object, if it is a segment.
    pub(crate) const fn segment(&self) -> Artifact {
        Artifact::Segment(self.id, self.nonce)
    }

    /// Its object, if it is a ledger.
    pub(crate) const fn ledger(&self) -> Artifact {
        Artifact::Ledger(self.id, self.nonce)
    }

    /// Its bytes, alone.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(ENTRY_BYTES);
        self.put(&mut out);
        out.freeze()
    }

    /// Reads one that stands alone.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut take = Take::new(bytes);
        let entry = Self::take(&mut take)?;
        match take.left() {
            0 => Ok(entry),
            _ => Err(take.malformed("entry")),
        }
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.id.get());
        out.put_u64_le(self.nonce.get());
        out.put_u64_le(self.bytes);
        out.put_u32_le(self.mark);
        out.put_u64_le(self.first_lsn.get());
        out.put_u64_le(self.last_lsn.get());
        out.put_u64_le(self.records);
        out.put_u8(match self.presence {
            Presence::Stored => 0,
            Presence::Hole => 1,
        });
    }

    pub(super) fn take(take: &mut Take) -> Result<Self, Malformed> {
        Ok(Self {
            id: SegmentId::new(take.u64("entry")?),
            nonce: Nonce::new(take.u64("entry")?),
            bytes: take.u64("entry")?,
            mark: take.u32("entry")?,
            first_lsn: Lsn::new(take.u64("entry")?),
            last_lsn: Lsn::new(take.u64("entry")?),
            records: take.u64("entry")?,
            presence: match take.u8("entry")? {
                0 => Presence::Stored,
                1 => Presence::Hole,
                _ => return Err(take.malformed("presence of an entry")),
            },
        })
    }
}

/// Names a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRef {
    pub(crate) digest: Digest,
    pub(crate) entries: u32,
    pub(crate) bytes: u32,
}

impl PageRef {
    /// Its object.
    pub(crate) const fn artifact(&self) -> Artifact {
        Artifact::Page(self.digest)
    }
}

/// A page to upload, unless it is there: its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) reference: PageRef,
    pub(crate) bytes: Bytes,
}

/// A listing as a manifest holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The first entries, a page's worth each.
    pub(crate) pages: Vec<PageRef>,
    /// The last ones, fewer than a page's worth.
    pub(crate) rest: Vec<Entry>,
}

/// Why a listing can't be put together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    /// A page was not given.
    #[error("page {0} is missing")]
    Missing(Digest),
    /// A page's bytes are not those it is named after.
    #[error("page {0} has other bytes than its name says")]
    Foreign(Digest),
    /// A page's bytes are what they were and no page.
    #[error("page {digest}: {source}")]
    Malformed { digest: Digest, source: Malformed },
}

impl Listing {
    /// Cuts a listing into pages. Returns the pages too: those before the first entry that
    /// changed are the same as before.
    pub(crate) fn assemble(entries: &[Entry]) -> (Self, Vec<Page>) {
        let mut chunks = entries.chunks_exact(PAGE_ENTRIES);
        let pages: Vec<Page> = chunks.by_ref().map(Page::of).collect();
        let references = pages.iter().map(|page| page.reference).collect();
        (Self { pages: references, rest: chunks.remainder().to_vec() }, pages)
    }

    /// All entries in order; `page` gives the bytes of a page.
    ///
    /// # Errors
    /// A page is missing or is not what it was.
    pub(crate) fn resolve(
        &self,
        mut page: impl FnMut(&PageRef) -> Option<Bytes>,
    ) -> Result<Vec<Entry>, Unresolved> {
        let mut entries = Vec::new();
        for reference in &self.pages {
            let bytes = page(reference).ok_or(Unresolved::Missing(reference.digest))?;
            entries.extend(reference.open(&bytes)?);
        }
        entries.extend_from_slice(&self.rest);
        Ok(entries)
    }

    /// How many entries there are.
    pub(crate) fn count(&self) -> u64 {
        let paged: u64 = self.pages.iter().map(|page| u64::from(page.entries)).sum();
        paged + u64::try_from(self.rest.len()).expect("usize fits u64")
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        let count = |len: usize| u32::try_from(len).expect("listings are held in memory");
        out.put_u32_le(count(self.pages.len()));
        out.put_u32_le(count(self.rest.len()));
        for page in &self.pages {
            out.put_slice(page.digest.get());
            out.put_u32_le(page.entries);
            out.put_u32_le(page.bytes);
        }
        for entry in &self.rest {
            entry.put(out);
        }
    }

    pub(super) fn take(take: &mut Take) -> Result<Self, Malformed> {
        let count = |take: &mut Take, bytes: usize| {
            let count = usize::try_from(take.u32("listing")?).expect("u32 fits usize");
            // Room is not reserved for more than there can be.
            let fits = count.checked_mul(bytes).is_some_and(|bytes| bytes <= take.left());
            if fits { Ok(count) } else { Err(take.malformed("length of a listing")) }
        };
        let pages_len = count(take, PAGE_REF_BYTES)?;
        let rest_len = count(take, ENTRY_BYTES)?;
        let mut pages = Vec::with_capacity(pages_len);
        for _ in 0..pages_len {
            let page = PageRef {
                digest: Digest::new(take.array("page")?),
                entries: take.u32("page")?,
                bytes: take.u32("page")?,
            };
            if (page.entries, page.bytes) != full() {
                return Err(take.malformed("size of a page"));
            }
            pages.push(page);
        }
        if rest_len >= PAGE_ENTRIES {
            return Err(take.malformed("length of a listing"));
        }
        let mut rest = Vec::with_capacity(rest_len);
        for _ in 0..rest_len {
            rest.push(Entry::take(take)?);
        }
        Ok(Self { pages, rest })
    }
}

/// Entries and bytes of every page.
fn full() -> (u32, u32) {
    let small = |value: usize| u32::try_from(value).expect("a small constant");
    (small(PAGE_ENTRIES), small(PAGE_BYTES))
}

impl Page {
    /// The page of a page's worth of entries.
    fn of(entries: &[Entry]) -> Self {
        assert_eq!(entries.len(), PAGE_ENTRIES, "pages are full");
        let mut out = BytesMut::with_capacity(PAGE_BYTES);
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u32_le(full().0);
        for entry in entries {
            entry.put(&mut out);
        }
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        assert_eq!(out.len(), PAGE_BYTES, "pages have a fixed length");
        let (entries, bytes) = full();
        let reference = PageRef { digest: Digest::of(&out), entries, bytes };
        Self { reference, bytes: out.freeze() }
    }

    /// Reads a page on its own, as an inspection does.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Vec<Entry>, Malformed> {
        let mut take = Take::new(bytes.clone());
        if take.array::<8>("page")? != *MAGIC {
            return Err(take.malformed("page magic"));
        }
        if take.array("page")? != VERSION.to_le_bytes() || take.array("page")? != [0; 2] {
            return Err(take.malformed("page version"));
        }
        let count = take.u32("page")?;
        if (count, bytes.len()) != (full().0, PAGE_BYTES) {
            return Err(take.malformed("size of a page"));
        }
        let mut entries = Vec::with_capacity(PAGE_ENTRIES);
        for _ in 0..count {
            entries.push(Entry::take(&mut take)?);
        }
        if take.u32("page")? != crc32c::crc32c(&bytes[..PAGE_BYTES - CRC_BYTES]) {
            return Err(take.malformed("page checksum"));
        }
        Ok(entries)
    }
}

impl PageRef {
    /// The entries of the page whose bytes these are said to be.
    pub(crate) fn open(&self, bytes: &Bytes) -> Result<Vec<Entry>, Unresolved> {
        let digest = self.digest;
        if Digest::of(bytes) != digest {
            return Err(Unresolved::Foreign(digest));
        }
        Page::decode(bytes).map_err(|source| Unresolved::Malformed { digest, source })
    }
}
