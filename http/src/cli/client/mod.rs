//! Commands that talk to a server: this one or any other of the protocol.
//!
//! What they print is for people on a terminal, plain lines in a pipe, and JSON with `--json`.
//! Errors go to stderr with what to do next, and to the exit code ([`exit`]). An interrupt lets the
//! request on its way end, so that what was reported is what was done.

mod append;
mod cut;
pub mod exit;
mod export;
pub mod flags;
mod import;
mod input;
mod list;
mod output;
mod progress;
mod read;
mod since;
mod streams;
mod sub;

use weir_io::{World, os};

use self::{
    exit::Exit,
    flags::{ClientCommand, ServerFlags},
    output::Output,
};
use crate::client::{Client, Patience};

/// What every command works with.
struct Context {
    world: World,
    client: Client,
    output: Output,
    interrupt: Interrupt,
}

/// Runs a command. Returns the exit code; what went wrong is said already.
///
/// # Errors
/// The system gives no clock, randomness or signals.
pub async fn run(command: ClientCommand) -> anyhow::Result<u8> {
    super::start_log("error")?;
    let interrupt = Interrupt::listen()?;
    let outcome = tokio::select! {
        biased;
        outcome = carry_out(command, interrupt.clone()) => outcome,
        () = interrupt.twice() => return Ok(exit::INTERRUPTED),
    };
    match outcome {
        Ok(Exit::Done) if interrupt.came() => Ok(exit::INTERRUPTED),
        Ok(Exit::Done) => Ok(exit::DONE),
        Ok(Exit::Interrupted) => Ok(exit::INTERRUPTED),
        Err(error) => Ok(exit::explain(&error)),
    }
}

async fn carry_out(command: ClientCommand, interrupt: Interrupt) -> anyhow::Result<Exit> {
    let world = os::world()?;
    let open = |flags: &ServerFlags| {
        let target = flags.target.target()?;
        let patience = Patience { total: flags.retry_for, ..Patience::default() };
        let client = Client::new(world.clone(), target, patience);
        let output = Output::new(flags.json);
        anyhow::Ok(Context { world: world.clone(), client, output, interrupt: interrupt.clone() })
    };
    match command {
        ClientCommand::Create(flags) => streams::create(open(&flags.server)?, flags).await,
        ClientCommand::Append(flags) => append::run(open(&flags.server)?, flags).await,
        ClientCommand::Read(flags) => read::read(open(&flags.server)?, flags).await,
        ClientCommand::Tail(flags) => read::tail(open(&flags.server)?, flags).await,
        ClientCommand::Head(flags) => streams::head(open(&flags.server)?, flags).await,
        ClientCommand::Ls(flags) => list::ls(open(&flags.server)?, flags).await,
        ClientCommand::Close(flags) => streams::close(open(&flags.server)?, flags).await,
        ClientCommand::Rm(flags) => streams::rm(open(&flags.server)?, flags).await,
        ClientCommand::Fork(flags) => streams::fork(open(&flags.server)?, flags).await,
        ClientCommand::Sub(command) => {
            let context = open(command.server())?;
            sub::run(context, command).await
        }
        ClientCommand::Details(flags) => list::details(open(&flags.server)?, flags).await,
        ClientCommand::Import(flags) => import::run(open(&flags.server)?, flags).await,
        ClientCommand::Export(flags) => export::run(open(&flags.server)?, flags).await,
    }
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
                signals.quietly().await;
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
