//! Opens a segment of which index, filter or trailer are damaged. Blocks say themselves what they are,
//! and the footer has the checksums of index and filter:
//!
//! | damaged | instead |
//! |---|---|
//! | filter | any stream may be there |
//! | index | the blocks are walked along; what was found must have the checksum of the index |
//! | trailer | the footer has its fixed place; one of the trailer's two checksums must vouch for it |
//!
//! So what opens is what was written, or it does not open: nothing is guessed. A block that is
//! damaged, or was evicted, ends a walk; header and footer can't be done without.

use std::sync::Arc;

use weir_io::File;

use super::{
    block::{BLOCK_HEADER_LEN, Block, Head},
    filter::Filter,
    format::{
        BlockNo, Damaged, Entry, FOOTER_LEN, Footer, HEADER_LEN, Header, ReadError, Section, Span,
        TRAILER_LEN, Trailer,
    },
    local::Local,
    reader::{Segment, decode_index, encode_index, read, section, to_u64},
};

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
}

impl ReadError {
    /// Whether what can't be read is something that [`Segment::salvage`] may do without.
    pub(crate) const fn is_dispensable(&self) -> bool {
        let (Self::Damaged(Damaged { section, .. }) | Self::Failed { section, .. }) = self;
        matches!(section, Section::Index | Section::Filter | Section::Trailer)
    }
}

fn without(file: Arc<dyn File>) -> Result<Segment, ReadError> {
    let failed = |source| ReadError::Failed { section: Section::Trailer, source };
    let len = file.len().map_err(failed)?;
    let header = Header::decode(&read(&*file, Section::Header, 0, to_u64(HEADER_LEN))?)?;
    let footer = footer(&*file, len)?;
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
    let span = Span { offset, len: to_u64(FOOTER_LEN), crc: crc32c::crc32c(&footer) };
    let expected = Trailer { footer: span }.encode();
    // The first is the footer's own checksum, the second that of what names the first.
    let vouches = [12..16, 16..20].into_iter().any(|it| trailer[it.clone()] == expected[it]);
    if !vouches {
        let reason = "checksum differs";
        return Err(Damaged { section: Section::Footer, at: offset, reason }.into());
    }
    Ok(Footer::decode(&footer, offset)?)
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
