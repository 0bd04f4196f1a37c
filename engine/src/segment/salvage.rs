//! Opens a segment of which index, filter or trailer are damaged. Blocks say themselves what they are,
//! and the footer has the checksums of index and filter:
//!
//! | damaged | instead |
//! |---|---|
//! | filter | any stream may be there |
//! | index | the blocks are walked along; what was found must have the checksum of the index |
//! | trailer | the footer has its fixed place; one of the trailer's two checksums must vouch for it |
//!
//! Of a file of which it is known elsewhere which segment it is, header and footer can be done without:
//!
//! | damaged | instead |
//! |---|---|
//! | header | store, number and length, as the row of the segment has them |
//! | footer | what the blocks add up to, and the commits that stand in it, of which one byte may be wrong; the trailer must vouch for what was found |
//!
//! So what opens is what was written, or it does not open: nothing is guessed. A block that is
//! damaged, or was evicted, ends a walk.

use std::{iter, sync::Arc};

use bytes::Bytes;
use weir_io::File;

use super::{
    block::{BLOCK_HEADER_LEN, Block, Head},
    filter::Filter,
    format::{
        BlockNo, Damaged, Entry, FOOTER_LEN, Footer, HEADER_LEN, Header, ReadError, Section, Span,
        TRAILER_LEN, Trailer,
    },
    local::Local,
    lost::Lost,
    reader::{Segment, decode_index, encode_index, read, section, to_u64},
};
use crate::types::{Lsn, SegmentId, WallMs};

/// Where the commits stand in a footer.
const COMMITS_AT: usize = 28;
/// The bytes of both.
const COMMITS_LEN: usize = 16;

/// What is known of a segment from elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) store: [u8; 16],
    pub(crate) id: SegmentId,
    /// Length of its file.
    pub(crate) bytes: u64,
}

impl Segment {
    /// As [`Segment::open`], but does without what it can. Says also what is wrong, if anything is.
    /// All of the file must be here.
    pub(crate) fn salvage(file: Arc<dyn File>) -> Result<(Self, Option<ReadError>), ReadError> {
        match Self::open(Arc::clone(&file)) {
            Ok(segment) => Ok((segment, None)),
            Err(error) if error.is_dispensable() => match without(file) {
                Ok(segment) => Ok((segment, Some(error))),
                // The first is what is wrong; the other, why nothing helps.
                Err(ReadError::Damaged(_)) => Err(error),
                Err(failed) => Err(failed),
            },
            Err(error) => Err(error),
        }
    }

    /// As [`Segment::salvage`], of a file that is known to be this segment's: does without header and
    /// footer too.
    pub(crate) fn recover(
        file: Arc<dyn File>,
        known: &Known,
    ) -> Result<(Self, Option<ReadError>), ReadError> {
        let error = match Self::salvage(Arc::clone(&file)) {
            Err(error @ ReadError::Damaged(_)) => error,
            other => return other,
        };
        match without_ends(file, known) {
            Ok(segment) => Ok((segment, Some(error))),
            // The first is what is wrong; the other, why nothing helps.
            Err(ReadError::Damaged(_)) => Err(error),
            Err(failed) => Err(failed),
        }
    }

    /// What the footer of a file says that can't be opened, if that can be read.
    pub(crate) fn remains(file: &dyn File, known: &Known) -> Option<Lost> {
        let footer = footer(file, file.len().ok()?).ok()?;
        (footer.file_bytes() == known.bytes).then(|| Lost {
            store: known.store,
            id: known.id,
            bytes: known.bytes,
            mark: footer.mark(),
            first_lsn: footer.first_lsn,
            last_lsn: footer.last_lsn,
            records: footer.records,
        })
    }
}

impl ReadError {
    /// Whether what can't be read is something that [`Segment::salvage`] may do without.
    pub(crate) const fn is_dispensable(&self) -> bool {
        let (Self::Damaged(Damaged { section, .. }) | Self::Failed { section, .. }) = self;
        matches!(section, Section::Index | Section::Filter | Section::Trailer)
    }
}

fn failed(source: std::io::Error) -> ReadError {
    ReadError::Failed { section: Section::Trailer, source }
}

fn without(file: Arc<dyn File>) -> Result<Segment, ReadError> {
    let len = file.len().map_err(failed)?;
    let header = Header::decode(&read(&*file, Section::Header, 0, to_u64(HEADER_LEN))?)?;
    let footer = footer(&*file, len)?;
    between(file, len, header, footer)
}

