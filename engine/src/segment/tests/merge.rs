//! Merging gives the union, once, without what nobody keeps.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::segment::{MergeError, ReadError, format::Section, merge, merge::Keep};

/// The bytes of the merged segment.
fn merged(inputs: &[Arc<Segment>], keep: &dyn Fn(StreamId) -> Keep) -> Result<Vec<u8>, MergeError> {
    let mut bytes = Vec::new();
    let mut sink = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let mut builder = Builder::new(STORE, SegmentId::new(8), Codec::None, &mut sink)?;
    merge(inputs, keep, &mut builder)?;
    builder.finish(Lsn::new(1), Lsn::new(2))?;
    Ok(bytes)
}

fn all(_: StreamId) -> Keep {
    vec![Seq::ZERO..Seq::LAST]
}

fn keep(stream: StreamId) -> Keep {
    let middle = Seq::new(1 << 39);
    match stream.get() % 5 {
        0 => Vec::new(),
        1 => vec![middle..Seq::LAST],
        2 => vec![Seq::ZERO..middle],
        // One record in three, so that parts are kept in pieces.
        3 => (0..1000).map(|at| Seq::new(3 * at)..Seq::new(3 * at + 1)).collect(),
        _ => all(stream),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_union_of_overlapping_inputs_is_written_once(
        input in input(),
        homes in prop::collection::vec(1..8u8, 128),
    ) {
        let mut inputs: Vec<Input> = vec![Input::new(); 3];
        for (piece, home) in input.iter().zip(&homes) {
            for (at, target) in inputs.iter_mut().enumerate() {
                if home >> at & 1 == 1 {
                    target.push(piece.clone());
                }
            }
        }
        let segments: Vec<_> =
            inputs.iter().map(|input| Arc::new(open(write(input, Codec::None).0))).collect();
        let whole_input: Input = input.iter().take(homes.len()).cloned().collect();

        let whole = merged(&segments, &all).unwrap();
        prop_assert_eq!(&whole, &merged(&[Arc::new(open(whole.clone()))], &all).unwrap());
        prop_assert_eq!(contents(&open(whole)), model(&whole_input));

        let mut expected = model(&whole_input);
        expected.retain(|stream, records| {
            let ranges = keep(*stream);
            records.retain(|at, _| ranges.iter().any(|range| range.contains(at)));
            !records.is_empty()
        });
        prop_assert_eq!(contents(&open(merged(&segments, &keep).unwrap())), expected);
    }
}

#[test]
fn a_damaged_input_stops_the_merge() {
    let input =
        vec![(StreamId::new(1), Form::Text, chunk(0, 1, None, Form::Text, &[b"one", b"two"]))];
    let (mut bytes, _) = write(&input, Codec::None);
    bytes[70] ^= 1;
    let error = merged(&[Arc::new(open(bytes))], &all).unwrap_err();
    let MergeError::Read(ReadError::Damaged(damaged)) = error else { panic!("{error}") };
    assert!(matches!(damaged.section, Section::Block(_)));
}

#[test]
fn a_refused_write_stops_the_builder() {
    let mut left = 2;
    let mut sink = |_: &[u8]| {
        left -= 1;
        if left == 0 { Err(io::Error::other("full")) } else { Ok(()) }
    };
    let mut builder = Builder::new(STORE, SegmentId::new(1), Codec::None, &mut sink).unwrap();
    let chunk = chunk(0, 1, None, Form::Text, &[b"one"]);
    builder.push(StreamId::new(1), Form::Text, &chunk).unwrap();
    assert!(builder.finish(Lsn::ZERO, Lsn::ZERO).is_err());
}
