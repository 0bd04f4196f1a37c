//! Threads with a runtime of their own each.
//!
//! A runtime that several threads share costs each task locks and wake-ups across cores. Load
//! generators and servers that are measured against them want none of that.

use std::{future::Future, io, thread};

/// Runs `work(0)` to `work(count - 1)`, each to its end on a thread of its own with a runtime that
/// has sockets and timers, and returns what they came to, in that order. Tasks spawned within stay
/// on their thread.
///
/// # Errors
/// The system has no thread or no descriptor left.
///
/// # Panics
/// One of them panicked.
pub fn run<T, F>(name: &str, count: usize, work: impl Fn(usize) -> F + Sync) -> io::Result<Vec<T>>
where
    T: Send,
    F: Future<Output = T>,
{
    let work = &work;
    let one = move |index| -> io::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(work(index)))
    };
    thread::scope(|scope| {
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let thread = thread::Builder::new().name(format!("{name}-{index}"));
            threads.push(thread.spawn_scoped(scope, move || one(index))?);
        }
        let joined = threads.into_iter().map(|thread| thread.join().expect("a worker panicked"));
        joined.collect()
    })
}

/// Runs `work` to its end on one runtime with `threads` threads.
///
/// # Errors
/// The system has no thread or no descriptor left.
pub fn share<T>(name: &str, threads: usize, work: impl Future<Output = T>) -> io::Result<T> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(threads).thread_name(name).enable_all().build()?;
    Ok(runtime.block_on(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_has_a_runtime_and_its_result_its_place() {
        let results = run("test", 3, async |index| {
            let task = tokio::task::spawn(async move { index * 10 });
            task.await.expect("it ends")
        });
        assert_eq!(results.expect("threads"), [0, 10, 20]);
    }
}
