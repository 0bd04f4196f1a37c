//! One life of a store on the simulated machine.

use std::time::Duration;

use tokio::task::LocalSet;
use weir_engine::{Config, Engine, types::StreamName};
use weir_io::{World, memory::Machine};

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The store is closed first.
    Clean,
    /// The power fails.
    PowerCut,
}

/// Boots the machine, opens the store, lives, and loses power at the latest when `life` is over.
#[allow(dead_code, reason = "every test file uses a part")]
pub(crate) fn live<F>(machine: &Machine, end: End, life: impl FnOnce(Engine) -> F)
where
    F: Future<Output = ()>,
{
    live_with(machine, end, Config::new("/data/store"), life);
}

/// The same with settings.
#[allow(dead_code, reason = "every test file uses a part")]
pub(crate) fn live_with<F>(
    machine: &Machine,
    end: End,
    config: Config,
    life: impl FnOnce(Engine) -> F,
) where
    F: Future<Output = ()>,
{
    live_in(machine, end, config, |world| world, life);
}

/// The same in a world that was changed.
#[allow(dead_code, reason = "every test file uses a part")]
pub(crate) fn live_in<F>(
    machine: &Machine,
    end: End,
    config: Config,
    change: impl FnOnce(World) -> World,
    life: impl FnOnce(Engine) -> F,
) where
    F: Future<Output = ()>,
{
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let world = change(machine.boot(Duration::ZERO));
        let engine = Engine::open(world, config, "test").await.expect("opens");
        life(engine.clone()).await;
        if end == End::Clean {
            engine.close().await;
        }
        machine.drive().kill();
    });
    drop(runtime);
    machine.drive().power_cycle();
}

/// A name that is known to be good.
pub(crate) fn name(text: &str) -> StreamName {
    StreamName::new(text).expect("a good name")
}
