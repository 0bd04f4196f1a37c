//! What goes up: files that were damaged, or went, between their seal and their upload.

use super::*;

impl Town {
    /// Seals what is in memory; what is done with the segment comes before anybody uploads it.
    async fn seal_only(&self, then: impl FnOnce(&Segment)) -> Arc<Segment> {
        let core = &self.engine.core;
        let _nobody_publishes = core.chain.lock().await;
        seal::run(core).await;
        let segment = self.segments().pop().expect("just sealed");
        then(&segment);
        segment
    }

    fn path(&self, segment: &Segment) -> std::path::PathBuf {
        segment_path(&self.engine.core.config, segment.id())
    }

    fn bytes(&self, segment: &Segment) -> Vec<u8> {
        let len = segment.footer().file_bytes();
        let mut bytes = vec![0; usize::try_from(len).expect("small")];
        let file = self.world.disk.open(&self.path(segment)).expect("there");
        file.read_exact_at(&mut bytes, 0).expect("reads");
        bytes
    }

    fn flip(&self, segment: &Segment, byte: u64) {
        self.machine.drive().flip_bit(&self.path(segment), byte, 3).expect("there is such a byte");
    }

    fn object(&self, segment: &Segment) -> Bytes {
        self.machine.bucket().peek(&key(segment)).expect("it is there")
    }
}

/// A byte of each section of a segment that is no block (docs/FORMATS.md, Segment).
fn beside_the_blocks(bytes: &[u8]) -> [u64; 5] {
    let len = u64::try_from(bytes.len()).expect("small");
    let (footer, trailer) = (len - 128, len - 28);
    let field = |at: u64| {
        let at = usize::try_from(footer + at).expect("small");
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    };
    let (index, filter) = (field(60), field(80));
    [20, index + 3, filter + 3, footer + 40, trailer + 2]
}

#[test]
fn a_segment_damaged_beside_its_blocks_is_written_anew_before_it_goes_up() {
    for section in 0..5 {
        let machine = Machine::new(section);
        live_on(&machine, config(), async |town| {
            town.create("s").await;
            town.append("s", 0, 300).await;
            let mut written = Vec::new();
            let section = usize::try_from(section).expect("small");
            let segment = town
                .seal_only(|segment| {
                    written = town.bytes(segment);
                    town.flip(segment, beside_the_blocks(&written)[section]);
                    assert_ne!(town.bytes(segment), written);
                })
                .await;
            town.publish().await;
            assert!(town.object(&segment) == written, "section {section}");
            assert!(town.bytes(&segment) == written, "section {section}");
            assert_eq!(town.engine.metrics().publish.holes.get(), 0);
            assert_eq!(town.engine.metrics().files_unreadable.get(), 0);
            assert_eq!(town.read("s", 1 << 20).await, body("s", 300));
        });
        live_on(&machine, config(), async |town| {
            assert_eq!(town.read("s", 1 << 20).await, body("s", 300), "section {section}");
        });
    }
}

#[test]
fn a_segment_whose_file_went_is_written_anew_before_it_goes_up() {
    live(config(), async |town| {
        town.create("s").await;
        town.append("s", 0, 300).await;
        let mut written = Vec::new();
        let segment = town
            .seal_only(|segment| {
                written = town.bytes(segment);
                town.world.disk.remove(&town.path(segment)).expect("it is there");
            })
            .await;
        town.publish().await;
        assert!(town.object(&segment) == written);
        assert!(town.bytes(&segment) == written);
    });
}

#[test]
fn a_segment_whose_blocks_are_damaged_too_is_a_hole() {
    live(config(), async |town| {
        town.create("s").await;
        town.append("s", 0, 300).await;
        let segment = town
            .seal_only(|segment| {
                town.flip(segment, 20);
                town.damage(segment);
            })
            .await;
        town.publish().await;
        assert!(segment.remote().is_none());
        assert_eq!(town.engine.metrics().publish.holes.get(), 1);
        assert_eq!(town.engine.metrics().publish.manifests.get(), 1);
        // Nothing half written is left of the try to mend it.
        let files = town.world.disk.list(&segment_dir(&town.engine.core.config)).expect("lists");
        assert_eq!(files, [town.path(&segment)]);
    });
}

