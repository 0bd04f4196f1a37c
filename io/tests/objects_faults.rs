//! What the faults of the simulated bucket look like, and how patience meets them.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{task::LocalSet, time::Instant};
use weir_io::{
    World,
    memory::{BucketFaults, Machine, MemoryBucket, Verb},
    objects::{Created, Key, ObjectError, Objects},
    retry::{Outcome, Patience, Retrying},
};

const SEEDS: u64 = 100;
const LATENCY: Range<Duration> = Duration::from_millis(5)..Duration::from_millis(50);

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// Runs `test` with a client of the machine's bucket, the simulation `at` this old.
fn at<R>(
    machine: &Machine,
    at: Duration,
    test: impl AsyncFnOnce(Arc<dyn Objects>, World) -> R,
) -> R {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let world = machine.boot(at);
        test(machine.bucket().client(Arc::clone(&world.clock)), world).await
    })
}

fn simulate<R>(machine: &Machine, test: impl AsyncFnOnce(Arc<dyn Objects>, World) -> R) -> R {
    at(machine, Duration::ZERO, test)
}

fn with(seed: u64, faults: BucketFaults) -> Machine {
    let machine = Machine::new(seed);
    machine.bucket().set_faults(BucketFaults { latency: LATENCY, ..faults });
    machine
}

fn patient(bucket: Arc<dyn Objects>, world: &World, patience: Patience) -> Retrying {
    Retrying::new(bucket, Arc::clone(&world.entropy), patience)
}

/// Whether a call gets any answer within a simulated hour.
async fn answers<T>(call: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_secs(3600), call).await.ok()
}

#[test]
fn an_error_a_burst_and_an_outage_change_nothing_and_say_so() {
    let bursts = Duration::from_secs(60)..Duration::from_secs(61);
    for faults in [
        BucketFaults { error: 1.0, ..BucketFaults::default() },
        BucketFaults { burst: 1.0, burst_length: bursts.clone(), ..BucketFaults::default() },
        BucketFaults { outage: true, ..BucketFaults::default() },
    ] {
        let machine = with(1, faults);
        simulate(&machine, async |bucket, _world| {
            let said = bucket.create(&key("a"), "some".into()).await;
            assert!(matches!(said, Err(ObjectError::Transient(_))), "{said:?}");
        });
        assert!(machine.bucket().keys().is_empty());
    }
    let machine =
        with(1, BucketFaults { burst: 1.0, burst_length: bursts, ..BucketFaults::default() });
    simulate(&machine, async |bucket, _world| {
        bucket.head(&key("a")).await.unwrap_err();
        machine.bucket().set_faults(BucketFaults::default());
        bucket.head(&key("a")).await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(62)).await;
        bucket.head(&key("a")).await.unwrap();
    });
}

#[test]
fn a_lost_request_changes_nothing_and_a_lost_answer_hides_a_change() {
    let machine = with(1, BucketFaults { hang: 1.0, ..BucketFaults::default() });
    simulate(&machine, async |bucket, _world| {
        assert_eq!(answers(bucket.create(&key("a"), "some".into())).await, None);
    });
    machine.bucket().settle();
    assert!(machine.bucket().keys().is_empty());

    let (mut heard, mut unheard) = (0, 0);
    for seed in 0..20 {
        let machine = with(seed, BucketFaults { lost_answer: 1.0, ..BucketFaults::default() });
        simulate(&machine, async |bucket, _world| {
            match answers(bucket.create(&key("a"), "some".into())).await {
                Some(Err(ObjectError::Transient(_))) => heard += 1,
                None => unheard += 1,
                other => panic!("{other:?}"),
            }
        });
        assert_eq!(machine.bucket().keys(), [key("a")]);
    }
    assert!(heard > 0 && unheard > 0);
}

#[test]
fn a_late_request_takes_effect_after_its_client_gave_up_and_died() {
    let late_by = Duration::from_secs(500)..Duration::from_secs(501);
    let machine = with(1, BucketFaults { late: 1.0, late_by, ..BucketFaults::default() });
    simulate(&machine, async |bucket, _world| {
        let key = key("a");
        let create = bucket.create(&key, "late".into());
        let said = tokio::time::timeout(Duration::from_secs(10), create).await;
        assert!(!matches!(said, Ok(Ok(_))), "{said:?}");
    });
    machine.bucket().set_faults(BucketFaults::default());
    at(&machine, Duration::from_secs(400), async |bucket, _world| {
        assert_eq!(bucket.head(&key("a")).await.unwrap(), None, "not yet");
        tokio::time::sleep(Duration::from_secs(102)).await;
        assert_eq!(bucket.get(&key("a"), 10).await.unwrap(), "late");
        assert_eq!(bucket.create(&key("a"), "mine".into()).await.unwrap(), Created::AlreadyThere);
    });
}

