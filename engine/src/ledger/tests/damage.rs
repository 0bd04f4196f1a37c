//! No flipped bit, no cut and no crafted byte yields wrong rows or a panic; and what is not
//! damaged can be read.

use std::{path::Path, time::Duration};

use proptest::prelude::*;
use weir_io::{
    disk::Create as How,
    memory::{Faults, Machine},
};

use super::*;
use crate::ledger::{
    ReadError,
    block::{BLOCK_HEADER_LEN, Bounds, Entry, decode_rows, decode_tail, encode},
    format::{Damaged, FOOTER_LEN, HEADER_LEN, Section, TRAILER_LEN},
};

/// Three blocks of rows, two of commits; all but the last of each hold more than one.
fn sample() -> (Bytes, Footer) {
    let changes = [
        put("a", &[b'x'; 300]),
        Change::delete_below(key("b")),
        put("b", b"2"),
        put("c", &[b'y'; 65_400]),
        Change::delete(key("d")),
        put("e", &[b'z'; 65_400]),
    ];
    write((4, 9), &changes, &[(10, &[b'c'; 65_000]), (11, b"d"), (12, &[b'e'; 65_000])])
}

fn read_all(bytes: Bytes) -> Result<(), ReadError> {
    let ledger = Arc::new(Ledger::open(Source::Memory(bytes))?);
    for change in ledger.rows() {
        drop(Row::decode(&change.map_err(|lost| lost.error)?));
    }
    ledger.commits().try_for_each(|commit| commit.map(drop).map_err(|lost| lost.error))
}

