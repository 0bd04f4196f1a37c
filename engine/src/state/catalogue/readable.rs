//! Which of a stream's own records anybody can still read: the stream itself from its earliest
//! position on, and each fork, however far down, from its own earliest position to where its line
//! has left the stream.
//!
//! ```text
//! a, trimmed to 6    0 ─────────── 6 ──────────
//! b, fork of a at 4      2 ─── 4               b keeps 2..4 of it
//! kept of a              ━━━━━     ━━━━━━━━━━━
//! ```

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Outcome, column, position};
use crate::types::{Lsn, Seq, StreamId};

/// The ranges of a stream's own records that anybody can still read, in order, as of a finished
/// fold through `folded`. None: there is no such stream, or nobody who reads it.
///
/// Forks that were made since the fold may have no row. They are made of what is neither retired
/// nor trimmed then, so only a retirement and only a trim that the fold covers count (INV-23).
/// The forks of one that has never been trimmed by itself keep nothing that it does not keep too.
pub(crate) fn readable(conn: &Connection, id: StreamId, folded: Lsn) -> Outcome<Vec<Range<Seq>>> {
    let through = column(folded.get());
    let mut query = conn.prepare_cached(
        "SELECT retired AND lsn <= ?2, CASE WHEN trimmed <= ?2 THEN earliest ELSE 0 END,
             trimmed > 0
         FROM streams WHERE id = ?1",
    )?;
    let stream: Option<(bool, i64, bool)> = query
        .query_row(params![column(id.get()), through], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((over, earliest, trimmed)) = stream else { return Ok(Vec::new()) };
    let own = Seq::new(position(earliest)?)..Seq::LAST;
    if !over && !trimmed {
        return Ok(vec![own]);
    }
    let mut query = conn.prepare_cached(
        "WITH RECURSIVE drawn (id, reach, earliest, over, open) AS (
             SELECT id, fork_at, CASE WHEN trimmed <= ?2 THEN earliest ELSE 0 END,
                 retired AND lsn <= ?2, retired OR trimmed > 0
             FROM streams WHERE source = ?1
             UNION ALL
             SELECT streams.id, min(drawn.reach, streams.fork_at),
                 CASE WHEN streams.trimmed <= ?2 THEN streams.earliest ELSE 0 END,
                 streams.retired AND streams.lsn <= ?2, streams.retired OR streams.trimmed > 0
             FROM streams JOIN drawn ON streams.source = drawn.id WHERE drawn.open)
         SELECT earliest, reach FROM drawn WHERE NOT over AND earliest < reach
         ORDER BY earliest",
    )?;
    let mut found = query.query(params![column(id.get()), through])?;
    let mut ranges = Vec::new();
    while let Some(row) = found.next()? {
        let range = Seq::new(position(row.get(0)?)?)..Seq::new(position(row.get(1)?)?);
        join(&mut ranges, range);
    }
    if !over {
        ranges.push(own);
        ranges.sort_by_key(|range| range.start);
        let apart = std::mem::take(&mut ranges);
        apart.into_iter().for_each(|range| join(&mut ranges, range));
    }
    let shows = ranges.last().is_some_and(|last| last.end == Seq::LAST);
    assert!(
        over || shows,
        "INV-23 nothing that can be read is dropped: its own records least of all"
    );
    Ok(ranges)
}

/// Whether a stream may have let go of records that its forks still read.
pub(crate) fn lets_go(conn: &Connection, id: StreamId) -> Outcome<bool> {
    let mut query =
        conn.prepare_cached("SELECT 1 FROM streams WHERE id = ?1 AND (retired OR trimmed > 0)")?;
    Ok(query.exists([column(id.get())])?)
}

/// Adds a range that begins no earlier than the last one.
fn join(ranges: &mut Vec<Range<Seq>>, range: Range<Seq>) {
    match ranges.last_mut() {
        Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
        _ => ranges.push(range),
    }
}
