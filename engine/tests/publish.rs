//! What reaches the bucket, when, and at what price: INV-40 a manifest is a whole cut, INV-41 nothing
//! that is named is collected.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::LocalSet;
use weir_engine::{
    Config, Engine, Health, OpenError,
    request::{Append, Create, Error, From, Read},
    types::{ContentType, Expiry, StreamName},
    verify::Depth,
};
use weir_io::{
    World,
    memory::{BucketFaults, Machine, MemoryBucket, Verb},
    objects::Key,
};

const START: Duration = Duration::ZERO;
const DIR: &str = "/weir/store";

fn simulate<R>(machine: &Machine, test: impl AsyncFnOnce(World) -> R) -> R {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let world = runtime.block_on(async { machine.boot(START) });
    LocalSet::new().block_on(&runtime, test(world))
}

fn config() -> Config {
    Config { gc_grace: Duration::from_secs(600), ..Config::new(DIR) }
}

async fn open_with(world: &World, machine: &Machine, config: Config) -> Result<Engine, OpenError> {
    let bucket = machine.bucket().client(Arc::clone(&world.clock));
    Engine::open_with(world.clone(), config, Some(bucket), "a test").await
}

async fn open(world: &World, machine: &Machine) -> Engine {
    open_with(world, machine, config()).await.unwrap()
}

fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap()
}

fn text() -> ContentType {
    ContentType::parse("text/plain").unwrap()
}

async fn create(engine: &Engine, stream: &str) {
    engine.create(Create::new(name(stream), text())).await.unwrap();
}

async fn append(engine: &Engine, stream: &str, body: &str) -> Result<(), Error> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    engine.append(Append::new(name(stream), text(), body)).await.map(drop)
}

fn whole(stream: &str) -> Read {
    Read { name: name(stream), from: From::Start, key: None, bytes_max: 64 << 20 }
}

fn keys(bucket: &MemoryBucket, prefix: &str) -> Vec<String> {
    let keys = bucket.keys().into_iter().map(|key| key.as_str().to_owned());
    keys.filter(|key| key.starts_with(prefix)).collect()
}

/// Time passes, and everything that is due in it happens.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// A store publishes a stream with a record, and is closed.
async fn publish_and_close(world: &World, machine: &Machine) {
    let engine = open(world, machine).await;
    create(&engine, "a").await;
    append(&engine, "a", "kept").await.unwrap();
    pass(30).await;
    engine.close().await;
}

#[test]
fn every_record_of_every_stream_is_in_the_bucket_soon_with_few_requests() {
    let machine = Machine::new(1);
    simulate(&machine, async |world| {
        let engine = open(&world, &machine).await;
        let before = machine.bucket().count(Verb::Create);
        for stream in 0..500 {
            create(&engine, &format!("s/{stream}")).await;
            append(&engine, &format!("s/{stream}"), "a record").await.unwrap();
        }
        pass(12).await;
        assert_eq!(keys(machine.bucket(), "segments/").len(), 1);
        assert_eq!(keys(machine.bucket(), "rows/").len(), 1);
        assert_eq!(keys(machine.bucket(), "manifest/").len(), 1);
        // A segment, a ledger and a manifest, however many streams.
        assert_eq!(machine.bucket().count(Verb::Create) - before, 3);
        engine.close().await;
    });
}

#[test]
fn a_store_at_rest_asks_the_bucket_nothing() {
    let machine = Machine::new(2);
    simulate(&machine, async |world| {
        let engine = open(&world, &machine).await;
        let sliding = Create {
            expiry: Some(Expiry::Sliding { ttl_seconds: 100_000 }),
            ..Create::new(name("kept"), text())
        };
        engine.create(sliding).await.unwrap();
        append(&engine, "kept", "a").await.unwrap();
        pass(30).await;
        // One manifest waits for nothing: it is the newest.
        let before = machine.bucket().requests();
        for _ in 0..100 {
            pass(100).await;
            // A read renews the window.
            engine.read(whole("kept")).await.unwrap();
        }
        assert_eq!(machine.bucket().requests(), before);
        engine.close().await;
        drop(engine);
        let engine = open(&world, &machine).await;
        // The stop noted the windows, in a new manifest: the one before is collected.
        pass(1000).await;
        let before = machine.bucket().requests();
        pass(10_000).await;
        assert_eq!(machine.bucket().requests(), before);
        engine.close().await;
    });
}

