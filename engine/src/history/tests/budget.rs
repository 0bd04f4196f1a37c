//! What stays on the local disk, and segments that come to it from the bucket.

use super::*;
use crate::{
    OpenError,
    history::{AdoptError, Adoption, Bucket, adopt, tidy},
    publish::keys::{Artifact, Generation},
    types::SegmentId,
    verify::Depth,
};

/// Bytes of all segment files on the drive, gaps not counted.
fn on_disk(town: &Town) -> u64 {
    let dir = segment_dir(&town.engine.core.config);
    let files = town.world.disk.list(&dir).expect("lists");
    files
        .iter()
        .map(|path| town.world.disk.open(path).and_then(|it| it.allocated()).expect("there"))
        .sum()
}

#[test]
fn what_was_not_read_for_longest_goes_first_until_the_budget_holds() {
    let budget = 900 << 10;
    live(Config { local_bytes_max: budget, ..config() }, async |town| {
        for stream in ["a", "b", "c"] {
            town.uploaded(stream, 250).await;
        }
        tidy(&town.engine.core).await;
        assert_eq!(town.engine.metrics().evictions.get(), 0, "there is room");
        assert_eq!(town.read("a", 1 << 20).await, body("a", 250));
        town.uploaded("d", 250).await;
        tidy(&town.engine.core).await;
        let kept: Vec<bool> = town.segments().iter().map(|it| town.is_here(it)).collect();
        assert_eq!(kept, [true, false, true, true], "'a' was read, 'd' is new, 'c' may stay");
        assert!(on_disk(&town) <= budget, "{}", on_disk(&town));
        let counted = u64::try_from(town.engine.metrics().local_bytes.get()).expect("positive");
        assert_eq!(counted, on_disk(&town));
        for stream in ["a", "b", "c", "d"] {
            assert_eq!(town.read(stream, 1 << 20).await, body(stream, 250), "'{stream}'");
        }
    });
}

#[test]
fn nothing_that_the_bucket_does_not_have_is_evicted() {
    live(Config { local_bytes_max: 0, ..config() }, async |town| {
        town.create("s").await;
        town.append("s", 0, 300).await;
        town.machine.bucket().set_faults(outage());
        seal::run(&town.engine.core).await;
        let used = on_disk(&town);
        tidy(&town.engine.core).await;
        assert_eq!(on_disk(&town), used);
        town.machine.bucket().set_faults(BucketFaults::default());
        town.publish().await;
        tidy(&town.engine.core).await;
        assert!(on_disk(&town) < 10 << 10, "{}", on_disk(&town));
    });
}

/// Somebody else has the slot of the manifest that would name the segment: the object may be collected
/// as litter, and what was acked is nowhere but here.
#[test]
fn nothing_that_no_manifest_names_is_evicted() {
    live(Config { local_bytes_max: 0, ..config() }, async |town| {
        town.uploaded("s", 300).await;
        let world = &town.world;
        let first = Generation::NONE.next();
        let manifest = |generation| Artifact::Manifest(generation).key();
        // What another writer would do, but for its content.
        let bytes = town.machine.bucket().peek(&manifest(first)).expect("just published");
        town.machine.bucket().put(manifest(first.next()), bytes);
        town.create("t").await;
        town.append("t", 0, 300).await;
        seal::run(&town.engine.core).await;
        let published = publish::once(&town.engine.core).await;
        assert!(matches!(published, Err(publish::Problem::Fenced(_))), "{published:?}");
        let before = on_disk(&town);
        tidy(&town.engine.core).await;
        assert_eq!(on_disk(&town), before);
        let uploaded = town.segments().pop().expect("just sealed");
        let bucket = town.machine.bucket().client(Arc::clone(&world.clock));
        bucket.delete(&key(&uploaded)).await.expect("it was uploaded");
        assert_eq!(town.read("t", 1 << 20).await, body("t", 300));
        // Nobody else looks for it there.
        bucket.delete(&manifest(first.next())).await.expect("it is there");
        let config = town.engine.core.config.clone();
        let looked = Engine::verify(world.clone(), config, Some(bucket), Depth::Both).await;
        let rules: Vec<_> = looked.expect("it looks").findings.iter().map(|it| it.rule).collect();
        assert_eq!(rules, ["object"]);
    });
}

