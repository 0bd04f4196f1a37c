//! The end of the machine on the way from segments to the bucket, a bucket that is away, and what comes
//! back from it: each step of publishing is in the bucket before the next, and who finds two
//! stores there lets one of them write.

use std::time::Duration;

use weir_engine::{
    Engine,
    restore::{Losses, Options, Report, RestoreError},
};
use weir_io::{
    memory::{BucketFaults, MemoryBucket},
    objects::Key,
};

use super::{
    commits::{furnished, lose_all},
    stage::{Life, Stage},
};

/// How long every request takes; it has its effect halfway.
const LATENCY: Duration = Duration::from_millis(20);
/// How often it is looked whether a moment has come, and for how long.
const LOOK: Duration = Duration::from_millis(1);
const LOOKS: u32 = 60_000;
/// How long the bucket is away.
const OUTAGE: Duration = Duration::from_secs(600);
/// Time enough to notice that it is back: longer than the longest pause between two tries.
const BACK: Duration = Duration::from_secs(120);
/// The directory of a store that is made out of what is in the bucket.
const RECOVERED: &str = "/data/recovered";
/// That of another one.
const PARTLY: &str = "/data/partly";
/// Bytes behind the footer of a segment.
const TRAILER_BYTES: usize = 28;

/// The weather of a good day.
fn fair() -> BucketFaults {
    BucketFaults { latency: LATENCY..LATENCY, ..BucketFaults::default() }
}

/// From now on stores of this stage have a bucket.
fn supplied(stage: &Stage) {
    stage.supply();
    stage.bucket().set_weather(fair());
}

fn count(bucket: &MemoryBucket, folder: &str) -> usize {
    keys(bucket, folder).len()
}

fn keys(bucket: &MemoryBucket, folder: &str) -> Vec<Key> {
    bucket.keys().into_iter().filter(|key| key.as_str().starts_with(folder)).collect()
}

/// Waits until a moment has come.
async fn until(life: &Life, has_come: impl Fn(&MemoryBucket) -> bool) {
    let bucket = life.scene.sim.machine.bucket();
    for _ in 0..LOOKS {
        if has_come(bucket) {
            return;
        }
        life.wait(LOOK).await;
    }
    life.survived();
}

/// Waits until everything is sealed and in the bucket.
async fn published(life: &Life) {
    life.sealed().await;
    life.wait(Duration::from_secs(5)).await;
}

/// A store whose first manifest is there dies on the way to the next.
fn cut_off(stage: &mut Stage, what: &'static str, moment: fn(&MemoryBucket, usize) -> bool) {
    supplied(stage);
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        life.fork("f/json", "a/json").await;
        published(&life).await;
        life.look("published").await;
        drop(life.append("a/json", 1).await);
        drop(life.append("f/json", 1).await);
        let before = count(life.scene.sim.machine.bucket(), "manifest/");
        life.say(&format!("the machine will die {what}"));
        until(&life, |bucket| moment(bucket, before)).await;
        life.drive().kill();
        life.ask("wait for the manifest", published(&life)).await;
        life.survived();
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("after the restart").await;
        drop(life.append("b/text", 1).await);
        published(&life).await;
        life.look("published at last").await;
        life.close().await;
    });
    recovered(stage);
}

/// What is in the bucket is all there was.
fn recovered(stage: &mut Stage) {
    stage.boot(lose_all, async |life| {
        let life = life.elsewhere(RECOVERED);
        bootstrap(&life, Losses::Refuse).await;
        let life = life.opened().await;
        life.look("recovered from the bucket").await;
        drop(life.append("a/json", 1).await);
        life.close().await;
    });
}

pub(super) fn before_manifest(stage: &mut Stage) {
    cut_off(stage, "when a segment and its rows are in the bucket and no manifest names them", {
        |bucket, before| {
            let (segments, rows) = (count(bucket, "segments/"), count(bucket, "rows/"));
            segments > 1 && rows > 1 && count(bucket, "manifest/") == before
        }
    });
}

pub(super) fn after_manifest(stage: &mut Stage) {
    cut_off(stage, "when the manifest is in the bucket and the store does not know it", {
        |bucket, before| count(bucket, "manifest/") > before
    });
}

