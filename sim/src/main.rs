//! The simulator's command line.
#![expect(
    clippy::disallowed_methods,
    reason = "cases are kept in real files, swarms take real time"
)]

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};
use sim::{
    case::Case,
    run::{self, Over},
    sabotage::Sabotage,
    schedule, shrink,
    swarm::{self, Swarm},
};

/// A case that goes on for longer is ended: a loop without an end, not a slow machine.
const CASE_MAX: Duration = Duration::from_secs(300);
/// How often a swarm tells how far it is.
const TELL: Duration = Duration::from_secs(60);

#[derive(Parser)]
#[command(about = "Runs the store in a simulated world")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs one seed, or plays one schedule, in this process.
    Run {
        #[command(flatten)]
        case: CaseArgs,
        /// Play a named schedule; `list` names them.
        #[arg(long, conflicts_with_all = ["over", "sabotage", "set"])]
        schedule: Option<String>,
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
        /// As many as fit into this time instead: 90s, 10m, 1h.
        #[arg(long = "for", value_parser = duration)]
        time: Option<Duration>,
        /// Child processes; one per core at most.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// What clients talk to.
        #[arg(long, value_enum, default_value_t)]
        over: Over,
        /// Plant a defect.
        #[arg(long, value_enum, default_value_t)]
        sabotage: Sabotage,
        /// Overrule a choice of all seeds: NAME=VALUE.
        #[arg(long, value_name = "NAME=VALUE")]
        set: Vec<String>,
    },
    /// Runs seeds in two processes each and compares their traces.
    Meta {
        /// The first seed.
        #[arg(long, alias = "from")]
        seed: u64,
        /// How many.
        #[arg(long, default_value_t = 1)]
        seeds: u64,
        /// What clients talk to.
        #[arg(long, value_enum, default_value_t)]
        over: Over,
        /// Overrule a choice of all seeds: NAME=VALUE.
        #[arg(long, value_name = "NAME=VALUE")]
        set: Vec<String>,
    },
    /// Looks for a smaller case that fails in the same way, and keeps it in a file.
    Shrink {
        #[command(flatten)]
        case: CaseArgs,
        /// Where to keep it; `case-SEED.txt` if nothing is said.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Runs the cases of a file, one a line.
    Replay {
        /// The file.
        file: PathBuf,
        /// Print every line of the trace.
        #[arg(long)]
        trace: bool,
    },
    /// Runs cases, each given as one argument, in this process.
    #[command(hide = true)]
    Cases {
        /// The cases.
        #[arg(allow_hyphen_values = true)]
        cases: Vec<String>,
    },
}

#[derive(Args)]
struct CaseArgs {
    /// The seed; a schedule has its own.
    #[arg(long)]
    seed: Option<u64>,
    /// What clients talk to.
    #[arg(long, value_enum, default_value_t)]
    over: Over,
    /// Plant a defect.
    #[arg(long, value_enum, default_value_t)]
    sabotage: Sabotage,
    /// Overrule a choice of the seed: NAME=VALUE.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl CaseArgs {
    fn case(&self) -> anyhow::Result<Case> {
        let seed = self.seed.context("which seed? --seed N")?;
        overruled(Case::new(seed, self.over, self.sabotage), &self.set)
    }
}

/// A case with choices overruled.
fn overruled(mut case: Case, set: &[String]) -> anyhow::Result<Case> {
    for choice in set {
        let (name, value) = choice.split_once('=').context("--set wants NAME=VALUE")?;
        case = case.with(name, value);
    }
    case.options()?;
    Ok(case)
}

fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.len().saturating_sub(1));
    let number: u64 = digits.parse().map_err(|_| "a number and s, m or h".to_owned())?;
    match unit {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        _ => Err("a number and s, m or h".to_owned()),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Run { case, schedule: Some(name), trace } => {
            play(&name, case.seed.unwrap_or(schedule::SEED), trace)
        }
        Verb::Run { case, schedule: None, trace } => Ok(run_here(&[case.case()?], trace)),
        Verb::Cases { cases } => {
            let cases: anyhow::Result<Vec<Case>> = cases.iter().map(|it| it.parse()).collect();
            Ok(run_here(&cases?, false))
        }
        Verb::Swarm { from, seeds, time, jobs, over, sabotage, set } => {
            let case = |seed| overruled(Case::new(seed, over, sabotage), &set);
            let began = Instant::now();
            let swarm = swarm(from, time.map_or(Limit::Seeds(seeds), Limit::Time), jobs, case)?;
            report(&swarm, began.elapsed())
        }
        Verb::Meta { seed, seeds, over, set } => {
            let case = |seed| overruled(Case::new(seed, over, Sabotage::None), &set);
            meta(&cases(seed, seeds, case)?)
        }
        Verb::Shrink { case, out } => shrunk(&case.case()?, out),
        Verb::Replay { file, trace } => {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("reading {}", file.display()))?;
            let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            let cases: anyhow::Result<Vec<Case>> = lines.map(str::parse).collect();
            Ok(run_here(&cases?, trace))
        }
    }
}

