//! The fixed parts of a segment file: header, index entries, footer and trailer, and the
//! words for what can be wrong with them. Normative text: docs/FORMATS.md.

use std::{fmt, io};

use super::fields::Take;
use crate::types::{Lsn, SegmentId, Seq, StreamId, WallMs};

const MAGIC: &[u8; 8] = b"WEIRSEG1";
const END_MAGIC: &[u8; 8] = b"WEIREND1";
const VERSION: u16 = 1;

pub(crate) const HEADER_LEN: usize = 40;
pub(super) const ENTRY_LEN: usize = 56;
pub(super) const FOOTER_LEN: usize = 100;
pub(super) const TRAILER_LEN: usize = 28;

/// Number of a block in its segment, from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockNo(pub(super) u32);

impl BlockNo {
    /// Position in the index.
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).expect("u32 fits usize")
    }

    /// The number of the block after it, if there is one.
    pub(crate) fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("blocks are counted in u32"))
    }

    /// The number of the block before it, which there must be.
    pub(crate) fn before(self) -> Self {
        Self(self.0.checked_sub(1).expect("not the first block"))
    }
}

/// How the bytes of a block are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Codec {
    /// As they are.
    #[default]
    None,
    /// As one zstd frame, where that is shorter.
    Zstd,
}

/// A part of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// The first bytes.
    Header,
    /// A block as stored.
    Block(BlockNo),
    /// The bytes a block decodes to; positions count from their start.
    Content(BlockNo),
    /// The block index.
    Index,
    /// The stream filter.
    Filter,
    /// The footer.
    Footer,
    /// The last bytes.
    Trailer,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Block(no) => write!(f, "block {}", no.0),
            Self::Content(no) => write!(f, "content of block {}", no.0),
            Self::Index => f.write_str("index"),
            Self::Filter => f.write_str("filter"),
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

/// Why a segment can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The file is not what was written.
    #[error("segment damaged: {0}")]
    Damaged(#[from] Damaged),
    /// The disk refused; the file may be intact.
    #[error("segment unreadable: {section}")]
    Failed {
        /// Which part was being read.
        section: Section,
        /// What the disk said.
        source: io::Error,
    },
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) store: [u8; 16],
    pub(super) segment: SegmentId,
}

impl Header {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&self.store);
        out.extend_from_slice(&self.segment.get().to_le_bytes());
        put_crc(&mut out, 0);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut take = Take::new(bytes, Section::Header, 0);
        let magic = take.array::<8>()?;
        take.check(magic == *MAGIC, "no segment")?;
        let version = take.u16()?;
        let flags = take.u16()?;
        let header = Self { store: take.array()?, segment: SegmentId::new(take.u64()?) };
        take_crc(&mut take, bytes, 0)?;
        take.end()?;
        take.check(version == VERSION, "unknown version")?;
        take.check(flags == 0, "unknown flags")?;
        Ok(header)
    }
}

/// What the index says of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where the block's header starts in the file.
    pub(super) offset: u64,
    /// Length of the bytes after the block's header.
    pub(super) stored_len: u32,
    /// Length of what they decode to.
    pub(super) raw_len: u32,
    /// The first record.
    pub(super) first: (StreamId, Seq),
    /// Timestamp of the first record.
    pub(super) first_timestamp: WallMs,
    /// Stream of the last record, and the position after it.
    pub(super) limit: (StreamId, Seq),
}

impl Entry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.stored_len.to_le_bytes());
        out.extend_from_slice(&self.raw_len.to_le_bytes());
        for value in [
            self.first.0.get(),
            self.first.1.get(),
            self.first_timestamp.get(),
            self.limit.0.get(),
            self.limit.1.get(),
        ] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn decode(take: &mut Take<'_>) -> Result<Self, Damaged> {
        let entry = Self {
            offset: take.u64()?,
            stored_len: take.u32()?,
            raw_len: take.u32()?,
            first: (StreamId::new(take.u64()?), Seq::new(take.u64()?)),
            first_timestamp: WallMs::new(take.u64()?),
            limit: (StreamId::new(take.u64()?), Seq::new(take.u64()?)),
        };
        take.check(entry.first < entry.limit, "empty block")?;
        Ok(entry)
    }
}

/// A section between the last block and the footer.
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

