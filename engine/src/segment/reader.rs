//! Reads a segment: index and filter in memory, one block per read.
//!
//! ```text
//! index  (first 3:0, limit 7:42) (first 7:42, limit 7:90) (first 7:90, limit 9:5)
//! locate(7, 50) ────────────────────────┘   first block whose limit lies after 7:50
//! ```
//! Opening verifies every section but the blocks, which are verified whenever they are read.

use std::{
    io,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use weir_io::{File, objects::Key};

use super::{
    block::{BLOCK_HEADER_LEN, Block},
    fields::Take,
    filter::Filter,
    format::{
        BlockNo, Damaged, ENTRY_LEN, Entry, FOOTER_LEN, Footer, HEADER_LEN, Header, ReadError,
        Section, Span, TRAILER_LEN, Trailer,
    },
    local::Local,
};
use crate::types::{SegmentId, Seq, StreamId, WallMs};

/// The last bytes of a file, which say where the others are.
pub(crate) const TAIL_LEN: usize = FOOTER_LEN + TRAILER_LEN;

/// The object that holds the bytes of a segment's file in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    /// Its key.
    pub(crate) key: Key,
    /// Its length: that of the file.
    pub(crate) bytes: u64,
}

/// An open segment.
pub(crate) struct Segment {
    pub(super) local: Local,
    header: Header,
    footer: Footer,
    index: Box<[Entry]>,
    filter: Filter,
    /// Its mark, if there is nothing else to have it from ([`super::Lost`]).
    pub(super) lost: Option<u32>,
    remote: OnceLock<Remote>,
    /// A manifest in the bucket names the object.
    published: AtomicBool,
}

/// A block that may hold what is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spanning {
    pub(crate) no: BlockNo,
    /// It holds that and nothing else.
    pub(crate) is_whole: bool,
    pub(crate) stored_len: u64,
    pub(crate) raw_len: u64,
    /// No fewer streams than have records in it.
    pub(crate) streams_max: u64,
}

impl Segment {
    /// Reads and verifies everything but the blocks.
    pub(crate) fn open(file: Arc<dyn File>) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Failed { section: Section::Trailer, source };
        let file_len = file.len().map_err(failed)?;
        let header = read(&*file, Section::Header, 0, to_u64(HEADER_LEN))?;
        let header = Header::decode(&header)?;

