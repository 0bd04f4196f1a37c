//! What every [`Disk`] promises while the power is on.

use std::{io, path::Path};

use crate::disk::{Create, Disk, File};

/// Checks one promise in a directory of its own.
type Law = fn(&dyn Disk, &Path);

/// Every law, each in a directory of its own below `root`, which must exist and be empty.
pub fn all(disk: &dyn Disk, root: &Path) {
    let laws: [(&str, Law); 14] = [
        ("visible", a_write_is_visible_at_once_to_every_handle),
        ("create", new_refuses_a_taken_name_and_truncate_empties_it),
        ("private", a_private_file_is_new_and_its_directory_may_be_there),
        ("missing", a_missing_file_is_not_found),
        ("bounds", a_read_past_the_end_is_refused_and_a_gap_reads_as_zeros),
        ("read-only", an_opened_file_is_read_only),
        ("to write", an_opened_file_is_written_in_place_if_asked_for),
        ("holes", a_hole_reads_as_zeros_and_takes_no_room_until_it_is_written),
        ("rename", a_rename_replaces_and_keeps_open_handles),
        ("move", a_directory_moves_with_what_is_in_it_and_never_over_another),
        ("link", a_second_name_is_given_once_and_outlives_the_first),
        ("remove", a_removed_file_lives_as_long_as_its_handles),
        ("list", a_listing_is_sorted_and_names_full_paths),
        ("lock", a_lock_has_one_holder_until_it_is_dropped),
    ];
    for (name, law) in laws {
        let directory = root.join(name).join("nested");
        ok(disk.create_dir_all(&directory));
        ok(disk.create_dir_all(&directory));
        law(disk, &directory);
        ok(disk.sync_dir(&directory));
    }
}

fn a_write_is_visible_at_once_to_every_handle(disk: &dyn Disk, root: &Path) {
    let path = root.join("file");
    let writer = ok(disk.create(&path, Create::New));
    let reader = ok(disk.open(&path));
    assert!(ok(reader.is_empty()));
    ok(writer.write_all_at(b"hello world", 0));
    ok(writer.write_all_at(b"W", 6));
    assert_eq!(content(&*reader), b"hello World");
    assert_eq!(content(&*writer), b"hello World");
    ok(writer.sync());
    assert_eq!(content(&*ok(disk.open(&path))), b"hello World");
}

fn new_refuses_a_taken_name_and_truncate_empties_it(disk: &dyn Disk, root: &Path) {
    let path = root.join("file");
    ok(ok(disk.create(&path, Create::New)).write_all_at(b"old", 0));
    assert_eq!(kind(disk.create(&path, Create::New)), io::ErrorKind::AlreadyExists);
    assert_eq!(content(&*ok(disk.open(&path))), b"old");
    let emptied = ok(disk.create(&path, Create::Truncate));
    assert!(ok(emptied.is_empty()));
    assert!(ok(ok(disk.create(&root.join("fresh"), Create::Truncate)).is_empty()));
}

fn a_private_file_is_new_and_its_directory_may_be_there(disk: &dyn Disk, root: &Path) {
    let path = root.join("keys").join("deep");
    ok(disk.create_private_dir(&path));
    ok(disk.create_private_dir(&path));
    let file = path.join("file");
    ok(ok(disk.create(&file, Create::Private)).write_all_at(b"secret", 0));
    assert_eq!(kind(disk.create(&file, Create::Private)), io::ErrorKind::AlreadyExists);
    assert_eq!(content(&*ok(disk.open(&file))), b"secret");
}

fn a_missing_file_is_not_found(disk: &dyn Disk, root: &Path) {
    let (missing, other) = (root.join("missing"), root.join("other"));
    assert!(!ok(disk.exists(&missing)));
    assert_eq!(kind(disk.open(&missing)), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.remove(&missing)), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(&missing, &other)), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.list(&missing)), io::ErrorKind::NotFound);
    let orphan = missing.join("file");
    assert_eq!(kind(disk.create(&orphan, Create::New)), io::ErrorKind::NotFound);
}

