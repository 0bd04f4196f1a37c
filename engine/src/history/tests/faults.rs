//! Buckets that do not answer, answer wrongly, or have lost what they had.

use super::*;
use crate::{history, motion::merge, types::WallMs};

#[test]
fn an_outage_is_felt_by_reads_of_what_is_not_here_and_by_nothing_else() {
    live(config(), async |town| {
        let cold = town.uploaded("s", 300).await;
        let warm = {
            town.append("s", 300, 600).await;
            town.seal().await;
            town.segments().pop().expect("just sealed")
        };
        town.append("s", 600, 700).await;
        town.evict(&cold);
        town.machine.bucket().set_faults(outage());

        let (none, error) = town.read_from("s", From::Start, 1 << 20).await;
        assert!(none.is_empty());
        assert!(matches!(error, Some((Error::Away(_), _))), "{error:?}");
        let (rest, error) = town.read_from("s", position(300), 1 << 20).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(rest, body_from("s", 300, 700));
        assert_eq!(warm.last_used(), town.engine.core.history.now());
        assert!(town.engine.metrics().fetches_failed.get() > 0);

        town.machine.bucket().set_faults(BucketFaults::default());
        assert_eq!(town.read("s", 1 << 20).await, body("s", 700), "the next read asks again");
    });
}

#[test]
fn a_page_ends_before_what_cannot_be_read() {
    live(config(), async |town| {
        town.uploaded("s", 100).await;
        town.append("s", 100, 300).await;
        town.seal().await;
        let [_, later] = &town.segments()[..] else { panic!("two seals, two segments") };
        town.evict(later);
        town.machine.bucket().set_faults(outage());
        let (found, error) = town.read_from("s", From::Start, 4 << 20).await;
        assert_eq!(found, body("s", 100));
        let Some((Error::Away(_), Some(at))) = error else { panic!("{error:?}") };
        assert_eq!(at.next, Seq::new(100));
    });
}

#[test]
fn a_slow_bucket_keeps_nobody_from_what_is_here() {
    live(config(), async |town| {
        let cold = town.uploaded("cold", 300).await;
        town.uploaded("warm", 300).await;
        town.evict(&cold);
        // Nothing is ever heard.
        let silent = BucketFaults { hang: 1.0, ..BucketFaults::default() };
        town.machine.bucket().set_faults(silent);
        let cold_reads = async {
            let reads = (0..1000).map(|_| town.page("cold", From::Start, 1 << 20));
            super::reads::join_all(reads).await
        };
        let warm_read = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let started = tokio::time::Instant::now();
            assert_eq!(town.read("warm", 10 << 10).await, body("warm", 300));
            started.elapsed()
        };
        let (cold, warm) = tokio::join!(cold_reads, warm_read);
        assert!(warm < Duration::from_secs(1), "{warm:?}");
        assert!(cold.iter().all(|page| matches!(page, Err(Error::Away(_)))));
        assert_eq!(town.gets(), 3, "one flight with all its tries for all of them");
    });
}

#[test]
fn bytes_that_are_spoiled_on_the_way_are_asked_for_again() {
    for seed in 0..20 {
        live_on(&Machine::new(seed), config(), async |town| {
            let segment = town.uploaded("s", 200).await;
            town.evict(&segment);
            let faults = BucketFaults { corrupted: 0.3, truncated: 0.2, ..BucketFaults::default() };
            town.machine.bucket().set_faults(faults);
            let mut from = From::Start;
            let mut found = Vec::new();
            // Whoever gets no answer asks again; nobody is told that anything is damaged.
            loop {
                let (body, error) = town.read_from("s", from, 30 << 10).await;
                found.extend_from_slice(&body);
                match error {
                    None => break,
                    Some((Error::Away(_), at)) => from = at.map_or(from, From::At),
                    Some((error, _)) => panic!("seed {seed}: {error}"),
                }
            }
            assert!(found == body("s", 200), "seed {seed}");
        });
    }
}

#[test]
fn a_damaged_object_is_corrupt_where_it_is_damaged() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 300).await;
        town.evict(&segment);
        // A byte of the second block, which has the records 63 to 125.
        assert!(town.machine.bucket().flip_bit(&key(&segment), 100_000, 2));
        let (found, error) = town.read_from("s", From::Start, 4 << 20).await;
        assert_eq!(found, body("s", 63));
        let Some((Error::Corrupt(what), _)) = error else { panic!("{error:?}") };
        assert!(what.contains("block 1"), "{what}");
        let (rest, error) = town.read_from("s", position(126), 4 << 20).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(rest, body_from("s", 126, 300));
    });
}

#[test]
fn an_object_that_is_gone_is_a_clear_error() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 100).await;
        town.evict(&segment);
        assert!(town.machine.bucket().lose(&key(&segment)));
        let error = town.page("s", From::Start, 1 << 20).await.err();
        let Some(Error::Corrupt(what)) = error else { panic!("{error:?}") };
        assert!(what.contains("is not in the bucket"), "{what}");
    });
}

