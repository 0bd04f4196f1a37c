//! The catalogue: SQLite tables of the log, of what it was folded into, and of the segments.
//! The only place that speaks SQL.
//!
//! Every function is one short transaction or one read that copies its bytes out; a statement
//! that writes is stepped to its end (`execute`), never cut off after a row. Positions are
//! stored as SQLite's signed integers; none of ours comes near 2^63.

mod all;
mod deaths;
mod objects;
pub(crate) mod pieces;
mod readable;
mod subscriptions;
mod whole;

use rusqlite::{Connection, OptionalExtension, params};

pub(crate) use self::{
    all::{AllRows, scan_links_of, scan_producers, scan_streams, scan_subscriptions},
    deaths::{DEAD_BYTES_MAX, Death, add_death, deaths, drop_death},
    objects::{
        LedgerRow, Place, SegmentRow, collectable, drop_garbage, drop_ledger, drop_manifest,
        drop_segment, forget_bucket, hole, is_garbage, ledgers, oldest_manifest, oldest_waiting,
        place_ledger, place_segment, put_garbage, put_hole, put_ledger, put_manifest, put_segment,
        retire, segments, superseded, unretired,
    },
    readable::{lets_go, readable},
    subscriptions::{
        drop_links, drop_subscription, matching, put_link, put_subscription, scan_links,
        scan_subscriptions_after, tails,
    },
    whole::{
        count_rows, forks, link, put_tombstone, scan_log_between, scan_streams_after,
        scan_tombstones_after, subscription, subscription_named, tombstone,
    },
};

use super::{
    rows::{self, StreamRow},
    stream::Producer,
};
use crate::{
    Layout, decide,
    log::codec::Malformed,
    types::{Epoch, Expiry, Lsn, ProducerId, StoreMs, StreamId, StreamName, WallMs},
};

const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE log (lsn INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE streams (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, lsn INTEGER NOT NULL,
    due_store INTEGER, due_wall INTEGER, source INTEGER, fork_at INTEGER,
    retired INTEGER NOT NULL, earliest INTEGER NOT NULL, trimmed INTEGER NOT NULL,
    due_trim INTEGER, row BLOB NOT NULL);
CREATE INDEX streams_due_trim ON streams (due_trim) WHERE due_trim IS NOT NULL;
CREATE INDEX streams_source ON streams (source) WHERE source IS NOT NULL;
CREATE INDEX streams_due_store ON streams (due_store) WHERE due_store IS NOT NULL;
CREATE INDEX streams_due_wall ON streams (due_wall) WHERE due_wall IS NOT NULL;
CREATE TABLE tombstones (name TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE producers (
    stream INTEGER NOT NULL, producer TEXT NOT NULL, lsn INTEGER NOT NULL, row BLOB NOT NULL,
    PRIMARY KEY (stream, producer)) WITHOUT ROWID;
";

/// Why the catalogue has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("catalogue: {0}")]
    Malformed(#[from] Malformed),
    #[error("catalogue: {0}")]
    Damaged(String),
}

impl Failure {
    /// The disk is full: nothing of the transaction is stored.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Sqlite(error) if is_full(error))
    }
}

/// Whether SQLite found no room, and rolled the transaction back.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

type Outcome<T> = Result<T, Failure>;

/// What is known of a name that is not in memory.
#[derive(Debug)]
pub(crate) enum Found {
    Stream(Box<StreamRow>),
    /// No stream; the last epoch its name was used under, if ever.
    Absent(Option<Epoch>),
}

fn column(value: u64) -> i64 {
    i64::try_from(value).expect("positions and times stay below 2^63")
}

fn position(value: i64) -> Outcome<u64> {
    u64::try_from(value).map_err(|_| Failure::Damaged(format!("negative position {value}")))
}

/// What a database file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It has no tables.
    New,
    /// It has ours.
    Ours,
    /// Another program made it.
    Foreign,
}