fn damage(bytes: &Bytes, at: usize, change: impl Fn(u8) -> u8) -> Bytes {
    let mut damaged = bytes.to_vec();
    damaged[at] = change(damaged[at]);
    damaged.into()
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

#[test]
fn the_sample_is_what_it_is_meant_to_be() {
    let (bytes, footer) = sample();
    assert_eq!((footer.row_blocks, footer.tail_blocks), (3, 2));
    assert!(bytes.len() < 2000, "every byte of it can be damaged in turn");
    read_all(bytes).unwrap();
}

#[test]
fn every_flipped_bit_is_found_and_its_section_named() {
    let (bytes, footer) = sample();
    let ledger = open(bytes.clone());
    let offsets: Vec<usize> = ledger.index().iter().map(|entry| to_usize(entry.offset)).collect();
    let trailer = bytes.len() - TRAILER_LEN;
    for at in 0..bytes.len() {
        let section = if at < HEADER_LEN {
            Section::Header
        } else if at < to_usize(footer.index.offset) {
            let before = offsets.iter().filter(|&&offset| offset <= at).count();
            Section::Block(u32::try_from(before - 1).unwrap())
        } else if at < trailer - FOOTER_LEN {
            Section::Index
        } else if at < trailer {
            Section::Footer
        } else {
            Section::Trailer
        };
        for bit in 0..8 {
            match read_all(damage(&bytes, at, |byte| byte ^ (1 << bit))) {
                Err(ReadError::Damaged(found)) => assert_eq!(found.section, section, "{at}"),
                other => panic!("bit {bit} of byte {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_file_of_any_other_length_is_refused() {
    let (bytes, _) = sample();
    for len in 0..bytes.len() {
        let error = read_all(bytes.slice(..len)).unwrap_err();
        assert!(matches!(error, ReadError::Damaged(_)), "{len}: {error}");
    }
    let longer = [&bytes[..], b"\0"].concat();
    assert!(matches!(read_all(longer.into()), Err(ReadError::Damaged(_))));
}

#[test]
fn a_damaged_block_costs_its_own_keys_only() {
    let (bytes, _) = sample();
    let entries = open(bytes.clone()).index().to_vec();
    let whole = contents(&open(bytes.clone()));
    for (no, entry) in entries.iter().enumerate() {
        let ledger = open(damage(&bytes, to_usize(entry.offset) + 30, |byte| byte ^ 1));
        let (mut rows, mut named) = (Vec::new(), Vec::new());
        for change in ledger.rows() {
            match change {
                Ok(change) => rows.push(change),
                Err(lost) => {
                    assert!(std::error::Error::source(&lost).is_some());
                    named.push((
                        lost.block,
                        lost.rows,
                        Bounds::Rows { first: lost.first, last: lost.last },
                    ));
                }
            }
        }
        let mut commits = Vec::new();
        for commit in ledger.commits() {
            match commit {
                Ok(commit) => commits.push(commit),
                Err(lost) => {
                    let (first, last) = (lost.first, lost.last);
                    named.push((lost.block, entry.count, Bounds::Tail { first, last }));
                }
            }
        }
        let no = u32::try_from(no).unwrap();
        assert_eq!(named, [(no, entry.count, entry.bounds.clone())]);
        let mut expected = whole.clone();
        match &entry.bounds {
            Bounds::Rows { first, last } => {
                expected.0.retain(|it| it.key < *first || it.key > *last);
            }
            Bounds::Tail { first, last } => {
                expected.1.retain(|(lsn, _)| lsn < first || lsn > last);
            }
        }
        assert_ne!(expected, whole);
        assert_eq!((rows, commits), expected);
    }
}

#[test]
fn a_block_of_another_ledger_is_not_taken() {
    // Right in itself, of the same length and the same keys.
    let (old, _) = write((1, 1), &[put("a", b"old")], &[]);
    let (new, _) = write((1, 1), &[put("a", b"new")], &[]);
    let mut mixed = new.to_vec();
    let end = to_usize(open(new.clone()).footer().index.offset);
    mixed[HEADER_LEN..end].copy_from_slice(&old[HEADER_LEN..end]);
    let expected =
        Damaged { section: Section::Block(0), at: 64, reason: "checksum differs from the index" };
    match read_all(mixed.into()) {
        Err(ReadError::Damaged(found)) => assert_eq!(found, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refusing_disk_is_no_damage() {
    let machine = Machine::new(1);
    let world = machine.boot(Duration::ZERO);
    let path = Path::new("/ledger");
    world.disk.create(path, How::New).unwrap().write_all_at(&sample().0, 0).unwrap();
    let file = world.disk.open(path).unwrap();
    let ledger = Arc::new(Ledger::open(Source::File(Arc::clone(&file))).unwrap());
    machine.drive().set_faults(Faults { read: 1.0, ..Faults::default() });
    let failed = |error: &ReadError| matches!(error, ReadError::Failed { .. });
    assert!(Ledger::open(Source::File(file)).is_err_and(|error| failed(&error)));
    assert!(ledger.rows().all(|it| it.is_err_and(|lost| failed(&lost.error))));
    assert!(ledger.commits().all(|it| it.is_err_and(|lost| failed(&lost.error))));
    machine.drive().set_faults(Faults::default());
    assert_eq!(contents(&ledger).0.len(), 6);
}

/// Makes every checksum right again, as a forger would. The layout must be as written.
fn reseal(bytes: &mut [u8], original: &Bytes) {
    let ledger = open(original.clone());
    let mut put = |at: usize, covered: std::ops::Range<usize>| {
        let crc = crc32c::crc32c(&bytes[covered]).to_le_bytes();
        bytes[at..at + 4].copy_from_slice(&crc);
    };
    put(HEADER_LEN - 4, 0..HEADER_LEN - 4);
    let index_at = to_usize(ledger.footer().index.offset);
    let mut entry_at = index_at;
    for entry in ledger.index() {
        let start = to_usize(entry.offset);
        let body = start + BLOCK_HEADER_LEN..start + to_usize(entry.whole_len());
        put(start + 16, body.clone());
        put(start + 20, start..start + 20);
        put(entry_at + 16, body);
        let mut encoded = BytesMut::new();
        entry.encode(&mut encoded);
        entry_at += encoded.len();
    }
    let trailer_at = original.len() - TRAILER_LEN;
    let footer_at = trailer_at - FOOTER_LEN;
    put(footer_at + FOOTER_LEN - 4, index_at..footer_at);
    put(trailer_at + 12, footer_at..trailer_at);
    put(trailer_at + 16, trailer_at..trailer_at + 16);
}

#[test]
fn a_forged_byte_with_right_checksums_never_panics() {
    let (bytes, _) = sample();
    let mut resealed = bytes.to_vec();
    reseal(&mut resealed, &bytes);
    assert_eq!(resealed, bytes, "the checksums are where this test thinks they are");
    let mut refused = 0;
    for at in 0..bytes.len() {
        for value in [0, 1, 2, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(1)] {
            let mut forged = bytes.to_vec();
            forged[at] = value;
            reseal(&mut forged, &bytes);
            refused += usize::from(read_all(forged.into()).is_err());
        }
    }
    assert!(refused > bytes.len(), "most of what is forged contradicts something: {refused}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_forged_file_never_panics(
        forgeries in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (bytes, _) = sample();
        let mut forged = bytes.to_vec();
        for (index, value) in forgeries {
            forged[index.index(bytes.len())] = value;
        }
        reseal(&mut forged, &bytes);
        drop(read_all(forged.into()));
    }

    #[test]
    fn arbitrary_content_never_panics(
        raw in prop::collection::vec(prop_oneof![3 => 0..8u8, 1 => any::<u8>()], 0..120),
        count in 1..4u32,
    ) {
        let bounds = [
            Bounds::Rows { first: key(""), last: key("") },
            Bounds::Tail { first: Lsn::ZERO, last: Lsn::ZERO },
        ];
        for bounds in bounds {
            let (stored, entry): (_, Entry) = encode(0, count, &raw, bounds);
            let stored = stored.freeze();
            drop(decode_rows(0, &entry, &stored));
            drop(decode_tail(0, &entry, &stored));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read_all(bytes.into()).is_err());
    }
}
