//! A bucket that counts is a bucket, and its counts are those of the bucket below.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use tokio::task::LocalSet;
use weir_io::{
    World, laws,
    memory::{self, BucketFaults, Machine},
    objects::{Artifact, Counting, Counts, Figures, Key, ObjectError, Objects, Verb, probe},
    os::objects::{Bucket, Kind},
    retry::{Patience, Retrying},
};

fn simulate<R>(machine: &Machine, test: impl AsyncFnOnce(World) -> R) -> R {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let world = runtime.block_on(async { machine.boot(Duration::ZERO) });
    LocalSet::new().block_on(&runtime, test(world))
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// The machine's bucket, counted.
fn counted(machine: &Machine, world: &World) -> (Arc<dyn Objects>, Arc<Counts>) {
    let counts = Arc::new(Counts::new(Arc::clone(&world.clock)));
    let client = machine.bucket().client(Arc::clone(&world.clock));
    (Arc::new(Counting::new(client, Arc::clone(&counts))), counts)
}

/// One request of each kind, and one that misses.
async fn ask_everything(bucket: &dyn Objects) {
    let segment = key("segments/0-0.seg");
    bucket.create(&segment, "0123456789".into()).await.unwrap();
    bucket.create(&segment, "again".into()).await.unwrap();
    bucket.get(&segment, 100).await.unwrap();
    bucket.get_range(&segment, 2..5).await.unwrap();
    bucket.head(&segment).await.unwrap();
    assert_eq!(bucket.get(&key("rows/1"), 100).await, Err(ObjectError::NotFound));
    bucket.list("manifest/", None, 10).await.unwrap();
    bucket.list("", None, 10).await.unwrap();
    bucket.delete(&segment).await.unwrap();
}

#[test]
fn a_bucket_that_counts_keeps_the_laws_and_counts_every_request() {
    let machine = Machine::new(1);
    let latency = Duration::from_millis(1)..Duration::from_millis(90);
    machine.bucket().set_faults(BucketFaults { latency, ..BucketFaults::default() });
    simulate(&machine, async |world| {
        let (bucket, counts) = counted(&machine, &world);
        laws::objects::all(&bucket).await;
        let snapshot = counts.snapshot();
        for (verb, below) in [
            (Verb::Create, memory::Verb::Create),
            (Verb::Head, memory::Verb::Head),
            (Verb::List, memory::Verb::List),
            (Verb::Delete, memory::Verb::Delete),
        ] {
            assert_eq!(snapshot.of_verb(verb).requests, machine.bucket().count(below), "{verb:?}");
        }
        let reads = [Verb::Get, Verb::GetRange].map(|verb| snapshot.of_verb(verb).requests);
        assert_eq!(reads[0] + reads[1], machine.bucket().count(memory::Verb::Get));
        assert!(reads[0] > 0 && reads[1] > 0, "{reads:?}");
        assert!(snapshot.of_verb(Verb::Get).micros > 1000, "{snapshot:?}");
    });
}

#[test]
fn requests_are_told_apart_by_artifact_and_verb() {
    let machine = Machine::new(1);
    simulate(&machine, async |world| {
        let (bucket, counts) = counted(&machine, &world);
        ask_everything(&*bucket).await;
        let snapshot = counts.snapshot();
        let figures = |artifact, verb| {
            let Figures { requests, bytes, errors, .. } = snapshot.get(artifact, verb);
            (requests, bytes, errors)
        };
        for (artifact, verb, expect) in [
            (Artifact::Segments, Verb::Create, (2, 15, 0)),
            (Artifact::Segments, Verb::Get, (1, 10, 0)),
            (Artifact::Segments, Verb::GetRange, (1, 3, 0)),
            (Artifact::Segments, Verb::Head, (1, 0, 0)),
            (Artifact::Segments, Verb::Delete, (1, 0, 0)),
            (Artifact::Rows, Verb::Get, (1, 0, 0)),
            (Artifact::Manifest, Verb::List, (1, 0, 0)),
            (Artifact::Other, Verb::List, (1, 0, 0)),
        ] {
            assert_eq!(figures(artifact, verb), expect, "{artifact:?} {verb:?}");
        }
        assert_eq!(snapshot.iter().count(), 8, "and nothing else: {snapshot:?}");
    });
}

#[test]
fn every_attempt_counts_and_one_that_is_given_up_is_an_error() {
    let machine = Machine::new(1);
    machine.bucket().set_faults(BucketFaults { hang: 1.0, ..BucketFaults::default() });
    simulate(&machine, async |world| {
        let (bucket, counts) = counted(&machine, &world);
        let patience = Patience { attempts_max: 3, ..Patience::default() };
        let patient = Retrying::new(bucket, Arc::clone(&world.entropy), patience);
        patient.head(&key("manifest/1")).await.unwrap_err();
        let figures = counts.snapshot().get(Artifact::Manifest, Verb::Head);
        assert_eq!((figures.requests, figures.errors), (3, 3));
        let waited = patience.attempt * 3;
        assert!(Duration::from_micros(figures.micros) >= waited, "{figures:?}");

        machine.bucket().set_faults(BucketFaults { error: 1.0, ..BucketFaults::default() });
        patient.delete(&key("gc/1")).await.unwrap_err();
        let figures = counts.snapshot().get(Artifact::Gc, Verb::Delete);
        assert_eq!((figures.requests, figures.errors), (3, 3));
    });
}

#[test]
fn a_file_that_is_linked_moves_no_bytes_and_an_offer_is_no_request() {
    simulate(&Machine::new(1), async |world| {
        let kind = Kind::Local { directory: "/bucket".into() };
        let local = Bucket { kind, name: None, prefix: None, variables: BTreeMap::new() };
        let local = weir_io::os::objects::open(&local, &world).await.unwrap();
        let counts = Arc::new(Counts::new(Arc::clone(&world.clock)));
        let bucket: Arc<dyn Objects> = Arc::new(Counting::new(local, Arc::clone(&counts)));
        laws::objects::all(&bucket).await;
        let patient = Retrying::new(bucket, Arc::clone(&world.entropy), Patience::default());
        probe(&patient, &*world.entropy).await.unwrap();
        assert_eq!(counts.snapshot().get(Artifact::Probe, Verb::Create).requests, 2);

        let source = Path::new("/source");
        let file = world.disk.create(source, weir_io::disk::Create::New).unwrap();
        file.write_all_at(b"0123456789", 0).unwrap();
        file.sync().unwrap();
        let name = key("segments/1");
        assert!(patient.create_from_file(&name, source, 10).await.unwrap().is_some());
        let figures = counts.snapshot().get(Artifact::Segments, Verb::Create);
        assert_eq!((figures.requests, figures.bytes), (1, 0));
        assert_eq!(patient.get(&name, 10).await.unwrap(), "0123456789");
    });
}

#[test]
fn what_earlier_runs_counted_is_added() {
    let machine = Machine::new(1);
    let earlier = simulate(&machine, async |world| {
        let (bucket, counts) = counted(&machine, &world);
        ask_everything(&*bucket).await;
        counts.snapshot()
    });
    simulate(&machine, async |world| {
        let (bucket, counts) = counted(&machine, &world);
        // Requests that were made before the earlier ones were known stay counted.
        bucket.head(&key("segments/1")).await.unwrap();
        counts.restore(&earlier);
        bucket.head(&key("segments/1")).await.unwrap();
        let snapshot = counts.snapshot();
        assert_eq!(snapshot.get(Artifact::Segments, Verb::Head).requests, 3);
        assert_eq!(snapshot.get(Artifact::Segments, Verb::Create).bytes, 15);
        assert_eq!(counts.recent().requests, BTreeMap::from([(Verb::Head, 2)]));
    });
}

#[test]
fn only_the_last_hour_is_recent() {
    let machine = Machine::new(1);
    simulate(&machine, async |world| {
        let (bucket, counts) = counted(&machine, &world);
        let name = key("segments/1");
        let minutes = |count: u64| Duration::from_secs(count * 60);
        bucket.head(&name).await.unwrap();
        let recent = counts.recent();
        assert_eq!((recent.window, recent.requests[&Verb::Head]), (minutes(5), 1));

        tokio::time::advance(minutes(40)).await;
        bucket.head(&name).await.unwrap();
        let recent = counts.recent();
        assert_eq!((recent.window, recent.requests[&Verb::Head]), (minutes(40), 2));

        tokio::time::advance(minutes(30)).await;
        bucket.delete(&name).await.unwrap();
        let recent = counts.recent();
        assert_eq!(recent.window, minutes(59), "fifty-nine whole minutes and this one");
        assert_eq!(recent.requests, BTreeMap::from([(Verb::Head, 1), (Verb::Delete, 1)]));

        // An idle bucket is asked nothing, and its old minutes do not stay recent.
        tokio::time::advance(minutes(90)).await;
        assert!(counts.recent().requests.is_empty());
        assert_eq!(counts.snapshot().of_verb(Verb::Head).requests, 2);
    });
}
