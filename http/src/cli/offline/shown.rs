//! Writes down what is shown of a stored thing: a line for each item, for people or as JSON.
//!
//! A record of a JSON stream is written as it was sent, any other as text if it is some, and else
//! as hexadecimal digits.

use std::{
    fmt::Write as _,
    io::{self, Write},
    ops::ControlFlow,
};

use serde_json::value::RawValue;
use weir_engine::{
    restore::{Flow, Item, Rank, Value},
    types::Form,
};

use super::{Format, Verdict};
use crate::wire::hex::hex;

/// What of a thing is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Showing {
    /// How it is written.
    pub format: Format,
    /// Entries that are left out at the beginning.
    pub skip: u64,
    /// Entries that are shown at most.
    pub limit: Option<u64>,
}

/// Writes items, as far as they are asked for.
pub(super) struct Printer<'a> {
    out: &'a mut dyn Write,
    showing: Showing,
    /// Entries so far.
    entries: u64,
    verdict: Verdict,
    failed: io::Result<()>,
}

impl<'a> Printer<'a> {
    pub(super) fn new(out: &'a mut dyn Write, showing: Showing) -> Self {
        Self { out, showing, entries: 0, verdict: Verdict::Sound, failed: Ok(()) }
    }

    /// Takes the next item.
    pub(super) fn show(&mut self, item: Item) -> Flow {
        let Showing { skip, limit, .. } = self.showing;
        match item.rank {
            Rank::Head => {}
            Rank::Damage => self.verdict = Verdict::Problems,
            Rank::Entry => {
                let limit = limit.map_or(u64::MAX, |limit| skip.saturating_add(limit));
                if self.entries >= limit {
                    return ControlFlow::Break(());
                }
                self.entries += 1;
                if self.entries <= skip {
                    return ControlFlow::Continue(());
                }
            }
        }
        let text = match self.showing.format {
            Format::Json => json(&item),
            Format::Text => text(&item),
        };
        self.failed = self.out.write_all(text.as_bytes());
        if self.failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// How it ended. Whoever read it closing it is fine.
    pub(super) fn end(self) -> io::Result<Verdict> {
        match self.failed.and_then(|()| self.out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(self.verdict),
        }
    }
}

/// One object in one line.
fn json(item: &Item) -> String {
    let mut out = format!("{{\"kind\":{}", quoted(item.kind));
    for (name, value) in &item.fields {
        out.push(',');
        put_member(&mut out, name, value);
    }
    out.push_str("}\n");
    out
}

/// Fields below each other for what a thing says of itself, in one line for what is in it.
fn text(item: &Item) -> String {
    let mut out = String::new();
    let mut put = |line: std::fmt::Arguments<'_>| {
        out.write_fmt(line).expect("a string takes everything");
    };
    match item.rank {
        Rank::Head => {
            for (name, value) in &item.fields {
                put(format_args!("{:<18} {}\n", name.replace('_', " "), plain(value)));
            }
        }
        Rank::Entry => {
            put(format_args!("{}", item.kind));
            for (name, value) in item.fields.iter().filter(|(_, it)| *it != Value::Nothing) {
                put(format_args!(" {name}={}", plain(value)));
            }
            put(format_args!("\n"));
        }
        Rank::Damage => {
            let parts: Vec<String> = item.fields.iter().map(|(_, it)| words(it)).collect();
            put(format_args!("damaged: {}\n", parts.join(": ")));
        }
    }
    out
}

/// Words without quotes around them.
fn words(value: &Value) -> String {
    match value {
        Value::Text(text) => text.escape_debug().to_string(),
        other => plain(other),
    }
}

fn plain(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Nothing => out.push('-'),
        Value::Text(text) if is_word(text) => out.push_str(text),
        value => put_value(&mut out, value),
    }
    out
}

/// Whether a text needs no quotes in a line.
fn is_word(text: &str) -> bool {
    let fits = |it: char| it.is_ascii_alphanumeric() || "-_./:+@".contains(it);
    !text.is_empty() && text.chars().all(fits)
}

fn put_member(out: &mut String, name: &str, value: &Value) {
    // Bytes that are no text have a name that says so.
    let (suffix, value) = match value {
        Value::Bytes(bytes) | Value::Record(bytes, _) if str::from_utf8(bytes).is_err() => {
            ("_hex", &Value::Text(hex(bytes)))
        }
        value => ("", value),
    };
    out.push_str(&quoted(&format!("{name}{suffix}")));
    out.push(':');
    put_value(out, value);
}

