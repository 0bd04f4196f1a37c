//! A process that stops for a while, as under a debugger or on a machine that is short of memory:
//! none of its tasks runs, nor does any job, and its clock and its network go on.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use weir_io::{
    Blocking, Tasks, World,
    tasks::{Job, Lane, Work},
};

/// Whether a process runs.
#[derive(Debug, Default)]
pub struct Gate {
    /// `Some`: it does not, and these wait.
    waiting: Mutex<Option<Vec<Waker>>>,
}

impl Gate {
    /// The process stops.
    pub fn shut(&self) {
        self.waiting.lock().get_or_insert_default();
    }

    /// The process goes on, but for every `lost`th of its tasks, if that is said.
    pub fn open(&self, lost: Option<usize>) {
        let waiting = self.waiting.lock().take().unwrap_or_default();
        for (no, waker) in waiting.into_iter().enumerate() {
            if lost.is_none_or(|lost| no % lost != lost - 1) {
                waker.wake();
            }
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        match &mut *self.waiting.lock() {
            None => Poll::Ready(()),
            Some(waiting) => {
                waiting.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_shut(&self) -> bool {
        self.waiting.lock().is_some()
    }
}

/// A future that rests while its process does.
pub struct Gated<F: ?Sized> {
    gate: Arc<Gate>,
    inner: Pin<Box<F>>,
}

impl<F: Future + ?Sized> Gated<F> {
    /// Gates a future.
    #[must_use]
    pub fn new(gate: &Arc<Gate>, inner: Pin<Box<F>>) -> Self {
        Self { gate: Arc::clone(gate), inner }
    }
}

impl<F: Future + ?Sized> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.gate.poll(cx) {
            Poll::Ready(()) => self.inner.as_mut().poll(cx),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The world of a process that can be stopped.
#[must_use]
pub fn stoppable(world: World, gate: &Arc<Gate>) -> World {
    let tasks: Arc<dyn Tasks> =
        Arc::new(GatedTasks { gate: Arc::clone(gate), tasks: Arc::clone(&world.tasks) });
    let blocking = Arc::new(GatedBlocking {
        gate: Arc::clone(gate),
        tasks: Arc::clone(&tasks),
        blocking: Arc::clone(&world.blocking),
    });
    World { tasks, blocking, ..world }
}

struct GatedTasks {
    gate: Arc<Gate>,
    tasks: Arc<dyn Tasks>,
}

impl Tasks for GatedTasks {
    fn spawn(&self, name: &'static str, work: Work) {
        self.tasks.spawn(name, Box::pin(Gated::new(&self.gate, work)));
    }

    fn dedicate(&self, name: &'static str, lane: Lane) {
        let gate = Arc::clone(&self.gate);
        self.tasks.dedicate(name, Box::new(move || Box::pin(Gated::new(&gate, lane()))));
    }

    fn lanes_ended(&self) -> Work {
        self.tasks.lanes_ended()
    }
}

struct GatedBlocking {
    gate: Arc<Gate>,
    tasks: Arc<dyn Tasks>,
    blocking: Arc<dyn Blocking>,
}

impl Blocking for GatedBlocking {
    fn submit(&self, job: Job) {
        let (gate, tasks) = (Arc::clone(&self.gate), Arc::clone(&self.tasks));
        let blocking = Arc::clone(&self.blocking);
        self.blocking.submit(Box::new(move || {
            if !gate.is_shut() {
                return job();
            }
            let later = async move {
                if blocking.is_dead() {
                    // Kept, not dropped: a closed reply channel would tell the submitter.
                    std::future::pending::<()>().await;
                }
                job();
            };
            tasks.spawn("a job that was stopped", Box::pin(later));
        }));
    }

    fn is_dead(&self) -> bool {
        self.blocking.is_dead()
    }

    fn pause(&self) -> Option<Duration> {
        self.blocking.pause()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use weir_io::memory::Machine;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stopped_process_runs_neither_tasks_nor_jobs_and_goes_on_where_it_was() {
        let gate = Arc::new(Gate::default());
        let world = stoppable(Machine::new(1).boot(Duration::ZERO), &gate);
        let did = || (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (task, job) = did();
        let (task_did, job_did) = (Arc::clone(&task), Arc::clone(&job));
        let second = Duration::from_secs(1);
        world.tasks.spawn(
            "sleeper",
            Box::pin(async move {
                tokio::time::sleep(second).await;
                task_did.store(true, Ordering::Relaxed);
            }),
        );
        tokio::task::yield_now().await;
        gate.shut();
        world.blocking.submit(Box::new(move || job_did.store(true, Ordering::Relaxed)));
        tokio::time::sleep(second * 5).await;
        let done = || (task.load(Ordering::Relaxed), job.load(Ordering::Relaxed));
        assert_eq!(done(), (false, false));
        gate.open(None);
        tokio::time::sleep(second / 100).await;
        assert_eq!(done(), (true, true), "the clock went on");
    }
}
