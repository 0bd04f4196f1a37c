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
    catch_up::{self, Rows},
    failure,
    fetch::Lost,
    report::{Finding, Report},
};
use crate::{
    Config,
    core::segment_path,
    ledger::Address,
    log::entry::Create,
    publish::listing::Entry,
    segment::Segment,
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
    whole(&tx, through, findings)?;
    Ok(tx.commit()?)
}

fn whole(conn: &Connection, through: Lsn, findings: &mut Vec<Finding>) -> Result<(), Failure> {
    stand_in(conn, through, findings)?;
    while recount(conn, findings)? {}
    Ok(())
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

/// Lets streams end where their records do. Of those whose rows are old segments have records
/// beyond, which would meet others of the same positions; and rows that are ahead of the cut show
/// records that only the tail had, if that is lost: that of a stream does which was deleted between
/// the commit that the fold ends with and its turn in it.
pub(super) async fn align(
    world: &World,
    bucket: &Retrying,
    config: &Config,
    plan: &Arc<Plan>,
    report: &mut Report,
) -> Result<(), RestoreError> {
    let through = plan.choice.chosen.manifest.through.lsn;
    let (shared, config, plan) = (world.clone(), config.clone(), Arc::clone(plan));
    let found = blocking(world, move || {
        let conn = open_tables(&shared, &config)?;
        let (mut rows, mut said) = (Rows::new(), BTreeMap::new());
        let lost = &plan.fetched.lost;
        let each = |mut row: StreamRow| {
            let (id, ends) = (row.identity.id, Said::of(&row));
            if !plan.fetched.tail_is_whole && row.state.next > row.sealed {
                cut_back(&mut row);
            } else if !is_doubtful(lost, id) {
                return Ok(());
            }
            said.insert(id, ends);
            rows.insert(id, row);
            Ok(())
        };
        each_stream(&conn, each).map_err(failure)?;
        let segments = open_segments(&*shared.disk, &config, &plan).map_err(failure)?;
        let blocks = catch_up::blocks(&segments, &rows);
        Ok((conn, rows, said, segments, blocks))
    });
    let (conn, mut rows, said, segments, blocks) = found.await?;
    catch_up::catch_up(bucket, &segments, blocks, &mut rows, &mut report.findings).await?;
    for (id, row) in &mut rows {
        report.findings.extend(said[id].settle(row));
    }
    let patched = move || -> Result<Vec<Finding>, Failure> {
        let mut findings = Vec::new();
        let tx = conn.unchecked_transaction()?;
        rows.values().try_for_each(|row| catalogue::put_stream(&tx, row))?;
        if let_go_beyond(&tx, &mut findings)? {
            whole(&tx, through, &mut findings)?;
        }
        tx.commit()?;
        Ok(findings)
    };
    report.findings.extend(blocking(world, move || patched().map_err(failure)).await?);
    Ok(())
}

/// Where a stream ended, as its row said.
struct Said {
    next: Seq,
    sealed: Seq,
}

impl Said {
    const fn of(row: &StreamRow) -> Self {
        Self { next: row.state.next, sealed: row.sealed }
    }

    /// Lets the stream end with what was found of it, and says what became of it.
    fn settle(&self, row: &mut StreamRow) -> Option<Finding> {
        let Self { next: said, sealed } = *self;
        let is_ahead = said > sealed;
        // What a segment had that is lost keeps its positions.
        row.state.next = row.state.next.max(sealed);
        row.sealed = row.state.next;
        let next = row.sealed;
        if is_ahead {
            weir_io::sometimes!("a bootstrap cut a stream back to what is left of it");
            let text = format!("records {next} to {said} were in the tail alone: lost");
            return (next < said).then(|| Finding::new("row", stream(row), text));
        }
        let text = match next > said {
            true => format!("its row is an old one: records {said} to {next} came after"),
            false => "its row may be an old one".to_owned(),
        };
        Some(Finding::new("row", stream(row), text))
    }
}

/// Lets a stream whose row is ahead of the cut begin anew, and with it the count of what it keeps:
/// nobody knows how much of that was in the tail.
fn cut_back(row: &mut StreamRow) {
    let own = row.identity.own_start();
    let kept = &mut row.state.kept;
    let first = own.max(kept.earliest);
    (kept.bytes, kept.head_bytes) = (0, 0);
    if kept.earliest >= own {
        kept.oldest = None;
    }
    row.state.bytes = kept.dropped;
    row.state.next = first;
}

/// Ends forks that draw on records which did not come back: others will have their positions
/// (INV-24). Such a fork was made after the cut. Returns whether there were any.
fn let_go_beyond(conn: &Connection, findings: &mut Vec<Finding>) -> Result<bool, Failure> {
    let mut beyond = Vec::new();
    each_stream(conn, |row| {
        let Some(fork) = &row.identity.fork else { return Ok(()) };
        for run in &fork.runs {
            let ends = catalogue::find_id(conn, run.stream)?.map(|it| it.state.next);
            if ends.is_some_and(|ends| run.limit > ends) {
                beyond.push(row.identity.id);
                let text = "it went: it was forked from records that are lost";
                findings.push(Finding::new("row", stream(&row), text));
                return Ok(());
            }
        }
        Ok(())
    })?;
    beyond.iter().try_for_each(|id| bury(conn, *id))?;
    Ok(!beyond.is_empty())
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

pub(super) fn stream(row: &StreamRow) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Layout,
        state::stream::StreamState,
        types::{Ancestry, ContentType, Run, StreamName, WallMs},
    };

    const LSN: Lsn = Lsn::new(9);

    /// A stream with records up to `next`; a fork inherits runs.
    fn put(conn: &Connection, id: u64, next: u64, runs: &[(u64, u64)]) {
        let name = |id: u64| StreamName::new(&format!("s{id}")).unwrap();
        let seq = |at: u64| Seq::ZERO.after(at);
        let fork = runs.last().map(|(source, at)| {
            let runs = runs.iter();
            Arc::new(Ancestry {
                source: StreamId::new(*source),
                source_name: name(*source),
                at: seq(*at),
                asked: None,
                anchor: seq(*at),
                depth: 1,
                sub_offset: 0,
                expiry_inherited: false,
                runs: runs
                    .map(|(stream, limit)| Run {
                        stream: StreamId::new(*stream),
                        limit: seq(*limit),
                    })
                    .collect(),
            })
        });
        let create = Create {
            stream: StreamId::new(id),
            name: name(id),
            content: ContentType::parse("text/plain").unwrap(),
            expiry: Expiry::Never,
            lineage: Lineage::starting(Epoch::ZERO),
            created: WallMs::new(1),
            deadline: None,
            last_append: WallMs::new(1),
            fork,
            retention: Retention::NONE,
            earliest: Seq::ZERO,
            oldest: None,
        };
        let state = StreamState { next: seq(next), ..StreamState::new(&create, LSN) };
        let Create { stream, name, content, expiry, created, fork, .. } = create;
        let identity = Identity { id: stream, name, content, expiry, created, fork };
        catalogue::put_stream(conn, &StreamRow { identity, state, sealed: seq(next) }).unwrap();
    }

    #[test]
    fn a_row_ahead_of_the_cut_ends_where_what_is_left_does() {
        let mut conn = Connection::open_in_memory().unwrap();
        catalogue::create(&mut conn, Layout::Tree, &[]).unwrap();
        put(&conn, 1, 7, &[]);
        let mut row = catalogue::find_id(&conn, StreamId::new(1)).unwrap().unwrap();
        // It was deleted before it was sealed: the tail had the records and the end.
        row.sealed = Seq::ZERO.after(3);
        (row.state.bytes, row.state.kept.bytes, row.state.kept.dropped) = (70, 60, 10);
        let said = Said::of(&row);
        cut_back(&mut row);
        let finding = said.settle(&mut row).unwrap();
        assert_eq!((row.state.next, row.sealed), (Seq::ZERO.after(3), Seq::ZERO.after(3)));
        assert_eq!((row.state.bytes, row.state.kept.bytes), (10, 0), "no segment has any");
        assert_eq!(finding.text, "records 3 to 7 were in the tail alone: lost");
    }

    #[test]
    fn a_row_that_may_be_old_ends_where_it_said_or_later() {
        let mut conn = Connection::open_in_memory().unwrap();
        catalogue::create(&mut conn, Layout::Tree, &[]).unwrap();
        put(&conn, 1, 7, &[]);
        for (found, text) in [
            (7, "its row may be an old one"),
            (9, "its row is an old one: records 7 to 9 came after"),
        ] {
            let mut row = catalogue::find_id(&conn, StreamId::new(1)).unwrap().unwrap();
            let said = Said::of(&row);
            row.state.next = Seq::ZERO.after(found);
            assert_eq!(said.settle(&mut row).unwrap().text, text);
            assert_eq!(row.sealed, Seq::ZERO.after(found));
        }
    }

    #[test]
    fn forks_of_records_that_did_not_come_back_go_and_those_of_others_stay() {
        let mut conn = Connection::open_in_memory().unwrap();
        catalogue::create(&mut conn, Layout::Tree, &[]).unwrap();
        put(&conn, 1, 5, &[]);
        put(&conn, 2, 5, &[(1, 5)]);
        put(&conn, 3, 7, &[(1, 6)]);
        // A fork of that one, from what came back, and from what did not.
        put(&conn, 4, 4, &[(3, 4)]);
        put(&conn, 5, 7, &[(1, 6), (3, 7)]);
        let mut findings = Vec::new();
        assert!(let_go_beyond(&conn, &mut findings).unwrap());
        whole(&conn, LSN, &mut findings).unwrap();
        let state = |id| {
            let row = catalogue::find_id(&conn, StreamId::new(id)).unwrap();
            row.map(|row| (row.state.retired, row.state.refs))
        };
        assert_eq!(state(1), Some((false, 1)));
        assert_eq!(state(2), Some((false, 0)));
        assert_eq!(state(3), Some((true, 1)), "kept as deleted for its fork");
        assert_eq!(state(4), Some((false, 0)));
        assert_eq!(state(5), None);
        let named = |id: u64| findings.iter().any(|it| it.object == format!("stream 's{id}'"));
        assert!(named(3) && named(5) && !named(4), "{findings:?}");
        assert!(!let_go_beyond(&conn, &mut findings).unwrap());
    }
}
