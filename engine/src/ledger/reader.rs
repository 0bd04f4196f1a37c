//! Reads a ledger: the index in memory, one block per read, from a file or from bytes that came
//! from a bucket.
//!
//! Opening verifies every section but the blocks, which are verified when they are read. One that
//! is damaged costs its own rows: the iterators name them and go on behind them.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use weir_io::File;

use super::{
    block::{self, Bounds, Entry, Kind},
    change::Change,
    format::{
        Damaged, FOOTER_LEN, Footer, HEADER_LEN, Header, ReadError, Section, Span, TRAILER_LEN,
        Trailer, ensure,
    },
    key::Key,
};
use crate::{
    log::{
        codec::{Malformed, Take},
        commit::StoreId,
    },
    types::{Lsn, SegmentId},
};

/// Where the bytes of a ledger are.
#[derive(Clone)]
pub(crate) enum Source {
    File(Arc<dyn File>),
    Memory(Bytes),
}

impl Source {
    fn len(&self, section: Section) -> Result<u64, ReadError> {
        match self {
            Self::File(file) => file.len().map_err(|source| ReadError::Failed { section, source }),
            Self::Memory(bytes) => Ok(to_u64(bytes.len())),
        }
    }

    /// Reads `len` bytes at `at`.
    fn read(&self, section: Section, at: u64, len: u64) -> Result<Bytes, ReadError> {
        let cut_short = Damaged { section, at, reason: "cut short" };
        // Before reserving memory for them.
        let whole = self.len(section)?;
        if at.checked_add(len).is_none_or(|end| end > whole) {
            return Err(cut_short.into());
        }
        let len = usize::try_from(len).map_err(|_| cut_short)?;
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(at).expect("inside bytes in memory");
                Ok(bytes.slice(start..start + len))
            }
            Self::File(file) => file.read_at(at, len).map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => cut_short.into(),
                _ => ReadError::Failed { section, source },
            }),
        }
    }

    /// Reads a section and verifies its checksum.
    fn section(&self, section: Section, span: Span) -> Result<Bytes, ReadError> {
        let bytes = self.read(section, span.offset, span.len)?;
        if crc32c::crc32c(&bytes) == span.crc {
            return Ok(bytes);
        }
        Err(Damaged { section, at: span.offset, reason: "checksum differs" }.into())
    }
}

/// An open ledger.
pub(crate) struct Ledger {
    source: Source,
    header: Header,
    footer: Footer,
    /// Blocks of rows, then blocks of commits.
    index: Box<[Entry]>,
}

impl Ledger {
    /// Reads and verifies everything but the blocks.
    pub(crate) fn open(source: Source) -> Result<Self, ReadError> {
        let (head_len, tail_len) = (to_u64(HEADER_LEN), to_u64(TRAILER_LEN));
        let len = source.len(Section::Trailer)?;
        let header = source.read(Section::Header, 0, head_len)?;
        let header = Header::decode(&header);
        let header = header.map_err(|bad| Damaged::of(Section::Header, 0, bad))?;

        let at = len.saturating_sub(tail_len);
        let trailer = source.read(Section::Trailer, at, tail_len)?;
        let trailer = Trailer::decode(&trailer, at);
        let trailer = trailer.map_err(|bad| Damaged::of(Section::Trailer, at, bad))?;
        let span = trailer.footer;
        let footer = source.section(Section::Footer, span)?;
        assert_eq!(footer.len(), FOOTER_LEN, "checked with the trailer");
        let footer = Footer::decode(&footer, span.offset);
        let footer = footer.map_err(|bad| Damaged::of(Section::Footer, span.offset, bad))?;
        let index = source.section(Section::Index, footer.index)?;
        let index = decode_index(index, &footer);
        let index = index.map_err(|bad| Damaged::of(Section::Index, footer.index.offset, bad))?;
        Ok(Self { source, header, footer, index })
    }

