//! What holds of every manifest, one named rule each: asked before a manifest is published, and
//! again by whoever verifies a bucket.
//!
//! An *era* lies between two bootstraps. Inside one, nothing moves back; a bootstrap may begin
//! the next one at an older point.

use std::{collections::BTreeSet, fmt};

use super::{
    keys::{Digest, Generation},
    listing::{Entry, Presence},
    manifest::{Manifest, Published},
};
use crate::{
    limits::MANIFEST_BYTES_MAX,
    log::commit::Link,
    types::{Lsn, SegmentId},
};

/// A manifest that is about to be published, or was.
pub(crate) struct Proposal<'a> {
    pub(crate) manifest: &'a Manifest,
    /// All of its entries, resolved.
    pub(crate) segments: &'a [Entry],
    pub(crate) ledgers: &'a [Entry],
    /// Length of its bytes.
    pub(crate) bytes: usize,
    /// Whether the object of an entry is known to be in the bucket, whole.
    pub(crate) is_uploaded: &'a dyn Fn(Kind, &Entry) -> bool,
}

/// What a listing lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Segment,
    Ledger,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segment => "segment",
            Self::Ledger => "ledger",
        })
    }
}

/// A manifest breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("manifest rule '{rule}' is broken (INV-40): {text}")]
pub(crate) struct Violation {
    /// The rule's name.
    pub(crate) rule: &'static str,
    /// What is, and what should be.
    pub(crate) text: String,
}

/// What is wrong, if anything.
type Finding = Option<String>;

/// A rule: its name, and what it finds.
type Rule = (&'static str, fn(&Proposal<'_>, Option<&Published>) -> Finding);

/// All rules, in the order in which they are asked.
pub(crate) const RULES: [Rule; 15] = [
    ("store", store),
    ("generation", generation),
    ("predecessor", predecessor),
    ("recoveries", recoveries),
    ("writer epoch", writer_epoch),
    ("folded is within", folded_is_within),
    ("folded moves forward", folded_moves_forward),
    ("through moves forward", through_moves_forward),
    ("numbers are not reused", numbers_are_not_reused),
    ("ids are unique", ids_are_unique),
    ("ids are below the next", ids_are_below_the_next),
    ("segments in order", segments_in_order),
    ("ledgers without a gap", ledgers_without_a_gap),
    ("everything is uploaded", everything_is_uploaded),
    ("size", size),
];

/// The first rule that `next` breaks. `previous` is the manifest it follows, if there is one.
///
/// # Errors
/// A rule is broken: the manifest must not be published.
pub(crate) fn check(next: &Proposal<'_>, previous: Option<&Published>) -> Result<(), Violation> {
    violations(next, previous).next().map_or(Ok(()), Err)
}

/// Every rule that `next` breaks.
pub(crate) fn violations<'a>(
    next: &'a Proposal<'a>,
    previous: Option<&'a Published>,
) -> impl Iterator<Item = Violation> + 'a {
    RULES
        .iter()
        .filter_map(move |(rule, find)| find(next, previous).map(|text| Violation { rule, text }))
}

fn store(next: &Proposal<'_>, previous: Option<&Published>) -> Finding {
    let previous = previous?;
    (next.manifest.store != previous.store).then(|| "the one before is another store's".to_owned())
}

fn generation(next: &Proposal<'_>, previous: Option<&Published>) -> Finding {
    let expected = previous.map_or(Generation::NONE, |it| it.generation).next();
    let found = next.manifest.generation;
    (found != expected).then(|| format!("generation {found} instead of {expected}"))
}

fn predecessor(next: &Proposal<'_>, previous: Option<&Published>) -> Finding {
    let expected = previous.map_or(Digest::NONE, |it| it.digest);
    let found = next.manifest.before;
    (found != expected).then(|| format!("it follows {found} instead of {expected}"))
}

fn recoveries(next: &Proposal<'_>, previous: Option<&Published>) -> Finding {
    let (found, before) = (next.manifest.recoveries, previous?.recoveries);
    (found < before).then(|| format!("{found} recoveries after {before}"))
}

/// The one before, if no bootstrap lies between.
fn same_era<'a>(next: &Proposal<'_>, previous: Option<&'a Published>) -> Option<&'a Published> {
    previous.filter(|it| it.recoveries == next.manifest.recoveries)
}

fn writer_epoch(next: &Proposal<'_>, previous: Option<&Published>) -> Finding {
    let before = same_era(next, previous)?.writer_epoch;
    let found = next.manifest.writer_epoch;
    (found < before).then(|| format!("writer epoch {found} after {before}"))
}

fn folded_is_within(next: &Proposal<'_>, _: Option<&Published>) -> Finding {
    backwards(next.manifest.folded, next.manifest.through)
        .map(|text| format!("folded, then through: {text}"))
}