        let at = file_len.saturating_sub(to_u64(TRAILER_LEN));
        let trailer = read(&*file, Section::Trailer, at, to_u64(TRAILER_LEN))?;
        let trailer = Trailer::decode(&trailer, at)?;
        let footer = section(&*file, Section::Footer, trailer.footer)?;
        assert_eq!(footer.len(), FOOTER_LEN, "checked with the trailer");
        let footer = Footer::decode(&footer, trailer.footer.offset)?;
        let index = section(&*file, Section::Index, footer.index)?;
        let index = decode_index(&index, &footer)?;
        let filter = section(&*file, Section::Filter, footer.filter)?;
        let filter = Filter::decode(&filter, footer.filter.offset)?;
        let local = Local::new(file, file_len, footer.index.offset).map_err(failed)?;
        Ok(Self::of(local, header, footer, (index, filter)))
    }

    pub(super) fn of(
        local: Local,
        header: Header,
        footer: Footer,
        (index, filter): (Box<[Entry]>, Filter),
    ) -> Self {
        Self {
            local,
            header,
            footer,
            index,
            filter,
            lost: None,
            remote: OnceLock::new(),
            published: AtomicBool::new(false),
        }
    }

    /// The store it was written by.
    pub(crate) const fn store(&self) -> [u8; 16] {
        self.header.store
    }

    /// Its number.
    pub(crate) const fn id(&self) -> SegmentId {
        self.header.segment
    }

    /// Checksum of its footer, which tells it from every other.
    pub(crate) fn mark(&self) -> u32 {
        self.lost.unwrap_or_else(|| self.footer.mark())
    }

    /// Whether nothing of it is here but what a manifest says of it.
    pub(crate) const fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// The object that has the same bytes. `None`: the local file is the only copy.
    pub(crate) fn remote(&self) -> Option<&Remote> {
        self.remote.get()
    }

    /// Notes that the bucket has the object. Until a manifest names it, it may still be taken for litter there.
    pub(crate) fn set_remote(&self, remote: Remote) {
        assert_eq!(remote.bytes, self.footer.file_bytes(), "the object is the file");
        let noted = self.remote.get_or_init(|| remote.clone());
        assert_eq!(*noted, remote, "a segment is uploaded under one key");
    }

    /// Notes that a manifest in the bucket names the object: nobody collects it. From here on the local
    /// copy may be evicted.
    pub(crate) fn set_published(&self) {
        self.published.store(true, Ordering::Release);
    }

    pub(crate) fn is_published(&self) -> bool {
        self.published.load(Ordering::Acquire)
    }

    /// What it holds, in numbers.
    pub(crate) const fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Whether the segment may have records of `stream`. No I/O; wrong for one in 256 of
    /// the streams it has none of, never for those it has.
    pub(crate) fn holds(&self, stream: StreamId) -> bool {
        let (Some(first), Some(last)) = (self.index.first(), self.index.last()) else {
            return false;
        };
        (first.first.0..=last.limit.0).contains(&stream) && self.filter.admits(stream)
    }

    /// The block where the records of `stream` from `seq` on begin. `None` if there can be
    /// none. The block may still lack them, if it only spans where the stream would be;
    /// then no other block has them.
    pub(crate) fn locate(&self, stream: StreamId, seq: Seq) -> Option<BlockNo> {
        if !self.holds(stream) {
            return None;
        }
        let no = self.index.partition_point(|entry| entry.limit <= (stream, seq));
        let entry = self.index.get(no)?;
        (entry.first.0 <= stream).then(|| block_no(no))
    }

    /// The block where the records of `stream` end, if it has any here. `None` if there can be
    /// none.
    pub(crate) fn locate_last(&self, stream: StreamId) -> Option<BlockNo> {
        if !self.holds(stream) {
            return None;
        }
        let later = self.index.partition_point(|entry| entry.first.0 <= stream);
        later.checked_sub(1).map(block_no)
    }

    /// The block in which to look for the first record of `stream` whose timestamp is not
    /// before `since`. If all of the stream's records there are older, the next block's
    /// first is the one.
    pub(crate) fn locate_since(&self, stream: StreamId, since: WallMs) -> Option<BlockNo> {
        let from = self.locate(stream, Seq::ZERO)?.index();
        // Blocks after the first that start with the stream have its timestamps in order.
        let later = &self.index[from + 1..];
        let older =
            later.partition_point(|entry| entry.first.0 == stream && entry.first_timestamp < since);
        Some(block_no(from + older))
    }

    /// The next block, if records of `stream` go on there.
    pub(crate) fn following(&self, no: BlockNo, stream: StreamId) -> Option<BlockNo> {
        let next = no.index() + 1;
        let entry = self.index.get(next)?;
        (entry.first.0 == stream).then(|| block_no(next))
    }

    /// The blocks that may hold records of `stream` within `range`, in order. No I/O.
    pub(crate) fn spanning(
        &self,
        stream: StreamId,
        range: Range<Seq>,
    ) -> impl Iterator<Item = Spanning> + '_ {
        let from = self.locate(stream, range.start).map_or(self.index.len(), BlockNo::index);
        let blocks = self.index.iter().enumerate().skip(from);
        let (start, end) = ((stream, range.start), (stream, range.end));
        blocks.take_while(move |(_, entry)| entry.first < end).map(move |(index, entry)| Spanning {
            no: block_no(index),
            is_whole: entry.first >= start && entry.limit <= end,
            stored_len: u64::from(entry.stored_len),
            raw_len: u64::from(entry.raw_len),
            streams_max: self.footer.streams.min(ids(entry)),
        })
    }

    /// The numbers of all blocks.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = BlockNo> + use<> {
        (0..self.footer.blocks).map(BlockNo)
    }

    /// Reads and verifies all of it.
    pub(crate) fn read_through(&self) -> Result<(), ReadError> {
        if self.is_lost() {
            let reason = "nothing of it could be opened";
            return Err(Damaged { section: Section::Header, at: 0, reason }.into());
        }
        self.blocks().try_for_each(|no| self.block(no).map(drop))
    }

    /// The bytes before the blocks, out of memory.
    pub(super) fn head(&self) -> Vec<u8> {
        self.header.encode()
    }

    /// The bytes after the blocks, out of memory. `streams`: those that the blocks have, ascending; a
    /// filter that is not known is made of them.
    pub(super) fn tail(&self, streams: &[u64]) -> Result<Vec<u8>, Damaged> {
        let Footer { index, filter, .. } = self.footer;
        let is = |bytes: &[u8], span: Span| {
            to_u64(bytes.len()) == span.len && crc32c::crc32c(bytes) == span.crc
        };
        let reason = "what is known of it is not what was written";
        let mut tail = encode_index(&self.index);
        if !is(&tail, index) {
            return Err(Damaged { section: Section::Index, at: index.offset, reason });
        }
        let known = Some(self.filter.encode()).filter(|known| is(known, filter));
        let known = known.unwrap_or_else(|| Filter::build(streams).encode());
        if !is(&known, filter) {
            return Err(Damaged { section: Section::Filter, at: filter.offset, reason });
        }
        tail.extend_from_slice(&known);
        let footer = self.footer.encode();
        let offset = self.footer.tail_start() + to_u64(tail.len());
        let span = Span { offset, len: to_u64(footer.len()), crc: crc32c::crc32c(&footer) };
        tail.extend_from_slice(&footer);
        tail.extend_from_slice(&Trailer { footer: span }.encode());
        Ok(tail)
    }

    /// Reads, verifies and decodes one block. The number must be one of this segment's.
    pub(crate) fn block(&self, no: BlockNo) -> Result<Block, ReadError> {
        let Range { start, end } = self.span(&(no..no.next()));
        let stored = read(&*self.local.file(), Section::Block(no), start, end - start)?;
        Ok(self.decode(no, &stored)?)
    }

    /// Verifies and decodes a block's bytes, wherever they come from.
    pub(crate) fn decode(&self, no: BlockNo, stored: &Bytes) -> Result<Block, Damaged> {
        Block::decode(no, &self.index[no.index()], stored)
    }

    /// Where these blocks lie in the file, headers included. They must be this segment's.
    pub(crate) fn span(&self, blocks: &Range<BlockNo>) -> Range<u64> {
        let limit = self.index.get(blocks.end.index());
        let start = self.index.get(blocks.start.index()).map(|entry| entry.offset);
        let index = self.footer.index.offset;
        start.unwrap_or(index)..limit.map_or(index, |entry| entry.offset)
    }

    /// The position of the first record of `stream`, where the index alone tells.
    pub(crate) fn known_first(&self, stream: StreamId) -> Option<Seq> {
        let entry = &self.index[self.locate(stream, Seq::ZERO)?.index()];
        (entry.first.0 == stream).then_some(entry.first.1)
    }

    /// The position after the last record of `stream`, where the index alone tells.
    pub(crate) fn known_limit(&self, stream: StreamId) -> Option<Seq> {
        self.limit_in(self.locate_last(stream)?, stream)
    }

    /// Whether this is the first record of a block.
    pub(crate) fn begins(&self, no: BlockNo, stream: StreamId, seq: Seq) -> bool {
        self.index[no.index()].first == (stream, seq)
    }

    /// The position of the first record of a block, if that is of `stream`.
    pub(crate) fn first_in(&self, no: BlockNo, stream: StreamId) -> Option<Seq> {
        let entry = &self.index[no.index()];
        (entry.first.0 == stream).then_some(entry.first.1)
    }

    /// The position after the last record of a block, if that is of `stream`.
    pub(crate) fn limit_in(&self, no: BlockNo, stream: StreamId) -> Option<Seq> {
        let entry = &self.index[no.index()];
        (entry.limit.0 == stream).then_some(entry.limit.1)
    }
}

