//! One life of a store on the simulated machine.

use std::{sync::Arc, time::Duration};

use tokio::task::LocalSet;
use weir_engine::{Config, Engine, OpenError, types::StreamName};
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
    live_on(machine, end, async |world| Engine::open(change(world), config, "test").await, life);
}

/// The same of a store that is published.
#[allow(dead_code, reason = "every test file uses a part")]
pub(crate) fn live_published<F>(machine: &Machine, end: End, life: impl FnOnce(Engine) -> F)
where
    F: Future<Output = ()>,
{
    let open = async |world: World| {
        let bucket = machine.bucket().client(Arc::clone(&world.clock));
        Engine::open_with(world, Config::new("/data/store"), Some(bucket), "test").await
    };
    live_on(machine, end, open, life);
}

fn live_on<F>(
    machine: &Machine,
    end: End,
    open: impl AsyncFnOnce(World) -> Result<Engine, OpenError>,
    life: impl FnOnce(Engine) -> F,
) where
    F: Future<Output = ()>,
{
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let engine = open(machine.boot(Duration::ZERO)).await.expect("opens");
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
