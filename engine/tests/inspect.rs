//! What inspection tells of streams and of the store, on a simulated machine.

mod support;

use std::{
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use support::{End, live, live_published, name};
use tokio::time::Instant;
use weir_engine::{
    Engine, Health,
    inspect::Unsealed,
    request::{Append, Create, Error, Fork, Rejection},
    types::{Closing, ContentType, Expiry, Retention, Seq},
};
use weir_io::memory::{BucketFaults, Machine};

fn text() -> Option<ContentType> {
    ContentType::parse("text/plain")
}

fn stream(of: &str) -> Create {
    Create {
        name: name(of),
        content: text(),
        expiry: None,
        fork: None,
        retention: Retention::NONE,
        closing: Closing::KeepOpen,
        body: Bytes::new(),
        key: None,
    }
}

async fn create(engine: &Engine, of: &str) {
    engine.create(stream(of)).await.expect("creates");
}

async fn fork(engine: &Engine, of: &str, source: &str) {
    let fork = Fork { source: name(source), at: None, sub_offset: 0 };
    engine.create(Create { fork: Some(fork), ..stream(of) }).await.expect("forks");
}

async fn append(engine: &Engine, to: &str, body: &'static str) {
    let append = Append {
        stream_seq: Some(Bytes::from_static(body.as_bytes())),
        ..Append::new(name(to), text(), Bytes::from_static(body.as_bytes()))
    };
    engine.append(append).await.expect("appends");
}

#[test]
fn records_count_in_memory_until_they_are_sealed_and_in_segments_after() {
    let machine = Machine::new(1);
    live(&machine, End::Clean, async |engine| {
        create(&engine, "s").await;
        let fresh = engine.details(&name("s")).await.expect("there");
        assert_eq!(fresh.unsealed, Unsealed::default());
        assert_eq!((fresh.sealed.segments, fresh.sealed.newest), (0, None));
        assert!(fresh.database_bytes.is_some_and(|bytes| bytes > 4096));
        append(&engine, "s", "a").await;
        append(&engine, "s", "bcd").await;
        let written = engine.details(&name("s")).await.expect("there");
        assert_eq!((written.unsealed.records, written.unsealed.bytes), (2, 4));
        assert!(written.unsealed.memory_bytes > 4);
        assert_eq!((written.sealed.records, written.sealed.bytes), (0, 0));
        assert_eq!(written.stream_seq.as_deref(), Some(&b"bcd"[..]));
    });
    live(&machine, End::PowerCut, async |engine| {
        let sealed = engine.details(&name("s")).await.expect("there");
        assert_eq!(sealed.unsealed, Unsealed::default());
        assert_eq!((sealed.sealed.records, sealed.sealed.bytes), (2, 4));
        assert_eq!((sealed.sealed.segments, sealed.index.segments), (1, 1));
        assert_eq!(sealed.sealed.newest, Some(sealed.head.last_append));
        append(&engine, "s", "ef").await;
    });
    live(&machine, End::Clean, async |engine| {
        let replayed = engine.details(&name("s")).await.expect("there");
        assert_eq!((replayed.total_bytes, replayed.sealed.bytes), (6, 4));
        assert_eq!((replayed.unsealed.records, replayed.unsealed.bytes), (1, 2));
    });
}

#[test]
fn whoever_waits_sees_appends_and_seals_of_the_stream_and_no_other() {
    let machine = Machine::new(2);
    live(&machine, End::Clean, async |engine| {
        create(&engine, "s").await;
        create(&engine, "other").await;
        let inspection = engine.inspect(&name("s")).await.expect("there");
        let before = inspection.details().await.expect("there");
        append(&engine, "other", "x").await;
        let wait = inspection.changed(before.revision);
        let early = tokio::time::timeout(Duration::from_secs(1), wait).await;
        assert!(early.is_err(), "nothing happened to this stream");

        append(&engine, "s", "y").await;
        inspection.changed(before.revision).await;
        let written = inspection.details().await.expect("there");
        assert_eq!(written.unsealed.records, 1);

        // The seal comes by age.
        let mut seen = written;
        while seen.sealed.records == 0 {
            inspection.changed(seen.revision).await;
            seen = inspection.details().await.expect("there");
        }
        assert_eq!((seen.unsealed.records, seen.sealed.segments), (0, 1));

        engine.delete(&name("s")).await.expect("deletes");
        inspection.changed(seen.revision).await;
        let gone = inspection.details().await;
        assert!(matches!(gone, Err(Error::Rejected(Rejection::NotFound))));
    });
}

#[test]
fn whoever_waits_for_a_stream_sleeps_through_seals_and_manifests_of_others() {
    let machine = Machine::new(20);
    live_published(&machine, End::Clean, async |engine| {
        create(&engine, "s").await;
        append(&engine, "s", "x").await;
        create(&engine, "other").await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        let inspection = engine.inspect(&name("s")).await.expect("there");
        let before = inspection.details().await.expect("there");
        let manifests = engine.metrics().publish.manifests.get();
        let others = async {
            for body in ["1", "2", "3", "4", "5"] {
                append(&engine, "other", body).await;
                tokio::time::sleep(Duration::from_secs(15)).await;
            }
        };
        tokio::select! {
            biased;
            () = inspection.changed(before.revision) => panic!("nothing happened to this stream"),
            () = others => {}
        }
        assert!(engine.metrics().publish.manifests.get() > manifests);
        append(&engine, "s", "y").await;
        inspection.changed(before.revision).await;
        let after = inspection.details().await.expect("there");
        assert_ne!(after.revision, before.revision);
    });
}

#[test]
fn a_fork_tells_its_source_and_the_source_counts_its_forks() {
    let machine = Machine::new(3);
    live(&machine, End::Clean, async |engine| {
        create(&engine, "source").await;
        append(&engine, "source", "one").await;
        fork(&engine, "fork", "source").await;
        append(&engine, "fork", "four").await;
        let source = engine.details(&name("source")).await.expect("there");
        assert_eq!((source.forks, source.fork), (1, None));
        let details = engine.details(&name("fork")).await.expect("there");
        let fork = details.fork.expect("a fork");
        assert_eq!((fork.source, fork.at, fork.runs), (name("source"), Seq::new(1), 1));
        assert_eq!((details.total_bytes, details.unsealed.records), (4, 1));
        assert_eq!(details.head.next.next, Seq::new(2));

        engine.delete(&name("source")).await.expect("deletes");
        let gone = engine.index_status(&name("source")).await;
        assert!(matches!(gone, Err(Error::Rejected(Rejection::Gone))));
    });
}

#[test]
fn a_look_keeps_no_stream_alive() {
    let machine = Machine::new(4);
    live(&machine, End::Clean, async |engine| {
        let expiry = Some(Expiry::Sliding { ttl_seconds: 10 });
        engine.create(Create { expiry, ..stream("s") }).await.expect("creates");
        let inspection = engine.inspect(&name("s")).await.expect("there");
        let details = inspection.details().await.expect("there");
        let left = details.expires_at.expect("a window").get() - details.head.created.get();
        assert!((10_000..=12_500).contains(&left), "{left}");
        let begin = Instant::now();
        while engine.details(&name("s")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(begin.elapsed() < Duration::from_secs(13), "{:?}", begin.elapsed());
        inspection.changed(details.revision).await;
        assert!(inspection.details().await.is_err());
    });
}

#[test]
fn the_server_tells_its_commits_and_where_memory_goes() {
    let machine = Machine::new(5);
    live(&machine, End::Clean, async |engine| {
        let fresh = engine.server_details();
        assert_eq!(
            (fresh.health, fresh.commits.made, fresh.commits.last),
            (Health::Serving, 0, None)
        );
        for (stream, body) in [("b", "xy"), ("a", "xy"), ("large", "xyz"), ("small", "x")] {
            create(&engine, stream).await;
            append(&engine, stream, body).await;
        }
        create(&engine, "empty").await;
        let details = engine.server_details();
        assert_eq!((details.commits.records, details.commits.record_bytes), (4, 8));
        assert_eq!(details.commits.entries, 9);
        assert!(details.commits.last.is_some_and(|last| last <= details.now));
        assert!(details.commits.last_us <= details.commits.max_us);
        let largest: Vec<&str> =
            details.memtable.largest.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(largest, ["large", "a", "b", "small"]);
        assert_eq!((details.memtable.streams, details.queue.requests), (5, 0));
        assert!(details.memtable.bytes > 8 && !details.memtable.full);

        assert_eq!(details.crowds, []);
        let watch = async |of| engine.watch(&name(of)).await.expect("there");
        let (readers, more) = ([watch("a").await, watch("b").await], watch("b").await);
        let look = engine.inspect(&name("a")).await.expect("there");
        let revision = look.details().await.expect("there").revision;
        let crowds = |expect: &[(&str, u32, u32)]| {
            let told = engine.server_details().crowds;
            let told: Vec<_> =
                told.iter().map(|it| (it.name.as_str(), it.readers, it.lookers)).collect();
            assert_eq!(told, expect);
        };
        crowds(&[("b", 2, 0), ("a", 1, 0)]);
        {
            let mut wait = std::pin::pin!(look.changed(revision));
            let mut context = Context::from_waker(Waker::noop());
            assert!(wait.as_mut().poll(&mut context).is_pending());
            drop(more);
            crowds(&[("a", 1, 1), ("b", 1, 0)]);
        }
        drop(readers);
        crowds(&[]);

        let inspection = engine.inspect(&name("a")).await.expect("there");
        let mut seen = inspection.details().await.expect("there");
        while seen.unsealed.records > 0 {
            inspection.changed(seen.revision).await;
            seen = inspection.details().await.expect("there");
        }
        let sealed = engine.server_details();
        assert_eq!((sealed.segments.count, sealed.segments.records), (1, 4));
        assert_eq!((sealed.memtable.bytes, sealed.memtable.largest), (0, vec![]));
    });
}

#[test]
fn the_server_tells_what_is_on_its_way_to_the_bucket() {
    let machine = Machine::new(21);
    live_published(&machine, End::Clean, async |engine| {
        let under_way = || {
            let told = engine.server_details().publishing.expect("it has a bucket");
            let under_way = (told.under_way_files, told.under_way_bytes);
            (under_way, (u64::try_from(told.pending_files).expect("few"), told.backlog_bytes))
        };
        assert_eq!(under_way(), ((0, 0), (0, 0)));
        create(&engine, "s").await;
        append(&engine, "s", "x").await;
        // It is asked again and again for more than a minute.
        machine.bucket().set_faults(BucketFaults { hang: 1.0, ..BucketFaults::default() });
        tokio::time::sleep(Duration::from_secs(20)).await;
        let (uploading, pending) = under_way();
        assert_eq!((uploading.0, uploading), (2, pending), "a segment and a ledger");
        machine.bucket().set_faults(BucketFaults::default());
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(under_way(), ((0, 0), (0, 0)));
    });
}
