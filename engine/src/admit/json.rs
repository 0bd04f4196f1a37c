//! JSON, checked in one pass and split into messages without building a tree.
//!
//! Strict RFC 8259: no byte order mark, no invalid UTF-8, no trailing bytes, no control
//! character inside a string. Two things the grammar leaves open are decided here: a lone
//! surrogate *escape* (`"\ud800"`) is accepted, as the grammar does, since the bytes are
//! kept and never decoded; and a message nests at most [`limits::JSON_DEPTH_MAX`] deep,
//! each message of a top-level array counted by itself. Equal keys and the size of numbers
//! are the reader's affair.
//!
//! ```text
//! body     ␣[ {"a": 1} , 2 ]␣        wire  {"a": 1},2      ends 8, 10
//! ```
//! One level of array is taken off, so `[[1,2],3]` is the two messages `[1,2]` and `3`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    limits,
    request::{Prepared, Rejection},
    types::{Ends, Records},
};

/// The messages of a body in wire form; `Ok(None)` for an empty array. The payload is a slice
/// of the body unless there is white space around a comma between two messages.
pub(crate) fn split(body: &Bytes) -> Prepared {
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(reject("byte order mark", 0));
    }
    if let Err(error) = std::str::from_utf8(body) {
        return Err(reject("not UTF-8", error.valid_up_to()));
    }
    let mut scanner = Scanner { bytes: body, at: 0 };
    scanner.space();
    let records = if scanner.peek() == Some(b'[') {
        elements(body, &mut scanner)?
    } else {
        let start = scanner.at;
        scanner.value()?;
        Some(Records::one(body.slice(start..scanner.at)))
    };
    scanner.space();
    if scanner.peek().is_some() {
        return Err(scanner.wrong("characters after the end"));
    }
    Ok(records)
}

/// Takes a top-level array apart.
fn elements(body: &Bytes, scanner: &mut Scanner<'_>) -> Prepared {
    scanner.at += 1;
    scanner.space();
    if scanner.peek() == Some(b']') {
        scanner.at += 1;
        return Ok(None);
    }
    let mut wire = Wire::starting_at(scanner.at);
    loop {
        let start = scanner.at;
        scanner.value()?;
        wire.add(body, start, scanner.at)?;
        scanner.space();
        match scanner.peek() {
            Some(b',') => scanner.at += 1,
            Some(b']') => break,
            _ => return Err(scanner.wrong("expected ',' or ']'")),
        }
        scanner.space();
    }
    scanner.at += 1;
    Ok(Some(wire.finish(body)))
}

/// The wire form under construction: a range of the body for as long as that will do.
struct Wire {
    /// Where the first message starts in the body.
    start: usize,
    /// Where the last message ended in the body.
    end: usize,
    /// The messages so far, once they are no slice of the body.
    copied: Option<BytesMut>,
    /// Where each message ends in the wire form.
    ends: Vec<u32>,
}

impl Wire {
    const fn starting_at(start: usize) -> Self {
        Self { start, end: start, copied: None, ends: Vec::new() }
    }

    /// Adds the message `body[start..end]`.
    fn add(&mut self, body: &Bytes, start: usize, end: usize) -> Result<(), Rejection> {
        let adjacent = self.ends.is_empty() || start == self.end + 1;
        if !adjacent && self.copied.is_none() {
            let mut copied = BytesMut::with_capacity(body.len() - self.start);
            copied.put_slice(&body[self.start..self.end]);
            self.copied = Some(copied);
        }
        if let Some(copied) = &mut self.copied {
            copied.put_u8(b',');
            copied.put_slice(&body[start..end]);
        }
        self.end = end;
        let wire_end = self.copied.as_ref().map_or(end - self.start, BytesMut::len);
        let wire_end = u32::try_from(wire_end).map_err(|_| reject("array over 4 GiB", start))?;
        self.ends.push(wire_end);
        Ok(())
    }

    fn finish(self, body: &Bytes) -> Records {
        let payload = match self.copied {
            None => body.slice(self.start..self.end),
            Some(copied) => copied.freeze(),
        };
        let ends = match self.ends.len() {
            1 => Ends::One,
            _ => Ends::Many(self.ends.into_boxed_slice()),
        };
        Records { payload, ends }
    }
}

