//! Ledgers laid over each other say what a map says that they were applied to one by one.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::ledger::{Below, Merge, MergeError, Op, Tail, format::HEADER_LEN, merge as merge_into};

type Model = BTreeMap<Vec<u8>, Bytes>;

/// What a store is after a ledger's changes.
fn apply(model: &mut Model, changes: &[Change]) {
    for change in changes.iter().filter(|change| change.op == Op::DeleteBelow) {
        model.retain(|key, _| !key.starts_with(change.key.bytes()));
    }
    for change in changes {
        let key = change.key.bytes().to_vec();
        match &change.op {
            Op::DeleteBelow => {}
            Op::Delete => drop(model.remove(&key)),
            Op::Put(value) => drop(model.insert(key, value.clone())),
        }
    }
}

/// Ledgers in memory, oldest first, one commit each.
fn ledgers(all: &[Vec<Change>]) -> Vec<Arc<Ledger>> {
    let one = |(at, changes): (usize, &Vec<Change>)| {
        let lsn = u64::try_from(at).unwrap() + 1;
        open(write((lsn, lsn), changes, &[]).0)
    };
    all.iter().enumerate().map(one).collect()
}

fn merged(all: &[Vec<Change>], below: Below) -> Vec<Change> {
    Merge::new(&ledgers(all), below).collect::<Result<_, _>>().unwrap()
}

/// Keys of few letters, so that many are prefixes of others.
fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = (vec(b'a'..=b'c', 0..4), 0..4u8, any::<u8>());
    vec(change, 0..14).prop_map(|changes| {
        let changes = changes.into_iter().map(|(key, kind, value)| {
            let op = match kind {
                0 => Op::DeleteBelow,
                1 => Op::Delete,
                _ => Op::Put(Bytes::from(vec![value])),
            };
            Change { key: Key::new(key.into()), op }
        });
        let mut kept: Vec<Change> = Vec::new();
        let sorted: std::collections::BTreeSet<Change> = changes.collect();
        for change in sorted {
            if kept.last().is_none_or(|before| change.may_follow(before)) {
                kept.push(change);
            }
        }
        kept
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_the_model(
        base in changes(),
        all in vec(changes(), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut model = Model::new();
        apply(&mut model, &base);
        let mut over_base = model.clone();
        all.iter().for_each(|changes| apply(&mut model, changes));

        let together = merged(&all, Below::Others);
        apply(&mut over_base, &together);
        prop_assert_eq!(&over_base, &model, "over what lies below");

        let whole = [&[base][..], &all].concat();
        let alone = merged(&whole, Below::Nothing);
        prop_assert!(alone.iter().all(|change| matches!(change.op, Op::Put(_))));
        let alone: Model = alone
            .into_iter()
            .map(|change| {
                let Op::Put(value) = change.op else { unreachable!("just looked") };
                (change.key.bytes().to_vec(), value)
            })
            .collect();
        prop_assert_eq!(&alone, &model, "with nothing below");

        // Whatever was merged before.
        let (older, newer) = all.split_at(cut.index(all.len() + 1));
        let parts: Vec<Vec<Change>> = [older, newer]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(|part| merged(part, Below::Others))
            .collect();
        prop_assert_eq!(merged(&parts, Below::Others), together, "in two steps");
    }
}

#[test]
fn a_recreated_row_outlives_the_deletion_before_it() {
    let older = vec![put("s", b"old"), put("s1", b"part")];
    let newer = vec![Change::delete_below(key("s")), put("s", b"new")];
    let both = [older, newer.clone()];
    assert_eq!(merged(&both, Below::Others), newer);
    assert_eq!(merged(&both, Below::Nothing), [put("s", b"new")]);
}

#[test]
fn the_tail_of_the_newest_is_kept() {
    let tail: [(u64, &[u8]); 2] = [(7, b"seven"), (9, b"nine")];
    let inputs = [
        open(write((1, 3), &[put("a", b"1")], &[(4, b"four")]).0),
        open(write((4, 6), &[put("b", b"2")], &tail).0),
    ];
    let mut bytes = BytesMut::new();
    let mut sink = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let mut builder = Builder::new(STORE, SegmentId::new(8), &mut sink).unwrap();
    merge_into(&inputs, Below::Others, Tail::Keep, &mut builder).unwrap();
    let footer = builder.finish(Lsn::new(1), Lsn::new(6)).unwrap();
    assert_eq!(footer.commits, 2);
    let (changes, commits) = contents(&open(bytes.freeze()));
    assert_eq!(changes, [put("a", b"1"), put("b", b"2")]);
    let commits: Vec<(u64, &[u8])> = commits.iter().map(|(at, it)| (at.get(), &it[..])).collect();
    assert_eq!(commits, tail);
}

/// Two ledgers of the same keys, a block for each; the newer one's second block is damaged.
fn with_damage() -> Vec<Arc<Ledger>> {
    let all = |fill: u8| -> Vec<Change> {
        ["a", "b", "c"].iter().map(|key| put(key, &vec![fill; 60_000])).collect()
    };
    let older = open(write((1, 1), &all(b'o'), &[]).0);
    let (bytes, _) = write((2, 2), &all(b'n'), &[]);
    let at = usize::try_from(open(bytes.clone()).index()[1].offset).unwrap();
    assert!(at > HEADER_LEN);
    let mut bytes = bytes.to_vec();
    bytes[at + 25] ^= 1;
    vec![older, open(bytes.into())]
}

#[test]
fn what_is_lost_is_said_before_older_rows_show_through() {
    let mut said = Vec::new();
    for change in Merge::new(&with_damage(), Below::Nothing) {
        said.push(match change {
            Ok(Change { key, op: Op::Put(value) }) => {
                (String::from_utf8(key.bytes().to_vec()).unwrap(), char::from(value[0]))
            }
            Ok(other) => panic!("{other:?}"),
            Err(lost) => {
                assert_eq!((lost.first, lost.last, lost.rows), (key("b"), key("b"), 1));
                ("lost".to_owned(), '!')
            }
        });
    }
    let said: Vec<(&str, char)> = said.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    assert_eq!(said, [("lost", '!'), ("a", 'n'), ("b", 'o'), ("c", 'n')]);
}

#[test]
fn damage_at_the_end_is_said_too() {
    let (bytes, _) = write((1, 1), &[put("a", &[1; 60_000]), put("b", &[2; 60_000])], &[]);
    let at = usize::try_from(open(bytes.clone()).index()[1].offset).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    let said: Vec<bool> =
        Merge::new(&[open(bytes.into())], Below::Nothing).map(|it| it.is_ok()).collect();
    assert_eq!(said.iter().filter(|is_ok| !**is_ok).count(), 1);
    assert_eq!(said.len(), 2);
}

#[test]
fn a_damaged_input_has_no_merged_result() {
    let mut sink = |_: &[u8]| Ok(());
    let mut builder = Builder::new(STORE, SegmentId::new(8), &mut sink).unwrap();
    let error = merge_into(&with_damage(), Below::Others, Tail::Keep, &mut builder).unwrap_err();
    assert!(matches!(error, MergeError::Rows(_)), "{error}");
}
