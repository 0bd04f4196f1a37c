//! Streams as they would come back: the rows of all ledgers, the tail of the newest laid over them,
//! and the segments that must hold every record of them (INV-40).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Finding, Objects,
    chain::{Opened, key_of},
    content, note,
};
use crate::{
    ledger::{Below, Ledger, Merge, Row},
    log::{
        commit::{self, Link},
        entry::{self, Entry},
    },
    publish::{invariants::Kind, listing::Presence},
    types::{Ancestry, Lineage, Lsn, Offset, Records, Seq, StreamId, StreamName},
};

/// A stream that would come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its name.
    pub name: StreamName,
    /// Everything before this is in segments.
    pub sealed: Offset,
    /// What can be read begins here.
    pub earliest: Offset,
    /// Its tail.
    pub next: Offset,
    /// It takes no more records.
    pub closed: bool,
    /// Deleted, and kept for its forks.
    pub retired: bool,
}

/// A stream while rows and commits are laid over each other.
struct Stream {
    name: StreamName,
    lineage: Lineage,
    fork: Option<Arc<Ancestry>>,
    earliest: Seq,
    sealed: Seq,
    next: Seq,
    closed: bool,
    retired: bool,
    /// Everything up to here is in its row.
    lsn: Lsn,
}

impl Stream {
    fn own_start(&self) -> Seq {
        self.fork.as_ref().map_or(Seq::ZERO, |fork| fork.at)
    }
}

/// Stretches of records, by stream.
type Stretches = BTreeMap<StreamId, Vec<(Seq, Seq)>>;