fn reject(reason: &'static str, at: usize) -> Rejection {
    Rejection::InvalidJson { reason, at }
}

/// The kinds of the containers that are open, one bit each: no allocation, no recursion.
struct Nesting {
    bits: [u64; limits::JSON_DEPTH_MAX / 64],
    depth: usize,
}

const _: () = assert!(limits::JSON_DEPTH_MAX.is_multiple_of(64));

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

impl Nesting {
    /// False if there is no room for one more.
    fn push(&mut self, container: Container) -> bool {
        let Some(word) = self.bits.get_mut(self.depth / 64) else {
            return false;
        };
        let bit = 1 << (self.depth % 64);
        match container {
            Container::Array => *word &= !bit,
            Container::Object => *word |= bit,
        }
        self.depth += 1;
        true
    }

    fn innermost(&self) -> Option<Container> {
        let index = self.depth.checked_sub(1)?;
        let object = self.bits[index / 64] >> (index % 64) & 1 == 1;
        Some(if object { Container::Object } else { Container::Array })
    }
}

/// A position in text that is known to be UTF-8.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Refuses the byte at the current position, or its absence.
    fn wrong(&self, reason: &'static str) -> Rejection {
        let reason = if self.at < self.bytes.len() { reason } else { "unexpected end" };
        reject(reason, self.at)
    }

    /// Passes one value; the position must be at its first byte.
    fn value(&mut self) -> Result<(), Rejection> {
        let mut open = Nesting { bits: [0; limits::JSON_DEPTH_MAX / 64], depth: 0 };
        loop {
            match self.peek() {
                Some(b'{') => {
                    self.enter(&mut open, Container::Object)?;
                    if self.peek() != Some(b'}') {
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter(&mut open, Container::Array)?;
                    if self.peek() != Some(b']') {
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => return Err(self.wrong("expected a value")),
            }
            if self.leave(&mut open)? {
                return Ok(());
            }
        }
    }

    fn enter(&mut self, open: &mut Nesting, container: Container) -> Result<(), Rejection> {
        if !open.push(container) {
            return Err(self.wrong("nested too deeply"));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// After a value: closes what closes, and goes on to the next value if there is one.
    /// True at the end of the outermost value.
    fn leave(&mut self, open: &mut Nesting) -> Result<bool, Rejection> {
        while let Some(container) = open.innermost() {
            self.space();
            match (container, self.peek()) {
                (Container::Array, Some(b']')) | (Container::Object, Some(b'}')) => {
                    open.depth -= 1;
                    self.at += 1;
                }
                (_, Some(b',')) => {
                    self.at += 1;
                    self.space();
                    if container == Container::Object {
                        self.key()?;
                    }
                    return Ok(false);
                }
                (Container::Array, _) => return Err(self.wrong("expected ',' or ']'")),
                (Container::Object, _) => return Err(self.wrong("expected ',' or '}'")),
            }
        }
        Ok(true)
    }

    /// Passes a key and its colon, up to the value.
    fn key(&mut self) -> Result<(), Rejection> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong("expected a key"));
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.wrong("expected ':'"));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), Rejection> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.wrong("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Rejection> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Rejection> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.wrong("expected a digit"));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), Rejection> {
        self.at += 1;
        loop {
            self.at += plain_len(&self.bytes[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                _ => return Err(self.wrong("control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Rejection> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.wrong("expected a hexadecimal digit"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.wrong("unknown escape")),
        }
        Ok(())
    }
}

/// How many bytes pass before the first quote, backslash or control character. Eight at a
/// time: the three tests are exact for the lowest byte they flag, so also for the lowest
/// byte any of them flags.
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & HIGHS;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);

    let mut words = bytes.chunks_exact(8);
    for (index, word) in words.by_ref().enumerate() {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        let special = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
        if special != 0 {
            let offset = usize::try_from(special.trailing_zeros() / 8).expect("at most seven");
            return index * 8 + offset;
        }
    }
    let rest = words.remainder();
    let special = rest.iter().position(|&byte| byte < 0x20 || matches!(byte, b'"' | b'\\'));
    bytes.len() - rest.len() + special.unwrap_or(rest.len())
}