    /// The store it was written by.
    pub(crate) const fn store(&self) -> StoreId {
        self.header.store
    }

    /// Its number.
    pub(crate) const fn id(&self) -> SegmentId {
        self.header.id
    }

    /// What it holds, in numbers.
    pub(crate) const fn footer(&self) -> &Footer {
        &self.footer
    }

    /// All changes in order. A block that can't be read is an error, and the next item is
    /// what comes after it.
    pub(crate) fn rows(self: &Arc<Self>) -> Rows {
        Rows { ledger: Arc::clone(self), next: 0, block: Vec::new().into_iter() }
    }

    /// The commits of the tail in order. A block that can't be read is an error, and the next
    /// item is what comes after it.
    pub(crate) fn commits(self: &Arc<Self>) -> Commits {
        let next = self.footer.row_blocks;
        Commits { ledger: Arc::clone(self), next, block: Vec::new().into_iter() }
    }

    /// How many blocks it has: those of rows, then those of commits.
    pub(crate) fn blocks(&self) -> u32 {
        u32::try_from(self.index.len()).expect("blocks are counted in u32")
    }

    /// Whether a block is one of rows.
    pub(crate) const fn is_of_rows(&self, no: u32) -> bool {
        no < self.footer.row_blocks
    }

    /// Where a block lies in the file.
    pub(crate) fn span(&self, no: u32) -> Range<u64> {
        let entry = self.entry(no);
        entry.offset..entry.offset + entry.whole_len()
    }

    /// How many bytes a block has once it is decoded.
    pub(crate) fn raw_len(&self, no: u32) -> u64 {
        self.entry(no).raw_len.into()
    }

    fn entry(&self, no: u32) -> &Entry {
        &self.index[usize::try_from(no).expect("u32 fits usize")]
    }

    fn stored(&self, no: u32, entry: &Entry) -> Result<Bytes, ReadError> {
        self.source.read(Section::Block(no), entry.offset, entry.whole_len())
    }

    /// Reads a block of rows.
    pub(crate) fn changes(&self, no: u32) -> Result<Vec<Change>, Lost> {
        let entry = self.entry(no);
        let read = self.stored(no, entry);
        let read = read.and_then(|stored| Ok(block::decode_rows(no, entry, &stored)?));
        read.map_err(|error| {
            let Bounds::Rows { first, last } = entry.bounds.clone() else {
                unreachable!("blocks of rows have keys");
            };
            Lost { ledger: self.id(), block: no, rows: entry.count, first, last, error }
        })
    }

    /// Reads a block of commits.
    pub(crate) fn tail(&self, no: u32) -> Result<Vec<(Lsn, Bytes)>, LostCommits> {
        let entry = self.entry(no);
        let read = self.stored(no, entry);
        let read = read.and_then(|stored| Ok(block::decode_tail(no, entry, &stored)?));
        read.map_err(|error| {
            let Bounds::Tail { first, last } = entry.bounds else {
                unreachable!("blocks of commits have positions");
            };
            LostCommits { ledger: self.id(), block: no, first, last, error }
        })
    }
}

/// A block of rows can't be read: changes of keys in `first..=last` are missing.
#[derive(Debug, thiserror::Error)]
#[error("{rows} rows of ledger {ledger} can't be read: {first} to {last}")]
pub(crate) struct Lost {
    pub(crate) ledger: SegmentId,
    pub(crate) block: u32,
    /// How many there were.
    pub(crate) rows: u32,
    pub(crate) first: Key,
    pub(crate) last: Key,
    #[source]
    pub(crate) error: ReadError,
}

/// A block of commits can't be read: those of `first..=last` are missing.
#[derive(Debug, thiserror::Error)]
#[error("commits {first} to {last} of ledger {ledger} can't be read")]
pub(crate) struct LostCommits {
    pub(crate) ledger: SegmentId,
    pub(crate) block: u32,
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    #[source]
    pub(crate) error: ReadError,
}

