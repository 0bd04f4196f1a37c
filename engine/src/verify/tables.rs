//! The rows of the tables: each can be read, and forks are where they are counted.
//!
//! Read some at a time. A fold that is under way, or that a crash cut short, has written some of
//! its rows and not others: what the log still has to say about a stream is no damage.

use std::{cell::OnceCell, collections::BTreeSet};

use bytes::Bytes;
use rusqlite::Connection;

use super::{VerifyError, local::Local};
use crate::{
    core::database,
    log::{
        commit,
        entry::{self, Entry},
    },
    state::{
        catalogue::{self, Failure},
        files::Cut,
        rows::StreamRow,
    },
    subscribe::entry::Number,
    types::{Lsn, StreamId},
};

/// Rows of one table that are read in one transaction, with the rows below them.
const ROWS_PER_SLICE: u32 = 256;

/// Some rows of one table.
struct Slice<At> {
    /// What is wrong with which.
    wrong: Vec<(String, String)>,
    /// The last one, if there may be more behind it.
    last: Option<At>,
    count: u64,
}

impl<At> Slice<At> {
    fn new() -> Self {
        Self { wrong: Vec::new(), last: None, count: 0 }
    }

    fn next(&mut self, at: At) {
        self.last = Some(at);
        self.count += 1;
    }

    fn is_full(&self) -> bool {
        self.count == u64::from(ROWS_PER_SLICE)
    }
}

impl Local<'_> {
    /// Reads every row, and counts forks.
    pub(super) fn rows(&mut self) -> Result<(), VerifyError> {
        self.found.checked.streams = self.slices(StreamId::new(0), streams)?;
        let names = |conn: &Connection, after: &String| tombstones(conn, after);
        self.slices(String::new(), names)?;
        self.slices(Number::new(0), subscriptions)?;
        Ok(())
    }

    /// Reads a table in slices. One that can't be read ends it.
    fn slices<At: Clone>(
        &mut self,
        first: At,
        read: impl Fn(&Connection, &At) -> Result<Slice<At>, Failure>,
    ) -> Result<u64, VerifyError> {
        let (mut at, mut count) = (first, 0);
        loop {
            let slice = match self.ask(|conn| read(conn, &at))? {
                Ok(slice) => slice,
                Err(bad) => {
                    self.found.add("row", database(self.config).display(), bad.to_string());
                    return Ok(count);
                }
            };
            count += slice.count;
            let is_full = slice.is_full();
            for (object, text) in slice.wrong {
                self.found.add("row", object, text);
            }
            match slice.last {
                Some(last) if is_full => at = last,
                _ => return Ok(count),
            }
        }
    }
}

fn streams(conn: &Connection, after: &StreamId) -> Result<Slice<StreamId>, Failure> {
    let mut slice = Slice::new();
    let moving = OnceCell::new();
    catalogue::scan_streams_after(conn, *after, ROWS_PER_SLICE, |stream| {
        let id = stream.identity.id;
        slice.next(id);
        if let Some(wrong) = forks(conn, &stream, &moving)? {
            slice.wrong.push((format!("stream '{}'", stream.identity.name), wrong));
        }
        catalogue::scan_producers(conn, id, |_, _, _| Ok(()))
    })?;
    Ok(slice)
}

fn tombstones(conn: &Connection, after: &str) -> Result<Slice<String>, Failure> {
    let mut slice = Slice::new();
    catalogue::scan_tombstones_after(conn, after, ROWS_PER_SLICE, |name, _| {
        slice.next(name.as_str().to_owned());
        Ok(())
    })?;
    Ok(slice)
}

fn subscriptions(conn: &Connection, after: &Number) -> Result<Slice<Number>, Failure> {
    let mut slice = Slice::new();
    catalogue::scan_subscriptions_after(conn, *after, ROWS_PER_SLICE, |subscription| {
        let number = subscription.number;
        slice.next(number);
        catalogue::scan_links_of(conn, number, |_| Ok(()))
    })?;
    Ok(slice)
}

/// What is wrong with the forks of a stream, or with its being one. `moving` is asked for only if
/// something is.
fn forks(
    conn: &Connection,
    stream: &StreamRow,
    moving: &OnceCell<BTreeSet<StreamId>>,
) -> Result<Option<String>, Failure> {
    let id = stream.identity.id;
    let forks = catalogue::forks(conn, id)?;
    let source = stream.identity.fork.as_ref().map(|fork| fork.source);
    let nowhere = match source {
        Some(source) if catalogue::find_id(conn, source)?.is_none() => Some(source),
        _ => None,
    };
    if forks == stream.state.refs && nowhere.is_none() {
        return Ok(None);
    }
    if moving.get().is_none() {
        moving.set(unfolded(conn)?).expect("it was empty");
    }
    let moving = moving.get().expect("it was just set");
    if moving.contains(&id) {
        weir_io::sometimes!("forks were counted while a fold was under way");
        return Ok(None);
    }
    Ok(Some(match nowhere {
        Some(source) => format!("stream {source}, which it was forked from, is nowhere"),
        None => format!("it counts {} forks, there are {forks}", stream.state.refs),
    }))
}

/// The streams that begin, end, gain or lose a fork by what is not folded yet.
fn unfolded(conn: &Connection) -> Result<BTreeSet<StreamId>, Failure> {
    let folded = Cut::load(conn)?.map_or(Lsn::ZERO, |cut| cut.folded.lsn);
    let mut moving = BTreeSet::new();
    catalogue::scan_log(conn, folded, |_, bytes| {
        // What is wrong with the log is said elsewhere.
        let Ok((_, _, body)) = commit::open(&Bytes::from(bytes)) else { return Ok(()) };
        for entry in entry::decode_all(body).unwrap_or_default() {
            match entry {
                Entry::Create(create) => {
                    moving.insert(create.stream);
                    moving.extend(create.fork.map(|fork| fork.source));
                }
                Entry::Delete(delete) => {
                    moving.insert(delete.stream);
                    moving.extend(delete.source);
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    Ok(moving)
}
