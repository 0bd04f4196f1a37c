//! After a loss: makes whole what is left of the rows, so that nothing which is lost can break a
//! rule of what is not.
//!
//! A row whose newest version is lost shows as it was in an older ledger. Its records are in
//! segments all the same and keep their positions; producers, closures and cursors are as old as
//! their rows.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::Connection;
use weir_io::{Disk, World, objects::Key, retry::Retrying};

use super::{
    RestoreError, blocking,
    build::{Plan, holder, open_tables},
    failure,
    fetch::{Bad, Lost, piece},
    report::{Finding, Report},
};
use crate::{
    Config,
    core::segment_path,
    ledger::Address,
    log::entry::Create,
    publish::listing::Entry,
    segment::{BlockNo, Segment},
    state::{
        catalogue::{self, Failure},
        rows::StreamRow,
        stream::{Identity, StreamState},
    },
    subscribe::rows::SubscriptionRow,
    types::{Epoch, Expiry, Lineage, Lsn, Retention, Seq, StreamId},
};

/// Streams looked at together.
const PAGE: usize = 1000;
/// Producers of a stream that goes, deleted at a time.
const PRODUCERS_AT_ONCE: usize = 256;

/// Takes away an older stream that has the name of this one: its end is lost.
pub(super) fn make_room(
    conn: &Connection,
    row: &StreamRow,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    let name = row.identity.name.as_str();
    let Some(other) = holder(conn, name)?.filter(|it| *it != row.identity.id) else {
        return Ok(());
    };
    let text = format!("stream {other} of this name went: a later one has it");
    findings.push(Finding::new("row", format!("stream '{name}'"), text));
    bury(conn, other)
}

/// Takes away an older subscription that has the name of this one.
pub(super) fn make_room_for_subscription(
    conn: &Connection,
    row: &SubscriptionRow,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    let id = &row.config.id;
    let other = catalogue::subscription_named(conn, id)?.filter(|it| *it != row.number);
    let Some(other) = other else { return Ok(()) };
    let text = format!("subscription {other} of this name went: a later one has it");
    findings.push(Finding::new("row", format!("subscription '{}'", id.as_str()), text));
    while catalogue::drop_links(conn, other, PAGE)? == PAGE {}
    catalogue::drop_subscription(conn, other)
}

/// Makes what is left whole.
pub(super) fn patch(
    conn: &mut Connection,
    through: Lsn,
    findings: &mut Vec<Finding>,
) -> Result<(), Failure> {
    let tx = conn.transaction()?;
    stand_in(&tx, through, findings)?;
    while recount(&tx, findings)? {}
    Ok(tx.commit()?)
}

fn each_stream(
    conn: &Connection,
    mut each: impl FnMut(StreamRow) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut from = String::new();
    loop {
        let rows = catalogue::list(conn, &from, PAGE)?;
        let Some(last) = rows.last() else { return Ok(()) };
        from = format!("{}\0", last.identity.name);
        rows.into_iter().try_for_each(&mut each)?;
    }
}

/// Whether a newer version of a stream's row may be lost.
fn is_doubtful(lost: &Lost, id: StreamId) -> bool {
    let key = Address::Stream(id).key();
    lost.any || lost.ranges.iter().any(|(first, last)| (first..=last).contains(&&key))
}

/// Lets streams whose rows are old end where their records do: those that segments have beyond
/// would meet others of the same positions.
pub(super) async fn lengthen(
    world: &World,
    bucket: &Retrying,
    config: &Config,
    plan: &Arc<Plan>,
    report: &mut Report,
) -> Result<(), RestoreError> {
    let (shared, config, plan) = (world.clone(), config.clone(), Arc::clone(plan));
    let found = blocking(world, move || {
        let conn = open_tables(&shared, &config)?;
        let mut doubtful = Vec::new();
        let lost = &plan.fetched.lost;
        let each = |row: StreamRow| {
            doubtful.extend(is_doubtful(lost, row.identity.id).then_some(row));
            Ok(())
        };
        each_stream(&conn, each).map_err(failure)?;
        let segments = open_segments(&*shared.disk, &config, &plan).map_err(failure)?;
        Ok((conn, doubtful, segments))
    });
    let (conn, mut doubtful, segments) = found.await?;
    for row in &mut doubtful {
        let before = row.state.next;
        let id = row.identity.id;
        for (key, segment) in segments.iter().filter(|(_, it)| it.holds(id)) {
            match catch_up(bucket, key, segment, row).await {
                Ok(()) => {}
                Err(Bad::Unknown(error)) => return Err(error),
                Err(bad) => {
                    let text = format!("'{key}': {bad}; records in it may be lost");
                    report.findings.push(Finding::new("row", stream(row), text));
                }
            }
        }
        row.sealed = row.state.next;
        let text = match row.state.next > before {
            true => format!("its row is an old one: records {before} to {} came after", row.sealed),
            false => "its row may be an old one".to_owned(),
        };
        report.findings.push(Finding::new("row", stream(row), text));
    }
    let rows = move || -> Result<(), Failure> {
        doubtful.iter().try_for_each(|row| catalogue::put_stream(&conn, row))
    };
    blocking(world, move || rows().map_err(failure)).await
}

