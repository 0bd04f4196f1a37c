//! What commands print: for people on a terminal, for pipes, and as JSON.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json, value::RawValue};

use crate::client::Batch;

/// How deep pretty JSON goes before it is left as it is.
const DEPTH_MAX: usize = 32;

/// Where output goes.
pub(super) struct Output {
    style: Style,
    /// The last byte that was printed is no line break.
    within_line: AtomicBool,
}

/// Who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A person.
    Pretty,
    /// A program that takes lines.
    Plain,
    /// A program that takes JSON.
    Json,
}

/// How the records of a stream are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Messages, each a line or several.
    Json,
    /// As they are.
    Text,
    /// As they are, but not on a terminal.
    Binary,
}

impl Form {
    /// That of a stream of this type.
    pub(super) fn of(content_type: &str) -> Self {
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match &*media {
            "application/json" => Self::Json,
            media if media.starts_with("text/") => Self::Text,
            _ => Self::Binary,
        }
    }
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let style = match json {
            true => Style::Json,
            false if io::stdout().is_terminal() => Style::Pretty,
            false => Style::Plain,
        };
        Self { style, within_line: AtomicBool::new(false) }
    }

    pub(super) const fn style(&self) -> Style {
        self.style
    }

    /// Prints lines as they are.
    pub(super) fn print(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let printed = out.write_all(bytes).and_then(|()| out.flush());
        if let Some(last) = bytes.last() {
            self.within_line.store(*last != b'\n', Ordering::Relaxed);
        }
        printed.context("cannot write to the standard output")
    }

    /// On a terminal, what is said next begins a line.
    pub(super) fn end_line(&self) {
        if self.within_line.swap(false, Ordering::Relaxed) && io::stdout().is_terminal() {
            eprintln!();
        }
    }

    /// One fact: JSON, a table for people, or `plain` for pipes.
    pub(super) fn fact(&self, value: &Value, plain: &str) -> anyhow::Result<()> {
        let text = match self.style {
            Style::Json => format!("{}\n", known(value)),
            Style::Plain => format!("{plain}\n"),
            Style::Pretty => table(value),
        };
        self.print(text.as_bytes())
    }

    /// A document of JSON, indented for people.
    pub(super) fn document(&self, value: &Value) -> anyhow::Result<()> {
        let mut text = value.to_string();
        if self.style != Style::Json {
            text = pretty(&text);
        }
        text.push('\n');
        self.print(text.as_bytes())
    }

    /// The records of a stream that came together.
    pub(super) fn batch(&self, batch: &Batch, form: Form) -> anyhow::Result<()> {
        self.batch_of(None, batch, form)
    }

    /// The same, of one of several streams.
    pub(super) fn batch_of(
        &self,
        stream: Option<&str>,
        batch: &Batch,
        form: Form,
    ) -> anyhow::Result<()> {
        match (self.style, form) {
            (Style::Json, form) => {
                let mut line = Map::new();
                if let Some(stream) = stream {
                    line.insert("stream".into(), stream.into());
                }
                line.insert("offset".into(), batch.next.clone().into());
                if batch.closed {
                    line.insert("closed".into(), true.into());
                }
                self.print(json_line(line, &batch.body, form)?.as_bytes())
            }
            (_, Form::Text | Form::Binary) => self.print(&batch.body),
            (style, Form::Json) => {
                let mut text = String::new();
                for message in messages(&batch.body)? {
                    match style {
                        Style::Pretty => text.push_str(&pretty(message.get())),
                        _ => text.push_str(&one_line(message.get())),
                    }
                    text.push('\n');
                }
                self.print(text.as_bytes())
            }
        }
    }
}

/// One batch as a line of JSON, whose messages are as they were written.
fn json_line(mut line: Map<String, Value>, body: &[u8], form: Form) -> anyhow::Result<String> {
    match form {
        Form::Json => {
            let body = if body.is_empty() { b"[]" } else { body };
            let body = one_line(std::str::from_utf8(body)?);
            let head = Value::Object(line).to_string();
            let head = head.trim_end_matches('}');
            return Ok(format!("{head},\"messages\":{body}}}\n"));
        }
        Form::Text | Form::Binary => match std::str::from_utf8(body) {
            Ok(text) if form == Form::Text => line.insert("text".into(), text.into()),
            // What is no UTF-8 keeps its bytes.
            _ => line.insert("base64".into(), STANDARD.encode(body).into()),
        },
    };
    Ok(format!("{}\n", Value::Object(line)))
}

