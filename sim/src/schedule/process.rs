//! What happens to the process and its clocks: cut off again and again while it starts, stopped
//! gracefully, started twice, frozen, and misled about the time.

use std::{cell::Cell, time::Duration};

use weir_engine::{Engine, types::Expiry};

use super::{
    commits::{furnished, lose_all},
    stage::{Life, Stage},
    streams::from_now,
};
use crate::checks::{self, Breach};

/// Changes after which a start without any work to do must be over.
const CHANGES_MAX: u64 = 60;
const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn crash_loop(stage: &mut Stage) {
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        life.sealed().await;
        drop(life.append("a/json", 2).await);
        life.fork("f/json", "a/json").await;
        drop(life.append("f/json", 1).await);
        life.delete("b/text").await;
        life.say("the power goes");
    });
    let mut died = 0;
    for change in 1..=CHANGES_MAX {
        let opened = Cell::new(false);
        stage.boot_unseen(lose_all, async |life| {
            life.drive().kill_in(change);
            opened.set(Engine::open(life.world.clone(), life.config(), "a schedule").await.is_ok());
        });
        if opened.get() {
            break;
        }
        died = change;
    }
    stage.say(&format!("{died} starts died at their change 1 to {died}, and the next got through"));
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("after all these").await;
        drop(life.append("f/json", 1).await);
        life.close().await;
    });
}

pub(super) fn drain(stage: &mut Stage) {
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        life.look("before the stop").await;
        let watch = life.engine().watch(&super::streams::named("a/json")).await;
        let watch = watch.expect("the stream is there");
        let tail = life.engine().head(&super::streams::named("a/json")).await;
        let tail = tail.expect("the stream is there").next;
        let (changed, ()) = tokio::join!(watch.changed(tail), life.close());
        life.say(&format!("a live reader at the tail was told: {changed:?}"));
        drop(life.append("a/json", 1).await);
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("after the restart").await;
        life.repeat("a/json", 2, 0).await;
        drop(life.produce("a/json", 1).await);
        life.close().await;
    });
}

pub(super) fn two(stage: &mut Stage) {
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        second(&life).await;
        drop(life.append("a/json", 1).await);
        life.sealed().await;
        second(&life).await;
        life.look("the first one has not noticed").await;
        life.close().await;
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("after the restart").await;
        life.close().await;
    });
}

/// Another process on the same machine and directory.
async fn second(life: &Life) {
    let world = life.scene.sim.another();
    match Engine::open(world, life.config(), "the second process").await {
        Ok(_) => {
            let what = "a second process opened the directory of a running one";
            life.scene.sim.check::<()>(Breach::of(checks::ALONE, what));
        }
        Err(error) => life.say(&format!("a second process: {error}")),
    }
}

pub(super) fn pause(stage: &mut Stage) {
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        life.create_until("t/minute", Expiry::Sliding { ttl_seconds: 60 }).await;
        life.create_until("t/two-hours", Expiry::Sliding { ttl_seconds: 7200 }).await;
        drop(life.append("t/minute", 1).await);
        drop(life.append("t/two-hours", 1).await);
        life.look("before").await;
        life.say("the process is stopped for an hour");
        life.scene.sim.pause(HOUR).await;
        life.ends("t/minute");
        life.look("it goes on").await;
        drop(life.append("a/json", 1).await);
        life.sealed().await;
        life.look("and has caught up").await;
        life.close().await;
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("after the restart").await;
        life.close().await;
    });
}

pub(super) fn clock(stage: &mut Stage) {
    let ms = i64::try_from(HOUR.as_millis()).expect("an hour is short");
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        life.create_until("t/minute", Expiry::Sliding { ttl_seconds: 60 }).await;
        life.create_until("d/in-90-minutes", from_now(&life, HOUR * 3 / 2)).await;
        drop(life.append("t/minute", 1).await);
        drop(life.append("d/in-90-minutes", 1).await);
        life.wait(Duration::from_secs(5)).await;
        life.look("before").await;
        life.say("the wall clock jumps back by an hour");
        life.scene.sim.jump_wall(-ms);
        drop(life.append("a/json", 1).await);
        drop(life.append("t/minute", 1).await);
        life.wait(Duration::from_secs(5)).await;
        life.look("timestamps stand still and no window passes").await;
        life.say("it jumps forward by two hours");
        life.scene.sim.jump_wall(2 * ms);
        life.wait(Duration::from_secs(5)).await;
        life.look("a window of a minute is still open").await;
        life.say("and by another");
        life.scene.sim.jump_wall(ms);
        life.ends("d/in-90-minutes");
        life.wait(Duration::from_secs(5)).await;
        life.look("what ends by the wall clock has ended").await;
        life.wait(Duration::from_secs(70)).await;
        life.ends("t/minute");
        life.look("the minute has passed").await;
        life.close().await;
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("after the restart").await;
        life.close().await;
    });
}
