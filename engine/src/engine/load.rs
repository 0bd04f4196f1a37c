//! Getting streams into memory before anything is decided or read, and keeping them alive.

use std::sync::Arc;

use super::{durable, head_of};
use crate::{
    core::Core,
    decide::expiry,
    log::sequencer::Missing,
    request::{Error, List, ListRow, Rejection},
    state::{
        catalogue::{self, Failure, Found},
        rows::StreamRow,
        view::{Life, Stream},
    },
    types::{Expiry, StreamName, WallMs},
};

fn unreadable(error: Failure) -> Error {
    match error {
        Failure::Sqlite(error) => Error::ReadFailed(error.to_string()),
        Failure::Malformed(bad) => Error::Corrupt(bad.to_string()),
        Failure::Damaged(text) => Error::Corrupt(text),
    }
}

impl Core {
    /// Puts on the shelf what a request needs to be decided.
    pub(crate) async fn load(
        self: &Arc<Self>,
        name: &StreamName,
        missing: Missing,
    ) -> Result<(), Error> {
        match missing {
            Missing::Name => self.load_name(name).await.map(drop),
            Missing::Producer(stream, id) => {
                let asked = self.shelf.folds();
                let (stream_id, producer) = (stream.identity.id, id.clone());
                let found = self
                    .on_reader(move |conn| catalogue::producer(conn, stream_id, producer.as_str()))
                    .await
                    .map_err(unreadable)?;
                self.sequencer.learn(&stream, id, found.map(|(state, _)| state), asked);
                Ok(())
            }
        }
    }

    /// Asks the catalogue for a name and shelves the answer. Returns whether there is a stream.
    async fn load_name(self: &Arc<Self>, name: &StreamName) -> Result<bool, Error> {
        loop {
            let asked = self.shelf.folds();
            let key = name.clone();
            let found = self
                .on_reader(move |conn| catalogue::find(conn, key.as_str()))
                .await
                .map_err(unreadable)?;
            let there = matches!(found, Found::Stream(_));
            if self.shelf.admit(name, found, asked) {
                return Ok(there);
            }
        }
    }

    /// The stream that readers see under a name.
    pub(crate) async fn visible(
        self: &Arc<Self>,
        name: &StreamName,
    ) -> Result<Option<Arc<Stream>>, Error> {
        loop {
            if let Some(visible) = self.shelf.get(name, |slot| slot.visible.clone()) {
                return Ok(visible);
            }
            self.load_name(name).await?;
        }
    }

    /// The stream under a name, if its time has not passed. If it has, the stream ends first.
    pub(crate) async fn living(self: &Arc<Self>, name: &StreamName) -> Result<Arc<Stream>, Error> {
        let Some(stream) = self.visible(name).await? else {
            return Err(Rejection::NotFound.into());
        };
        if matches!(stream.identity.expiry, Expiry::Never) {
            return Ok(stream);
        }
        let now = self.now();
        let deadline = stream.durable.lock().state.deadline;
        if !stream.has_expired(deadline, now) {
            return Ok(stream);
        }
        match self.sequencer.expire(&stream, now) {
            Ok(None) => return Ok(stream),
            Ok(Some(gate)) => durable(&gate).await?,
            // Its time has passed, whether or not that can be written down now.
            Err(_) => {}
        }
        Err(Rejection::NotFound.into())
    }

    /// Notes a touch. Writes only if the durable deadline would otherwise come too early after a
    /// crash, at most once per quantum; then waits for it (INV-12 a window never passes early).
    pub(crate) async fn keep_alive(&self, stream: &Arc<Stream>, ahead_ms: u64) {
        let Some(ttl_seconds) = stream.ttl_seconds() else {
            return;
        };
        let now = self.now();
        stream.pulse.touch(now.store);
        let end = expiry::window_end(ttl_seconds, now.store).plus(ahead_ms);
        if stream.durable.lock().state.deadline.is_some_and(|stored| stored >= end) {
            return;
        }
        if let Ok(Some(gate)) = self.sequencer.renew(stream, now, ahead_ms) {
            // A store that takes no writes can't remember touches: the old deadline stands.
            drop(durable(&gate).await);
        }
    }

