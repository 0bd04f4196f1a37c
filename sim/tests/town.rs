//! Fixed seeds with clients on other machines: the HTTP server, the network and the engine together.

mod common;

use sim::{run::Over, sabotage::Sabotage};

/// Rare things that these seeds must do.
const MARKS: [&str; 6] = [
    "an answer was lost on the network",
    "an event stream broke",
    "an event stream was ended by the server",
    "packets were held back and came late",
    "the power went in the middle of an operation",
    "a duplicate was answered after a restart",
];

#[test]
fn fixed_seeds_over_http_hold_and_reach_every_mark() {
    let swarm = common::over(Over::Http, 0..48, 2, Sabotage::None);
    assert!(swarm.failures.is_empty(), "{}", swarm.reports);
    for mark in MARKS {
        assert!(swarm.marks.contains(mark), "no seed did this: {mark}");
    }
}

#[test]
fn two_runs_of_a_seed_over_http_leave_the_same_trace() {
    let forth = common::over(Over::Http, 100..108, 1, Sabotage::None);
    let back = common::over(Over::Http, (100..108).rev(), 1, Sabotage::None);
    assert!(forth.failures.is_empty(), "{}", forth.reports);
    assert_eq!(forth.hashes, back.hashes);
}
