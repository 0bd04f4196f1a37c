//! The writer: the one lane that writes to SQLite. It commits groups, one row and one fsync
//! each, and between two commits runs at most one slice of other work (a fold, a trim, the end
//! of a checkpoint), so that nothing beside a commit holds it for long.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rusqlite::{Connection, config::DbConfig};
use tokio::sync::mpsc;
use weir_io::Sabotage;

use super::{
    commit::{self, Header, Link},
    gate::{Gate, Outcome},
    group::{Change, Effect, Group},
};
use crate::{
    core::{Burial, Core, Slice},
    state::{
        catalogue,
        view::{Life, Stream},
    },
    subscribe::{
        subscription::{self, Weight},
        touches::Touches,
    },
    types::Lsn,
};

/// The lane's own state.
pub(crate) struct Writer {
    core: Arc<Core>,
    conn: Connection,
    link: Link,
    slices: mpsc::Receiver<Slice>,
    writer_epoch: u64,
}

impl Writer {
    pub(crate) const fn new(
        core: Arc<Core>,
        conn: Connection,
        link: Link,
        writer_epoch: u64,
        slices: mpsc::Receiver<Slice>,
    ) -> Self {
        Self { core, conn, link, slices, writer_epoch }
    }

    /// Works until the store stops and nothing is left to write.
    pub(crate) async fn run(mut self) {
        loop {
            // Nothing more is admitted once the store is stopping, or can't checkpoint any more, so
            // the rest may pass the bound: a full disk, which keeps the WAL full, must not keep the
            // store from stopping, nor a failed sync a request from being answered.
            let last = *self.core.leaving.borrow() || self.core.unsynced.load(Ordering::Acquire);
            let group = match self.core.wal_is_full() && !last {
                true => None,
                false => self.core.sequencer.take(),
            };
            let slice = self.slices.try_recv().ok();
            let idle = group.is_none() && slice.is_none();
            if let Some(group) = group {
                self.commit(group).await;
            }
            if let Some(slice) = slice {
                self.run_slice(slice).await;
            }
            if idle {
                if self.core.writer_may_end.load(Ordering::Acquire) {
                    return self.leave();
                }
                self.core.sequencer.work.notified().await;
            }
        }
    }

