//! `weir bench`: load for any durable-streams server, and whether it kept what it acknowledged.
//!
//! ```text
//! flags ─▶ create streams ─▶ load (threads × connections) ─▶ read back, verify ─▶ delete ─▶ report
//!                              │ raw: requests made beforehand, answers parsed in place
//! ```
//! Runs without a runtime around it: each thread has its own. Knows nothing of the server that
//! this crate is otherwise about.

mod append;
mod ceiling;
mod create;
mod deliver;
pub mod flags;
mod load;
mod measure;
mod raw;
mod read;
mod record;
mod report;
mod request;
mod runs;
mod setup;
mod tail;
mod verify;

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::json;
use weir_io::{
    Clock as _, Entropy as _,
    net::Outbound as _,
    os::{OsClock, OsEntropy, OsOutbound, workers},
};

use self::{
    flags::{BenchCommand, BenchFlags, CeilingFlags, RunFlags},
    load::{Length, Run},
    report::Report,
    request::Streams,
    setup::Crew,
};
use crate::{
    cli::offline::PROBLEMS,
    client::{Scheme, Target},
};

/// Connections that prepare and clean up.
const CREW_MAX: usize = 256;

/// Runs a bench and prints what came of it. Returns the exit code.
///
/// # Errors
/// It could not be run.
pub fn run(flags: BenchFlags) -> anyhow::Result<u8> {
    let (report, json) = match flags.command {
        BenchCommand::Append(flags) => (runs::append(&flags)?, flags.run.json),
        BenchCommand::Create(flags) => (runs::create(&flags)?, flags.run.json),
        BenchCommand::Read(flags) => (runs::read(&flags)?, flags.run.json),
        BenchCommand::Tail(flags) => (runs::tail(&flags)?, flags.run.json),
        BenchCommand::Mixed(flags) => (runs::mixed(&flags)?, flags.run.json),
        BenchCommand::Ceiling(flags) => {
            ceil(flags)?;
            return Ok(0);
        }
    };
    let text = if json { report.to_json() } else { report.to_text() };
    io::stdout().write_all(text.as_bytes()).context("nobody reads the report")?;
    for problem in report.problems() {
        eprintln!("weir: {problem}");
    }
    Ok(if report.problems().is_empty() { 0 } else { PROBLEMS })
}

fn ceil(flags: CeilingFlags) -> anyhow::Result<()> {
    crate::cli::raise_descriptors();
    let threads = flags.threads.unwrap_or_else(cores);
    let runtimes = match flags.apart {
        true => ceiling::Runtimes::Apart(threads),
        false => ceiling::Runtimes::Shared(threads),
    };
    ceiling::serve(([127, 0, 0, 1], flags.port).into(), runtimes)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What all benches begin with.
struct Bench {
    target: Target,
    /// The name of this run, in the names of its streams.
    name: String,
    clock: Arc<OsClock>,
    threads: usize,
    crew: Crew,
}

impl Bench {
    fn new(flags: &RunFlags, connections: usize) -> anyhow::Result<Self> {
        let target = flags.target.target()?;
        if target.scheme == Scheme::Https {
            bail!("bench speaks plain HTTP only: give it the http:// address behind the proxy");
        }
        crate::cli::raise_descriptors();
        let address = resolve(&target)?;
        let mut chance = [0; 4];
        OsEntropy::new()?.fill(&mut chance);
        let name = format!("{:08x}", u32::from_le_bytes(chance));
        let threads = flags.threads.unwrap_or_else(cores);
        Ok(Self {
            target,
            name: flags.name.clone().unwrap_or(name),
            clock: Arc::new(OsClock::new()),
            threads,
            crew: Crew { address, threads, connections: connections.min(CREW_MAX) },
        })
    }

    fn streams(&self, count: usize, content_type: &str) -> Arc<Streams> {
        Arc::new(Streams::new(&self.target, &self.name, count, content_type))
    }

    fn run(&self, flags: &RunFlags, connections: usize, rate: Option<f64>) -> Run {
        let length = Length { warm_up: flags.warm_up, measured: flags.seconds };
        let mut run = Run::new(&self.clock, self.crew.address, length, connections, rate);
        run.server = flags.server_pid;
        run
    }

    /// Does something before or after the run and notes how long that took.
    fn phase<T>(
        &self,
        report: &mut Report,
        name: &str,
        act: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        say(name);
        let began = self.clock.elapsed();
        let done = act()?;
        let took: Duration = self.clock.elapsed() - began;
        report.put(
            &format!("{name}_seconds"),
            json!(measure::round(took.as_secs_f64() * 100.0) / 100.0),
        );
        Ok(done)
    }
}

/// Tells a person what is going on.
fn say(what: &str) {
    if io::stderr().is_terminal() {
        eprintln!("weir: {what} …");
    }
}

fn resolve(target: &Target) -> anyhow::Result<SocketAddr> {
    let Target { host, port, .. } = target;
    let found = workers::run("resolve", 1, |_| OsOutbound::new().resolve(host, *port))?;
    let found = found.into_iter().next().expect("one worker");
    let addresses = found.with_context(|| format!("{host} has no address"))?;
    addresses.into_iter().next().with_context(|| format!("{host} has no address"))
}
