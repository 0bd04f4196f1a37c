//! Every byte of what the newest manifest names: blocks, rows, and whether the records of each
//! stream lie there without a hole.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use weir_io::{World, retry::Retrying};

use super::{
    Findings, VerifyError,
    chain::{Remote, is_kept},
    compare::Rows,
    damage,
};
use crate::{
    ledger::{Below, Change, Ledger, Merge, Row, Source},
    publish::listing::{Entry, Presence},
    restore::{
        fetch::{is_the_ledger, is_the_segment, whole},
        tail,
        window::Window,
    },
    segment::Segment,
    types::{Seq, StreamId},
};

/// Stretches of records by stream, in order of their segments.
type Stretches = BTreeMap<StreamId, Vec<Range<Seq>>>;

/// Reads all of it, one object at a time.
pub(super) async fn look(
    world: &World,
    bucket: &Retrying,
    remote: &Remote,
    rows: Option<&Rows>,
    found: &mut Findings,
) -> Result<(), VerifyError> {
    let mut stretches = Stretches::new();
    let mut sound = true;
    for entry in remote.segments.iter().filter(|it| it.presence == Presence::Stored) {
        sound &= segment(world, bucket, remote, entry, &mut stretches, found).await?;
    }
    let mut ledgers = Vec::new();
    for entry in &remote.ledgers {
        match ledger(world, bucket, remote, entry, found).await? {
            Some(ledger) => ledgers.push(ledger),
            None => sound = false,
        }
    }
    let manifest = &remote.newest.manifest;
    if let Some(newest) = ledgers.last()
        && let Err(what) = tail::check(newest, manifest)
    {
        found.add("tail", manifest.artifact().key(), what);
    }
    let ascends = |pair: &[Arc<Ledger>]| pair[0].footer().last_lsn < pair[1].footer().first_lsn;
    if !ledgers.windows(2).all(ascends) {
        // A rule that was asked before.
        return Ok(());
    }
    let shown: Vec<Change> = Merge::new(&ledgers, Below::Nothing).filter_map(Result::ok).collect();
    if sound {
        density(&shown, &mut stretches, remote, found);
        if let Some(rows) = rows {
            rows.compare_all(manifest, &remote.ledgers, &shown, found);
        }
    }
    Ok(())
}

/// Reads every block of a segment. Returns whether all could be read.
async fn segment(
    world: &World,
    bucket: &Retrying,
    remote: &Remote,
    entry: &Entry,
    stretches: &mut Stretches,
    found: &mut Findings,
) -> Result<bool, VerifyError> {
    let key = entry.segment().key();
    let bytes = match whole(bucket, &key, entry.bytes).await {
        Ok(bytes) => bytes,
        Err(bad) => {
            // A server may have published, merged and collected since.
            if is_kept(bucket, remote.newest.manifest.generation).await? {
                found.add("object", &key, damage(bad)?);
            }
            return Ok(false);
        }
    };
    found.checked.object_bytes += entry.bytes;
    let (store, wanted) = (remote.newest.manifest.store, *entry);
    let job = move || {
        let mut bad = Vec::new();
        let mut parts = Vec::new();
        let segment = match Segment::open(Arc::new(Window::whole(bytes))) {
            Ok(segment) => segment,
            Err(error) => return (vec![error.to_string()], parts),
        };
        if let Err(other) = is_the_segment(&segment, store, &wanted) {
            bad.push(other.to_string());
        }
        for no in segment.blocks() {
            match segment.block(no) {
                Ok(block) => parts.extend(
                    block.parts().iter().map(|part| (part.stream(), part.first()..part.limit())),
                ),
                Err(error) => bad.push(error.to_string()),
            }
        }
        (bad, parts)
    };
    let read = weir_io::tasks::run(&*world.blocking, job).await;
    let (bad, parts) = read.map_err(|gone| VerifyError::Local(gone.to_string()))?;
    for (stream, range) in parts {
        let known = stretches.entry(stream).or_default();
        match known.last_mut().filter(|last| last.end == range.start) {
            Some(last) => last.end = range.end,
            None => known.push(range),
        }
    }
    let sound = bad.is_empty();
    bad.into_iter().for_each(|what| found.add("block", &key, what));
    Ok(sound)
}

/// Reads every block of a ledger; `None` if some can't be read.
async fn ledger(
    world: &World,
    bucket: &Retrying,
    remote: &Remote,
    entry: &Entry,
    found: &mut Findings,
) -> Result<Option<Arc<Ledger>>, VerifyError> {
    let key = entry.ledger().key();
    let bytes = match whole(bucket, &key, entry.bytes).await {
        Ok(bytes) => bytes,
        Err(bad) => {
            // A server may have published, merged and collected since.
            if is_kept(bucket, remote.newest.manifest.generation).await? {
                found.add("object", &key, damage(bad)?);
            }
            return Ok(None);
        }
    };
    found.checked.object_bytes += entry.bytes;
    let (store, wanted) = (remote.newest.manifest.store, *entry);
    let job = move || -> Result<Arc<Ledger>, Vec<String>> {
        let ledger = Ledger::open(Source::Memory(bytes)).map_err(|bad| vec![bad.to_string()])?;
        is_the_ledger(&ledger, store, &wanted).map_err(|bad| vec![bad.to_string()])?;
        let ledger = Arc::new(ledger);
        let rows = ledger.rows().filter_map(|row| match row {
            Ok(change) => Row::decode(&change).err().map(|bad| format!("{}: {bad}", change.key)),
            Err(lost) => Some(lost.to_string()),
        });
        let commits = ledger.commits().filter_map(|commit| commit.err().map(|it| it.to_string()));
        let bad: Vec<String> = rows.chain(commits).collect();
        if bad.is_empty() { Ok(ledger) } else { Err(bad) }
    };
    let read = weir_io::tasks::run(&*world.blocking, job).await;
    Ok(match read.map_err(|gone| VerifyError::Local(gone.to_string()))? {
        Ok(ledger) => Some(ledger),
        Err(bad) => {
            bad.into_iter().for_each(|what| found.add("block", &key, what));
            None
        }
    })
}

/// Whether the records that rows speak of are there. Of a deleted stream nobody knows which are
/// kept; a hole that the manifest names is a finding of its own.
fn density(shown: &[Change], stretches: &mut Stretches, remote: &Remote, found: &mut Findings) {
    if remote.segments.iter().any(|it| it.presence == Presence::Hole) {
        return;
    }
    for change in shown {
        let Ok(Some(Row::Stream(row))) = Row::decode(change) else { continue };
        if row.state.retired {
            continue;
        }
        let mut next = row.identity.own_start().max(row.state.kept.earliest);
        let mut known = stretches.remove(&row.identity.id).unwrap_or_default();
        known.sort_by_key(|range| range.start);
        for range in known {
            if range.start > next {
                break;
            }
            next = next.max(range.end);
        }
        if next < row.sealed {
            let object = format!("stream '{}'", row.identity.name);
            let text = format!("record {next} is in no segment, of {} that are sealed", row.sealed);
            found.add("dense", object, text);
        }
    }
}
