//! Pieces: the bytes of segments as rows, in a store that is one file.
//!
//! ```text
//! segment 7:   (7, 0) header, first blocks │ (7, 65571) block │ … │ (7, 262390) last block, tail
//! ```
//! A piece says where in the segment it begins; together they are the segment's bytes without a
//! gap. Knows nothing of what these bytes mean.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Outcome, column, position};
use crate::types::SegmentId;

pub(super) const SCHEMA: &str = "
CREATE TABLE pieces (
    segment INTEGER NOT NULL, at INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (segment, at));
";

/// Writes one.
pub(crate) fn put(conn: &Connection, segment: SegmentId, at: u64, body: &[u8]) -> Outcome<()> {
    conn.prepare_cached("INSERT INTO pieces (segment, at, body) VALUES (?1, ?2, ?3)")?
        .execute(params![column(segment.get()), column(at), body])?;
    Ok(())
}

/// Deletes up to `limit` pieces of a segment. Returns how many there were.
pub(crate) fn remove(conn: &Connection, segment: SegmentId, limit: u32) -> Outcome<usize> {
    let mut remove = conn.prepare_cached(
        "DELETE FROM pieces WHERE segment = ?1 AND at IN
         (SELECT at FROM pieces WHERE segment = ?1 ORDER BY at LIMIT ?2)",
    )?;
    Ok(remove.execute(params![column(segment.get()), limit])?)
}

/// The segments that have any.
pub(crate) fn segments(conn: &Connection) -> Outcome<Vec<SegmentId>> {
    let mut query = conn.prepare("SELECT DISTINCT segment FROM pieces ORDER BY segment")?;
    let mut found = query.query([])?;
    let mut segments = Vec::new();
    while let Some(row) = found.next()? {
        segments.push(SegmentId::new(position(row.get(0)?)?));
    }
    Ok(segments)
}

/// Where the last piece of a segment ends; `None` if it has none.
pub(crate) fn len(conn: &Connection, segment: SegmentId) -> Outcome<Option<u64>> {
    let mut query = conn.prepare_cached(
        "SELECT at + length(body) FROM pieces WHERE segment = ?1 ORDER BY at DESC LIMIT 1",
    )?;
    let len = query.query_row([column(segment.get())], |row| row.get(0)).optional()?;
    len.map(position).transpose()
}

/// Fills `buffer` with the bytes of a segment from `at` on and says how many there were before a
/// gap or the end.
pub(crate) fn read(
    conn: &Connection,
    segment: SegmentId,
    at: u64,
    buffer: &mut [u8],
) -> Outcome<usize> {
    let mut query = conn.prepare_cached(
        "SELECT at, body FROM pieces WHERE segment = ?1 AND at < ?3 AND at >=
            (SELECT max(at) FROM pieces WHERE segment = ?1 AND at <= ?2)
         ORDER BY at",
    )?;
    let limit = at + u64::try_from(buffer.len()).expect("usize fits u64");
    let key = params![column(segment.get()), column(at), column(limit)];
    let mut found = query.query(key)?;
    let mut read = 0;
    while let Some(row) = found.next()? {
        let (start, body) = (position(row.get(0)?)?, row.get_ref(1)?.as_blob());
        let body = body.map_err(rusqlite::Error::from)?;
        let wanted = at + u64::try_from(read).expect("usize fits u64");
        // What a gap leaves out is not there.
        let skipped = wanted.checked_sub(start).and_then(|it| usize::try_from(it).ok());
        let Some(rest) = skipped.and_then(|it| body.get(it..)) else { break };
        let taken = rest.len().min(buffer.len() - read);
        buffer[read..read + taken].copy_from_slice(&rest[..taken]);
        read += taken;
    }
    Ok(read)
}

/// Pages of the database that hold nothing.
pub(crate) fn free_pages(conn: &Connection) -> Outcome<u64> {
    let mut query = conn.prepare_cached("PRAGMA freelist_count")?;
    position(query.query_row([], |row| row.get(0))?)
}

/// Makes the database shorter by up to `pages` free ones, as part of a transaction.
pub(crate) fn shorten(conn: &Connection, pages: u64) -> Outcome<()> {
    // Stepped to its end: every step moves one page.
    let mut pragma = conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut steps = pragma.query([])?;
    while steps.next()?.is_some() {}
    Ok(())
}