/// Looks whose tables are there. Never takes a foreign database for a new one.
pub(crate) fn origin(conn: &Connection) -> Outcome<Origin> {
    if !conn.prepare("SELECT 1 FROM sqlite_schema")?.exists([])? {
        return Ok(Origin::New);
    }
    let tables = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name IN ('meta', 'log') \
                  GROUP BY type HAVING count(*) = 2";
    let ours = conn.prepare(tables)?.exists([])? && meta(conn, "format")?.is_some();
    Ok(if ours { Origin::Ours } else { Origin::Foreign })
}

/// Makes the tables and the first meta rows in one transaction.
pub(crate) fn create(conn: &mut Connection, layout: Layout, meta: &[(&str, &[u8])]) -> Outcome<()> {
    let tx = conn.transaction()?;
    if layout == Layout::OneFile {
        tx.execute_batch(pieces::SCHEMA)?;
    }
    tx.execute_batch(SCHEMA)?;
    tx.execute_batch(deaths::SCHEMA)?;
    tx.execute_batch(subscriptions::SCHEMA)?;
    tx.execute_batch(objects::SCHEMA)?;
    for (key, value) in meta {
        put_meta(&tx, key, value)?;
    }
    tx.commit()?;
    Ok(())
}

/// Lets SQLite's log be cut to this length whenever it starts over, so that a burst does not stay
/// on the disk; `None`: it stays as long as it was. For this connection.
pub(crate) fn keep_log_short(conn: &Connection, bytes: Option<u64>) -> Outcome<()> {
    let limit = bytes.map_or(-1, column);
    set(conn, &format!("PRAGMA journal_size_limit={limit}"))
}

/// Lets deleted rows be overwritten in pages that are written anyway. For this connection.
pub(crate) fn wipe_deleted(conn: &Connection) -> Outcome<()> {
    set(conn, "PRAGMA secure_delete=FAST")
}

fn set(conn: &Connection, pragma: &str) -> Outcome<()> {
    let mut pragma = conn.prepare(pragma)?;
    let mut rows = pragma.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Bytes of the database file, as the header says.
pub(crate) fn database_bytes(conn: &Connection) -> Outcome<u64> {
    let pragma = |sql| -> Outcome<u64> {
        position(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    };
    Ok(pragma("PRAGMA page_count")? * pragma("PRAGMA page_size")?)
}

/// Reads a meta value.
pub(crate) fn meta(conn: &Connection, key: &str) -> Outcome<Option<Vec<u8>>> {
    let mut query = conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(query.query_row([key], |row| row.get(0)).optional()?)
}

/// Reads a meta number; 0 if it was never written.
pub(crate) fn meta_u64(conn: &Connection, key: &str) -> Outcome<u64> {
    match meta(conn, key)? {
        None => Ok(0),
        Some(bytes) => match bytes.try_into() {
            Ok(bytes) => Ok(u64::from_le_bytes(bytes)),
            Err(_) => Err(Failure::Damaged(format!("meta value '{key}' is no number"))),
        },
    }
}

/// Writes a meta value.
pub(crate) fn put_meta(conn: &Connection, key: &str, value: &[u8]) -> Outcome<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute(params![key, value])?;
    Ok(())
}

/// Forgets a meta value.
pub(crate) fn drop_meta(conn: &Connection, key: &str) -> Outcome<()> {
    conn.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([key])?;
    Ok(())
}

/// Appends a commit to the log: one row, one transaction, one fsync.
pub(crate) fn append_commit(conn: &Connection, lsn: Lsn, body: &[u8]) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT INTO log (lsn, body) VALUES (?1, ?2)")?
        .execute(params![column(lsn.get()), body])?;
    Ok(())
}

/// Hands every commit after `after` to `each`, in order.
pub(crate) fn scan_log(
    conn: &Connection,
    after: Lsn,
    mut each: impl FnMut(Lsn, Vec<u8>) -> Outcome<()>,
) -> Outcome<()> {
    let mut query = conn.prepare("SELECT lsn, body FROM log WHERE lsn > ?1 ORDER BY lsn")?;
    let mut found = query.query([column(after.get())])?;
    while let Some(row) = found.next()? {
        each(Lsn::new(position(row.get(0)?)?), row.get(1)?)?;
    }
    Ok(())
}

