//! Ledgers: every fold of a store with a bucket leaves a file of the rows it changed, and of the
//! commits that those rows may already show though the fold does not end with them. Laid over
//! each other they are the catalogue; so what is published grows with what changed, not with the
//! number of streams.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::Connection;
use weir_io::disk::Create;

use super::{
    seal::{Failed, Snapshot},
    stow,
};
use crate::{
    core::{Burial, Core, ledger_dir, ledger_path},
    ledger::{Address, Builder, Change, Footer, Key, Ledger, Row, Source},
    log::commit::Link,
    rack::Files,
    state::{
        catalogue::{self, AllRows, Failure, LedgerRow, Place},
        files::Fresh,
    },
    subscribe::fold as subscriptions,
    types::{Lsn, ProducerId, SegmentId, StreamId},
};

/// Commits that one statement finds.
const COMMITS_PER_SLICE: u64 = 64;

/// What a fold changed.
pub(crate) struct Touched {
    keys: Vec<(Key, Touch)>,
}

#[derive(Clone, Debug)]
enum Touch {
    /// The row is what the catalogue says.
    Row(Address),
    /// The row and everything below it is gone.
    Gone,
}

impl Touched {
    /// What a fold of these changes.
    pub(super) fn by(
        snapshots: &[Snapshot],
        (burials, ahead): (&[Burial], Vec<(StreamId, ProducerId)>),
        subscriptions: &subscriptions::Batch,
    ) -> Self {
        let ahead = ahead.into_iter().map(|(stream, producer)| Address::Producer(stream, producer));
        let mut rows: Vec<Address> = ahead.collect();
        for snapshot in snapshots {
            let id = snapshot.row.identity.id;
            rows.push(Address::Stream(id));
            let producers = snapshot.producers.iter();
            rows.extend(producers.map(|((name, _), _)| Address::Producer(id, name.clone())));
        }
        rows.extend(burials.iter().map(|burial| Address::Tombstone(burial.name.clone())));
        rows.extend(subscriptions.changed().map(|(number, path)| match path {
            None => Address::Subscription(number),
            Some(path) => Address::Link(number, path.clone()),
        }));
        let gone = burials.iter().map(|burial| Address::Stream(burial.id));
        let gone = gone.chain(subscriptions.burials().iter().copied().map(Address::Subscription));
        let mut keys: Vec<(Key, Touch)> = gone.map(|it| (it.key(), Touch::Gone)).collect();
        let buried: std::collections::BTreeSet<Key> =
            keys.iter().map(|(key, _)| key.clone()).collect();
        let left = rows.into_iter().map(|row| (row.key(), Touch::Row(row)));
        keys.extend(left.filter(|(key, _)| !buried.contains(key)));
        keys.sort_by(|(a, _), (b, _)| a.cmp(b));
        keys.dedup_by(|(a, _), (b, _)| a == b);
        Self { keys }
    }
}

/// Writes the ledger of a fold through `folded` whose rows are all in the catalogue. `None`: the
/// store has no bucket. Only folds write rows, and they take turns, so the rows hold still.
pub(super) async fn write(
    core: &Arc<Core>,
    folded: Link,
    touched: Touched,
) -> Result<Option<Fresh>, Failed> {
    if core.bucket.is_none() {
        return Ok(None);
    }
    // The rows show no commit beyond this.
    let through = core.durable_link();
    let before = core.files.lock().cut().map_or(Lsn::ZERO, |cut| cut.folded.lsn);
    let whole = !core.ledgers_whole.load(Ordering::Acquire) || folded.lsn <= before;
    let first = if whole { Lsn::ZERO.next() } else { before.next() };
    let shared = Arc::clone(core);
    let row = core
        .on_reader(move |conn| {
            let fill = |builder: &mut Builder<'_>| -> Result<(), Failed> {
                match whole {
                    true => put_all(conn, builder)?,
                    false => put(conn, &touched, builder)?,
                }
                put_tail(conn, builder, (folded.lsn, through.lsn))
            };
            Ok(file(&shared, (first, folded.lsn), || false, fill))
        })
        .await??;
    if whole {
        weir_io::sometimes!("a ledger of all rows was written");
    }
    Ok(Some(Fresh { row, through, whole }))
}

