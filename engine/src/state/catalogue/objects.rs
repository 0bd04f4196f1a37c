//! Rows of what is, or will be, in the bucket: segments, ledgers, and objects that nothing
//! refers to any more.

use rusqlite::{Connection, params};

use super::{Outcome, column, meta, meta_u64, position, put_meta};
use crate::{
    publish::{keys::Generation, listing::Entry},
    types::{Lsn, SegmentId, StoreMs},
};

pub(super) const SCHEMA: &str = "
CREATE TABLE segments (
    id INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, nonce INTEGER NOT NULL,
    place INTEGER NOT NULL);
CREATE TABLE ledgers (
    id INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, nonce INTEGER NOT NULL,
    place INTEGER NOT NULL, mark INTEGER NOT NULL, first_lsn INTEGER NOT NULL,
    last_lsn INTEGER NOT NULL, rows INTEGER NOT NULL);
CREATE TABLE manifests (generation INTEGER PRIMARY KEY, since INTEGER NOT NULL);
CREATE TABLE garbage (key TEXT PRIMARY KEY, retired INTEGER) WITHOUT ROWID;
";

/// Where the bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this disk only.
    Local,
    /// In the bucket; what is on this disk is a copy.
    Bucket,
    /// Nowhere: found damaged before it was uploaded.
    Hole,
}

impl Place {
    const fn code(self) -> i64 {
        match self {
            Self::Local => 0,
            Self::Bucket => 1,
            Self::Hole => 2,
        }
    }

    fn decode(code: i64) -> Outcome<Self> {
        match code {
            0 => Ok(Self::Local),
            1 => Ok(Self::Bucket),
            2 => Ok(Self::Hole),
            _ => Err(super::Failure::Damaged(format!("unknown place {code} of a file"))),
        }
    }
}

/// A segment as the catalogue knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    pub(crate) id: SegmentId,
    pub(crate) bytes: u64,
    /// Tells it from segments of the same number that another process wrote.
    pub(crate) nonce: u64,
    pub(crate) place: Place,
}

/// A ledger as the catalogue knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LedgerRow {
    pub(crate) id: SegmentId,
    pub(crate) bytes: u64,
    pub(crate) nonce: u64,
    pub(crate) place: Place,
    /// Checksum of its footer.
    pub(crate) mark: u32,
    pub(crate) first_lsn: Lsn,
    pub(crate) last_lsn: Lsn,
    pub(crate) rows: u64,
}

/// Random numbers use all 64 bits, SQLite's integers are signed.
const fn bits(nonce: u64) -> i64 {
    nonce.cast_signed()
}

/// A file of this number has been written: no other may get it, even after this one is gone.
fn used(conn: &Connection, id: SegmentId) -> Outcome<()> {
    let next = meta_u64(conn, "next_segment")?.max(id.get() + 1);
    put_meta(conn, "next_segment", &next.to_le_bytes())
}

