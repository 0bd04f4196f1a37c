//! Catalogue rows, lineages and the shelf.

use std::{num::NonZeroU64, sync::Arc};

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use smallvec::SmallVec;

use super::{
    catalogue::Found,
    kept::Kept,
    rows,
    shelf::Shelf,
    stream::{ClosedBy, Identity, Producer, StreamState},
};
use crate::types::{
    Ancestry, ContentType, Epoch, Expiry, Form, Lineage, Lsn, Offset, Place, ProducerId,
    ProducerTuple, Retention, Run, Seq, StoreMs, StreamId, StreamName, WallMs,
};

fn lineage(parts: &[(u32, u64)]) -> Lineage {
    let parts: SmallVec<_> =
        parts.iter().map(|(epoch, first)| (Epoch::new(*epoch), Seq::new(*first))).collect();
    Lineage::from_parts(parts).expect("increasing")
}

fn offset(epoch: u32, next: u64) -> Offset {
    Offset { epoch: Epoch::new(epoch), next: Seq::new(next) }
}

#[test]
fn what_a_request_needs_stays_on_a_full_shelf() {
    let shelf = Shelf::new(1, [0; 4]);
    let name = |text| StreamName::new(text).expect("a good name");
    let admit = |text| shelf.admit(&name(text), Found::Absent(None), shelf.folds());
    let known = |text| shelf.get(&name(text), |_| ()).is_some();
    assert!(admit("fork"));
    let pin = shelf.pin(&name("fork"));
    assert!(admit("source"));
    assert!(known("fork") && known("source"), "a creation of a fork needs both");
    drop(pin);
    assert!(admit("other"));
    assert!(!known("fork"), "nobody needs it any more");
}

#[test]
fn an_offset_is_valid_inside_its_epochs_range_only() {
    let history = lineage(&[(2, 0), (5, 10), (6, 12)]);
    let at = |next| Place::At(Seq::new(next));
    let lost = |next| Place::Lost(Seq::new(next));
    for (asked, expect) in [
        (offset(0, 0), at(0)),
        (offset(1, 3), lost(0)),
        (offset(2, 0), at(0)),
        (offset(2, 10), at(10)),
        (offset(2, 11), lost(10)),
        (offset(3, 4), lost(10)),
        (offset(5, 9), lost(10)),
        (offset(5, 12), at(12)),
        (offset(5, 13), lost(12)),
        (offset(6, 20), at(20)),
        (offset(6, 21), Place::Beyond),
        (offset(7, 0), Place::Beyond),
    ] {
        assert_eq!(history.place(asked, Seq::new(20)), expect, "{asked:?}");
    }
    assert_eq!(history.offset(Seq::new(11)), offset(5, 11));
    assert_eq!(history.offset(Seq::new(12)), offset(6, 12));
}

fn arbitrary_state() -> impl Strategy<Value = StreamState> {
    let closed = option::of(option::of(("[a-z]{1,9}", any::<u64>(), any::<u64>())));
    let seq = option::of(vec(any::<u8>(), 0..20));
    let deadline = option::of(1u64..u64::MAX);
    (vec((1u32..9, 0u64..9), 1..4), any::<[u64; 4]>(), closed, seq, deadline, any::<u32>())
        .prop_map(|(steps, [next, last, bytes, lsn], closed, seq, deadline, producers)| {
            let (mut epoch, mut first) = (0, 0);
            let parts = steps.into_iter().map(|(up, on)| {
                epoch += up;
                first += on;
                (Epoch::new(epoch), Seq::new(first))
            });
            StreamState {
                lineage: Lineage::from_parts(parts.collect()).expect("increasing"),
                next: Seq::new(next),
                closed: closed.map(|by| ClosedBy {
                    producer: by.map(|(id, epoch, seq)| ProducerTuple {
                        id: ProducerId::new(&id).expect("a good id"),
                        epoch,
                        seq,
                    }),
                }),
                stream_seq: seq.map(Bytes::from),
                last_append: WallMs::new(last),
                deadline: deadline.map(StoreMs::new),
                form: Form::Text,
                bytes,
                kept: Kept {
                    retention: Retention {
                        max_age_ms: NonZeroU64::new(bytes % 3),
                        max_bytes: NonZeroU64::new(last % 3),
                    },
                    earliest: Seq::new(next / 2),
                    bytes: bytes / 3,
                    dropped: bytes - bytes / 3,
                    oldest: (lsn % 2 == 0).then_some(WallMs::new(last / 2)),
                    head_bytes: bytes / 7,
                    trimmed: Lsn::new(lsn / 2),
                },
                producers,
                refs: bytes / 2,
                retired: bytes % 2 == 1,
                lsn: Lsn::new(lsn),
            }
        })
}

fn ancestry(runs: &[(u64, u64)]) -> Ancestry {
    let mut at = Seq::ZERO;
    let runs = runs.iter().map(|(stream, length)| {
        at = at.after(*length);
        Run { stream: StreamId::new(*stream), limit: at }
    });
    let runs: Box<[Run]> = runs.collect();
    let source_name = StreamName::new("source").expect("a good name");
    Ancestry {
        source: StreamId::new(7),
        source_name,
        at,
        asked: runs.first().map(|run| Offset { epoch: Epoch::new(3), next: run.limit }),
        anchor: at,
        depth: 2,
        sub_offset: 3,
        expiry_inherited: runs.len() > 1,
        runs,
    }
}

proptest! {
    #[test]
    fn stream_rows_round_trip(
        state in arbitrary_state(),
        share: u64,
        runs in option::of(vec((1u64..99, 1u64..9), 0..4)),
    ) {
        let fork = runs.map(|runs| Arc::new(ancestry(&runs)));
        let own_start = fork.as_ref().map_or(Seq::ZERO, |fork| fork.at);
        let state = StreamState { next: state.next.max(own_start), ..state };
        let identity = Identity {
            id: StreamId::new(4),
            name: StreamName::new("s").expect("a good name"),
            content: ContentType::parse("text/plain").expect("a good type"),
            expiry: Expiry::At(WallMs::new(77)),
            created: WallMs::new(5),
            fork: fork.clone(),
        };
        let own = state.next.since(own_start);
        let sealed = own_start.after(share % own.saturating_add(1).max(1));
        let row = rows::encode_stream(&identity, &state, sealed).to_vec();
        let read = rows::decode_stream(identity.id, identity.name.clone(), state.lsn, row.clone());
        let read = read.expect("decodes");
        prop_assert_eq!(&read.state, &state);
        prop_assert_eq!(read.sealed, sealed);
        prop_assert_eq!(read.identity.expiry, identity.expiry);
        prop_assert_eq!(read.identity.fork, fork);
        // Cut short anywhere, a row is refused.
        for len in 0..row.len() {
            let cut = row[..len].to_vec();
            prop_assert!(rows::decode_stream(identity.id, identity.name.clone(), state.lsn, cut).is_err());
        }
    }

    #[test]
    fn producer_rows_round_trip(epoch: u64, seq: u64, steps in vec(0u64..1000, 1..16)) {
        let ends = steps.iter().scan(0, |end, step| { *end += step; Some(Seq::new(*end)) }).collect();
        let producer = Producer { epoch, seq, ends };
        let row = rows::encode_producer(&producer).to_vec();
        prop_assert_eq!(rows::decode_producer(row), Ok(producer));
    }

    #[test]
    fn decoding_rows_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        let name = StreamName::new("s").expect("a good name");
        drop(rows::decode_stream(StreamId::new(1), name, Lsn::ZERO, bytes.clone()));
        drop(rows::decode_producer(bytes));
    }
}