    /// Closing the connection checkpoints, which must not happen once a sync of the database failed.
    fn leave(self) {
        let Self { core, conn, .. } = self;
        let _alone = core.checkpointing.lock();
        if core.unsynced.load(Ordering::Acquire)
            && let Err(error) = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            // Rather no clean end than a database without its last pages.
            tracing::error!(%error, "the database is left as it is");
            std::mem::forget(conn);
            return;
        }
        drop(conn);
    }

    async fn commit(&mut self, mut group: Group) {
        let core = Arc::clone(&self.core);
        let now = core.now();
        let header = Header {
            store: core.store,
            lsn: group.lsn,
            writer_epoch: self.writer_epoch,
            wall: now.wall,
            store_ms: now.store,
            entries: group.entries,
            before: self.link,
        };
        let link = commit::finish(&header, &mut group.bytes);
        if core.world.sabotage == Sabotage::BellBeforeCommit {
            ring(group.effects.iter().filter_map(Effect::stream));
        }
        let started = core.world.clock.elapsed();
        if core.world.sabotage == Sabotage::VisibleBeforeDurable && group.only_writes() {
            return self.show_and_commit(group, link).await;
        }
        let stored = catalogue::append_commit(&self.conn, group.lsn, &group.bytes);
        self.survive().await;
        core.metrics.commit_took(core.world.clock.elapsed() - started);
        match stored {
            Ok(()) => {
                assert!(self.conn.is_autocommit(), "INV-1 acked is kept: no transaction is open");
                self.link = link;
                if core.world.sabotage == Sabotage::ToldBeforeVisible && group.only_writes() {
                    group.gate.open(Outcome::Durable);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                settle(&core, group, link);
            }
            Err(error) if catalogue::is_full(&error) && self.conn.is_autocommit() => {
                core.metrics.commits_failed.inc();
                tracing::warn!(lsn = %group.lsn, "disk full: commit refused, nothing of it is stored");
                weir_io::sometimes!("a commit was refused by a full disk");
                core.sequencer.refuse_full(group);
                core.keeper.notify_one();
            }
            Err(error) => {
                core.metrics.commits_failed.inc();
                tracing::error!(lsn = %group.lsn, %error, "commit failed: no writes until a restart");
                weir_io::sometimes!("a commit ended with an unknown outcome");
                core.sequencer.fail(group, &error.to_string());
            }
        }
    }

    /// A planted defect: readers see a group before it is durable.
    async fn show_and_commit(&mut self, mut group: Group, link: Link) {
        let (bytes, gate) = (group.bytes.clone(), std::mem::take(&mut group.gate));
        let lsn = group.lsn;
        settle(&self.core, group, link);
        tokio::time::sleep(Duration::from_millis(2)).await;
        let stored = catalogue::append_commit(&self.conn, lsn, &bytes);
        self.survive().await;
        self.link = link;
        gate.open(if stored.is_ok() { Outcome::Durable } else { Outcome::Unknown });
    }

    async fn run_slice(&mut self, slice: Slice) {
        let clock = &self.core.world.clock;
        let started = clock.elapsed();
        (slice.job)(&mut self.conn);
        let held = clock.elapsed() - started;
        self.survive().await;
        let held_us = i64::try_from(held.as_micros()).unwrap_or(i64::MAX);
        let longest = &self.core.metrics.writer_hold_max_us;
        longest.set(longest.get().max(held_us));
        if held > Duration::from_millis(5) {
            tracing::debug!(held_us, what = slice.what, "a slice held the writer for long");
        }
    }

    /// On a simulated machine that has just lost power nothing may act on the result of the
    /// call that was cut off.
    async fn survive(&self) {
        if let Some(pause) = self.core.world.blocking.pause() {
            tokio::time::sleep(pause).await;
        }
        if self.core.world.disk.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}

/// Makes a durable group visible, then answers and wakes: in this order (INV-2, INV-32).
fn settle(core: &Core, group: Group, link: Link) {
    let lsn = group.lsn;
    let metrics = &core.metrics;
    metrics.committed(core.now().wall);
    metrics.entries.inc_by(u64::from(group.entries));
    let bytes = u64::try_from(group.bytes.len()).expect("usize fits u64");
    metrics.commit_bytes.inc_by(bytes);
    let body = kept(group.bytes);
    core.log_bytes.fetch_add(bytes, Ordering::Relaxed);
    let mut settled = Settled::default();
    let mut rung = Vec::with_capacity(group.effects.len());
    // Until the commit is on every list: a seal must see all of it or nothing of it.
    let whole = core.settling.lock();
    for effect in group.effects {
        match effect {
            Effect::Stream { stream, change } => {
                settled.stream(core, &stream, change, (&body, lsn), &group.gate);
                if rung.last().is_none_or(|last| !Arc::ptr_eq(last, &stream)) {
                    rung.push(stream);
                }
            }
            Effect::Subscription(change) => {
                let subscription::Change { subscription, entry, weight, turns } = *change;
                settled.only_renewals &= weight == Weight::Light;
                settled.touches.flush(&core.subscriptions, lsn);
                core.subscriptions.apply(&subscription, &entry, lsn);
                // Whoever waits for a turn decides on top of this entry.
                drop(turns);
            }
        }
    }
    settled.touches.flush(&core.subscriptions, lsn);
    let Settled { gained, payload_bytes, only_renewals, fresh, .. } = settled;
    remember(core, fresh, gained, only_renewals);
    *core.durable.lock() = link;
    drop(whole);
    metrics.record_bytes.inc_by(payload_bytes);
    if core.world.sabotage != Sabotage::ToldBeforeVisible || !group.gate.is_open() {
        group.gate.open(Outcome::Durable);
    }
    if core.world.sabotage != Sabotage::BellBeforeCommit {
        ring(rung.iter());
    }
}

/// The bytes of a group as the memtable keeps them: what was reserved for more entries is given back.
fn kept(bytes: BytesMut) -> Bytes {
    match bytes.len() < bytes.capacity() / 2 {
        true => Bytes::copy_from_slice(&bytes),
        false => bytes.freeze(),
    }
}

/// Wakes the live readers of these streams.
fn ring<'a>(streams: impl Iterator<Item = &'a Arc<Stream>>) {
    streams.for_each(|stream| stream.bell.notify_waiters());
}

/// What the effects of a group come to.
struct Settled {
    /// Bytes the memtable gained.
    gained: usize,
    payload_bytes: u64,
    only_renewals: bool,
    /// Streams that the next fold did not have on its list.
    fresh: Vec<Arc<Stream>>,
    /// Of subscriptions, by the streams that were written to.
    touches: Touches,
}

impl Default for Settled {
    fn default() -> Self {
        Self {
            gained: 0,
            payload_bytes: 0,
            only_renewals: true,
            fresh: Vec::new(),
            touches: Touches::default(),
        }
    }
}