/// The messages of a page of JSON.
pub(super) fn messages(body: &[u8]) -> anyhow::Result<Vec<&RawValue>> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    Ok(serde_json::from_slice(body)?)
}

/// JSON without line breaks. Within strings there are none.
pub(super) fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

/// JSON indented, every number and string as it was written.
fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut rest = json.char_indices().peekable();
    while let Some((at, letter)) = rest.next() {
        match letter {
            '"' => {
                out.push('"');
                let mut escaped = false;
                for (_, letter) in rest.by_ref() {
                    out.push(letter);
                    match letter {
                        '"' if !escaped => break,
                        '\\' => escaped = !escaped,
                        _ => escaped = false,
                    }
                }
            }
            '{' | '[' => {
                let inner = json[at + 1..].trim_start();
                out.push(letter);
                if inner.starts_with(['}', ']']) {
                    while let Some((_, next)) = rest.next_if(|(_, it)| it.is_whitespace()) {
                        debug_assert!(next.is_whitespace(), "dropped");
                    }
                    out.extend(rest.next().map(|(_, letter)| letter));
                    continue;
                }
                depth += 1;
                line(&mut out, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(letter);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            letter if letter.is_whitespace() => {}
            letter => out.push(letter),
        }
    }
    out
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth.min(DEPTH_MAX)));
}

/// A fact without the fields of which nothing is known.
fn known(fact: &Value) -> Value {
    let Value::Object(fields) = fact else { return fact.clone() };
    let known = fields.iter().filter(|(_, value)| !value.is_null());
    known.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The fields of an object, one a line.
fn table(value: &Value) -> String {
    let Value::Object(fields) = value else { return format!("{value}\n") };
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in fields {
        let value = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        text.push_str(&format!("{name:width$}  {value}\n"));
    }
    text
}

/// What is known of a stream, as JSON. What a server does not say is null.
pub(super) fn info(name: &str, info: &crate::client::Info) -> Value {
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "stream": name,
        "content_type": said(&info.content_type),
        "tail": said(&info.tail),
        "closed": info.closed,
        "ttl": info.ttl,
        "expires_at": info.expires_at,
        "retention": info.retention,
        "earliest": info.earliest,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn pretty_json_keeps_every_token() {
        for (json, expect) in [
            ("1.0e2", "1.0e2"),
            ("[]", "[]"),
            ("[ ]", "[]"),
            ("{\n}", "{}"),
            (
                r#"{"a":[1,{"b":"x,{\"y\\"}]}"#,
                "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x,{\\\"y\\\\\"\n    }\n  ]\n}",
            ),
        ] {
            assert_eq!(pretty(json), expect, "{json}");
        }
    }

    #[test]
    fn a_batch_as_json_keeps_the_messages_as_they_were_written() {
        let line = |body: &'static [u8], form| {
            let mut head = Map::new();
            head.insert("offset".into(), "0_2".into());
            json_line(head, &Bytes::from_static(body), form).expect("text")
        };
        assert_eq!(
            line(b"[1.0e2,\n{\"a\":12345678901234567890}]", Form::Json),
            "{\"offset\":\"0_2\",\"messages\":[1.0e2, {\"a\":12345678901234567890}]}\n"
        );
        assert_eq!(line(b"a\nb", Form::Text), "{\"offset\":\"0_2\",\"text\":\"a\\nb\"}\n");
        assert_eq!(line(&[0xff], Form::Text), "{\"base64\":\"/w==\",\"offset\":\"0_2\"}\n");
        assert_eq!(line(&[0xff], Form::Binary), "{\"base64\":\"/w==\",\"offset\":\"0_2\"}\n");
    }

    #[test]
    fn what_is_not_known_is_no_field() {
        let fact = json!({ "stream": "a", "tail": null, "closed": false, "lines": 0 });
        assert_eq!(known(&fact), json!({ "stream": "a", "closed": false, "lines": 0 }));
    }

    #[test]
    fn types_have_forms() {
        for (content_type, expect) in [
            ("application/json; charset=utf-8", Form::Json),
            ("Application/JSON", Form::Json),
            ("text/plain", Form::Text),
            ("image/png", Form::Binary),
            ("", Form::Binary),
        ] {
            assert_eq!(Form::of(content_type), expect, "{content_type}");
        }
    }
}