#[test]
fn a_request_on_its_way_arrives_although_nobody_waits() {
    let machine = with(1, BucketFaults::default());
    simulate(&machine, async |bucket, _world| {
        let key = key("a");
        let create = bucket.create(&key, "some".into());
        tokio::time::timeout(Duration::from_millis(1), create).await.unwrap_err();
        assert!(machine.bucket().keys().is_empty(), "it is under way");
    });
    machine.bucket().settle();
    assert_eq!(machine.bucket().peek(&key("a")).unwrap(), "some");
}

#[test]
fn a_body_is_cut_or_changed_without_a_word_and_the_object_stays_whole() {
    let text = "0123456789";
    let machine = with(1, BucketFaults { truncated: 1.0, ..BucketFaults::default() });
    machine.bucket().put(key("a"), Bytes::from(text));
    simulate(&machine, async |bucket, _world| {
        let said = bucket.get(&key("a"), 10).await.unwrap();
        assert!(said.len() < 10 && text.as_bytes().starts_with(&said));
        assert!(bucket.get_range(&key("a"), 2..6).await.unwrap().len() < 4);
        let faults = BucketFaults { corrupted: 1.0, ..BucketFaults::default() };
        machine.bucket().set_faults(faults);
        let said = bucket.get(&key("a"), 10).await.unwrap();
        let flipped = said.iter().zip(text.as_bytes()).map(|(a, b)| (a ^ b).count_ones());
        assert_eq!(flipped.sum::<u32>(), 1);
    });
    assert_eq!(machine.bucket().peek(&key("a")).unwrap(), text);
    assert!(machine.bucket().flip_bit(&key("a"), 3, 0));
    assert_eq!(machine.bucket().peek(&key("a")).unwrap(), "0122456789");
    assert!(!machine.bucket().flip_bit(&key("a"), 10, 0));
}

#[test]
fn a_listing_lags_and_reads_by_key_do_not() {
    let list_lag_by = Duration::from_secs(30)..Duration::from_secs(31);
    let machine = with(1, BucketFaults { list_lag: 1.0, list_lag_by, ..BucketFaults::default() });
    simulate(&machine, async |bucket, _world| {
        let listed = async || bucket.list("", None, 10).await.unwrap().len();
        bucket.create(&key("a"), "some".into()).await.unwrap();
        assert!(bucket.head(&key("a")).await.unwrap().is_some());
        assert_eq!(listed().await, 0);
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(listed().await, 1);
        bucket.delete(&key("a")).await.unwrap();
        assert_eq!(bucket.get(&key("a"), 10).await, Err(ObjectError::NotFound));
        assert_eq!(listed().await, 1);
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(listed().await, 0);
    });
}

#[test]
fn a_full_quota_refuses_creations_only() {
    let machine = with(1, BucketFaults { quota_bytes: Some(10), ..BucketFaults::default() });
    simulate(&machine, async |bucket, _world| {
        bucket.create(&key("a"), "0123456".into()).await.unwrap();
        let said = bucket.create(&key("b"), "0123".into()).await;
        assert!(matches!(said, Err(ObjectError::Refused(_))), "{said:?}");
        assert_eq!(bucket.create(&key("a"), "0123".into()).await, Ok(Created::AlreadyThere));
        bucket.delete(&key("a")).await.unwrap();
        assert_eq!(bucket.create(&key("b"), "0123".into()).await, Ok(Created::New));
    });
    assert_eq!(machine.bucket().used_bytes(), 4);
}

#[test]
fn two_machines_share_a_bucket_and_one_creation_wins() {
    let shared = MemoryBucket::new(7);
    let machines = [1, 2].map(|seed| {
        let mut machine = Machine::new(seed);
        machine.share_bucket(&shared);
        machine
    });
    let ends = machines.each_ref().map(|machine| {
        simulate(machine, async |bucket, _world| bucket.create(&key("a"), "some".into()).await)
    });
    assert_eq!(ends, [Ok(Created::New), Ok(Created::AlreadyThere)]);
    assert_eq!(shared.count(Verb::Create), 2);
}