#[test]
fn a_bucket_that_belongs_to_another_store_is_refused() {
    let machine = Machine::new(3);
    let mut other = Machine::new(4);
    other.share_bucket(machine.bucket());
    simulate(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        engine.close().await;
    });
    simulate(&other, async |world| {
        let refused = open_with(&world, &other, config()).await.err().unwrap();
        assert!(refused.to_string().contains("belongs to another store"), "{refused}");
    });
}

#[test]
fn a_writer_whose_slot_was_taken_stops_for_good() {
    let machine = Machine::new(5);
    simulate(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        pass(15).await;
        let [newest] = &keys(machine.bucket(), "manifest/")[..] else { panic!("one manifest") };
        let bytes = machine.bucket().peek(&Key::new(newest.as_str()).unwrap()).unwrap();
        // What another writer would do, but for its content.
        let slot = format!("manifest/{:020}.mf", u64::MAX - 2);
        machine.bucket().put(Key::new(slot).unwrap(), bytes);
        append(&engine, "a", "lost to the bucket").await.unwrap();
        pass(15).await;
        let Health::LogFailed { reason } = engine.health() else { panic!("not fenced") };
        assert!(reason.contains("fenced: another process has published manifest 2"), "{reason}");
        assert!(matches!(append(&engine, "a", "refused").await, Err(Error::Overtaken)));
        engine.close().await;
        drop(engine);
        let refused = open_with(&world, &machine, config()).await.err().unwrap();
        assert!(refused.to_string().contains("something foreign"), "{refused}");
    });
}

#[test]
fn a_writer_at_rest_that_was_overtaken_collects_nothing_and_stops() {
    let machine = Machine::new(8);
    simulate(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        for record in 0..12 {
            append(&engine, "a", &format!("{record}")).await.unwrap();
            pass(15).await;
        }
        engine.close().await;
        drop(engine);
        // A copy of the machine comes up beside it, and only the copy has work.
        let twin = machine.twin(9);
        let other_world = twin.boot(START);
        let idle = open(&world, &machine).await;
        let other = open(&other_world, &twin).await;
        for record in 0..60 {
            append(&other, "a", &format!("of the other {record}")).await.unwrap();
            pass(100).await;
        }
        assert_eq!(idle.metrics().publish.fenced.get(), 1, "it looked before it collected");
        assert!(matches!(append(&idle, "a", "late").await, Err(Error::Overtaken)));
        assert_eq!(other.metrics().publish.fenced.get(), 0);
        other.close().await;
        idle.close().await;
        drop((other, idle));
        let bucket = machine.bucket().client(Arc::clone(&world.clock));
        let found = Engine::verify(other_world, config(), Some(bucket), Depth::Deep).await.unwrap();
        assert!(found.findings.is_empty(), "{:?}", found.findings);
    });
}

#[test]
fn a_store_with_a_lasting_bucket_takes_none_in_memory() {
    let machine = Machine::new(10);
    simulate(&machine, async |world| {
        publish_and_close(&world, &machine).await;
        let volatile = Config { bucket_is_volatile: true, ..config() };
        let refused = open_with(&world, &machine, volatile).await;
        assert!(matches!(refused, Err(OpenError::Bucket(_))));
        let engine = open(&world, &machine).await;
        append(&engine, "a", "on").await.unwrap();
        engine.close().await;
    });
}

