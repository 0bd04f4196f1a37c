//! The tables of a store, out of ledgers: what these say together, the files, the cut, and the
//! tail as the log.

use std::{iter::Peekable, sync::Arc, time::Duration};

use rusqlite::Connection;
use weir_io::{Sabotage, World, sqlite::Role};

use super::{
    RestoreError, blocking, failure,
    fetch::{Fetched, Lost},
    find::Choice,
    io_error, patch,
    report::{Finding, Report},
};
use crate::{
    Config, Layout, OpenError,
    core::{database, ledger_dir, segment_dir},
    ledger::{Below, Change, Ledger, Merge, Row},
    motion::publish::{Stored, chain},
    open,
    publish::listing::Entry,
    state::{
        catalogue::{self, Death, Failure, Found, LedgerRow, Place, SegmentRow},
        files::Cut,
    },
    subscribe::{entry::Number, rows as subscriptions},
    types::{Lsn, StreamId, WallMs},
};

/// Rows in one transaction.
const ROWS_AT_ONCE: usize = 4096;

/// All that tables are made of.
pub(super) struct Plan {
    pub(super) choice: Choice,
    pub(super) claimed: Stored,
    pub(super) fetched: Fetched,
    pub(super) now: WallMs,
    /// As in [`Config::erase_within`].
    pub(super) erase_within: Duration,
}

/// Makes the tables. Everything they name is durable then, but for the directory itself.
pub(super) async fn build(
    world: &World,
    config: &Config,
    plan: &Arc<Plan>,
    report: &mut Report,
) -> Result<(), RestoreError> {
    let (shared, config, plan) = (world.clone(), config.clone(), Arc::clone(plan));
    let made = blocking(world, move || {
        for dir in [segment_dir(&config), ledger_dir(&config)] {
            let what = format!("syncing {}", dir.display());
            shared.disk.sync_dir(&dir).map_err(|source| io_error(what, source))?;
        }
        let mut conn = open_tables(&shared, &config)?;
        tables(&mut conn, &plan, shared.sabotage).map_err(failure)
    });
    report.findings.extend(made.await?);
    Ok(())
}

/// Opens the database of the new store.
pub(super) fn open_tables(world: &World, config: &Config) -> Result<Connection, RestoreError> {
    let path = database(config);
    world
        .sqlite
        .open(&path, Role::Writer)
        .map_err(|source| OpenError::Sqlite { what: path.display().to_string(), source }.into())
}

fn tables(conn: &mut Connection, plan: &Plan, sabotage: Sabotage) -> Result<Vec<Finding>, Failure> {
    let (chosen, claimed) = (&plan.choice.chosen.manifest, &plan.claimed.manifest);
    let end = &plan.choice.end;
    assert!(
        claimed.generation == end.generation.next() && claimed.recoveries > *end.recoveries.end(),
        "INV-43 who recovers has claimed the bucket"
    );
    let number = |value: u64| value.to_le_bytes();
    catalogue::create(
        conn,
        Layout::Tree,
        &[
            ("format", &number(open::FORMAT)),
            ("store", &chosen.store.0),
            ("writer_epoch", &number(claimed.writer_epoch)),
            ("recoveries", &number(claimed.recoveries.into())),
            ("next_segment", &number(claimed.next_segment.get())),
            // Epochs are raised in the tables alone, so the ledgers will not say all.
            ("ledgers_whole", &number(0)),
        ],
    )?;
    let ledgers: Vec<Arc<Ledger>> =
        plan.fetched.ledgers.iter().map(|(_, ledger)| Arc::clone(ledger)).collect();
    let mut findings = Vec::new();
    let skipped = usize::from(sabotage == Sabotage::LedgerSkipped && ledgers.len() > 1);
    let seen = &ledgers[..ledgers.len() - skipped];
    let ended = put_rows(conn, seen, plan, &mut findings)?;
    let tx = conn.transaction()?;
    put_files(&tx, &plan.fetched)?;
    if ended {
        // Nobody knows which segments hold the dead, nor since when (INV-30).
        let segments = &plan.fetched.segments;
        let sizes = segments.iter().map(|entry| entry.bytes);
        for (Entry { id, .. }, since) in
            segments.iter().zip(spread(sizes, plan.now, plan.erase_within))
        {
            catalogue::add_death(&tx, *id, Death { bytes: 0, since })?;
        }
    }
    chain::put_published(&tx, &plan.claimed.bytes)?;
    for generation in plan.choice.kept.iter().chain([&claimed.generation]) {
        // Nobody knows how long ago they were superseded: collection waits anew.
        catalogue::put_manifest(&tx, *generation, chosen.store_ms)?;
    }
    let whole = plan.fetched.tail_is_whole;
    let cut = Cut {
        folded: if whole { chosen.folded } else { chosen.through },
        through: chosen.through,
        next_stream: claimed.next_stream.get(),
        next_subscription: claimed.next_subscription,
        store_ms: chosen.store_ms,
    };
    cut.store(&tx)?;
    if whole && let Some(newest) = ledgers.last() {
        for commit in newest.commits() {
            let (lsn, commit) = commit.map_err(|lost| Failure::Damaged(lost.to_string()))?;
            weir_io::sometimes!("a bootstrap restored commits that no fold had finished");
            catalogue::append_commit(&tx, lsn, &commit)?;
        }
    }
    tx.commit()?;
    if !plan.fetched.lost.nothing() || !whole {
        weir_io::sometimes!("a bootstrap restored what was left of a damaged bucket");
        patch::patch(conn, chosen.through.lsn, &mut findings)?;
    }
    Ok(findings)
}

