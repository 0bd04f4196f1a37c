//! Fixed seeds hold, and between them reach every rare branch.

#![expect(clippy::disallowed_methods, reason = "the marks are looked up in the sources")]

mod common;

use std::{collections::BTreeSet, fs, ops::Range, path::Path};

use sim::sabotage::Sabotage;

/// One child per core of the smallest machine that runs this.
const JOBS: usize = 2;
/// The fixed seeds, and those after them that are run as long as a rare branch was not reached.
const SEEDS: Range<u64> = 1240..1440;
const MORE: [Range<u64>; 3] = [1440..1560, 1560..1680, 1680..1800];

/// Where rare branches are marked that these seeds must reach.
const MARKED: [&str; 6] = [
    "engine/src",
    "io/src/memory",
    "sim/src/model",
    "sim/src/run",
    "sim/src/verify.rs",
    "sim/src/workload",
];

/// Marks that these seeds can't reach, and where they are reached.
const ELSEWHERE: [(&str, &str); 4] = [
    ("an event stream broke", "tests/town.rs"),
    ("an event stream was ended by the server", "tests/town.rs"),
    (
        "a wake found no stream to be announced in",
        "engine/tests: clients here never end that stream",
    ),
    ("commits outran the checkpointer", "needs more commits a second than clients here make"),
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
    for seeds in std::iter::once(SEEDS).chain(MORE) {
        let count = seeds.clone().count();
        let swarm = common::swarm(seeds, JOBS, Sabotage::None);
        assert!(swarm.failures.is_empty(), "{}", swarm.reports);
        assert_eq!(swarm.hashes.len(), count);
        marks.retain(|mark| !swarm.marks.contains(mark));
        if marks.is_empty() {
            return;
        }
    }
    panic!("never reached: {marks:?}");
}
