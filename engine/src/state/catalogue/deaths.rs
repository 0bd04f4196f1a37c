//! Rows that say since when a segment holds records that nobody may read any more, and about how
//! many bytes of them: what decides when it is written anew.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::{Outcome, column, position};
use crate::types::{SegmentId, WallMs};

pub(super) const SCHEMA: &str = "
CREATE TABLE deaths (
    segment INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, since INTEGER NOT NULL);
";

/// What of a segment is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    /// About how many bytes; zero if that is not known.
    pub(crate) bytes: u64,
    /// When the first of them died, by the wall clock.
    pub(crate) since: WallMs,
}

/// Adds to what is dead in a segment. The first death counts.
pub(crate) fn add_death(conn: &Connection, segment: SegmentId, death: Death) -> Outcome<()> {
    conn.prepare_cached(
        "INSERT INTO deaths (segment, bytes, since) VALUES (?1, ?2, ?3)
         ON CONFLICT (segment) DO UPDATE SET bytes = min(bytes + excluded.bytes, ?4),
             since = min(since, excluded.since)",
    )?
    .execute(params![
        column(segment.get()),
        column(death.bytes.min(DEAD_BYTES_MAX)),
        column(death.since.get()),
        column(DEAD_BYTES_MAX),
    ])?;
    Ok(())
}

/// No segment has as many bytes.
pub(crate) const DEAD_BYTES_MAX: u64 = 1 << 50;

/// The segment is gone.
pub(crate) fn drop_death(conn: &Connection, segment: SegmentId) -> Outcome<()> {
    conn.prepare_cached("DELETE FROM deaths WHERE segment = ?1")?
        .execute([column(segment.get())])?;
    Ok(())
}

/// What is dead, by segment.
pub(crate) fn deaths(conn: &Connection) -> Outcome<BTreeMap<SegmentId, Death>> {
    let mut query = conn.prepare("SELECT segment, bytes, since FROM deaths")?;
    let mut found = query.query([])?;
    let mut all = BTreeMap::new();
    while let Some(row) = found.next()? {
        let death =
            Death { bytes: position(row.get(1)?)?, since: WallMs::new(position(row.get(2)?)?) };
        all.insert(SegmentId::new(position(row.get(0)?)?), death);
    }
    Ok(all)
}
