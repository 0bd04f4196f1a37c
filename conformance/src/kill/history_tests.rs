//! Every lie a server could tell is told once, and must be noticed.

use super::{History, Transcript};
use crate::kill::record::Request;

const SEED: u64 = 11;

fn request((writer, number): (u64, u64)) -> Request {
    Request { writer, number }
}

/// A read of these requests; offsets are made from the length, as a real
/// server's are from the tail.
fn read(requests: &[(u64, u64)]) -> Transcript {
    let mut transcript = Transcript::default();
    for each in requests {
        transcript.bytes.extend(request(*each).lines(SEED).concat().into_bytes());
    }
    transcript.marks = vec![(offset(requests), transcript.bytes.len())];
    transcript
}

fn offset(requests: &[(u64, u64)]) -> String {
    let length: usize = requests.iter().map(|each| request(*each).lines(SEED).concat().len()).sum();
    format!("{length:08}")
}

/// Two writers, four acknowledged requests and one of unknown outcome.
fn known() -> (History, Vec<(u64, u64)>) {
    let order = vec![(1, 0), (2, 0), (1, 1), (2, 1)];
    let mut history = History::new(SEED);
    for until in 1..=order.len() {
        history.acked(request(order[until - 1]), Some(offset(&order[..until])));
    }
    history.unknown(request((1, 2)));
    (history, order)
}

#[track_caller]
fn check(requests: &[(u64, u64)], readers: &[&Transcript], expect: Result<(), &str>) {
    let (mut history, _) = known();
    let outcome = history.check(&read(requests), readers);
    let told = outcome.map_err(|error| format!("{error:#}"));
    match expect {
        Ok(()) => assert_eq!(told, Ok(())),
        Err(part) => {
            let told = told.expect_err("a lie is noticed");
            assert!(told.contains(part), "{told}");
        }
    }
}

#[test]
fn the_truth_is_believed() {
    let (_, order) = known();
    check(&order, &[], Ok(()));
    let with_unknown = [&order[..], &[(1, 2)]].concat();
    check(&with_unknown, &[&read(&order), &read(&order[..2])], Ok(()));
}

#[test]
fn a_lost_a_repeated_and_a_moved_record_are_noticed() {
    check(&[(1, 0), (2, 0), (1, 1)], &[], Err("acknowledged and is lost"));
    check(&[(1, 0), (2, 0), (1, 1), (1, 1), (2, 1)], &[], Err("repeated or out of order"));
    check(&[(1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (1, 2)], &[], Err("repeated"));
    check(&[(1, 1), (2, 0), (1, 0), (2, 1)], &[], Err("out of order"));
    check(&[(1, 0), (2, 0), (1, 1), (2, 1), (1, 3)], &[], Err("never sent"));
    check(&[(2, 0), (1, 0), (1, 1), (2, 1)], &[], Err("sorts before"));
}

#[test]
fn what_a_reader_saw_must_stay() {
    let (_, order) = known();
    let ahead = read(&[&order[..], &[(1, 2)]].concat());
    check(&order, &[&ahead], Err("live reader 0 saw is no longer there"));
    let mut partial = read(&order);
    let torn = request((1, 2)).lines(SEED).concat().into_bytes();
    partial.bytes.extend_from_slice(&torn[..3]);
    check(&order, &[&read(&order), &partial], Err("live reader 1 saw"));
}

#[test]
fn an_offset_means_one_place_for_ever() {
    let (mut history, order) = known();
    history.check(&read(&order), &[]).expect("the truth");
    // The same bytes, but a read ends elsewhere than the offset it names.
    let mut moved = read(&order);
    moved.marks = vec![(offset(&order[..2]), moved.bytes.len())];
    let told = history.clone().check(&moved, &[]).expect_err("noticed");
    assert!(format!("{told:#}").contains("stood at byte"), "{told:#}");
    // A new offset that sorts before older ones.
    let longer = [&order[..], &[(1, 2)]].concat();
    let mut behind = read(&longer);
    behind.marks = vec![("00000000".to_owned(), behind.bytes.len())];
    let told = history.check(&behind, &[]).expect_err("noticed");
    assert!(format!("{told:#}").contains("sorts before"), "{told:#}");
}

#[test]
fn a_later_read_keeps_what_an_earlier_one_showed() {
    let (mut history, order) = known();
    let longer = [&order[..], &[(1, 2)]].concat();
    history.check(&read(&longer), &[]).expect("the unknown one is there");
    let told = history.check(&read(&order), &[]).expect_err("noticed");
    assert!(format!("{told:#}").contains("the last complete read"), "{told:#}");
}
