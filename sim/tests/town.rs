//! Fixed seeds with clients on other machines: the HTTP server, the network and the engine together.

mod common;

use std::ops::Range;

use sim::{case::Case, run::Over, sabotage::Sabotage};

/// Where rare branches are marked that these seeds must reach, all of them.
const MARKED: [&str; 2] = ["sim/src/town", "sim/src/door"];

/// What these seeds must reach besides, among what is marked elsewhere.
const BESIDES: [&str; 9] = [
    "a duplicate was answered after a restart",
    "a fork of a fork of a fork of a fork was made",
    "a lease ended and its work was woken again",
    "a live reader was overtaken by a trim",
    "a reader was told that what it asked for was let go of",
    "a store was recovered from a copy of its bucket",
    "a stream had let go of its oldest records",
    "a worker reported on a wake that was over",
    "the bucket was away for a while",
];

/// The fixed seeds, and those that are run as long as a mark was not reached.
const SEEDS: [Range<u64>; 4] = [0..48, 48..72, 72..96, 96..120];

#[test]
fn fixed_seeds_over_http_hold_and_reach_every_mark() {
    let mut missing = common::marks(&MARKED);
    assert!(missing.len() > 15, "the sources have their marks: {missing:?}");
    missing.extend(common::ONLY_OVER_HTTP.iter().chain(&BESIDES).map(|it| (*it).to_owned()));
    for seeds in SEEDS {
        let swarm = common::over(Over::Http, seeds, 2, Sabotage::None);
        assert!(swarm.failures.is_empty(), "{}", swarm.reports);
        missing.retain(|mark| !swarm.marks.contains(mark));
        if missing.is_empty() {
            return;
        }
    }
    panic!("never reached: {missing:?}");
}

#[test]
fn two_runs_of_a_seed_over_http_leave_the_same_trace() {
    let forth = common::over(Over::Http, 100..106, 1, Sabotage::None);
    let back = common::over(Over::Http, (100..106).rev(), 1, Sabotage::None);
    assert!(forth.failures.is_empty(), "{}", forth.reports);
    assert_eq!(forth.hashes, back.hashes);
}

/// Without these a server that got into trouble is soon a new one.
const NO_RESTARTS: [(&str, &str); 4] = [
    ("crash_at_op", "false"),
    ("crash_at_time", "false"),
    ("process_kill", "false"),
    ("graceful", "false"),
];

/// One of the seeds catches the defect, as one of these invariants. What was said of it.
fn check(defect: Sabotage, seeds: &[u64], set: &[(&str, &str)], invariants: &[&str]) -> String {
    let case = |seed: &u64| {
        let case = Case::new(*seed, Over::Http, defect);
        set.iter().fold(case, |case, (name, value)| case.with(name, value))
    };
    let swarm = common::cases(&seeds.iter().map(case).collect::<Vec<_>>(), 1);
    let caught = swarm
        .failures
        .values()
        .any(|what| invariants.iter().any(|id| what.starts_with(&format!("{id} "))));
    assert!(caught, "{defect:?}: {:?}", swarm.failures);
    swarm.reports
}

#[test]
fn defects_of_connections_are_caught() {
    let with = |more: &[(&'static str, &'static str)]| [&NO_RESTARTS[..], more].concat();
    check(Sabotage::TornBodies, &[1, 5], &[("resets", "true")], &["INV-5", "INV-10", "INV-16"]);
    check(Sabotage::DeafAfterMany, &[0, 1, 2], &with(&[("bursts", "true")]), &["INV-20"]);
    check(Sabotage::WritersWait, &[0, 1], &with(&[("slow_readers", "true")]), &["INV-20"]);
    let large = [("slow_readers", "true"), ("fill_max", "20000"), ("round_ms", "8000")];
    check(Sabotage::EndlessBuffers, &[10, 13], &with(&large), &["INV-13"]);
}

#[test]
fn defects_of_stopped_processes_and_of_webhooks_are_caught() {
    let pauses = [&NO_RESTARTS[..], &[("pauses", "true")]].concat();
    check(Sabotage::TasksOversleep, &[8, 10], &pauses, &["INV-18", "INV-20"]);
    check(Sabotage::CallsFeigned, &[0, 1], &[], &["INV-25", "INV-28"]);
}

#[test]
fn defects_of_limits_are_caught_by_what_clients_see() {
    check(Sabotage::BeginningsUntold, &[1, 2], &[], &["INV-31"]);
    // There the server does not say what is wrong with the stream.
    check(Sabotage::BeginningsTooLate, &[1, 3], &[], &["INV-21", "INV-31"]);
    let said = check(Sabotage::TrimsForgotten, &[1, 2], &[], &["INV-31"]);
    assert!(said.contains("what streams keep is looked at from another machine"), "{said}");
}

#[test]
fn tags_that_name_no_life_are_caught_by_who_keeps_pages() {
    // A 304 that speaks of another life, and a tag that stands for two things.
    check(Sabotage::TagsOfNoLife, &[18, 21], &[], &["INV-10"]);
    check(Sabotage::TagsOfNoLife, &[9, 13], &[], &["INV-4"]);
}
