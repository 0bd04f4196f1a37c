//! Every byte of what the newest manifest names: blocks, rows, and whether the records of each
//! stream lie there without a hole. In memory are one segment at a time, a stretch of each ledger, and of
//! each stream where its records begin and end.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use weir_io::{World, retry::Retrying};

use super::{
    Findings, VerifyError,
    chain::{Remote, is_kept},
    damage,
    ledgers::Ledgers,
    rows::Tables,
};
use crate::{
    Config,
    ledger::{Change, Row},
    publish::listing::{Entry, Presence},
    restore::{fetch::is_the_segment, object::whole, window::Window},
    segment::Segment,
    types::{Seq, StreamId},
};

/// Stretches of records by stream, in order of their segments.
type Stretches = BTreeMap<StreamId, Vec<Range<Seq>>>;

/// Reads all of it: segments one after the other, then the ledgers together. Rows are compared with those
/// of the store that a configuration is given of.
pub(super) async fn look(
    world: &World,
    bucket: &Retrying,
    remote: &Remote,
    config: Option<&Config>,
    found: &mut Findings,
) -> Result<(), VerifyError> {
    let mut stretches = Stretches::new();
    let mut sound = true;
    for entry in remote.segments.iter().filter(|it| it.presence == Presence::Stored) {
        sound &= segment(world, bucket, remote, entry, &mut stretches, found).await?;
    }
    let manifest = &remote.newest.manifest;
    let Some(mut ledgers) = Ledgers::open(world, bucket, remote, found).await? else {
        return Ok(());
    };
    let mut tables = match config {
        Some(config) => Tables::begin(world, config, manifest, &remote.ledgers).await?,
        None => None,
    };
    // Of a deleted stream nobody knows which records are kept; a hole that the manifest names is a finding
    // of its own.
    let dense = !remote.segments.iter().any(|it| it.presence == Presence::Hole);
    let mut gaps = Findings::default();
    while let Some(change) = ledgers.next(found).await? {
        if dense {
            density(&change, &mut stretches, &mut gaps);
        }
        if let Some(tables) = &mut tables {
            tables.compare(&change).await?;
        }
    }
    if sound && ledgers.end(found) {
        found.findings.append(&mut gaps.findings);
        if let Some(tables) = tables {
            tables.end(found).await?;
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

/// Whether the records that a row speaks of are there.
fn density(shown: &Change, stretches: &mut Stretches, found: &mut Findings) {
    let Ok(Some(Row::Stream(row))) = Row::decode(shown) else { return };
    let mut known = stretches.remove(&row.identity.id).unwrap_or_default();
    if row.state.retired {
        return;
    }
    let mut next = row.identity.own_start().max(row.state.kept.earliest);
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
