//! What clock, chance, tasks and blocking jobs of every [`World`] promise.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{Clock, Entropy, World, tasks};

const NAP: Duration = Duration::from_millis(5);
/// Naps in which a clock is looked at, and looks before each of them.
const NAPS: u32 = 3;
const LOOKS: u32 = 1000;
/// The wall clock counts milliseconds, so a difference of two is off by one; and the system may slew it.
const ROUNDED_MS: u64 = 2;
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

/// The laws of a clock that nobody sets meanwhile.
async fn time_passes(clock: &dyn Clock) {
    assert!((PAST_MS..FUTURE_MS).contains(&clock.wall_ms()));
    let first = both(clock);
    let mut before = first.clone();
    for _ in 0..NAPS {
        let mut elapsed = before.elapsed;
        for _ in 0..LOOKS {
            let now = clock.elapsed();
            assert!(now >= elapsed, "elapsed time goes back from {elapsed:?} to {now:?}");
            elapsed = now;
        }
        tokio::time::sleep(NAP).await;
        let after = both(clock);
        let moved = after.elapsed.saturating_sub(elapsed);
        assert!(moved >= NAP, "in a sleep of {NAP:?} elapsed time moves by {moved:?}");
        together(&before, &after);
        before = after;
    }
    together(&first, &before);
}

/// However the wall clock is set, elapsed time goes on as before. `set` moves it by so many
/// milliseconds.
pub async fn elapsed_time_knows_nothing_of_the_wall(clock: &dyn Clock, set: impl Fn(i64)) {
    for by_ms in [-90_000, 1, 3_600_000, -1] {
        let (wall, elapsed) = (clock.wall_ms(), clock.elapsed());
        set(by_ms);
        let moved = clock.elapsed().saturating_sub(elapsed);
        assert!(clock.elapsed() >= elapsed, "it goes back with the wall");
        assert!(moved < NAP, "{moved:?} have not passed");
        assert!(clock.wall_ms().abs_diff(wall.saturating_add_signed(by_ms)) <= 1);
        // As it is now, it goes on.
        time_passes(clock).await;
    }
}

/// Both clocks: what the wall showed before and after elapsed time was looked at.
#[derive(Clone, Debug)]
struct Both {
    wall_ms: Range<u64>,
    elapsed: Duration,
}

fn both(clock: &dyn Clock) -> Both {
    let start = clock.wall_ms();
    let elapsed = clock.elapsed();
    Both { wall_ms: start..clock.wall_ms(), elapsed }
}

/// Between two looks both clocks advance by the same, but for what each of them rounds off.
fn together(before: &Both, after: &Both) {
    let elapsed = (after.elapsed - before.elapsed).as_millis();
    let least = after.wall_ms.start.saturating_sub(before.wall_ms.end);
    let most = after.wall_ms.end.saturating_sub(before.wall_ms.start);
    let range = u128::from(least.saturating_sub(ROUNDED_MS))..=u128::from(most + ROUNDED_MS);
    assert!(range.contains(&elapsed), "{before:?}, then {after:?}");
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