/// A process that has just started does not know what the last manifest names until it has compared.
#[test]
fn what_was_published_before_a_start_is_evicted_after_it() {
    let machine = Machine::new(7);
    let config = Config { local_bytes_max: 0, ..config() };
    live_on(&machine, config.clone(), async |town| {
        town.uploaded("s", 300).await;
        town.engine.close().await;
    });
    live_on(&machine, config, async |town| {
        town.publish().await;
        tidy(&town.engine.core).await;
        assert!(on_disk(&town) < 10 << 10, "{}", on_disk(&town));
        assert_eq!(town.read("s", 1 << 20).await, body("s", 300));
    });
}

#[test]
fn the_budget_holds_while_far_more_than_it_is_read() {
    let budget = 600 << 10;
    live(
        Config { local_bytes_max: budget, block_cache_bytes: 1 << 20, ..config() },
        async |town| {
            for part in 0..10 {
                let stream = format!("s{part}");
                town.uploaded(&stream, 200).await;
                tidy(&town.engine.core).await;
            }
            for part in (0..10).chain(0..10) {
                let stream = format!("s{part}");
                assert_eq!(town.read(&stream, 50 << 10).await, body(&stream, 200));
                assert!(on_disk(&town) <= budget, "{} while reading", on_disk(&town));
                tidy(&town.engine.core).await;
            }
            assert!(town.engine.metrics().evictions.get() > 10, "copies came and went");
        },
    );
}

#[test]
fn the_evictor_runs_by_itself() {
    live(Config { local_bytes_max: 100 << 10, ..config() }, async |town| {
        town.uploaded("s", 300).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(on_disk(&town) < 100 << 10, "{}", on_disk(&town));
    });
}

#[test]
fn a_start_needs_no_bucket_and_counts_what_is_left() {
    let machine = Machine::new(5);
    let budget = 400 << 10;
    let config = Config { local_bytes_max: budget, ..config() };
    live_on(&machine, config.clone(), async |town| {
        for stream in ["a", "b", "c"] {
            town.uploaded(stream, 250).await;
        }
        tidy(&town.engine.core).await;
        assert_eq!(town.read("a", 100 << 10).await, body("a", 250));
        // Some blocks of 'a' are back, as many as there was room for.
        town.engine.close().await;
    });
    machine.bucket().set_faults(outage());
    live_on(&machine, config, async |town| {
        tidy(&town.engine.core).await;
        let counted = u64::try_from(town.engine.metrics().local_bytes.get()).expect("positive");
        assert_eq!(counted, on_disk(&town), "what the disk says is what is counted");
        assert!(counted <= budget, "{counted}");
        machine.bucket().set_faults(BucketFaults::default());
        for stream in ["a", "b", "c"] {
            assert_eq!(town.read(stream, 1 << 20).await, body(stream, 250), "'{stream}'");
        }
    });
}

#[test]
fn an_eviction_cut_short_anywhere_leaves_one_copy_or_the_other() {
    for n in 1.. {
        let machine = Machine::new(n);
        let config = config();
        let mut done = false;
        live_on(&machine, config.clone(), async |town| {
            let segment = town.uploaded("s", 100).await;
            town.engine.close().await;
            machine.drive().kill_in(n);
            let path = segment_path(&town.engine.core.config, segment.id());
            done = segment.evict(&*town.world.disk, &path).is_ok();
        });
        live_on(&machine, config, async |town| {
            assert_eq!(town.read("s", 1 << 20).await, body("s", 100), "killed at {n}");
        });
        if done {
            assert!(n > 4, "there are that many steps");
            return;
        }
    }
}

#[test]
fn a_copy_damaged_beyond_its_blocks_is_made_anew_from_the_bucket() {
    live(Config { local_bytes_max: 0, ..config() }, async |town| {
        let segment = town.uploaded("s", 300).await;
        let path = segment_path(&town.engine.core.config, segment.id());
        let last = segment.footer().file_bytes() - 100;
        town.machine.drive().flip_bit(&path, last, 1).expect("there is such a byte");
        tidy(&town.engine.core).await;
        let copy = Segment::open(town.world.disk.open(&path).expect("there"));
        assert_eq!(copy.expect("opens").footer().mark(), segment.footer().mark());
        assert_eq!(town.read("s", 1 << 20).await, body("s", 300));
    });
}

