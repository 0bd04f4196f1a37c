//! Stores with a bucket: seeds that found defects, two runs of a seed, and a bucket that can't keep
//! two writers apart, which is found out before it is used. `seeds.rs` has the fixed seeds.

mod common;

use std::sync::Arc;

use sim::{case::Case, run::Over, sabotage::Sabotage};
use weir_io::{
    memory::{BucketFaults, Machine},
    objects::{Unfit, probe},
    retry::{Patience, Retrying},
};

/// Seeds that found defects.
const FOUND: [(u64, &str); 5] = [
    (56, "numbers of files that were given up were taken again, and nothing was published"),
    (3045, "a merge between two tries of a fold dropped what the next manifest still showed"),
    (3046, "a producer's row that a cut-off fold had written was in no ledger"),
    (3136, "a deletion whose row was gone already was not published until the next write"),
    (100_243, "a fold was published before the details said that it was sealed"),
];

/// Seeds that found one with a damaged bucket: a block that could not be read hid records of others.
const RUINED: [u64; 4] = [20, 30, 111, 125];

fn case(seed: u64) -> Case {
    Case::new(seed, Over::Engine, Sabotage::None).with("bucket", "true")
}

#[test]
fn seeds_that_found_defects_of_buckets_hold() {
    let found = FOUND.iter().map(|(seed, _)| case(*seed));
    let ruined = RUINED.iter().map(|seed| case(*seed).with("ruins", "true"));
    let cases: Vec<Case> = found.chain(ruined).collect();
    let swarm = common::cases(&cases, 2);
    assert!(swarm.failures.is_empty(), "{}", swarm.reports);
}

#[test]
fn two_runs_of_a_seed_with_a_bucket_leave_the_same_trace() {
    let forth: Vec<Case> = (6100..6106).map(case).collect();
    let back: Vec<Case> = forth.iter().rev().cloned().collect();
    let (forth, back) = (common::cases(&forth, 1), common::cases(&back, 1));
    assert!(forth.failures.is_empty(), "{}", forth.reports);
    assert_eq!(forth.hashes, back.hashes);
}

/// What a server does before it opens a store with this bucket.
fn probed(machine: &Machine) -> Result<(), Unfit> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let world = machine.boot(std::time::Duration::ZERO);
        let client = machine.bucket().client(Arc::clone(&world.clock));
        let bucket = Retrying::new(client, Arc::clone(&world.entropy), Patience::default());
        let probed = probe(&bucket, &*world.entropy).await;
        machine.drive().kill();
        probed
    })
}

#[test]
fn a_bucket_that_ignores_conditions_is_refused() {
    assert_eq!(probed(&Machine::new(1)), Ok(()));
    let machine = Machine::new(1);
    let faults = BucketFaults { unconditional: true, ..BucketFaults::default() };
    machine.bucket().set_faults(faults);
    assert_eq!(probed(&machine), Err(Unfit::NoFence));
}

#[test]
fn a_bucket_whose_answers_get_lost_is_not_refused() {
    for seed in 0..20 {
        let machine = Machine::new(seed);
        let faults = BucketFaults { lost_answer: 0.3, ..BucketFaults::default() };
        machine.bucket().set_faults(faults);
        let probed = probed(&machine);
        assert!(!matches!(probed, Err(Unfit::NoFence)), "{seed}: {probed:?}");
    }
    let mark = "a lost answer of the bucket was settled by reading back";
    assert!(weir_io::sometimes::reached().contains(mark), "some creation was not answered");
}
