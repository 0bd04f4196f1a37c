//! The files of a store, or the pieces of one in a file: are they what the tables say, and is
//! every block of them readable?
//!
//! A server may merge one away, or let go of its blocks, between the look at the tables and the
//! look at the file. So what seems wrong is looked at again with what the tables say then, and is
//! damage if it is the same twice.

use std::{io, sync::Arc};

use rusqlite::{Connection, ErrorCode};
use weir_io::sqlite::Role;

use super::{Findings, VerifyError, local::Local};
use crate::{
    core::ledger_path,
    ledger::{Ledger, Source},
    log::commit::StoreId,
    rack::{self, Rack},
    segment::{ReadError, Segment},
    state::catalogue::{self, Failure, LedgerRow, Place, SegmentRow},
};

/// Looks at a file that seems to change each time.
const LOOKS_MAX: u32 = 4;

impl Local<'_> {
    pub(super) fn segment(&mut self, row: &SegmentRow, store: StoreId) -> Result<(), VerifyError> {
        let look = |local: &Self, row: &SegmentRow| local.look_at_segment(row, store);
        let again = |conn: &Connection| {
            Ok(catalogue::segments(conn)?.into_iter().find(|it| it.id == row.id))
        };
        self.twice(*row, look, again)
    }

    pub(super) fn ledger(&mut self, row: &LedgerRow, store: StoreId) -> Result<(), VerifyError> {
        let look = |local: &Self, row: &LedgerRow| local.look_at_ledger(row, store);
        let again = |conn: &Connection| {
            Ok(catalogue::ledgers(conn)?.into_iter().find(|it| it.id == row.id))
        };
        self.twice(*row, look, again)
    }

    /// Looks until nothing is wrong, or the same twice, or the tables have forgotten it.
    fn twice<Row: Copy + PartialEq>(
        &mut self,
        row: Row,
        look: impl Fn(&Self, &Row) -> Result<Findings, VerifyError>,
        again: impl Fn(&Connection) -> Result<Option<Row>, Failure>,
    ) -> Result<(), VerifyError> {
        let mut before: Option<(Row, Findings)> = None;
        let (mut row, mut looks) = (row, 1);
        loop {
            let seen = look(self, &row)?;
            let same =
                before.is_some_and(|(then, found)| then == row && found.findings == seen.findings);
            if seen.findings.is_empty() || same || looks == LOOKS_MAX {
                self.found.checked.files += seen.checked.files;
                self.found.checked.blocks += seen.checked.blocks;
                self.found.findings.extend(seen.findings);
                return Ok(());
            }
            let Some(now) = self.sure(&again)? else {
                weir_io::sometimes!("a file went while it was verified");
                return Ok(());
            };
            before = Some((row, seen));
            (row, looks) = (now, looks + 1);
        }
    }

    fn look_at_segment(&self, row: &SegmentRow, store: StoreId) -> Result<Findings, VerifyError> {
        let shown = rack::shown(self.config, row.id);
        let mut found = Findings::default();
        if row.place == Place::Hole {
            let text = "it was damaged before it was uploaded: what it held is lost";
            found.add("hole", shown, text);
            return Ok(found);
        }
        let failed = |error| VerifyError::Local(format!("{shown}: {error}"));
        let opened = Rack::new(self.world, self.config, Role::Looker).open(row.id);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                found.add("file", shown, "it is missing");
                return Ok(found);
            }
            Err(error) if is_damage(&error) => {
                found.add("file", shown, error.to_string());
                return Ok(found);
            }
            Err(error) => return Err(failed(error)),
        };
        found.checked.files = 1;
        let (segment, wrong) = match Segment::salvage(file) {
            Ok(opened) => opened,
            Err(bad) => {
                found.add("file", shown, bad.to_string());
                return Ok(found);
            }
        };
        if let Some(wrong) = wrong {
            found.add("file", &shown, wrong.to_string());
        }
        let bytes = segment.footer().file_bytes();
        if (segment.store(), segment.id(), bytes) != (store.0, row.id, row.bytes) {
            found.add("file", shown, "it is another segment than the tables say");
            return Ok(found);
        }
        for no in segment.blocks() {
            // What the bucket has may have been evicted here.
            if row.place == Place::Bucket && !segment.seems_there(no) {
                continue;
            }
            found.checked.blocks += 1;
            match segment.block(no) {
                Ok(_) => {}
                Err(bad @ ReadError::Damaged(_)) => found.add("block", &shown, bad.to_string()),
                Err(ReadError::Failed { section, source }) if is_damage(&source) => {
                    found.add("block", &shown, format!("{section}: {source}"));
                }
                Err(failed) => return Err(VerifyError::Local(format!("{shown}: {failed}"))),
            }
        }
        Ok(found)
    }

    fn look_at_ledger(&self, row: &LedgerRow, store: StoreId) -> Result<Findings, VerifyError> {
        let path = ledger_path(self.config, row.id);
        let shown = path.display().to_string();
        let mut found = Findings::default();
        let file = match self.world.disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                found.add("file", shown, "it is missing");
                return Ok(found);
            }
            Err(error) => return Err(VerifyError::Local(format!("{shown}: {error}"))),
        };
        found.checked.files = 1;
        let ledger = match Ledger::open(Source::File(file)) {
            Ok(ledger) => Arc::new(ledger),
            Err(bad) => {
                found.add("file", shown, bad.to_string());
                return Ok(found);
            }
        };
        let footer = ledger.footer();
        let known = (ledger.store(), ledger.id(), footer.file_bytes(), footer.mark());
        if known != (store, row.id, row.bytes, row.mark) {
            found.add("file", shown, "it is another ledger than the tables say");
            return Ok(found);
        }
        found.checked.blocks = u64::from(footer.row_blocks) + u64::from(footer.tail_blocks);
        let lost = ledger.rows().filter_map(Result::err).map(|it| it.to_string());
        let lost = lost.chain(ledger.commits().filter_map(Result::err).map(|it| it.to_string()));
        lost.for_each(|what| found.add("block", &shown, what));
        Ok(found)
    }
}

/// Whether a piece can't be read because the database is damaged there.
fn is_damage(error: &io::Error) -> bool {
    let failure = error.get_ref().and_then(|it| it.downcast_ref::<Failure>());
    match failure {
        Some(Failure::Sqlite(rusqlite::Error::SqliteFailure(error, _))) => {
            matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        Some(Failure::Damaged(_) | Failure::Malformed(_)) => true,
        _ => false,
    }
}
