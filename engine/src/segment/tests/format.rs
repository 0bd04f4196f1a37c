//! The bytes of version 1, kept: a change here is a change of docs/FORMATS.md.

use std::fmt::Write as _;

use super::*;

/// Sixteen bytes a line: offset, hex, ASCII.
fn dump(bytes: &[u8]) -> String {
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

#[test]
fn the_bytes_of_version_1_are_as_specified() {
    let input = vec![
        (
            StreamId::new(3),
            Form::Json,
            chunk(40, 1000, Some("x"), Form::Json, &[b"{\"a\":1}", b"2"]),
        ),
        (StreamId::new(3), Form::Json, chunk(42, 1005, None, Form::Json, &[b"[]"])),
        (StreamId::new(7), Form::Text, chunk(0, 900, None, Form::Text, &[b"one", b"two"])),
        (StreamId::new(7), Form::Text, chunk(9, 901, Some(""), Form::Text, &[b"ten"])),
    ];
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("segment__v1", dump(&write(&input, Codec::None).0)));
}
