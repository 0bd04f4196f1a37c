//! Fixed seeds with clients on other machines: the HTTP server, the network and the engine together.

mod common;

use std::ops::Range;

use common::planted::{self, ANY, Choices, Planted};
use sim::{
    run::Over,
    sabotage::{Catcher, Sabotage},
};

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

/// The fixed seeds, one whose live reader is overtaken by a trim, and those that are run as long as a
/// mark was not reached.
const SEEDS: [Range<u64>; 5] = [0..48, 220..221, 48..72, 72..96, 96..120];

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

/// Seeds within which a defect must be caught.
const PLANTED_SEEDS: u64 = 32;

/// Without crashes and stops a server that got into trouble is not soon a new one.
macro_rules! lasting {
    ($($name:literal = $value:literal),*) => {
        &[
            ("crash_at_op", "false"),
            ("crash_at_time", "false"),
            ("process_kill", "false"),
            ("graceful", "false"),
            $(($name, $value)),*
        ]
    };
}

const RESETS: Choices = &[("resets", "true")];
const CROWDED: Choices = lasting!("bursts" = "true");
const PAUSED: Choices = lasting!("pauses" = "true");
/// Readers that take next to nothing.
const SIPPED: Choices = lasting!("slow_readers" = "true");
/// The same, of what is large.
const SIPPED_LARGE: Choices =
    lasting!("slow_readers" = "true", "fill_max" = "20000", "round_ms" = "8000");

/// Defects of connections, of stopped processes, of webhooks, of limits and of tags.
const DEFECTS: [Planted; 11] = [
    Planted(Sabotage::TornBodies, "INV-16", 10, RESETS),
    Planted(Sabotage::DeafAfterMany, "INV-20", 2, CROWDED),
    Planted(Sabotage::WritersWait, "INV-20", 0, SIPPED),
    Planted(Sabotage::EndlessBuffers, "INV-13", 10, SIPPED_LARGE),
    Planted(Sabotage::TasksOversleep, "INV-20", 8, PAUSED),
    Planted(Sabotage::CallsFeigned, "INV-25", 1, ANY),
    Planted(Sabotage::BeginningsUntold, "INV-31", 1, ANY),
    // There the server does not say what is wrong with the stream.
    Planted(Sabotage::BeginningsTooLate, "INV-21", 4, ANY),
    Planted(Sabotage::TrimsForgotten, "INV-31", 1, ANY),
    // A 304 that speaks of another life, and a tag that stands for two things.
    Planted(Sabotage::TagsOfNoLife, "INV-10", 9, ANY),
    Planted(Sabotage::TagsOfNoLife, "INV-4", 2, ANY),
];

#[test]
fn every_planted_defect_is_caught_by_the_invariant_it_breaks() {
    planted::check(Catcher::Town, Over::Http, PLANTED_SEEDS, &DEFECTS);
}

#[test]
fn who_looks_at_what_streams_keep_is_on_another_machine() {
    let planted = DEFECTS.iter().find(|it| it.0 == Sabotage::TrimsForgotten).expect("it is there");
    // In other seeds a client meets it before everything is looked at.
    let told = [planted.2].into_iter().chain(0..PLANTED_SEEDS).any(|seed| {
        let case = planted.case(Over::Http, seed, planted.0);
        let said = common::cases(&[case], 1).reports;
        said.contains("what streams keep is looked at from another machine")
    });
    assert!(told, "nobody who looked at everything has seen it");
}
