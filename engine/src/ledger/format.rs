//! The fixed parts of a ledger file: header, footer and trailer, and the words for what can be
//! wrong with them. Normative text: docs/FORMATS.md.

use std::{fmt, io};

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    log::{
        codec::{Malformed, Take},
        commit::StoreId,
    },
    types::{Lsn, SegmentId},
};

const MAGIC: &[u8; 8] = b"WEIRROW1";
const END_MAGIC: &[u8; 8] = b"WEIRROWE";
const VERSION: u16 = 1;

pub(super) const HEADER_LEN: usize = 40;
pub(super) const FOOTER_LEN: usize = 76;
pub(super) const TRAILER_LEN: usize = 28;

/// A part of a ledger file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// The first bytes.
    Header,
    /// A block as stored, counted from zero, those of rows before those of commits.
    Block(u32),
    /// The bytes a block decodes to; positions count from their start.
    Content(u32),
    /// What is in which block.
    Index,
    /// The footer.
    Footer,
    /// The last bytes.
    Trailer,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Block(no) => write!(f, "block {no}"),
            Self::Content(no) => write!(f, "content of block {no}"),
            Self::Index => f.write_str("index"),
            Self::Footer => f.write_str("footer"),
            Self::Trailer => f.write_str("trailer"),
        }
    }
}

/// Stored bytes are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{section}: {reason} at byte {at}")]
pub(crate) struct Damaged {
    /// Which part of the file.
    pub(crate) section: Section,
    /// Where in the file (in a [`Section::Content`]: in the decoded block).
    pub(crate) at: u64,
    /// What is wrong.
    pub(crate) reason: &'static str,
}

impl Damaged {
    /// What is wrong with a section that begins at `base`.
    pub(super) fn of(section: Section, base: u64, malformed: Malformed) -> Self {
        let at = u64::try_from(malformed.at).expect("usize fits u64");
        Self { section, at: base.saturating_add(at), reason: malformed.what }
    }
}

/// Why a ledger can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The file is not what was written.
    #[error("ledger damaged: {0}")]
    Damaged(#[from] Damaged),
    /// The disk refused; the file may be intact.
    #[error("ledger unreadable: {section}")]
    Failed {
        /// Which part was being read.
        section: Section,
        /// What the disk said.
        source: io::Error,
    },
}

/// Refuses what was just read unless it is as it must be.
pub(super) fn ensure(take: &Take, holds: bool, what: &'static str) -> Result<(), Malformed> {
    if holds { Ok(()) } else { Err(take.malformed(what)) }
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) store: StoreId,
    pub(super) id: SegmentId,
}

impl Header {
    pub(super) fn encode(self) -> BytesMut {
        let mut out = BytesMut::with_capacity(HEADER_LEN);
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_slice(&self.store.0);
        out.put_u64_le(self.id.get());
        put_crc(&mut out);
        out
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut take = Take::new(bytes.clone());
        let magic = take.array::<8>("header")?;
        ensure(&take, magic == *MAGIC, "no ledger")?;
        let version = take.array("header")?;
        let flags = take.array::<2>("header")?;
        let store = StoreId(take.array("header")?);
        let id = SegmentId::new(take.u64("header")?);
        take_crc(&mut take, &bytes[..HEADER_LEN - 4])?;
        ensure(&take, version == VERSION.to_le_bytes(), "unknown version")?;
        ensure(&take, flags == [0; 2], "unknown flags")?;
        Ok(Self { store, id })
    }
}

/// A section between the last block and the trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) crc: u32,
}

impl Span {
    /// The position after the section; `None` if no file is that long.
    pub(super) const fn limit(self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }
}

/// What a ledger holds, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Blocks of rows.
    pub(crate) row_blocks: u32,
    /// Blocks of commits, after those of rows.
    pub(crate) tail_blocks: u32,
    /// Changes of all kinds.
    pub(crate) rows: u64,
    /// How many of them delete.
    pub(crate) deletions: u64,
    /// Commits of the tail.
    pub(crate) commits: u64,
    /// Bytes of all blocks before compression.
    pub(crate) raw_bytes: u64,
    /// The first commit whose changes are in it.
    pub(crate) first_lsn: Lsn,
    /// The last commit whose changes are all in it.
    pub(crate) last_lsn: Lsn,
    pub(super) index: Span,
}

