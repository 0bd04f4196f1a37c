//! What is written is read back, entries and rows alike, and nothing panics.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};

use super::{
    super::{
        links::Stored,
        request::LinkType,
        rows::{self, LinkRow, SubscriptionRow},
    },
    *,
};
use crate::types::Lsn;

fn name(text: &str) -> StreamName {
    StreamName::new(text).expect("a good name")
}

fn at(epoch: u32, next: u64) -> Offset {
    Offset { epoch: Epoch::new(epoch), next: Seq::new(next) }
}

fn config(delivery: Delivery) -> Arc<Subscribe> {
    let webhook = matches!(delivery, Delivery::Webhook { .. });
    Arc::new(Subscribe {
        id: SubscriptionId::new("agents").expect("a good id"),
        pattern: Some(Pattern::new("tasks/*/in").expect("a good pattern")),
        streams: vec![name("a"), name("b/c")],
        delivery,
        lease_ttl_ms: 30_000,
        description: Some("for people".into()),
        base: webhook.then(|| "https://streams.example".into()),
    })
}

fn held() -> Control {
    Control {
        generation: 300,
        phase: Phase::Held {
            wake_id: WakeId([7; 12]),
            holder: "worker-1".into(),
            deadline: StoreMs::new(75_000),
        },
        failures: 0,
        next_attempt: None,
        failing: false,
    }
}

fn retrying() -> Control {
    Control {
        generation: 2,
        phase: Phase::Waking { wake_id: WakeId([9; 12]), deadline: StoreMs::new(500) },
        failures: 3,
        next_attempt: Some(StoreMs::new(400)),
        failing: true,
    }
}

fn all_kinds() -> Vec<Entry> {
    let number = Number::new(5);
    let webhook = Delivery::Webhook { url: "https://example.com/hook".into() };
    let placed = |path: &str, stream, acked| Placed { path: name(path), stream, acked };
    let acked = |path: &str, offset| Acked { path: name(path), stream: StreamId::new(300), offset };
    vec![
        Entry::Subscribe {
            number,
            config: config(webhook),
            created: WallMs::new(1_700_000_000_000),
            links: vec![
                placed("a", Some(StreamId::new(300)), at(1, 9)),
                placed("b/c", None, Offset::START),
            ],
        },
        Entry::Subscribe {
            number: Number::new(6),
            config: config(Delivery::PullWake { wake_stream: name("wakes") }),
            created: WallMs::new(1_700_000_000_001),
            links: Vec::new(),
        },
        Entry::Relink {
            number,
            added: vec![placed("d", None, Offset::START)],
            removed: vec![name("a")],
        },
        Entry::Control { number, control: retrying(), acks: Vec::new() },
        Entry::Control { number, control: held(), acks: vec![acked("b/c", at(0, 300))] },
        Entry::Control { number, control: Control::new(), acks: Vec::new() },
        Entry::Unsubscribe { number },
    ]
}

fn encoded(entry: &Entry) -> Bytes {
    let mut out = BytesMut::new();
    entry.encode(&mut out);
    out.freeze()
}

#[test]
fn entries_are_read_back_as_written() {
    for entry in all_kinds() {
        let read = Entry::decode(entry.tag(), &mut Take::new(encoded(&entry)));
        assert_eq!(read, Ok(Some(entry)));
    }
}

#[test]
fn the_bytes_are_as_specified() {
    let mut dump = String::new();
    for entry in all_kinds() {
        dump += &format!("{:02x}:", entry.tag());
        dump.extend(encoded(&entry).iter().map(|byte| format!(" {byte:02x}")));
        dump += "\n";
    }
    let link = Stored::new(LinkType::Explicit, Some(StreamId::new(300)), at(0, 7), at(1, 9));
    let webhook = Delivery::Webhook { url: "https://example.com/hook".into() };
    let subscription = rows::encode_subscription(
        &config(webhook),
        WallMs::new(1_700_000_000_000),
        Lsn::new(12),
        &retrying(),
    );
    for (what, row) in [("subscription", subscription), ("link", rows::encode_link(&link))] {
        dump += &format!("{what}:");
        dump.extend(row.iter().map(|byte| format!(" {byte:02x}")));
        dump += "\n";
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("subscriptions__v1", dump));
}

