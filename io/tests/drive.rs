//! What the simulated drive leaves after a power cut, and how its faults look.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use weir_io::{
    disk::{Create, Disk, File},
    laws::disk::content,
    memory::{Cut, Drive, Faults, MemoryDisk, Moment, Op, Side},
};

const SEEDS: u64 = 200;

/// A drive with the directory `/d`, durable.
fn prepared(seed: u64) -> (Drive, MemoryDisk) {
    let drive = Drive::new(seed);
    let disk = drive.mount();
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (drive, disk)
}

fn path(name: &str) -> PathBuf {
    Path::new("/d").join(name)
}

/// Creates `name` with `bytes`, all of it durable.
fn durable(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let file = disk.create(&path(name), Create::Truncate)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    disk.sync_dir(Path::new("/d"))
}

fn read(disk: &dyn Disk, name: &str) -> Option<Vec<u8>> {
    disk.open(&path(name)).ok().map(|file| content(&*file))
}

/// What is left of `/d/file` after a cut, over many seeds.
fn outcomes(before: impl Fn(&MemoryDisk)) -> BTreeSet<Option<Vec<u8>>> {
    let cut = |seed| {
        let (drive, disk) = prepared(seed);
        before(&disk);
        drive.kill();
        drive.power_cycle();
        read(&drive.mount(), "file")
    };
    (0..SEEDS).map(cut).collect()
}

#[test]
fn a_directory_that_was_durable_is_whole_under_one_of_its_names_after_every_cut() {
    let mut left = BTreeSet::new();
    for seed in 0..SEEDS {
        let (drive, disk) = prepared(seed);
        let (from, to) = (path("from"), path("to"));
        disk.create_dir_all(&from.join("deep")).unwrap();
        let file = disk.create(&from.join("deep").join("file"), Create::New).unwrap();
        file.write_all_at(b"whole", 0).unwrap();
        file.sync().unwrap();
        for directory in [&from.join("deep"), &from, Path::new("/d")] {
            disk.sync_dir(directory).unwrap();
        }
        disk.create_dir_all(&to).unwrap();
        disk.rename(&from, &to).unwrap();
        disk.create(&to.join("late"), Create::New).unwrap();
        let synced = seed % 2 == 0;
        if synced {
            disk.sync_dir(Path::new("/d")).unwrap();
        }
        drive.kill();
        drive.power_cycle();
        let disk = drive.mount();
        let there = |name: &str| read(&disk, &format!("{name}/deep/file")).is_some();
        let (old, new) = (there("from"), there("to"));
        assert!(old != new, "seed {seed}: {old} {new}");
        assert!(new || !synced, "seed {seed}");
        left.insert(new);
    }
    assert_eq!(left.len(), 2);
}

#[test]
fn synced_bytes_under_a_synced_name_survive_every_cut() {
    let left = outcomes(|disk| durable(disk, "file", b"kept").unwrap());
    assert_eq!(left, BTreeSet::from([Some(b"kept".to_vec())]));
}

#[test]
fn a_name_survives_for_sure_only_with_its_directory_synced() {
    let left = outcomes(|disk| {
        let file = disk.create(&path("file"), Create::New).unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        file.sync().unwrap();
    });
    assert_eq!(left, BTreeSet::from([None, Some(b"kept".to_vec())]));
}

#[test]
fn a_directory_that_is_lost_takes_its_files_along() {
    let lost = (0..SEEDS).filter(|&seed| {
        let drive = Drive::new(seed);
        let disk = drive.mount();
        disk.create_dir_all(Path::new("/new")).unwrap();
        let file = disk.create(Path::new("/new/file"), Create::Truncate).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new("/new")).unwrap();
        drive.kill();
        drive.power_cycle();
        let disk = drive.mount();
        let there = disk.exists(Path::new("/new")).unwrap();
        assert_eq!(disk.exists(Path::new("/new/file")).unwrap(), there);
        !there
    });
    assert!(lost.count() > 0);
}