/// Where everything that is no block begins in a segment of `len` bytes, and its mark, by its last
/// bytes.
pub(crate) fn tail_start(last: &[u8], len: u64) -> Result<(u64, u32), Damaged> {
    let at = len.saturating_sub(to_u64(TRAILER_LEN));
    let cut_short = Damaged { section: Section::Trailer, at, reason: "cut short" };
    let footer_at = last.len().checked_sub(TAIL_LEN).ok_or(cut_short)?;
    let (footer, trailer) = last[footer_at..].split_at(FOOTER_LEN);
    let Trailer { footer: span } = Trailer::decode(trailer, at)?;
    let differs = Damaged { section: Section::Footer, at: span.offset, reason: "checksum differs" };
    if crc32c::crc32c(footer) != span.crc {
        return Err(differs);
    }
    Ok((Footer::decode(footer, span.offset)?.tail_start(), span.crc))
}

/// The streams that the blocks of a damaged segment begin and end with, as far as its index is
/// readable: others may lie between them.
pub(crate) fn outline(file: &dyn File) -> Vec<StreamId> {
    let index = || -> Result<Box<[Entry]>, ReadError> {
        let failed = |source| ReadError::Failed { section: Section::Trailer, source };
        let at = file.len().map_err(failed)?.saturating_sub(to_u64(TRAILER_LEN));
        let trailer = read(file, Section::Trailer, at, to_u64(TRAILER_LEN))?;
        let trailer = Trailer::decode(&trailer, at)?;
        let footer = section(file, Section::Footer, trailer.footer)?;
        let footer = Footer::decode(&footer, trailer.footer.offset)?;
        let index = section(file, Section::Index, footer.index)?;
        Ok(decode_index(&index, &footer)?)
    };
    let ends = |entry: &Entry| [entry.first.0, entry.limit.0];
    let mut streams: Vec<StreamId> = index().iter().flatten().flat_map(ends).collect();
    streams.dedup();
    streams
}

