//! Each rule is broken by the manifest that breaks it and by no other.

use std::collections::BTreeSet;

use super::*;
use crate::{
    limits::MANIFEST_BYTES_MAX,
    publish::{
        invariants::{self, Kind, Proposal, RULES},
        manifest::Published,
    },
};

/// A manifest that is about to be published, and what it follows.
struct Case {
    next: Manifest,
    segments: Vec<Entry>,
    ledgers: Vec<Entry>,
    bytes: usize,
    previous: Option<Published>,
    /// What is not in the bucket.
    missing: Option<(Kind, u64)>,
}

/// Nothing is wrong with it.
fn good() -> Case {
    let (segments, ledgers) = listings();
    let next = manifest();
    let before = Manifest {
        generation: Generation::new(11),
        folded: link(6),
        through: link(9),
        next_stream: StreamId::new(39),
        next_segment: SegmentId::new(5),
        store_ms: StoreMs::new(74_000),
        ..manifest()
    };
    let previous = Some(Published::new(&before, next.before));
    let bytes = next.encode().bytes.len();
    Case { next, segments, ledgers, bytes, previous, missing: None }
}

/// The rules it breaks.
fn broken(case: &Case) -> Vec<&'static str> {
    let uploaded = |kind: Kind, entry: &Entry| case.missing != Some((kind, entry.id.get()));
    let proposal = Proposal {
        manifest: &case.next,
        segments: &case.segments,
        ledgers: &case.ledgers,
        bytes: case.bytes,
        is_uploaded: &uploaded,
    };
    let previous = case.previous.as_ref();
    let found: Vec<_> = invariants::violations(&proposal, previous).collect();
    let first = invariants::check(&proposal, previous).err();
    assert_eq!(first.as_ref(), found.first(), "asked for one, the first is named");
    assert!(found.iter().all(|it| it.to_string().contains(it.rule) && !it.text.is_empty()));
    found.into_iter().map(|it| it.rule).collect()
}

fn first_of_a_chain(case: &mut Case) {
    case.previous = None;
    case.next.generation = Generation::new(1);
    case.next.before = Digest::NONE;
}

/// A bootstrap lies between: the store goes on from an older point.
fn recovered(case: &mut Case) {
    let before = case.previous.as_mut().unwrap();
    before.recoveries = 0;
    before.folded = link(100);
    before.through = link(100);
    before.writer_epoch = 9;
    before.next_stream = StreamId::new(900);
    before.next_subscription = 900;
    before.next_segment = SegmentId::new(900);
    before.store_ms = StoreMs::new(900_000);
}

type Change = fn(&mut Case);

#[test]
fn a_manifest_that_keeps_the_rules_breaks_none() {
    let changes: [Change; 7] = [
        |_| {},
        first_of_a_chain,
        recovered,
        // What is lost need not be there.
        |case| case.missing = Some((Kind::Segment, 5)),
        // A merge publishes at the same point of the log.
        |case| {
            let before = case.previous.as_mut().unwrap();
            (before.folded, before.through) = (case.next.folded, case.next.through);
        },
        |case| case.bytes = MANIFEST_BYTES_MAX,
        |case| (case.segments, case.ledgers) = (Vec::new(), Vec::new()),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut case = good();
        change(&mut case);
        assert_eq!(broken(&case), [""; 0], "case {at}");
    }
}

#[test]
fn every_rule_is_broken_by_what_breaks_it() {
    let cases: [(&str, Change); 35] = [
        ("store", |case| case.previous.as_mut().unwrap().store = StoreId([1; 16])),
        ("generation", |case| case.next.generation = Generation::new(13)),
        ("generation", |case| case.next.generation = Generation::new(11)),
        ("generation", |case| {
            first_of_a_chain(case);
            case.next.generation = Generation::new(2);
        }),
        ("predecessor", |case| case.next.before = Digest::NONE),
        ("predecessor", |case| {
            first_of_a_chain(case);
            case.next.before = Digest::of(b"another");
        }),
        ("recoveries", |case| case.next.recoveries = 0),
        ("writer epoch", |case| case.next.writer_epoch = 2),
        ("folded is within", |case| case.next.folded = link(12)),
        ("folded is within", |case| case.next.folded = Link { crc: 1, ..link(11) }),
        ("folded moves forward", |case| case.previous.as_mut().unwrap().folded = link(10)),
        ("folded moves forward", |case| {
            case.previous.as_mut().unwrap().folded = Link { crc: 1, ..link(9) };
        }),
        ("through moves forward", |case| case.previous.as_mut().unwrap().through = link(12)),
        ("through moves forward", |case| {
            case.previous.as_mut().unwrap().through = Link { crc: 1, ..link(11) };
        }),
        ("numbers are not reused", |case| {
            case.previous.as_mut().unwrap().next_stream = StreamId::new(41);
        }),
        ("numbers are not reused", |case| case.previous.as_mut().unwrap().next_subscription = 6),
        ("numbers are not reused", |case| {
            case.previous.as_mut().unwrap().next_segment = SegmentId::new(9);
        }),
        ("numbers are not reused", |case| {
            case.previous.as_mut().unwrap().store_ms = StoreMs::new(75_001);
        }),
        ("ids are unique", |case| case.segments[0].id = SegmentId::new(5)),
        ("ids are unique", |case| case.ledgers[1].id = SegmentId::new(2)),
        ("ids are below the next", |case| case.next.next_segment = SegmentId::new(7)),
        ("ids are below the next", |case| case.segments[2].id = SegmentId::new(8)),
        ("segments in order", |case| case.segments.swap(1, 2)),
        ("segments in order", |case| case.segments[0].first_lsn = Lsn::new(7)),
        ("segments in order", |case| case.segments[2].last_lsn = Lsn::new(12)),
        ("segments in order", |case| {
            case.segments[2] = Entry { id: SegmentId::new(4), ..case.segments[1] };
        }),
        ("ledgers without a gap", |case| case.ledgers.swap(0, 1)),
        ("ledgers without a gap", |case| {
            case.ledgers.remove(0);
        }),
        ("ledgers without a gap", |case| case.ledgers[1].first_lsn = Lsn::new(8)),
        ("ledgers without a gap", |case| case.ledgers[1].first_lsn = Lsn::new(6)),
        ("ledgers without a gap", |case| case.ledgers[1].last_lsn = Lsn::new(6)),
        ("ledgers without a gap", |case| case.ledgers[1].last_lsn = Lsn::new(10)),
        ("everything is uploaded", |case| case.missing = Some((Kind::Segment, 6))),
        ("everything is uploaded", |case| case.missing = Some((Kind::Ledger, 3))),
        ("size", |case| case.bytes = MANIFEST_BYTES_MAX + 1),
    ];
    let mut seen = BTreeSet::new();
    for (at, (rule, change)) in cases.into_iter().enumerate() {
        let mut case = good();
        change(&mut case);
        assert_eq!(broken(&case), [rule], "case {at}");
        seen.insert(rule);
    }
    let all: BTreeSet<_> = RULES.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(seen, all, "every rule has a case");
}