#[test]
fn a_bucket_that_lost_everything_is_found_by_whoever_verifies() {
    let machine = Machine::new(11);
    simulate(&machine, async |world| {
        publish_and_close(&world, &machine).await;
        let empty = MemoryBucket::new(12).client(Arc::clone(&world.clock));
        for depth in [Depth::Both, Depth::Remote, Depth::Deep] {
            let bucket = Some(Arc::clone(&empty));
            let found = Engine::verify(world.clone(), config(), bucket, depth).await.unwrap();
            assert_eq!(found.findings.len(), 1, "{depth:?}: {:?}", found.findings);
        }
    });
}

#[test]
fn lost_answers_and_late_requests_never_make_a_writer_fence_itself() {
    for seed in 10..40 {
        let machine = Machine::new(seed);
        simulate(&machine, async |world| {
            let engine = open(&world, &machine).await;
            machine.bucket().set_faults(BucketFaults {
                latency: Duration::from_millis(1)..Duration::from_millis(300),
                error: 0.2,
                lost_answer: 0.2,
                late: 0.2,
                late_by: Duration::from_secs(1)..Duration::from_secs(90),
                hang: 0.1,
                truncated: 0.2,
                corrupted: 0.2,
                list_lag: 0.5,
                list_lag_by: Duration::from_secs(1)..Duration::from_secs(60),
                ..BucketFaults::default()
            });
            create(&engine, "a").await;
            for record in 0..20 {
                append(&engine, "a", &format!("{record}")).await.unwrap();
                pass(20).await;
            }
            machine.bucket().set_faults(BucketFaults::default());
            pass(200).await;
            assert_eq!(engine.health(), Health::Serving, "seed {seed}");
            let state = engine.metrics().publish.backlog_bytes.get();
            assert_eq!(state, 0, "seed {seed}");
            engine.close().await;
        });
    }
}

/// Appends to stream `a`, which is sealed in between, until that is refused because too much waits for
/// the bucket.
async fn fill_the_backlog(engine: &Engine, body: &str) {
    let mut refused = None;
    for _ in 0..10 {
        if let Err(error) = append(engine, "a", body).await {
            refused = Some(error);
            break;
        }
        pass(15).await;
    }
    assert!(matches!(refused, Some(Error::Backlogged)), "{refused:?}");
}

#[test]
fn a_backlog_refuses_appends_and_drains_when_the_bucket_is_back() {
    let machine = Machine::new(6);
    simulate(&machine, async |world| {
        let bound = Config { backlog_bytes_max: 20_000, ..config() };
        let engine = open_with(&world, &machine, bound).await.unwrap();
        create(&engine, "a").await;
        pass(15).await;
        machine.bucket().set_faults(BucketFaults { outage: true, ..BucketFaults::default() });
        let body = "x".repeat(10_000);
        fill_the_backlog(&engine, &body).await;
        machine.bucket().set_faults(BucketFaults::default());
        pass(90).await;
        append(&engine, "a", &body).await.unwrap();
        engine.close().await;
        assert_eq!(engine.metrics().publish.backlog_bytes.get(), 0);
    });
}

#[test]
fn what_is_deleted_waits_for_no_upload_any_more() {
    let machine = Machine::new(25);
    simulate(&machine, async |world| {
        let bound = Config { backlog_bytes_max: 20_000, ..config() };
        let engine = open_with(&world, &machine, bound).await.unwrap();
        create(&engine, "a").await;
        create(&engine, "b").await;
        pass(15).await;
        machine.bucket().set_faults(BucketFaults { outage: true, ..BucketFaults::default() });
        let body = "x".repeat(10_000);
        fill_the_backlog(&engine, &body).await;
        engine.delete(&name("a")).await.unwrap();
        pass(60).await;
        // Ledgers are left, which say that it is gone: nobody else can tell the bucket.
        let waiting = engine.metrics().publish.backlog_bytes.get();
        assert!((1..10_000).contains(&waiting), "{waiting} bytes wait");
        append(&engine, "b", &body).await.unwrap();
        pass(15).await;
        append(&engine, "b", "more").await.unwrap();
        machine.bucket().set_faults(BucketFaults::default());
        pass(150).await;
        assert_eq!(engine.metrics().publish.backlog_bytes.get(), 0);
        let page = engine.read(whole("b")).await.unwrap();
        assert_eq!(page.pieces.concat(), format!("{body}more").as_bytes());
        engine.close().await;
        drop(engine);
        let bucket = machine.bucket().client(Arc::clone(&world.clock));
        let found = Engine::verify(world, config(), Some(bucket), Depth::Deep).await.unwrap();
        assert!(found.findings.is_empty(), "{:?}", found.findings);
    });
}

