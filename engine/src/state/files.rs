//! The files of a store under one lock, with the point of the log up to which they tell all:
//! what is published is a picture of this, taken at once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::Connection;

use super::catalogue::{self, Failure, LedgerRow, Place, SegmentRow};
use crate::{
    log::commit::Link,
    segment::Segment,
    types::{Lsn, SegmentId, StoreMs},
};

/// What a finished fold leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Every commit up to here is in segments and rows.
    pub(crate) folded: Link,
    /// Rows may show commits up to here; those after `folded` are in the newest ledger.
    pub(crate) through: Link,
    pub(crate) next_stream: u64,
    pub(crate) next_subscription: u64,
    pub(crate) store_ms: StoreMs,
}

/// The ledger of a fold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh {
    pub(crate) row: LedgerRow,
    /// Its rows may show commits up to here; it has those that the fold does not end with.
    pub(crate) through: Link,
    /// It has all rows: older ledgers say nothing any more.
    pub(crate) whole: bool,
}

impl Cut {
    /// Writes it down, as part of the transaction that makes it true.
    pub(crate) fn store(&self, conn: &Connection) -> Result<(), Failure> {
        for (key, value) in [
            ("folded_through", self.folded.lsn.get()),
            ("folded_crc", u64::from(self.folded.crc)),
            ("rows_through", self.through.lsn.get()),
            ("rows_through_crc", u64::from(self.through.crc)),
            ("next_stream", self.next_stream),
            ("next_subscription", self.next_subscription),
            ("store_ms", self.store_ms.get()),
        ] {
            catalogue::put_meta(conn, key, &value.to_le_bytes())?;
        }
        Ok(())
    }

    /// Reads it back; `None` if no fold was ever finished.
    pub(crate) fn load(conn: &Connection) -> Result<Option<Self>, Failure> {
        let number = |key| catalogue::meta_u64(conn, key);
        let link = |lsn, crc| -> Result<Link, Failure> {
            let crc = u32::try_from(number(crc)?);
            let crc = crc.map_err(|_| Failure::Damaged("a checksum of a cut is none".into()))?;
            Ok(Link { lsn: Lsn::new(number(lsn)?), crc })
        };
        if catalogue::meta(conn, "rows_through")?.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            folded: link("folded_through", "folded_crc")?,
            through: link("rows_through", "rows_through_crc")?,
            next_stream: number("next_stream")?,
            next_subscription: number("next_subscription")?,
            store_ms: StoreMs::new(number("store_ms")?),
        }))
    }
}

/// A segment and where it is.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) row: SegmentRow,
    pub(crate) segment: Arc<Segment>,
}

/// The live files.
#[derive(Default)]
pub(crate) struct Files {
    segments: BTreeMap<SegmentId, Held>,
    /// Oldest first.
    ledgers: Vec<LedgerRow>,
    cut: Option<Cut>,
    /// A fold has begun and none has been finished since: rows may be ahead of the cut.
    ahead: bool,
    /// Counts changes that a manifest would show.
    version: u64,
    /// Bytes that are on this disk only; appends look at it without the lock.
    local_bytes: Arc<AtomicU64>,
}

/// All files at one moment.
#[derive(Clone)]
pub(crate) struct Picture {
    pub(crate) cut: Cut,
    /// In the order in which they are read.
    pub(crate) segments: Vec<Held>,
    /// Oldest first.
    pub(crate) ledgers: Vec<LedgerRow>,
    pub(crate) version: u64,
}

impl Files {
    pub(crate) fn new(segments: Vec<Held>, ledgers: Vec<LedgerRow>, cut: Option<Cut>) -> Self {
        let mut files = Self { ledgers, cut, version: 1, ..Self::default() };
        for held in segments {
            files.add(held);
        }
        files.gain(files.ledgers.iter().map(local_bytes_of_ledger).sum());
        files
    }

    fn add(&mut self, held: Held) {
        self.gain(local_bytes(&held.row));
        self.segments.insert(held.row.id, held);
    }

    /// New segments, which belong to the next cut.
    pub(crate) fn add_segments(&mut self, new: impl Iterator<Item = Held>) {
        for held in new {
            self.add(held);
        }
    }

