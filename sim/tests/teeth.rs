//! The checks bite: planted defects are caught, each by the invariant it breaks.

mod common;

use sim::sabotage::Sabotage;

/// Seeds within which a defect must be caught.
const SEEDS: u64 = 24;

fn check(defect: Sabotage, invariants: &[&str]) {
    let swarm = common::swarm(0..SEEDS, 1, defect);
    let caught = swarm
        .failures
        .values()
        .any(|what| invariants.iter().any(|id| what.starts_with(&format!("{id} "))));
    assert!(caught, "{defect:?}: {:?}", swarm.failures);
}

#[test]
fn defects_of_durability_are_caught() {
    check(Sabotage::LyingFsync, &["INV-1", "INV-20"]);
    check(Sabotage::AckBeforeFsync, &["INV-1"]);
    check(Sabotage::NoDirectorySync, &["INV-1", "INV-20"]);
    check(Sabotage::NoSegmentSync, &["INV-20", "INV-21"]);
    check(Sabotage::NothingRemoved, &["INV-14"]);
    check(Sabotage::CommitsLost, &["INV-1", "INV-20"]);
    check(Sabotage::TrimmedTooEarly, &["INV-1", "INV-20"]);
}

#[test]
fn defects_of_clock_tasks_and_catalogue_are_caught() {
    check(Sabotage::FastClock, &["INV-12"]);
    check(Sabotage::WallForElapsed, &["INV-12"]);
    check(Sabotage::LostJobs, &["INV-20"]);
    check(Sabotage::DedupeLost, &["INV-5"]);
    check(Sabotage::EpochsLost, &["INV-10", "INV-11"]);
    check(Sabotage::RowsStay, &["INV-10", "INV-11", "INV-21"]);
    check(Sabotage::SegmentRowsLost, &["INV-1", "INV-21"]);
}

#[test]
fn defects_of_forks_are_caught() {
    check(Sabotage::SourcesLost, &["INV-23"]);
    check(Sabotage::PointsTooLow, &["INV-23"]);
    check(Sabotage::RetirementsLost, &["INV-11", "INV-22"]);
    check(Sabotage::ForkRowsStay, &["INV-11", "INV-22"]);
}

#[test]
fn defects_of_retention_are_caught() {
    check(Sabotage::BeginningsTooLate, &["INV-23", "INV-31"]);
    check(Sabotage::TrimsForgotten, &["INV-31"]);
    check(Sabotage::DeathsLost, &["INV-30"]);
}

#[test]
fn defects_of_subscriptions_are_caught() {
    check(Sabotage::LinksLost, &["INV-25", "INV-28"]);
    check(Sabotage::LinksStay, &["INV-25"]);
    check(Sabotage::ControlLost, &["INV-26", "INV-27"]);
    check(Sabotage::SubscriptionsLost, &["INV-1", "INV-20"]);
}