/// Deletes up to `limit` commits at or before `through`. Returns how many there were.
pub(crate) fn trim_log(conn: &Connection, through: Lsn, limit: u32) -> Outcome<usize> {
    let mut trim = conn.prepare_cached(
        "DELETE FROM log WHERE lsn IN (SELECT lsn FROM log WHERE lsn <= ?1 ORDER BY lsn LIMIT ?2)",
    )?;
    Ok(trim.execute(params![column(through.get()), limit])?)
}

const STREAM_COLUMNS: &str = "SELECT id, name, lsn, row FROM streams";

fn read_stream(row: &rusqlite::Row<'_>) -> Outcome<StreamRow> {
    let id = StreamId::new(position(row.get(0)?)?);
    let name: String = row.get(1)?;
    let lsn = Lsn::new(position(row.get(2)?)?);
    let name = StreamName::new(&name)
        .map_err(|bad| Failure::Damaged(format!("stream {id} has a bad name: {bad}")))?;
    Ok(rows::decode_stream(id, name, lsn, row.get(3)?)?)
}

/// Looks a name up.
pub(crate) fn find(conn: &Connection, name: &str) -> Outcome<Found> {
    let mut query = conn.prepare_cached(&format!("{STREAM_COLUMNS} WHERE name = ?1"))?;
    if let Some(row) = query.query([name])?.next()? {
        return Ok(Found::Stream(Box::new(read_stream(row)?)));
    }
    let mut query = conn.prepare_cached("SELECT epoch FROM tombstones WHERE name = ?1")?;
    let epoch: Option<u32> = query.query_row([name], |row| row.get(0)).optional()?;
    Ok(Found::Absent(epoch.map(Epoch::new)))
}

/// Looks an id up.
pub(crate) fn find_id(conn: &Connection, id: StreamId) -> Outcome<Option<StreamRow>> {
    let mut query = conn.prepare_cached(&format!("{STREAM_COLUMNS} WHERE id = ?1"))?;
    match query.query([column(id.get())])?.next()? {
        Some(row) => read_stream(row).map(Some),
        None => Ok(None),
    }
}

/// Up to `limit` streams in name order, from `from` on.
pub(crate) fn list(conn: &Connection, from: &str, limit: usize) -> Outcome<Vec<StreamRow>> {
    let sql = format!("{STREAM_COLUMNS} WHERE name >= ?1 ORDER BY name LIMIT ?2");
    let mut query = conn.prepare_cached(&sql)?;
    let mut found = query.query(params![from, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push(read_stream(row)?);
    }
    Ok(rows)
}

/// Names of streams whose stored deadline has passed, longest first: up to `limit` of each kind.
pub(crate) fn due(
    conn: &Connection,
    store: StoreMs,
    wall: WallMs,
    limit: u32,
) -> Outcome<Vec<StreamName>> {
    let mut query = conn.prepare_cached(
        "SELECT * FROM (SELECT name FROM streams WHERE due_store <= ?1 ORDER BY due_store LIMIT ?3)
         UNION ALL
         SELECT * FROM (SELECT name FROM streams WHERE due_wall <= ?2 ORDER BY due_wall LIMIT ?3)",
    )?;
    let mut found = query.query(params![column(store.get()), column(wall.get()), limit])?;
    let mut names = Vec::new();
    while let Some(row) = found.next()? {
        let name: String = row.get(0)?;
        names.push(StreamName::new(&name).map_err(|bad| Failure::Damaged(bad.to_string()))?);
    }
    Ok(names)
}

/// Names of streams that have something to let go of, longest first: up to `limit`.
pub(crate) fn due_for_trim(
    conn: &Connection,
    wall: WallMs,
    limit: u32,
) -> Outcome<Vec<StreamName>> {
    let mut query = conn.prepare_cached(
        "SELECT name FROM streams WHERE due_trim <= ?1 ORDER BY due_trim LIMIT ?2",
    )?;
    let mut found = query.query(params![column(wall.get()), limit])?;
    let mut names = Vec::new();
    while let Some(row) = found.next()? {
        let name: String = row.get(0)?;
        names.push(StreamName::new(&name).map_err(|bad| Failure::Damaged(bad.to_string()))?);
    }
    Ok(names)
}

/// Writes a stream's row.
pub(crate) fn put_stream(conn: &Connection, row: &StreamRow) -> Outcome<()> {
    let retired = row.state.retired;
    let due_wall = match row.identity.expiry {
        // What is kept for its forks has ended already.
        _ if retired => None,
        Expiry::At(at) => Some(column(at.get().min(1 << 62))),
        Expiry::Never | Expiry::Sliding { .. } => None,
    };
    let deadline = row.state.deadline.filter(|_| !retired);
    let due_store = deadline.map(|at| column(at.get().min(1 << 62)));
    let fork = row.identity.fork.as_ref();
    let kept = &row.state.kept;
    let due_trim = decide::retention::due(kept, row.identity.own_start()).filter(|_| !retired);
    let due_trim = due_trim.map(|at| column(at.get().min(1 << 62)));
    let body = rows::encode_stream(&row.identity, &row.state, row.sealed);
    conn.prepare_cached(
        "INSERT INTO streams (id, name, lsn, due_store, due_wall, source, fork_at, retired,
             earliest, trimmed, due_trim, row)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (id) DO UPDATE SET lsn = excluded.lsn, due_store = excluded.due_store,
             due_wall = excluded.due_wall, retired = excluded.retired,
             earliest = excluded.earliest, trimmed = excluded.trimmed,
             due_trim = excluded.due_trim, row = excluded.row",
    )?
    .execute(params![
        column(row.identity.id.get()),
        row.identity.name.as_str(),
        column(row.state.lsn.get()),
        due_store,
        due_wall,
        fork.map(|fork| column(fork.source.get())),
        fork.map(|fork| column(fork.at.get())),
        retired,
        column(kept.earliest.get()),
        column(kept.trimmed.get()),
        due_trim,
        &body[..],
    ])?;
    Ok(())
}

