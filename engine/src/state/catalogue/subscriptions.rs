//! Rows of subscriptions and of the links that are kept, and the tails that links start at.

use rusqlite::{Connection, params};

use super::super::rows::StreamRow;
use super::{Failure, Found, Outcome, column, find, position};
use crate::{
    subscribe::{
        entry::Number,
        links::Stored,
        request::SubscriptionId,
        rows::{self, LinkRow, SubscriptionRow},
    },
    types::{Lsn, Offset, StreamId, StreamName},
};

pub(super) const SCHEMA: &str = "
CREATE TABLE subscriptions (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, lsn INTEGER NOT NULL, row BLOB NOT NULL);
CREATE TABLE links (
    subscription INTEGER NOT NULL, path TEXT NOT NULL, lsn INTEGER NOT NULL, row BLOB NOT NULL,
    PRIMARY KEY (subscription, path)) WITHOUT ROWID;
";

/// Hands up to `limit` subscriptions behind `after` to `each`, by number.
pub(crate) fn scan_subscriptions_after(
    conn: &Connection,
    after: Number,
    limit: u32,
    mut each: impl FnMut(SubscriptionRow) -> Outcome<()>,
) -> Outcome<()> {
    let sql = "SELECT number, id, lsn, row FROM subscriptions WHERE number > ?1
         ORDER BY number LIMIT ?2";
    let mut query = conn.prepare(sql)?;
    let mut found = query.query(params![column(after.get()), limit])?;
    while let Some(row) = found.next()? {
        each(read_subscription(row)?)?;
    }
    Ok(())
}

/// Reads the columns number, id, lsn and row.
pub(super) fn read_subscription(row: &rusqlite::Row<'_>) -> Outcome<SubscriptionRow> {
    let number = Number::new(position(row.get(0)?)?);
    let id: String = row.get(1)?;
    let id = SubscriptionId::new(&id)
        .ok_or_else(|| Failure::Damaged(format!("subscription {number} has a bad id")))?;
    let lsn = Lsn::new(position(row.get(2)?)?);
    Ok(rows::decode_subscription(number, id, lsn, row.get(3)?)?)
}

/// Hands every link that is kept to `each`, by subscription.
pub(crate) fn scan_links(
    conn: &Connection,
    mut each: impl FnMut(LinkRow) -> Outcome<()>,
) -> Outcome<()> {
    let mut query =
        conn.prepare("SELECT subscription, path, lsn, row FROM links ORDER BY subscription, path")?;
    let mut found = query.query([])?;
    while let Some(row) = found.next()? {
        each(read_link(row)?)?;
    }
    Ok(())
}

/// Reads the columns subscription, path, lsn and row.
pub(super) fn read_link(row: &rusqlite::Row<'_>) -> Outcome<LinkRow> {
    let number = Number::new(position(row.get(0)?)?);
    let path: String = row.get(1)?;
    let path = StreamName::new(&path).map_err(|bad| {
        Failure::Damaged(format!("a link of subscription {number} has a bad path: {bad}"))
    })?;
    let lsn = Lsn::new(position(row.get(2)?)?);
    Ok(rows::decode_link(number, path, lsn, row.get(3)?)?)
}

/// Writes a subscription's row; `body` is what [`rows::encode_subscription`] made.
pub(crate) fn put_subscription(
    conn: &Connection,
    number: Number,
    id: &SubscriptionId,
    lsn: Lsn,
    body: &[u8],
) -> Outcome<()> {
    conn.prepare_cached(
        "INSERT INTO subscriptions (number, id, lsn, row) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (number) DO UPDATE SET lsn = excluded.lsn, row = excluded.row",
    )?
    .execute(params![column(number.get()), id.as_str(), column(lsn.get()), body])?;
    Ok(())
}

/// Writes a link's row, or removes it if the link is not kept any more.
pub(crate) fn put_link(
    conn: &Connection,
    number: Number,
    path: &StreamName,
    link: Option<&Stored>,
    lsn: Lsn,
) -> Outcome<()> {
    let (number, path) = (column(number.get()), path.as_str());
    let Some(link) = link else {
        conn.prepare_cached("DELETE FROM links WHERE subscription = ?1 AND path = ?2")?
            .execute(params![number, path])?;
        return Ok(());
    };
    let body = rows::encode_link(link);
    conn.prepare_cached(
        "INSERT OR REPLACE INTO links (subscription, path, lsn, row) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![number, path, column(lsn.get()), &body[..]])?;
    Ok(())
}

/// Deletes up to `limit` links of a subscription. Returns how many there were.
pub(crate) fn drop_links(conn: &Connection, number: Number, limit: usize) -> Outcome<usize> {
    let mut drop = conn.prepare_cached(
        "DELETE FROM links WHERE subscription = ?1 AND path IN
         (SELECT path FROM links WHERE subscription = ?1 LIMIT ?2)",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(drop.execute(params![column(number.get()), limit])?)
}

/// Removes a subscription whose links are gone.
pub(crate) fn drop_subscription(conn: &Connection, number: Number) -> Outcome<()> {
    conn.prepare_cached("DELETE FROM subscriptions WHERE number = ?1")?
        .execute([column(number.get())])?;
    Ok(())
}

/// The stream under each name and its tail, if there is one that is not deleted.
pub(crate) fn tails(
    conn: &Connection,
    names: &[StreamName],
) -> Outcome<Vec<Option<(StreamId, Offset)>>> {
    let tail = |name: &StreamName| {
        Ok(match find(conn, name.as_str())? {
            Found::Stream(row) if !row.state.retired => Some((row.identity.id, row.state.tail())),
            Found::Stream(_) | Found::Absent(_) => None,
        })
    };
    names.iter().map(tail).collect()
}

/// Streams whose names begin with `prefix` and are `wanted`, in order, up to `limit`; looks at no
/// more than `examined_max` names. Names come from their index alone, so those that are not
/// wanted cost little.
pub(crate) fn matching(
    conn: &Connection,
    prefix: &str,
    (limit, examined_max): (usize, usize),
    wanted: impl Fn(&StreamName) -> bool,
) -> Outcome<Vec<StreamRow>> {
    let sql = "SELECT name FROM streams WHERE name >= ?1 ORDER BY name LIMIT ?2";
    let mut query = conn.prepare_cached(sql)?;
    let examined_max = i64::try_from(examined_max).unwrap_or(i64::MAX);
    let mut names = query.query(params![prefix, examined_max])?;
    let mut found = Vec::new();
    while let Some(row) = names.next()? {
        let name: String = row.get(0)?;
        if !name.starts_with(prefix) || found.len() >= limit {
            break;
        }
        let name = StreamName::new(&name).map_err(|bad| Failure::Damaged(bad.to_string()))?;
        if wanted(&name)
            && let Found::Stream(row) = find(conn, name.as_str())?
        {
            found.push(*row);
        }
    }
    Ok(found)
}