#[test]
fn an_upload_that_is_refused_cuts_off_no_other() {
    for seed in 0..10 {
        live_on(&Machine::new(seed), config(), async |town| {
            town.create("large").await;
            town.append("large", 0, 300).await;
            let nobody_publishes = town.engine.core.chain.lock().await;
            seal::run(&town.engine.core).await;
            town.create("small").await;
            town.append("small", 0, 10).await;
            seal::run(&town.engine.core).await;
            let [large, small] = &town.segments()[..] else { panic!("two seals") };
            let quota_bytes = Some(town.machine.bucket().used_bytes() + (200 << 10));
            let latency = Duration::from_secs(1)..Duration::from_secs(2);
            let faults = BucketFaults { quota_bytes, latency, ..BucketFaults::default() };
            town.machine.bucket().set_faults(faults);
            drop(nobody_publishes);
            let problem = publish::once(&town.engine.core).await;
            assert!(matches!(problem, Err(publish::Problem::Bucket(_))), "seed {seed}");
            assert!(large.remote().is_none(), "seed {seed}");
            assert!(small.remote().is_some(), "seed {seed}: it was sent and is not sent again");
            town.machine.bucket().set_faults(BucketFaults::default());
            town.publish().await;
            assert!(large.remote().is_some(), "seed {seed}");
        });
    }
}

/// What only this disk has is found by its blocks at a start, be it without header or footer, and goes up as it
/// was written.
#[test]
fn a_start_does_without_what_is_beside_the_blocks_and_the_upload_makes_it_good() {
    for section in 0..5 {
        let machine = Machine::new(40);
        let mut written = Vec::new();
        live_on(&machine, config(), async |town| {
            town.create("s").await;
            town.append("s", 0, 300).await;
            // Who holds this keeps the publisher waiting, to the end of this life.
            let nobody_publishes = town.engine.core.chain.lock().await;
            seal::run(&town.engine.core).await;
            let segment = town.segments().pop().expect("just sealed");
            written = town.bytes(&segment);
            town.flip(&segment, beside_the_blocks(&written)[section]);
            assert!(segment.remote().is_none());
            town.machine.drive().kill();
            drop(nobody_publishes);
        });
        live_on(&machine, config(), async |town| {
            assert_eq!(town.read("s", 20 << 10).await, body("s", 300), "section {section}");
            assert_eq!(
                town.read_from("s", position(200), 20 << 10).await.0,
                body_from("s", 200, 300)
            );
            let since = From::Since(crate::types::WallMs::new(1));
            assert_eq!(town.page("s", since, 1 << 20).await.expect("reads").records, 300);
            town.publish().await;
            let segment = town.segments().pop().expect("there");
            assert!(town.object(&segment) == written, "section {section}");
            assert!(town.bytes(&segment) == written, "section {section}");
            assert_eq!(town.engine.metrics().publish.holes.get(), 0);
        });
    }
}

/// What only the bucket has is found by its blocks, too: here at a start, and so at a recovery.
#[test]
fn an_object_without_its_index_or_filter_is_read_by_its_blocks() {
    for section in [1, 2, 4] {
        let machine = Machine::new(50);
        let mut copy = std::path::PathBuf::new();
        live_on(&machine, config(), async |town| {
            let segment = town.uploaded("s", 300).await;
            copy = town.path(&segment);
            let at = usize::try_from(beside_the_blocks(&town.bytes(&segment))[section]);
            assert!(town.machine.bucket().flip_bit(&key(&segment), at.expect("small"), 3));
            town.engine.close().await;
        });
        let world = machine.boot(Duration::ZERO);
        world.disk.remove(&copy).expect("it is there");
        world.disk.sync_dir(copy.parent().expect("a directory")).expect("syncs");
        live_on(&machine, config(), async |town| {
            assert_eq!(town.read("s", 20 << 10).await, body("s", 300), "section {section}");
            // The copy has what the object lacks: once evicted, it is opened as any other.
            let segment = town.segments().pop().expect("there");
            town.evict(&segment);
            assert_eq!(town.read("s", 20 << 10).await, body("s", 300), "section {section}");
            let files = town.world.disk.list(&segment_dir(&config())).expect("lists");
            assert_eq!(files, [town.path(&segment)]);
        });
        live_on(&machine, config(), async |town| {
            assert_eq!(town.read("s", 20 << 10).await, body("s", 300), "section {section}");
        });
    }
}