fn folded_moves_forward(next: &Proposal<'_>, previous: Option<&Published>) -> Finding {
    backwards(same_era(next, previous)?.folded, next.manifest.folded)
}

fn through_moves_forward(next: &Proposal<'_>, previous: Option<&Published>) -> Finding {
    backwards(same_era(next, previous)?.through, next.manifest.through)
}

/// What is wrong with a step of the log from one commit to another.
fn backwards(from: Link, to: Link) -> Finding {
    let Link { lsn, crc } = to;
    if lsn < from.lsn {
        return Some(format!("commit {lsn} after commit {}", from.lsn));
    }
    (lsn == from.lsn && crc != from.crc)
        .then(|| format!("commit {lsn} has two checksums: {:08x} and {crc:08x}", from.crc))
}

fn numbers_are_not_reused(next: &Proposal<'_>, previous: Option<&Published>) -> Finding {
    let (now, before) = (next.manifest, same_era(next, previous)?);
    let numbers = [
        ("stream", now.next_stream.get(), before.next_stream.get()),
        ("subscription", now.next_subscription, before.next_subscription),
        ("file", now.next_segment.get(), before.next_segment.get()),
        ("millisecond of store time", now.store_ms.get(), before.store_ms.get()),
    ];
    let back = numbers.into_iter().find(|(_, now, before)| now < before);
    back.map(|(what, now, before)| format!("the next {what} is {now}, was {before}"))
}

/// Both listings, each entry with what it is.
fn all<'a>(next: &'a Proposal<'_>) -> impl Iterator<Item = (Kind, &'a Entry)> {
    let segments = next.segments.iter().map(|entry| (Kind::Segment, entry));
    segments.chain(next.ledgers.iter().map(|entry| (Kind::Ledger, entry)))
}

fn ids_are_unique(next: &Proposal<'_>, _: Option<&Published>) -> Finding {
    let mut seen: BTreeSet<SegmentId> = BTreeSet::new();
    let twice = all(next).find(|(_, entry)| !seen.insert(entry.id));
    twice.map(|(kind, entry)| format!("{kind} {} has an id that another file has", entry.id))
}

fn ids_are_below_the_next(next: &Proposal<'_>, _: Option<&Published>) -> Finding {
    let limit = next.manifest.next_segment;
    let beyond = all(next).find(|(_, entry)| entry.id >= limit);
    beyond.map(|(kind, entry)| format!("{kind} {}, and the next file is {limit}", entry.id))
}

/// A segment with a commit beyond the cut would have records which, after a bootstrap, others
/// of the same positions meet.
fn segments_in_order(next: &Proposal<'_>, _: Option<&Published>) -> Finding {
    let mut last = None;
    for entry in next.segments {
        if last.is_some_and(|last| last >= entry.place()) {
            return Some(format!("segment {} is not in its place", entry.id));
        }
        last = Some(entry.place());
        if entry.first_lsn > entry.last_lsn {
            return Some(format!("segment {} ends before it begins", entry.id));
        }
    }
    let (last, _, id) = last?;
    let through = next.manifest.through.lsn;
    (last > through).then(|| format!("segment {id} has commit {last}, beyond commit {through}"))
}

/// Each ledger begins where the one before ends, so none can be forgotten.
fn ledgers_without_a_gap(next: &Proposal<'_>, _: Option<&Published>) -> Finding {
    let mut limit = Lsn::ZERO.next();
    for (at, entry) in next.ledgers.iter().enumerate() {
        let begins = entry.first_lsn == limit || (at == 0 && entry.first_lsn < limit);
        if !begins {
            let first = entry.first_lsn;
            return Some(format!("ledger {} begins at {first} instead of {limit}", entry.id));
        }
        if entry.last_lsn < entry.first_lsn {
            return Some(format!("ledger {} ends before it begins", entry.id));
        }
        limit = entry.last_lsn.next();
    }
    let newest = next.ledgers.last()?;
    let (last, folded) = (newest.last_lsn, next.manifest.folded.lsn);
    (last > folded).then(|| format!("ledger {} goes beyond commit {folded}", newest.id))
}

fn everything_is_uploaded(next: &Proposal<'_>, _: Option<&Published>) -> Finding {
    let stored = |entry: &Entry| entry.presence == Presence::Stored;
    let mut missing =
        all(next).filter(|(kind, entry)| stored(entry) && !(next.is_uploaded)(*kind, entry));
    missing.next().map(|(kind, entry)| format!("{kind} {} is not uploaded", entry.id))
}

fn size(next: &Proposal<'_>, _: Option<&Published>) -> Finding {
    (next.bytes > MANIFEST_BYTES_MAX)
        .then(|| format!("{} bytes, at most {MANIFEST_BYTES_MAX} are allowed", next.bytes))
}
