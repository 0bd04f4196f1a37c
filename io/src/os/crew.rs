//! Threads that share the connections of a server: each has a runtime of its own, and a connection
//! stays where it began.
//!
//! ```text
//!  writer ── wake ──▶ post ── one wake of the runtime ──▶ carrier ── wakes, all on this thread ──▶ tasks
//! ```
//! A runtime that several threads share pays for every task with locks and wake-ups across cores. One of
//! one thread pays a system call whenever somebody else's thread wakes one of its tasks, and a commit
//! wakes hundreds. So wakes from outside are collected and carried over together.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, ThreadId},
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};

use crate::tasks::Work;

/// Threads with a runtime each. They end, and what runs on them is dropped, when this is.
#[derive(Debug)]
pub struct Crew {
    members: Vec<Member>,
    turn: AtomicUsize,
    /// Dropped, it lets the threads go.
    _stay: watch::Sender<()>,
}

#[derive(Debug)]
struct Member {
    runtime: Handle,
    post: Arc<Post>,
}

impl Crew {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// The system has no thread or no descriptor left.
    pub fn start(count: usize) -> io::Result<Crew> {
        let stay = watch::Sender::new(());
        let start = |index| Member::start(index, stay.subscribe());
        let members = (0..count.max(1)).map(start).collect::<io::Result<_>>()?;
        Ok(Crew { members, turn: AtomicUsize::new(0), _stay: stay })
    }

    /// Runs `work` on the thread whose turn it is.
    pub(super) fn spawn(&self, work: Work) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let member = &self.members[turn % self.members.len()];
        let address = Address { post: Arc::clone(&member.post), ..Address::default() };
        // Detached: the spawner keeps the means to end it, so the handle has no use.
        drop(member.runtime.spawn(Resident { work, address: Arc::new(address) }));
    }
}

impl Member {
    fn start(index: usize, mut stay: watch::Receiver<()>) -> io::Result<Member> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let post = Arc::new(Post::default());
        let carrier = Arc::clone(&post);
        let run = move || {
            carrier.thread.get_or_init(|| thread::current().id());
            runtime.block_on(async move {
                drop(tokio::spawn(carry(carrier)));
                // An error is what is awaited: the crew is gone.
                drop(stay.changed().await);
            });
        };
        thread::Builder::new().name(format!("connections-{index}")).spawn(run)?;
        Ok(Member { runtime: handle, post })
    }
}

/// Where wakes from other threads wait for one of the crew.
#[derive(Debug, Default)]
struct Post {
    thread: OnceLock<ThreadId>,
    letters: Mutex<Letters>,
}

#[derive(Debug, Default)]
struct Letters {
    waiting: Vec<Arc<Address>>,
    carrier: Option<Waker>,
}

/// Hands out what comes in, for ever.
async fn carry(post: Arc<Post>) {
    let mut taken = Vec::new();
    poll_fn(|cx| {
        let mut letters = post.letters.lock();
        if !letters.carrier.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            letters.carrier = Some(cx.waker().clone());
        }
        std::mem::swap(&mut letters.waiting, &mut taken);
        drop(letters);
        for address in taken.drain(..) {
            address.wake_here();
        }
        Poll::<()>::Pending
    })
    .await;
}

/// A task of the crew, for those who wake it.
#[derive(Debug, Default)]
struct Address {
    post: Arc<Post>,
    /// Set at the task's first poll, before anybody can know this address.
    task: OnceLock<Waker>,
    posted: AtomicBool,
}

impl Address {
    fn wake_here(&self) {
        // Before the wake: what comes after the task has looked must be posted again. A swap, so that the
        // task sees what those did who found it posted already.
        self.posted.swap(false, Ordering::AcqRel);
        self.task.get().expect("set at the first poll").wake_by_ref();
    }
}

impl Wake for Address {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.post.thread.get() == Some(&thread::current().id()) {
            return self.task.get().expect("set at the first poll").wake_by_ref();
        }
        if self.posted.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut letters = self.post.letters.lock();
        letters.waiting.push(Arc::clone(self));
        let carrier = if letters.waiting.len() == 1 { letters.carrier.clone() } else { None };
        drop(letters);
        if let Some(carrier) = carrier {
            carrier.wake();
        }
    }
}

/// Work that is woken by way of its address.
struct Resident {
    work: Work,
    address: Arc<Address>,
}

impl Future for Resident {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // The waker of a tokio task is the same all its life.
        this.address.task.get_or_init(|| cx.waker().clone());
        let waker = Waker::from(Arc::clone(&this.address));
        this.work.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::sync::{Notify, mpsc};

    use super::*;

    #[test]
    fn work_takes_turns_and_stays() {
        let crew = Crew::start(2).expect("threads");
        let (tell, mut told) = mpsc::unbounded_channel();
        for _ in 0..4 {
            let tell = tell.clone();
            crew.spawn(Box::pin(async move {
                let first = thread::current().id();
                tokio::task::yield_now().await;
                tell.send((first, thread::current().id())).expect("the test waits");
            }));
        }
        drop(tell);
        let mut threads = BTreeSet::new();
        while let Some((first, then)) = told.blocking_recv() {
            assert_eq!(first, then);
            threads.insert(format!("{first:?}"));
        }
        assert_eq!(threads.len(), 2);
    }

    /// Rounds of one ring for all from another thread: a lost wake would hang this.
    #[test]
    fn every_wake_from_outside_arrives() {
        const TASKS: usize = 100;
        let crew = Crew::start(2).expect("threads");
        let bell = Arc::new(Notify::new());
        let (tell, mut told) = mpsc::unbounded_channel();
        for _ in 0..TASKS {
            let (bell, tell) = (Arc::clone(&bell), tell.clone());
            crew.spawn(Box::pin(async move {
                for _ in 0..1_000 {
                    let rung = bell.notified();
                    let mut rung = std::pin::pin!(rung);
                    rung.as_mut().enable();
                    tell.send(()).expect("the test waits");
                    rung.await;
                }
            }));
        }
        for _ in 0..1_000 {
            for _ in 0..TASKS {
                told.blocking_recv().expect("enlisted");
            }
            bell.notify_waiters();
        }
        drop(tell);
        assert!(told.blocking_recv().is_none(), "all have ended");
    }

    #[test]
    fn what_runs_on_it_ends_with_it() {
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let crew = Crew::start(1).expect("threads");
        crew.spawn(Box::pin(async move {
            let _tell = tell;
            std::future::pending::<()>().await;
        }));
        drop(crew);
        assert!(told.blocking_recv().is_err(), "dropped unsent");
    }
}