/// What a segment holds, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Blocks.
    pub(crate) blocks: u32,
    /// Records of all streams.
    pub(crate) records: u64,
    /// Streams with at least one record.
    pub(crate) streams: u64,
    /// Bytes of all blocks before compression.
    pub(crate) raw_bytes: u64,
    /// The first commit that was sealed into it.
    pub(crate) first_lsn: Lsn,
    /// The last commit that was sealed into it.
    pub(crate) last_lsn: Lsn,
    /// The oldest timestamp; zero if there is no record.
    pub(crate) oldest: WallMs,
    /// The newest timestamp; zero if there is no record.
    pub(crate) newest: WallMs,
    pub(super) index: Span,
    pub(super) filter: Span,
}

impl Footer {
    /// Length of the whole file.
    pub(crate) fn file_bytes(&self) -> u64 {
        let tail = u64::try_from(FOOTER_LEN + TRAILER_LEN).expect("a small constant");
        let limit = self.filter.limit().expect("checked when written and when read");
        limit.checked_add(tail).expect("a file is shorter than 2^64 bytes")
    }

    /// Where everything that is no block begins.
    pub(super) const fn tail_start(&self) -> u64 {
        self.index.offset
    }

    /// Checksum of the footer, which names the checksums of index and filter: it tells this segment
    /// from every other.
    pub(crate) fn mark(&self) -> u32 {
        crc32c::crc32c(&self.encode())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_LEN);
        out.extend_from_slice(&self.blocks.to_le_bytes());
        for value in [
            self.records,
            self.streams,
            self.raw_bytes,
            self.first_lsn.get(),
            self.last_lsn.get(),
            self.oldest.get(),
            self.newest.get(),
        ] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        for span in [self.index, self.filter] {
            out.extend_from_slice(&span.offset.to_le_bytes());
            out.extend_from_slice(&span.len.to_le_bytes());
            out.extend_from_slice(&span.crc.to_le_bytes());
        }
        assert_eq!(out.len(), FOOTER_LEN, "the footer has a fixed length");
        out
    }

    /// Reads a footer whose checksum has been verified.
    pub(super) fn decode(bytes: &[u8], at: u64) -> Result<Self, Damaged> {
        let mut take = Take::new(bytes, Section::Footer, at);
        let footer = Self {
            blocks: take.u32()?,
            records: take.u64()?,
            streams: take.u64()?,
            raw_bytes: take.u64()?,
            first_lsn: Lsn::new(take.u64()?),
            last_lsn: Lsn::new(take.u64()?),
            oldest: WallMs::new(take.u64()?),
            newest: WallMs::new(take.u64()?),
            index: Span { offset: take.u64()?, len: take.u64()?, crc: take.u32()? },
            filter: Span { offset: take.u64()?, len: take.u64()?, crc: take.u32()? },
        };
        take.end()?;
        let entry_len = u64::try_from(ENTRY_LEN).expect("a small constant");
        let index_len = u64::from(footer.blocks) * entry_len;
        take.check(footer.index.len == index_len, "index length")?;
        take.check(footer.index.limit() == Some(footer.filter.offset), "index place")?;
        take.check(footer.filter.limit() == Some(at), "filter place")?;
        take.check(footer.first_lsn <= footer.last_lsn, "commit range")?;
        take.check(footer.oldest <= footer.newest, "time range")?;
        Ok(footer)
    }
}

/// The last bytes of a file: where the footer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) footer: Span,
}

impl Trailer {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER_LEN);
        let len = u32::try_from(self.footer.len).expect("the footer has a fixed length");
        out.extend_from_slice(&self.footer.offset.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&self.footer.crc.to_le_bytes());
        put_crc(&mut out, 0);
        out.extend_from_slice(END_MAGIC);
        out
    }

    pub(super) fn decode(bytes: &[u8], at: u64) -> Result<Self, Damaged> {
        let mut take = Take::new(bytes, Section::Trailer, at);
        let offset = take.u64()?;
        let len = u64::from(take.u32()?);
        let footer = Span { offset, len, crc: take.u32()? };
        take_crc(&mut take, bytes, 0)?;
        let magic = take.array::<8>()?;
        take.end()?;
        take.check(magic == *END_MAGIC, "no end of a segment")?;
        let footer_len = u64::try_from(FOOTER_LEN).expect("a small constant");
        take.check(len == footer_len, "footer length")?;
        take.check(footer.limit() == Some(at), "footer place")?;
        Ok(Self { footer })
    }
}

/// Appends the checksum of everything from `start`.
pub(super) fn put_crc(out: &mut Vec<u8>, start: usize) {
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Reads a checksum and compares it with that of `bytes[start..]` up to it.
pub(super) fn take_crc(take: &mut Take<'_>, bytes: &[u8], start: usize) -> Result<(), Damaged> {
    let crc = crc32c::crc32c(&bytes[start..take.at()]);
    let stored = take.u32()?;
    take.check(stored == crc, "checksum differs")
}
