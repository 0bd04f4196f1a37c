//! Every kind of bucket keeps the laws, and the probe tells which may be used.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

#[path = "objects/s3.rs"]
mod s3;
mod support;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use support::Scratch;
use tokio::task::LocalSet;
use weir_io::{
    World,
    disk::{Create, Disk, File, Lock},
    laws,
    memory::{BucketFaults, Machine, MemoryBucket, Verb},
    objects::{Created, Key, ObjectError, Objects, Unfit, probe},
    os::{
        self,
        objects::{Bucket, Kind},
    },
    retry::{Patience, Retrying},
};

fn simulate<R>(machine: &Machine, test: impl AsyncFnOnce(World) -> R) -> R {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let world = runtime.block_on(async { machine.boot(Duration::ZERO) });
    LocalSet::new().block_on(&runtime, test(world))
}

fn local(directory: &Path) -> Bucket {
    let kind = Kind::Local { directory: directory.to_owned() };
    Bucket { kind, name: None, prefix: None, variables: [].into() }
}

async fn in_directory(directory: &str, world: &World) -> Arc<dyn Objects> {
    os::objects::open(&local(Path::new(directory)), world).await.unwrap()
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn patient(bucket: &Arc<dyn Objects>, world: &World) -> Retrying {
    Retrying::new(Arc::clone(bucket), Arc::clone(&world.entropy), Patience::default())
}

#[tokio::test]
async fn a_directory_of_the_system_keeps_the_laws() {
    let scratch = Scratch::new("objects-laws");
    let world = os::world().unwrap();
    let bucket = os::objects::open(&local(&scratch.0.join("deep/bucket")), &world).await.unwrap();
    laws::objects::all(&bucket).await;
    probe(&patient(&bucket, &world), &*world.entropy).await.unwrap();
}

#[test]
fn a_directory_of_the_simulated_disk_keeps_the_laws() {
    simulate(&Machine::new(1), async |world| {
        let bucket = in_directory("/bucket", &world).await;
        laws::objects::all(&bucket).await;
        probe(&patient(&bucket, &world), &*world.entropy).await.unwrap();
    });
}

#[test]
fn the_simulated_bucket_keeps_the_laws_however_slow_it_is() {
    let machine = Machine::new(1);
    let milliseconds = Duration::from_millis;
    for latency in [milliseconds(0)..milliseconds(0), milliseconds(1)..milliseconds(900)] {
        machine.bucket().set_faults(BucketFaults { latency, ..BucketFaults::default() });
        simulate(&machine, async |world| {
            let bucket = machine.bucket().client(Arc::clone(&world.clock));
            laws::objects::all(&bucket).await;
            probe(&patient(&bucket, &world), &*world.entropy).await.unwrap();
        });
    }
}

#[tokio::test]
async fn a_bucket_in_the_memory_of_the_process_keeps_the_laws() {
    let world = os::world().unwrap();
    let bucket =
        Bucket { kind: Kind::Memory, name: None, prefix: Some(key("a/b")), variables: [].into() };
    let bucket = os::objects::open(&bucket, &world).await.unwrap();
    laws::objects::all(&bucket).await;
    probe(&patient(&bucket, &world), &*world.entropy).await.unwrap();
}

#[test]
fn the_probe_refuses_a_bucket_that_ignores_the_condition() {
    let machine = Machine::new(1);
    machine.bucket().set_faults(BucketFaults { unconditional: true, ..BucketFaults::default() });
    simulate(&machine, async |world| {
        let bucket = machine.bucket().client(Arc::clone(&world.clock));
        let said = probe(&patient(&bucket, &world), &*world.entropy).await;
        assert_eq!(said, Err(Unfit::NoFence));
    });
    assert!(machine.bucket().keys().is_empty(), "the probe cleans up");
}

#[test]
fn the_probe_sees_through_lost_answers() {
    for seed in 0..50 {
        for unconditional in [false, true] {
            let machine = Machine::new(seed);
            let latency = Duration::from_millis(5)..Duration::from_millis(50);
            let faults = BucketFaults {
                latency,
                lost_answer: 0.2,
                unconditional,
                ..BucketFaults::default()
            };
            machine.bucket().set_faults(faults);
            let said = simulate(&machine, async |world| {
                let bucket = machine.bucket().client(Arc::clone(&world.clock));
                probe(&patient(&bucket, &world), &*world.entropy).await
            });
            match said {
                Ok(()) => assert!(!unconditional, "seed {seed}"),
                Err(Unfit::Error(_)) => {}
                Err(Unfit::Unconditional(_)) => panic!("seed {seed}: it has conditions"),
                Err(Unfit::NoFence | Unfit::Wrong) => assert!(unconditional, "seed {seed}"),
            }
        }
    }
}

#[test]
fn a_local_object_that_was_acknowledged_survives_a_cut_and_no_half_of_another_does() {
    let text = |n: usize| Bytes::from(format!("object {n} ").repeat(n * 50 + 1));
    let keys: Vec<Key> = (0..6).map(|n| key(&format!("d{}/e/{n}", n % 3))).collect();
    let (mut acked_in_all, mut unacked_there) = (0, 0);
    for seed in 0..40 {
        for kill_in in (1..80).step_by(3) {
            let machine = Machine::new(seed);
            let acked = simulate(&machine, async |world| {
                let bucket = in_directory("/data/bucket", &world).await;
                machine.drive().kill_in(kill_in);
                let mut acked = Vec::new();
                for (n, key) in keys.iter().enumerate() {
                    let create = bucket.create(key, text(n).into());
                    // A call on the dying machine never returns.
                    match tokio::time::timeout(Duration::from_secs(5), create).await {
                        Ok(created) => assert_eq!(created, Ok(Created::New)),
                        Err(_) => break,
                    }
                    acked.push(n);
                }
                acked
            });
            machine.drive().kill();
            machine.drive().power_cycle();
            simulate(&machine, async |world| {
                let bucket = in_directory("/data/bucket", &world).await;
                for (n, key) in keys.iter().enumerate() {
                    match bucket.get(key, 1 << 20).await {
                        Ok(bytes) => assert_eq!(bytes, text(n), "whole, seed {seed}"),
                        Err(error) => {
                            assert_eq!(error, ObjectError::NotFound);
                            assert!(
                                !acked.contains(&n),
                                "seed {seed}, kill {kill_in}: {n} is lost"
                            );
                        }
                    }
                    unacked_there += usize::from(
                        !acked.contains(&n) && bucket.head(key).await.unwrap().is_some(),
                    );
                }
                let bucket = local(Path::new("/data/bucket"));
                os::objects::sweep_staging(&bucket, &world).await.unwrap();
                let left = world.disk.list(Path::new("/data/bucket/.staging")).unwrap();
                assert!(left.is_empty(), "what was half-written is swept");
            });
            acked_in_all += acked.len();
        }
    }
    assert!(acked_in_all > 100 && unacked_there > 10, "{acked_in_all} {unacked_there}");
}

#[test]
fn a_key_that_was_said_to_be_taken_stays_taken_after_a_cut() {
    for seed in 0..100 {
        let machine = Machine::new(seed);
        simulate(&machine, async |world| {
            let bucket = in_directory("/bucket", &world).await;
            // Whoever linked it died before its directory was synced.
            let staged = Path::new("/bucket/.staging/other");
            let file = world.disk.create(staged, Create::New).unwrap();
            file.write_all_at(b"other", 0).unwrap();
            file.sync().unwrap();
            world.disk.link(staged, Path::new("/bucket/a")).unwrap();
            let created = bucket.create(&key("a"), "mine".into()).await.unwrap();
            assert_eq!(created, Created::AlreadyThere);
        });
        machine.drive().kill();
        machine.drive().power_cycle();
        simulate(&machine, async |world| {
            let bucket = in_directory("/bucket", &world).await;
            assert_eq!(bucket.get(&key("a"), 10).await.unwrap(), "other", "seed {seed}");
        });
    }
}

#[test]
fn who_only_looks_at_a_directory_leaves_it_as_it_is() {
    let machine = Machine::new(1);
    simulate(&machine, async |world| {
        let nowhere = local(Path::new("/nowhere"));
        let bucket = os::objects::open_to_look(&nowhere, &world).unwrap();
        assert!(bucket.list("", None, 10).await.unwrap().is_empty());
        assert_eq!(bucket.head(&key("a")).await.unwrap(), None);
        assert_eq!(os::objects::sweep_staging(&nowhere, &world).await.unwrap(), 0);
        assert!(!world.disk.exists(Path::new("/nowhere")).unwrap());
        in_directory("/bucket", &world).await;
        let staged = Path::new("/bucket/.staging/of-another-process");
        world.disk.create(staged, Create::New).unwrap();
        let before = machine.drive().mutations();
        os::objects::open_to_look(&local(Path::new("/bucket")), &world).unwrap();
        assert_eq!(machine.drive().mutations(), before);
        in_directory("/bucket", &world).await;
        assert!(world.disk.exists(staged).unwrap());
        let swept = os::objects::sweep_staging(&local(Path::new("/bucket")), &world).await;
        assert_eq!(swept.unwrap(), 1);
        assert!(!world.disk.exists(staged).unwrap());
    });
}

#[test]
fn what_a_process_that_lives_is_writing_is_not_swept() {
    let machine = Machine::new(1);
    simulate(&machine, async |world| {
        let living = in_directory("/bucket", &world).await;
        living.create(&key("a"), "mine".into()).await.unwrap();
        let left = world.disk.list(Path::new("/bucket/.staging")).unwrap();
        let [owner] = &left[..] else { panic!("one lock: {left:?}") };
        let owner = owner.file_name().unwrap().to_str().unwrap().strip_suffix(".owner").unwrap();
        let staged = Path::new("/bucket/.staging").join(format!("{owner}-{:032x}", 7));
        world.disk.create(&staged, Create::New).unwrap();
        let bucket = local(Path::new("/bucket"));
        assert_eq!(os::objects::sweep_staging(&bucket, &world).await.unwrap(), 0);
        assert!(world.disk.exists(&staged).unwrap(), "another process is writing it");
        drop(living);
        assert_eq!(os::objects::sweep_staging(&bucket, &world).await.unwrap(), 1);
        assert!(world.disk.list(Path::new("/bucket/.staging")).unwrap().is_empty());
    });
}

/// A disk whose file system has no hard links, as Linux tells it.
struct Linkless(Arc<dyn Disk>);

impl Disk for Linkless {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.open(path)
    }

    fn open_to_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.open_to_write(path)
    }

    fn create(&self, path: &Path, how: Create) -> io::Result<Arc<dyn File>> {
        self.0.create(path, how)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn create_private_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_private_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(rustix::io::Errno::PERM.raw_os_error()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.0.lock(path)
    }
}