/// Since when segments of these sizes are taken to hold dead records, so that their turns to be
/// written anew are spread over the time in which all of them must be.
pub(super) fn spread(
    sizes: impl Iterator<Item = u64> + Clone,
    now: WallMs,
    within: Duration,
) -> Vec<WallMs> {
    let all = sizes.clone().map(u128::from).sum::<u128>().max(1);
    let mut before = 0;
    let since = sizes.map(|bytes| {
        before += u128::from(bytes);
        // The last has all the time there is.
        let ahead = within.as_millis().saturating_mul(all - before) / all;
        WallMs::new(now.get().saturating_sub(u64::try_from(ahead).unwrap_or(u64::MAX)))
    });
    since.collect()
}

/// What was met while rows were written.
#[derive(Default)]
struct Met {
    /// The last stream and subscription: what belongs to one comes right after it.
    stream: Option<StreamId>,
    subscription: Option<Number>,
    /// How many streams there are.
    streams: u64,
    /// Some keep records that they do not show.
    trimmed: bool,
}

/// Writes what ledgers say together. Returns whether there may be records that nobody reads.
fn put_rows(
    conn: &mut Connection,
    ledgers: &[Arc<Ledger>],
    plan: &Plan,
    findings: &mut Vec<Finding>,
) -> Result<bool, Failure> {
    // Blocks that can't be read are in the report already.
    let readable = Merge::new(ledgers, Below::Nothing).filter_map(Result::ok);
    let mut changes = readable.peekable();
    let mut met = Met::default();
    while changes.peek().is_some() {
        let tx = conn.transaction()?;
        put_some(&tx, &mut changes, &plan.fetched.lost, &mut met, findings)?;
        tx.commit()?;
    }
    // Streams are numbered from one: were there others?
    let all = met.streams + 1 == plan.choice.newest.manifest.next_stream.get();
    Ok(met.trimmed || !all)
}

fn put_some(
    conn: &Connection,
    changes: &mut Peekable<impl Iterator<Item = Change>>,
    lost: &Lost,
    met: &mut Met,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    for change in changes.take(ROWS_AT_ONCE) {
        let row = match Row::decode(&change) {
            Ok(Some(row)) => row,
            // What is deleted has nothing below it any more; what is malformed was reported.
            Ok(None) | Err(_) => continue,
        };
        let address = row.address();
        let orphan = match &row {
            Row::Producer { stream, .. } => met.stream != Some(*stream),
            Row::Link(link) => met.subscription != Some(link.number),
            Row::Stream(_) | Row::Subscription(_) | Row::Tombstone { .. } => false,
        };
        if orphan {
            if lost.nothing() {
                return Err(Failure::Damaged(format!("{address} belongs to nothing")));
            }
            findings.push(Finding::new("row", address, "what it belongs to is lost"));
            continue;
        }
        match row {
            Row::Stream(row) => {
                if !lost.nothing() {
                    patch::make_room(conn, &row, findings)?;
                }
                met.stream = Some(row.identity.id);
                met.streams += 1;
                met.trimmed |= row.state.retired || row.state.kept.trimmed > Lsn::ZERO;
                catalogue::put_stream(conn, &row)?;
            }
            Row::Producer { stream, id, producer, lsn } => {
                catalogue::put_producer(conn, stream, &id, &producer, lsn)?;
            }
            Row::Tombstone { name, epoch } => {
                catalogue::put_tombstone(conn, name.as_str(), epoch)?;
            }
            Row::Subscription(row) => {
                if !lost.nothing() {
                    patch::make_room_for_subscription(conn, &row, findings)?;
                }
                met.subscription = Some(row.number);
                let (config, control) = (&row.config, &row.control);
                let body =
                    subscriptions::encode_subscription(config, row.created, row.born, control);
                catalogue::put_subscription(conn, row.number, &config.id, row.lsn, &body)?;
            }
            Row::Link(row) => {
                catalogue::put_link(conn, row.number, &row.path, Some(&row.link), row.lsn)?;
            }
        }
    }
    Ok(())
}

/// Names the files. What the bucket has is there, a local copy of it too.
fn put_files(conn: &Connection, fetched: &Fetched) -> Result<(), Failure> {
    for Entry { id, bytes, nonce, .. } in &fetched.segments {
        let (bytes, nonce) = (*bytes, nonce.get());
        let row = SegmentRow { id: *id, bytes, nonce, place: Place::Bucket };
        catalogue::put_segment(conn, &row)?;
    }
    for (entry, _) in &fetched.ledgers {
        let row = LedgerRow {
            id: entry.id,
            bytes: entry.bytes,
            nonce: entry.nonce.get(),
            place: Place::Bucket,
            mark: entry.mark,
            first_lsn: entry.first_lsn,
            last_lsn: entry.last_lsn,
            rows: entry.records,
        };
        catalogue::put_ledger(conn, &row)?;
    }
    Ok(())
}

/// Whether a name is somebody's.
pub(super) fn holder(conn: &Connection, name: &str) -> Result<Option<StreamId>, Failure> {
    Ok(match catalogue::find(conn, name)? {
        Found::Stream(row) => Some(row.identity.id),
        Found::Absent(_) => None,
    })
}
