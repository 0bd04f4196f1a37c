//! What waits for its collection, and since when.

use std::sync::atomic::Ordering;

use super::*;
use crate::{motion::publish::Chain, state::catalogue};

impl Town {
    /// Objects that the catalogue names no more.
    async fn drop_objects(&self, count: usize) {
        let dropped = self.engine.core.on_writer("a test", move |conn| {
            (0..count).try_for_each(|at| catalogue::put_garbage(conn, &format!("segments/{at}")))
        });
        dropped.await.expect("the store runs").expect("writes");
    }

    /// How many of them have not begun to wait.
    async fn unretired(&self) -> usize {
        let found = self.engine.core.on_reader(|conn| catalogue::unretired(conn, "", 100_000));
        found.await.expect("reads").len()
    }
}

#[test]
fn all_that_a_manifest_does_not_name_begins_to_wait_with_it() {
    live(config(), async |town| {
        town.uploaded("s", 1).await;
        town.drop_objects(2500).await;
        town.uploaded("t", 1).await;
        assert_eq!(town.unretired().await, 0);
    });
}

#[test]
fn what_a_process_left_undone_is_made_up_for_by_the_next_without_a_request() {
    live(config(), async |town| {
        town.uploaded("s", 1).await;
        town.drop_objects(2500).await;
        // A start knows the manifest and not yet whether it shows what there is.
        match &mut *town.engine.core.chain.lock().await {
            Chain::Attached(state) => state.version = None,
            Chain::Unattached | Chain::Fenced(_) => panic!("it has published"),
        }
        let before = town.machine.bucket().requests();
        town.publish().await;
        assert_eq!(town.unretired().await, 0);
        assert_eq!(town.machine.bucket().requests(), before);
    });
}

impl Town {
    /// How many creations of objects with such names were asked for.
    fn asked(&self, prefix: &str) -> usize {
        let log = self.machine.bucket().log();
        log.iter().filter(|it| it.verb == Verb::Create && it.subject.starts_with(prefix)).count()
    }

    /// Waits until one more is asked for than `before`.
    async fn until_asked(&self, prefix: &str, before: usize) {
        while self.asked(prefix) == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn slow(seconds: u64) -> BucketFaults {
    let latency = Duration::from_secs(seconds);
    BucketFaults { latency: latency..latency + Duration::from_millis(1), ..BucketFaults::default() }
}

fn short_grace() -> Config {
    Config { gc_grace: Duration::from_secs(600), ..config() }
}

/// The process is stopped for long when the answer is on its way to it.
#[test]
fn what_an_answer_told_is_as_old_as_the_question() {
    live(config(), async |town| {
        town.uploaded("s", 1).await;
        let bucket = town.machine.bucket();
        bucket.set_faults(slow(8));
        town.append("s", 1, 2).await;
        let before = town.asked("manifest/");
        let stopping = async {
            town.until_asked("manifest/", before).await;
            // It has taken effect by then.
            tokio::time::sleep(Duration::from_secs(6)).await;
            town.machine.jump_wall(3_600_000);
        };
        tokio::join!(town.seal(), stopping);
        bucket.set_faults(BucketFaults::default());
        let mut asked = Vec::new();
        for at in 2..4 {
            let before = bucket.count(Verb::List);
            town.append("s", at, at + 1).await;
            town.seal().await;
            asked.push(bucket.count(Verb::List) - before);
        }
        assert_eq!(asked, [1, 0], "whether its slot was kept, and then nobody was away");
    });
}

#[test]
fn a_manifest_whose_answer_was_lost_is_settled_before_anything_is_collected() {
    live(short_grace(), async |town| {
        let (core, bucket) = (&town.engine.core, town.machine.bucket());
        town.uploaded("s", 1).await;
        town.append("s", 1, 2).await;
        town.seal().await;
        // The first manifest is due soon after the next one is on its way.
        tokio::time::sleep(Duration::from_secs(590)).await;
        bucket.set_faults(slow(1));
        town.append("s", 2, 3).await;
        let before = (town.asked("segments/"), town.asked("rows/"));
        seal::run(core).await;
        town.until_asked("segments/", before.0).await;
        town.until_asked("rows/", before.1).await;
        bucket.set_faults(BucketFaults { lost_answer: 1.0, ..slow(1) });
        while core.metrics.publish.failed.get() == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bucket.set_faults(BucketFaults::default());
        // What a damaged ledger comes to.
        core.ledgers_whole.store(false, Ordering::Release);
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(core.metrics.publish.fenced.get(), 0, "the manifest there is its own");
        assert!(core.metrics.publish.collected.get() > 0, "the first manifest went");
        town.seal().await;
        let published = core.in_bucket.lock().expect("published").folded;
        assert_eq!(published, core.durable_link().lsn);
    });
}

/// What an upload left of which nobody heard.
fn orphan(machine: &Machine) -> Key {
    let key = Key::new(format!("segments/{:016x}-{:016x}.seg", 999, 1)).expect("a good key");
    machine.bucket().put(key.clone(), Bytes::from_static(b"left behind"));
    key
}

/// The bucket is asked nothing for hours.
async fn is_silent(town: &Town) -> bool {
    let before = town.machine.bucket().requests();
    tokio::time::sleep(Duration::from_secs(10_000)).await;
    town.machine.bucket().requests() == before
}

#[test]
fn what_uploads_without_an_answer_may_have_left_is_looked_for_once() {
    live(short_grace(), async |town| {
        town.create("s").await;
        town.append("s", 0, 3).await;
        town.machine.bucket().set_faults(outage());
        seal::run(&town.engine.core).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(town.engine.core.metrics.publish.failed.get() > 0);
        let orphan = orphan(&town.machine);
        town.machine.bucket().set_faults(BucketFaults::default());
        // One manifest, so nothing else waits for anything.
        tokio::time::sleep(Duration::from_secs(2000)).await;
        assert_eq!(town.machine.bucket().peek(&orphan), None);
        assert!(is_silent(&town).await);
    });
}

#[test]
fn a_start_after_a_crash_looks_for_what_was_left_and_one_after_a_stop_does_not() {
    let machine = Machine::new(7);
    live_on(&machine, short_grace(), async |town| {
        town.create("s").await;
        town.append("s", 0, 3).await;
        town.machine.bucket().set_faults(outage());
        seal::run(&town.engine.core).await;
    });
    machine.bucket().set_faults(BucketFaults::default());
    let orphan = orphan(&machine);
    live_on(&machine, short_grace(), async |town| {
        tokio::time::sleep(Duration::from_secs(2000)).await;
        assert_eq!(town.machine.bucket().peek(&orphan), None);
        assert!(is_silent(&town).await);
        town.engine.close().await;
    });
    live_on(&machine, short_grace(), async |town| {
        // It looks for its manifest, and then at nothing any more.
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(is_silent(&town).await);
    });
}
