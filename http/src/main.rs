//! The `weir` binary: a runtime around [`weir_http::cli`].

use std::process::ExitCode;

use anyhow::Context as _;
use weir_http::{
    bench,
    cli::{self, Task},
};

/// Requests are made on one thread and settled on another; with the system's allocator they would wait for
/// each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    abort_on_panic();
    let task = match cli::task()? {
        // Its threads have runtimes of their own.
        Task::Bench(flags) => return Ok(bench::run(*flags).into()),
        task => task,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    match task {
        Task::Serve(settings) => runtime.block_on(cli::serve(*settings))?,
        Task::RotateKeys(data) => runtime.block_on(cli::rotate_keys(data))?,
        Task::Client(command) => {
            let code = runtime.block_on(cli::client::run(*command))?;
            // A read of the standard input ends when there is some: nobody waits for that.
            runtime.shutdown_background();
            return Ok(code.into());
        }
        Task::Bench(_) => unreachable!("done above"),
        Task::Local(command) => return Ok(runtime.block_on(cli::local::run(command)).into()),
        Task::Offline(task) => return Ok(runtime.block_on(cli::offline(task))?.into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// A part that broke its own rule must not go on writing, nor leave the others waiting for it.
/// Release builds abort by themselves; this makes other builds do the same.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
