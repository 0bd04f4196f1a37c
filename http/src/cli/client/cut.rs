//! Cuts bytes into the bodies of requests, the same bytes into the same bodies. Pure.
//!
//! Each body says how far in the input it comes ([`Mark`]), so that another process can tell
//! whether its input is the same and go on behind it. A line that is no message is told by its
//! number; what stands before it is given all the same.

use std::fmt;

use bytes::Bytes;
use ring::digest;
use serde_json::value::RawValue;

/// Bytes of lines in a request; one line may have more.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// Where to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// So many lines, each a JSON message; blank ones do not count.
    Messages(usize),
    /// So many lines, each with its line break.
    Lines(usize),
    /// So many bytes.
    Bytes,
}

/// A place in an input: how many bytes stand before it, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) bytes: u64,
    /// SHA-256 of them.
    pub(super) sum: [u8; 32],
}

/// A place that moves on.
#[derive(Clone)]
pub(super) struct Place {
    bytes: u64,
    /// Lines of this file before it.
    line: u64,
    sum: digest::Context,
}

impl Place {
    /// The beginning of all inputs.
    pub(super) fn start() -> Self {
        Self { bytes: 0, line: 0, sum: digest::Context::new(&digest::SHA256) }
    }

    /// Goes past these bytes.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        self.bytes += wide(bytes.len());
        self.line += wide(memchr::memchr_iter(b'\n', bytes).count());
        self.sum.update(bytes);
    }

    /// Begins with the next file.
    pub(super) fn next_input(&mut self) {
        self.line = 0;
        // Two files are not the same as one with the content of both.
        self.sum.update(b"\xff\0next\0");
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn mark(&self) -> Mark {
        let sum = self.sum.clone().finish();
        Mark { bytes: self.bytes, sum: sum.as_ref().try_into().expect("SHA-256 has 32 bytes") }
    }
}

/// A body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// Lines in it.
    pub(super) lines: u64,
    /// Bytes of the input that it is made of.
    pub(super) consumed: u64,
    /// The first of its lines in its file, from 1.
    pub(super) first: u64,
    /// Lines of its file up to its end.
    pub(super) last: u64,
    /// Where in the input it ends.
    pub(super) mark: Mark,
}

/// A line that is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// Its number in its file, from 1.
    pub(super) line: u64,
    reason: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} is no JSON message: {}", self.line, self.reason)
    }
}

/// Takes bytes in pieces of any size and gives bodies.
pub(super) struct Cutter {
    cut: Cut,
    /// What no line break has come for.
    rest: Vec<u8>,
    /// How much of that is known to have none.
    searched: usize,
    body: Vec<u8>,
    lines: usize,
    /// The first line of the body.
    first: u64,
    consumed: usize,
    place: Place,
    /// Up to here goes the first body, whatever the limits are: another process has made it.
    again: Option<u64>,
}

impl Cutter {
    /// Cuts what stands behind `place`; the first body ends at `again`, if that is given.
    pub(super) fn new(cut: Cut, place: Place, again: Option<u64>) -> Self {
        Self {
            cut,
            rest: Vec::new(),
            searched: 0,
            body: Vec::new(),
            lines: 0,
            first: 0,
            consumed: 0,
            place,
            again,
        }
    }

    /// Takes a piece and gives `ready` the bodies that are full, or all of them before a line that
    /// is no message.
    pub(super) fn take(&mut self, piece: &[u8], ready: &mut Vec<Body>) -> Result<(), BadLine> {
        if self.cut == Cut::Bytes {
            self.take_bytes(piece, ready);
            return Ok(());
        }
        self.rest.extend_from_slice(piece);
        let rest = std::mem::take(&mut self.rest);
        let mut start = 0;
        let mut from = self.searched;
        while let Some(end) = memchr::memchr(b'\n', &rest[from..]) {
            let end = from + end + 1;
            self.line(&rest[start..end], ready)?;
            (start, from) = (end, end);
        }
        self.rest = rest[start..].to_vec();
        self.searched = self.rest.len();
        Ok(())
    }