/// Folds the records of a segment that a stream's row does not know of into it.
async fn catch_up(
    bucket: &Retrying,
    key: &Key,
    segment: &Segment,
    row: &mut StreamRow,
) -> Result<(), Bad> {
    let (id, state) = (row.identity.id, &mut row.state);
    let spanning: Vec<BlockNo> =
        segment.spanning(id, state.next..Seq::LAST).map(|spanning| spanning.no).collect();
    for no in spanning {
        let stored = piece(bucket, key, segment.span(&(no..no.next()))).await?;
        let block = segment.decode(no, &stored).map_err(|bad| Bad::Damaged(bad.to_string()))?;
        let Some(part) = block.part(id).filter(|part| part.limit() > state.next) else { continue };
        for chunk in part.chunks(state.next.max(part.first())..part.limit()) {
            state.kept.wrote(&chunk.records, chunk.timestamp, state.form);
            state.bytes += u64::try_from(chunk.records.payload.len()).expect("usize fits u64");
            state.last_append = state.last_append.max(chunk.timestamp);
            state.next = chunk.limit();
        }
    }
    Ok(())
}

fn open_segments(
    disk: &dyn Disk,
    config: &Config,
    plan: &Plan,
) -> Result<Vec<(Key, Segment)>, Failure> {
    let open = |entry: &Entry| {
        let path = segment_path(config, entry.id);
        let bad = |what: String| Failure::Damaged(format!("{}: {what}", path.display()));
        let file = disk.open(&path).map_err(|error| bad(error.to_string()))?;
        let segment = Segment::open(file).map_err(|error| bad(error.to_string()))?;
        Ok((entry.segment().key(), segment))
    };
    plan.fetched.segments.iter().map(open).collect()
}

fn stream(row: &StreamRow) -> String {
    format!("stream '{}'", row.identity.name)
}

/// Puts a retired stream where forks draw on one whose row is lost (INV-22).
fn stand_in(conn: &Connection, through: Lsn, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    let mut missing: BTreeMap<StreamId, StreamRow> = BTreeMap::new();
    let mut homeless = Vec::new();
    each_stream(conn, |row| {
        let Some(fork) = &row.identity.fork else { return Ok(()) };
        if catalogue::find_id(conn, fork.source)?.is_some() {
            return Ok(());
        }
        if holder(conn, fork.source_name.as_str())?.is_some() {
            homeless.push(row.identity.id);
            let text = "it went: the stream that it was forked from is lost, its name taken";
            findings.push(Finding::new("row", stream(&row), text));
            return Ok(());
        }
        let stand_in = || retired(&row.identity, through);
        let stand_in = missing.entry(fork.source).or_insert_with(stand_in);
        stand_in.state.next = stand_in.state.next.max(fork.at);
        stand_in.sealed = stand_in.state.next;
        Ok(())
    })?;
    for row in missing.into_values() {
        let text = "its row is lost; it is kept as deleted, for its forks";
        findings.push(Finding::new("row", stream(&row), text));
        catalogue::put_stream(conn, &row)?;
    }
    homeless.into_iter().try_for_each(|id| bury(conn, id))
}

/// A deleted stream that is kept for a fork.
fn retired(fork: &Identity, through: Lsn) -> StreamRow {
    let ancestry = fork.fork.as_ref().expect("it is a fork");
    let create = Create {
        stream: ancestry.source,
        name: ancestry.source_name.clone(),
        content: fork.content.clone(),
        expiry: Expiry::Never,
        lineage: Lineage::starting(Epoch::ZERO),
        created: fork.created,
        deadline: None,
        last_append: fork.created,
        fork: None,
        retention: Retention::NONE,
        earliest: Seq::ZERO,
        oldest: None,
    };
    let state = StreamState { retired: true, ..StreamState::new(&create, through) };
    let Create { stream, name, content, expiry, created, fork, .. } = create;
    let identity = Identity { id: stream, name, content, expiry, created, fork };
    StreamRow { identity, state, sealed: Seq::ZERO }
}

/// Counts forks anew, and ends what only lost forks had kept. Returns whether something ended.
fn recount(conn: &Connection, findings: &mut Vec<Finding>) -> Result<bool, Failure> {
    let mut over = Vec::new();
    each_stream(conn, |mut row| {
        let refs = catalogue::forks(conn, row.identity.id)?;
        if row.state.retired && refs == 0 {
            over.push(row.identity.id);
        } else if refs != row.state.refs {
            let text = format!("it has {refs} forks, its row said {}", row.state.refs);
            findings.push(Finding::new("row", stream(&row), text));
            row.state.refs = refs;
            catalogue::put_stream(conn, &row)?;
        }
        Ok(())
    })?;
    for id in &over {
        bury(conn, *id)?;
    }
    Ok(!over.is_empty())
}

/// Removes a stream and its producers.
fn bury(conn: &Connection, id: StreamId) -> Result<(), Failure> {
    let Some(row) = catalogue::find_id(conn, id)? else { return Ok(()) };
    while catalogue::drop_producers(conn, id, PRODUCERS_AT_ONCE)? == PRODUCERS_AT_ONCE {}
    catalogue::bury(conn, id, row.identity.name.as_str(), row.state.lineage.newest())
}
