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

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use sim::{
    case::Case,
    meta,
    report::{self, Kinds},
    run::{self, Over},
    sabotage::Sabotage,
    schedule, shrink,
    slots::Slots,
    swarm::{self, Swarm},
};

/// A case that goes on for longer is ended: a loop without an end, not a slow machine.
const CASE_MAX: Duration = Duration::from_secs(300);
/// How often a swarm tells how far it is.
const TELL: Duration = Duration::from_secs(60);
/// Where seeds are run both ways, one in so many is over HTTP: the last of each eight.
const HTTP_SHARE: u64 = 8;
/// Runs of smaller cases at most, if nothing else is said.
const TRIES_MAX: u32 = 200;

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
        /// Child processes; no more than there are cores.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// What clients talk to.
        #[arg(long, value_enum, default_value_t)]
        over: Ways,
        /// Plant a defect.
        #[arg(long, value_enum, default_value_t)]
        sabotage: Sabotage,
        /// Overrule a choice of all seeds: NAME=VALUE.
        #[arg(long, value_name = "NAME=VALUE")]
        set: Vec<String>,
        #[command(flatten)]
        report: ReportArgs,
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
        over: Ways,
        /// Plant a defect.
        #[arg(long, value_enum, default_value_t)]
        sabotage: Sabotage,
        /// Overrule a choice of all seeds: NAME=VALUE.
        #[arg(long, value_name = "NAME=VALUE")]
        set: Vec<String>,
        #[command(flatten)]
        report: ReportArgs,
    },
    /// Looks for a smaller case that fails in the same way, and keeps it in a file.
    Shrink {
        #[command(flatten)]
        case: CaseArgs,
        /// Where to keep it; `case-SEED.txt` if nothing is said.
        #[arg(long)]
        out: Option<PathBuf>,
        /// How many smaller cases are run at most.
        #[arg(long, default_value_t = TRIES_MAX)]
        tries: u32,
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
        /// Print every line of the trace of the last one.
        #[arg(long)]
        trace_last: bool,
    },
}

/// What the clients of many seeds talk to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Ways {
    /// The engine, and of every eighth seed the HTTP server.
    #[default]
    Both,
    /// The engine, in its own process.
    Engine,
    /// The HTTP server, over a network.
    Http,
}

impl Ways {
    fn of(self, seed: u64) -> Over {
        match self {
            Ways::Both if seed % HTTP_SHARE == HTTP_SHARE - 1 => Over::Http,
            Ways::Both | Ways::Engine => Over::Engine,
            Ways::Http => Over::Http,
        }
    }
}

/// Whether a report is kept.
#[derive(Args)]
struct ReportArgs {
    /// Keep a report in this file, in Markdown.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The revision that it names; else the one that git tells.
    #[arg(long, value_name = "TEXT", requires = "report")]
    revision: Option<String>,
}

impl ReportArgs {
    /// Writes the report of a run, if it is to be kept.
    fn keep(
        self,
        kinds: Kinds,
        took: Duration,
        text: impl FnOnce(&report::Run) -> String,
    ) -> anyhow::Result<()> {
        let Some(file) = self.report else { return Ok(()) };
        let revision = self.revision.or_else(report::revision);
        let run = report::Run { command: said(), revision, kinds, took };
        report::keep(&file, &text(&run))
    }
}

/// The command line, without the program.
fn said() -> String {
    std::env::args().skip(1).collect::<Vec<_>>().join(" ")
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
        Verb::Run { case, schedule: None, trace } => run_here(&[case.case()?], trace.into()),
        Verb::Cases { cases, trace_last } => {
            let cases: anyhow::Result<Vec<Case>> = cases.iter().map(|it| it.parse()).collect();
            run_here(&cases?, if trace_last { Trace::Last } else { Trace::None })
        }
        Verb::Swarm { from, seeds, time, jobs, over, sabotage, set, report } => {
            let case = |seed| overruled(Case::new(seed, over.of(seed), sabotage), &set);
            let began = Instant::now();
            let limit = time.map_or(Limit::Seeds(seeds), Limit::Time);
            let (swarm, kinds) = swarm(from, limit, swarm::children(jobs), case)?;
            let took = began.elapsed();
            let code = told(&swarm, &kinds, took);
            report.keep(kinds, took, |run| report::of_swarm(run, &swarm))?;
            Ok(code)
        }
        Verb::Meta { seed, seeds, over, sabotage, set, report } => {
            let case = |seed| overruled(Case::new(seed, over.of(seed), sabotage), &set);
            meta(&cases(seed, seeds, case)?, report)
        }
        Verb::Shrink { case, out, tries } => shrunk(&case.case()?, out, tries),
        Verb::Replay { file, trace } => {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("reading {}", file.display()))?;
            let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            let cases: anyhow::Result<Vec<Case>> = lines.map(str::parse).collect();
            run_here(&cases?, trace.into())
        }
    }
}

