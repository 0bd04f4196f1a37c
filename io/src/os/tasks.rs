//! Tasks and blocking jobs on tokio, dedicated lanes on threads of their own.

use std::thread;

use tokio::runtime::Handle;
use tracing::Instrument;

use super::Crew;
use crate::tasks::{Blocking, Job, Lane, Lanes, Tasks, Work};

/// Spawns on the runtime it was built with, and spreads over a crew if it has one.
#[derive(Debug)]
pub struct TokioTasks {
    handle: Handle,
    lanes: Lanes,
    crew: Option<Crew>,
}

impl TokioTasks {
    /// Tasks on `handle`.
    #[must_use]
    pub fn new(handle: Handle) -> TokioTasks {
        TokioTasks { handle, lanes: Lanes::new(), crew: None }
    }

    /// The same, with a crew for what is spread.
    #[must_use]
    pub fn with_crew(self, crew: Crew) -> TokioTasks {
        TokioTasks { crew: Some(crew), ..self }
    }
}

impl Tasks for TokioTasks {
    fn spawn(&self, name: &'static str, work: Work) {
        // Detached: the spawner keeps the means to end it, so the handle has no use.
        drop(self.handle.spawn(work.instrument(tracing::info_span!("task", name))));
    }

    fn spread(&self, name: &'static str, work: Work) {
        match &self.crew {
            Some(crew) => crew.spawn(work),
            None => self.spawn(name, work),
        }
    }

    fn dedicate(&self, name: &'static str, lane: Lane) {
        let running = self.lanes.enter();
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
        self.lanes.ended()
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