fn without_ends(file: Arc<dyn File>, known: &Known) -> Result<Segment, ReadError> {
    let len = file.len().map_err(failed)?;
    let header = read(&*file, Section::Header, 0, to_u64(HEADER_LEN))?;
    let own = Header { store: known.store, segment: known.id };
    let header = Header::decode(&header).unwrap_or(own);
    let footer = match footer(&*file, len) {
        Err(ReadError::Damaged(_)) => made_of_blocks(&*file, len)?,
        found => found?,
    };
    if footer.file_bytes() != known.bytes {
        let reason = "it is not as long as it should be";
        return Err(Damaged { section: Section::Footer, at: len, reason }.into());
    }
    between(file, len, header, footer)
}

/// Opens what lies between header and footer.
fn between(
    file: Arc<dyn File>,
    len: u64,
    header: Header,
    footer: Footer,
) -> Result<Segment, ReadError> {
    let index = section(&*file, Section::Index, footer.index);
    let (index, walked) = match index.and_then(|bytes| Ok(decode_index(&bytes, &footer)?)) {
        Ok(index) => (index, Vec::new()),
        Err(_) => walk(&*file, &footer)?,
    };
    let filter = section(&*file, Section::Filter, footer.filter);
    let filter = filter.and_then(|bytes| Ok(Filter::decode(&bytes, footer.filter.offset)?));
    let filter = filter.unwrap_or_else(|_| {
        let built = Filter::build(&walked);
        let same = crc32c::crc32c(&built.encode()) == footer.filter.crc;
        if same { built } else { Filter::Open }
    });
    let local = Local::new(file, len, footer.index.offset).map_err(failed)?;
    Ok(Segment::of(local, header, footer, (index, filter)))
}

/// The footer, if the trailer says where it is or vouches for what is in its place.
fn footer(file: &dyn File, len: u64) -> Result<Footer, ReadError> {
    let at = len.saturating_sub(to_u64(TRAILER_LEN));
    let trailer = read(file, Section::Trailer, at, to_u64(TRAILER_LEN))?;
    if let Ok(Trailer { footer: span }) = Trailer::decode(&trailer, at) {
        let footer = section(file, Section::Footer, span)?;
        return Ok(Footer::decode(&footer, span.offset)?);
    }
    let offset = at.saturating_sub(to_u64(FOOTER_LEN));
    let footer = read(file, Section::Footer, offset, to_u64(FOOTER_LEN))?;
    if !vouches(&trailer, &footer, offset) {
        let reason = "checksum differs";
        return Err(Damaged { section: Section::Footer, at: offset, reason }.into());
    }
    Ok(Footer::decode(&footer, offset)?)
}

/// Whether a trailer has a checksum that it would have behind this footer.
fn vouches(trailer: &[u8], footer: &[u8], offset: u64) -> bool {
    let span = Span { offset, len: to_u64(footer.len()), crc: crc32c::crc32c(footer) };
    let expected = Trailer { footer: span }.encode();
    // The first is the footer's own checksum, the second that of what names the first.
    [12..16, 16..20].into_iter().any(|it| trailer[it.clone()] == expected[it])
}

/// The footer that the blocks make, with the commits that stand where it was.
fn made_of_blocks(file: &dyn File, len: u64) -> Result<Footer, ReadError> {
    let trailer_at = len.saturating_sub(to_u64(TRAILER_LEN));
    let trailer = read(file, Section::Trailer, trailer_at, to_u64(TRAILER_LEN))?;
    let at = trailer_at.saturating_sub(to_u64(FOOTER_LEN));
    let stood = read(file, Section::Footer, at, to_u64(FOOTER_LEN))?;
    let sums = Sums::of(file, at)?;
    let index = encode_index(&sums.index);
    let index = Span { offset: sums.end, len: to_u64(index.len()), crc: crc32c::crc32c(&index) };
    let filter_at = index.offset.saturating_add(index.len);
    let reason = "the blocks do not make it";
    let other = Damaged { section: Section::Footer, at, reason };
    let filter_len = at.checked_sub(filter_at).ok_or(other)?;
    let there = read(file, Section::Filter, filter_at, filter_len)?;
    let built = Filter::build(&sums.streams).encode();
    let others = (built != there).then_some(&built[..]);
    for filter in iter::once(&there[..]).chain(others) {
        let filter = Span { offset: filter_at, len: filter_len, crc: crc32c::crc32c(filter) };
        for (first_lsn, last_lsn) in commits(&stood) {
            let footer = sums.footer((first_lsn, last_lsn), index, filter);
            if vouches(&trailer, &footer.encode(), at) {
                return Ok(Footer::decode(&footer.encode(), at)?);
            }
        }
    }
    Err(other.into())
}

