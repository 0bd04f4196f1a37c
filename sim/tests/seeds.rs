//! Fixed seeds hold, and between them reach every rare branch.

mod common;

use sim::sabotage::Sabotage;

/// One child per core of the smallest machine that runs this.
const JOBS: usize = 2;

/// Branches that the fixed seeds must reach.
const MARKS: [&str; 29] = [
    "a failed delivery was tried again",
    "a lease ended and its work was woken again",
    "a worker reported on a wake that was over",
    "replay met a subscription row ahead of the fold",
    "replay met a subscription that a cut-off fold had removed",
    "a deleted stream ended with its last fork",
    "a deleted stream was kept for its forks",
    "a fork began with a part of a record",
    "a fork of a fork of a fork of a fork was made",
    "a fork read its source's records out of segments",
    "a fork that nobody was told of was there after a restart",
    "a merge met a stream that forks can read in part",
    "a name that was used before became a fork",
    "a commit ended with an unknown outcome",
    "a commit was refused by a full disk",
    "a flipped bit kept a store from opening",
    "a read named damage",
    "a seal failed and was tried again",
    "a state load raced a fold and was repeated",
    "a store was cut off right after or in recovery",
    "a store whose log failed was restarted",
    "a duplicate was answered after a restart",
    "a stream ended by itself",
    "a stream had let go of its oldest records",
    "a segment went because nobody could read anything in it",
    "boot removed a segment file that a crash had left behind",
    "replay met a row ahead of the fold",
    "replay met a stream that a cut-off fold had buried",
    "segments were merged",
];

#[test]
fn fixed_seeds_hold_and_reach_every_rare_branch() {
    let swarm = common::swarm(1000..1240, JOBS, Sabotage::None);
    assert!(swarm.failures.is_empty(), "{}", swarm.reports);
    assert_eq!(swarm.hashes.len(), 240);
    let missing: Vec<_> = MARKS.iter().filter(|mark| !swarm.marks.contains(**mark)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}