/// A segment that was given up, and published as a hole, before a start that finds nothing of it.
fn given_up(machine: &Machine, sick: impl Fn(&Town, &Segment)) -> std::path::PathBuf {
    let mut path = std::path::PathBuf::new();
    live_on(machine, config(), async |town| {
        town.uploaded("before", 50).await;
        town.create("s").await;
        town.append("s", 0, 100).await;
        let segment = town.seal_only(|segment| sick(&town, segment)).await;
        // Longer than anybody waits for a file.
        tokio::time::sleep(Duration::from_secs(400)).await;
        town.append("s", 100, 200).await;
        seal::run(&town.engine.core).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(segment.remote().is_none());
        assert!(town.segments().pop().expect("sealed").remote().is_some(), "all else is there");
        path = town.path(&segment);
        town.engine.close().await;
    });
    path
}

/// The hole is named, and nothing else suffers from it.
async fn check_hole(town: &Town) {
    assert_eq!(town.read("before", 1 << 20).await, body("before", 50));
    let (rest, error) = town.read_from("s", position(100), 1 << 20).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(rest[..100 << 10], body_from("s", 100, 200));
    let lost = town.page("s", position(7), 1 << 20).await;
    let Err(Error::Corrupt(what)) = lost else { panic!("{lost:?}") };
    assert!(what.contains("lost are segments"), "{what}");
    let bucket = town.machine.bucket().client(Arc::clone(&town.world.clock));
    let depth = crate::verify::Depth::Both;
    let found = Engine::verify(town.world.clone(), config(), Some(bucket), depth).await;
    let found = found.expect("looks").findings;
    assert!(found.iter().any(|it| it.rule == "hole"), "{found:?}");
}

#[test]
fn a_start_goes_on_without_a_segment_whose_damage_was_published() {
    let machine = Machine::new(60);
    let path = given_up(&machine, |town, segment| {
        // Its blocks do not tell what stood in its footer.
        town.flip(segment, segment.footer().file_bytes() - 100);
        town.damage(segment);
    });
    for life in 0..3 {
        live_on(&machine, config(), async |town| {
            check_hole(&town).await;
            let records = usize::try_from(200 + life).expect("small");
            town.append("s", records, records + 1).await;
            town.seal().await;
            check_hole(&town).await;
            assert_eq!(town.engine.metrics().files_unreadable.get(), 1);
            town.engine.close().await;
        });
        if life == 0 {
            let world = machine.boot(Duration::ZERO);
            world.disk.remove(&path).expect("it is there");
            world.disk.sync_dir(path.parent().expect("a directory")).expect("syncs");
        }
    }
}

#[test]
fn a_segment_that_was_given_up_is_read_and_uploaded_once_it_is_there_again() {
    let machine = Machine::new(61);
    let kept = std::path::Path::new("/data/kept");
    let path = given_up(&machine, |town, segment| {
        let path = town.path(segment);
        town.machine.drive().set_readable(&path, false).expect("is there");
    });
    let (dir, above) = (path.parent().expect("a directory"), kept.parent().expect("a directory"));
    machine.drive().set_readable(&path, true).expect("is there");
    let world = machine.boot(Duration::ZERO);
    world.disk.rename(&path, kept).expect("moves");
    [dir, above].iter().for_each(|dir| world.disk.sync_dir(dir).expect("syncs"));
    live_on(&machine, config(), async |town| {
        check_hole(&town).await;
        town.world.disk.rename(kept, &path).expect("moves back");
        tokio::time::sleep(Duration::from_secs(4000)).await;
        assert_eq!(town.engine.metrics().files_unreadable.get(), 0);
        assert_eq!(town.read("s", 1 << 20).await, body("s", 200));
        assert!(town.segments().iter().all(|segment| segment.remote().is_some()));
        assert_eq!(town.engine.metrics().publish.backlog_bytes.get(), 0);
    });
    live_on(&machine, config(), async |town| {
        assert_eq!(town.read("s", 1 << 20).await, body("s", 200));
    });
}

