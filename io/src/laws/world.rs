//! What clock, chance, tasks and blocking jobs of every [`World`] promise.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{Clock, Entropy, World, tasks};

const NAP: Duration = Duration::from_millis(5);
/// 2025-01-01: earlier means that milliseconds are not what the clock counts.
const PAST_MS: u64 = 1_735_689_600_000;
/// 2100-01-01: later, too.
const FUTURE_MS: u64 = 4_102_444_800_000;

/// Every law. Needs a runtime with time and, in the simulator, a `LocalSet`.
pub async fn all(world: &World) {
    time_passes(&*world.clock).await;
    chance_does_not_repeat(&*world.entropy);
    a_task_runs(world).await;
    a_lane_runs_and_is_awaited(world).await;
    a_job_answers_or_says_that_it_is_gone(world).await;
}

async fn time_passes(clock: &dyn Clock) {
    assert!((PAST_MS..FUTURE_MS).contains(&clock.wall_ms()));
    let before = clock.elapsed();
    tokio::time::sleep(NAP).await;
    let after = clock.elapsed();
    assert!(after >= before + NAP, "{after:?} is not {NAP:?} after {before:?}");
}

fn chance_does_not_repeat(entropy: &dyn Entropy) {
    let (one, two) = (entropy.next_u64(), entropy.next_u64());
    assert_ne!(one, two);
    let mut long = [0; 100];
    entropy.fill(&mut long);
    assert!(long[64..].iter().any(|&byte| byte != 0), "all of it is filled");
}

async fn a_task_runs(world: &World) {
    let (done, wait) = tokio::sync::oneshot::channel();
    world.tasks.spawn("law", Box::pin(async move { done.send(()).expect("the law waits below") }));
    wait.await.expect("the task runs to its end");
}

async fn a_lane_runs_and_is_awaited(world: &World) {
    world.tasks.lanes_ended().await;
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let (go, gate) = tokio::sync::oneshot::channel::<()>();
    let lane = move || -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            drop(gate.await);
            tokio::time::sleep(NAP).await;
            end.store(true, Ordering::Release);
        })
    };
    world.tasks.dedicate("law", Box::new(lane));
    assert!(!ended.load(Ordering::Acquire), "the gate is shut");
    drop(go);
    world.tasks.lanes_ended().await;
    assert!(ended.load(Ordering::Acquire));
}

async fn a_job_answers_or_says_that_it_is_gone(world: &World) {
    let blocking = Arc::clone(&world.blocking);
    let answer = tasks::run(&*blocking, || 6 * 7).await;
    assert_eq!(answer.expect("the world goes on"), 42);
    assert!(!blocking.is_dead());
}
