//! Blocks that are not here, or not as they were written.

use super::*;
use crate::{
    request::{Fork, List},
    types::WallMs,
};

#[test]
fn a_damaged_block_is_fetched_once_verified_and_put_back() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 300).await;
        assert!(segment.is_whole());
        town.damage(&segment);
        assert_eq!(town.read("s", 1 << 20).await, body("s", 300));
        assert_eq!(town.gets(), 1, "of that block alone");
        assert_eq!(town.engine.metrics().fetched_blocks.get(), 1);

        town.machine.bucket().set_faults(outage());
        assert!(town.is_here(&segment), "the copy is whole again");
    });
}

#[test]
fn a_damaged_block_that_nobody_uploaded_is_corrupt_and_only_it() {
    live(config(), async |town| {
        town.create("s").await;
        town.append("s", 0, 300).await;
        town.machine.bucket().set_faults(outage());
        seal::run(&town.engine.core).await;
        let segment = town.segments().pop().expect("sealed");
        town.damage(&segment);
        let (none, error) = town.read_from("s", From::Start, 1 << 20).await;
        assert!(none.is_empty());
        assert!(matches!(error, Some((Error::Corrupt(_), None))), "{error:?}");
        assert_eq!(town.gets(), 0);
        // The block holds 63 records.
        let (rest, error) = town.read_from("s", position(63), 1 << 20).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(rest, body_from("s", 63, 300));
    });
}

#[test]
fn an_evicted_stream_is_read_back_byte_for_byte_and_then_is_here() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 2000).await;
        let used = town.machine.drive().used_bytes();
        town.evict(&segment);
        assert!(used - town.machine.drive().used_bytes() > 1900 << 10, "room was made");
        assert_eq!(town.read("s", 100_000).await, body("s", 2000));
        let gets = town.gets();
        assert!(gets <= 8, "{gets} requests for 2 MB");

        town.machine.bucket().set_faults(outage());
        assert!(town.is_here(&segment), "every block is put back");
    });
}

#[test]
fn a_page_with_room_takes_the_blocks_that_fill_it_in_one_request() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 1000).await;
        town.evict(&segment);
        let page = town.page("s", From::Start, 600 << 10).await.expect("reads");
        assert_eq!(page.pieces.concat(), body("s", 600));
        assert_eq!(town.gets(), 1);
    });
}

#[test]
fn a_sequential_reader_of_small_pages_gets_ever_more_at_once() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 4000).await;
        town.evict(&segment);
        assert_eq!(town.read("s", 4 << 10).await, body("s", 4000));
        let gets = town.gets();
        assert!((4..=7).contains(&gets), "{gets} requests for 64 blocks");
        assert_eq!(town.engine.metrics().fetched_blocks.get(), 64);
    });
}

#[test]
fn what_is_read_ahead_stops_at_what_is_here() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 1000).await;
        town.evict(&segment);
        // Record 500 and what fills a page of 100 KiB from there.
        town.page("s", position(500), 100 << 10).await.expect("reads");
        let before = town.engine.metrics().fetched_blocks.get();
        assert_eq!(town.read("s", 4 << 20).await, body("s", 1000));
        let after = town.engine.metrics().fetched_blocks.get();
        assert_eq!((before, after), (3, 16), "no block came twice");
        assert_eq!(town.gets(), 3, "before and behind what was here");
    });
}

#[test]
fn many_readers_of_one_block_cause_one_request() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 50).await;
        town.evict(&segment);
        town.machine.bucket().set_faults(BucketFaults {
            latency: Duration::from_millis(20)..Duration::from_millis(30),
            ..Default::default()
        });
        let reads = (0..100).map(|_| town.page("s", From::Start, 1 << 20));
        for page in join_all(reads).await {
            assert_eq!(page.expect("reads").pieces.concat(), body("s", 50));
        }
        assert_eq!(town.gets(), 1);
    });
}

#[test]
fn a_reader_that_goes_away_leaves_its_fetch_to_those_who_wait() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 50).await;
        town.evict(&segment);
        town.machine.bucket().set_faults(BucketFaults {
            latency: Duration::from_millis(500)..Duration::from_millis(501),
            ..Default::default()
        });
        let impatient =
            tokio::time::timeout(Duration::from_millis(300), town.page("s", From::Start, 1 << 20));
        let patient = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            town.page("s", From::Start, 1 << 20).await
        };
        let (gone, page) = tokio::join!(impatient, patient);
        assert!(gone.is_err());
        assert_eq!(page.expect("reads").pieces.concat(), body("s", 50));
        assert_eq!(town.gets(), 2);
    });
}

#[test]
fn a_cache_that_keeps_no_block_serves_every_read() {
    let config = Config { block_cache_bytes: 1, local_bytes_max: 0, ..config() };
    live(config, async |town| {
        // Two streams in five segments: each read looks at several of them.
        for part in 0..5 {
            for stream in ["a", "b"] {
                if part == 0 {
                    town.create(stream).await;
                }
                town.append(stream, part * 150, (part + 1) * 150).await;
            }
            town.seal().await;
        }
        town.segments().iter().for_each(|segment| town.evict(segment));
        assert_eq!(town.read("b", 200 << 10).await, body("b", 750));
        assert_eq!(town.read("a", 1 << 20).await, body("a", 750));
        let put_back = town.segments().iter().all(|segment| segment.is_bare());
        assert!(put_back, "there is no room for any block");
    });
}

#[test]
fn a_fork_and_a_search_by_time_read_what_is_not_here() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 200).await;
        let From::At(point) = position(100) else { unreachable!("it is a position") };
        let fork = Fork { source: name("s"), at: Some(point), sub_offset: 0 };
        let content = ContentType::parse("text/plain");
        let create = Create { fork: Some(fork), ..Create::new(name("f"), content) };
        town.engine.create(create).await.expect("forks");
        town.evict(&segment);
        assert_eq!(town.read("f", 1 << 20).await, body("s", 100));
        town.evict(&segment);
        let since = From::Since(WallMs::new(0));
        assert_eq!(town.read_from("s", since, 1 << 20).await.0, body("s", 200));
    });
}

/// Polls all of them until all are done.
pub(super) async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|it| (Box::pin(it), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut futures {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        match futures.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

#[test]
fn a_list_tells_how_far_streams_are_sealed_and_uploaded() {
    live(config(), async |town| {
        town.uploaded("s", 10).await;
        town.append("s", 10, 15).await;
        let rows = town.engine.list(List { limit: 10, ..List::default() }).await;
        let [row] = &rows.expect("lists")[..] else { panic!("one stream, one row") };
        assert_eq!(row.head.next.next, Seq::new(15));
        assert_eq!(
            (row.sealed_through.next, row.uploaded_through.next),
            (Seq::new(10), Seq::new(10))
        );
    });
}
