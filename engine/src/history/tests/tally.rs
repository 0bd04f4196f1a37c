//! What the segments of a stream come to, kept as they come, go and are uploaded.

use super::*;
use crate::{
    motion::merge,
    state::view::{Stream, Sums, Tally},
    types::StoreMs,
};

impl Town {
    async fn stream(&self, stream: &str) -> Arc<Stream> {
        self.engine.core.living(&name(stream)).await.expect("there")
    }

    fn sums(&self, stream: &Stream) -> Sums {
        self.engine.core.files.lock().sums(stream)
    }

    /// What a look at all segments gives; what is kept stays as it was.
    fn counted(&self, stream: &Stream) -> Sums {
        let kept = stream.tally.lock().take();
        let sums = self.sums(stream);
        *stream.tally.lock() = kept;
        sums
    }
}

#[test]
fn what_is_kept_is_what_a_look_at_all_segments_gives() {
    live(config(), async |town| {
        town.create("often").await;
        town.create("seldom").await;
        let streams = [town.stream("often").await, town.stream("seldom").await];
        let check = || {
            streams.iter().for_each(|it| assert_eq!(town.sums(it), town.counted(it)));
            town.sums(&streams[0])
        };
        for turn in 0..24 {
            town.append("often", turn, turn + 1).await;
            if turn % 3 == 0 {
                town.append("seldom", turn, turn + 1).await;
            }
            town.machine.bucket().set_faults(outage());
            seal::run(&town.engine.core).await;
            let sealed = check();
            assert!(sealed.uploaded_segments < sealed.segments);
            town.machine.bucket().set_faults(BucketFaults::default());
            town.publish().await;
            let published = check();
            assert_eq!(published.uploaded_segments, published.segments);
            merge::all(&town.engine.core).await;
            check();
        }
        assert!(check().segments < 24, "some were merged");
    });
}

#[test]
fn a_look_asks_only_the_segments_that_came_since() {
    live(config(), async |town| {
        town.uploaded("s", 3).await;
        let stream = town.stream("s").await;
        assert_eq!(town.sums(&stream).segments, 1);
        // As if no segment so far held it.
        let next = stream.tally.lock().as_ref().expect("kept").next();
        *stream.tally.lock() = Some(Box::new(Tally::new(stream.identity.id, next)));
        assert_eq!(town.sums(&stream), Sums::default());
        town.append("s", 3, 4).await;
        town.seal().await;
        let sums = town.sums(&stream);
        assert_eq!((sums.segments, sums.uploaded_segments), (1, 1));
        assert_eq!(town.counted(&stream).segments, 2);
    });
}

#[test]
fn whoever_is_far_behind_asks_all_segments_again() {
    live(config(), async |town| {
        town.uploaded("s", 3).await;
        town.create("other").await;
        let stream = town.stream("s").await;
        let before = town.sums(&stream);
        let first = stream.tally.lock().as_ref().expect("kept").next();
        for turn in 0..140 {
            town.append("other", turn, turn + 1).await;
            town.seal().await;
        }
        assert_eq!(town.sums(&stream), before);
        let next = stream.tally.lock().as_ref().expect("kept").next();
        assert!(next - first > 256, "more moves than are remembered");
    });
}

#[test]
fn local_copies_are_added_up_once_a_second() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 200).await;
        let stream = town.stream("s").await;
        let at = |ms| town.engine.core.files.lock().cached_bytes(&stream, StoreMs::new(ms));
        let whole = at(5000);
        assert!(whole > 200 * 512, "{whole}");
        town.evict(&segment);
        assert_eq!(at(5999), whole);
        assert!(at(6000) < whole / 2);
    });
}

#[test]
fn what_is_pending_is_what_no_manifest_shows_and_nothing_else() {
    let machine = Machine::new(7);
    let pending = async |town: &Town| {
        let sealed = town.engine.details(&name("s")).await.expect("there").sealed;
        (sealed.bytes, sealed.pending_bytes)
    };
    live_on(&machine, config(), async |town| {
        town.create("s").await;
        assert_eq!(pending(&town).await, (0, 0));
        town.append("s", 0, 3).await;
        assert_eq!(pending(&town).await, (0, 0), "it is in memory");
        town.seal().await;
        assert_eq!(pending(&town).await, (3 << 10, 0));
        town.append("s", 3, 5).await;
        town.machine.bucket().set_faults(outage());
        seal::run(&town.engine.core).await;
        assert_eq!(pending(&town).await, (5 << 10, 2 << 10));
        town.append("s", 5, 6).await;
        seal::run(&town.engine.core).await;
        assert_eq!(pending(&town).await, (6 << 10, 3 << 10));
        town.machine.bucket().set_faults(BucketFaults::default());
        town.publish().await;
        assert_eq!(pending(&town).await, (6 << 10, 0));
        // A merge makes a file that only this disk has, of records that a manifest shows.
        for turn in 6..14 {
            town.append("s", turn, turn + 1).await;
            town.seal().await;
        }
        town.machine.bucket().set_faults(outage());
        merge::all(&town.engine.core).await;
        let stream = town.stream("s").await;
        assert!(town.sums(&stream).uploaded_segments < town.sums(&stream).segments);
        assert_eq!(pending(&town).await, (14 << 10, 0));
        town.machine.bucket().set_faults(BucketFaults::default());
    });
}

#[test]
fn whoever_waits_for_a_stream_sleeps_through_merges_because_of_others() {
    live(config(), async |town| {
        town.create("quiet").await;
        town.append("quiet", 0, 1).await;
        town.uploaded("busy", 3).await;
        let inspection = town.engine.inspect(&name("quiet")).await.expect("there");
        let before = inspection.details().await.expect("there");
        let others = async {
            for turn in 1..8 {
                town.append("busy", 3 * turn, 3 * turn + 3).await;
                town.seal().await;
            }
            assert_eq!(merge::all(&town.engine.core).await, merge::Rest::Nothing);
            town.publish().await;
        };
        tokio::select! {
            biased;
            () = inspection.changed(before.revision) => panic!("nothing happened to this stream"),
            () = others => {}
        }
        assert_eq!(town.segments().len(), 1, "its segment was merged with the others");
        let after = inspection.details().await.expect("there");
        assert_ne!(after.sealed.file_bytes, before.sealed.file_bytes);
        assert_eq!((after.revision, after.index.revision), (before.revision, before.revision));
        assert_eq!(after.index.uploaded_through, before.index.uploaded_through);
    });
}