pub(super) fn outage(stage: &mut Stage) {
    supplied(stage);
    let bucket = stage.bucket();
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        published(&life).await;
        life.say("the bucket is away");
        bucket.set_weather(BucketFaults { outage: true, ..fair() });
        drop(life.append("a/json", 1).await);
        life.wait(OUTAGE).await;
        drop(life.append("b/text", 1).await);
        life.sealed().await;
        life.look("appends go on and wait").await;
        life.say("the power goes");
    });
    stage.boot(lose_all, async |life| {
        let life = life.opened().await;
        life.look("started without a bucket").await;
        drop(life.append("a/json", 1).await);
        life.say("the bucket is back");
        bucket.set_weather(fair());
        life.wait(BACK).await;
        life.look("nothing waits any more").await;
        life.close().await;
    });
    recovered(stage);
}

pub(super) fn damaged(stage: &mut Stage) {
    // Into the records of the segment, which has its header before them.
    let (byte, bit) = (140, 3);
    supplied(stage);
    let bucket = stage.bucket();
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        published(&life).await;
        drop(life.append("b/text", 1).await);
        published(&life).await;
        life.look("published").await;
        life.close().await;
    });
    let first = keys(&bucket, "segments/").swap_remove(0);
    let flipped = bucket.flip_bit(&first, byte, bit);
    stage.say(&format!("a bit flips in a block of the first segment in the bucket: {flipped}"));
    stage.damaged(true);
    stage.boot(lose_all, async |life| {
        let life = life.elsewhere(RECOVERED);
        bootstrap(&life, Losses::Refuse).await;
        let life = life.opened().await;
        life.look("what is damaged is named").await;
        life.read_from("b/text", 3).await;
        drop(life.append("a/json", 1).await);
        life.say("the machine dies before it has published anything");
        life.drive().kill();
        life.wait(LOOK).await;
    });
    let back = bucket.flip_bit(&first, byte, bit);
    // Nothing makes up for a footer; it ends where the trailer begins.
    let footer =
        bucket.peek(&first).map_or(0, |bytes| bytes.len().saturating_sub(TRAILER_BYTES + 1));
    let flipped = bucket.flip_bit(&first, footer, bit);
    stage.say(&format!("it flips back: {back}, and one in the segment's footer flips: {flipped}"));
    stage.boot(lose_all, async |life| {
        let life = life.elsewhere(PARTLY);
        bootstrap(&life, Losses::Refuse).await;
        bootstrap(&life, Losses::Accept).await;
        let life = life.opened().await;
        life.look("the rest is served").await;
        life.read_from("b/text", 3).await;
        drop(life.append("a/json", 1).await);
        published(&life).await;
        life.look("and goes on").await;
        life.close().await;
    });
}

pub(super) fn overtaken(stage: &mut Stage) {
    supplied(stage);
    stage.boot(lose_all, async |life| {
        let life = furnished(life).await;
        published(&life).await;
        let other = life.elsewhere(RECOVERED);
        other.say("another process recovers the store from its bucket");
        bootstrap(&other, Losses::Refuse).await;
        let other = other.opened().await;
        drop(other.append("a/json", 1).await);
        published(&other).await;
        other.look("the other one").await;
        life.say("what the first one takes now is lost");
        drop(life.append("b/text", 1).await);
        published(&life).await;
        life.glance("the first one has noticed");
        drop(life.append("b/text", 1).await);
        other.close().await;
        life.close().await;
    });
}

async fn bootstrap(life: &Life, losses: Losses) {
    let options = Options { losses, ..Options::default() };
    let bucket = life.supply().expect("the stage has a bucket");
    let asked = format!("bootstrap ({losses:?} losses)").to_lowercase();
    let done = Engine::bootstrap(life.world.clone(), life.config(), bucket, options, "a schedule");
    let done: Result<Report, RestoreError> = life.ask(&asked, done).await;
    match done {
        Ok(report) => {
            life.say(&format!(
                "{asked}: manifest {} through {}, {} streams, {} segments, recoveries {}",
                report.generation,
                report.through,
                report.streams,
                report.segments,
                report.recoveries
            ));
            report.findings.iter().for_each(|it| life.say(&format!("  {}: {}", it.rule, it.text)));
        }
        Err(error) => life.say(&format!("{asked}: {error}")),
    }
}
