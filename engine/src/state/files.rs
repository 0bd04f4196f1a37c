//! The files of a store under one lock, with the point of the log up to which they tell all:
//! what is published is a picture of this, taken at once.

mod moves;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::Connection;

use self::moves::Moves;
use super::{
    catalogue::{self, Failure, LedgerRow, Place, SegmentRow},
    view::{Stream, Sums},
};
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
    /// Segments and ledgers that are on this disk only.
    local_files: usize,
    /// Those that were damaged before the bucket had them.
    holes: usize,
    /// What became of segments lately.
    moves: Moves,
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
        let mut files = Self { cut, version: 1, ..Self::default() };
        for held in segments {
            files.add(held);
        }
        for row in ledgers {
            files.enter(row.place, row.bytes);
            files.ledgers.push(row);
        }
        files
    }

    fn add(&mut self, held: Held) {
        self.enter(held.row.place, held.row.bytes);
        self.moves.came(&held);
        let before = self.segments.insert(held.row.id, held);
        assert!(before.is_none(), "files are numbered once");
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
            for row in std::mem::take(&mut self.ledgers) {
                self.leave(row.place, row.bytes);
            }
        }
        self.enter(row.place, row.bytes);
        self.ledgers.push(row);
    }

    /// Some segments became one, or none.
    pub(crate) fn replace_segments(&mut self, old: &[SegmentId], new: Option<Held>) {
        for id in old {
            if let Some(held) = self.segments.remove(id) {
                self.leave(held.row.place, held.row.bytes);
                self.moves.went(&held);
            }
        }
        new.into_iter().for_each(|held| self.add(held));
        self.version += 1;
    }

    /// Some ledgers became one.
    pub(crate) fn replace_ledgers(&mut self, old: &[SegmentId], new: LedgerRow) {
        let (gone, mut ledgers): (Vec<_>, Vec<_>) =
            self.ledgers.drain(..).partition(|ledger| old.contains(&ledger.id));
        for row in gone {
            self.leave(row.place, row.bytes);
        }
        self.enter(new.place, new.bytes);
        ledgers.push(new);
        ledgers.sort_by_key(|ledger| (ledger.last_lsn, ledger.id));
        self.ledgers = ledgers;
        self.version += 1;
    }

    /// A segment's bytes are in the bucket now, or found to be lost.
    pub(crate) fn place_segment(&mut self, id: SegmentId, place: Place) {
        let Some(held) = self.segments.get_mut(&id) else { return };
        let before = std::mem::replace(&mut held.row.place, place);
        let bytes = held.row.bytes;
        self.moves.turned(held);
        self.leave(before, bytes);
        self.enter(place, bytes);
    }

    /// A ledger's bytes are in the bucket now.
    pub(crate) fn place_ledger(&mut self, id: SegmentId, place: Place) {
        let Some(ledger) = self.ledgers.iter_mut().find(|it| it.id == id) else { return };
        let before = std::mem::replace(&mut ledger.place, place);
        let bytes = ledger.bytes;
        self.leave(before, bytes);
        self.enter(place, bytes);
    }

    /// What the segments of a stream come to. Costs a look at each of them the first time, and then
    /// at those that came since.
    pub(crate) fn sums(&self, stream: &Stream) -> Sums {
        let mut tally = stream.tally.lock();
        let before = tally.take();
        let now = self.moves.tally(before, stream.identity.id, self.segments.values());
        let sums = now.sums();
        *tally = Some(now);
        sums
    }

    /// Bytes on this disk of those segments of a stream that the bucket has too. Adds them up, but not
    /// twice within a second.
    pub(crate) fn cached_bytes(&self, stream: &Stream, now: StoreMs) -> u64 {
        self.sums(stream);
        let mut tally = stream.tally.lock();
        let Some(tally) = tally.as_mut() else { return 0 };
        tally.cached_bytes(now, |id| self.segment(id).map_or(0, |held| held.segment.local_bytes()))
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

    /// Files that only this disk has.
    pub(crate) const fn local_files(&self) -> usize {
        self.local_files
    }

    /// Files that were damaged before the bucket had them.
    pub(crate) const fn holes(&self) -> usize {
        self.holes
    }

    fn enter(&mut self, place: Place, bytes: u64) {
        match place {
            Place::Local => {
                self.local_files += 1;
                self.local_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Place::Hole => self.holes += 1,
            Place::Bucket => {}
        }
    }

    fn leave(&mut self, place: Place, bytes: u64) {
        match place {
            Place::Local => {
                self.local_files -= 1;
                self.local_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            Place::Hole => self.holes -= 1,
            Place::Bucket => {}
        }
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
