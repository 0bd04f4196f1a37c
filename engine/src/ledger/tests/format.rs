//! The bytes of version 1, kept: a change here is a change of docs/FORMATS.md.

use super::*;
use crate::ledger::{Address, row};

#[test]
fn the_bytes_of_a_ledger_are_as_specified() {
    let changes = [
        Change::delete_below(Address::Stream(StreamId::new(3)).key()),
        row::tombstone(&name("gone"), Epoch::new(65_537)),
        Change::delete(Address::Link(Number::new(5), name("a/b")).key()),
    ];
    let (bytes, _) = write((4, 9), &changes, &[(11, b"commit"), (12, b"another")]);
    assert_eq!(bytes[44], 0, "nothing here depends on a compressor");
    assert_snapshot("ledger__v1", dump(&bytes));
}

#[test]
fn the_bytes_of_rows_are_as_specified() {
    let mut text = String::new();
    for row in rows() {
        let change = row.put();
        let mut bytes = BytesMut::new();
        change.encode(&mut bytes);
        writeln!(text, "{}\n{}", row.address(), dump(&bytes)).unwrap();
    }
    assert_snapshot("ledger_rows__v1", text);
}
