//! The simulator's command line: one seed, a swarm of them, or one seed twice.

use std::{process::ExitCode, time::Duration};

use anyhow::ensure;
use clap::{Parser, Subcommand};
use sim::{run, sabotage::Sabotage, swarm};

#[derive(Parser)]
#[command(about = "Runs the engine in a simulated world")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs seeds one after the other in this process.
    Run {
        /// The seed.
        #[arg(long)]
        seed: Option<u64>,
        /// Several seeds, separated by commas.
        #[arg(long, value_delimiter = ',')]
        seeds: Vec<u64>,
        /// Plant a defect.
        #[arg(long, value_enum, default_value_t)]
        sabotage: Sabotage,
        /// Print every line of the trace.
        #[arg(long)]
        trace: bool,
    },
    /// Runs many seeds in child processes.
    Swarm {
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// Child processes; one per core at most.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Plant a defect.
        #[arg(long, value_enum, default_value_t)]
        sabotage: Sabotage,
    },
    /// Runs a seed in two processes and compares the hashes of their traces.
    Meta {
        /// The seed.
        #[arg(long)]
        seed: u64,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Run { seed, seeds, sabotage, trace } => {
            run::watch_panics();
            if trace {
                tracing_subscriber::fmt()
                    .without_time()
                    .with_ansi(false)
                    .with_max_level(tracing::Level::DEBUG)
                    .init();
            }
            let seeds = seed.into_iter().chain(seeds);
            Ok(run_here(seeds, sabotage, trace))
        }
        Verb::Swarm { from, seeds, jobs, sabotage } => run_swarm(from, seeds, jobs, sabotage),
        Verb::Meta { seed } => {
            let exe = std::env::current_exe()?;
            let one = swarm::run(&exe, &[seed], 1, Sabotage::None)?;
            let two = swarm::run(&exe, &[seed], 1, Sabotage::None)?;
            print!("{}", one.reports);
            ensure!(one.hashes == two.hashes, "two runs of seed {seed} differ");
            println!("seed {seed}: {:?} twice", one.hashes.get(&seed));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run_here(seeds: impl Iterator<Item = u64>, sabotage: Sabotage, trace: bool) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for seed in seeds {
        match run::seed(seed, sabotage, trace) {
            Ok(report) => println!(
                "held {} {} {} {} {}",
                report.seed,
                report.hash,
                report.simulated.as_millis(),
                report.requests,
                report.boots
            ),
            Err(failure) => {
                code = ExitCode::FAILURE;
                println!("failed {} {}", failure.seed, failure.what.replace('\n', " / "));
                print!("{}", failure.tail);
                println!("  reproduce: cargo run -p sim -- run --seed {}", failure.seed);
            }
        }
    }
    for mark in weir_io::sometimes::reached() {
        println!("mark {mark}");
    }
    code
}

fn run_swarm(from: u64, seeds: u64, jobs: usize, sabotage: Sabotage) -> anyhow::Result<ExitCode> {
    let exe = std::env::current_exe()?;
    let seeds: Vec<u64> = (from..from + seeds).collect();
    let swarm = swarm::run(&exe, &seeds, jobs, sabotage)?;
    print!("{}", swarm.reports);
    println!(
        "{} seeds held, {} failed; {:?} simulated, {} requests with records, {} boots",
        swarm.hashes.len(),
        swarm.failures.len(),
        Duration::from_millis(swarm.simulated_ms),
        swarm.requests,
        swarm.boots
    );
    for (seed, what) in &swarm.failures {
        println!("failed {seed}: {what}");
    }
    for mark in &swarm.marks {
        println!("reached: {mark}");
    }
    Ok(if swarm.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
