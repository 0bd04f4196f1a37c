//! `weir local …`: a server on a developer's machine, and looking after it.

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use clap::{Args, Subcommand};
use serde_json::Value;
use tokio::time::timeout;
use weir_engine::Config;
use weir_io::{
    World,
    os::{self, process},
};

use super::{
    Signals,
    client::exit::Voice,
    io_error,
    offline::{Depth, Format, work},
    start_log,
};
use crate::{
    config::Environment,
    local::{self, LocalConfig, LocalError, Name, control, control::Stopped},
};

/// From the signal to the exit, as for every server.
const SHUTDOWN_MAX: Duration = Duration::from_secs(9);

/// What can be done with local servers.
#[derive(Clone, Debug, Subcommand)]
pub enum LocalCommand {
    /// Run a server that keeps everything in one SQLite file, until a signal ends it
    Start(StartFlags),
    /// Say which servers there are and how they are
    Status(SomeFlags),
    /// Ask a server to stop and wait until it has. Ends with 1 if it did not
    Stop(OneFlags),
    /// Look for damage in what a server has stored, change nothing; it may run. Ends with 3 if there
    /// is some
    Verify(OneFlags),
    /// Delete everything that a server has stored. It must not run
    Reset(OneFlags),
}

/// Flags of `weir local start`.
#[derive(Clone, Debug, Args)]
pub struct StartFlags {
    #[command(flatten)]
    pub one: OneFlags,

    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,

    /// Loopback address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = parse_host)]
    pub hostname: IpAddr,

    /// Stop when standard input is closed, as a pipe is when the process at its other end is gone;
    /// Ctrl-C is then that process's alone
    #[arg(long)]
    pub until_stdin_closes: bool,

    /// What to log, to stderr: a level, or filters like `weir_http=debug,info`
    /// [env: RUST_LOG] [default: warn]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Which server, and how to speak of it.
#[derive(Clone, Debug, Args)]
pub struct OneFlags {
    /// Name of the server. Its files are below [env: DS_LOCAL_DATA_ROOT], or else with the data
    /// of the user
    #[arg(long, value_name = "NAME", default_value = Name::DEFAULT, value_parser = Name::new)]
    pub name: Name,

    /// Say it in JSON
    #[arg(long)]
    pub json: bool,
}

/// Which servers, and how to speak of them.
#[derive(Clone, Debug, Args)]
pub struct SomeFlags {
    /// Name of the server; all of them without it
    #[arg(long, value_name = "NAME", value_parser = Name::new)]
    pub name: Option<Name>,