/// What a manifest brings back. What is wrong with it is noted.
pub(super) fn published(
    objects: &Objects<'_>,
    opened: &Opened,
    findings: &mut Vec<Finding>,
) -> Vec<Published> {
    let Some(ledgers) = ledgers(objects, opened, findings) else { return Vec::new() };
    let mut streams = rows(&ledgers, findings);
    let mut stretches = Stretches::new();
    if let Some(newest) = ledgers.last() {
        tail(newest, opened, (&mut streams, &mut stretches), findings);
    }
    let holes = in_segments(objects, opened, &mut stretches);
    for (id, stream) in &streams {
        if !holes {
            whole((*id, stream), &stretches, findings);
        }
    }
    let mut names = BTreeSet::new();
    let mut found = Vec::with_capacity(streams.len());
    for stream in streams.into_values() {
        if !names.insert(stream.name.clone()) {
            note(findings, format!("'{}'", stream.name), "is the name of two streams");
        }
        found.push(Published {
            earliest: stream.lineage.offset(stream.earliest),
            sealed: stream.lineage.offset(stream.sealed),
            next: stream.lineage.offset(stream.next),
            closed: stream.closed,
            retired: stream.retired,
            name: stream.name,
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// All ledgers, oldest first; `None` if one can't be read, which was noted before.
fn ledgers(
    objects: &Objects<'_>,
    opened: &Opened,
    findings: &mut Vec<Finding>,
) -> Option<Vec<Arc<Ledger>>> {
    let mut ledgers: Vec<Arc<Ledger>> = Vec::new();
    for entry in &opened.ledgers {
        let bytes = objects.get(&key_of(Kind::Ledger, entry))?;
        let ledger = content::ledger(bytes).ok()?;
        if ledgers.last().is_some_and(|it| it.footer().last_lsn >= ledger.footer().first_lsn) {
            note(findings, key_of(Kind::Ledger, entry), "overlaps the one before");
            return None;
        }
        ledgers.push(ledger);
    }
    Some(ledgers)
}

fn rows(ledgers: &[Arc<Ledger>], findings: &mut Vec<Finding>) -> BTreeMap<StreamId, Stream> {
    let mut streams = BTreeMap::new();
    for change in Merge::new(ledgers, Below::Nothing).flatten() {
        match Row::decode(&change) {
            Ok(Some(Row::Stream(row))) => {
                let state = row.state;
                let stream = Stream {
                    name: row.identity.name,
                    lineage: state.lineage,
                    fork: row.identity.fork,
                    earliest: state.kept.earliest,
                    sealed: row.sealed,
                    next: state.next,
                    closed: state.closed.is_some(),
                    retired: state.retired,
                    lsn: state.lsn,
                };
                streams.insert(row.identity.id, stream);
            }
            Ok(_) => {}
            Err(bad) => note(findings, "a row", bad),
        }
    }
    streams
}

/// Lays the commits of the newest ledger over the rows, as a start after a crash does.
fn tail(
    newest: &Arc<Ledger>,
    opened: &Opened,
    (streams, stretches): (&mut BTreeMap<StreamId, Stream>, &mut Stretches),
    findings: &mut Vec<Finding>,
) {
    let manifest = &opened.manifest;
    let mut at: Link = manifest.folded;
    for (lsn, body) in newest.commits().flatten() {
        let (header, link, body) = match commit::open(&body) {
            Ok(commit) => commit,
            Err(bad) => return note(findings, format!("commit {lsn}"), bad),
        };
        if header.lsn != lsn || header.before != at || header.store != manifest.store {
            let what = format!("follows {:?} instead of {at:?}", header.before);
            return note(findings, format!("commit {lsn}"), what);
        }
        at = link;
        match entry::decode_all(body) {
            Ok(entries) => {
                for entry in entries {
                    apply(entry, lsn, (streams, stretches), findings);
                }
            }
            Err(bad) => note(findings, format!("commit {lsn}"), bad),
        }
    }
    if at != manifest.through {
        let what = format!("is at {at:?} after its tail, not at {:?}", manifest.through);
        note(findings, manifest.artifact().key(), what);
    }
}

fn apply(
    entry: Entry,
    lsn: Lsn,
    (streams, stretches): (&mut BTreeMap<StreamId, Stream>, &mut Stretches),
    findings: &mut Vec<Finding>,
) {
    match entry {
        Entry::Create(create) => {
            // A row that is ahead of the fold has it already; so has one that is gone again.
            let at = create.fork.as_ref().map_or(Seq::ZERO, |fork| fork.at);
            streams.entry(create.stream).or_insert(Stream {
                name: create.name,
                lineage: create.lineage,
                fork: create.fork,
                earliest: create.earliest,
                sealed: at,
                next: at,
                closed: false,
                retired: false,
                lsn: Lsn::ZERO,
            });
        }
        Entry::Write(write) => {
            let Some(stream) = streams.get_mut(&write.stream) else { return };
            let limit = write.first.after(write.records.as_ref().map_or(0, Records::count));
            stretches.entry(write.stream).or_default().push((write.first, limit));
            if lsn <= stream.lsn {
                return;
            }
            if write.first != stream.next || stream.closed {
                let what = format!("writes at {}, the tail is {}", write.first, stream.next);
                note(findings, format!("commit {lsn} of '{}'", stream.name), what);
            }
            stream.next = limit;
            stream.closed |= write.closes;
        }
        Entry::Delete(delete) => drop(streams.remove(&delete.stream)),
        Entry::Retire { stream, .. } => {
            if let Some(stream) = streams.get_mut(&stream) {
                stream.retired = true;
            }
        }
        Entry::Trim(trim) => {
            if let Some(stream) = streams.get_mut(&trim.stream) {
                stream.earliest = stream.earliest.max(trim.earliest);
            }
        }
        Entry::Renew { .. } | Entry::Retain { .. } | Entry::Subscription(_) => {}
    }
}

/// Adds what segments hold. Returns whether some of it is known to be lost.
fn in_segments(objects: &Objects<'_>, opened: &Opened, stretches: &mut Stretches) -> bool {
    let mut holes = false;
    for entry in &opened.segments {
        holes |= entry.presence == Presence::Hole;
        let bytes = objects.get(&key_of(Kind::Segment, entry));
        let segment = bytes.and_then(|bytes| content::segment(bytes).ok());
        let Some(segment) = segment else {
            // Noted before, unless it is a hole.
            holes = true;
            continue;
        };
        let blocks = segment.blocks().filter_map(|no| segment.block(no).ok());
        for block in blocks {
            for part in block.parts() {
                let stretch = (part.first(), part.limit());
                stretches.entry(part.stream()).or_default().push(stretch);
            }
        }
    }
    holes
}

/// Every record of a stream is somewhere, those that it inherits included.
fn whole((id, stream): (StreamId, &Stream), stretches: &Stretches, findings: &mut Vec<Finding>) {
    // What is deleted and only kept for its forks need not be whole beyond them.
    if stream.retired {
        return;
    }
    let mut first = stream.earliest;
    let runs = stream.fork.as_ref().map_or(&[][..], |fork| &fork.runs);
    for run in runs {
        if let Some(gap) = gap(stretches.get(&run.stream), first, run.limit) {
            let what = format!("{gap} of stream {} is nowhere, it inherits it", run.stream);
            note(findings, format!("'{}'", stream.name), what);
        }
        first = first.max(run.limit);
    }
    if let Some(gap) = gap(stretches.get(&id), stream.own_start().max(stream.earliest), stream.next)
    {
        note(findings, format!("'{}'", stream.name), format!("{gap} is nowhere"));
    }
}

/// The first position of a range that no stretch has.
fn gap(stretches: Option<&Vec<(Seq, Seq)>>, first: Seq, limit: Seq) -> Option<Seq> {
    let mut known: Vec<(Seq, Seq)> = stretches.cloned().unwrap_or_default();
    known.sort_unstable();
    let mut at = first;
    for (start, end) in known {
        if start > at {
            break;
        }
        at = at.max(end);
    }
    (at < limit).then_some(at)
}