/// Records that a segment file is complete and durable.
pub(crate) fn put_segment(conn: &Connection, row: &SegmentRow) -> Outcome<()> {
    let place = row.place.code();
    conn.prepare_cached("INSERT INTO segments (id, bytes, nonce, place) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![column(row.id.get()), column(row.bytes), bits(row.nonce), place])?;
    used(conn, row.id)
}

/// Forgets a segment.
pub(crate) fn drop_segment(conn: &Connection, id: SegmentId) -> Outcome<()> {
    conn.prepare_cached("DELETE FROM segments WHERE id = ?1")?.execute([column(id.get())])?;
    drop_hole(conn, id)
}

/// Under which a segment is described that is a hole.
fn hole_key(id: SegmentId) -> String {
    format!("hole/{:016x}", id.get())
}

/// Keeps what a manifest says of a segment that it names as a hole.
pub(crate) fn put_hole(conn: &Connection, entry: &Entry) -> Outcome<()> {
    put_meta(conn, &hole_key(entry.id), &entry.encode())
}

/// What a manifest said of a segment that it named as a hole.
pub(crate) fn hole(conn: &Connection, id: SegmentId) -> Outcome<Option<Entry>> {
    let Some(bytes) = meta(conn, &hole_key(id))? else { return Ok(None) };
    let entry = Entry::decode(bytes.into())?;
    match entry.id == id {
        true => Ok(Some(entry)),
        false => Err(super::Failure::Damaged(format!("hole {id} describes another segment"))),
    }
}

fn drop_hole(conn: &Connection, id: SegmentId) -> Outcome<()> {
    conn.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([hole_key(id)])?;
    Ok(())
}

/// All segments.
pub(crate) fn segments(conn: &Connection) -> Outcome<Vec<SegmentRow>> {
    let mut query = conn.prepare("SELECT id, bytes, nonce, place FROM segments ORDER BY id")?;
    let mut found = query.query([])?;
    let mut all = Vec::new();
    while let Some(row) = found.next()? {
        all.push(SegmentRow {
            id: SegmentId::new(position(row.get(0)?)?),
            bytes: position(row.get(1)?)?,
            nonce: row.get::<_, i64>(2)?.cast_unsigned(),
            place: Place::decode(row.get(3)?)?,
        });
    }
    Ok(all)
}

/// Says where a segment is. Returns whether there is such a segment.
pub(crate) fn place_segment(conn: &Connection, id: SegmentId, place: Place) -> Outcome<bool> {
    if place == Place::Bucket {
        drop_hole(conn, id)?;
    }
    let mut update = conn.prepare_cached("UPDATE segments SET place = ?2 WHERE id = ?1")?;
    Ok(update.execute(params![column(id.get()), place.code()])? > 0)
}

/// Records that a ledger is complete and durable.
pub(crate) fn put_ledger(conn: &Connection, ledger: &LedgerRow) -> Outcome<()> {
    conn.prepare_cached(
        "INSERT INTO ledgers (id, bytes, nonce, place, mark, first_lsn, last_lsn, rows)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        column(ledger.id.get()),
        column(ledger.bytes),
        bits(ledger.nonce),
        ledger.place.code(),
        ledger.mark,
        column(ledger.first_lsn.get()),
        column(ledger.last_lsn.get()),
        column(ledger.rows),
    ])?;
    used(conn, ledger.id)
}

/// Forgets a ledger.
pub(crate) fn drop_ledger(conn: &Connection, id: SegmentId) -> Outcome<()> {
    conn.prepare_cached("DELETE FROM ledgers WHERE id = ?1")?.execute([column(id.get())])?;
    Ok(())
}

/// All ledgers, oldest first.
pub(crate) fn ledgers(conn: &Connection) -> Outcome<Vec<LedgerRow>> {
    let mut query = conn.prepare(
        "SELECT id, bytes, nonce, place, mark, first_lsn, last_lsn, rows FROM ledgers
         ORDER BY last_lsn, id",
    )?;
    let mut found = query.query([])?;
    let mut all = Vec::new();
    while let Some(row) = found.next()? {
        all.push(LedgerRow {
            id: SegmentId::new(position(row.get(0)?)?),
            bytes: position(row.get(1)?)?,
            nonce: row.get::<_, i64>(2)?.cast_unsigned(),
            place: Place::decode(row.get(3)?)?,
            mark: row.get(4)?,
            first_lsn: Lsn::new(position(row.get(5)?)?),
            last_lsn: Lsn::new(position(row.get(6)?)?),
            rows: position(row.get(7)?)?,
        });
    }
    Ok(all)
}

/// Says where a ledger is. Returns whether there is such a ledger.
pub(crate) fn place_ledger(conn: &Connection, id: SegmentId, place: Place) -> Outcome<bool> {
    let mut update = conn.prepare_cached("UPDATE ledgers SET place = ?2 WHERE id = ?1")?;
    Ok(update.execute(params![column(id.get()), place.code()])? > 0)
}

/// An object that the catalogue names no more, though a manifest may.
pub(crate) fn put_garbage(conn: &Connection, key: &str) -> Outcome<()> {
    conn.prepare_cached("INSERT OR IGNORE INTO garbage (key, retired) VALUES (?1, NULL)")?
        .execute([key])?;
    Ok(())
}

