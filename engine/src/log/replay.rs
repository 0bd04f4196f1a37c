//! Replay: folds the log's suffix above `folded_through` into memory at start, so that boot costs
//! what the memtable holds, whatever the number of streams.
//!
//! A state row that a crash left ahead of the fold has some entries in it already; it carries the
//! lsn it reflects, and entries up to that are not folded in again. Records are taken in if no
//! segment has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use rusqlite::Connection;

use super::{
    commit::{self, Link, StoreId},
    entry::{self, Entry},
};
use crate::{
    core::{Burial, Unfolded},
    state::{
        catalogue::{self, Failure},
        shelf::Shelf,
        stream::{Identity, Producer, StreamState},
        view::{Life, Stream},
    },
    subscribe::{registry::Registry, restore::Restore},
    types::{Lsn, StoreMs, StreamId, WallMs},
};

/// What replay found.
pub(crate) struct Replayed {
    pub(crate) link: Link,
    pub(crate) store_ms: StoreMs,
    pub(crate) next_stream: u64,
    pub(crate) unfolded: Unfolded,
    pub(crate) memtable_bytes: usize,
    pub(crate) commits: u64,
    /// Bytes of those commits.
    pub(crate) log_bytes: u64,
}

struct Replay<'a> {
    conn: &'a Connection,
    shelf: &'a Shelf,
    streams: BTreeMap<StreamId, Arc<Stream>>,
    /// Streams that entries named but that are nowhere: a fold that a crash cut short buried them
    /// already, so each of their ends must follow in the log.
    orphans: BTreeSet<StreamId>,
    subscriptions: Restore,
    found: Replayed,
}

/// Reads the log and folds it.
pub(crate) fn run(
    conn: &Connection,
    shelf: &Shelf,
    store: StoreId,
) -> Result<(Replayed, Registry), Failure> {
    let folded = Lsn::new(catalogue::meta_u64(conn, "folded_through")?);
    let crc = u32::try_from(catalogue::meta_u64(conn, "folded_crc")?)
        .map_err(|_| Failure::Damaged("folded_crc is no checksum".into()))?;
    let mut replay = Replay {
        conn,
        shelf,
        streams: BTreeMap::new(),
        orphans: BTreeSet::new(),
        subscriptions: Restore::load(conn, folded)?,
        found: Replayed {
            link: Link { lsn: folded, crc },
            store_ms: StoreMs::new(catalogue::meta_u64(conn, "store_ms")?),
            next_stream: catalogue::meta_u64(conn, "next_stream")?,
            unfolded: Unfolded::default(),
            memtable_bytes: 0,
            commits: 0,
            log_bytes: 0,
        },
    };
    catalogue::scan_log(conn, folded, |lsn, row| replay.commit(store, lsn, row))?;
    let Replay { streams, orphans, subscriptions, mut found, .. } = replay;
    if let Some(id) = orphans.first() {
        return Err(Failure::Damaged(format!("the log names stream {id}, which is nowhere")));
    }
    let subscriptions = subscriptions.finish()?;
    let buried = !found.unfolded.burials.is_empty();
    let nothing = streams.is_empty() && !buried && !subscriptions.has_unfolded();
    found.unfolded.since = (!nothing).then_some(found.store_ms);
    found.unfolded.streams = streams.into_values().collect();
    Ok((found, subscriptions))
}

/// Makes a commit without entries, if there is room for it. What a cut-off fold had sealed ends with the
/// last commit, and goes on in the next seal: if that ended with the same commit, nothing would tell
/// for good which of the two comes first, as a merge gives the older one a higher number.
pub(crate) fn part(
    conn: &Connection,
    (store, writer_epoch, wall): (StoreId, u64, WallMs),
    found: &mut Replayed,
) -> Result<(), Failure> {
    let header = commit::Header {
        store,
        lsn: found.link.lsn.next(),
        writer_epoch,
        wall,
        store_ms: found.store_ms,
        entries: 0,
        before: found.link,
    };
    let mut bytes = BytesMut::zeroed(commit::HEADER_BYTES);
    let link = commit::finish(&header, &mut bytes);
    match catalogue::append_commit(conn, link.lsn, &bytes) {
        Err(error) if catalogue::is_full(&error) => {
            tracing::warn!(%error, "no room for a commit that parts this start's seals from older ones");
            return Ok(());
        }
        appended => appended?,
    }
    weir_io::sometimes!("a start parted its seals from that of a cut-off fold");
    found.link = link;
    found.log_bytes += u64::try_from(bytes.len()).expect("usize fits u64");
    Ok(())
}

