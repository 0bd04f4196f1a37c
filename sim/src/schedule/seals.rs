//! The end of the machine on the way from memory to segments: each step of a seal, its fold and a
//! merge is durable before the next, and a start finds its way from wherever it was cut off.

use weir_io::memory::{Moment, Op, Side};

use super::{
    commits::{furnished, lose_all},
    stage::{Life, Stage},
};

const WAL: &str = "weir.sqlite-wal";
const SEGMENTS: &str = "/segments";
const SEGMENT: &str = ".seg";

/// How many segments of one size become one.
const MERGED: u64 = 8;

/// A furnished store that is cut off in its first seal.
fn cut_off(stage: &mut Stage, what: &'static str, moment: Moment) {
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        life.fork("f/json", "a/json").await;
        life.look("before the seal").await;
        // The look has emptied SQLite's log, this begins it anew: what is synced next is the seal's.
        drop(life.append("b/text", 1).await);
        life.say(&format!("the machine will die {what}"));
        life.drive().kill_at(moment);
        life.ask("wait for the seal", life.sealed()).await;
        life.survived();
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("after the restart").await;
        drop(life.append("a/json", 1).await);
        drop(life.append("f/json", 1).await);
        life.repeat("a/json", 2, 0).await;
        life.sealed().await;
        life.look("sealed at last").await;
        life.close().await;
    });
    stage.boot(lose_all, again);
}

/// What was sealed is read out of segments alone.
async fn again(life: Life) {
    let life = life.opened().await;
    life.look("after a quiet restart").await;
    life.close().await;
}

pub(super) fn between_file_and_row(stage: &mut Stage) {
    let moment = Moment { op: Op::SyncDir, path: SEGMENTS, nth: 1, side: Side::After };
    cut_off(stage, "when the segment has its name and no row", moment);
}

pub(super) fn in_fold(stage: &mut Stage) {
    // The first sync is that of the segment's row, the second that of the state rows.
    let moment = Moment { op: Op::Sync, path: WAL, nth: 2, side: Side::After };
    cut_off(stage, "when the state rows are written and not yet marked as folded", moment);
}

pub(super) fn in_trim(stage: &mut Stage) {
    let moment = Moment { op: Op::Sync, path: WAL, nth: 3, side: Side::After };
    cut_off(stage, "when the fold is marked as done and its log rows are still there", moment);
}

pub(super) fn in_merge(stage: &mut Stage) {
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        for _ in 1..MERGED {
            drop(life.append("a/json", 1).await);
            life.sealed().await;
        }
        life.look("one seal before a merge").await;
        life.say("the machine will die when the merged segment has its name and no row");
        drop(life.append("a/json", 1).await);
        // The first is the seal's own.
        life.drive().kill_at(Moment { op: Op::SyncDir, path: SEGMENTS, nth: 2, side: Side::After });
        life.ask("wait for the merge", life.sealed()).await;
        life.survived();
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("the merge never was").await;
        life.say("the machine will die when the row is written and the old files are still there");
        drop(life.append("a/json", 1).await);
        life.drive().kill_at(Moment { op: Op::Remove, path: SEGMENT, nth: 1, side: Side::Before });
        life.ask("wait for the merge", life.sealed()).await;
        life.survived();
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("merged").await;
        let files = life.world.disk.list(&life.config().dir.join("segments"));
        life.say(&format!("segment files: {}", files.map_or(0, |files| files.len())));
        life.close().await;
    });
}