fn put_value(out: &mut String, value: &Value) {
    match value {
        Value::Nothing => out.push_str("null"),
        Value::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::Text(text) => out.push_str(&quoted(text)),
        Value::Record(bytes, Form::Json) if is_json(bytes) => {
            // A line of its own ends with the object: between two tokens a blank says the same.
            let text = String::from_utf8_lossy(bytes).replace(['\n', '\r'], " ");
            out.push_str(&text);
        }
        Value::Bytes(bytes) | Value::Record(bytes, _) => match str::from_utf8(bytes) {
            Ok(text) => out.push_str(&quoted(text)),
            Err(_) => out.push_str(&quoted(&hex(bytes))),
        },
        Value::List(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                put_value(out, value);
            }
            out.push(']');
        }
        Value::Group(fields) => {
            out.push('{');
            for (at, (name, value)) in fields.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                put_member(out, name, value);
            }
            out.push('}');
        }
    }
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is a JSON string")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(seq: u64, bytes: &'static [u8], form: Form) -> Item {
        let fields = vec![
            ("stream", Value::Number(7)),
            ("seq", Value::Number(seq)),
            ("key", Value::Bytes(Bytes::from_static(b"k\n"))),
            ("value", Value::Record(Bytes::from_static(bytes), form)),
        ];
        Item { rank: Rank::Entry, kind: "record", fields }
    }

    fn items() -> Vec<Item> {
        let head = vec![("first_commit", Value::Number(1)), ("mark", Value::Nothing)];
        let damage =
            vec![("what", Value::Text("block 3".into())), ("why", Value::Text("\x1b".into()))];
        vec![
            Item { rank: Rank::Head, kind: "segment", fields: head },
            record(0, b"{\"a\":1.50,\n \"b\":\"x\"}", Form::Json),
            record(1, b"{\"a\":", Form::Json),
            record(2, b"two \"words\"", Form::Text),
            Item { rank: Rank::Damage, kind: "damage", fields: damage },
            record(3, b"\xff\x00", Form::Binary),
        ]
    }

    fn show(format: Format, skip: u64, limit: Option<u64>) -> (String, Verdict) {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, Showing { format, skip, limit });
        for item in items() {
            if printer.show(item).is_break() {
                break;
            }
        }
        let verdict = printer.end().expect("a vector takes everything");
        (String::from_utf8(out).expect("text"), verdict)
    }

    #[test]
    fn every_line_is_one_object_and_a_json_record_is_as_it_was_sent() {
        let (shown, verdict) = show(Format::Json, 0, None);
        assert_eq!(verdict, Verdict::Problems);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 6, "{shown}");
        let parsed: Vec<serde_json::Value> =
            lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert!(lines[1].ends_with("\"value\":{\"a\":1.50,  \"b\":\"x\"}}"), "{}", lines[1]);
        assert_eq!(parsed[1]["key"], "k\n");
        assert_eq!(parsed[2]["value"], "{\"a\":", "what is no JSON is text");
        assert_eq!(parsed[3]["value"], "two \"words\"");
        assert_eq!((&parsed[4]["kind"], &parsed[4]["what"]), (&"damage".into(), &"block 3".into()));
        assert_eq!(parsed[5]["value_hex"], "ff00");
    }

    #[test]
    fn entries_are_skipped_and_limited_and_heads_and_damage_are_not() {
        let seqs = |skip, limit| {
            let (shown, _) = show(Format::Json, skip, limit);
            let parsed = shown.lines().map(|line| serde_json::from_str(line).expect(line));
            let parsed: Vec<serde_json::Value> = parsed.collect();
            assert_eq!(parsed[0]["kind"], "segment");
            parsed.iter().filter_map(|it| it["seq"].as_u64()).collect::<Vec<_>>()
        };
        assert_eq!(seqs(0, Some(2)), [0, 1]);
        assert_eq!(seqs(1, Some(2)), [1, 2]);
        assert_eq!(seqs(2, None), [2, 3]);
        assert_eq!(seqs(9, Some(u64::MAX)), [0_u64; 0]);
        assert_eq!(seqs(0, Some(0)), [0_u64; 0]);
    }

    #[test]
    fn a_line_for_people_has_no_characters_that_a_terminal_obeys() {
        let (shown, _) = show(Format::Text, 0, None);
        assert!(shown.starts_with("first commit       1\nmark               -\nrecord stream=7"));
        assert!(shown.contains("damaged: block 3: \\u{1b}\n"), "{shown}");
        assert!(shown.chars().all(|it| it == '\n' || !it.is_control()), "{shown:?}");
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn whoever_reads_it_may_stop() {
        let mut closed = Closed;
        let showing = Showing { format: Format::Text, skip: 0, limit: None };
        let mut printer = Printer::new(&mut closed, showing);
        let first = items().into_iter().next().expect("there are some");
        assert!(printer.show(first).is_break());
        assert!(printer.end().is_ok());
    }
}