#[test]
fn attempts_are_bounded_and_their_time_grows_with_size() {
    let patience = Patience::default();
    let elapsed = |bytes: usize| {
        let machine = with(1, BucketFaults { hang: 1.0, ..BucketFaults::default() });
        let elapsed = simulate(&machine, async |bucket, world| {
            let (start, payload) = (Instant::now(), Bytes::from(vec![0; bytes]).into());
            let said = patient(bucket, &world, patience).create(&key("a"), &payload).await;
            assert!(matches!(said, Err(ObjectError::Transient(_))), "{said:?}");
            start.elapsed()
        });
        assert_eq!(machine.bucket().requests(), u64::from(patience.attempts_max));
        elapsed
    };
    let small = patience.attempt * patience.attempts_max;
    let pauses = patience.pause_max * patience.attempts_max;
    assert!((small..small + pauses).contains(&elapsed(0)));
    // Eight megabytes at a quarter of a megabyte per second, six times.
    let large = small + Duration::from_secs(32) * patience.attempts_max;
    assert!((large..large + pauses).contains(&elapsed(8 << 20)));
}

#[test]
fn what_is_refused_or_missing_is_asked_once() {
    let machine = with(1, BucketFaults { quota_bytes: Some(0), ..BucketFaults::default() });
    simulate(&machine, async |bucket, world| {
        let bucket = patient(bucket, &world, Patience::default());
        bucket.create(&key("a"), &"some".into()).await.unwrap_err();
        assert_eq!(bucket.get(&key("a"), 10).await, Err(ObjectError::NotFound));
        assert_eq!(bucket.head(&key("a")).await, Ok(None));
    });
    assert_eq!(machine.bucket().requests(), 3);
}

/// Two writers race for one key after the other under all faults. Whatever each was told
/// must agree with the objects in the end.
fn race(seed: u64) -> (u64, BTreeMap<&'static str, u32>) {
    let seconds = Duration::from_secs;
    let machine = with(
        seed,
        BucketFaults {
            tail: 0.05,
            tail_latency: seconds(1)..seconds(15),
            error: 0.1,
            burst: 0.01,
            burst_length: seconds(1)..seconds(5),
            hang: 0.05,
            lost_answer: 0.1,
            late: 0.1,
            late_by: seconds(1)..seconds(60),
            ..BucketFaults::default()
        },
    );
    let mut told = BTreeMap::new();
    let mut told_of = |what| *told.entry(what).or_insert(0) += 1;
    let claims = simulate(&machine, async |bucket, world| {
        let mut claims = Vec::new();
        for round in 0..10 {
            let key = key(&format!("slot/{round}"));
            for writer in ["one", "two"] {
                let bucket = patient(Arc::clone(&bucket), &world, Patience::default());
                match bucket.create(&key, &writer.into()).await {
                    Ok(Outcome::Created) => claims.push((key.clone(), writer, true)),
                    Ok(Outcome::AlreadyThere) => claims.push((key.clone(), writer, false)),
                    Ok(Outcome::Ambiguous) => {
                        told_of("ambiguous");
                        match bucket.get(&key, 10).await {
                            Ok(found) => claims.push((key.clone(), writer, found == writer)),
                            Err(error) => assert!(matches!(error, ObjectError::Transient(_))),
                        }
                    }
                    Err(ObjectError::Transient(_)) => told_of("unknown"),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        claims
    });
    machine.bucket().settle();
    for (key, writer, won) in claims {
        let found = machine.bucket().peek(&key).expect("who was told of it relies on it");
        assert_eq!(found == writer, won, "seed {seed}: {writer} at {key}");
        told_of(if won { "won" } else { "lost" });
    }
    (machine.bucket().fingerprint(), told)
}

#[test]
fn no_fault_makes_two_writers_both_believe_that_they_won() {
    let mut all = BTreeMap::new();
    for seed in 0..SEEDS {
        for (what, times) in race(seed).1 {
            *all.entry(what).or_insert(0) += times;
        }
    }
    for what in ["won", "lost", "ambiguous"] {
        assert!(all[what] > 10, "{all:?}");
    }
}

#[test]
fn a_seed_reproduces_every_request_and_its_fate() {
    let run = || (0..20).map(|seed| race(seed).0).collect::<Vec<_>>();
    let (first, second) = (run(), run());
    assert_eq!(first, second);
    assert!(first.windows(2).all(|pair| pair[0] != pair[1]));
}
