//! A seed reproduces everything, whatever ran before it in its process.

mod common;

use sim::sabotage::Sabotage;

#[test]
fn two_runs_of_a_seed_leave_the_same_trace() {
    let seeds = || 2000..2020;
    let forth = common::swarm(seeds(), 1, Sabotage::None);
    let back = common::swarm(seeds().rev(), 1, Sabotage::None);
    assert!(forth.failures.is_empty(), "{}", forth.reports);
    assert_eq!(forth.hashes, back.hashes);
    let mut hashes: Vec<_> = forth.hashes.values().collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 20, "different seeds differ");
}
