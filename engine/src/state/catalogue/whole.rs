//! What a ledger asks: single rows of any table, and slices of tables in the order of their keys.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Failure, Outcome, STREAM_COLUMNS, column, position, producer_row, read_stream,
    subscriptions::{read_link, read_subscription},
};
use crate::{
    state::{rows::StreamRow, stream::Producer},
    subscribe::{
        entry::Number,
        request::SubscriptionId,
        rows::{LinkRow, SubscriptionRow},
    },
    types::{Epoch, Lsn, ProducerId, StreamId, StreamName},
};

/// The last epoch that a free name was used under, if it ever was.
pub(crate) fn tombstone(conn: &Connection, name: &str) -> Outcome<Option<Epoch>> {
    let mut query = conn.prepare_cached("SELECT epoch FROM tombstones WHERE name = ?1")?;
    let epoch: Option<u32> = query.query_row([name], |row| row.get(0)).optional()?;
    Ok(epoch.map(Epoch::new))
}

/// Remembers the last epoch that a name was used under.
pub(crate) fn put_tombstone(conn: &Connection, name: &str, epoch: Epoch) -> Outcome<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO tombstones (name, epoch) VALUES (?1, ?2)")?
        .execute(params![name, epoch.get()])?;
    Ok(())
}

/// A subscription's row.
pub(crate) fn subscription(conn: &Connection, number: Number) -> Outcome<Option<SubscriptionRow>> {
    let mut query =
        conn.prepare_cached("SELECT number, id, lsn, row FROM subscriptions WHERE number = ?1")?;
    match query.query([column(number.get())])?.next()? {
        Some(row) => read_subscription(row).map(Some),
        None => Ok(None),
    }
}

/// The subscription that has this name.
pub(crate) fn subscription_named(
    conn: &Connection,
    id: &SubscriptionId,
) -> Outcome<Option<Number>> {
    let mut query = conn.prepare_cached("SELECT number FROM subscriptions WHERE id = ?1")?;
    let number: Option<i64> = query.query_row([id.as_str()], |row| row.get(0)).optional()?;
    number.map(|number| Ok(Number::new(position(number)?))).transpose()
}

/// How many rows there are that ledgers tell of. It costs a look at each.
pub(crate) fn count_rows(conn: &Connection) -> Outcome<u64> {
    let count = conn.query_row(
        "SELECT (SELECT count(*) FROM streams) + (SELECT count(*) FROM producers)
             + (SELECT count(*) FROM tombstones) + (SELECT count(*) FROM subscriptions)
             + (SELECT count(*) FROM links)",
        [],
        |row| row.get(0),
    );
    position(count?)
}

/// How many streams are forks of this one.
pub(crate) fn forks(conn: &Connection, source: StreamId) -> Outcome<u64> {
    let mut query = conn.prepare_cached("SELECT count(*) FROM streams WHERE source = ?1")?;
    position(query.query_row([column(source.get())], |row| row.get(0))?)
}

/// A link's row, if it is kept.
pub(crate) fn link(
    conn: &Connection,
    number: Number,
    path: &StreamName,
) -> Outcome<Option<LinkRow>> {
    let mut query = conn.prepare_cached(
        "SELECT subscription, path, lsn, row FROM links WHERE subscription = ?1 AND path = ?2",
    )?;
    match query.query(params![column(number.get()), path.as_str()])?.next()? {
        Some(row) => read_link(row).map(Some),
        None => Ok(None),
    }
}

/// Hands up to `limit` kept links of a subscription behind `after` to `each`, by path.
pub(crate) fn scan_links_after(
    conn: &Connection,
    (number, after): (Number, &str),
    limit: u32,
    mut each: impl FnMut(LinkRow) -> Outcome<()>,
) -> Outcome<()> {
    let mut query = conn.prepare_cached(
        "SELECT subscription, path, lsn, row FROM links WHERE subscription = ?1 AND path > ?2
         ORDER BY path LIMIT ?3",
    )?;
    let mut found = query.query(params![column(number.get()), after, limit])?;
    while let Some(row) = found.next()? {
        each(read_link(row)?)?;
    }
    Ok(())
}

/// Hands up to `limit` streams behind `after` to `each`, by number.
pub(crate) fn scan_streams_after(
    conn: &Connection,
    after: StreamId,
    limit: u32,
    mut each: impl FnMut(StreamRow) -> Outcome<()>,
) -> Outcome<()> {
    let sql = format!("{STREAM_COLUMNS} WHERE id > ?1 ORDER BY id LIMIT ?2");
    let mut query = conn.prepare(&sql)?;
    let mut found = query.query(params![column(after.get()), limit])?;
    while let Some(row) = found.next()? {
        each(read_stream(row)?)?;
    }
    Ok(())
}

/// Hands up to `limit` producers of a stream behind `after` to `each`, by name.
pub(crate) fn scan_producers_after(
    conn: &Connection,
    (stream, after): (StreamId, &str),
    limit: u32,
    mut each: impl FnMut(ProducerId, Producer, Lsn) -> Outcome<()>,
) -> Outcome<()> {
    let mut query = conn.prepare_cached(
        "SELECT row, lsn, producer FROM producers WHERE stream = ?1 AND producer > ?2
         ORDER BY producer LIMIT ?3",
    )?;
    let mut found = query.query(params![column(stream.get()), after, limit])?;
    while let Some(row) = found.next()? {
        let id: String = row.get(2)?;
        let id = ProducerId::new(&id)
            .ok_or_else(|| Failure::Damaged(format!("stream {stream} has a bad producer")))?;
        let (producer, lsn) = producer_row(row)?;
        each(id, producer, lsn)?;
    }
    Ok(())
}

/// Hands up to `limit` free names behind `after` that were used before to `each`, in order.
pub(crate) fn scan_tombstones_after(
    conn: &Connection,
    after: &str,
    limit: u32,
    mut each: impl FnMut(StreamName, Epoch) -> Outcome<()>,
) -> Outcome<()> {
    let sql = "SELECT name, epoch FROM tombstones WHERE name > ?1 ORDER BY name LIMIT ?2";
    let mut query = conn.prepare(sql)?;
    let mut found = query.query(params![after, limit])?;
    while let Some(row) = found.next()? {
        let name: String = row.get(0)?;
        let name = StreamName::new(&name).map_err(|bad| Failure::Damaged(bad.to_string()))?;
        each(name, Epoch::new(row.get(1)?))?;
    }
    Ok(())
}

/// Hands the log's commits after `after` and up to `through` to `each`, as they lie there.
pub(crate) fn scan_log_between(
    conn: &Connection,
    (after, through): (Lsn, Lsn),
    mut each: impl FnMut(Lsn, &[u8]) -> Outcome<()>,
) -> Outcome<()> {
    let mut query =
        conn.prepare_cached("SELECT lsn, body FROM log WHERE lsn > ?1 AND lsn <= ?2 ORDER BY lsn")?;
    let mut found = query.query(params![column(after.get()), column(through.get())])?;
    while let Some(row) = found.next()? {
        let body = row.get_ref(1)?.as_blob();
        let body = body.map_err(|_| Failure::Damaged("a commit in the log is no blob".into()))?;
        each(Lsn::new(position(row.get(0)?)?), body)?;
    }
    Ok(())
}