/// Deletes up to `limit` producers of a stream. Returns how many there were.
pub(crate) fn drop_producers(conn: &Connection, id: StreamId, limit: usize) -> Outcome<usize> {
    let mut drop = conn.prepare_cached(
        "DELETE FROM producers WHERE stream = ?1 AND producer IN
         (SELECT producer FROM producers WHERE stream = ?1 LIMIT ?2)",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(drop.execute(params![column(id.get()), limit])?)
}

/// Removes a stream and remembers the epoch its name was last used under.
pub(crate) fn bury(conn: &Connection, id: StreamId, name: &str, epoch: Epoch) -> Outcome<()> {
    conn.prepare_cached("DELETE FROM streams WHERE id = ?1")?.execute([column(id.get())])?;
    conn.prepare_cached(
        "INSERT INTO tombstones (name, epoch) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET epoch = max(epoch, excluded.epoch)",
    )?
    .execute(params![name, epoch.get()])?;
    Ok(())
}

/// Looks a producer up: its state and the commit that state reflects.
pub(crate) fn producer(
    conn: &Connection,
    stream: StreamId,
    id: &str,
) -> Outcome<Option<(Producer, Lsn)>> {
    let mut query =
        conn.prepare_cached("SELECT row, lsn FROM producers WHERE stream = ?1 AND producer = ?2")?;
    match query.query(params![column(stream.get()), id])?.next()? {
        Some(row) => producer_row(row).map(Some),
        None => Ok(None),
    }
}

/// Reads the columns row and lsn.
fn producer_row(row: &rusqlite::Row<'_>) -> Outcome<(Producer, Lsn)> {
    Ok((rows::decode_producer(row.get(0)?)?, Lsn::new(position(row.get(1)?)?)))
}

/// Writes a producer's row.
pub(crate) fn put_producer(
    conn: &Connection,
    stream: StreamId,
    id: &ProducerId,
    producer: &Producer,
    lsn: Lsn,
) -> Outcome<()> {
    let body = rows::encode_producer(producer);
    conn.prepare_cached(
        "INSERT OR REPLACE INTO producers (stream, producer, lsn, row) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![column(stream.get()), id.as_str(), column(lsn.get()), &body[..]])?;
    Ok(())
}