impl Footer {
    /// Length of the whole file.
    pub(crate) fn file_bytes(&self) -> u64 {
        let tail = u64::try_from(FOOTER_LEN + TRAILER_LEN).expect("a small constant");
        let limit = self.index.limit().expect("checked when written and when read");
        limit.checked_add(tail).expect("a file is shorter than 2^64 bytes")
    }

    /// Its checksum. It covers the index, and that those of the blocks: so it pins every byte.
    pub(crate) fn mark(&self) -> u32 {
        crc32c::crc32c(&self.encode())
    }

    pub(super) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(FOOTER_LEN);
        out.put_u32_le(self.row_blocks);
        out.put_u32_le(self.tail_blocks);
        for value in [
            self.rows,
            self.deletions,
            self.commits,
            self.raw_bytes,
            self.first_lsn.get(),
            self.last_lsn.get(),
            self.index.offset,
            self.index.len,
        ] {
            out.put_u64_le(value);
        }
        out.put_u32_le(self.index.crc);
        assert_eq!(out.len(), FOOTER_LEN, "the footer has a fixed length");
        out
    }

    /// Reads a footer that lies at `at` and whose checksum has been verified.
    pub(super) fn decode(bytes: &Bytes, at: u64) -> Result<Self, Malformed> {
        let mut take = Take::new(bytes.clone());
        let footer = Self {
            row_blocks: take.u32("footer")?,
            tail_blocks: take.u32("footer")?,
            rows: take.u64("footer")?,
            deletions: take.u64("footer")?,
            commits: take.u64("footer")?,
            raw_bytes: take.u64("footer")?,
            first_lsn: Lsn::new(take.u64("footer")?),
            last_lsn: Lsn::new(take.u64("footer")?),
            index: Span {
                offset: take.u64("footer")?,
                len: take.u64("footer")?,
                crc: take.u32("footer")?,
            },
        };
        ensure(&take, take.is_empty(), "footer length")?;
        ensure(&take, footer.index.limit() == Some(at), "index place")?;
        ensure(&take, footer.first_lsn <= footer.last_lsn, "commit range")?;
        ensure(&take, footer.deletions <= footer.rows, "deletions")?;
        Ok(footer)
    }
}

/// The last bytes of a file: where the footer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) footer: Span,
}

impl Trailer {
    pub(super) fn encode(self) -> BytesMut {
        let mut out = BytesMut::with_capacity(TRAILER_LEN);
        let len = u32::try_from(self.footer.len).expect("the footer has a fixed length");
        out.put_u64_le(self.footer.offset);
        out.put_u32_le(len);
        out.put_u32_le(self.footer.crc);
        put_crc(&mut out);
        out.put_slice(END_MAGIC);
        out
    }

    /// Reads the trailer that lies at `at`.
    pub(super) fn decode(bytes: &Bytes, at: u64) -> Result<Self, Malformed> {
        let mut take = Take::new(bytes.clone());
        let offset = take.u64("trailer")?;
        let len = u64::from(take.u32("trailer")?);
        let footer = Span { offset, len, crc: take.u32("trailer")? };
        take_crc(&mut take, &bytes[..16])?;
        let magic = take.array::<8>("trailer")?;
        ensure(&take, magic == *END_MAGIC, "no end of a ledger")?;
        let footer_len = u64::try_from(FOOTER_LEN).expect("a small constant");
        ensure(&take, len == footer_len, "footer length")?;
        ensure(&take, footer.limit() == Some(at), "footer place")?;
        Ok(Self { footer })
    }
}

/// Appends the checksum of everything before.
pub(super) fn put_crc(out: &mut BytesMut) {
    let crc = crc32c::crc32c(out);
    out.put_u32_le(crc);
}

/// Reads a checksum and compares it with that of `covered`.
pub(super) fn take_crc(take: &mut Take, covered: &[u8]) -> Result<(), Malformed> {
    let stored = take.u32("checksum")?;
    ensure(take, stored == crc32c::crc32c(covered), "checksum differs")
}