    /// A fold begins, or the one that the last process began was not finished.
    pub(crate) fn fold_begins(&mut self) {
        self.ahead = true;
    }

    /// The cut, if the rows are those of it: what they say is dead is dead there too.
    pub(crate) fn settled(&self) -> Option<Cut> {
        self.cut.filter(|_| !self.ahead)
    }

    /// A fold is finished.
    pub(crate) fn folded(&mut self, cut: Cut, fresh: Option<Fresh>) {
        (self.cut, self.ahead) = (Some(cut), false);
        self.version += 1;
        let Some(Fresh { row, whole, .. }) = fresh else { return };
        if whole {
            self.lose(self.ledgers.iter().map(local_bytes_of_ledger).sum::<u64>());
            self.ledgers.clear();
        }
        self.gain(local_bytes_of_ledger(&row));
        self.ledgers.push(row);
    }

    /// Some segments became one, or none.
    pub(crate) fn replace_segments(&mut self, old: &[SegmentId], new: Option<Held>) {
        for id in old {
            if let Some(held) = self.segments.remove(id) {
                self.lose(local_bytes(&held.row));
            }
        }
        new.into_iter().for_each(|held| self.add(held));
        self.version += 1;
    }

    /// Some ledgers became one.
    pub(crate) fn replace_ledgers(&mut self, old: &[SegmentId], new: LedgerRow) {
        let (gone, mut ledgers): (Vec<_>, Vec<_>) =
            self.ledgers.drain(..).partition(|ledger| old.contains(&ledger.id));
        self.lose(gone.iter().map(local_bytes_of_ledger).sum::<u64>());
        self.gain(local_bytes_of_ledger(&new));
        ledgers.push(new);
        ledgers.sort_by_key(|ledger| (ledger.last_lsn, ledger.id));
        self.ledgers = ledgers;
        self.version += 1;
    }

    /// A segment's bytes are in the bucket now, or found to be lost.
    pub(crate) fn place_segment(&mut self, id: SegmentId, place: Place) {
        let Some(held) = self.segments.get_mut(&id) else { return };
        let before = local_bytes(&held.row);
        held.row.place = place;
        let after = local_bytes(&held.row);
        self.lose(before);
        self.gain(after);
    }

    /// A ledger's bytes are in the bucket now.
    pub(crate) fn place_ledger(&mut self, id: SegmentId, place: Place) {
        let Some(ledger) = self.ledgers.iter_mut().find(|it| it.id == id) else { return };
        let before = local_bytes_of_ledger(ledger);
        ledger.place = place;
        let after = local_bytes_of_ledger(ledger);
        self.lose(before);
        self.gain(after);
    }

    /// All segments, by number.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Held> {
        self.segments.values()
    }

    pub(crate) fn segment(&self, id: SegmentId) -> Option<&Held> {
        self.segments.get(&id)
    }

    pub(crate) fn ledgers(&self) -> &[LedgerRow] {
        &self.ledgers
    }

    pub(crate) const fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// Bytes that only this disk has.
    pub(crate) fn local_bytes(&self) -> u64 {
        self.local_bytes.load(Ordering::Relaxed)
    }

    /// The same for those who must not wait for the lock.
    pub(crate) fn backlog(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.local_bytes)
    }

    fn gain(&self, bytes: u64) {
        self.local_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn lose(&self, bytes: u64) {
        self.local_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What a manifest would show now; `None` before the first fold.
    pub(crate) fn picture(&self) -> Option<Picture> {
        let cut = self.cut?;
        // A segment of a fold that is still under way belongs to the next picture.
        let held = self.segments.values();
        let held = held.filter(|held| held.segment.footer().last_lsn <= cut.folded.lsn);
        let mut segments: Vec<Held> = held.cloned().collect();
        segments.sort_by_key(|held| {
            let footer = held.segment.footer();
            (footer.last_lsn, footer.first_lsn, held.row.id)
        });
        Some(Picture { cut, segments, ledgers: self.ledgers.clone(), version: self.version })
    }
}

fn local_bytes(row: &SegmentRow) -> u64 {
    if row.place == Place::Local { row.bytes } else { 0 }
}

fn local_bytes_of_ledger(ledger: &LedgerRow) -> u64 {
    if ledger.place == Place::Local { ledger.bytes } else { 0 }
}
