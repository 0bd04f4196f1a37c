//! Where work runs. The engine owns no thread: it asks the world for tasks, for one
//! dedicated lane that may block, and for blocking jobs.

use std::{future::Future, pin::Pin};

use tokio::sync::watch;

/// A future that may move between threads.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Builds the future of a dedicated lane on the lane's own thread.
pub type Lane = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// A job that may block on disk.
pub type Job = Box<dyn FnOnce() + Send>;

/// Starts futures. Whoever starts one keeps the means to end and to await it.
pub trait Tasks: Send + Sync {
    /// Runs `work` beside the others. `name` is for traces.
    fn spawn(&self, name: &'static str, work: Work);

    /// Like `spawn`, for one of many alike that wait most of the time, as a connection does: where
    /// the world has threads for such work, it stays on one of them to its end.
    fn spread(&self, name: &'static str, work: Work) {
        self.spawn(name, work);
    }

    /// Runs a future on a lane of its own, where it may block the thread: in
    /// production an OS thread with its own single-threaded runtime, in the
    /// simulator a task like any other. Dropping the world's runtime ends it in the
    /// simulator; in production it ends when its future does.
    fn dedicate(&self, name: &'static str, lane: Lane);

    /// Resolves once every dedicated lane has ended. A shutdown tells the lanes to end, then
    /// awaits this before the process exits.
    fn lanes_ended(&self) -> Work;
}

/// Counts the running lanes of a world, for whoever waits for them to end.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    running: watch::Sender<usize>,
}

impl Lanes {
    pub(crate) fn new() -> Lanes {
        Lanes { running: watch::Sender::new(0) }
    }

    /// Counts one lane until the guard drops, so that a lane which panics ends too.
    pub(crate) fn enter(&self) -> Running {
        self.running.send_modify(|running| *running += 1);
        Running { lanes: self.clone() }
    }

    pub(crate) fn ended(&self) -> Work {
        let mut running = self.running.subscribe();
        Box::pin(async move {
            // An error means that the sender is gone, and with it every lane.
            drop(running.wait_for(|&running| running == 0).await);
        })
    }
}

/// One running lane.
#[derive(Debug)]
pub(crate) struct Running {
    lanes: Lanes,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.lanes.running.send_modify(|running| *running -= 1);
    }
}

/// Runs jobs that block on disk, several at a time, in no promised order.
///
/// In the simulator a job runs inline on the simulation's only thread after a
/// seeded latency, and never reports back once its host has crashed.
pub trait Blocking: Send + Sync {
    /// Hands over a job. A job that is dropped without running has been lost to a
    /// shutdown or crash; the submitter learns it by a closed reply channel.
    fn submit(&self, job: Job);

    /// Whether the simulated machine has lost power, as [`crate::Disk::is_dead`].
    fn is_dead(&self) -> bool {
        false
    }

    /// How long a call that a dedicated lane just made on the simulated drive took: the lane
    /// lets that time pass before it acts on the result. `None` in production, where it has.
    fn pause(&self) -> Option<std::time::Duration> {
        None
    }

    /// How long the result of a job takes to reach whoever waits for it, in the simulator: on real
    /// threads anything may happen in between. `None` in production, where it does.
    fn lag(&self) -> Option<std::time::Duration> {
        None
    }
}

/// The world ended before a job could answer.
#[derive(Debug, thiserror::Error)]
#[error("the process is shutting down")]
pub struct Gone;

/// Runs `job` where blocking is allowed and returns its result. Never returns if the
/// simulated machine lost power meanwhile: nobody may see what a dying call said.
///
/// # Errors
/// [`Gone`] if the world ended before the job answered.
pub async fn run<R: Send + 'static>(
    blocking: &dyn Blocking,
    job: impl FnOnce() -> R + Send + 'static,
) -> Result<R, Gone> {
    let (reply, answer) = tokio::sync::oneshot::channel();
    blocking.submit(Box::new(move || {
        // A dropped receiver means that nobody waits any more.
        drop(reply.send(job()));
    }));
    let answer = answer.await;
    if let Some(lag) = blocking.lag() {
        tokio::time::sleep(lag).await;
    }
    if blocking.is_dead() {
        std::future::pending::<()>().await;
    }
    answer.map_err(|_| Gone)
}