/// Up to `limit` keys of objects that were in the newest manifest or in none when last asked.
pub(crate) fn unretired(conn: &Connection, after: &str, limit: u32) -> Outcome<Vec<String>> {
    let mut query = conn.prepare_cached(
        "SELECT key FROM garbage WHERE retired IS NULL AND key > ?1 ORDER BY key LIMIT ?2",
    )?;
    let found = query.query_map(params![after, limit], |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// A manifest without this object was published at `at`, in store time: a jump of the wall clock
/// must not end a grace period.
pub(crate) fn retire(conn: &Connection, key: &str, at: StoreMs) -> Outcome<()> {
    conn.prepare_cached("UPDATE garbage SET retired = ?2 WHERE key = ?1")?
        .execute(params![key, column(at.get())])?;
    Ok(())
}

/// Up to `limit` keys of objects that no manifest since `before` has named.
pub(crate) fn collectable(conn: &Connection, before: StoreMs, limit: u32) -> Outcome<Vec<String>> {
    let mut query =
        conn.prepare_cached("SELECT key FROM garbage WHERE retired < ?1 ORDER BY key LIMIT ?2")?;
    let found = query.query_map(params![column(before.get()), limit], |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Whether an object waits to be collected.
pub(crate) fn is_garbage(conn: &Connection, key: &str) -> Outcome<bool> {
    Ok(conn.prepare_cached("SELECT 1 FROM garbage WHERE key = ?1")?.exists([key])?)
}

/// The object is gone.
pub(crate) fn drop_garbage(conn: &Connection, key: &str) -> Outcome<()> {
    conn.prepare_cached("DELETE FROM garbage WHERE key = ?1")?.execute([key])?;
    Ok(())
}

/// When the oldest thing began to wait for its collection; a manifest, when its successor came.
pub(crate) fn oldest_waiting(conn: &Connection) -> Outcome<Option<StoreMs>> {
    let mut query = conn.prepare_cached(
        "SELECT min(at) FROM (
             SELECT min(retired) AS at FROM garbage
             UNION ALL
             SELECT since FROM (
                 SELECT since FROM manifests ORDER BY generation LIMIT 1 OFFSET 1))",
    )?;
    let oldest: Option<i64> = query.query_row([], |row| row.get(0))?;
    Ok(oldest.map(position).transpose()?.map(StoreMs::new))
}

/// Remembers a manifest that the bucket has, and since when.
pub(crate) fn put_manifest(conn: &Connection, it: Generation, since: StoreMs) -> Outcome<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO manifests (generation, since) VALUES (?1, ?2)")?
        .execute(params![column(it.get()), column(since.get())])?;
    Ok(())
}

/// Up to `limit` manifests, oldest first, whose successors came before `before`.
pub(crate) fn superseded(
    conn: &Connection,
    before: StoreMs,
    limit: u32,
) -> Outcome<Vec<Generation>> {
    let mut query = conn.prepare_cached(
        "SELECT generation FROM (
             SELECT generation, lead(since) OVER (ORDER BY generation) AS superseded
             FROM manifests ORDER BY generation LIMIT ?2 + 1)
         WHERE superseded < ?1 ORDER BY generation LIMIT ?2",
    )?;
    let mut found = query.query(params![column(before.get()), limit])?;
    let mut all = Vec::new();
    while let Some(row) = found.next()? {
        all.push(Generation::new(position(row.get(0)?)?));
    }
    Ok(all)
}

/// The oldest manifest that is kept.
pub(crate) fn oldest_manifest(conn: &Connection) -> Outcome<Option<Generation>> {
    let mut query = conn.prepare_cached("SELECT min(generation) FROM manifests")?;
    let oldest: Option<i64> = query.query_row([], |row| row.get(0))?;
    Ok(oldest.map(position).transpose()?.map(Generation::new))
}

/// The manifest is gone.
pub(crate) fn drop_manifest(conn: &Connection, it: Generation) -> Outcome<()> {
    conn.prepare_cached("DELETE FROM manifests WHERE generation = ?1")?
        .execute([column(it.get())])?;
    Ok(())
}

/// The bucket is gone with everything in it: nothing is uploaded, nothing was published.
pub(crate) fn forget_bucket(conn: &Connection) -> Outcome<()> {
    conn.execute_batch(
        "UPDATE segments SET place = 0 WHERE place = 1;
         UPDATE ledgers SET place = 0 WHERE place = 1;
         DELETE FROM garbage;
         DELETE FROM manifests;
         DELETE FROM meta WHERE key IN ('manifest', 'manifest_pending', 'swept', 'unsure');",
    )?;
    Ok(())
}
