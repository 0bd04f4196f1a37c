//! Fixed seeds with clients on other machines: the HTTP server, the network and the engine together.

mod common;

use std::ops::Range;

use sim::{case::Case, run::Over, sabotage::Sabotage};

/// Rare things that these seeds must do.
const MARKS: [&str; 29] = [
    "a connection was reset in the middle of a request",
    "a connection was reset in the middle of an answer",
    "a deletion that nobody answered was over",
    "a duplicate was answered after a restart",
    "a fork of a fork of a fork of a fork was made",
    "a lease ended and its work was woken again",
    "a link lost packets",
    "a link was slow for a while",
    "a live reader was overtaken by a trim",
    "a poll was overtaken by a trim",
    "a reader of events was overtaken by a trim",
    "a reader was told that what it asked for was let go of",
    "a receiver crashed",
    "a receiver had worked and its answer was lost",
    "a receiver took longer than it was waited for",
    "a stream had let go of its oldest records",
    "a thousand short connections came and went",
    "a worker reported on a wake that was over",
    "an answer was lost on the network",
    "an event stream broke",
    "an event stream was ended by the server",
    "others were served beside a slow reader",
    "packets were held back and came late",
    "the clocks of clients differed from the server's",
    "the power went in the middle of an operation",
    "the server waited for a reader to take what was sent",
    "the server's process stopped and went on",
    "what nobody was told of a creation was seen later",
    "what nobody was told of limits was over",
];

/// The fixed seeds, and those that are run as long as a mark was not reached.
const SEEDS: [Range<u64>; 4] = [0..48, 48..72, 72..96, 96..120];

#[test]
fn fixed_seeds_over_http_hold_and_reach_every_mark() {
    let mut missing: Vec<&str> = MARKS.to_vec();
    for seeds in SEEDS {
        let swarm = common::over(Over::Http, seeds, 2, Sabotage::None);
        assert!(swarm.failures.is_empty(), "{}", swarm.reports);
        missing.retain(|mark| !swarm.marks.contains(*mark));
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