/// An error of the sink carries whatever went wrong.
fn push(builder: &mut Builder<'_>, change: &Change) -> Result<(), Failure> {
    builder.push(change).map_err(|error| Failure::Damaged(format!("ledger: {error}")))
}

fn put(conn: &Connection, touched: &Touched, builder: &mut Builder<'_>) -> Result<(), Failed> {
    for (key, touch) in &touched.keys {
        let row = match touch {
            Touch::Gone => {
                push(builder, &Change::delete_below(key.clone()))?;
                continue;
            }
            Touch::Row(address) => find(conn, address)?,
        };
        let change = row.map_or_else(|| Change::delete(key.clone()), |row| row.put());
        push(builder, &change)?;
    }
    Ok(())
}

fn find(conn: &Connection, address: &Address) -> Result<Option<Row>, Failure> {
    Ok(match address {
        Address::Stream(id) => catalogue::find_id(conn, *id)?.map(|it| Row::Stream(Box::new(it))),
        Address::Producer(stream, id) => {
            let found = catalogue::producer(conn, *stream, id.as_str())?;
            found.map(|(producer, lsn)| Row::Producer {
                stream: *stream,
                id: id.clone(),
                producer,
                lsn,
            })
        }
        Address::Tombstone(name) => catalogue::tombstone(conn, name.as_str())?
            .map(|epoch| Row::Tombstone { name: name.clone(), epoch }),
        Address::Subscription(number) => {
            catalogue::subscription(conn, *number)?.map(|it| Row::Subscription(Box::new(it)))
        }
        Address::Link(number, path) => catalogue::link(conn, *number, path)?.map(Row::Link),
    })
}

/// Everything, in the order of the keys.
fn put_all(conn: &Connection, builder: &mut Builder<'_>) -> Result<(), Failure> {
    let mut rows = AllRows::new();
    loop {
        let slice = rows.slice(conn)?;
        if slice.is_empty() {
            return Ok(());
        }
        slice.iter().try_for_each(|change| push(builder, change))?;
    }
}

/// The commits after `folded` and up to `through`, some at a time.
fn put_tail(
    conn: &Connection,
    builder: &mut Builder<'_>,
    (folded, through): (Lsn, Lsn),
) -> Result<(), Failed> {
    let mut after = folded;
    while after < through {
        let limit = through.min(Lsn::new(after.get().saturating_add(COMMITS_PER_SLICE)));
        catalogue::scan_log_between(conn, (after, limit), |lsn, commit| {
            weir_io::sometimes!("a ledger has commits that came while it was written");
            let put = builder.commit(lsn, commit);
            put.map_err(|error| Failure::Damaged(format!("ledger: {error}")))
        })?;
        after = limit;
    }
    Ok(())
}