    /// The body that is not full yet, if there is one.
    pub(super) fn flush(&mut self) -> Option<Body> {
        if self.consumed == 0 || self.body.is_empty() {
            return None;
        }
        let mut body = std::mem::take(&mut self.body);
        if matches!(self.cut, Cut::Messages(_)) {
            body.push(b']');
        }
        self.again = None;
        let lines = wide(std::mem::take(&mut self.lines));
        let consumed = wide(std::mem::take(&mut self.consumed));
        let mark = self.place.mark();
        let (first, last) = (self.first, self.place.line);
        Some(Body { bytes: body.into(), lines, consumed, first, last, mark })
    }

    /// Whether a body must not be given before it is full: it was made once and must be the same.
    pub(super) const fn must_fill(&self) -> bool {
        self.again.is_some()
    }

    /// What is left at the end of a file. Returns the place there.
    pub(super) fn finish(mut self, ready: &mut Vec<Body>) -> Result<Place, BadLine> {
        let last = std::mem::take(&mut self.rest);
        if !last.is_empty() {
            self.line(&last, ready)?;
        }
        ready.extend(self.flush());
        Ok(self.place)
    }

    fn take_bytes(&mut self, mut piece: &[u8], ready: &mut Vec<Body>) {
        while !piece.is_empty() {
            let room = match self.again {
                Some(again) => usize::try_from(again.saturating_sub(self.place.bytes)),
                None => Ok(BODY_BYTES_MAX - self.body.len()),
            };
            let (taken, left) = piece.split_at(piece.len().min(room.unwrap_or(usize::MAX)));
            self.body.extend_from_slice(taken);
            self.consumed += taken.len();
            self.place.pass(taken);
            piece = left;
            let is_full = match self.again {
                Some(again) => self.place.bytes >= again,
                None => self.body.len() == BODY_BYTES_MAX,
            };
            if is_full {
                ready.extend(self.flush());
            }
        }
    }

    fn line(&mut self, line: &[u8], ready: &mut Vec<Body>) -> Result<(), BadLine> {
        let (most, content) = match self.cut {
            Cut::Messages(most) => (most, line.trim_ascii()),
            Cut::Lines(most) => (most, line),
            Cut::Bytes => unreachable!("bytes have no lines"),
        };
        if !content.is_empty() {
            let is_long = self.body.len() + content.len() + 2 > BODY_BYTES_MAX;
            if !self.body.is_empty() && is_long && self.again.is_none() {
                ready.extend(self.flush());
            }
            if matches!(self.cut, Cut::Messages(_)) {
                if let Err(reason) = is_message(content) {
                    ready.extend(self.flush());
                    return Err(BadLine { line: self.place.line + 1, reason });
                }
                self.body.push(if self.body.is_empty() { b'[' } else { b',' });
            }
            if self.lines == 0 {
                self.first = self.place.line + 1;
            }
            self.body.extend_from_slice(content);
            self.lines += 1;
        }
        self.consumed += line.len();
        self.place.pass(line);
        let is_full = match self.again {
            Some(again) => self.place.bytes >= again,
            None => self.lines == most,
        };
        if is_full {
            ready.extend(self.flush());
        }
        Ok(())
    }
}