#[test]
fn what_no_manifest_names_goes_after_the_grace_period_and_nothing_else() {
    let machine = Machine::new(7);
    simulate(&machine, async |world| {
        let engine = open(&world, &machine).await;
        let orphan = Key::new(format!("segments/{:016x}-{:016x}.seg", 999, 1)).unwrap();
        machine.bucket().put(orphan.clone(), Bytes::from_static(b"left behind"));
        create(&engine, "a").await;
        for record in 0..40 {
            append(&engine, "a", &format!("record {record}")).await.unwrap();
            pass(15).await;
        }
        // Merges have retired objects by now, and the first of them are not due yet.
        let many = keys(machine.bucket(), "").len();
        assert!(keys(machine.bucket(), "segments/").len() > 20, "{many}");
        pass(3600).await;
        // What a writer leaves who comes too late: a slot that was free again.
        let [newest] = &keys(machine.bucket(), "manifest/")[..] else { panic!("one manifest") };
        let newest = machine.bucket().peek(&Key::new(newest.as_str()).unwrap()).unwrap();
        let late = Key::new(format!("manifest/{:020}.mf", u64::MAX - 1)).unwrap();
        machine.bucket().put(late, newest);
        append(&engine, "a", "one more").await.unwrap();
        pass(3600).await;
        assert!(machine.bucket().peek(&orphan).is_none());
        assert_eq!(keys(machine.bucket(), "manifest/").len(), 1);
        assert_eq!(keys(machine.bucket(), "gc/").len(), 1);
        let (segments, ledgers) =
            (keys(machine.bucket(), "segments/"), keys(machine.bucket(), "rows/"));
        assert!(segments.len() < 15, "{segments:?}");
        assert!(ledgers.len() < 15, "{ledgers:?}");
        let page = engine.read(whole("a")).await.unwrap();
        let expected: String = (0..40).map(|it| format!("record {it}")).collect();
        assert_eq!(page.pieces.concat(), format!("{expected}one more").as_bytes());
        engine.close().await;
    });
}

#[test]
fn a_writer_that_was_away_is_fenced_though_it_was_promised_a_longer_grace_than_others_keep() {
    let machine = Machine::new(20);
    simulate(&machine, async |world| {
        let long = Config { gc_grace: Duration::from_secs(86_400), ..config() };
        let short = Config { gc_grace: Duration::from_secs(60), ..config() };
        publish_and_close(&world, &machine).await;
        let twin = machine.twin(21);
        let other_world = twin.boot(START);
        let away = open_with(&world, &machine, long).await.unwrap();
        let other = open_with(&other_world, &twin, short).await.unwrap();
        for record in 0..30 {
            append(&other, "a", &format!("of the other {record}")).await.unwrap();
            pass(30).await;
        }
        // The slot that this one will try is free again by now.
        let newest = keys(machine.bucket(), "manifest/");
        assert!(newest.len() < 10, "{newest:?}");
        append(&away, "a", "late").await.unwrap();
        pass(60).await;
        assert_eq!(away.metrics().publish.fenced.get(), 1);
        assert!(matches!(append(&away, "a", "later").await, Err(Error::Overtaken)));
        assert_eq!(other.metrics().publish.fenced.get(), 0);
        other.close().await;
        away.close().await;
    });
}