#[test]
fn seals_and_evictions_go_on_while_the_bucket_does_not_give_a_copy() {
    let config = Config { local_bytes_max: 0, seal_age: Duration::from_secs(2), ..config() };
    live(config, async |town| {
        let core = &town.engine.core;
        town.machine.set_latency(Duration::ZERO..Duration::ZERO);
        let damaged = town.uploaded("s", 300).await;
        let other = town.uploaded("t", 300).await;
        assert_eq!(town.engine.metrics().evictions.get(), 0, "no time has passed");
        let path = segment_path(&core.config, damaged.id());
        let last = damaged.footer().file_bytes() - 100;
        town.machine.drive().flip_bit(&path, last, 1).expect("there is such a byte");
        town.machine.bucket().set_faults(BucketFaults { hang: 1.0, ..BucketFaults::default() });
        let before = town.gets();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(town.gets() - before, 1, "its object is asked for");
        town.append("s", 300, 301).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(town.gets() - before, 1, "nothing was heard yet");
        assert_eq!(core.files.lock().cut().expect("sealed").folded, core.durable_link());
        assert!(other.is_bare());
        town.machine.bucket().set_faults(BucketFaults::default());
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(damaged.is_bare());
        let copy = Segment::open(town.world.disk.open(&path).expect("there"));
        assert_eq!(copy.expect("opens").footer().mark(), damaged.footer().mark());
        assert!(!town.world.disk.exists(&path.with_extension("new")).expect("looks"));
        assert_eq!(town.read("s", 1 << 20).await, body("s", 301));
    });
}

/// A store of so many streams, each with a segment in the bucket of which there is no copy here.
fn without_copies(streams: usize) -> Machine {
    let machine = Machine::new(7);
    live_on(&machine, config(), async |town| {
        for at in 0..streams {
            town.uploaded(&format!("s{at}"), 1).await;
        }
        let dir = segment_dir(&town.engine.core.config);
        for path in town.world.disk.list(&dir).expect("there") {
            town.world.disk.remove(&path).expect("removes");
        }
        town.world.disk.sync_dir(&dir).expect("syncs");
    });
    machine
}

/// Starts it again. Returns also how long that took.
async fn start_without(machine: &Machine) -> (Result<Engine, OpenError>, Duration) {
    let world = machine.boot(Duration::from_secs(3600));
    let (clock, began) = (Arc::clone(&world.clock), world.clock.elapsed());
    let bucket = machine.bucket().client(Arc::clone(&world.clock));
    let opened = Engine::open_with(world, config(), Some(bucket), "test").await;
    (opened, clock.elapsed() - began)
}

#[test]
fn a_start_makes_copies_anew_several_at_a_time_and_not_all_at_once() {
    let latency = Duration::from_secs(1)..Duration::from_millis(1001);
    let slow = BucketFaults { latency, ..BucketFaults::default() };
    let machine = without_copies(1);
    machine.bucket().set_faults(slow.clone());
    let mut one = Duration::ZERO;
    simulate(async {
        let (opened, took) = start_without(&machine).await;
        opened.expect("opens");
        one = took;
        machine.drive().kill();
    });
    let machine = without_copies(40);
    machine.bucket().set_faults(slow);
    simulate(async {
        let (opened, took) = start_without(&machine).await;
        let engine = opened.expect("opens");
        // At a time 16, 16 and 8: two requests later than the first, one after the other.
        let later = took - one;
        assert!(later > Duration::from_millis(1900), "{later:?}: more than 16 at a time");
        assert!(later < Duration::from_millis(2900), "{later:?}: fewer than 16 at a time");
        for at in 0..40 {
            let stream = format!("s{at}");
            let read =
                Read { name: name(&stream), from: From::Start, key: None, bytes_max: 1 << 20 };
            let page = engine.read(read).await.expect("reads");
            assert_eq!(page.pieces.concat(), body(&stream, 1));
        }
        machine.drive().kill();
    });
}

#[test]
fn a_start_whose_bucket_goes_away_begins_no_further_copy() {
    let machine = without_copies(100);
    machine.bucket().set_faults(BucketFaults { hang: 1.0, ..BucketFaults::default() });
    simulate(async {
        let (opened, took) = start_without(&machine).await;
        let error = opened.err().expect("the copies can't be had").to_string();
        assert!(error.contains("start again when the bucket answers"), "{error}");
        assert!(took < Duration::from_secs(20), "the patience of one request: {took:?}");
        machine.drive().kill();
    });
}

async fn adopted(town: &Town, segment: &Segment, mark: u32) -> Result<Segment, AdoptError> {
    let Some(bucket) = &town.engine.core.bucket else { panic!("it was given one") };
    let bucket: &Bucket = bucket;
    let adoption = Adoption {
        store: segment.store(),
        id: segment.id(),
        mark: Some(mark),
        remote: segment.remote().expect("uploaded").clone(),
        path: segment_path(&town.engine.core.config, SegmentId::new(1 << 40)),
    };
    adopt(&town.world, &bucket.patient, &adoption).await
}