impl Replay<'_> {
    fn commit(&mut self, store: StoreId, lsn: Lsn, row: Vec<u8>) -> Result<(), Failure> {
        let damaged = |what: &str| Failure::Damaged(format!("log commit {lsn}: {what}"));
        self.found.log_bytes += u64::try_from(row.len()).expect("usize fits u64");
        let (header, link, body) =
            commit::open(&Bytes::from(row)).map_err(|bad| damaged(&bad.to_string()))?;
        if header.store != store {
            return Err(damaged("belongs to another store"));
        }
        if header.lsn != lsn {
            return Err(damaged("lies under another number"));
        }
        if header.before != self.found.link {
            return Err(damaged("does not follow the commit before it"));
        }
        let entries = entry::decode_all(body).map_err(|bad| damaged(&bad.to_string()))?;
        if u32::try_from(entries.len()) != Ok(header.entries) {
            return Err(damaged("has another number of entries than it says"));
        }
        for entry in entries {
            self.entry(entry, lsn)?;
        }
        self.found.link = link;
        self.found.store_ms = self.found.store_ms.max(header.store_ms);
        self.found.commits += 1;
        Ok(())
    }

    fn entry(&mut self, entry: Entry, lsn: Lsn) -> Result<(), Failure> {
        match entry {
            Entry::Create(create) => self.create(create, lsn),
            Entry::Write(write) => self.write(write, lsn),
            Entry::Delete(delete) => self.delete(&delete, lsn),
            Entry::Subscription(entry) => self.subscriptions.entry(&entry, lsn),
            Entry::Retire { stream, .. } => {
                if let Some(stream) = self.stream(stream)? {
                    let mut durable = stream.durable.lock();
                    durable.state.retired = true;
                    durable.state.lsn = durable.state.lsn.max(lsn);
                    drop(durable);
                    let identity = &stream.identity;
                    self.subscriptions.registry().ended(&identity.name, identity.id, lsn);
                }
                Ok(())
            }
            Entry::Trim(trim) => {
                if let Some(stream) = self.stream(trim.stream)? {
                    let mut durable = stream.durable.lock();
                    let state = &durable.state;
                    let fits = trim.earliest > state.kept.earliest
                        && trim.earliest <= state.next
                        && trim.dropped <= state.kept.bytes;
                    if lsn > durable.reflected && !fits {
                        return Err(Failure::Damaged(format!(
                            "log commit {lsn}: '{}' is trimmed to {}, which it can't be",
                            stream.identity.name, trim.earliest
                        )));
                    }
                    durable.trim(&trim, lsn);
                }
                Ok(())
            }
            Entry::Retain { stream, retention } => {
                if let Some(stream) = self.stream(stream)? {
                    let mut durable = stream.durable.lock();
                    if lsn > durable.reflected {
                        durable.state.kept.retention = retention;
                        durable.state.lsn = lsn;
                    }
                }
                Ok(())
            }
            Entry::Renew { stream, deadline } => {
                let Some(stream) = self.stream(stream)? else {
                    return Ok(());
                };
                let mut durable = stream.durable.lock();
                if lsn > durable.reflected {
                    durable.state.deadline = Some(deadline);
                    durable.state.lsn = lsn;
                }
                Ok(())
            }
        }
    }

    fn create(&mut self, create: entry::Create, lsn: Lsn) -> Result<(), Failure> {
        self.found.next_stream = self.found.next_stream.max(create.stream.get() + 1);
        if let Some(fork) = &create.fork
            && let Some(source) = self.stream(fork.source)?
        {
            source.durable.lock().refer(lsn);
        }
        let epoch = create.lineage.newest();
        let stream = match catalogue::find_id(self.conn, create.stream)? {
            Some(row) => {
                weir_io::sometimes!("replay met a row ahead of the fold");
                Arc::new(Stream::loaded(row.identity, row.state, row.sealed))
            }
            None => {
                let identity = Identity {
                    id: create.stream,
                    name: create.name.clone(),
                    content: create.content.clone(),
                    expiry: create.expiry,
                    created: create.created,
                    fork: create.fork.clone(),
                };
                let state = StreamState::new(&create, lsn);
                // Not part of any fold yet, so the row below this entry is empty.
                let stream = Stream::unborn(identity, state);
                stream.durable.lock().life = Life::Live;
                Arc::new(stream)
            }
        };
        self.found.unfolded.names.insert(create.name, Some(Arc::clone(&stream)));
        self.shelve(&stream, epoch);
        self.streams.insert(create.stream, stream);
        Ok(())
    }

    fn write(&mut self, mut write: entry::Write, lsn: Lsn) -> Result<(), Failure> {
        let Some(stream) = self.stream(write.stream)? else {
            return Ok(());
        };
        let after = self.producer_after(&stream, &write, lsn)?;
        if let Some(records) = &mut write.records {
            // The commit's bytes came in one piece; a stream must not hold all of them.
            records.payload = Bytes::copy_from_slice(&records.payload);
        }
        let mut durable = stream.durable.lock();
        let state = &durable.state;
        let expected =
            lsn <= durable.reflected || (write.first == state.next && state.closed.is_none());
        if !expected {
            let (at, next) = (write.first, state.next);
            let name = &stream.identity.name;
            return Err(Failure::Damaged(format!(
                "log commit {lsn}: write at {at} of stream '{name}', whose tail is {next}"
            )));
        }
        let lineage = durable.state.lineage.clone();
        let (first, records) = (write.first, write.records.as_ref());
        let count = records.map_or(0, crate::types::Records::count);
        self.found.memtable_bytes += durable.apply(write, after, lsn);
        drop(durable);
        let registry = self.subscriptions.registry();
        if count > 0 && !registry.is_empty() {
            let (before, after) = (lineage.offset(first), lineage.offset(first.after(count)));
            registry.wrote(&stream, before, after, lsn);
        }
        Ok(())
    }

    /// The producer's state after a write, `None` if the catalogue has a later one.
    fn producer_after(
        &mut self,
        stream: &Stream,
        write: &entry::Write,
        lsn: Lsn,
    ) -> Result<Option<Producer>, Failure> {
        let Some(tuple) = &write.producer else {
            return Ok(None);
        };
        let unfolded = stream.durable.lock().producers.get(&tuple.id).map(|(it, _)| it.clone());
        let known = match unfolded {
            Some(known) => Some(known),
            None => {
                let id = stream.identity.id;
                let row = catalogue::producer(self.conn, id, tuple.id.as_str())?;
                if row.as_ref().is_some_and(|(_, reflects)| *reflects >= lsn) {
                    weir_io::sometimes!("replay met a producer's row ahead of the fold");
                    self.found.unfolded.ahead.push((id, tuple.id.clone()));
                    return Ok(None);
                }
                row.map(|(producer, _)| producer)
            }
        };
        let count = write.records.as_ref().map_or(0, crate::types::Records::count);
        Ok(Some(Producer::after(known.as_ref(), tuple, write.first.after(count))))
    }

    fn delete(&mut self, delete: &entry::Delete, lsn: Lsn) -> Result<(), Failure> {
        let (mut bytes, mut fork) = (0, None);
        if let Some(stream) = self.stream(delete.stream)? {
            fork.clone_from(&stream.identity.fork);
            let mut durable = stream.durable.lock();
            bytes = durable.state.bytes;
            durable.life = Life::Dead;
            durable.state.lsn = durable.state.lsn.max(lsn);
            self.found.memtable_bytes -= durable.chunks.weight().cost;
            drop(durable.chunks.take());
        }
        if let Some(source) = delete.source
            && let Some(source) = self.stream(source)?
        {
            source.durable.lock().release(lsn);
        }
        self.subscriptions.registry().ended(&delete.name, delete.stream, lsn);
        self.orphans.remove(&delete.stream);
        self.found.unfolded.names.insert(delete.name.clone(), None);
        self.found.unfolded.burials.push(Burial {
            id: delete.stream,
            bytes,
            name: delete.name.clone(),
            epoch: delete.epoch,
            fork,
        });
        self.shelf.change(&delete.name, |slot| {
            slot.visible = None;
            slot.latest = None;
            slot.epoch = Some(delete.epoch);
            slot.burials += 1;
        });
        Ok(())
    }

    /// A stream that an entry names: met before, or in the catalogue.
    fn stream(&mut self, id: StreamId) -> Result<Option<Arc<Stream>>, Failure> {
        if let Some(stream) = self.streams.get(&id) {
            return Ok(Some(Arc::clone(stream)));
        }
        let Some(row) = catalogue::find_id(self.conn, id)? else {
            weir_io::sometimes!("replay met a stream that a cut-off fold had buried");
            self.orphans.insert(id);
            return Ok(None);
        };
        let epoch = row.state.lineage.newest();
        let stream = Arc::new(Stream::loaded(row.identity, row.state, row.sealed));
        self.shelve(&stream, epoch);
        self.streams.insert(id, Arc::clone(&stream));
        Ok(Some(stream))
    }

    fn shelve(&self, stream: &Arc<Stream>, epoch: crate::types::Epoch) {
        self.shelf.change(&stream.identity.name, |slot| {
            slot.visible = Some(Arc::clone(stream));
            slot.latest = Some(Arc::clone(stream));
            slot.epoch = Some(epoch);
        });
    }
}

/// After replay: the decided view starts where the durable one ends, every stream is on the list
/// of the next fold, and forks find what they draw on.
pub(crate) fn align(streams: &[Arc<Stream>], shelf: &Shelf) {
    for stream in streams {
        let mut durable = stream.durable.lock();
        durable.dirty = true;
        if durable.state.refs > 0 {
            shelf.register(stream);
        }
        stream.decided.lock().roll_back(&durable);
    }
}
