//! Fixed seeds hold, and between them reach every rare branch.

mod common;

use std::ops::Range;

use sim::case::Case;

/// One child per core of the smallest machine that runs this.
const JOBS: usize = 2;
/// The fixed seeds, of which one in four has a bucket, those that must have one, and those that are
/// run as long as a rare branch was not reached.
const SEEDS: Range<u64> = 1240..1400;
const WITH_BUCKET: [Range<u64>; 2] = [4120..4180, 4280..4300];
/// A recovery into which the old writer publishes: one in a hundred drills comes to that.
const DRILLED: u64 = 3269;
/// A live reader that a trim overtakes: one seed in some hundreds.
const OVERTAKEN: u64 = 10294;
const MORE: [Range<u64>; 3] = [1400..1520, 1520..1640, 1640..1760];

/// Where rare branches are marked that these seeds must reach.
const MARKED: [&str; 7] = [
    "engine/src",
    "io/src",
    "sim/src/bucket",
    "sim/src/model",
    "sim/src/run",
    "sim/src/verify.rs",
    "sim/src/workload",
];

const BESIDE: &str =
    "engine/tests/bootstrap/beside.rs: nobody verifies a simulated store that is open";
const HISTORY: &str = "engine/src/history/tests: simulated caches are never so full nor so damaged";
const DAMAGE: &str =
    "engine/tests/bootstrap and publish: what was damaged before it was published is lost for good";

/// Marks that these seeds can't reach, and where they are reached.
const ELSEWHERE: [(&str, &str); 25] = [
    (
        "a bootstrap cut a stream back to what is left of it",
        "needs damage for good to the tail of the newest ledger; its steps: engine/src/restore/patch.rs",
    ),
    ("a bootstrap lost the race with another one", "engine/tests/bootstrap"),
    (
        "a worker heard of its claim when it was over",
        "over HTTP, where an answer can come after the next wake; none of the fixed seeds does it",
    ),
    ("a bootstrap met a hole that a manifest names", DAMAGE),
    (
        "a bootstrap put a cursor back",
        "about one seed in three hundred with a bucket: a recovery must lose an ack and what it covers",
    ),
    ("a fetch did not get its turn", HISTORY),
    ("a fetched block could not be put back", HISTORY),
    ("a fetched block was not put back because there was no room", HISTORY),
    ("a file went while it was verified", BESIDE),
    ("a ledger was found damaged before it was uploaded", DAMAGE),
    (
        "a lost answer of the bucket was settled by reading back",
        "tests/bucket.rs: only who asks a bucket for its manners, before a store is opened",
    ),
    ("a local copy was damaged beyond its blocks and made anew", HISTORY),
    ("a manifest was collected while the chain was verified", BESIDE),
    ("a manifest named a segment that could not be read as a hole", HISTORY),
    (
        "a read was overtaken by a trim and a merge",
        "engine/tests/retention.rs: here no read is so late that both fall into it",
    ),
    (
        "a recovery was cut off when it was done",
        "engine/tests/bootstrap: the one change after which few machines die",
    ),
    ("a segment was found again that was lost at the start", HISTORY),
    ("a server began while its store was verified", "tests/verify.rs"),
    ("a start went on without a segment that was given up before", HISTORY),
    ("a segment was found damaged before it was uploaded", DAMAGE),
    (
        "a wake found no stream to be announced in",
        "engine/tests: clients here never end that stream",
    ),
    ("all ledgers became one", "engine/src/motion/condense.rs: needs a MiB of rows"),
    (
        "commits outran the checkpointer",
        "engine/tests/faults.rs: jobs here are done at once, so the WAL starts over after each pass",
    ),
    ("forks were counted while a fold was under way", BESIDE),
    ("more was to be collected than goes in one turn", HISTORY),
];

#[test]
fn fixed_seeds_hold_and_reach_every_rare_branch() {
    let mut marks = common::marks(&MARKED);
    assert!(marks.len() > 30, "the sources have their marks: {marks:?}");
    let elsewhere = ELSEWHERE.iter().map(|(mark, _)| *mark);
    for mark in elsewhere.chain(common::ONLY_OVER_HTTP) {
        assert!(marks.remove(mark), "no source has the mark '{mark}' any more");
    }
    let with_bucket = WITH_BUCKET.into_iter().flatten();
    let with_bucket = with_bucket.map(|seed| common::case(seed).with("bucket", "true"));
    let drilled = common::case(DRILLED).with("bucket", "true").with("drill", "true");
    let drilled = drilled.with("rounds", "1").with("clients", "1");
    let with_bucket = with_bucket.chain([drilled, common::case(OVERTAKEN)]);
    let mut rounds: Vec<Vec<Case>> = vec![SEEDS.map(common::case).chain(with_bucket).collect()];
    rounds.extend(MORE.map(|more| more.map(common::case).collect()));
    for cases in rounds {
        let swarm = common::cases(&cases, JOBS);
        assert!(swarm.failures.is_empty(), "{}", swarm.reports);
        assert_eq!(swarm.hashes.len(), cases.len());
        marks.retain(|mark| !swarm.marks.contains(mark));
        if marks.is_empty() {
            return;
        }
    }
    panic!("never reached: {marks:?}");
}