#[test]
fn a_store_that_restarts_within_every_grace_period_finds_what_is_nobodys_too() {
    let machine = Machine::new(22);
    simulate(&machine, async |world| {
        publish_and_close(&world, &machine).await;
        let orphan = Key::new(format!("segments/{:016x}-{:016x}.seg", 999, 1)).unwrap();
        machine.bucket().put(orphan.clone(), Bytes::from_static(b"left behind"));
        for start in 0..12 {
            let engine = open(&world, &machine).await;
            append(&engine, "a", &format!("{start}")).await.unwrap();
            pass(200).await;
            engine.close().await;
        }
        assert!(machine.bucket().peek(&orphan).is_none(), "40 minutes, four grace periods");
    });
}

#[test]
fn any_number_of_objects_goes_when_its_time_has_come() {
    let machine = Machine::new(23);
    simulate(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        append(&engine, "a", "kept").await.unwrap();
        pass(30).await;
        for orphan in 0..2500 {
            let key = Key::new(format!("segments/{:016x}-{:016x}.seg", 9000 + orphan, 1)).unwrap();
            machine.bucket().put(key, Bytes::from_static(b"left behind"));
        }
        pass(620).await;
        // They are seen now, and due a grace period later: all of them.
        append(&engine, "a", "more").await.unwrap();
        pass(30).await;
        pass(600 + 80).await;
        let left = keys(machine.bucket(), "segments/").len();
        assert!(left < 10, "{left}");
        engine.close().await;
    });
}

#[test]
fn who_collects_is_sure_once_for_a_few_objects() {
    let machine = Machine::new(24);
    simulate(&machine, async |world| {
        let engine = open(&world, &machine).await;
        create(&engine, "a").await;
        for record in 0..9 {
            append(&engine, "a", &format!("{record}")).await.unwrap();
            pass(15).await;
        }
        pass(2000).await;
        assert!(keys(machine.bucket(), "segments/").len() < 4, "merged ones were collected");
        let verbs: Vec<Verb> = machine.bucket().log().iter().map(|it| it.verb).collect();
        let sure = [Verb::Head, Verb::List, Verb::Head];
        assert!(verbs.windows(3).any(|some| some == sure));
        // Who has listed everything asks at the end, and the next round at its beginning.
        let twice = |some: &[Verb]| some[0] != Verb::List && some[1..] == [sure, sure].concat();
        assert!(!verbs.windows(7).any(twice), "{verbs:?}");
        engine.close().await;
    });
}

#[test]
fn ledgers_that_say_much_of_what_is_gone_become_one() {
    use weir_engine::types::{ProducerId, ProducerTuple};
    let machine = Machine::new(40);
    simulate(&machine, async |world| {
        let engine = open(&world, &machine).await;
        let mut state = 1_u64;
        let mut id = || {
            let digit = |_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                format!("{state:016x}")
            };
            ProducerId::new(&(0..15).map(digit).collect::<String>()).expect("an id")
        };
        for stream in ["a", "b", "c"] {
            create(&engine, stream).await;
            for _ in 0..9000 {
                let producer = Some(ProducerTuple { id: id(), epoch: 1, seq: 0 });
                let append = Append::new(name(stream), text(), "x".into());
                engine.append(Append { producer, ..append }).await.expect("appends");
            }
            pass(15).await;
        }
        let ledgers = || -> usize {
            let list = world.disk.list(std::path::Path::new("/weir/store/rows"));
            let files = list.expect("is there").into_iter();
            let len = |path: std::path::PathBuf| {
                let len = world.disk.open(&path).and_then(|file| file.len());
                usize::try_from(len.expect("is there")).expect("small")
            };
            files.map(len).sum()
        };
        let before = ledgers();
        assert!(before > 2 << 20, "{before} bytes of ledgers");
        // Nine thousand rows each go by one change.
        for stream in ["a", "b", "c"] {
            engine.delete(&name(stream)).await.expect("deletes");
        }
        pass(15).await;
        engine.close().await;
        drop(engine);
        // A start counts the rows anew.
        let engine = open(&world, &machine).await;
        create(&engine, "d").await;
        pass(15).await;
        let after = ledgers();
        assert!(after < 100_000, "{after} of {before} bytes say that nothing is there");
        engine.close().await;
    });
}