/// Writes a ledger file: under a temporary name, then, complete and durable, under its own, in a
/// directory that knows it. One that can't be finished leaves nothing behind. `cut` gives up.
pub(super) fn file(
    core: &Core,
    (first, last): (Lsn, Lsn),
    cut: impl Fn() -> bool,
    fill: impl FnOnce(&mut Builder<'_>) -> Result<(), Failed>,
) -> Result<LedgerRow, Failed> {
    let id = core.new_file();
    let path = ledger_path(&core.config, id);
    let temporary = path.with_extension("tmp");
    let disk = &*core.world.disk;
    let write = || -> Result<Footer, Failed> {
        let file = disk.create(&temporary, Create::Truncate)?;
        let written = AtomicU64::new(0);
        let mut sink = |bytes: &[u8]| -> io::Result<()> {
            if cut() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let len = u64::try_from(bytes.len()).expect("usize fits u64");
            file.write_all_at(bytes, written.fetch_add(len, Ordering::Relaxed))
        };
        let mut builder = Builder::new(core.store, id, &mut sink)?;
        fill(&mut builder)?;
        let footer = builder.finish(first, last)?;
        file.sync()?;
        disk.rename(&temporary, &path)?;
        Ok(footer)
    };
    let footer = write().inspect_err(|_| {
        // What is left of it goes at the next start, if not now.
        drop(disk.remove(&temporary));
    })?;
    // A row must not name a file that the crash forgets (INV-14).
    disk.sync_dir(&ledger_dir(&core.config)).inspect_err(|_| {
        drop(disk.remove(&path));
    })?;
    Ok(row_of(core, id, &footer))
}

fn row_of(core: &Core, id: SegmentId, footer: &Footer) -> LedgerRow {
    LedgerRow {
        id,
        bytes: footer.file_bytes(),
        nonce: core.nonce,
        place: Place::Local,
        mark: footer.mark(),
        first_lsn: footer.first_lsn,
        last_lsn: footer.last_lsn,
        rows: footer.rows,
    }
}

/// The catalogue forgets ledgers; their objects begin to wait for their collection.
pub(super) fn drop_rows(conn: &Connection, ledgers: &[LedgerRow]) -> Result<(), Failure> {
    for ledger in ledgers {
        catalogue::drop_ledger(conn, ledger.id)?;
        if ledger.place == Place::Bucket {
            catalogue::put_garbage(conn, super::publish::ledger_key(ledger).as_str())?;
        }
    }
    Ok(())
}

/// Removes files that no row names any more.
pub(super) async fn remove_files(core: &Arc<Core>, gone: Vec<SegmentId>) {
    let config = core.config.clone();
    let remove = move |files: &Files| files.remove(gone.iter().map(|id| ledger_path(&config, *id)));
    stow::on_files(core, remove).await;
}

/// Removes new ledgers whose rows the catalogue refused, as [`stow::remove_refused`] does with segments.
pub(super) async fn remove_refused(core: &Arc<Core>, ids: Vec<SegmentId>, why: &Failure) {
    if why.is_full() {
        weir_io::sometimes!("a ledger was removed that a full disk kept out of the catalogue");
        remove_files(core, ids).await;
    }
}

/// Reads the file of a ledger through; says whether it is what was written.
pub(super) fn verify(core: &Core, row: &LedgerRow) -> Result<(), Failed> {
    let file = core.world.disk.open(&ledger_path(&core.config, row.id))?;
    verify_in(core, row, Source::File(file))
}

/// The same of bytes that are elsewhere.
pub(super) fn verify_in(core: &Core, row: &LedgerRow, source: Source) -> Result<(), Failed> {
    let ledger = Arc::new(Ledger::open(source)?);
    is_the_one(core, &ledger, row)?;
    read_through(&ledger)
}

/// Refuses a ledger that is not the one of a row.
pub(super) fn is_the_one(core: &Core, ledger: &Ledger, row: &LedgerRow) -> Result<(), Failed> {
    let found = (ledger.store(), ledger.id(), ledger.footer().mark());
    match found == (core.store, row.id, row.mark) {
        true => Ok(()),
        false => Err(Failure::Damaged(format!("ledger {}: it is another one", row.id)).into()),
    }
}

/// Reads every block.
pub(super) fn read_through(ledger: &Arc<Ledger>) -> Result<(), Failed> {
    ledger.rows().try_for_each(|row| row.map(drop).map_err(|lost| lost.error))?;
    ledger.commits().try_for_each(|it| it.map(drop).map_err(|lost| lost.error))?;
    Ok(())
}

/// Opens a ledger of this store.
pub(super) fn open_file(core: &Core, id: SegmentId) -> Result<Ledger, Failed> {
    let file = core.world.disk.open(&ledger_path(&core.config, id))?;
    Ok(Ledger::open(Source::File(file))?)
}

#[cfg(test)]
mod tests;