#[test]
fn a_file_system_without_hard_links_is_refused_in_plain_words() {
    simulate(&Machine::new(1), async |world| {
        let disk: Arc<dyn Disk> = Arc::new(Linkless(Arc::clone(&world.disk)));
        let world = World { disk, ..world };
        let bucket = in_directory("/bucket", &world).await;
        let said = probe(&patient(&bucket, &world), &*world.entropy).await;
        let Err(Unfit::Error(ObjectError::Refused(why))) = said else { panic!("{said:?}") };
        assert!(
            why.contains("'/bucket' has no hard links") && why.contains("--bucket-dir"),
            "{why}"
        );
        let file = Path::new("/segment");
        world.disk.create(file, Create::New).unwrap();
        let linked = patient(&bucket, &world).create_from_file(&key("s"), file, 0).await;
        assert!(matches!(linked, Err(ObjectError::Refused(_))), "{linked:?}");
    });
}

/// As when the disk that a bucket lies on is not mounted.
#[test]
fn a_bucket_that_is_not_there_says_nothing_of_its_objects_and_is_not_made_anew() {
    let machine = Machine::new(1);
    simulate(&machine, async |world| {
        let (root, moved) = (Path::new("/data/bucket"), Path::new("/data/moved"));
        let opened = in_directory("/data/bucket", &world).await;
        opened.create(&key("a/b"), "kept".into()).await.unwrap();
        world.disk.rename(root, moved).unwrap();
        let known = os::objects::open_known(&local(root), &world).unwrap();
        for empty in [false, true] {
            if empty {
                world.disk.create_dir_all(root).unwrap();
            }
            for bucket in [&opened, &known] {
                let said = [
                    bucket.head(&key("a/b")).await.map(drop),
                    bucket.get(&key("a/b"), 10).await.map(drop),
                    bucket.get_range(&key("a/b"), 0..1).await.map(drop),
                    bucket.list("", None, 10).await.map(drop),
                    bucket.list("a/", None, 10).await.map(drop),
                    bucket.delete(&key("a/b")).await,
                    bucket.create(&key("a/c"), "lost".into()).await.map(drop),
                ];
                for (at, said) in said.into_iter().enumerate() {
                    assert!(matches!(said, Err(ObjectError::Transient(_))), "{at}: {said:?}");
                }
            }
        }
        assert!(world.disk.list(root).unwrap().is_empty(), "nothing was written there");
        world.disk.rename(moved, root).unwrap();
        for bucket in [&opened, &known] {
            assert_eq!(bucket.get(&key("a/b"), 10).await.unwrap(), "kept");
            assert_eq!(bucket.head(&key("a/c")).await.unwrap(), None);
        }
    });
}