/// Of which cases every line of the trace is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    None,
    /// With what the engine and the server log beside it.
    All,
    Last,
}

impl From<bool> for Trace {
    fn from(all: bool) -> Trace {
        if all { Trace::All } else { Trace::None }
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
    let _slot = Slots::of_machine()?.take()?;
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

fn run_here(cases: &[Case], trace: Trace) -> anyhow::Result<ExitCode> {
    // Kept until the process ends: it has a core to itself.
    let _slot = Slots::of_machine()?.take()?;
    run::watch_panics();
    if trace == Trace::All {
        tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_max_level(tracing::Level::DEBUG)
            .init();
    }
    let mut code = ExitCode::SUCCESS;
    let watch = (trace != Trace::All).then(watchdog);
    for (no, case) in cases.iter().enumerate() {
        if let Some(watch) = &watch {
            watch.send(case.clone()).expect("the watchdog outlives the cases");
        }
        let echo = match trace {
            Trace::None => false,
            Trace::All => true,
            Trace::Last => no + 1 == cases.len(),
        };
        match run::case(case, echo) {
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
    Ok(code)
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
) -> anyhow::Result<(Swarm, Kinds)> {
    let (exe, began) = (exe()?, Instant::now());
    let jobs_there = u64::try_from(jobs)?;
    let mut swarm = Swarm::default();
    let mut kinds = Kinds::from(from);
    let mut told = began;
    loop {
        let share = match limit {
            Limit::Seeds(seeds) => (100 * jobs_there).min(from + seeds - kinds.next),
            Limit::Time(time) if began.elapsed() < time => 20 * jobs_there,
            Limit::Time(_) => 0,
        };
        if share == 0 {
            return Ok((swarm, kinds));
        }
        let cases = cases(kinds.next, share, &case)?;
        let part = swarm::run(&exe, &cases, jobs)?;
        part.failures.iter().for_each(|(seed, what)| eprintln!("failed {seed}: {what}"));
        swarm.add(part);
        kinds.count(&cases)?;
        if told.elapsed() >= TELL {
            told = Instant::now();
            let (held, failed) = (swarm.hashes.len(), swarm.failures.len());
            eprintln!("{held} seeds held, {failed} failed after {:.0?}", began.elapsed());
        }
    }
}

fn told(swarm: &Swarm, kinds: &Kinds, took: Duration) -> ExitCode {
    print!("{}", swarm.reports);
    println!("cargo run -p sim -- {}", said());
    println!("{kinds}");
    println!(
        "{} held, {} failed; {:?} simulated, {} boots; {}",
        swarm.hashes.len(),
        swarm.failures.len(),
        Duration::from_millis(swarm.simulated_ms),
        swarm.boots,
        swarm.work()
    );
    let seconds = took.as_secs_f64();
    let seeds = f64::from(u32::try_from(kinds.next - kinds.from).unwrap_or(u32::MAX));
    let per_second = report::per_second(seeds, took);
    println!("in {seconds:.0} s of real time, {per_second:.2} seeds a second");
    for (seed, what) in &swarm.failures {
        println!("failed {seed}: {what}");
    }
    for mark in &swarm.marks {
        println!("reached: {mark}");
    }
    if swarm.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn meta(cases: &[Case], report: ReportArgs) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let compared = meta::compare(&exe()?, cases)?;
    let took = began.elapsed();
    print!("{}", compared.one.reports);
    for (_, what) in &compared.differing {
        print!("two runs differ of {what}");
    }
    let http = cases.iter().filter(|case| case.over == Over::Http).count();
    let (differ, failed) = (compared.differing.len(), compared.failed.len());
    println!(
        "{} seeds twice, in other processes and other company, {http} of them over HTTP: {differ} \
         differ, {failed} failed; {took:.0?}",
        cases.len(),
    );
    let mut kinds = Kinds::from(cases.first().map_or(0, |case| case.seed));
    kinds.count(cases)?;
    report.keep(kinds, took, |run| report::of_meta(run, &compared.one, &compared.differing))?;
    let good = differ == 0 && failed == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shrunk(case: &Case, out: Option<PathBuf>, tries: u32) -> anyhow::Result<ExitCode> {
    let Some((smallest, complaint)) = shrink::shrink(&exe()?, case, tries)? else {
        println!("{case} does not fail");
        return Ok(ExitCode::FAILURE);
    };
    let out = out.unwrap_or_else(|| PathBuf::from(format!("case-{}.txt", case.seed)));
    std::fs::write(&out, format!("# {complaint}\n{smallest}\n"))
        .with_context(|| format!("writing {}", out.display()))?;
    println!("{complaint}\n{}\nkept in {}", smallest.command(), out.display());
    Ok(ExitCode::SUCCESS)
}
