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
mod hdr;
mod load;
mod measure;
mod raw;
mod read;
mod record;
mod report;
mod request;
mod runs;
mod setup;
mod sum;
mod tail;
mod verify;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use weir_io::{
    Clock as _, Entropy as _,
    net::Outbound as _,
    os::{self, OsClock, OsEntropy, OsOutbound, tls::Tls, usage, workers},
};

use self::{
    flags::{BenchCommand, BenchFlags, CeilingFlags, RunFlags},
    load::{Length, Run},
    raw::{Failure, Peer},
    report::{Layout, Report},
    request::Streams,
    setup::{Crew, Interrupted, Passed, Refusal, Verb},
    verify::Written,
};
use crate::{
    cli::{
        client::exit::{self, Voice},
        offline::PROBLEMS,
    },
    client::{Scheme, Target},
    config::Environment,
};

/// Connections that prepare and clean up.
const CREW_MAX: usize = 256;

/// Runs a bench and prints what came of it, or what went wrong. Returns the exit code.
#[must_use]
pub fn run(flags: BenchFlags) -> u8 {
    let run = match &flags.command {
        BenchCommand::Append(flags) => Some(&flags.run),
        BenchCommand::Create(flags) => Some(&flags.run),
        BenchCommand::Read(flags) => Some(&flags.run),
        BenchCommand::Tail(flags) => Some(&flags.run),
        BenchCommand::Mixed(flags) => Some(&flags.run),
        BenchCommand::Ceiling(_) => None,
    };
    let voice = Voice::of(run.is_some_and(|flags| flags.json));
    measure(flags, voice).unwrap_or_else(|error| {
        if error.is::<Interrupted>() {
            voice.note("interrupted: there is no report, and no stream is left");
            return exit::INTERRUPTED;
        }
        match of_bench(&error) {
            Some((code, advice)) => voice.explain_as(&error, code, Some(advice.to_owned())),
            None => voice.explain(&error),
        }
    })
}

/// What a failure of a bench is to whoever started it, and what to do next.
fn of_bench(error: &anyhow::Error) -> Option<(u8, &'static str)> {
    if let Some(Refusal { status, .. }) = error.downcast_ref() {
        return Some(match status {
            401 | 403 => (exit::UNAUTHORIZED, "give the server's key as --auth or WEIR_AUTH"),
            404 | 405 | 501 => (exit::FAILED, "is the path in --url right?"),
            413 => (exit::FAILED, "send less at a time: a smaller --bytes or --batch"),
            _ => (exit::FAILED, "the server's words say what it does not take"),
        });
    }
    match error.downcast_ref()? {
        Failure::Io(_) => Some((
            exit::AWAY,
            "is a server running there? `weir local start` starts one and says its URL, `weir \
             local status` lists those that run; --url or WEIR_URL name another",
        )),
        Failure::Busy(..) => {
            Some((exit::AWAY, "fewer --connections or a lower --rate ask less of it"))
        }
        Failure::Malformed(_) => {
            Some((exit::FAILED, "is this a durable-streams server, and its path in --url?"))
        }
    }
}

fn measure(flags: BenchFlags, voice: Voice) -> anyhow::Result<u8> {
    let (report, json) = match flags.command {
        BenchCommand::Append(flags) => (runs::append(&flags)?, flags.run.json),
        BenchCommand::Create(flags) => (runs::create(&flags)?, flags.run.json),
        BenchCommand::Read(flags) => (runs::read(&flags)?, flags.run.json),
        BenchCommand::Tail(flags) => (runs::tail(&flags)?, flags.run.json),
        BenchCommand::Mixed(flags) => (runs::mixed(&flags)?, flags.run.json),
        BenchCommand::Ceiling(flags) => {
            ceil(flags)?;
            return Ok(exit::DONE);
        }
    };
    let is_watched = io::stdout().is_terminal();
    let text = match (json, is_watched) {
        (true, true) => report.to_json(Layout::Indented),
        (true, false) => report.to_json(Layout::Line),
        (false, _) => report.to_text(),
    };
    io::stdout().write_all(text.as_bytes()).context("nobody reads the report")?;
    report.notes().iter().for_each(|it| voice.note(it));
    // Who has read the report has read them.
    if json || !is_watched {
        report.problems().iter().for_each(|it| voice.note(it));
    }
    Ok(match report.problems().is_empty() {
        false => PROBLEMS,
        true if report.is_unverified() => exit::AWAY,
        true if report.was_interrupted() => exit::INTERRUPTED,
        true => exit::DONE,
    })
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
    /// What makes its producers others than those of a run of the same name.
    nonce: String,
    clock: Arc<OsClock>,
    threads: usize,
    crew: Crew,
}

impl Bench {
    fn new(flags: &RunFlags, connections: usize) -> anyhow::Result<Self> {
        let target = flags.target.target(&Environment::of_process())?;
        if let Some(pid) = flags.server_pid {
            // What it has used until now is of no use but to know that it can be looked at.
            usage::of(pid).with_context(|| format!("--server-pid {pid}: it can't be looked at"))?;
        }
        crate::cli::raise_descriptors();
        let peer = resolve(&target)?;
        let mut chance = [0; 4];
        OsEntropy::new()?.fill(&mut chance);
        let nonce = format!("{:08x}", u32::from_le_bytes(chance));
        let threads = flags.threads.unwrap_or_else(cores);
        Ok(Self {
            target,
            name: flags.name.clone().unwrap_or_else(|| nonce.clone()),
            nonce,
            clock: Arc::new(OsClock::new()),
            threads,
            crew: Crew { peer, threads, connections: connections.min(CREW_MAX) },
        })
    }

