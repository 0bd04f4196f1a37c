//! What the tests of the simulator share: its program, and swarms of its children.
#![allow(dead_code, reason = "every test file uses a part")]
#![expect(clippy::disallowed_methods, reason = "marks are looked up in the sources")]

pub(crate) mod planted;

use std::{collections::BTreeSet, fs, path::Path};

use sim::{
    case::Case,
    run::Over,
    sabotage::Sabotage,
    swarm::{self, Swarm},
};

/// Runs seeds in child processes.
pub(crate) fn swarm(
    seeds: impl IntoIterator<Item = u64>,
    jobs: usize,
    sabotage: Sabotage,
) -> Swarm {
    over(Over::Engine, seeds, jobs, sabotage)
}

/// Runs seeds in child processes, with clients here or on a network.
pub(crate) fn over(
    over: Over,
    seeds: impl IntoIterator<Item = u64>,
    jobs: usize,
    sabotage: Sabotage,
) -> Swarm {
    let case = |seed| Case::new(seed, over, sabotage);
    let all: Vec<Case> = seeds.into_iter().map(case).collect();
    cases(&all, jobs)
}

/// A seed with clients here and nothing planted.
pub(crate) fn case(seed: u64) -> Case {
    Case::new(seed, Over::Engine, Sabotage::None)
}

/// Runs cases in child processes.
pub(crate) fn cases(cases: &[Case], jobs: usize) -> Swarm {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_sim"));
    swarm::run(program, cases, jobs).expect("children run")
}

/// What happens only where answers get lost: clients on other machines must reach it, and no other
/// seeds are asked for it.
pub(crate) const ONLY_OVER_HTTP: [&str; 8] = [
    "a poll brought the records it waited for",
    "a deletion that nobody answered was over",
    "a reader of events was overtaken by a trim",
    "an event stream broke",
    "an event stream was ended by the server",
    "what nobody was told of a creation was seen later",
    "what nobody was told of limits was over",
    "what nobody was told of a subscription was seen later",
];

/// The names in `sometimes!("…")` in all sources below these paths, which begin at the top.
pub(crate) fn marks(paths: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in paths {
        marks_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path), &mut found);
    }
    found
}

fn marks_below(path: &Path, found: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("the sources are here") {
            marks_below(&entry.expect("the sources are readable").path(), found);
        }
        return;
    }
    // It says what a mark is.
    if path.ends_with("io/src/sometimes.rs") {
        return;
    }
    let text = fs::read_to_string(path).expect("sources are UTF-8");
    for rest in text.split("sometimes!(").skip(1) {
        let name = rest.split('"').nth(1).expect("a mark has a name");
        found.insert(name.to_owned());
    }
}