/// Reads a section and verifies its checksum.
pub(super) fn section(file: &dyn File, section: Section, span: Span) -> Result<Bytes, ReadError> {
    let bytes = read(file, section, span.offset, span.len)?;
    if crc32c::crc32c(&bytes) == span.crc {
        return Ok(bytes);
    }
    Err(Damaged { section, at: span.offset, reason: "checksum differs" }.into())
}

/// Reads `len` bytes which have been found to lie within the file, or are about to be.
pub(super) fn read(
    file: &dyn File,
    section: Section,
    at: u64,
    len: u64,
) -> Result<Bytes, ReadError> {
    let cut_short = Damaged { section, at, reason: "cut short" };
    let failed = |source| ReadError::Failed { section, source };
    // Before reserving memory for them.
    let file_len = file.len().map_err(failed)?;
    if at.checked_add(len).is_none_or(|end| end > file_len) {
        return Err(cut_short.into());
    }
    let len = usize::try_from(len).map_err(|_| cut_short)?;
    file.read_at(at, len).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => cut_short.into(),
        _ => failed(error),
    })
}

/// Reads an index whose checksum has been verified. Blocks must follow each other without a
/// gap in the file, and in order of their records.
pub(super) fn decode_index(bytes: &[u8], footer: &Footer) -> Result<Box<[Entry]>, Damaged> {
    let mut take = Take::new(bytes, Section::Index, footer.index.offset);
    let mut entries: Vec<Entry> = Vec::with_capacity(bytes.len() / ENTRY_LEN);
    let mut offset = to_u64(HEADER_LEN);
    for _ in 0..footer.blocks {
        let entry = Entry::decode(&mut take)?;
        take.check(entry.offset == offset, "place of a block")?;
        let ascends = entries.last().is_none_or(|last| last.limit <= entry.first);
        take.check(ascends, "order of the blocks")?;
        let len = to_u64(BLOCK_HEADER_LEN) + u64::from(entry.stored_len);
        offset = offset.checked_add(len).ok_or(take.damaged("place of a block"))?;
        entries.push(entry);
    }
    take.end()?;
    take.check(offset == footer.index.offset, "place of the index")?;
    Ok(entries.into_boxed_slice())
}

/// The bytes of an index.
pub(super) fn encode_index(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_LEN);
    entries.iter().for_each(|entry| entry.encode(&mut bytes));
    bytes
}

/// How many streams have an identifier between those of a block's first and last record.
fn ids(entry: &Entry) -> u64 {
    entry.limit.0.get().saturating_sub(entry.first.0.get()).saturating_add(1)
}

fn block_no(index: usize) -> BlockNo {
    BlockNo(u32::try_from(index).expect("blocks are counted in u32"))
}

pub(super) fn to_u64(len: usize) -> u64 {
    u64::try_from(len).expect("usize fits u64")
}

#[cfg(test)]
impl Segment {
    /// Where the blocks start in the file.
    pub(super) fn index_offsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.index.iter().map(|entry| entry.offset)
    }
}
