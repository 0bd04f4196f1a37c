//! Fixed seeds with a bucket hold, and between them do what only stores with a bucket can; a bucket
//! that can't keep two writers apart is found out before it is used.

mod common;

use std::sync::Arc;

use sim::{case::Case, run::Over, sabotage::Sabotage};
use weir_io::{
    memory::{BucketFaults, Machine},
    objects::{Unfit, probe},
    retry::{Patience, Retrying},
};

const SEEDS: std::ops::Range<u64> = 6000..6040;

/// What these seeds must do.
const MARKS: [&str; 20] = [
    "a drill lost what was not published",
    "a file was merged away before it was uploaded",
    "a ledger has commits that came while it was written",
    "a machine that was given up came back and was refused",
    "a manifest was found to be ours after its answer was lost",
    "a manifest's slot was taken by another writer",
    "a publisher that was away asked whether its slot is still kept",
    "a recovery had lost records that were acked",
    "a request to the bucket was repeated",
    "a second writer was fenced",
    "a store was recovered from a copy of its bucket",
    "a store was recovered while its old process went on",
    "a twin was refused at its start",
    "an object that belonged to nobody was found",
    "an offset of a lost range was named as lost",
    "an upload found that an earlier try had succeeded",
    "ledgers were merged",
    "old manifests were collected",
    "publishing failed and was tried again",
    "the bucket was away for a while",
];

/// Seeds that found defects.
const FOUND: [(u64, &str); 4] = [
    (56, "numbers of files that were given up were taken again, and nothing was published"),
    (3045, "a merge between two tries of a fold dropped what the next manifest still showed"),
    (3046, "a producer's row that a cut-off fold had written was in no ledger"),
    (3136, "a deletion whose row was gone already was not published until the next write"),
];

fn case(seed: u64) -> Case {
    Case::new(seed, Over::Engine, Sabotage::None).with("bucket", "true")
}

#[test]
fn fixed_seeds_with_a_bucket_hold_and_reach_every_mark() {
    let cases: Vec<Case> = SEEDS.map(case).collect();
    let swarm = common::cases(&cases, 2);
    assert!(swarm.failures.is_empty(), "{}", swarm.reports);
    assert_eq!(swarm.hashes.len(), cases.len());
    let missing: Vec<_> = MARKS.iter().filter(|mark| !swarm.marks.contains(**mark)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}

#[test]
fn seeds_that_found_defects_of_buckets_hold() {
    let cases: Vec<Case> = FOUND.iter().map(|(seed, _)| case(*seed)).collect();
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

#[test]
fn a_bucket_that_ignores_conditions_is_refused() {
    let machine = Machine::new(1);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let world = machine.boot(std::time::Duration::ZERO);
        let client = machine.bucket().client(Arc::clone(&world.clock));
        let bucket = Retrying::new(client, Arc::clone(&world.entropy), Patience::default());
        assert_eq!(probe(&bucket, &*world.entropy).await, Ok(()));
        let faults = BucketFaults { unconditional: true, ..BucketFaults::default() };
        machine.bucket().set_faults(faults);
        assert_eq!(probe(&bucket, &*world.entropy).await, Err(Unfit::NoFence));
    });
}
