//! Commands that talk to a server: this one or any other of the protocol.
//!
//! What they print is for people on a terminal, plain lines in a pipe, and JSON with `--json`.
//! Errors go to stderr with what to do next, and to the exit code ([`exit`]). An interrupt lets the
//! request on its way end, so that what was reported is what was done.

mod again;
mod append;
mod cut;
mod draft;
pub mod exit;
mod export;
pub mod flags;
mod import;
mod input;
mod journal;
mod last;
mod list;
mod numbers;
mod once;
mod output;
pub(crate) mod progress;
mod read;
mod refused;
mod since;
mod sink;
mod so_far;
mod streams;
mod sub;

use std::{
    convert::Infallible,
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::Duration,
};

use weir_io::{World, os};

use self::{
    exit::{Exit, Voice},
    flags::{ClientCommand, ServerFlags},
    output::Output,
    so_far::SoFar,
};
use crate::{
    client::{Absent, Client, Patience},
    config::Environment,
};

/// How long a person waits for the first answer without being told for whom.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// What every command works with.
struct Context {
    world: World,
    client: Client,
    output: Output,
    interrupt: Interrupt,
    voice: Voice,
    so_far: SoFar,
    /// Where to remember things, if the user has such a place.
    state: Option<PathBuf>,
}

impl Context {
    /// Tells a person, or a program, something beside the output.
    fn note(&self, text: &str) {
        self.voice.note(text);
    }

    /// What comes of work that changes nothing, unless somebody wants the command to end before.
    async fn unless_interrupted<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.interrupt.once() => None,
            done = work => Some(done),
        }
    }
}

/// Runs a command. Returns the exit code; what went wrong is said already.
///
/// # Errors
/// The system gives no clock, randomness or signals.
pub async fn run(command: ClientCommand) -> anyhow::Result<u8> {
    super::start_log("error")?;
    let interrupt = Interrupt::listen()?;
    let voice = Voice::of(command.server().json);
    let so_far = SoFar::default();
    let only_asks = command.only_asks();
    let outcome = tokio::select! {
        biased;
        // There is nothing that it could leave undone.
        () = interrupt.once(), if only_asks => return Ok(exit::INTERRUPTED),
        outcome = carry_out(command, interrupt.clone(), so_far.clone()) => outcome,
        () = interrupt.twice() => {
            so_far.tell(voice);
            return Ok(exit::INTERRUPTED);
        }
    };
    match outcome {
        Ok(Exit::Done) if interrupt.came() => Ok(exit::INTERRUPTED),
        Ok(Exit::Done) => Ok(exit::DONE),
        Ok(Exit::Interrupted) => Ok(exit::INTERRUPTED),
        Ok(Exit::Partly(code)) => Ok(code),
        Err(error) => Ok(voice.explain(&error)),
    }
}

async fn carry_out(
    command: ClientCommand,
    interrupt: Interrupt,
    so_far: SoFar,
) -> anyhow::Result<Exit> {
    let context = Context { so_far, ..open(command.server(), interrupt)? };
    let changes = !(command.only_asks() || command.only_reads());
    let waiting = say_waiting(context.client.clone(), context.voice, changes);
    tokio::select! {
        biased;
        outcome = dispatch(context, command) => outcome,
        never = waiting => match never {},
    }
}

/// Tells a person whom the command waits for, if its first answer takes long.
async fn say_waiting(client: Client, voice: Voice, changes: bool) -> Infallible {
    if io::stderr().is_terminal() {
        client.unanswered(SILENCE_MAX).await;
        let how = if changes { "Ctrl-C twice" } else { "Ctrl-C" };
        voice.note(&format!("waiting for {} … ({how} ends it)", client.target()));
    }
    std::future::pending().await
}

async fn dispatch(context: Context, command: ClientCommand) -> anyhow::Result<Exit> {
    match command {
        ClientCommand::Create(flags) => streams::create(context, flags).await,
        ClientCommand::Append(flags) => append::run(context, flags).await,
        ClientCommand::Read(flags) => read::read(context, flags).await,
        ClientCommand::Tail(flags) => read::tail(context, flags).await,
        ClientCommand::Head(flags) => streams::head(context, flags).await,
        ClientCommand::Ls(flags) => list::ls(context, flags).await,
        ClientCommand::Close(flags) => streams::close(context, flags).await,
        ClientCommand::Rm(flags) => streams::rm(context, flags).await,
        ClientCommand::Fork(flags) => streams::fork(context, flags).await,
        ClientCommand::Sub(command) => sub::run(context, command).await,
        ClientCommand::Details(flags) => list::details(context, flags).await,
        ClientCommand::Import(flags) => import::run(context, flags).await,
        ClientCommand::Export(flags) => export::run(context, flags).await,
    }
}

fn open(flags: &ServerFlags, interrupt: Interrupt) -> anyhow::Result<Context> {
    let world = os::world()?;
    let environment = Environment::of_process();
    let target = flags.target.target(&environment)?;
    let usual = Patience::default();
    let patience = match flags.retry_for {
        Some(total) => Patience { total, ..usual },
        None => Patience { absent: Absent::IsAbsent, ..usual },
    };
    let client = Client::new(world.clone(), target, patience);
    Ok(Context {
        client,
        output: Output::new(flags.json),
        interrupt,
        voice: Voice::of(flags.json),
        so_far: SoFar::default(),
        state: journal::directory(&environment),
        world,
    })
}

/// Whether somebody wants the command to end.
#[derive(Clone)]
struct Interrupt(tokio::sync::watch::Receiver<u8>);

impl Interrupt {
    fn listen() -> anyhow::Result<Self> {
        let mut signals = super::Signals::new()?;
        let (sender, receiver) = tokio::sync::watch::channel(0_u8);
        let world = os::world()?;
        let count = async move {
            loop {
                let _name = signals.quietly().await;
                sender.send_modify(|times| *times = times.saturating_add(1));
            }
        };
        world.tasks.spawn("signals", Box::pin(count));
        Ok(Self(receiver))
    }

    /// Whether it was said.
    fn came(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Returns when it is said.
    async fn once(&self) {
        self.reached(1).await;
    }

    /// Returns when it is said again: at once, then.
    async fn twice(&self) {
        self.reached(2).await;
    }

    async fn reached(&self, times: u8) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|it| *it >= times).await.is_err() {
            // Nobody counts any more: the process is ending anyway.
            std::future::pending::<()>().await;
        }
    }
}