#[test]
fn a_start_refuses_what_is_missing_and_was_never_named_so() {
    let machine = Machine::new(62);
    let mut path = std::path::PathBuf::new();
    live_on(&machine, config(), async |town| {
        town.create("s").await;
        town.append("s", 0, 100).await;
        let nobody_publishes = town.engine.core.chain.lock().await;
        seal::run(&town.engine.core).await;
        path = town.path(&town.segments().pop().expect("just sealed"));
        town.machine.drive().kill();
        drop(nobody_publishes);
    });
    let world = machine.boot(Duration::ZERO);
    world.disk.remove(&path).expect("it is there");
    world.disk.sync_dir(path.parent().expect("a directory")).expect("syncs");
    simulate(async {
        let world = machine.boot(Duration::ZERO);
        let bucket = machine.bucket().client(Arc::clone(&world.clock));
        let opened = Engine::open_with(world, config(), Some(bucket), "test").await;
        let Some(crate::OpenError::Corrupt(what)) = opened.err() else { panic!("it opened") };
        let named = path.to_str().expect("a name");
        assert!(what.contains(named) && what.contains("put it back"), "{what}");
    });
}

/// A block is damaged and what tells where blocks are: of the index, of which the footer tells more, or of the
/// footer itself.
#[test]
fn a_start_goes_on_without_what_is_damaged_and_keeps_its_file() {
    for section in [1, 3] {
        let machine = Machine::new(63);
        let mut path = std::path::PathBuf::new();
        let mut damaged = Vec::new();
        live_on(&machine, config(), async |town| {
            town.uploaded("before", 50).await;
            town.create("s").await;
            town.append("s", 0, 100).await;
            let nobody_publishes = town.engine.core.chain.lock().await;
            seal::run(&town.engine.core).await;
            let segment = town.segments().pop().expect("just sealed");
            path = town.path(&segment);
            let byte = beside_the_blocks(&town.bytes(&segment))[section];
            town.flip(&segment, byte);
            town.damage(&segment);
            damaged = town.bytes(&segment);
            town.machine.drive().kill();
            drop(nobody_publishes);
        });
        for life in 0..2 {
            live_on(&machine, config(), async |town| {
                assert_eq!(town.read("before", 1 << 20).await, body("before", 50));
                let lost = town.page("s", position(7), 1 << 20).await;
                let Err(Error::Corrupt(what)) = lost else { panic!("{lost:?}") };
                assert!(what.contains("lost are segments"), "{what}");
                // Appends, seals and manifests go on.
                let records = 100 + 100 * life;
                town.append("s", records, records + 100).await;
                town.seal().await;
                tokio::time::sleep(Duration::from_secs(10)).await;
                let at = u64::try_from(records).expect("small");
                let (read, error) = town.read_from("s", position(at), 1 << 20).await;
                assert!(error.is_none(), "{error:?}");
                assert!(read == body_from("s", records, records + 100));
                let found = {
                    let bucket = town.machine.bucket().client(Arc::clone(&town.world.clock));
                    let depth = crate::verify::Depth::Remote;
                    Engine::verify(town.world.clone(), config(), Some(bucket), depth).await
                };
                let found = found.expect("looks").findings;
                assert!(found.iter().any(|it| it.rule == "hole"), "{found:?}");
                let file = town.world.disk.open(&path).expect("it is kept");
                let mut bytes = vec![0; damaged.len()];
                file.read_exact_at(&mut bytes, 0).expect("reads");
                assert!(bytes == damaged, "as it was");
                town.engine.close().await;
            });
        }
    }
}
