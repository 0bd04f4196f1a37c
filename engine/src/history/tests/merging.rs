//! Merges beside seals, and beside files that can't be read.

use super::*;
use std::num::NonZeroU64;

use crate::{
    core::{ledger_dir, ledger_path},
    motion::{heal, merge},
    request::List,
    state::catalogue::Place,
    types::Retention,
};

impl Town {
    /// Eight segments of one stream, and as many ledgers.
    async fn eight(&self, stream: &str) {
        self.create(stream).await;
        for part in 0..8 {
            self.append(stream, part * 40, (part + 1) * 40).await;
            self.seal().await;
        }
    }

    /// Whatever is half written in the directories of the store.
    fn temporary(&self) -> Vec<std::path::PathBuf> {
        let config = &self.engine.core.config;
        let dirs = [segment_dir(config), ledger_dir(config)];
        let files = dirs.iter().flat_map(|dir| self.world.disk.list(dir).expect("lists"));
        files.filter(|path| path.extension().is_some_and(|it| it == "tmp")).collect()
    }

    fn unreadable(&self) -> i64 {
        self.engine.metrics().files_unreadable.get()
    }
}

/// Settings under which the keeper seals too.
fn sealing() -> Config {
    Config { seal_age: Duration::from_secs(5), ..config() }
}

fn silent() -> BucketFaults {
    BucketFaults { hang: 1.0, ..BucketFaults::default() }
}

#[test]
fn a_seal_does_not_wait_for_the_bucket_that_a_merge_waits_for() {
    live(config(), async |town| {
        town.eight("s").await;
        town.evict(&town.segments()[3]);
        town.machine.bucket().set_faults(silent());
        let core = &town.engine.core;
        let sealing = async {
            // The merge is on its way by then.
            tokio::time::sleep(Duration::from_secs(5)).await;
            town.append("s", 320, 321).await;
            let started = tokio::time::Instant::now();
            seal::run(core).await;
            started.elapsed()
        };
        let merging = merge::all(core);
        let mut merging = std::pin::pin!(merging);
        let took = tokio::select! {
            biased;
            took = sealing => took,
            rest = merging.as_mut() => panic!("nothing was heard, and the merge is done: {rest:?}"),
        };
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(core.files.lock().cut().expect("sealed").folded, core.durable_link());
    });
}

#[test]
fn what_a_merge_has_brought_is_not_evicted_before_it_is_merged() {
    let small = Config { local_bytes_max: 64 << 10, ..config() };
    live(small, async |town| {
        town.eight("s").await;
        crate::history::tidy(&town.engine.core).await;
        assert!(town.segments().iter().any(|segment| !town.is_here(segment)));
        let tidying = async {
            for _ in 0..1000 {
                crate::history::tidy(&town.engine.core).await;
                tokio::task::yield_now().await;
            }
        };
        let (rest, ()) = tokio::join!(merge::all(&town.engine.core), tidying);
        assert_eq!(rest, merge::Rest::Nothing);
        assert_eq!(town.segments().len(), 1);
        assert_eq!(town.unreadable(), 0);
        assert_eq!(town.read("s", 1 << 20).await, body("s", 320));
    });
}

#[test]
fn a_segment_that_nobody_has_whole_keeps_no_other_from_being_merged() {
    live(config(), async |town| {
        town.eight("s").await;
        let bad = Arc::clone(&town.segments()[2]);
        town.damage(&bad);
        assert!(town.machine.bucket().flip_bit(&key(&bad), 5000, 3));
        for part in 8..20 {
            town.append("s", part * 40, (part + 1) * 40).await;
            town.seal().await;
        }
        merge::all(&town.engine.core).await;
        let segments = town.segments();
        assert!(segments.iter().any(|it| it.id() == bad.id()), "it is as it was");
        assert!(segments.len() <= 20 - 2 * 7, "{}", segments.len());
        assert!(town.engine.core.files.lock().ledgers().len() < 8, "ledgers were merged too");
        assert_eq!(town.temporary(), Vec::<std::path::PathBuf>::new());
        assert_eq!(town.unreadable(), 1);
        assert_eq!(town.engine.server_details().segments.unreadable, 1);
        // It is mended where it is kept for good.
        assert!(town.machine.bucket().flip_bit(&key(&bad), 5000, 3));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(town.unreadable(), 0);
        assert_eq!(town.read("s", 1 << 20).await, body("s", 800));
    });
}

#[test]
fn a_damaged_ledger_is_fetched_from_the_bucket_again() {
    live(config(), async |town| {
        town.eight("s").await;
        let core = &town.engine.core;
        let ledgers = core.files.lock().ledgers().to_vec();
        let path = ledger_path(&core.config, ledgers[4].id);
        town.machine.drive().flip_bit(&path, 100, 3).expect("there is such a byte");
        merge::all(core).await;
        assert_eq!(core.files.lock().ledgers().len(), 1);
        assert_eq!(town.unreadable(), 0);
        assert_eq!(town.temporary(), Vec::<std::path::PathBuf>::new());
    });
}

