//! A process that can be stopped while others on the same simulated network go on: none of its tasks
//! runs and none of its blocking jobs begins until it goes on. Its clocks run on, as those of a
//! stopped process do, and what it has sent arrives.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use weir_io::{
    Blocking, World,
    tasks::{Job, Lane, Tasks, Work},
};

/// Stops a process and lets it go on.
#[derive(Clone, Default)]
pub(super) struct Freezer {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    frozen: bool,
    waiting: Vec<Waker>,
    jobs: Vec<Job>,
}

impl Freezer {
    /// A world whose process this can stop.
    pub(super) fn around(&self, mut world: World) -> World {
        world.tasks = Arc::new(Held { inner: world.tasks, freezer: self.clone() });
        world.blocking =
            Arc::new(HeldJobs { inner: Arc::clone(&world.blocking), freezer: self.clone() });
        world
    }

    pub(super) fn freeze(&self) {
        self.state.lock().frozen = true;
    }

    /// Lets the process go on; its jobs are handed to `world`.
    pub(super) fn thaw(&self, world: &World) {
        let (waiting, jobs) = {
            let mut state = self.state.lock();
            state.frozen = false;
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.jobs))
        };
        waiting.into_iter().for_each(Waker::wake);
        jobs.into_iter().for_each(|job| world.blocking.submit(job));
    }

    /// Whether the process runs; if not, it is woken when it does.
    fn runs(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        if state.frozen {
            state.waiting.push(cx.waker().clone());
        }
        !state.frozen
    }
}

/// A future of a process that may be stopped.
struct Slowed<F: ?Sized> {
    inner: Pin<Box<F>>,
    freezer: Freezer,
}

impl<F: Future<Output = ()> + ?Sized> Future for Slowed<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.freezer.runs(cx) { self.inner.as_mut().poll(cx) } else { Poll::Pending }
    }
}

struct Held {
    inner: Arc<dyn Tasks>,
    freezer: Freezer,
}

impl Tasks for Held {
    fn spawn(&self, name: &'static str, work: Work) {
        self.inner.spawn(name, Box::pin(Slowed { inner: work, freezer: self.freezer.clone() }));
    }

    fn dedicate(&self, name: &'static str, lane: Lane) {
        let freezer = self.freezer.clone();
        let lane: Lane = Box::new(move || Box::pin(Slowed { inner: lane(), freezer }));
        self.inner.dedicate(name, lane);
    }

    fn lanes_ended(&self) -> Work {
        self.inner.lanes_ended()
    }
}

struct HeldJobs {
    inner: Arc<dyn Blocking>,
    freezer: Freezer,
}

impl Blocking for HeldJobs {
    fn submit(&self, job: Job) {
        let mut state = self.freezer.state.lock();
        if state.frozen {
            state.jobs.push(job);
            return;
        }
        drop(state);
        self.inner.submit(job);
    }

    fn is_dead(&self) -> bool {
        self.inner.is_dead()
    }

    fn pause(&self) -> Option<std::time::Duration> {
        self.inner.pause()
    }
}
