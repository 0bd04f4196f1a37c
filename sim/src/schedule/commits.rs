//! The end of the machine around one commit: before it is written, before it is synced, after that
//! and before anybody is told, and with half of it on the medium.

use weir_io::memory::{Cut, Drive, Moment, Op, Side};

use super::stage::{Life, Stage};

/// The log of SQLite: a commit is a write of frames here, then a sync.
const WAL: &str = "weir.sqlite-wal";

/// The power goes and everything unsynced with it.
pub(super) fn lose_all(drive: &Drive) {
    drive.cut_power(Cut { keep: 0.0, tear: 0.0 });
}

/// The power goes and of everything unsynced about half is left, often half sectors.
fn tear(drive: &Drive) {
    drive.cut_power(Cut { keep: 0.5, tear: 0.5 });
}

/// A store with one stream of each form, three records in each, and a producer.
pub(super) async fn furnished(life: Life) -> Life {
    let life = life.opened().await;
    life.create("a/json").await;
    life.create("b/text").await;
    for name in ["a/json", "b/text"] {
        drop(life.append(name, 1).await);
        drop(life.append(name, 1).await);
        drop(life.produce(name, 0).await);
    }
    life
}

async fn die_in_append(life: &Life, what: &str, (op, nth): (Op, u64)) {
    life.say(&format!("the machine will die {what}"));
    life.drive().kill_at(Moment { op, path: WAL, nth, side: Side::Before });
    drop(life.append("a/json", 2).await);
    life.survived();
}

async fn check(life: Life) {
    let life = life.opened().await;
    life.look("after the restart").await;
    drop(life.append("a/json", 1).await);
    life.close().await;
}

pub(super) fn before(stage: &mut Stage) {
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        life.look("before the crash").await;
        die_in_append(&life, "before a commit is written", (Op::Write, 1)).await;
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("the commit was never written").await;
        let synced = (Op::Sync, 1);
        die_in_append(&life, "before a written commit is synced", synced).await;
    });
    stage.boot(Drive::restart_process, async |life| {
        let life = life.opened().await;
        life.look("the commit was written, and lost with the power").await;
        life.say("now only the process dies, and what it wrote stays");
        let synced = (Op::Sync, 1);
        die_in_append(&life, "before a written commit is synced", synced).await;
    });
    stage.boot(lose_all, check);
}

pub(super) fn after(stage: &mut Stage) {
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        life.say("the machine will die after the fsync of a producer's request");
        life.drive().kill_at(Moment { op: Op::Sync, path: WAL, nth: 1, side: Side::After });
        drop(life.produce("a/json", 1).await);
        life.survived();
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("nobody was told, and it is there").await;
        life.repeat("a/json", life.scene.counted.get() - 1, 1).await;
        life.look("the producer has asked again").await;
        life.close().await;
    });
}

pub(super) fn torn(stage: &mut Stage) {
    stage.boot(tear, async |life| {
        let life = furnished(life).await;
        die_in_append(&life, "before a written commit is synced", (Op::Sync, 1)).await;
    });
    for _ in 0..3 {
        stage.boot(tear, async |life| {
            let life = life.opened().await;
            life.look("after a torn commit").await;
            let moment = Moment { op: Op::Sync, path: WAL, nth: 2, side: Side::Before };
            life.say("the machine will die before the commit after the next is synced");
            life.drive().kill_at(moment);
            drop(life.append("b/text", 1).await);
            drop(life.append("a/json", 3).await);
            life.survived();
        });
    }
    stage.boot(lose_all, check);
}