impl Settled {
    fn stream(
        &mut self,
        core: &Core,
        stream: &Arc<Stream>,
        change: Change,
        (body, lsn): (&Bytes, Lsn),
        gate: &Arc<Gate>,
    ) {
        let mut durable = stream.durable.lock();
        let presence = matches!(change, Change::Born | Change::Dead);
        let ends = matches!(change, Change::Dead | Change::Retired);
        self.only_renewals &= matches!(change, Change::Renew(_));
        match change {
            Change::Born => durable.life = Life::Live,
            Change::Write { mut write, payload, after } => {
                let before = durable.state.tail();
                if let Some(records) = &mut write.records {
                    records.payload = body.slice(payload);
                    core.metrics.records.inc_by(records.count());
                    let bytes = u64::try_from(records.payload.len()).expect("usize fits u64");
                    self.payload_bytes += bytes;
                }
                self.gained += durable.apply(write, after, lsn);
                if !core.subscriptions.is_empty() {
                    self.touches.wrote(stream, before, durable.state.tail());
                }
            }
            Change::Dead => {
                durable.life = Life::Dead;
                durable.state.lsn = lsn;
            }
            Change::Retired => {
                durable.state.retired = true;
                durable.state.lsn = lsn;
            }
            Change::Referred => durable.refer(lsn),
            Change::Released => durable.release(lsn),
            Change::Trim(trim) => durable.trim(&trim, lsn),
            Change::Retain(retention) => {
                durable.state.kept.retention = retention;
                durable.state.lsn = lsn;
            }
            Change::Renew(deadline) => {
                durable.state.deadline = Some(deadline);
                durable.state.lsn = lsn;
            }
        }
        let told = gate.is_open() && core.world.sabotage != Sabotage::ToldBeforeVisible;
        assert!(!told, "INV-32 answers are in one order: what is told was visible before");
        let life = durable.life;
        if !std::mem::replace(&mut durable.dirty, true) {
            self.fresh.push(Arc::clone(stream));
        }
        drop(durable);
        if presence {
            show(core, stream, life, gate);
        }
        if ends && !core.subscriptions.is_empty() {
            self.touches.flush(&core.subscriptions, lsn);
            core.subscriptions.ended(&stream.identity.name, stream.identity.id, lsn);
        }
    }
}

/// Puts a birth or an end before the readers' eyes.
fn show(core: &Core, stream: &Arc<Stream>, life: Life, gate: &Arc<Gate>) {
    let name = &stream.identity.name;
    let buried = core.shelf.change(name, |slot| {
        if slot.gate.as_ref().is_some_and(|it| Arc::ptr_eq(it, gate)) {
            slot.gate = None;
        }
        let visible = slot.visible.as_ref().is_some_and(|it| Arc::ptr_eq(it, stream));
        let stale = core.world.sabotage == Sabotage::StaleAfterRecreate;
        match life {
            Life::Live if stale && slot.burials > 0 => slot.latest = None,
            Life::Live => slot.visible = Some(Arc::clone(stream)),
            Life::Dead if visible => {
                slot.visible = None;
                slot.burials += 1;
                return true;
            }
            Life::Dead | Life::Unborn => {}
        }
        false
    });
    let mut unfolded = core.unfolded.lock();
    if life == Life::Live {
        unfolded.names.insert(name.clone(), Some(Arc::clone(stream)));
    }
    if life == Life::Dead {
        core.shelf.unregister(stream.identity.id);
    }
    if buried {
        unfolded.names.insert(name.clone(), None);
        let state = &stream.durable.lock().state;
        let (epoch, bytes) = (state.lineage.newest(), state.bytes);
        let (id, name) = (stream.identity.id, name.clone());
        let fork = stream.identity.fork.clone();
        unfolded.burials.push(Burial { id, bytes, name, epoch, fork });
    }
}

/// Notes what the next fold must write, and calls the keeper when there is enough of it.
fn remember(core: &Core, fresh: Vec<Arc<Stream>>, gained: usize, only_renewals: bool) {
    let mut unfolded = core.unfolded.lock();
    // Renewals alone start no seal; the next one takes them along.
    if !only_renewals {
        unfolded.since.get_or_insert(core.store_now());
    }
    unfolded.streams.extend(fresh);
    drop(unfolded);
    let held = core.memtable_bytes.fetch_add(gained, Ordering::Relaxed) + gained;
    core.metrics.memtable_bytes.set(i64::try_from(held).unwrap_or(i64::MAX));
    if core.wants_seal() {
        core.keeper.notify_one();
    }
}
