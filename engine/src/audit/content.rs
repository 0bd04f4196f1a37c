//! Objects: whether each is the file that a manifest names, whole and undamaged.

use std::sync::Arc;

use bytes::Bytes;
use weir_io::objects::Key;

use super::{Finding, Objects, note};
use crate::{
    ledger::{Ledger, Source},
    publish::{invariants::Kind, listing::Entry, manifest::Manifest},
    segment::{InMemory, Segment},
    types::{Lsn, SegmentId},
};

/// Reads an object through and compares it with what a manifest says of it.
pub(super) fn check(
    objects: &Objects<'_>,
    manifest: &Manifest,
    (kind, entry): (Kind, &Entry),
    key: &Key,
    findings: &mut Vec<Finding>,
) {
    let said = describe(entry);
    let Some(bytes) = objects.get(key) else {
        let generation = manifest.generation;
        note(findings, key, format!("is missing, manifest {generation} names it"));
        return;
    };
    let len = u64::try_from(bytes.len()).expect("usize fits u64");
    if len != entry.bytes {
        note(findings, key, format!("has {len} bytes instead of {}", entry.bytes));
        return;
    }
    let read = match kind {
        Kind::Segment => of_segment(bytes),
        Kind::Ledger => of_ledger(bytes),
    };
    match read {
        Err(bad) => note(findings, key, bad),
        Ok((store, _)) if store != manifest.store.0 => {
            note(findings, key, "belongs to another store");
        }
        Ok((_, found)) if found != said => {
            note(findings, key, format!("is {found:?}, named as {said:?}"));
        }
        Ok(_) => {}
    }
}

/// Number, mark, first and last commit, and how many records or rows.
type Description = (SegmentId, u32, Lsn, Lsn, u64);

const fn describe(entry: &Entry) -> Description {
    (entry.id, entry.mark, entry.first_lsn, entry.last_lsn, entry.records)
}

/// Store and description, or what is wrong.
type Read = Result<([u8; 16], Description), String>;

fn of_segment(bytes: Bytes) -> Read {
    let segment = segment(bytes).map_err(|bad| bad.to_string())?;
    for no in segment.blocks() {
        segment.block(no).map_err(|bad| bad.to_string())?;
    }
    let footer = segment.footer();
    let found = (segment.id(), footer.mark(), footer.first_lsn, footer.last_lsn, footer.records);
    Ok((segment.store(), found))
}

fn of_ledger(bytes: Bytes) -> Read {
    let ledger = ledger(bytes).map_err(|bad| bad.to_string())?;
    for row in ledger.rows() {
        row.map_err(|lost| lost.to_string())?;
    }
    for commit in ledger.commits() {
        commit.map_err(|lost| lost.to_string())?;
    }
    let footer = ledger.footer();
    let found = (ledger.id(), footer.mark(), footer.first_lsn, footer.last_lsn, footer.rows);
    Ok((ledger.store().0, found))
}

/// A segment out of an object.
pub(super) fn segment(bytes: Bytes) -> Result<Segment, crate::segment::ReadError> {
    Segment::open(Arc::new(InMemory(bytes)))
}

/// A ledger out of an object.
pub(super) fn ledger(bytes: Bytes) -> Result<Arc<Ledger>, crate::ledger::ReadError> {
    Ledger::open(Source::Memory(bytes)).map(Arc::new)
}