    /// Say it in JSON
    #[arg(long)]
    pub json: bool,
}

fn parse_host(text: &str) -> Result<IpAddr, String> {
    let host = match text {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.parse(),
    };
    host.ok().filter(IpAddr::is_loopback).ok_or_else(|| "want a loopback address".to_owned())
}

impl LocalCommand {
    const fn json(&self) -> bool {
        match self {
            Self::Start(flags) => flags.one.json,
            Self::Status(flags) => flags.json,
            Self::Stop(flags) | Self::Verify(flags) | Self::Reset(flags) => flags.json,
        }
    }
}

/// Does it and prints what came of it, and what went wrong. Returns the exit code.
pub async fn run(command: LocalCommand) -> u8 {
    let voice = Voice::of(command.json());
    let resets = matches!(command, LocalCommand::Reset(_));
    carry_out(command).await.unwrap_or_else(|error| {
        let advice = match error.downcast_ref::<LocalError>() {
            Some(LocalError::Running { name, .. }) if resets => {
                Some(format!("stop it first: weir local stop --name {name}"))
            }
            Some(LocalError::Running { name, .. }) => Some(format!(
                "use that one, stop it with `weir local stop --name {name}`, or take another --name"
            )),
            _ => None,
        };
        voice.explain_with(&error, advice)
    })
}

async fn carry_out(command: LocalCommand) -> anyhow::Result<u8> {
    let environment = Environment::of_process();
    let log = environment.get("RUST_LOG").unwrap_or("warn");
    let care = match command {
        LocalCommand::Start(flags) => {
            start_log(flags.log.as_deref().unwrap_or(log))?;
            return start(flags, &environment).await;
        }
        LocalCommand::Status(flags) => Care::Status(flags),
        LocalCommand::Stop(flags) => Care::Stop(flags),
        LocalCommand::Verify(flags) => Care::Verify(flags),
        LocalCommand::Reset(flags) => Care::Reset(flags),
    };
    start_log(log)?;
    let world = os::world().map_err(|source| io_error("the system", source))?;
    let root = local::root(&environment)?;
    local::refuse_file(&world, &root)?;
    look_after(&world, &root, care).await
}

async fn start(flags: StartFlags, environment: &Environment) -> anyhow::Result<u8> {
    let mut signals = Signals::new()?;
    // Who types at a terminal is nobody else who would end it.
    if flags.until_stdin_closes && !io::stdin().is_terminal() {
        signals = signals.without_interrupts();
    }
    let config = LocalConfig::with(flags.one.name.as_str(), environment)?;
    let config = LocalConfig { host: flags.hostname, port: flags.port, ..config };
    let server = local::start(config).await?;
    let text = format!(
        "weir {} listens on {}\n  name          {}\n  data          {}\n  durability    \
         local: an answer is given after its commit in this file is fsynced\n\
         for the commands of another terminal:\n  export WEIR_URL={}",
        env!("CARGO_PKG_VERSION"),
        server.url,
        server.name,
        server.sqlite_path.display(),
        server.url,
    );
    let mut exports = server.exports();
    // Whoever starts it compares that with what it was made for.
    exports["version"] = env!("CARGO_PKG_VERSION").into();
    say(flags.one.json, &exports, &text)?;
    let closed = async {
        if flags.until_stdin_closes {
            // A sender that is gone speaks as well.
            drop(process::stdin_closed().await);
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = signals.next() => {}
        () = closed => tracing::info!("standard input was closed"),
    }
    tokio::select! {
        biased;
        () = signals.next() => Ok(1),
        closed = timeout(SHUTDOWN_MAX, server.close()) => match closed {
            Ok(closed) => closed.map(|()| 0).map_err(Into::into),
            Err(_) => anyhow::bail!("the server did not stop in time: the next start cleans up"),
        },
    }
}

/// Everything that starts nothing.
enum Care {
    Status(SomeFlags),
    Stop(OneFlags),
    Verify(OneFlags),
    Reset(OneFlags),
}

async fn look_after(world: &World, root: &Path, care: Care) -> anyhow::Result<u8> {
    match care {
        Care::Status(SomeFlags { name: Some(name), json }) => {
            let status = control::status(world, root, name).await?;
            say(json, &status.json(), &status.text())?;
            Ok(0)
        }
        Care::Status(SomeFlags { name: None, json }) => {
            let all = control::all(world, root).await?;
            let lines: Vec<String> = all.iter().map(control::Status::text).collect();
            let text = match lines.as_slice() {
                [] => format!("no servers in {}", root.display()),
                lines => lines.join("\n"),
            };
            say(json, &Value::from_iter(all.iter().map(control::Status::json)), &text)?;
            Ok(0)
        }
        Care::Stop(OneFlags { name, json }) => {
            let stopped = control::stop(world, root, &name).await?;
            say(json, &stopped.json(&name), &stopped.text(&name))?;
            Ok(u8::from(matches!(stopped, Stopped::NotYet(_) | Stopped::Other(_))))
        }
        Care::Verify(OneFlags { name, json }) => {
            let place = local::Place::new(root, name);
            control::refuse_others(world, &place.sqlite()).await?;
            let config = Config::one_file(place.dir);
            let format = if json { Format::Json } else { Format::Text };
            let report = work::verify(world, config, None, Depth::Local, format).await?;
            say(false, &Value::Null, report.text.trim_end())?;
            Ok(report.code())
        }
        Care::Reset(OneFlags { name, json }) => {
            let reset = control::reset(world, root, &name).await?;
            say(json, &reset.json(&name), &reset.text(&name))?;
            Ok(0)
        }
    }
}

/// One line of JSON, or text. A reader that has gone needs neither.
fn say(as_json: bool, value: &Value, text: &str) -> Result<(), LocalError> {
    let mut out = io::stdout().lock();
    let said = if as_json { writeln!(out, "{value}") } else { writeln!(out, "{text}") };
    match said.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(LocalError::Io { what: "writing to standard output".to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
