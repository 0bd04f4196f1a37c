//! What the tests of the simulator share: its program, and swarms of its children.

use sim::{
    sabotage::Sabotage,
    swarm::{self, Swarm},
};

/// Runs seeds in child processes.
pub(crate) fn swarm(
    seeds: impl IntoIterator<Item = u64>,
    jobs: usize,
    sabotage: Sabotage,
) -> Swarm {
    let seeds: Vec<u64> = seeds.into_iter().collect();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_sim"));
    swarm::run(program, &seeds, jobs, sabotage).expect("children run")
}
