//! Getting streams into memory before anything is decided or read, and keeping them alive.

use std::{ops::Bound, sync::Arc};

use weir_io::Sabotage;

use super::{durable, head_of};
use crate::{
    core::Core,
    decide::expiry,
    limits::TOUCHES_OWED_MAX,
    log::{
        gate::Gate,
        sequencer::{Expired, Missing, Mode, Source},
    },
    read::inherited,
    request::{Error, Fork, List, ListRow, Rejection},
    state::{
        catalogue::{self, Failure, Found},
        rows::StreamRow,
        shelf::{Folds, Pin},
        view::Stream,
    },
    types::{Expiry, Form, Lsn, Place, StreamName, WallMs},
};

pub(crate) fn unreadable(error: Failure) -> Error {
    match error {
        Failure::Sqlite(error) => Error::ReadFailed(error.to_string()),
        Failure::Malformed(bad) => Error::Corrupt(bad.to_string()),
        Failure::Damaged(text) => Error::Corrupt(text),
    }
}

impl Core {
    /// Puts on the shelf what a request needs to be decided, and keeps it there as long as the
    /// request holds what this returns: a cascade may need more than the shelf keeps by itself.
    pub(crate) async fn load(self: &Arc<Self>, missing: Missing) -> Result<Vec<Pin>, Error> {
        match missing {
            Missing::Name(name) => {
                self.visible(&name).await?;
                Ok(self.shelf.pin(&name).into_iter().collect())
            }
            Missing::Ancestor(name) => self.ancestors(name).await,
            Missing::Source(name, gate) => {
                if let Some(gate) = gate {
                    gate.wait().await;
                }
                self.visible(&name).await?;
                Ok(self.shelf.pin(&name).into_iter().collect())
            }
            Missing::Producer(stream, id) => {
                let asked = self.shelf.folds();
                let (stream_id, producer) = (stream.identity.id, id.clone());
                let found = self
                    .on_reader(move |conn| catalogue::producer(conn, stream_id, producer.as_str()))
                    .await
                    .map_err(unreadable)?;
                let asked = self.believed(asked);
                self.sequencer.learn(&stream, id, found.map(|(state, _)| state), asked);
                Ok(vec![Pin::Stream(stream)])
            }
        }
    }

    /// A source, and as far as each is kept by one fork only, its source, and so on: what may end
    /// together, looked up once and not again for every link of the chain.
    async fn ancestors(self: &Arc<Self>, name: StreamName) -> Result<Vec<Pin>, Error> {
        let mut found = Vec::new();
        let mut next = Some(name);
        while let Some(name) = next {
            let Some(stream) = self.visible(&name).await? else { break };
            let ends_with_its_fork = {
                let state = &stream.durable.lock().state;
                state.retired && state.refs == 1
            };
            let source = stream.identity.fork.as_ref().filter(|_| ends_with_its_fork);
            next = source.map(|fork| fork.source_name.clone());
            found.push(Pin::Stream(stream));
        }
        Ok(found)
    }

    /// Asks the catalogue for a name and shelves the answer.
    async fn load_name(self: &Arc<Self>, name: &StreamName) -> Result<(), Error> {
        loop {
            let asked = self.shelf.folds();
            let key = name.clone();
            let found = self
                .on_reader(move |conn| catalogue::find(conn, key.as_str()))
                .await
                .map_err(unreadable)?;
            let found = self.as_open(found);
            let asked = self.believed(asked);
            if self.shelf.admit(name, found, asked) {
                return Ok(());
            }
        }
    }

    /// When a look-up was made, unless a defect is planted that takes it for a newer one.
    fn believed(&self, asked: Folds) -> Folds {
        if self.world.sabotage == Sabotage::StaleLoad { self.shelf.folds() } else { asked }
    }

    /// What was found, unless a defect is planted that forgets that it is closed.
    fn as_open(&self, mut found: Found) -> Found {
        if let (Sabotage::ClosedForgotten, Found::Stream(row)) = (self.world.sabotage, &mut found) {
            row.state.closed = None;
        }
        found
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
        let (presence, deadline) = {
            let durable = stream.durable.lock();
            (durable.presence(), durable.state.deadline)
        };
        presence?;
        if matches!(stream.identity.expiry, Expiry::Never) {
            return Ok(stream);
        }
        if !stream.has_expired(deadline, self.now()) {
            return Ok(stream);
        }
        match self.expire(&stream).await {
            Ok(None) => return Ok(stream),
            Ok(Some(gate)) => durable(&gate).await?,
            // Its time has passed, whether or not that can be written down now.
            Err(_) => {}
        }
        let presence = stream.durable.lock().presence();
        Err(presence.err().unwrap_or(Rejection::NotFound).into())
    }

    /// Ends a stream if its time has passed. Returns the gate to wait for; `None` if it has not, or
    /// if the stream was over before.
    pub(crate) async fn expire(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
    ) -> Result<Option<Arc<Gate>>, Error> {
        let mut pins = Vec::new();
        loop {
            match self.sequencer.expire(stream, self.now())? {
                Expired::No => return Ok(None),
                Expired::Ending(gate) => return Ok(Some(gate)),
                Expired::Load(missing) => pins.extend(self.load(missing).await?),
            }
        }
    }