#[test]
fn rows_are_read_back_as_written() {
    let number = Number::new(5);
    let webhook = Delivery::Webhook { url: "https://example.com/hook".into() };
    let row = SubscriptionRow {
        number,
        config: config(webhook),
        created: WallMs::new(1),
        born: Lsn::new(2),
        control: held(),
        lsn: Lsn::new(3),
    };
    let bytes = rows::encode_subscription(&row.config, row.created, row.born, &row.control);
    let read = rows::decode_subscription(number, row.config.id.clone(), row.lsn, bytes.to_vec());
    assert_eq!(read, Ok(row));
    for (kind, stream) in [(LinkType::Glob, Some(StreamId::new(9))), (LinkType::Explicit, None)] {
        let link = Stored::new(kind, stream, at(0, 1), at(2, 3));
        let row = LinkRow { number, path: name("a/b"), link, lsn: Lsn::new(9) };
        let bytes = rows::encode_link(&link);
        let read = rows::decode_link(number, name("a/b"), row.lsn, bytes.to_vec());
        assert_eq!(read, Ok(row));
    }
}

#[test]
fn an_entry_with_something_behind_it_is_refused() {
    for entry in all_kinds() {
        let longer = [&encoded(&entry)[..], &[0]].concat();
        assert!(Entry::decode(entry.tag(), &mut Take::new(longer.into())).is_err());
    }
    assert_eq!(Entry::decode(2, &mut Take::new(Bytes::new())), Ok(None), "not one of these");
}

fn controls() -> impl Strategy<Value = Control> {
    let phase = (0..3u8, any::<[u8; 12]>(), any::<u64>(), "\\PC{0,20}");
    let phase = phase.prop_map(|(kind, wake_id, deadline, holder)| {
        let (wake_id, deadline) = (WakeId(wake_id), StoreMs::new(deadline));
        match kind {
            0 => Phase::Idle,
            1 => Phase::Waking { wake_id, deadline },
            _ => Phase::Held { wake_id, holder: holder.into(), deadline },
        }
    });
    (any::<u64>(), phase, any::<u32>(), option::of(any::<u64>()), any::<bool>()).prop_map(
        |(generation, phase, failures, next, failing)| Control {
            generation,
            phase,
            failures,
            next_attempt: next.map(StoreMs::new),
            failing,
        },
    )
}

proptest! {
    #[test]
    fn controls_round_trip(
        control in controls(),
        acks in vec(("[a-z]{1,9}", any::<(u64, u32, u64)>()), 0..9),
    ) {
        let acks = acks.into_iter().map(|(path, (stream, epoch, next))| Acked {
            path: name(&path),
            stream: StreamId::new(stream),
            offset: at(epoch, next),
        });
        let entry = Entry::Control { number: Number::new(1), control, acks: acks.collect() };
        let read = Entry::decode(entry.tag(), &mut Take::new(encoded(&entry)));
        prop_assert_eq!(read, Ok(Some(entry)));
    }

    #[test]
    fn decoding_never_panics(bytes in vec(any::<u8>(), 0..300), tag in 9u8..15) {
        drop(Entry::decode(tag, &mut Take::new(Bytes::from(bytes.clone()))));
        let id = SubscriptionId::new("a").expect("a good id");
        drop(rows::decode_subscription(Number::new(1), id, Lsn::ZERO, bytes.clone()));
        drop(rows::decode_link(Number::new(1), name("a"), Lsn::ZERO, bytes));
    }

    #[test]
    fn mutated_entries_never_panic(kind in 0..7usize, at: prop::sample::Index, byte: u8) {
        let entry = all_kinds().swap_remove(kind);
        let mut bytes = encoded(&entry).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        drop(Entry::decode(entry.tag(), &mut Take::new(bytes.into())));
    }
}