#[test]
fn a_ledger_that_nobody_has_whole_is_made_good_by_one_of_all_rows() {
    live(sealing(), async |town| {
        town.eight("s").await;
        let core = &town.engine.core;
        let bad = core.files.lock().ledgers()[4];
        let path = ledger_path(&core.config, bad.id);
        town.machine.drive().flip_bit(&path, 100, 3).expect("there is such a byte");
        assert!(town.machine.bucket().lose(&crate::motion::publish::ledger_key(&bad)));
        merge::all(core).await;
        assert_eq!(town.segments().len(), 1, "segments do not wait for ledgers");
        assert_eq!(town.unreadable(), 1);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(town.unreadable(), 0);
        assert_eq!(core.files.lock().ledgers().len(), 1);
        let ledgers = core.files.lock().ledgers().to_vec();
        assert!(heal::blame_ledgers(core, &ledgers).await.is_ok_and(|bad| bad.is_empty()));
        let list = List { limit: 10, ..List::default() };
        assert_eq!(town.engine.list(list).await.expect("lists").len(), 1);
    });
}

#[test]
fn a_file_that_the_disk_does_not_give_keeps_no_other_from_the_bucket() {
    live(config(), async |town| {
        let core = &town.engine.core;
        town.create("a").await;
        town.append("a", 0, 40).await;
        // Nothing is published before the disk has failed.
        let turn = core.chain.lock().await;
        seal::run(core).await;
        let bad = Arc::clone(&town.segments()[0]);
        let path = segment_path(&core.config, bad.id());
        town.machine.drive().set_readable(&path, false).expect("is there");
        drop(turn);
        town.create("b").await;
        town.append("b", 0, 40).await;
        seal::run(core).await;
        let published = publish::once(core).await;
        assert!(matches!(published, Err(publish::Problem::Awaited(1))), "{published:?}");
        assert!(town.segments()[1].remote().is_some(), "the other one is there");
        assert!(core.files.lock().ledgers().iter().all(|row| row.place == Place::Bucket));
        assert_eq!(town.unreadable(), 1);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(town.engine.metrics().publish.manifests.get(), 0, "it may come back");
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(town.engine.metrics().publish.manifests.get(), 1, "everything else is safe");
        assert!(bad.remote().is_none());
        assert!(town.engine.metrics().publish.backlog_bytes.get() > 0);
        town.machine.drive().set_readable(&path, true).expect("is there");
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(bad.remote().is_some());
        assert_eq!(town.engine.metrics().publish.manifests.get(), 2, "the hole is filled");
        assert_eq!(town.engine.metrics().publish.backlog_bytes.get(), 0);
        assert_eq!(town.unreadable(), 0);
    });
}

#[test]
fn a_ledger_that_the_disk_does_not_give_is_made_good_by_one_of_all_rows() {
    live(sealing(), async |town| {
        let core = &town.engine.core;
        town.create("a").await;
        town.append("a", 0, 40).await;
        let turn = core.chain.lock().await;
        seal::run(core).await;
        let bad = core.files.lock().ledgers()[0];
        let path = ledger_path(&core.config, bad.id);
        town.machine.drive().set_readable(&path, false).expect("is there");
        drop(turn);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(town.engine.metrics().publish.manifests.get(), 1);
        assert_eq!(town.unreadable(), 0);
        assert!(core.files.lock().ledgers().iter().all(|row| row.id != bad.id));
    });
}

#[test]
fn damaged_records_do_not_keep_a_stream_from_letting_go_of_them() {
    live(config(), async |town| {
        let limit = Retention { max_bytes: NonZeroU64::new(100 << 10), ..Retention::NONE };
        let segment = town.uploaded("s", 300).await;
        town.evict(&segment);
        // A byte of the second block, which has the records 63 to 125.
        assert!(town.machine.bucket().flip_bit(&key(&segment), 100_000, 2));
        town.engine.retain(&name("s"), limit).await.expect("retains");
        town.seal().await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        let head = town.engine.head(&name("s")).await.expect("there");
        let earliest = head.earliest.next.get();
        assert!((190..=200).contains(&earliest), "{earliest}");
        let kept = usize::try_from(earliest).expect("small");
        assert_eq!(town.read("s", 1 << 20).await, body_from("s", kept, 300));
    });
}

#[test]
fn the_keeper_seals_while_the_trimmer_waits_for_the_bucket() {
    live(sealing(), async |town| {
        let limit = Retention { max_bytes: NonZeroU64::new(100 << 10), ..Retention::NONE };
        let segment = town.uploaded("s", 300).await;
        town.evict(&segment);
        town.machine.bucket().set_faults(silent());
        town.engine.retain(&name("s"), limit).await.expect("retains");
        for at in 0..20 {
            town.append("s", 300 + at, 301 + at).await;
            tokio::time::sleep(Duration::from_secs(7)).await;
            let since = town.engine.core.unfolded.lock().since;
            let now = town.engine.core.store_now();
            assert!(since.is_none_or(|since| since.plus(7000) > now), "{at}: a seal is late");
        }
    });
}

/// What the bucket alone has is reclaimed like what is here, and not only when its time is up.
#[test]
fn a_segment_that_is_mostly_dead_is_written_anew_though_it_is_evicted() {
    live(config(), async |town| {
        town.create("gone").await;
        town.append("gone", 0, 40).await;
        town.uploaded("keep", 20).await;
        let [mixed] = &town.segments()[..] else { panic!("one seal, one segment") };
        town.evict(mixed);
        town.engine.delete(&name("gone")).await.expect("deletes");
        town.seal().await;
        assert_eq!(merge::all(&town.engine.core).await, merge::Rest::Nothing);
        let records: Vec<u64> = town.segments().iter().map(|it| it.footer().records).collect();
        assert_eq!(records, [20], "what nobody can read is left out");
        assert_eq!(town.read("keep", 1 << 20).await, body("keep", 20));
    });
}
