//! Ledgers of far more rows and commits than one statement finds.

use std::cell::Cell;

use bytes::BytesMut;

use super::*;
use crate::{
    Layout,
    ledger::tests::rows,
    log::commit::StoreId,
    subscribe::{entry::Number, request::SubscriptionId, rows::encode_subscription},
    types::{Epoch, StreamName},
};

/// More than fits in a slice, and not a multiple of it.
const MANY: u64 = 600;

fn name(text: &str, at: u64) -> StreamName {
    StreamName::new(&format!("{text}/{at:04}")).expect("a good name")
}

/// Rows of every table, far more than a slice takes, in the order of their keys.
fn many() -> Vec<Row> {
    let [stream, producer, _, subscription, link] = &rows()[..] else { panic!("five tables") };
    let mut all = Vec::new();
    for at in 1..=MANY {
        let Row::Stream(mut row) = stream.clone() else { panic!("a stream") };
        row.identity.id = StreamId::new(at);
        row.identity.name = name("there", at);
        all.push(Row::Stream(row));
        // One has many producers, those behind it one each.
        for of in 0..if at == 7 { MANY } else { u64::from(at > 7) } {
            let Row::Producer { producer, lsn, .. } = producer.clone() else {
                panic!("a producer")
            };
            let id = ProducerId::new(&format!("p-{of:04}")).expect("a good name");
            all.push(Row::Producer { stream: StreamId::new(at), id, producer, lsn });
        }
    }
    for at in 1..=MANY {
        all.push(Row::Tombstone { name: name("gone", at), epoch: Epoch::new(3) });
    }
    for at in 1..=MANY {
        let Row::Subscription(mut row) = subscription.clone() else { panic!("one of these") };
        row.number = Number::new(at);
        let mut config = (*row.config).clone();
        config.id = SubscriptionId::new(&format!("s-{at}")).expect("a good name");
        row.config = Arc::new(config);
        all.push(Row::Subscription(row));
        for of in 0..if at == 9 { MANY } else { 0 } {
            let Row::Link(mut row) = link.clone() else { panic!("a link") };
            (row.number, row.path) = (Number::new(at), name("there", of));
            all.push(Row::Link(row));
        }
    }
    all
}

fn store(conn: &Connection, row: &Row) -> Result<(), Failure> {
    match row {
        Row::Stream(row) => catalogue::put_stream(conn, row),
        Row::Producer { stream, id, producer, lsn } => {
            catalogue::put_producer(conn, *stream, id, producer, *lsn)
        }
        Row::Tombstone { name, epoch } => catalogue::put_tombstone(conn, name.as_str(), *epoch),
        Row::Subscription(row) => {
            let body = encode_subscription(&row.config, row.created, row.born, &row.control);
            catalogue::put_subscription(conn, row.number, &row.config.id, row.lsn, &body)
        }
        Row::Link(row) => {
            catalogue::put_link(conn, row.number, &row.path, Some(&row.link), row.lsn)
        }
    }
}

#[test]
fn a_ledger_of_all_rows_has_all_of_them_and_holds_no_statement_open() {
    let mut conn = Connection::open_in_memory().expect("opens");
    catalogue::create(&mut conn, Layout::Tree, &[]).expect("a new catalogue");
    let all = many();
    all.iter().rev().try_for_each(|row| store(&conn, row)).expect("writes");
    let (mut bytes, pieces) = (BytesMut::new(), Cell::new(0));
    let mut sink = |piece: &[u8]| {
        assert!(!conn.is_busy(), "the WAL can start over while bytes are written");
        pieces.set(pieces.get() + 1);
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let (id, lsn) = (SegmentId::new(7), Lsn::new(20));
    let mut builder = Builder::new(StoreId([7; 16]), id, &mut sink).expect("writes");
    put_all(&conn, &mut builder).expect("reads");
    assert!(pieces.get() > 1, "a header, and blocks on the way");
    builder.finish(lsn, lsn).expect("writes");
    let ledger = Ledger::open(Source::Memory(bytes.freeze())).expect("opens");
    let found = Arc::new(ledger).rows().collect::<Result<Vec<Change>, _>>();
    let expected: Vec<Change> = all.iter().map(Row::put).collect();
    assert!(found.expect("reads") == expected, "all rows, in order");
}

#[test]
fn a_tail_has_every_commit_between_and_no_other() {
    let mut conn = Connection::open_in_memory().expect("opens");
    catalogue::create(&mut conn, Layout::Tree, &[]).expect("a new catalogue");
    for lsn in 1..=300 {
        let body = format!("commit {lsn}");
        catalogue::append_commit(&conn, Lsn::new(lsn), body.as_bytes()).expect("writes");
    }
    for (folded, through) in [(10, 10), (10, 11), (10, 74), (10, 75), (10, 290)] {
        let mut bytes = BytesMut::new();
        let mut sink = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        let id = SegmentId::new(7);
        let mut builder = Builder::new(StoreId([7; 16]), id, &mut sink).expect("writes");
        let range = (Lsn::new(folded), Lsn::new(through));
        put_tail(&conn, &mut builder, range).expect("reads");
        builder.finish(Lsn::new(1), Lsn::new(folded)).expect("writes");
        let ledger = Ledger::open(Source::Memory(bytes.freeze())).expect("opens");
        let commits = Arc::new(ledger).commits().collect::<Result<Vec<_>, _>>();
        let found: Vec<u64> = commits.expect("reads").iter().map(|it| it.0.get()).collect();
        assert_eq!(found, (folded + 1..=through).collect::<Vec<_>>());
    }
}