/// Two on a line would be two messages, and a bracket too many could be part of another line.
fn is_message(line: &[u8]) -> Result<(), String> {
    match serde_json::from_slice::<&RawValue>(line) {
        Ok(_) => Ok(()),
        // Its own line number is that of one line.
        Err(error) => {
            let text = error.to_string();
            let words = text.split(" at line ").next().unwrap_or(&text);
            Err(format!("{words} at column {}", error.column()))
        }
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).expect("a count fits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(cut: Cut, input: &[u8], step: usize) -> Vec<Body> {
        let (mut cutter, mut ready) = (Cutter::new(cut, Place::start(), None), Vec::new());
        for piece in input.chunks(step) {
            cutter.take(piece, &mut ready).expect("messages");
        }
        cutter.finish(&mut ready).expect("messages");
        ready
    }

    fn check(how: Cut, input: &str, expect: &[(&str, u64, u64)]) {
        for step in [1, 2, 5, 1_000] {
            let bodies = cut(how, input.as_bytes(), step);
            let found = bodies
                .iter()
                .map(|it| (std::str::from_utf8(&it.bytes).expect("text"), it.lines, it.first));
            assert_eq!(found.collect::<Vec<_>>(), expect, "steps of {step}");
        }
    }

    #[test]
    fn lines_become_arrays_or_stay_lines() {
        let messages = "1\n\n[2]\r\n {\"a\":3} \n";
        check(Cut::Messages(2), messages, &[("[1,[2]]", 2, 1), ("[{\"a\":3}]", 1, 4)]);
        check(Cut::Messages(9), "1", &[("[1]", 1, 1)]);
        check(Cut::Messages(9), "\n\n", &[]);
        check(Cut::Lines(2), "a\n\nb\nc", &[("a\n\n", 2, 1), ("b\nc", 2, 3)]);
        check(Cut::Bytes, "ab\nc", &[("ab\nc", 0, 0)]);
        check(Cut::Bytes, "", &[]);
    }

    #[test]
    fn a_line_that_is_no_message_is_named_and_those_before_it_are_given() {
        for bad in ["{", "1,2", "1]", "[1", "one", "\u{fffd}x", "1 2"] {
            let (mut cutter, mut ready) =
                (Cutter::new(Cut::Messages(9), Place::start(), None), Vec::new());
            let input = format!("1\n\n2\n{bad}\n3\n");
            let error = cutter.take(input.as_bytes(), &mut ready).expect_err(bad);
            assert_eq!(error.line, 4, "{bad}: {error}");
            assert_eq!(ready.len(), 1, "{bad}");
            assert_eq!((&*ready[0].bytes, ready[0].mark.bytes), (&b"[1,2]"[..], 5), "{bad}");
        }
    }

    #[test]
    fn a_body_that_was_made_once_is_made_again_whatever_the_limits_are() {
        let input = b"1\n2\n\n3\n4\n5\n";
        let mut place = Place::start();
        place.pass(&input[..2]);
        let expect = cut(Cut::Messages(9), &input[..9], 100)[0].mark;
        for step in [1, 3, 100] {
            let (mut cutter, mut ready) =
                (Cutter::new(Cut::Messages(1), place.clone(), Some(9)), Vec::new());
            for piece in input[2..].chunks(step) {
                cutter.take(piece, &mut ready).expect("messages");
            }
            let bodies: Vec<&[u8]> = ready.iter().map(|it| &*it.bytes).collect();
            assert_eq!(bodies, [&b"[2,3,4]"[..], b"[5]"], "steps of {step}");
            assert_eq!(ready[0].mark, expect);
        }
    }

    #[test]
    fn a_body_has_a_bound_and_a_long_line_its_own() {
        let line = "x".repeat(400_000);
        let input = format!("{line}\n{line}\n{line}\n{}\n", line.repeat(4));
        let lines: Vec<u64> =
            cut(Cut::Lines(100), input.as_bytes(), 4_096).iter().map(|it| it.lines).collect();
        assert_eq!(lines, [2, 1, 1]);
        let bytes = vec![0; BODY_BYTES_MAX * 2 + 1];
        let bodies = cut(Cut::Bytes, &bytes, 70_000);
        assert_eq!(
            bodies.iter().map(|it| it.bytes.len()).collect::<Vec<_>>(),
            [BODY_BYTES_MAX, BODY_BYTES_MAX, 1]
        );
    }

    proptest! {
        #[test]
        fn the_same_input_is_cut_in_the_same_way(
            input in "([0-9]{0,5}\n?){0,40}", most in 1..6_usize, step in 1..50_usize,
        ) {
            // A number does not begin with a zero.
            let input = input.replace('0', "7");
            for how in [Cut::Messages(most), Cut::Lines(most), Cut::Bytes] {
                let (one, other) = (cut(how, input.as_bytes(), step), cut(how, input.as_bytes(), 1_000));
                prop_assert_eq!(&one, &other);
                if how != Cut::Messages(most) {
                    let whole: Vec<u8> = one.iter().flat_map(|it| it.bytes.to_vec()).collect();
                    prop_assert_eq!(whole, input.as_bytes());
                }
                let mut place = Place::start();
                for body in &one {
                    let from = usize::try_from(place.bytes()).expect("small");
                    let upto = usize::try_from(body.mark.bytes).expect("small");
                    place.pass(&input.as_bytes()[from..upto]);
                    prop_assert_eq!(place.mark(), body.mark, "the mark is that of the input");
                }
            }
        }
    }
}
