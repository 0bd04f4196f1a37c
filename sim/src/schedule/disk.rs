//! A drive that fails: a sync that says no, no space, a bit that flips, names that were not synced.

use std::{path::Path, time::Duration};

use weir_io::memory::{Faults, Moment, Op, Side};

use super::{
    commits::{furnished, lose_all},
    stage::Stage,
};
use crate::faults::DIR;

/// Room that a full disk has left: enough for the log's frames of a few appends.
const ROOM_BYTES: u64 = 20 << 10;
/// Appends after which a disk with so much room must be full.
const APPENDS_MAX: u32 = 100;

pub(super) fn failed_sync(stage: &mut Stage) {
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        life.close().await;
    });
    for (what, late) in [
        ("every fsync fails, and what it was asked for stays unsynced", 0.0),
        ("every fsync fails, although everything is durable", 1.0),
    ] {
        stage.boot(lose_all, async |life| {
            let life = life.opened().await;
            // The stream's state is in memory then: what fails is the commit, not a look-up.
            drop(life.append("a/json", 1).await);
            life.say(what);
            life.drive().set_faults(Faults { sync: 1.0, sync_late: late, ..Faults::default() });
            drop(life.append("a/json", 2).await);
            life.say("the disk is well again");
            life.drive().set_faults(Faults::default());
            drop(life.append("b/text", 1).await);
            life.look("reads go on, and the log is not trusted until a restart").await;
            life.say("the power goes");
        });
        stage.boot(lose_all, async |life| {
            let life = life.opened().await;
            life.look("after the restart").await;
            drop(life.append("b/text", 1).await);
            life.close().await;
        });
    }
}

pub(super) fn full(stage: &mut Stage) {
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        life.create("c/text").await;
        let capacity = life.drive().used_bytes() + ROOM_BYTES;
        life.say("the disk has room for a few commits more");
        let full = Faults { capacity_bytes: Some(capacity), ..Faults::default() };
        life.drive().set_faults(full);
        for _ in 0..APPENDS_MAX {
            if life.append("a/json", 1).await.is_err() {
                break;
            }
        }
        drop(life.append("b/text", 1).await);
        life.look("full").await;
        life.delete("c/text").await;
        life.wait(Duration::from_secs(5)).await;
        life.look("the space that was set aside was used to seal").await;
        drop(life.append("b/text", 1).await);
        life.say("there is space again");
        life.drive().set_faults(Faults::default());
        life.wait(Duration::from_secs(5)).await;
        drop(life.append("a/json", 1).await);
        drop(life.append("b/text", 1).await);
        life.look("writes go on").await;
        life.close().await;
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("after the restart").await;
        life.close().await;
    });
}

pub(super) fn bit_flip(stage: &mut Stage) {
    // Into the records of the first segment, which has its header before them.
    let (byte, bit) = (140, 3);
    let segment = Path::new(DIR).join("segments/0000000000000001.seg");
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        life.sealed().await;
        drop(life.append("a/json", 1).await);
        life.close().await;
    });
    let drive = stage.drive();
    let flipped = drive.flip_bit(&segment, byte, bit);
    stage.say(&format!("a bit flips in the first segment: {}", flipped.is_ok()));
    stage.damaged(true);
    stage.boot(lose_all, async |life| {
        if let Some(life) = life.open().await {
            life.look("what is damaged is named, what is not is served").await;
            drop(life.append("a/json", 1).await);
            life.close().await;
        }
    });
    let back = drive.flip_bit(&segment, byte, bit);
    stage.say(&format!("it flips back: {}", back.is_ok()));
    stage.damaged(false);
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("everything is there").await;
        life.close().await;
    });
}

pub(super) fn lost_names(stage: &mut Stage) {
    stage.boot(lose_all, async |life| {
        life.say("the power will go before the new database's name is synced");
        life.drive().kill_at(Moment {
            op: Op::SyncDir,
            path: "/store",
            nth: 1,
            side: Side::Before,
        });
        drop(life.clone().open().await);
        life.survived();
    });
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        life.say("the power will go before a segment's name is synced");
        life.drive().kill_at(Moment {
            op: Op::SyncDir,
            path: "/segments",
            nth: 1,
            side: Side::Before,
        });
        life.ask("wait for the seal", life.sealed()).await;
        life.survived();
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("the file is gone, its records are in the log").await;
        life.sealed().await;
        life.look("sealed").await;
        life.close().await;
    });
}
