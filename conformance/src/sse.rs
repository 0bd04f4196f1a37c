//! Server-sent events, read one at a time from a body.
//!
//! Follows the WHATWG rules the protocol relies on: `data` lines are joined by a
//! line feed, one space after the colon is dropped, comments are skipped, and an
//! event counts only when the empty line after it has arrived.

use std::io::{self, BufRead, ErrorKind};

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
}

/// The next event; `None` where the body ends between two events.
pub fn next(reader: &mut impl BufRead) -> io::Result<Option<Event>> {
    let mut event = Event::default();
    let mut data_lines = 0;
    let mut begun = false;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return if begun { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(None) };
        }
        let Some(line) = line.strip_suffix('\n') else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        if line.is_empty() {
            if data_lines > 0 {
                return Ok(Some(event));
            }
            (event, begun) = (Event::default(), false);
            continue;
        }
        begun = true;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event.name),
            "data" => {
                if data_lines > 0 {
                    event.data.push('\n');
                }
                event.data.push_str(value);
                data_lines += 1;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, next};

    fn check(bytes: &str, expect: &[(&str, &str)]) {
        let mut reader = bytes.as_bytes();
        for (name, data) in expect {
            let event = next(&mut reader).expect("well formed").expect("an event is left");
            assert_eq!(event, Event { name: (*name).to_owned(), data: (*data).to_owned() });
        }
        assert!(!matches!(next(&mut reader), Ok(Some(_))), "{bytes:?} has another event");
    }

    #[test]
    fn an_event_is_its_data_lines_joined() {
        check("event: data\ndata:a\ndata: b\ndata:\n\n", &[("data", "a\nb\n")]);
        check("event: a\ndata:1\n\nevent: b\ndata:2\n\n", &[("a", "1"), ("b", "2")]);
        check(": keep-alive\n\nevent: a\ndata:1\n\n", &[("a", "1")]);
        check(": keep-alive\nevent: a\n: other\ndata:1\n\n", &[("a", "1")]);
    }

    #[test]
    fn an_event_without_its_empty_line_has_not_arrived() {
        check("event: a\ndata:1\n", &[]);
        check("event: a\ndata:1\n\nevent: b\ndata:2", &[("a", "1")]);
        assert!(next(&mut "event: a\ndata:1\n".as_bytes()).is_err());
        assert!(next(&mut "".as_bytes()).expect("a clean end").is_none());
    }
}