#[test]
fn a_full_disk_refuses_an_object_and_leaves_no_part_of_it() {
    let machine = Machine::new(1);
    simulate(&machine, async |world| {
        let bucket = in_directory("/bucket", &world).await;
        let capacity_bytes = Some(machine.drive().used_bytes() + 100);
        let faults = weir_io::memory::Faults { capacity_bytes, ..Default::default() };
        machine.drive().set_faults(faults);
        let said = bucket.create(&key("a"), Bytes::from(vec![7; 101]).into()).await;
        assert!(matches!(said, Err(ObjectError::Refused(_))), "{said:?}");
        assert_eq!(bucket.head(&key("a")).await.unwrap(), None);
        assert_eq!(bucket.create(&key("a"), "small".into()).await.unwrap(), Created::New);
        assert_eq!(bucket.list("", None, 10).await.unwrap().len(), 1);
    });
}

#[tokio::test]
async fn a_file_becomes_an_object_without_moving_its_bytes() {
    let scratch = Scratch::new("objects-link");
    let world = os::world().unwrap();
    let file = scratch.0.join("segment");
    world.disk.create(&file, Create::New).unwrap().write_all_at(b"bytes", 0).unwrap();
    let bucket = os::objects::open(&local(&scratch.0.join("bucket")), &world).await.unwrap();
    let bucket = patient(&bucket, &world);
    let (one, two) = (key("s/1"), key("s/2"));
    let first = bucket.create_from_file(&one, &file, 5).await.unwrap();
    assert_eq!(first, Some(weir_io::retry::Outcome::Created));
    let again = bucket.create_from_file(&one, &file, 5).await.unwrap();
    assert_eq!(again, Some(weir_io::retry::Outcome::AlreadyThere));
    world.disk.remove(&file).unwrap();
    assert_eq!(bucket.get(&one, 10).await.unwrap(), "bytes");
    let nowhere = bucket.create_from_file(&two, &file, 5).await;
    assert_eq!(nowhere, Err(weir_io::objects::ObjectError::NotFound), "no such file");
    let memory = MemoryBucket::new(1).client(Arc::clone(&world.clock));
    assert_eq!(patient(&memory, &world).create_from_file(&two, &file, 5).await.unwrap(), None);
}

#[test]
fn requests_are_counted_by_kind() {
    let machine = Machine::new(1);
    simulate(&machine, async |world| {
        let bucket = machine.bucket().client(Arc::clone(&world.clock));
        bucket.create(&key("a"), "some".into()).await.unwrap();
        bucket.create(&key("b"), "some".into()).await.unwrap();
        bucket.get(&key("a"), 10).await.unwrap();
        bucket.get_range(&key("a"), 0..1).await.unwrap();
        bucket.list("", None, 1).await.unwrap();
    });
    let counts = [Verb::Create, Verb::Get, Verb::Head, Verb::List, Verb::Delete]
        .map(|verb| machine.bucket().count(verb));
    assert_eq!(counts, [2, 2, 0, 1, 0]);
    assert_eq!(machine.bucket().requests(), 5);
    assert_eq!(machine.bucket().log().len(), 5);
}
