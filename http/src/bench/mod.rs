//! `weir bench`: load for any durable-streams server, and whether it kept what it acknowledged.
//!
//! ```text
//! flags ─▶ create streams ─▶ load (threads × connections) ─▶ read back, verify ─▶ delete ─▶ report
//!                              │ raw: requests made beforehand, answers parsed in place
//! ```
//! Runs without a runtime around it: each thread has its own. Knows nothing of the server that
//! this crate is otherwise about.

mod append;
pub mod flags;
mod load;
mod measure;
mod raw;
mod record;
mod report;
mod request;
mod setup;
mod verify;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use serde_json::json;
use weir_io::{
    Clock as _, Entropy as _,
    net::Outbound as _,
    os::{OsClock, OsEntropy, OsOutbound, workers},
};

use self::{
    append::{Nobody, Plan, Writer},
    flags::{AppendFlags, BenchCommand, BenchFlags, RunFlags, WriteFlags},
    load::{Length, Run, spread},
    report::Report,
    request::{Shape, Streams},
    setup::Crew,
};
use crate::{
    cli::offline::PROBLEMS,
    client::{Scheme, Target},
};

/// Runs a bench and prints what came of it. Returns the exit code.
///
/// # Errors
/// It could not be run.
pub fn run(flags: BenchFlags) -> anyhow::Result<u8> {
    let (report, json) = match flags.command {
        BenchCommand::Append(flags) => (append(&flags)?, flags.run.json),
    };
    let text = if json { report.to_json() } else { report.to_text() };
    io::stdout().write_all(text.as_bytes()).context("nobody reads the report")?;
    for problem in report.problems() {
        eprintln!("weir: {problem}");
    }
    Ok(if report.problems().is_empty() { 0 } else { PROBLEMS })
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
        let mut name = [0; 4];
        OsEntropy::new()?.fill(&mut name);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = flags.threads.unwrap_or(cores);
        Ok(Self {
            target,
            name: format!("{:08x}", u32::from_le_bytes(name)),
            clock: Arc::new(OsClock::new()),
            threads,
            crew: Crew { address, threads, connections: connections.min(256) },
        })
    }

    fn streams(&self, flags: &WriteFlags) -> Arc<Streams> {
        let Self { target, name, .. } = self;
        Arc::new(Streams::new(target, name, flags.streams, &flags.content_type))
    }
}

fn resolve(target: &Target) -> anyhow::Result<SocketAddr> {
    let Target { host, port, .. } = target;
    let found = workers::run("resolve", 1, |_| OsOutbound::new().resolve(host, *port))?;
    let found = found.into_iter().next().expect("one worker");
    let addresses = found.with_context(|| format!("{host} has no address"))?;
    addresses.into_iter().next().with_context(|| format!("{host} has no address"))
}

fn append(flags: &AppendFlags) -> anyhow::Result<Report> {
    let AppendFlags { run: run_flags, write, connections, rate } = flags;
    let bench = Bench::new(run_flags, *connections)?;
    let streams = bench.streams(write);
    let mut report = Report::new(
        "append",
        &bench.target.to_string(),
        json!({
            "connections": connections,
            "streams": write.streams,
            "bytes": write.bytes,
            "batch": write.batch,
            "content_type": write.content_type,
            "producers": write.producers,
            "rate": rate,
            "threads": bench.threads,
        }),
    );
    let began = bench.clock.elapsed();
    bench.crew.create(&streams)?;
    report.put("create_seconds", json!((bench.clock.elapsed() - began).as_secs_f64()));

    let length = Length { warm_up: run_flags.warm_up, measured: run_flags.seconds };
    let mut run = Run::new(&bench.clock, bench.crew.address, length, *rate);
    run.server = run_flags.server_pid;
    let plan = Plan {
        run: run.clone(),
        streams: Arc::clone(&streams),
        shape: Shape { record_bytes: write.bytes, batch: write.batch },
        writers: *connections,
        producer: write.producers.then(|| bench.name.clone()),
        order: write.order.into(),
    };
    let outcome = spread(&run, bench.threads, *connections, |number, tally| {
        let writer = Writer::new(&plan, number);
        async move { writer?.work(tally, Nobody).await }
    })?;
    report.put_phase("append", &outcome.tally);
    report.put_costs(outcome.costs, outcome.tally.span(), outcome.tally.requests);
    let written = append::by_stream(streams.count, outcome.results);
    report.put("acked_records", json!(append::acked(&written)));
    if !run_flags.no_verify {
        let (records, violations) = bench.crew.verify(&streams, written)?;
        report.put_verified(records, violations);
    }
    if !run_flags.keep {
        bench.crew.delete(&streams)?;
    }
    Ok(report)
}
