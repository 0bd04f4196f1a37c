//! The bytes of the log: what is written is read back, damage is noticed, nothing panics.

use std::{num::NonZeroU64, sync::Arc};

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, option, prelude::*};

use super::{
    commit::{self, HEADER_BYTES, Header, Link, StoreId},
    entry::{self, Create, Delete, Entry, Trim, Why, Write},
};
use crate::types::{
    Ancestry, ContentType, Ends, Epoch, Expiry, Lineage, Lsn, Offset, ProducerId, ProducerTuple,
    Records, Retention, Run, Seq, StoreMs, StreamId, StreamName, WallMs,
};

fn name() -> StreamName {
    StreamName::new("a/b").expect("a good name")
}

fn create() -> Entry {
    Entry::Create(Create {
        stream: StreamId::new(300),
        name: name(),
        content: ContentType::parse("application/json; charset=utf-8").expect("a good type"),
        expiry: Expiry::Sliding { ttl_seconds: 60 },
        lineage: Lineage::starting(Epoch::new(2)),
        created: WallMs::new(1_700_000_000_000),
        deadline: Some(StoreMs::new(75_000)),
        last_append: WallMs::ZERO,
        fork: None,
        retention: Retention { max_age_ms: NonZeroU64::new(604_800_000), max_bytes: None },
        earliest: Seq::ZERO,
        oldest: None,
    })
}

fn fork() -> Entry {
    let Entry::Create(create) = create() else { unreachable!("that is what it makes") };
    let runs = [(300, 7), (301, 9)];
    let runs =
        runs.map(|(stream, limit)| Run { stream: StreamId::new(stream), limit: Seq::new(limit) });
    Entry::Create(Create {
        stream: StreamId::new(302),
        name: StreamName::new("a/fork").expect("a good name"),
        last_append: WallMs::new(1_700_000_000_001),
        fork: Some(Arc::new(Ancestry {
            source: StreamId::new(301),
            source_name: name(),
            at: Seq::new(9),
            asked: Some(Offset { epoch: Epoch::new(2), next: Seq::new(8) }),
            anchor: Seq::new(8),
            depth: 2,
            sub_offset: 1,
            expiry_inherited: true,
            runs: Box::new(runs),
        })),
        earliest: Seq::new(3),
        oldest: Some(WallMs::new(1_699_999_999_999)),
        ..create
    })
}

fn write() -> Write {
    let records = Records {
        payload: Bytes::from_static(b"{\"a\":1},2,[]"),
        ends: Ends::Many(Box::new([7, 9, 12])),
    };
    Write {
        stream: StreamId::new(300),
        first: Seq::new(5),
        records: Some(records),
        timestamp: WallMs::new(1_700_000_000_001),
        key: Some(Bytes::from_static(b"k")),
        closes: true,
        producer: Some(ProducerTuple {
            id: ProducerId::new("p").expect("a good id"),
            epoch: 1,
            seq: 0,
        }),
        introduces: true,
        stream_seq: Some(Bytes::from_static(b"007")),
        deadline: Some(StoreMs::new(75_001)),
    }
}

fn header(entries: u32) -> Header {
    Header {
        store: StoreId([7; 16]),
        lsn: Lsn::new(9),
        writer_epoch: 3,
        wall: WallMs::new(1_700_000_000_002),
        store_ms: StoreMs::new(1234),
        entries,
        before: Link { lsn: Lsn::new(8), crc: 0xdead_beef },
    }
}

fn group(entries: &[Entry]) -> (BytesMut, Link) {
    let mut bytes = BytesMut::zeroed(HEADER_BYTES);
    for entry in entries {
        entry::encode(entry, &mut bytes);
    }
    let count = u32::try_from(entries.len()).expect("few");
    let link = commit::finish(&header(count), &mut bytes);
    (bytes, link)
}

fn all_kinds() -> Vec<Entry> {
    let (stream, epoch) = (StreamId::new(300), Epoch::new(2));
    vec![
        create(),
        Entry::Write(write()),
        Entry::Renew { stream, deadline: StoreMs::new(80_000) },
        Entry::Delete(Delete { stream, name: name(), epoch, why: Why::Expired, source: None }),
        fork(),
        Entry::Retire { stream, why: Why::Asked },
        Entry::Delete(Delete {
            stream: StreamId::new(302),
            name: name(),
            epoch,
            why: Why::Unreferenced,
            source: Some(StreamId::new(301)),
        }),
        Entry::Trim(Trim {
            stream,
            earliest: Seq::new(6),
            dropped: 300,
            oldest: Some(WallMs::new(1_700_000_000_001)),
            head_bytes: 7,
        }),
        Entry::Retain {
            stream,
            retention: Retention {
                max_age_ms: NonZeroU64::new(60_000),
                max_bytes: NonZeroU64::new(1_000_000),
            },
        },
    ]
}

