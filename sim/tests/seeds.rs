//! Fixed seeds hold, and between them reach every rare branch.

#![expect(clippy::disallowed_methods, reason = "the marks are looked up in the sources")]

mod common;

use std::{collections::BTreeSet, fs, ops::Range, path::Path};

use sim::case::Case;

/// One child per core of the smallest machine that runs this.
const JOBS: usize = 2;
/// The fixed seeds, of which one in four has a bucket, those that must have one, and those that are
/// run as long as a rare branch was not reached.
const SEEDS: Range<u64> = 1240..1400;
const WITH_BUCKET: [Range<u64>; 2] = [4120..4180, 4280..4300];
const MORE: [Range<u64>; 3] = [1400..1520, 1520..1640, 1640..1760];

/// Where rare branches are marked that these seeds must reach.
const MARKED: [&str; 7] = [
    "engine/src",
    "io/src/memory",
    "sim/src/bucket",
    "sim/src/model",
    "sim/src/run",
    "sim/src/verify.rs",
    "sim/src/workload",
];

const BESIDE: &str =
    "engine/tests/bootstrap/beside.rs: nobody verifies a simulated store that is open";
const TOWN: &str = "tests/town.rs: answers get lost on the network only";
const HISTORY: &str = "engine/src/history/tests: simulated caches are never so full nor so damaged";
const DAMAGE: &str =
    "engine/tests/bootstrap and publish: a simulated bucket loses nothing for good";

/// Marks that these seeds can't reach, and where they are reached.
const ELSEWHERE: [(&str, &str); 33] = [
    (
        "a bootstrap cut a stream back to what is left of it",
        "needs damage for good to the tail of the newest ledger; its steps: engine/src/restore/patch.rs",
    ),
    ("a bootstrap lost the race with another one", "engine/tests/bootstrap"),
    ("a bootstrap met a hole that a manifest names", DAMAGE),
    (
        "a bootstrap put a cursor back",
        "about one seed in three hundred with a bucket: a recovery must lose an ack and what it covers",
    ),
    ("a bootstrap restored what was left of a damaged bucket", DAMAGE),
    ("a deletion that nobody answered was over", TOWN),
    ("a fetch did not get its turn", HISTORY),
    ("a fetched block could not be put back", HISTORY),
    ("a fetched block was not put back because there was no room", HISTORY),
    ("a fold wrote all rows while ledgers were merged", "needs a ledger that nobody has whole"),
    ("a file went while it was verified", BESIDE),
    ("a ledger was found damaged before it was uploaded", DAMAGE),
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
    ("a reader of events was overtaken by a trim", TOWN),
    (
        "a server began while its store was verified",
        "by no test yet: it must begin between two looks of a verification",
    ),
    ("a segment was found damaged before it was uploaded", DAMAGE),
    (
        "a wake found no stream to be announced in",
        "engine/tests: clients here never end that stream",
    ),
    ("a worker heard of its claim when it was over", TOWN),
    ("all ledgers became one", "engine/src/motion/condense.rs: needs a MiB of rows"),
    ("an event stream broke", TOWN),
    ("an event stream was ended by the server", TOWN),
    ("an object was found damaged", DAMAGE),
    (
        "commits outran the checkpointer",
        "engine/tests/faults.rs: jobs here are done at once, so the WAL starts over after each pass",
    ),
    ("forks were counted while a fold was under way", BESIDE),
    ("more was to be collected than goes in one turn", HISTORY),
    ("retention went by the index over damaged records", HISTORY),
    ("what nobody was told of a creation was seen later", TOWN),
    ("what nobody was told of limits was over", TOWN),
    ("what nobody was told of a subscription was seen later", TOWN),
];

/// The names in `sometimes!("…")` in all sources below a path.
fn marks_below(path: &Path, found: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("the sources are here") {
            marks_below(&entry.expect("the sources are readable").path(), found);
        }
        return;
    }
    let text = fs::read_to_string(path).expect("sources are UTF-8");
    for rest in text.split("sometimes!(").skip(1) {
        let name = rest.split('"').nth(1).expect("a mark has a name");
        found.insert(name.to_owned());
    }
}

#[test]
fn fixed_seeds_hold_and_reach_every_rare_branch() {
    let mut marks = BTreeSet::new();
    for path in MARKED {
        marks_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path), &mut marks);
    }
    assert!(marks.len() > 30, "the sources have their marks: {marks:?}");
    for (mark, _) in ELSEWHERE {
        assert!(marks.remove(mark), "no source has the mark '{mark}' any more");
    }
    let with_bucket = WITH_BUCKET.into_iter().flatten();
    let with_bucket = with_bucket.map(|seed| common::case(seed).with("bucket", "true"));
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
