//! What the tests of the simulator share: its program, and swarms of its children.
#![allow(dead_code, reason = "every test file uses a part")]

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