#[test]
fn a_merge_brings_back_what_was_evicted_and_what_is_damaged() {
    live(config(), async |town| {
        town.create("s").await;
        for part in 0..8 {
            town.append("s", part * 40, (part + 1) * 40).await;
            town.seal().await;
        }
        let segments = town.segments();
        segments.iter().step_by(2).for_each(|segment| town.evict(segment));
        town.damage(&segments[1]);
        // One that seemed whole is found damaged by the first try.
        merge::all(&town.engine.core).await;
        merge::all(&town.engine.core).await;
        assert_eq!(town.segments().len(), 1, "eight neighbours became one");
        town.machine.bucket().set_faults(outage());
        assert_eq!(town.read("s", 1 << 20).await, body("s", 320));
    });
}

#[test]
fn a_merge_that_cannot_be_fed_leaves_everything_as_it_was() {
    live(config(), async |town| {
        town.create("s").await;
        for part in 0..8 {
            town.append("s", part * 40, (part + 1) * 40).await;
            town.seal().await;
        }
        town.evict(&town.segments()[3]);
        town.machine.bucket().set_faults(outage());
        merge::all(&town.engine.core).await;
        assert_eq!(town.segments().len(), 8);
        town.machine.bucket().set_faults(BucketFaults::default());
        // The merger looks again by itself.
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(town.segments().len(), 1);
        assert_eq!(town.read("s", 1 << 20).await, body("s", 320));
    });
}

#[test]
fn a_disk_that_takes_nothing_back_keeps_no_read_from_its_answer() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 300).await;
        town.evict(&segment);
        let full = Some(town.machine.drive().used_bytes());
        let faults = weir_io::memory::Faults { capacity_bytes: full, ..Default::default() };
        town.machine.drive().set_faults(faults);
        assert_eq!(town.read("s", 100 << 10).await, body("s", 300));
        assert!(!town.is_here(&segment));
        history::tidy(&town.engine.core).await;
        assert_eq!(town.read("s", 100 << 10).await, body("s", 300));
    });
}

#[test]
fn no_more_is_asked_of_a_bucket_at_once_than_its_answers_have_room() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 140 * 63).await;
        town.evict(&segment);
        let silent = BucketFaults { hang: 1.0, ..BucketFaults::default() };
        town.machine.bucket().set_faults(silent);
        // Each of another block, and none where another one will go on.
        let reads = (0..70).map(|block| town.page("s", position(block * 2 * 63), 1));
        let pages = super::reads::join_all(reads).await;
        let turned_away = pages.iter().filter(|page| match page {
            Err(Error::Away(what)) => what.contains("too many reads"),
            other => panic!("{other:?}"),
        });
        assert_eq!(turned_away.count(), 70 - 64);
        assert_eq!(town.gets(), 3 * 64, "three tries each");
        town.machine.bucket().set_faults(BucketFaults::default());
        assert_eq!(town.read("s", 1 << 20).await, body("s", 140 * 63), "and all is given back");
    });
}

/// However many blocks a page needs, whoever asked for it is not kept waiting for all of them.
#[test]
fn a_page_of_a_slow_bucket_ends_in_time_with_what_it_has() {
    live(config(), async |town| {
        town.create("s").await;
        for part in 0..12 {
            town.append("s", part * 10, (part + 1) * 10).await;
            town.seal().await;
        }
        town.segments().iter().for_each(|segment| town.evict(segment));
        let latency = Duration::from_secs(4)..Duration::from_millis(4100);
        town.machine.bucket().set_faults(BucketFaults { latency, ..BucketFaults::default() });
        let started = tokio::time::Instant::now();
        let page = town.page("s", From::Start, 1 << 20).await.expect("it has begun");
        let took = started.elapsed();
        assert!(took < history::WAIT_MAX + Duration::from_secs(1), "{took:?}");
        assert!((10..120).contains(&page.records) && !page.up_to_date, "{}", page.records);
        let count = usize::try_from(page.records).expect("small");
        assert_eq!(page.pieces.concat(), body("s", count));
        let (rest, error) = town.read_from("s", From::At(page.next), 1 << 20).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(rest, body_from("s", count, 120));
    });
}

#[test]
fn a_search_that_a_slow_bucket_keeps_too_long_says_so() {
    live(config(), async |town| {
        town.create("s").await;
        for at in 0..64 {
            town.append("s", at, at + 1).await;
            town.seal().await;
        }
        town.segments().iter().for_each(|segment| town.evict(segment));
        let latency = Duration::from_secs(4)..Duration::from_millis(4100);
        town.machine.bucket().set_faults(BucketFaults { latency, ..BucketFaults::default() });
        let started = tokio::time::Instant::now();
        let since = From::Since(WallMs::new(1));
        let failed = town.page("s", since, 1 << 20).await;
        let Err(Error::Away(what)) = failed else { panic!("{failed:?}") };
        assert!(what.contains("within 20 s"), "{what}");
        assert!(started.elapsed() < history::WAIT_MAX + Duration::from_secs(1));

        town.machine.bucket().set_faults(BucketFaults::default());
        let page = town.page("s", since, 1 << 20).await.expect("it can be asked again");
        assert_eq!(page.pieces.concat(), body("s", 64));
    });
}