    /// A reader has attached, so from here on the window of its stream can't pass (INV-12). If it passed
    /// just before, while the reader's touch was being written down, the end is waited for: a reader
    /// must not be shown a stream whose end is decided.
    pub(crate) async fn attached(&self, stream: &Stream) -> Result<(), Error> {
        let ending = {
            let view = stream.decided.lock();
            view.gate.clone().filter(|_| view.is_over())
        };
        if let Some(gate) = ending {
            // An end that could not be written down is undone, and the stream lives on.
            gate.wait().await;
        }
        Ok(stream.durable.lock().presence()?)
    }

    /// The source of a fork as it is now, with the record that a sub-offset may cut.
    pub(crate) async fn source(self: &Arc<Self>, fork: &Fork) -> Result<Option<Source>, Error> {
        let Some(stream) = self.visible(&fork.source).await? else {
            return Ok(None);
        };
        let cuts = fork.sub_offset > 0 && stream.identity.content.form() != Form::Json;
        let at = fork.at.filter(|_| cuts).and_then(|offset| {
            let state = &stream.durable.lock().state;
            match state.lineage.place(offset, state.next) {
                Place::At(seq) => Some(seq),
                Place::Beyond | Place::Lost(_) => None,
            }
        });
        let cut = match at {
            None => None,
            Some(at) => match inherited::cut(self, &stream, at).await {
                Ok(cut) => cut,
                // What ended or was trimmed meanwhile can't be forked: the sequencer will say so.
                Err(_) if stream.is_absent() => None,
                Err(_) if stream.durable.lock().state.kept.earliest > at => None,
                Err(error) => return Err(error),
            },
        };
        Ok(Some(Source { stream, cut }))
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
        let noted = match self.sequencer.renew(stream, now, ahead_ms) {
            Ok(Some(gate)) => durable(&gate).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if noted.is_err() {
            self.owe(stream);
        }
    }

    /// A touch could not be written down: the stream stays in memory, which knows of it, until the
    /// log takes writes again. A restart goes by the old deadline.
    pub(crate) fn owe(&self, stream: &Arc<Stream>) {
        weir_io::sometimes!("a touch was remembered until the log took it");
        let mut owed = self.owed.lock();
        if owed.len() < TOUCHES_OWED_MAX {
            owed.insert(stream.identity.id, Arc::clone(stream));
        }
    }

    /// Writes the deadlines of windows that were touched while the log took no writes. Waits for
    /// nothing: a later round looks what has become durable.
    pub(crate) fn renew_owed(&self) {
        if self.sequencer.mode() != Mode::Serving {
            return;
        }
        let owed: Vec<Arc<Stream>> = self.owed.lock().values().cloned().collect();
        for stream in owed {
            let (now, deadline) = (self.now(), stream.durable.lock().state.deadline);
            let end = stream.ttl_seconds().zip(stream.pulse.touched());
            let end = end.map(|(ttl_seconds, touched)| expiry::window_end(ttl_seconds, touched));
            let is_noted = end.is_none_or(|end| deadline.is_some_and(|stored| stored >= end));
            if is_noted || stream.is_absent() || stream.has_expired(deadline, now) {
                self.owed.lock().remove(&stream.identity.id);
            } else if self.sequencer.renew(&stream, now, 0).is_err() {
                return;
            }
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
                let is_row = matches!(stream, Listed::Row(_));
                if is_row && rows.len() == 1 && self.world.sabotage == Sabotage::RowUnlisted {
                    continue;
                }
                let Some(row) = self.list_row(stream) else {
                    continue;
                };
                let after = rows.last().is_none_or(|last: &ListRow| last.head.name < row.head.name);
                assert!(after, "INV-19 the list is what there is: each name once, in order");
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
                .range::<str, _>((Bound::Included(from), Bound::Unbounded))
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

    pub(crate) fn list_row(&self, listed: Listed) -> Option<ListRow> {
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
        if durable.presence().is_err() || stream.has_expired(deadline, now) {
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
        let in_bucket = self.in_bucket.lock().map_or(Lsn::ZERO, |it| it.folded);
        Some(ListRow {
            head: head_of(&stream, &durable.state),
            expires_at,
            sealed_through: durable.state.lineage.offset(durable.sealed),
            uploaded_through: durable.state.lineage.offset(durable.uploads.through(in_bucket)),
        })
    }
}

/// Rows fetched at a time.
const PAGE: usize = 256;

/// Where a listed stream was found.
pub(crate) enum Listed {
    Row(Box<StreamRow>),
    Stream(Arc<Stream>),
}

fn first_candidate(list: &List) -> String {
    let after = list.after.as_ref().map(|after| format!("{after}\0"));
    let prefix = list.prefix.clone().unwrap_or_default();
    after.map_or(prefix.clone(), |after| after.max(prefix))
}
