//! A ledger in the bucket, read from its first block to its last, a stretch of blocks at a time: what is
//! in memory of it is its index and one stretch, however large it is.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use weir_io::{World, objects::Key, retry::Retrying};

use super::{
    blocking,
    fetch::is_the_ledger,
    object::{Bad, TRIES_MAX, piece},
    window::{self, Window},
};
use crate::{
    ledger::{Change, Footer, Ledger, Lost, LostCommits},
    log::commit::StoreId,
    publish::listing::Entry,
    types::Lsn,
};

/// Decoded bytes of the blocks of one stretch, unless one block alone has more.
const STRETCH_BYTES: u64 = 256 << 10;

/// A ledger that is being read.
pub(crate) struct Stretches<'a> {
    world: &'a World,
    bucket: &'a Retrying,
    key: Key,
    ledger: Arc<Ledger>,
    window: Arc<Window>,
    /// The first block that was not read.
    next: u32,
}

/// What some blocks have, in order. A block that can't be read is an error.
#[derive(Default)]
pub(crate) struct Stretch {
    pub(crate) rows: Vec<Result<Change, Lost>>,
    pub(crate) commits: Vec<Result<(Lsn, Bytes), LostCommits>>,
}

impl Stretch {
    fn read(ledger: &Ledger, blocks: Range<u32>) -> Self {
        let mut stretch = Self::default();
        for no in blocks {
            if ledger.is_of_rows(no) {
                match ledger.changes(no) {
                    Ok(changes) => stretch.rows.extend(changes.into_iter().map(Ok)),
                    Err(lost) => stretch.rows.push(Err(lost)),
                }
            } else {
                match ledger.tail(no) {
                    Ok(commits) => stretch.commits.extend(commits.into_iter().map(Ok)),
                    Err(lost) => stretch.commits.push(Err(lost)),
                }
            }
        }
        stretch
    }

    fn is_whole(&self) -> bool {
        self.rows.iter().all(Result::is_ok) && self.commits.iter().all(Result::is_ok)
    }
}

impl<'a> Stretches<'a> {
    /// Begins to read a ledger that a manifest names.
    pub(crate) async fn open(
        world: &'a World,
        bucket: &'a Retrying,
        store: StoreId,
        entry: &Entry,
    ) -> Result<Self, Bad> {
        let key = entry.ledger().key();
        let (ledger, window) = window::open_ledger(bucket, &key, entry.bytes).await?;
        is_the_ledger(&ledger, store, entry)?;
        Ok(Self { world, bucket, key, ledger: Arc::new(ledger), window, next: 0 })
    }

    pub(crate) fn footer(&self) -> &Footer {
        self.ledger.footer()
    }

    /// The next stretch; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Stretch>, Bad> {
        let blocks = self.blocks();
        if blocks.is_empty() {
            return Ok(None);
        }
        self.next = blocks.end;
        let bytes = self.ledger.span(blocks.start).start..self.ledger.span(blocks.end - 1).end;
        let mut tries = 1;
        loop {
            let some = piece(self.bucket, &self.key, bytes.clone()).await?;
            self.window.hold(bytes.start, some);
            let (ledger, wanted) = (Arc::clone(&self.ledger), blocks.clone());
            let read = move || Ok(Stretch::read(&ledger, wanted));
            let stretch = blocking(self.world, read).await?;
            // It may have been spoiled on the way.
            if stretch.is_whole() || tries == TRIES_MAX {
                return Ok(Some(stretch));
            }
            tries += 1;
        }
    }

    /// The blocks of the next stretch.
    fn blocks(&self) -> Range<u32> {
        let mut bytes = 0;
        let mut end = self.next;
        while end < self.ledger.blocks() {
            bytes += self.ledger.raw_len(end);
            if end > self.next && bytes > STRETCH_BYTES {
                break;
            }
            end += 1;
        }
        self.next..end
    }
}

#[cfg(test)]
mod tests;