fn a_read_past_the_end_is_refused_and_a_gap_reads_as_zeros(disk: &dyn Disk, root: &Path) {
    let file = ok(disk.create(&root.join("file"), Create::New));
    ok(file.write_all_at(b"abc", 2));
    assert_eq!(content(&*file), b"\0\0abc");
    let mut four = [0; 4];
    assert_eq!(kind(file.read_exact_at(&mut four, 2)), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(file.read_exact_at(&mut four, 99)), io::ErrorKind::UnexpectedEof);
    ok(file.set_len(3));
    assert_eq!(content(&*file), b"\0\0a");
    ok(file.set_len(5));
    assert_eq!(content(&*file), b"\0\0a\0\0", "what was cut does not come back");
    ok(file.read_exact_at(&mut [], 5));
    assert_eq!(kind(file.read_at(2, 4)), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(file.read_at(99, 1)), io::ErrorKind::UnexpectedEof);
    assert!(ok(file.read_at(5, 0)).is_empty());
    assert_eq!(&ok(file.read_at(1, 3))[..], b"\0a\0");
}

fn an_opened_file_is_read_only(disk: &dyn Disk, root: &Path) {
    let path = root.join("file");
    ok(ok(disk.create(&path, Create::New)).write_all_at(b"kept", 0));
    let reader = ok(disk.open(&path));
    assert!(reader.write_all_at(b"lost", 0).is_err());
    assert!(reader.set_len(0).is_err());
    assert_eq!(content(&*reader), b"kept");
}

fn a_rename_replaces_and_keeps_open_handles(disk: &dyn Disk, root: &Path) {
    let (from, to) = (root.join("from"), root.join("to"));
    ok(ok(disk.create(&from, Create::New)).write_all_at(b"new", 0));
    ok(ok(disk.create(&to, Create::New)).write_all_at(b"old", 0));
    let old = ok(disk.open(&to));
    ok(disk.rename(&from, &to));
    assert!(!ok(disk.exists(&from)));
    assert_eq!(content(&*ok(disk.open(&to))), b"new");
    assert_eq!(content(&*old), b"old");
}

fn a_directory_moves_with_what_is_in_it_and_never_over_another(disk: &dyn Disk, root: &Path) {
    let (from, to) = (root.join("from"), root.join("to"));
    ok(disk.create_dir_all(&from.join("deep")));
    let file = ok(disk.create(&from.join("deep").join("file"), Create::New));
    let lock = ok(disk.lock(&from.join("lock"))).expect("it is free");
    ok(file.write_all_at(b"content", 0));
    ok(disk.create_dir_all(&to));
    let full = root.join("full");
    ok(disk.create_dir_all(&full.join("kept")));
    assert_eq!(kind(disk.rename(&from, &full)), io::ErrorKind::DirectoryNotEmpty);
    ok(disk.create(&root.join("plain"), Create::New));
    assert_eq!(kind(disk.rename(&from, &root.join("plain"))), io::ErrorKind::NotADirectory);
    assert_eq!(kind(disk.rename(&root.join("plain"), &to)), io::ErrorKind::IsADirectory);
    ok(disk.rename(&from, &to));
    assert!(!ok(disk.exists(&from)));
    assert_eq!(content(&*ok(disk.open(&to.join("deep").join("file")))), b"content");
    assert!(ok(disk.lock(&to.join("lock"))).is_none(), "a lock moves along");
    drop(lock);
    assert!(ok(disk.lock(&to.join("lock"))).is_some());
}

fn a_second_name_is_given_once_and_outlives_the_first(disk: &dyn Disk, root: &Path) {
    let (from, to, other) = (root.join("from"), root.join("to"), root.join("other"));
    let file = ok(disk.create(&from, Create::New));
    ok(file.write_all_at(b"one", 0));
    ok(disk.link(&from, &to));
    ok(file.write_all_at(b"two", 0));
    assert_eq!(content(&*ok(disk.open(&to))), b"two", "one file, two names");
    ok(disk.create(&other, Create::New));
    for taken in [&to, &from, &other] {
        assert_eq!(kind(disk.link(&from, taken)), io::ErrorKind::AlreadyExists);
    }
    assert_eq!(kind(disk.link(&root.join("missing"), &root.join("new"))), io::ErrorKind::NotFound);
    ok(disk.remove(&from));
    ok(disk.sync_dir(root));
    assert_eq!(content(&*ok(disk.open(&to))), b"two");
}