/// The first and the last commit as they stand in a footer, and as they would if one byte were another.
fn commits(footer: &Bytes) -> impl Iterator<Item = (Lsn, Lsn)> {
    let mut stand = [0; COMMITS_LEN];
    stand.copy_from_slice(&footer[COMMITS_AT..COMMITS_AT + COMMITS_LEN]);
    let others = (0..COMMITS_LEN).flat_map(move |at| {
        (1..=u8::MAX).map(move |bits| {
            let mut other = stand;
            other[at] ^= bits;
            other
        })
    });
    iter::once(stand).chain(others).filter_map(|bytes| {
        let (first, last) = bytes.split_first_chunk::<8>()?;
        let lsn = |bytes: [u8; 8]| Lsn::new(u64::from_le_bytes(bytes));
        Some((lsn(*first), lsn(last.try_into().ok()?)))
    })
}

/// What blocks add up to that are walked along to their end.
struct Sums {
    index: Vec<Entry>,
    /// Ascending.
    streams: Vec<u64>,
    records: u64,
    raw_bytes: u64,
    oldest: Option<WallMs>,
    newest: WallMs,
    /// Where something begins that is no block.
    end: u64,
}

impl Sums {
    /// Walks to what is no block. `limit`: where the footer begins.
    fn of(file: &dyn File, limit: u64) -> Result<Self, ReadError> {
        let mut sums = Self {
            index: Vec::new(),
            streams: Vec::new(),
            records: 0,
            raw_bytes: 0,
            oldest: None,
            newest: WallMs::ZERO,
            end: to_u64(HEADER_LEN),
        };
        for no in (0..u32::MAX).map(BlockNo) {
            let (offset, head_len) = (sums.end, to_u64(BLOCK_HEADER_LEN));
            if offset.saturating_add(head_len) > limit {
                break;
            }
            let head = read(file, Section::Block(no), offset, head_len)?;
            let Ok(head) = Head::decode(no, offset, &head) else { break };
            let len = head_len + u64::from(head.stored_len);
            let stored = read(file, Section::Block(no), offset, len)?;
            let (block, entry) = Block::decode_alone(no, offset, &stored)?;
            sums.add(&block, entry);
            sums.end = offset.saturating_add(len);
        }
        Ok(sums)
    }

    fn add(&mut self, block: &Block, entry: Entry) {
        for part in block.parts() {
            let oldest = part.timestamp_of(part.first());
            self.oldest = Some(self.oldest.map_or(oldest, |known| known.min(oldest)));
            self.newest = self.newest.max(part.newest());
            self.records = self.records.saturating_add(part.count());
            self.streams.push(part.stream().get());
        }
        // One stream may end a block and begin the next.
        self.streams.dedup();
        self.raw_bytes = self.raw_bytes.saturating_add(entry.raw_len.into());
        self.index.push(entry);
    }

    fn footer(&self, (first_lsn, last_lsn): (Lsn, Lsn), index: Span, filter: Span) -> Footer {
        Footer {
            blocks: u32::try_from(self.index.len()).expect("they were counted in u32"),
            records: self.records,
            streams: to_u64(self.streams.len()),
            raw_bytes: self.raw_bytes,
            first_lsn,
            last_lsn,
            oldest: self.oldest.unwrap_or(WallMs::ZERO),
            newest: self.newest,
            index,
            filter,
        }
    }
}

/// The index that the blocks make, and the streams that they have, ascending.
fn walk(file: &dyn File, footer: &Footer) -> Result<(Box<[Entry]>, Vec<u64>), ReadError> {
    let mut index: Vec<Entry> = Vec::new();
    let mut streams: Vec<u64> = Vec::new();
    let mut offset = to_u64(HEADER_LEN);
    for no in (0..footer.blocks).map(BlockNo) {
        let head = read(file, Section::Block(no), offset, to_u64(BLOCK_HEADER_LEN))?;
        let head = Head::decode(no, offset, &head)?;
        let len = to_u64(BLOCK_HEADER_LEN) + u64::from(head.stored_len);
        let stored = read(file, Section::Block(no), offset, len)?;
        let (block, entry) = Block::decode_alone(no, offset, &stored)?;
        streams.extend(block.parts().iter().map(|part| part.stream().get()));
        // One stream may end a block and begin the next.
        streams.dedup();
        index.push(entry);
        offset = offset.saturating_add(len);
    }
    let bytes = encode_index(&index);
    if crc32c::crc32c(&bytes) != footer.index.crc {
        let reason = "the blocks are not those it was made of";
        return Err(Damaged { section: Section::Index, at: footer.index.offset, reason }.into());
    }
    Ok((decode_index(&bytes, footer)?, streams))
}