    /// The catalogue's rows, corrected by what it does not know yet.
    pub(crate) async fn list(self: &Arc<Self>, list: List) -> Result<Vec<ListRow>, Error> {
        let mut rows = Vec::new();
        let mut skip = list.skip;
        let mut from = first_candidate(&list);
        let prefix = list.prefix.clone().unwrap_or_default();
        loop {
            let (page, more) = self.names_from(&from, PAGE).await?;
            let last = page.last().map(|(name, _)| name.clone());
            for (name, stream) in page {
                if !name.as_str().starts_with(&prefix) {
                    if name.as_str() > prefix.as_str() {
                        return Ok(rows);
                    }
                    continue;
                }
                let Some(row) = self.list_row(stream) else {
                    continue;
                };
                if skip > 0 {
                    skip -= 1;
                } else if rows.len() < list.limit {
                    rows.push(row);
                }
                if rows.len() >= list.limit {
                    return Ok(rows);
                }
            }
            match last {
                Some(last) if more => from = format!("{last}\0"),
                _ => return Ok(rows),
            }
        }
    }

    /// Streams in name order from `from` on, about `limit`, and whether there may be more.
    async fn names_from(
        self: &Arc<Self>,
        from: &str,
        limit: usize,
    ) -> Result<(Vec<(StreamName, Listed)>, bool), Error> {
        let start = from.to_owned();
        let asked = self.shelf.folds();
        let rows = self
            .on_reader(move |conn| catalogue::list(conn, &start, limit))
            .await
            .map_err(unreadable)?;
        let more = rows.len() == limit;
        let end = rows.last().map(|row| row.identity.name.clone()).filter(|_| more);
        let mut names: std::collections::BTreeMap<StreamName, Listed> = rows
            .into_iter()
            .map(|row| (row.identity.name.clone(), Listed::Row(Box::new(row))))
            .collect();
        let unfolded = self.unfolded.lock();
        if self.shelf.folds() != asked {
            // What those rows lacked is on no list any more.
            drop(unfolded);
            return Box::pin(self.names_from(from, limit)).await;
        }
        for differing in [&unfolded.folding, &unfolded.names] {
            let inside = differing
                .iter()
                .filter(|(name, _)| name.as_str() >= from)
                .take_while(|(name, _)| end.as_ref().is_none_or(|end| *name <= end));
            for (name, stream) in inside {
                match stream {
                    None => drop(names.remove(name)),
                    Some(stream) => {
                        drop(names.insert(name.clone(), Listed::Stream(Arc::clone(stream))))
                    }
                }
            }
        }
        Ok((names.into_iter().collect(), more))
    }

    fn list_row(&self, listed: Listed) -> Option<ListRow> {
        let now = self.now();
        let stream = match listed {
            Listed::Stream(stream) => stream,
            Listed::Row(row) => {
                let shelved = self.shelf.get(&row.identity.name, |slot| slot.visible.clone());
                match shelved {
                    Some(None) => return None,
                    Some(Some(stream)) => stream,
                    None => Arc::new(Stream::loaded(row.identity, row.state, row.sealed)),
                }
            }
        };
        let durable = stream.durable.lock();
        let deadline = durable.state.deadline;
        if durable.life != Life::Live || stream.has_expired(deadline, now) {
            return None;
        }
        let expires_at = match stream.identity.expiry {
            Expiry::Never => None,
            Expiry::At(at) => Some(at),
            Expiry::Sliding { .. } => deadline.map(|deadline| {
                WallMs::new(
                    now.wall.get().saturating_add(deadline.get().saturating_sub(now.store.get())),
                )
            }),
        };
        let sealed_through = durable.state.lineage.offset(durable.sealed);
        Some(ListRow { head: head_of(&stream, &durable.state), expires_at, sealed_through })
    }
}

/// Rows fetched at a time.
const PAGE: usize = 256;

/// Where a listed stream was found.
enum Listed {
    Row(Box<StreamRow>),
    Stream(Arc<Stream>),
}

fn first_candidate(list: &List) -> String {
    let after = list.after.as_ref().map(|after| format!("{after}\0"));
    let prefix = list.prefix.clone().unwrap_or_default();
    after.map_or(prefix.clone(), |after| after.max(prefix))
}
