//! Server-sent events: lines to events, events to batches. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;

use super::error::Error;

/// Bytes of one event.
const EVENT_BYTES_MAX: usize = 256 << 20;

/// What an event stream said between two of its control events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) body: Bytes,
    pub(super) next: String,
    pub(super) cursor: Option<String>,
    pub(super) up_to_date: bool,
    pub(super) closed: bool,
}

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Base64,
}

/// Makes batches of the bytes of an event stream, cut anywhere.
#[derive(Debug)]
pub(super) struct Parser {
    encoding: Encoding,
    /// A line that has not ended.
    line: Vec<u8>,
    /// The last line ended in `\r`: a `\n` that follows belongs to it.
    after_return: bool,
    kind: String,
    data: Vec<u8>,
    has_data: bool,
    /// Data whose control event has not come.
    held: Vec<Vec<u8>>,
}

impl Parser {
    pub(super) const fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            line: Vec::new(),
            after_return: false,
            kind: String::new(),
            data: Vec::new(),
            has_data: false,
            held: Vec::new(),
        }
    }

    /// Takes the next bytes and adds what they complete to `said`.
    pub(super) fn take(&mut self, mut bytes: &[u8], said: &mut Vec<Said>) -> Result<(), Error> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
                self.line.extend_from_slice(bytes);
                if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                    return Err(Error::Strange("an event without end".to_owned()));
                }
                return Ok(());
            };
            self.line.extend_from_slice(&bytes[..end]);
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            if line.is_empty() {
                said.extend(self.event()?);
            } else {
                self.field(&line);
            }
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => self.kind = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            // A comment, an id, a retry.
            _ => {}
        }
    }

    /// The event that a blank line ends.
    fn event(&mut self) -> Result<Option<Said>, Error> {
        let kind = std::mem::take(&mut self.kind);
        let data = std::mem::take(&mut self.data);
        self.has_data = false;
        match &*kind {
            "data" => {
                self.held.push(self.decode(data)?);
                Ok(None)
            }
            "control" => self.control(&data).map(Some),
            _ => Ok(None),
        }
    }

    fn decode(&self, data: Vec<u8>) -> Result<Vec<u8>, Error> {
        match self.encoding {
            Encoding::Plain => Ok(data),
            Encoding::Base64 => {
                let mut digits = data;
                digits.retain(|byte| !byte.is_ascii_whitespace());
                let decoded = STANDARD.decode(&digits);
                decoded.map_err(|error| Error::Strange(format!("data that is no base64: {error}")))
            }
        }
    }

    fn control(&mut self, data: &[u8]) -> Result<Said, Error> {
        let strange = |what: &str| Error::Strange(format!("a control event {what}"));
        let fields: Value = serde_json::from_slice(data).map_err(|_| strange("is no JSON"))?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        let flag = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or(false);
        Ok(Said {
            next: text("streamNextOffset").ok_or_else(|| strange("has no offset"))?,
            cursor: text("streamCursor"),
            up_to_date: flag("upToDate"),
            closed: flag("streamClosed"),
            body: join(std::mem::take(&mut self.held)),
        })
    }
}

/// Several data events as one body: arrays of JSON become one array.
fn join(mut held: Vec<Vec<u8>>) -> Bytes {
    if held.len() <= 1 {
        return held.pop().unwrap_or_default().into();
    }
    let is_array = |body: &Vec<u8>| body.starts_with(b"[") && body.ends_with(b"]");
    if !held.iter().all(is_array) {
        return held.concat().into();
    }
    let inner = held.iter().map(|body| body[1..body.len() - 1].trim_ascii());
    let inner: Vec<&[u8]> = inner.filter(|body| !body.is_empty()).collect();
    [&b"["[..], &inner.join(&b","[..]), b"]"].concat().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &[u8], encoding: Encoding, step: usize) -> Result<Vec<Said>, Error> {
        let (mut parser, mut said) = (Parser::new(encoding), Vec::new());
        for piece in text.chunks(step) {
            parser.take(piece, &mut said)?;
        }
        Ok(said)
    }

    fn check(text: &str, encoding: Encoding, expect: &[(&str, &str)]) {
        for step in [1, 2, 3, 1_000] {
            let said = parse(text.as_bytes(), encoding, step).expect("events");
            let found = said
                .iter()
                .map(|said| (std::str::from_utf8(&said.body).expect("text"), said.next.as_str()));
            assert_eq!(found.collect::<Vec<_>>(), expect, "steps of {step}");
        }
    }

    #[test]
    fn a_batch_is_the_data_before_a_control_event() {
        check(
            ": hello\n\nevent: control\ndata:{\"streamNextOffset\":\"a\"}\n\n\
             event: data\ndata:one\ndata: two\n\nevent: control\ndata: {\"streamNextOffset\":\"b\"}\n\n\
             event: data\ndata:lost\n\n",
            Encoding::Plain,
            &[("", "a"), ("one\ntwo", "b")],
        );
        check(
            "event:data\r\ndata:[1]\r\n\r\nevent:data\r\ndata:[ 2,3 ]\r\n\r\nevent:data\r\ndata:[]\r\n\r\n\
             event:control\r\ndata:{\"streamNextOffset\":\"c\"}\r\n\r\n",
            Encoding::Plain,
            &[("[1,2,3]", "c")],
        );
        check(
            "event: data\ndata:b25l\ndata:dHdv\n\nevent: control\ndata:{\"streamNextOffset\":\"d\"}\n\n",
            Encoding::Base64,
            &[("onetwo", "d")],
        );
    }

    #[test]
    fn flags_are_read() {
        let text = b"event: control\ndata:{\"streamNextOffset\":\"a\",\"streamCursor\":\"7\",\
                     \"upToDate\":true,\"streamClosed\":true}\n\n";
        let said = &parse(text, Encoding::Plain, 9).expect("events")[0];
        assert!(said.up_to_date && said.closed);
        assert_eq!(said.cursor.as_deref(), Some("7"));
    }

    #[test]
    fn what_is_no_control_event_is_told() {
        for text in ["event: control\ndata:{}\n\n", "event: control\ndata:x\n\n"] {
            assert!(parse(text.as_bytes(), Encoding::Plain, 100).is_err());
        }
        assert!(parse(b"event: data\ndata:=\n\n", Encoding::Base64, 100).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in "(event|data|control|:|\n|\r|[{}a ]){0,60}") {
            // Whatever it says of them.
            drop(parse(bytes.as_bytes(), Encoding::Plain, 7));
        }
    }
}
