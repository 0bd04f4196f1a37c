//! Writes a ledger: changes in order go in, blocks stream out, then the tail.
//!
//! Held in memory are one open block and the index; everything else has gone to the sink. The
//! caller makes the sink durable after [`Builder::finish`].

use std::io;

use bytes::BytesMut;

use super::{
    block::{self, Bounds, Entry},
    change::{Change, Op},
    format::{Footer, Header, Span, Trailer},
};
use crate::{
    limits::BLOCK_BYTES_TARGET,
    log::commit::StoreId,
    types::{Lsn, SegmentId},
};

/// Where the bytes go, one call after the other.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

/// A ledger being written.
pub(crate) struct Builder<'a> {
    output: Output<'a>,
    index: Vec<Entry>,
    /// The raw bytes of the open block.
    raw: BytesMut,
    /// How many changes or commits are in it, and which; `None` if there are none.
    open: Option<(u32, Bounds)>,
    last: Option<Change>,
    row_blocks: usize,
    rows: u64,
    deletions: u64,
    commits: u64,
    raw_bytes: u64,
}

impl<'a> Builder<'a> {
    /// Starts a ledger and writes its header.
    pub(crate) fn new(store: StoreId, id: SegmentId, sink: Sink<'a>) -> io::Result<Self> {
        let mut output = Output { sink, offset: 0 };
        output.write(&Header { store, id }.encode())?;
        Ok(Self {
            output,
            index: Vec::new(),
            raw: BytesMut::new(),
            open: None,
            last: None,
            row_blocks: 0,
            rows: 0,
            deletions: 0,
            commits: 0,
            raw_bytes: 0,
        })
    }

    /// Adds a change behind all that were added, in the order of [`Change`].
    pub(crate) fn push(&mut self, change: &Change) -> io::Result<()> {
        assert!(self.commits == 0, "changes come before commits");
        let ascends = self.last.as_ref().is_none_or(|before| change.may_follow(before));
        assert!(ascends, "changes ascend, one of a kind for a key");
        self.make_room(change.cost())?;
        change.encode(&mut self.raw);
        let key = || change.key.clone();
        match &mut self.open {
            Some((count, Bounds::Rows { last, .. })) => {
                *count += 1;
                *last = key();
            }
            open => *open = Some((1, Bounds::Rows { first: key(), last: key() })),
        }
        self.rows += 1;
        self.deletions += u64::from(!matches!(change.op, Op::Put(_)));
        self.last = Some(change.clone());
        Ok(())
    }

    /// Adds a commit to the tail: its bytes as they lie in the log. They ascend.
    pub(crate) fn commit(&mut self, lsn: Lsn, commit: &[u8]) -> io::Result<()> {
        if self.commits == 0 {
            self.close_block()?;
            self.row_blocks = self.index.len();
        }
        self.make_room(commit.len())?;
        block::put_commit(lsn, commit, &mut self.raw);
        match &mut self.open {
            Some((count, Bounds::Tail { last, .. })) => {
                assert!(lsn > *last, "commits ascend");
                *count += 1;
                *last = lsn;
            }
            open => *open = Some((1, Bounds::Tail { first: lsn, last: lsn })),
        }
        self.commits += 1;
        Ok(())
    }

    /// Writes what is left. `first_lsn..=last_lsn` are the commits whose changes are in it: the
    /// first comes right after the last of the ledger before, so that a missing one shows.
    pub(crate) fn finish(mut self, first_lsn: Lsn, last_lsn: Lsn) -> io::Result<Footer> {
        assert!(first_lsn <= last_lsn, "a ledger holds a range of commits");
        self.close_block()?;
        if self.commits == 0 {
            self.row_blocks = self.index.len();
        }
        let mut index = BytesMut::with_capacity(self.index.len() * 64);
        for entry in &self.index {
            entry.encode(&mut index);
        }
        let count = |len: usize| u32::try_from(len).expect("2^32 blocks are 256 TiB");
        let footer = Footer {
            row_blocks: count(self.row_blocks),
            tail_blocks: count(self.index.len() - self.row_blocks),
            rows: self.rows,
            deletions: self.deletions,
            commits: self.commits,
            raw_bytes: self.raw_bytes,
            first_lsn,
            last_lsn,
            index: self.output.section(&index)?,
        };
        let span = self.output.section(&footer.encode())?;
        self.output.write(&Trailer { footer: span }.encode())?;
        assert_eq!(self.output.offset, footer.file_bytes(), "the trailer is the end");
        Ok(footer)
    }

    /// Closes the open block if `bytes` more would be too many for it.
    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        if self.raw.len().saturating_add(bytes) > BLOCK_BYTES_TARGET {
            return self.close_block();
        }
        Ok(())
    }

    fn close_block(&mut self) -> io::Result<()> {
        let Some((count, bounds)) = self.open.take() else { return Ok(()) };
        let raw = std::mem::take(&mut self.raw);
        let (stored, entry) = block::encode(self.output.offset, count, &raw, bounds);
        self.raw_bytes += u64::from(entry.raw_len);
        self.index.push(entry);
        self.output.write(&stored)
    }
}

/// The sink, and how much it has taken.
struct Output<'a> {
    sink: Sink<'a>,
    offset: u64,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        (self.sink)(bytes)?;
        self.offset += u64::try_from(bytes.len()).expect("usize fits u64");
        Ok(())
    }

    fn section(&mut self, bytes: &[u8]) -> io::Result<Span> {
        let len = u64::try_from(bytes.len()).expect("usize fits u64");
        let span = Span { offset: self.offset, len, crc: crc32c::crc32c(bytes) };
        self.write(bytes)?;
        Ok(span)
    }
}