/// The changes of a ledger; see [`Ledger::rows`].
pub(crate) struct Rows {
    ledger: Arc<Ledger>,
    next: u32,
    block: std::vec::IntoIter<Change>,
}

impl Iterator for Rows {
    type Item = Result<Change, Lost>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(change) = self.block.next() {
                return Some(Ok(change));
            }
            if self.next == self.ledger.footer.row_blocks {
                return None;
            }
            let no = self.next;
            self.next += 1;
            match self.ledger.changes(no) {
                Ok(changes) => self.block = changes.into_iter(),
                Err(lost) => return Some(Err(lost)),
            }
        }
    }
}

/// The tail of a ledger; see [`Ledger::commits`].
pub(crate) struct Commits {
    ledger: Arc<Ledger>,
    next: u32,
    block: std::vec::IntoIter<(Lsn, Bytes)>,
}

impl Iterator for Commits {
    type Item = Result<(Lsn, Bytes), LostCommits>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(commit) = self.block.next() {
                return Some(Ok(commit));
            }
            let no = self.next;
            if usize::try_from(no).expect("u32 fits usize") == self.ledger.index.len() {
                return None;
            }
            self.next += 1;
            match self.ledger.tail(no) {
                Ok(commits) => self.block = commits.into_iter(),
                Err(lost) => return Some(Err(lost)),
            }
        }
    }
}

/// Reads an index whose checksum has been verified. Blocks must follow each other without a
/// gap in the file, and in order of what they hold.
fn decode_index(bytes: Bytes, footer: &Footer) -> Result<Box<[Entry]>, Malformed> {
    let mut take = Take::new(bytes);
    let mut index: Vec<Entry> = Vec::new();
    let mut offset = to_u64(HEADER_LEN);
    let (mut rows, mut commits, mut raw_bytes) = (0u64, 0u64, 0u64);
    let kinds = [(Kind::Rows, footer.row_blocks), (Kind::Tail, footer.tail_blocks)];
    let kinds = kinds.into_iter().flat_map(|(kind, blocks)| (0..blocks).map(move |_| kind));
    for kind in kinds {
        let entry = Entry::decode(&mut take, kind)?;
        ensure(&take, entry.offset == offset, "place of a block")?;
        ensure(&take, in_order(index.last(), &entry), "order of the blocks")?;
        let end = offset.checked_add(entry.whole_len());
        offset = end.ok_or(take.malformed("place of a block"))?;
        match kind {
            Kind::Rows => rows += u64::from(entry.count),
            Kind::Tail => commits += u64::from(entry.count),
        }
        raw_bytes += u64::from(entry.raw_len);
        index.push(entry);
    }
    ensure(&take, take.is_empty(), "bytes after the last block")?;
    ensure(&take, offset == footer.index.offset, "place of the index")?;
    let counts = (rows, commits, raw_bytes);
    ensure(&take, counts == (footer.rows, footer.commits, footer.raw_bytes), "counts")?;
    Ok(index.into_boxed_slice())
}

fn in_order(before: Option<&Entry>, entry: &Entry) -> bool {
    match (&entry.bounds, before.map(|before| &before.bounds)) {
        // A deletion of everything below a key and the key's own row may lie apart.
        (Bounds::Rows { first, last }, None) => first <= last,
        (Bounds::Rows { first, last }, Some(Bounds::Rows { last: before, .. })) => {
            before <= first && first <= last
        }
        (Bounds::Rows { .. }, Some(Bounds::Tail { .. })) => false,
        (Bounds::Tail { first, last }, Some(Bounds::Tail { last: before, .. })) => {
            before < first && first <= last
        }
        (Bounds::Tail { first, last }, _) => first <= last,
    }
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).expect("usize fits u64")
}

#[cfg(test)]
impl Ledger {
    /// What is where in the file.
    pub(super) fn index(&self) -> &[Entry] {
        &self.index
    }
}