#[test]
fn unsynced_sectors_are_lost_kept_reordered_and_torn() {
    const OLD: [u8; 1024] = [1; 1024];
    const NEW: [u8; 1024] = [2; 1024];
    let left = outcomes(|disk| {
        durable(disk, "file", &OLD).unwrap();
        let file = disk.create(&path("other"), Create::New).unwrap();
        file.write_all_at(&NEW, 0).unwrap();
        file.sync().unwrap();
        disk.rename(&path("other"), &path("file")).unwrap();
    });
    let whole = BTreeSet::from([Some(OLD.to_vec()), Some(NEW.to_vec())]);
    assert_eq!(left, whole, "a rename is atomic");

    let left = outcomes(|disk| {
        durable(disk, "file", &OLD).unwrap();
        let file = disk.create(&path("file"), Create::Truncate).unwrap();
        file.write_all_at(&OLD, 0).unwrap();
        file.sync().unwrap();
        file.write_all_at(&NEW, 0).unwrap();
    });
    let sectors = |one: u8, two: u8| Some([[one; 512], [two; 512]].concat());
    for seen in [sectors(1, 1), sectors(2, 2), sectors(1, 2), sectors(2, 1)] {
        assert!(left.contains(&seen));
    }
    assert!(left.len() > 4, "some sectors are torn");
}

#[test]
fn replacing_a_file_is_atomic_whichever_operation_power_is_lost_in() {
    let replace = |disk: &dyn Disk| -> io::Result<()> {
        let file = disk.create(&path("file.new"), Create::Truncate)?;
        file.write_all_at(b"new", 0)?;
        file.sync()?;
        disk.rename(&path("file.new"), &path("file"))?;
        disk.sync_dir(Path::new("/d"))
    };
    for seed in 0..20 {
        for n in 1.. {
            let (drive, disk) = prepared(seed);
            durable(&disk, "file", b"old").unwrap();
            drive.kill_in(n);
            let done = replace(&disk).is_ok();
            assert_eq!(drive.is_dead(), !done);
            drive.kill();
            drive.power_cycle();
            let left = read(&drive.mount(), "file").unwrap();
            assert!(left == b"new" || (left == b"old" && !done), "seed {seed}, operation {n}");
            if done {
                assert_eq!(n, 6, "five operations change something");
                break;
            }
        }
    }
}

#[test]
fn a_dead_machine_changes_nothing_and_stays_dead() {
    let (drive, disk) = prepared(1);
    durable(&disk, "file", b"kept").unwrap();
    let file = disk.create(&path("open"), Create::New).unwrap();
    let lock = disk.lock(&path("lock")).unwrap().unwrap();
    drive.kill();
    let refuses = |disk: &MemoryDisk, file: &dyn File| {
        assert!(disk.is_dead());
        assert!(file.write_all_at(b"x", 0).is_err());
        assert!(file.set_len(9).is_err());
        assert!(file.sync().is_err());
        assert!(file.len().is_err());
        assert!(disk.remove(&path("file")).is_err());
        assert!(disk.rename(&path("file"), &path("gone")).is_err());
        assert!(disk.open(&path("file")).is_err());
        assert!(disk.list(Path::new("/d")).is_err());
    };
    refuses(&disk, &*file);
    drive.restart_process();
    let next = drive.mount();
    refuses(&disk, &*file);
    assert_eq!(read(&next, "file").unwrap(), b"kept");
    let taken = next.lock(&path("lock")).unwrap();
    assert!(taken.is_some(), "a lock ends with its process");
    drop((lock, file));
    assert!(next.lock(&path("lock")).unwrap().is_none(), "the dead cannot release the new one");
}

#[test]
fn a_process_that_dies_loses_nothing_and_syncs_nothing() {
    let mut left = BTreeSet::new();
    for seed in 0..SEEDS {
        let (drive, disk) = prepared(seed);
        durable(&disk, "file", b"old").unwrap();
        let file = disk.create(&path("file"), Create::Truncate).unwrap();
        file.write_all_at(b"new", 0).unwrap();
        drive.kill();
        drive.restart_process();
        assert_eq!(read(&drive.mount(), "file").unwrap(), b"new");
        drive.kill();
        drive.power_cycle();
        left.insert(read(&drive.mount(), "file").unwrap());
    }
    assert!(left.contains(&b"old"[..]));
    assert!(left.contains(&b"new"[..]));
}

