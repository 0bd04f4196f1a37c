//! Tasks and blocking jobs on tokio, dedicated lanes on threads of their own.

use std::thread;

use tokio::{runtime::Handle, sync::watch};
use tracing::Instrument;

use crate::tasks::{Blocking, Job, Lane, Tasks, Work};

/// Spawns on the runtime it was built with.
#[derive(Debug)]
pub struct TokioTasks {
    handle: Handle,
    /// How many lanes run, for whoever waits for them to end.
    lanes: watch::Sender<usize>,
}

impl TokioTasks {
    /// Tasks on `handle`.
    #[must_use]
    pub fn new(handle: Handle) -> TokioTasks {
        TokioTasks {
            handle,
            lanes: watch::Sender::new(0),
        }
    }
}

impl Tasks for TokioTasks {
    fn spawn(&self, name: &'static str, work: Work) {
        // Detached: the spawner keeps the means to end it, so the handle has no use.
        drop(
            self.handle
                .spawn(work.instrument(tracing::info_span!("task", name))),
        );
    }

    fn dedicate(&self, name: &'static str, lane: Lane) {
        let running = Running::enter(self.lanes.clone());
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _running = running;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime without I/O opens no descriptor");
            runtime.block_on(lane().instrument(tracing::info_span!("lane", name)));
        });
        // Detached for the same reason; `lanes_ended` is how to await it.
        drop(thread.expect("a process that may not start its few threads cannot serve"));
    }

    fn lanes_ended(&self) -> Work {
        let mut lanes = self.lanes.subscribe();
        Box::pin(async move {
            // An error means that the sender is gone, and with it every lane.
            drop(lanes.wait_for(|&running| running == 0).await);
        })
    }
}

/// One running lane. Counted down by drop, so that a lane which panics counts too.
struct Running {
    lanes: watch::Sender<usize>,
}

impl Running {
    fn enter(lanes: watch::Sender<usize>) -> Running {
        lanes.send_modify(|running| *running += 1);
        Running { lanes }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.lanes.send_modify(|running| *running -= 1);
    }
}

/// Runs jobs on the runtime's pool of blocking threads, whose size the runtime bounds.
#[derive(Debug)]
pub struct TokioBlocking {
    handle: Handle,
}

impl TokioBlocking {
    /// Blocking jobs on the pool of `handle`.
    #[must_use]
    pub fn new(handle: Handle) -> TokioBlocking {
        TokioBlocking { handle }
    }
}

impl Blocking for TokioBlocking {
    fn submit(&self, job: Job) {
        // Detached: a job reports through the channel it carries.
        drop(self.handle.spawn_blocking(job));
    }
}
