//! What was pushed is what is read.

use std::{collections::BTreeMap, path::Path, time::Duration};

use proptest::{collection::vec, prelude::*};
use weir_io::{disk::Create as How, memory::Machine};

use super::*;
use crate::{
    ledger::{Address, Op},
    limits::BLOCK_BYTES_TARGET,
};

/// Writes the bytes into a file of a simulated machine and opens it there.
fn from_disk(bytes: &[u8]) -> Arc<Ledger> {
    let world = Machine::new(1).boot(Duration::ZERO);
    let path = Path::new("/ledger");
    world.disk.create(path, How::New).unwrap().write_all_at(bytes, 0).unwrap();
    Arc::new(Ledger::open(Source::File(world.disk.open(path).unwrap())).unwrap())
}

#[test]
fn a_row_of_every_table_is_read_back() {
    let changes: Vec<Change> = rows().iter().map(Row::put).collect();
    let (bytes, _) = write((1, 12), &changes, &[]);
    let (read, _) = contents(&open(bytes));
    let read: Vec<Row> = read.iter().map(|it| Row::decode(it).unwrap().unwrap()).collect();
    assert_eq!(format!("{read:?}"), format!("{:?}", rows()));
}

#[test]
fn a_deletion_is_no_row() {
    for row in rows() {
        let key = row.address().key();
        for change in [Change::delete(key.clone()), Change::delete_below(key)] {
            assert!(Row::decode(&change).unwrap().is_none());
        }
    }
}

#[test]
fn an_empty_ledger_is_one() {
    let (bytes, footer) = write((5, 5), &[], &[]);
    let ledger = open(bytes);
    assert_eq!(ledger.footer(), &footer);
    assert_eq!((ledger.store(), ledger.id()), (STORE, SegmentId::new(7)));
    assert_eq!(contents(&ledger), (Vec::new(), Vec::new()));
    let (bytes, _) = write((5, 5), &[], &[(6, b"x")]);
    assert_eq!(contents(&open(bytes)).1, [(Lsn::new(6), Bytes::from_static(b"x"))]);
}

#[test]
fn large_rows_and_commits_have_blocks_of_their_own() {
    let large = noise(1, 3 * BLOCK_BYTES_TARGET);
    let changes = [put("a", b"1"), put("b", &large), put("c", b"3")];
    let (bytes, footer) = write((1, 1), &changes, &[(2, b"1"), (3, &large), (4, b"3")]);
    assert_eq!((footer.row_blocks, footer.tail_blocks), (3, 3));
    let (read, tail) = contents(&open(bytes));
    assert_eq!(read, changes);
    assert_eq!(tail[1], (Lsn::new(3), large.into()));
}

#[test]
fn many_small_rows_share_blocks_that_shrink() {
    let changes: Vec<Change> =
        (0..20_000).map(|at| put(&format!("key {at:08}"), b"much the same")).collect();
    let (bytes, footer) = write((1, 1), &changes, &[]);
    let raw = usize::try_from(footer.raw_bytes).unwrap();
    assert!(usize::try_from(footer.row_blocks).unwrap() <= raw / (BLOCK_BYTES_TARGET - 64) + 1);
    assert!(bytes.len() < raw / 4, "{} of {raw}", bytes.len());
    assert_eq!(contents(&open(bytes)).0, changes);
}

#[test]
fn keys_sort_by_number_and_parts_lie_below() {
    let p = |text: &str| ProducerId::new(text).unwrap();
    let stream = StreamId::new;
    let ordered = [
        Address::Stream(stream(1)),
        Address::Producer(stream(1), p("a")),
        Address::Producer(stream(1), p("b")),
        Address::Stream(stream(2)),
        Address::Stream(stream(256)),
        Address::Producer(stream(256), p("a")),
        Address::Tombstone(name("a")),
        Address::Subscription(Number::new(1)),
        Address::Link(Number::new(1), name("a")),
        Address::Subscription(Number::new(300)),
    ];
    assert!(ordered.iter().map(Address::key).is_sorted());
    for whole in &ordered {
        for part in &ordered {
            let below = match (whole, part) {
                (Address::Stream(whole), Address::Producer(part, _)) => whole == part,
                (Address::Subscription(whole), Address::Link(part, _)) => whole == part,
                _ => whole == part,
            };
            assert_eq!(part.key().is_below(&whole.key()), below, "{part} below {whole}");
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop_oneof![
        9 => vec(any::<u8>(), 0..80),
        1 => (any::<u64>(), 1..90_000usize).prop_map(|(seed, len)| noise(seed, len)),
    ];
    prop_oneof![
        1 => Just(Op::DeleteBelow),
        1 => Just(Op::Delete),
        4 => value.prop_map(|value| Op::Put(value.into())),
    ]
}

fn arbitrary_address() -> impl Strategy<Value = Address> {
    (0..5u8, any::<u64>(), "[a-zé]{1,9}").prop_map(|(table, id, text)| match table {
        0 => Address::Stream(StreamId::new(id)),
        1 => Address::Producer(StreamId::new(id), ProducerId::new(&text).unwrap()),
        2 => Address::Tombstone(name(&text)),
        3 => Address::Subscription(Number::new(id)),
        _ => Address::Link(Number::new(id), name(&text)),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn roundtrip(
        ops in prop::collection::btree_map(vec(any::<u8>(), 0..20), op(), 0..60),
        tail in prop::collection::btree_map(any::<u64>(), vec(any::<u8>(), 0..9000), 0..30),
    ) {
        let changes: Vec<Change> = ops
            .into_iter()
            .map(|(key, op)| Change { key: Key::new(key.into()), op })
            .collect();
        let commits: Vec<(u64, &[u8])> = tail.iter().map(|(lsn, it)| (*lsn, &it[..])).collect();
        let (bytes, footer) = write((3, 9), &changes, &commits);
        for ledger in [from_disk(&bytes), open(bytes)] {
            prop_assert_eq!(ledger.footer(), &footer);
            let (read, commits) = contents(&ledger);
            prop_assert_eq!(&read, &changes);
            let commits: BTreeMap<u64, Vec<u8>> =
                commits.into_iter().map(|(lsn, bytes)| (lsn.get(), bytes.to_vec())).collect();
            prop_assert_eq!(&commits, &tail);
        }
        let deletions = changes.iter().filter(|it| !matches!(it.op, Op::Put(_))).count();
        prop_assert_eq!(footer.deletions, u64::try_from(deletions).unwrap());
        prop_assert_eq!(footer.rows, u64::try_from(changes.len()).unwrap());
    }

    #[test]
    fn addresses_round_trip(address in arbitrary_address()) {
        let key = address.key();
        prop_assert_eq!(key.to_string(), address.to_string());
        prop_assert_eq!(Address::parse(&key), Ok(address));
    }

    #[test]
    fn stored_keys_and_values_never_panic(
        kind in 0..6usize,
        key in vec(prop_oneof![0..4u8, any::<u8>()], 0..14),
        value in vec(prop_oneof![0..4u8, any::<u8>()], 0..60),
    ) {
        let key = rows().get(kind).map_or(Key::new(key.into()), |row| row.address().key());
        drop(key.to_string());
        drop(Row::decode(&Change::put(key, value.into())));
    }

    #[test]
    fn mutated_values_never_panic(
        kind in 0..5usize,
        at: prop::sample::Index,
        byte: u8,
    ) {
        let Change { key, op: Op::Put(value) } = rows()[kind].put() else { unreachable!() };
        let mut value = value.to_vec();
        let at = at.index(value.len());
        value[at] = byte;
        drop(Row::decode(&Change::put(key, value.into())));
    }
}