#[test]
fn a_full_drive_says_so_and_removal_makes_space() {
    let (drive, disk) = prepared(1);
    drive.set_faults(Faults { capacity_bytes: Some(1000), ..Faults::default() });
    durable(&disk, "file", &[1; 900]).unwrap();
    let file = disk.create(&path("more"), Create::New).unwrap();
    let refused = file.write_all_at(&[2; 200], 0).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert!(drive.used_bytes() <= 1000);
    file.write_all_at(&[3; 100], 0).unwrap();
    assert_eq!(file.write_all_at(&[3], 100).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.remove(&path("file")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(drive.used_bytes(), 100);
    file.write_all_at(&[2; 900], 100).unwrap();
}

#[test]
fn a_sync_that_fails_may_forget_what_later_syncs_do_not_bring_back() {
    let mut left = BTreeSet::new();
    for seed in 0..SEEDS {
        let (drive, disk) = prepared(seed);
        durable(&disk, "file", b"old").unwrap();
        let file = disk.create(&path("file"), Create::Truncate).unwrap();
        file.write_all_at(b"new", 0).unwrap();
        drive.set_faults(Faults { sync: 1.0, sync_forgets: 1.0, ..Faults::default() });
        assert!(file.sync().is_err());
        drive.set_faults(Faults::default());
        file.sync().unwrap();
        assert_eq!(content(&*file), b"new", "the cache still has it");
        drive.kill();
        drive.power_cycle();
        left.insert(read(&drive.mount(), "file").unwrap());
    }
    let all = [&b"old"[..], b"", b"new"].map(<[u8]>::to_vec);
    assert_eq!(left, BTreeSet::from(all));
}

#[test]
fn injected_faults_are_errors_that_change_nothing() {
    let (drive, disk) = prepared(1);
    durable(&disk, "file", b"kept").unwrap();
    let file = disk.open(&path("file")).unwrap();
    let more = disk.create(&path("more"), Create::New).unwrap();
    drive.set_faults(Faults { read: 1.0, write: 1.0, name: 1.0, sync: 1.0, ..Faults::default() });
    assert!(file.read_exact_at(&mut [0; 4], 0).is_err());
    assert!(more.write_all_at(b"x", 0).is_err());
    assert!(more.sync().is_err());
    assert!(disk.remove(&path("file")).is_err());
    drive.set_faults(Faults::default());
    assert_eq!(content(&*file), b"kept");
    assert!(more.is_empty().unwrap());
}

#[test]
fn a_flipped_bit_stays_flipped() {
    let (drive, disk) = prepared(1);
    durable(&disk, "file", b"\0\0").unwrap();
    drive.flip_bit(&path("file"), 1, 3).unwrap();
    assert_eq!(read(&disk, "file").unwrap(), [0, 8]);
    drive.kill();
    drive.power_cycle();
    assert_eq!(read(&drive.mount(), "file").unwrap(), [0, 8]);
    assert!(drive.flip_bit(&path("file"), 2, 0).is_err());
    assert!(drive.flip_bit(&path("missing"), 0, 0).is_err());
}

#[test]
fn the_same_seed_and_the_same_calls_leave_the_same_trace() {
    let run = |seed, bytes: &[u8]| {
        let (drive, disk) = prepared(seed);
        drive.set_faults(Faults { full: 0.5, ..Faults::default() });
        let file = disk.create(&path("file"), Create::New).unwrap();
        for at in 0..20 {
            drop(file.write_all_at(bytes, at * 100));
        }
        drive.kill();
        drive.power_cycle();
        drop(read(&drive.mount(), "file"));
        drive.fingerprint()
    };
    assert_eq!(run(1, b"one"), run(1, b"one"));
    assert_ne!(run(1, b"one"), run(2, b"one"));
    assert_ne!(run(1, b"one"), run(1, b"two"));
}

#[test]
fn a_hole_takes_no_room_on_a_full_drive_and_what_fills_it_does() {
    let (drive, disk) = prepared(3);
    let used = drive.used_bytes();
    drive.set_faults(Faults { capacity_bytes: Some(used + 1000), ..Faults::default() });
    let file = disk.create(&path("holey"), Create::New).unwrap();
    file.set_len(1 << 20).unwrap();
    assert_eq!(drive.used_bytes(), used);
    file.write_all_at(&[1; 600], 5000).unwrap();
    file.write_all_at(&[2; 600], 5000).unwrap();
    file.write_all_at(&[3; 600], 5300).unwrap();
    assert_eq!(drive.used_bytes(), used + 900, "what overlaps is counted once");
    let full = file.write_all_at(&[4; 600], 10_000).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    drive.kill();
    drive.power_cycle();
    let disk = drive.mount();
    assert!(disk.open(&path("holey")).unwrap().allocated().unwrap() >= 900, "holes survive");
    assert!(drive.used_bytes() <= used + 1000);
}

#[test]
fn a_machine_dies_on_the_side_of_a_named_moment_that_was_asked_for() {
    for (side, left) in [(Side::Before, b"two"), (Side::After, b"new")] {
        let (drive, disk) = prepared(0);
        let file = disk.create(&path("file"), Create::New).unwrap();
        let other = disk.create(&path("other"), Create::New).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        drive.kill_at(Moment { op: Op::Sync, path: "/file", nth: 2, side });
        file.write_all_at(b"one", 0).unwrap();
        other.sync().unwrap();
        file.write_all_at(b"two", 0).unwrap();
        file.sync().unwrap();
        file.write_all_at(b"new", 0).unwrap();
        assert!(file.sync().is_err(), "nobody is told");
        assert!(drive.is_dead());
        drive.cut_power(Cut { keep: 0.0, tear: 0.0 });
        assert_eq!(read(&drive.mount(), "file").unwrap(), left);
    }
}

#[test]
fn a_failed_sync_may_tell_of_something_long_over() {
    let left = outcomes_of_failed_sync(1.0);
    assert_eq!(left, BTreeSet::from([b"kept".to_vec()]));
    let left = outcomes_of_failed_sync(0.0);
    assert!(left.contains(&Vec::new()), "of what is not synced nothing need be left");
}

/// What is left of a file whose sync failed, over many seeds.
fn outcomes_of_failed_sync(late: f64) -> BTreeSet<Vec<u8>> {
    let cut = |seed| {
        let (drive, disk) = prepared(seed);
        durable(&disk, "file", b"").unwrap();
        let file = disk.create(&path("file"), Create::Truncate).unwrap();
        drive.set_faults(Faults { sync: 1.0, sync_late: late, ..Faults::default() });
        file.write_all_at(b"kept", 0).unwrap();
        assert!(file.sync().is_err());
        drive.kill();
        drive.power_cycle();
        read(&drive.mount(), "file").unwrap()
    };
    (0..SEEDS).map(cut).collect()
}

#[test]
fn a_copied_drive_has_the_same_files_and_goes_its_own_way() {
    let drive = Drive::new(1);
    let disk = drive.mount();
    disk.create_dir_all(Path::new("/a/b")).unwrap();
    let file = disk.create(Path::new("/a/b/c"), Create::New).unwrap();
    file.write_all_at(b"never synced", 0).unwrap();
    let copy = drive.copied(2);
    file.write_all_at(b"NEVER", 0).unwrap();
    drive.kill();
    copy.cut_power(Cut { keep: 0.0, tear: 0.0 });
    let file = copy.mount().open(Path::new("/a/b/c")).unwrap();
    let mut bytes = [0; 12];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"never synced");
    assert!(copy.mount().exists(Path::new("/a/b")).unwrap());
}
