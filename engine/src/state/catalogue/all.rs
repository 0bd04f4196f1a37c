//! Tables from their first row to their last, a slice at a time: no statement is open for longer than a
//! slice takes, as the WAL does not start over while one is, and no more than a slice is in memory.

use std::collections::VecDeque;

use rusqlite::Connection;

use super::{
    Outcome,
    subscriptions::scan_subscriptions_after,
    whole::{scan_links_after, scan_producers_after, scan_streams_after, scan_tombstones_after},
};
use crate::{
    ledger::{Change, Row, row},
    state::{rows::StreamRow, stream::Producer},
    subscribe::{
        entry::Number,
        rows::{LinkRow, SubscriptionRow},
    },
    types::{Lsn, ProducerId, StreamId},
};

/// Rows that one statement finds.
const ROWS_PER_SLICE: u32 = 256;

/// Where a scan puts what it finds.
type Take<'a, R> = &'a mut dyn FnMut(R) -> Outcome<()>;

/// Hands every row that `scan` finds behind `start` to `each`.
fn each_slice<K, R>(
    start: K,
    scan: impl Fn(&K, Take<'_, R>) -> Outcome<()>,
    key: impl Fn(&R) -> K,
    mut each: impl FnMut(R) -> Outcome<()>,
) -> Outcome<()> {
    let mut after = start;
    loop {
        let mut rows = Vec::new();
        scan(&after, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = key(last);
        let is_last = !is_full(rows.len());
        rows.into_iter().try_for_each(&mut each)?;
        if is_last {
            return Ok(());
        }
    }
}

fn is_full(rows: usize) -> bool {
    u32::try_from(rows).is_ok_and(|rows| rows >= ROWS_PER_SLICE)
}

/// Hands every stream to `each`, by number.
pub(crate) fn scan_streams(
    conn: &Connection,
    each: impl FnMut(StreamRow) -> Outcome<()>,
) -> Outcome<()> {
    let scan = |after: &StreamId, take: Take<'_, _>| {
        scan_streams_after(conn, *after, ROWS_PER_SLICE, take)
    };
    each_slice(StreamId::new(0), scan, |it| it.identity.id, each)
}

/// Hands every producer of a stream to `each`, by name.
pub(crate) fn scan_producers(
    conn: &Connection,
    stream: StreamId,
    mut each: impl FnMut(ProducerId, Producer, Lsn) -> Outcome<()>,
) -> Outcome<()> {
    let scan = |after: &String, take: Take<'_, _>| {
        let all = |id, producer, lsn| take((id, producer, lsn));
        scan_producers_after(conn, (stream, after), ROWS_PER_SLICE, all)
    };
    let name = |it: &(ProducerId, Producer, Lsn)| it.0.as_str().to_owned();
    each_slice(String::new(), scan, name, |(id, producer, lsn)| each(id, producer, lsn))
}

/// Hands every subscription to `each`, by number.
pub(crate) fn scan_subscriptions(
    conn: &Connection,
    each: impl FnMut(SubscriptionRow) -> Outcome<()>,
) -> Outcome<()> {
    let scan = |after: &Number, take: Take<'_, _>| {
        scan_subscriptions_after(conn, *after, ROWS_PER_SLICE, take)
    };
    each_slice(Number::new(0), scan, |it| it.number, each)
}

/// Hands every kept link of a subscription to `each`, by path.
pub(crate) fn scan_links_of(
    conn: &Connection,
    number: Number,
    each: impl FnMut(LinkRow) -> Outcome<()>,
) -> Outcome<()> {
    let scan = |after: &String, take: Take<'_, _>| {
        scan_links_after(conn, (number, after), ROWS_PER_SLICE, take)
    };
    each_slice(String::new(), scan, |it| it.path.as_str().to_owned(), each)
}

/// Reads every row that ledgers tell of, of all tables, in the order of its key. Whoever reads sees to it
/// that the rows hold still.
#[derive(Clone)]
pub(crate) struct AllRows {
    at: At,
    /// Those that were found and had no turn yet: what belongs to one comes right behind it.
    streams: VecDeque<StreamRow>,
    subscriptions: VecDeque<SubscriptionRow>,
}

/// Behind which row the next one is.
#[derive(Clone)]
enum At {
    Stream(StreamId),
    Producer(StreamId, String),
    Tombstone(String),
    Subscription(Number),
    Link(Number, String),
    End,
}

impl AllRows {
    pub(crate) fn new() -> Self {
        let at = At::Stream(StreamId::new(0));
        Self { at, streams: VecDeque::new(), subscriptions: VecDeque::new() }
    }

    /// The next rows, about as many as one statement finds; none at the end.
    pub(crate) fn slice(&mut self, conn: &Connection) -> Outcome<Vec<Change>> {
        let mut rows = Vec::new();
        while !is_full(rows.len()) && !matches!(self.at, At::End) {
            self.at = self.step(conn, &mut rows)?;
        }
        Ok(rows)
    }

    /// Reads what comes next, and says where that ends.
    fn step(&mut self, conn: &Connection, rows: &mut Vec<Change>) -> Outcome<At> {
        let before = rows.len();
        let at = self.at.clone();
        Ok(match at {
            At::Stream(after) => {
                if self.streams.is_empty() {
                    let found = &mut self.streams;
                    scan_streams_after(conn, after, ROWS_PER_SLICE, |it| {
                        found.push_back(it);
                        Ok(())
                    })?;
                }
                let Some(stream) = self.streams.pop_front() else {
                    return Ok(At::Tombstone(String::new()));
                };
                rows.push(row::stream(&stream));
                At::Producer(stream.identity.id, String::new())
            }
            At::Producer(stream, mut name) => {
                let after = name.clone();
                scan_producers_after(conn, (stream, &after), ROWS_PER_SLICE, |id, it, lsn| {
                    rows.push(row::producer(stream, &id, &it, lsn));
                    id.as_str().clone_into(&mut name);
                    Ok(())
                })?;
                match is_full(rows.len() - before) {
                    true => At::Producer(stream, name),
                    false => At::Stream(stream),
                }
            }
            At::Tombstone(mut name) => {
                let after = name.clone();
                scan_tombstones_after(conn, &after, ROWS_PER_SLICE, |it, epoch| {
                    rows.push(row::tombstone(&it, epoch));
                    it.as_str().clone_into(&mut name);
                    Ok(())
                })?;
                match is_full(rows.len() - before) {
                    true => At::Tombstone(name),
                    false => At::Subscription(Number::new(0)),
                }
            }
            At::Subscription(after) => {
                if self.subscriptions.is_empty() {
                    let found = &mut self.subscriptions;
                    scan_subscriptions_after(conn, after, ROWS_PER_SLICE, |it| {
                        found.push_back(it);
                        Ok(())
                    })?;
                }
                let Some(subscription) = self.subscriptions.pop_front() else {
                    return Ok(At::End);
                };
                let number = subscription.number;
                rows.push(Row::Subscription(Box::new(subscription)).put());
                At::Link(number, String::new())
            }
            At::Link(number, mut path) => {
                let after = path.clone();
                scan_links_after(conn, (number, &after), ROWS_PER_SLICE, |link| {
                    link.path.as_str().clone_into(&mut path);
                    rows.push(Row::Link(link).put());
                    Ok(())
                })?;
                match is_full(rows.len() - before) {
                    true => At::Link(number, path),
                    false => At::Subscription(number),
                }
            }
            At::End => At::End,
        })
    }
}