fn a_removed_file_lives_as_long_as_its_handles(disk: &dyn Disk, root: &Path) {
    let path = root.join("file");
    let file = ok(disk.create(&path, Create::New));
    ok(file.write_all_at(b"still here", 0));
    ok(disk.remove(&path));
    ok(disk.sync_dir(root));
    assert!(!ok(disk.exists(&path)));
    assert_eq!(content(&*file), b"still here");
    assert!(ok(ok(disk.create(&path, Create::New)).is_empty()), "the name is free again");
}

fn a_listing_is_sorted_and_names_full_paths(disk: &dyn Disk, root: &Path) {
    for name in ["c", "a", "b"] {
        ok(disk.create(&root.join(name), Create::New));
    }
    ok(disk.create_dir_all(&root.join("d").join("deep")));
    let names = ["a", "b", "c", "d"].map(|name| root.join(name));
    assert_eq!(ok(disk.list(root)), names);
}

fn a_lock_has_one_holder_until_it_is_dropped(disk: &dyn Disk, root: &Path) {
    let path = root.join("lock");
    let held = ok(disk.lock(&path)).expect("nobody holds it");
    ok(held.describe("a much longer first holder"));
    ok(held.describe("holder 2"));
    assert!(ok(disk.lock(&path)).is_none());
    assert_eq!(content(&*ok(disk.open(&path))), b"holder 2");
    drop(held);
    assert!(ok(disk.lock(&path)).is_some());
}

fn an_opened_file_is_written_in_place_if_asked_for(disk: &dyn Disk, root: &Path) {
    let path = root.join("file");
    assert_eq!(kind(disk.open_to_write(&path)), io::ErrorKind::NotFound);
    ok(ok(disk.create(&path, Create::New)).write_all_at(b"some bytes", 0));
    let reader = ok(disk.open(&path));
    let writer = ok(disk.open_to_write(&path));
    ok(writer.write_all_at(b"more", 0));
    ok(writer.sync());
    assert_eq!(content(&*reader), b"more bytes");
    assert_eq!(content(&*writer), b"more bytes");
}

fn a_hole_reads_as_zeros_and_takes_no_room_until_it_is_written(disk: &dyn Disk, root: &Path) {
    const LEN: u64 = 4 << 20;
    let path = root.join("file");
    let file = ok(disk.create(&path, Create::New));
    assert_eq!(ok(file.allocated()), 0);
    ok(file.set_len(LEN));
    ok(file.write_all_at(b"head", 0));
    ok(file.write_all_at(b"tail", LEN - 4));
    ok(file.sync());
    assert_eq!(ok(file.len()), LEN);
    let ends = ok(file.allocated());
    assert!((8..LEN / 4).contains(&ends), "{ends} bytes are taken");
    let mut middle = [1; 64];
    ok(file.read_exact_at(&mut middle, LEN / 2));
    assert_eq!(middle, [0; 64]);
    ok(file.write_all_at(&vec![7; 1 << 20], 1 << 20));
    ok(file.sync());
    let filled = ok(ok(disk.open(&path)).allocated());
    assert!((1 << 20..LEN / 2).contains(&filled), "{filled} bytes are taken");
    ok(file.set_len(0));
    ok(file.sync());
    assert_eq!(ok(file.allocated()), 0);
}

/// All bytes of a file.
pub fn content(file: &dyn File) -> Vec<u8> {
    let len = usize::try_from(ok(file.len())).expect("files of tests fit memory");
    let mut bytes = vec![0; len];
    ok(file.read_exact_at(&mut bytes, 0));
    bytes
}

#[track_caller]
fn ok<T>(result: io::Result<T>) -> T {
    result.expect("a healthy disk serves this")
}

#[track_caller]
fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("the contract refuses this").kind()
}