#[test]
fn a_segment_is_adopted_with_few_small_requests() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 2000).await;
        let before = town.gets();
        let copy = adopted(&town, &segment, segment.footer().mark()).await.expect("adopts");
        assert_eq!(town.gets() - before, 2);
        assert_eq!(copy.footer(), segment.footer());
        assert!(copy.is_bare());
        assert!(copy.local_bytes() < 16 << 10, "{}", copy.local_bytes());

        let small = town.uploaded("t", 3).await;
        let before = town.gets();
        let copy = adopted(&town, &small, small.footer().mark()).await.expect("adopts");
        assert_eq!(town.gets() - before, 1);
        assert!(copy.is_whole());
        assert!(copy.blocks().all(|no| copy.block(no).is_ok()), "all of it came at once");
    });
}

#[test]
fn what_is_not_the_published_segment_is_not_adopted() {
    live(config(), async |town| {
        let segment = town.uploaded("s", 300).await;
        let path = segment_path(&town.engine.core.config, SegmentId::new(1 << 40));
        let nothing = || !town.world.disk.exists(&path).expect("looks");

        let another = adopted(&town, &segment, segment.footer().mark() ^ 1).await.err();
        assert!(matches!(another, Some(AdoptError::Another(_))), "{another:?}");
        assert!(nothing());

        let last = usize::try_from(segment.footer().file_bytes()).expect("small") - 40;
        assert!(town.machine.bucket().flip_bit(&key(&segment), last, 1));
        let damaged = adopted(&town, &segment, segment.footer().mark()).await.err();
        assert!(matches!(damaged, Some(AdoptError::Damaged { .. })), "{damaged:?}");
        assert!(nothing());

        town.machine.bucket().set_faults(outage());
        let unanswered = adopted(&town, &segment, segment.footer().mark()).await.err();
        assert!(matches!(unanswered, Some(AdoptError::Unanswered { .. })), "{unanswered:?}");
        town.machine.bucket().set_faults(BucketFaults::default());

        town.machine.bucket().lose(&key(&segment));
        let missing = adopted(&town, &segment, segment.footer().mark()).await.err();
        assert!(matches!(missing, Some(AdoptError::Missing(_))), "{missing:?}");
        assert!(nothing());
    });
}

/// What the bucket has is a cache here, at a start too: neither a file that is gone nor one that is
/// damaged where its blocks are found by keeps the store from opening.
#[test]
fn a_start_makes_copies_anew_that_it_cannot_use() {
    let machine = Machine::new(7);
    let config = Config { local_bytes_max: 1 << 30, ..config() };
    let mut copies = Vec::new();
    live_on(&machine, config.clone(), async |town| {
        for stream in ["gone", "header", "footer", "whole"] {
            let segment = town.uploaded(stream, 100).await;
            copies.push((segment_path(&config, segment.id()), segment.footer().file_bytes()));
        }
        town.engine.close().await;
    });
    let drive = machine.drive();
    let world = machine.boot(Duration::ZERO);
    world.disk.remove(&copies[0].0).expect("it is there");
    world.disk.sync_dir(copies[0].0.parent().expect("a directory")).expect("syncs");
    drive.flip_bit(&copies[1].0, 9, 1).expect("there is such a byte");
    drive.flip_bit(&copies[2].0, copies[2].1 - 40, 1).expect("there is such a byte");

    machine.bucket().set_faults(outage());
    assert!(matches!(start(&machine, &config), Err(OpenError::Bucket(why)) if why.contains("seg")));
    machine.bucket().set_faults(BucketFaults::default());
    live_on(&machine, config, async |town| {
        for stream in ["gone", "header", "footer", "whole"] {
            assert_eq!(town.read(stream, 1 << 20).await, body(stream, 100), "'{stream}'");
        }
        // What was made anew has no blocks until they are read.
        assert!(town.segments().iter().all(|segment| town.is_here(segment)));
    });
}

/// Whether a store opens.
fn start(machine: &Machine, config: &Config) -> Result<(), OpenError> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let opened = LocalSet::new().block_on(&runtime, async {
        let world = machine.boot(Duration::ZERO);
        let bucket = machine.bucket().client(Arc::clone(&world.clock));
        let opened = Engine::open_with(world, config.clone(), Some(bucket), "test").await;
        machine.drive().kill();
        opened.map(drop)
    });
    drop(runtime);
    machine.drive().power_cycle();
    opened
}