#[test]
fn a_commit_is_read_back_as_written() {
    let (bytes, link) = group(&all_kinds());
    let (read, read_link, body) = commit::open(&bytes.freeze()).expect("opens");
    assert_eq!((read, read_link), (header(9), link));
    let entries = entry::decode_all(body).expect("decodes");
    assert_eq!(format!("{entries:?}"), format!("{:?}", all_kinds()));
}

#[test]
fn the_bytes_of_version_3_are_as_specified() {
    let (bytes, _) = group(&all_kinds());
    let dump: String = bytes
        .chunks(16)
        .map(|row| row.iter().map(|byte| format!("{byte:02x} ")).collect::<String>() + "\n")
        .collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("commit__v3", dump));
}

#[test]
fn any_flipped_bit_is_noticed() {
    let (bytes, _) = group(&all_kinds());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            // The two flag bytes are covered by the checksum like everything else.
            assert!(commit::open(&damaged.freeze()).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn an_entry_of_a_later_version_is_refused() {
    let mut bytes = BytesMut::new();
    entry::encode(&create(), &mut bytes);
    bytes[0] = 99;
    assert!(entry::decode_all(bytes.freeze()).is_err());
}

fn arbitrary_write() -> impl Strategy<Value = Write> {
    let producer = ("[a-z]{1,8}", any::<u64>(), any::<u64>());
    let lengths = vec(0u32..50, 1..20);
    let bytes = || option::of(vec(any::<u8>(), 0..20));
    (any::<[u64; 3]>(), option::of(lengths), bytes(), bytes(), option::of(producer), 1u64..u64::MAX)
        .prop_map(|([stream, first, timestamp], lengths, key, seq, producer, deadline)| Write {
            stream: StreamId::new(stream),
            first: Seq::new(first),
            records: lengths.map(|lengths| {
                let ends: Vec<u32> = lengths
                    .iter()
                    .scan(0, |end, length| {
                        *end += length;
                        Some(*end)
                    })
                    .collect();
                let len = usize::try_from(*ends.last().expect("not empty")).expect("small");
                let payload = Bytes::from(vec![b'x'; len]);
                let ends = if ends.len() == 1 { Ends::One } else { Ends::Many(ends.into()) };
                Records { payload, ends }
            }),
            timestamp: WallMs::new(timestamp),
            key: key.map(Bytes::from),
            closes: stream % 2 == 0,
            introduces: producer.is_some() && first % 2 == 0,
            producer: producer.map(|(id, epoch, seq)| ProducerTuple {
                id: ProducerId::new(&id).expect("a good id"),
                epoch,
                seq,
            }),
            stream_seq: seq.map(Bytes::from),
            deadline: (timestamp % 2 == 0).then_some(StoreMs::new(deadline)),
        })
}

proptest! {
    #[test]
    fn writes_round_trip(write in arbitrary_write()) {
        let mut bytes = BytesMut::new();
        let payload = entry::encode(&Entry::Write(write.clone()), &mut bytes);
        let bytes = bytes.freeze();
        let stored = write.records.as_ref().map(|records| records.payload.clone());
        prop_assert_eq!(bytes.slice(payload), stored.unwrap_or_default());
        let entries = entry::decode_all(bytes).expect("decodes");
        let [Entry::Write(read)] = &entries[..] else { panic!("one write") };
        prop_assert_eq!(read, &write);
    }

    #[test]
    fn decoding_never_panics(bytes in vec(any::<u8>(), 0..300), tag in 0u8..6) {
        // Almost no arbitrary bytes get past the first length, so give them a good one too.
        drop(entry::decode_all(Bytes::from(bytes.clone())));
        let length = u32::try_from(bytes.len()).expect("small").to_le_bytes();
        let framed = [&[tag][..], &length, &bytes].concat();
        drop(entry::decode_all(Bytes::from(framed)));
        drop(commit::open(&Bytes::from(bytes)));
    }

    #[test]
    fn mutated_entries_never_panic(write in arbitrary_write(), at: usize, byte: u8) {
        let mut bytes = BytesMut::new();
        entry::encode(&Entry::Write(write), &mut bytes);
        let at = at % bytes.len();
        bytes[at] = byte;
        drop(entry::decode_all(bytes.freeze()));
    }
}
