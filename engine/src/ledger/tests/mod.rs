//! Ledgers against a model, under damage and byte for byte.
//!
//! Here: ledgers in memory, and one row of every table.

mod damage;
mod format;
mod merge;
mod roundtrip;

use std::{fmt::Write as _, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{Builder, Change, Footer, Key, Ledger, Row, Source};
use crate::{
    log::{commit::StoreId, entry::Create},
    state::{
        rows::StreamRow,
        stream::{Identity, Producer, StreamState},
    },
    subscribe::{
        control::Control,
        entry::Number,
        links::Stored,
        request::{Delivery, LinkType, Subscribe, SubscriptionId},
        rows::{LinkRow, SubscriptionRow},
    },
    types::{
        ContentType, Epoch, Expiry, Lineage, Lsn, Offset, ProducerId, Retention, SegmentId, Seq,
        StreamId, StreamName, WallMs,
    },
};

pub(super) const STORE: StoreId = StoreId(*b"0123456789abcdef");

/// Sixteen bytes a line: offset, hex, ASCII.
pub(crate) fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, bytes) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let plain = |byte: &u8| {
            if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }
        };
        let ascii: String = bytes.iter().map(plain).collect();
        writeln!(text, "{:04x}  {:<47}  {ascii}", line * 16, hex.join(" ")).unwrap();
    }
    text
}

/// Compares with a file in the snapshots of all packages.
pub(crate) fn assert_snapshot(name: &str, text: String) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

pub(super) type Tail<'a> = &'a [(u64, &'a [u8])];

/// The bytes of a ledger of these commits, and its footer.
pub(super) fn write(
    (first, last): (u64, u64),
    changes: &[Change],
    tail: Tail<'_>,
) -> (Bytes, Footer) {
    let mut bytes = BytesMut::new();
    let mut sink = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let mut builder = Builder::new(STORE, SegmentId::new(7), &mut sink).unwrap();
    for change in changes {
        builder.push(change).unwrap();
    }
    for (lsn, commit) in tail {
        builder.commit(Lsn::new(*lsn), commit).unwrap();
    }
    let footer = builder.finish(Lsn::new(first), Lsn::new(last)).unwrap();
    assert_eq!(footer.file_bytes(), u64::try_from(bytes.len()).unwrap());
    (bytes.freeze(), footer)
}

pub(super) fn open(bytes: Bytes) -> Arc<Ledger> {
    Arc::new(Ledger::open(Source::Memory(bytes)).unwrap())
}

/// Everything in a ledger that has no damage.
pub(super) fn contents(ledger: &Arc<Ledger>) -> (Vec<Change>, Vec<(Lsn, Bytes)>) {
    let rows = ledger.rows().collect::<Result<_, _>>().unwrap();
    (rows, ledger.commits().collect::<Result<_, _>>().unwrap())
}

pub(super) fn key(text: &str) -> Key {
    Key::new(Bytes::copy_from_slice(text.as_bytes()))
}

pub(super) fn put(text: &str, value: &[u8]) -> Change {
    Change::put(key(text), Bytes::copy_from_slice(value))
}

/// Bytes that zstd makes nothing shorter of.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap()
}

/// A row of every table, in order of keys.
pub(crate) fn rows() -> Vec<Row> {
    let create = Create {
        stream: StreamId::new(300),
        name: name("a/b"),
        content: ContentType::parse("text/plain").unwrap(),
        expiry: Expiry::Sliding { ttl_seconds: 60 },
        lineage: Lineage::starting(Epoch::new(2)),
        created: WallMs::new(1_700_000_000_000),
        deadline: None,
        last_append: WallMs::ZERO,
        fork: None,
        retention: Retention::default(),
        earliest: Seq::ZERO,
        oldest: None,
    };
    let state = StreamState::new(&create, Lsn::new(12));
    let Create { stream: id, name: stream_name, content, expiry, created, fork, .. } = create;
    let identity = Identity { id, name: stream_name, content, expiry, created, fork };
    let producer =
        Producer { epoch: 1, seq: 2, ends: [Seq::new(5), Seq::new(9)].into_iter().collect() };
    let config = Subscribe {
        id: SubscriptionId::new("agents").unwrap(),
        pattern: None,
        streams: vec![name("a/b")],
        delivery: Delivery::PullWake { wake_stream: name("wakes") },
        lease_ttl_ms: 30_000,
        description: None,
        base: None,
    };
    let at = |next| Offset { epoch: Epoch::new(2), next: Seq::new(next) };
    let link = Stored::new(LinkType::Explicit, Some(id), at(7), at(9));
    let number = Number::new(5);
    vec![
        Row::Stream(Box::new(StreamRow { identity, state, sealed: Seq::ZERO })),
        Row::Producer {
            stream: id,
            id: ProducerId::new("p-1").unwrap(),
            producer,
            lsn: Lsn::new(11),
        },
        Row::Tombstone { name: name("gone"), epoch: Epoch::new(65_537) },
        Row::Subscription(Box::new(SubscriptionRow {
            number,
            config: Arc::new(config),
            created: WallMs::new(1_700_000_000_001),
            born: Lsn::new(3),
            control: Control::new(),
            lsn: Lsn::new(10),
        })),
        Row::Link(LinkRow { number, path: name("a/b"), link, lsn: Lsn::new(9) }),
    ]
}