    fn streams(&self, count: usize, content_type: &str, record_bytes: usize) -> Arc<Streams> {
        Arc::new(Streams::new(&self.target, &self.name, count, content_type, record_bytes))
    }

    /// What was asked for, in all it can be.
    fn settings(&self, flags: &RunFlags, mut own: Value) -> Value {
        own["seconds"] = flags.seconds.as_secs_f64().into();
        own["warm_up"] = flags.warm_up.as_secs_f64().into();
        own["threads"] = self.threads.into();
        own["name"] = self.name.clone().into();
        own["keep"] = flags.keep.into();
        own["replace"] = flags.replace.into();
        own["verify"] = (!flags.no_verify).into();
        own["server_pid"] = flags.server_pid.into();
        own
    }

    /// Reads back what was written, and compares it with that and with what was read before.
    fn verify(
        &self,
        report: &mut Report,
        streams: &Arc<Streams>,
        written: Vec<BTreeMap<u32, Written>>,
        read_before: Vec<Vec<Passed>>,
    ) -> anyhow::Result<()> {
        let verify = || Ok(self.crew.verify(streams, written, read_before));
        match self.phase(report, "verify", verify)? {
            Ok(verdict) => report.verified(verdict),
            Err(error) if error.is::<Interrupted>() => {
                report.interrupt("interrupted while reading back: nothing is verified".to_owned());
            }
            Err(error) if is_away(&error) => report.not_verified(format!("{error:#}")),
            Err(error) => report.problem(format!("what was written can't be read: {error:#}")),
        }
        Ok(())
    }

    /// Runs `act` on streams that are this run's own, and deletes them afterwards, whatever comes
    /// of it; with `--keep` only if nothing does. Those that are not what was written stay.
    fn with_streams(
        &self,
        flags: &RunFlags,
        streams: &Arc<Streams>,
        mut report: Report,
        act: impl FnOnce(&mut Report) -> anyhow::Result<()>,
    ) -> anyhow::Result<Report> {
        let done = match flags.replace {
            true => self.crew.on_each(streams, Verb::Delete).and_then(|()| act(&mut report)),
            false => act(&mut report),
        };
        // Which server it was that failed is not in what failed.
        let done = done.map_err(|error| match error.is::<Interrupted>() {
            true => error,
            false => error.context(self.target.to_string()),
        });
        report.judge(|stream| streams.name(stream));
        if flags.keep && done.is_ok() {
            return Ok(report);
        }
        let removal = streams.removal();
        if report.has_violations() && done.is_ok() {
            let removal = removal.unwrap_or_default();
            report.put("kept", true.into());
            report.note(format!("the streams stay, to be looked at: {removal} deletes them"));
            return Ok(report);
        }
        let is_away = report.is_unverified() || done.as_ref().err().is_some_and(is_away);
        if is_away && !self.crew.is_there() {
            if let Some(removal) = removal {
                let left =
                    format!("nobody is there to delete the streams: {removal} does it later");
                match done {
                    Ok(()) => report.note(left),
                    Err(_) => Voice::of(flags.json).note(&left),
                }
            }
            return done.map(|()| report);
        }
        // What was measured is worth more than a clean server.
        let delete = || Ok(self.crew.on_each(streams, Verb::DeleteOwn));
        let deleted = self.phase(&mut report, "delete", delete)?;
        if let Err(error) = deleted {
            report.put("delete_failed", format!("{error:#}").into());
            let left = removal.map(|it| format!("{it} deletes the streams that are left"));
            match (left, &done) {
                (Some(left), Ok(())) => report.note(left),
                (Some(left), Err(_)) => Voice::of(flags.json).note(&left),
                (None, _) => {}
            }
        }
        done.map(|()| report)
    }

    fn run(&self, flags: &RunFlags, connections: usize, rate: Option<f64>) -> Run {
        let length = Length { warm_up: flags.warm_up, measured: flags.seconds };
        let mut run = Run::new(&self.clock, self.crew.peer, length, connections, rate);
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

/// Whether that went wrong because nobody answers, or not in time.
fn is_away(error: &anyhow::Error) -> bool {
    let failure = matches!(error.downcast_ref(), Some(Failure::Io(_) | Failure::Busy(..)));
    failure || error.is::<tokio::time::error::Elapsed>()
}

/// Tells a person what is going on.
fn say(what: &str) {
    if io::stderr().is_terminal() {
        eprintln!("weir: {what} …");
    }
}

fn resolve(target: &Target) -> anyhow::Result<Peer> {
    let Target { host, port, scheme, .. } = target;
    let found = workers::run("resolve", 1, async |_| {
        let found = OsOutbound::new().resolve(host, *port).await;
        let found = found.ok().and_then(|found| found.into_iter().next());
        let address: SocketAddr = found.with_context(|| format!("{host} has no address"))?;
        if *scheme == Scheme::Http {
            return anyhow::Ok(Peer::from(address));
        }
        let connector = Tls::new(&os::world()?).connector().await?;
        Ok(Peer::secure(address, connector, host)?)
    })?;
    found.into_iter().next().expect("one worker")
}