/// Plays a schedule and prints what it tells.
fn play(name: &str, seed: u64, trace: bool) -> anyhow::Result<ExitCode> {
    if name == "list" {
        for schedule in &schedule::ALL {
            println!("{:20} {}", schedule.name, schedule.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let schedule =
        schedule::find(name).with_context(|| format!("there is no schedule '{name}'"))?;
    run::watch_panics();
    match schedule.play(seed, trace) {
        Ok(told) => {
            print!("{told}");
            Ok(ExitCode::SUCCESS)
        }
        Err(told) => {
            print!("{told}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn exe() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?)
}

fn cases(
    from: u64,
    seeds: u64,
    case: impl Fn(u64) -> anyhow::Result<Case>,
) -> anyhow::Result<Vec<Case>> {
    (from..from + seeds).map(case).collect()
}

fn run_here(cases: &[Case], trace: bool) -> ExitCode {
    run::watch_panics();
    if trace {
        tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_max_level(tracing::Level::DEBUG)
            .init();
    }
    let mut code = ExitCode::SUCCESS;
    let watch = (!trace).then(watchdog);
    for case in cases {
        if let Some(watch) = &watch {
            watch.send(case.clone()).expect("the watchdog outlives the cases");
        }
        match run::case(case, trace) {
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
                println!("failed {} {}", failure.case.seed, failure.what.replace('\n', " / "));
                print!("{}", failure.tail);
                println!("  reproduce: {}", failure.case.command());
            }
        }
    }
    for mark in weir_io::sometimes::reached() {
        println!("mark {mark}");
    }
    code
}

/// Ends a process whose case goes on for ever: told of each case as it begins.
fn watchdog() -> mpsc::Sender<Case> {
    let (begins, begun) = mpsc::channel::<Case>();
    std::thread::spawn(move || {
        let Ok(mut case) = begun.recv() else { return };
        loop {
            match begun.recv_timeout(CASE_MAX) {
                Ok(next) => case = next,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    println!("failed {} has not ended after {CASE_MAX:?} of real time", case.seed);
                    println!("  reproduce: {}", case.command());
                    std::process::exit(1);
                }
            }
        }
    });
    begins
}

/// How far a swarm goes.
#[derive(Clone, Copy)]
enum Limit {
    Seeds(u64),
    Time(Duration),
}

/// One share of seeds after the other; what fails is told at once, and how far it is now and then.
fn swarm(
    from: u64,
    limit: Limit,
    jobs: usize,
    case: impl Fn(u64) -> anyhow::Result<Case>,
) -> anyhow::Result<Swarm> {
    let (exe, began) = (exe()?, Instant::now());
    let jobs_there = u64::try_from(jobs.max(1))?;
    let mut swarm = Swarm::default();
    let (mut next, mut told) = (from, began);
    loop {
        let share = match limit {
            Limit::Seeds(seeds) => (100 * jobs_there).min(from + seeds - next),
            Limit::Time(time) if began.elapsed() < time => 20 * jobs_there,
            Limit::Time(_) => 0,
        };
        if share == 0 {
            return Ok(swarm);
        }
        let part = swarm::run(&exe, &cases(next, share, &case)?, jobs)?;
        part.failures.iter().for_each(|(seed, what)| eprintln!("failed {seed}: {what}"));
        swarm.add(part);
        next += share;
        if told.elapsed() >= TELL {
            told = Instant::now();
            let (held, failed) = (swarm.hashes.len(), swarm.failures.len());
            eprintln!("{held} seeds held, {failed} failed after {:.0?}", began.elapsed());
        }
    }
}

fn report(swarm: &Swarm, took: Duration) -> anyhow::Result<ExitCode> {
    print!("{}", swarm.reports);
    println!(
        "{} seeds held, {} failed; {:?} simulated, {} requests with records, {} boots",
        swarm.hashes.len(),
        swarm.failures.len(),
        Duration::from_millis(swarm.simulated_ms),
        swarm.requests,
        swarm.boots
    );
    println!("in {took:.0?} of real time");
    for (seed, what) in &swarm.failures {
        println!("failed {seed}: {what}");
    }
    for mark in &swarm.marks {
        println!("reached: {mark}");
    }
    Ok(if swarm.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn meta(cases: &[Case]) -> anyhow::Result<ExitCode> {
    let exe = exe()?;
    let one = swarm::run(&exe, cases, 2)?;
    let two = swarm::run(&exe, cases, 1)?;
    print!("{}", one.reports);
    let differ = |case: &&Case| {
        let (one, two) = (one.hashes.get(&case.seed), two.hashes.get(&case.seed));
        one.is_none() || one != two
    };
    let differing: Vec<u64> = cases.iter().filter(differ).map(|case| case.seed).collect();
    ensure!(differing.is_empty(), "two runs differ, or did not hold, of the seeds {differing:?}");
    println!("{} seeds twice, in other processes and other company: the same", one.hashes.len());
    Ok(if one.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shrunk(case: &Case, out: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let Some((smallest, complaint)) = shrink::shrink(&exe()?, case)? else {
        println!("{case} does not fail");
        return Ok(ExitCode::FAILURE);
    };
    let out = out.unwrap_or_else(|| PathBuf::from(format!("case-{}.txt", case.seed)));
    std::fs::write(&out, format!("# {complaint}\n{smallest}\n"))
        .with_context(|| format!("writing {}", out.display()))?;
    println!("{complaint}\n{}\nkept in {}", smallest.command(), out.display());
    Ok(ExitCode::SUCCESS)
}
