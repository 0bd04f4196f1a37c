//! Bytes of server-sent events.
//!
//! ```text
//! event: data            event: control
//! data:line one          data:{"streamNextOffset":"…","streamCursor":"…","upToDate":true}
//! data:line two
//! ```
//! Lines end in `\n` and nothing else. A payload is split at CR, LF and CRLF alike, so nothing
//! in it can end an event or start another; a line that starts with a space gets one more,
//! because readers strip one. Text is held back at its end while a character is incomplete,
//! so that an append boundary inside a character costs nothing.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use weir_engine::types::Form;

/// A comment that keeps the connection alive.
pub(crate) const KEEPALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

const DATA_HEAD: &[u8] = b"event: data\ndata:";
const NEXT_LINE: &[u8] = b"\ndata:";
const EVENT_END: &[u8] = b"\n\n";

/// The data event of one batch; empty if there is nothing to say. `carry` comes before the
/// pieces, the last `withheld` bytes are left out.
pub(crate) fn data_event(form: Form, carry: &[u8], pieces: &[Bytes], withheld: usize) -> Bytes {
    let bytes = carry.len() + pieces.iter().map(Bytes::len).sum::<usize>() - withheld;
    if bytes == 0 {
        return Bytes::new();
    }
    let mut lines = Lines::new(bytes);
    match form {
        Form::Binary => lines.out.extend_from_slice(encode_base64(pieces).as_bytes()),
        Form::Json => {
            lines.push(b"[");
            pieces.iter().for_each(|piece| lines.push(piece));
            lines.push(b"]");
        }
        Form::Text => {
            let mut left = bytes;
            for part in std::iter::once(carry).chain(pieces.iter().map(|piece| &piece[..])) {
                let taken = part.len().min(left);
                lines.push(&part[..taken]);
                left -= taken;
            }
        }
    }
    lines.out.extend_from_slice(EVENT_END);
    Bytes::from(lines.out)
}

fn encode_base64(pieces: &[Bytes]) -> String {
    match pieces {
        [piece] => STANDARD.encode(piece),
        pieces => STANDARD.encode(pieces.concat()),
    }
}

/// Where a reader stands, as its control event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// More is there to read.
    Behind,
    /// At the tail.
    UpToDate,
    /// At the end of a closed stream.
    Closed,
}

/// A control event. The cursor is left out of the last one of a closed stream.
pub(crate) fn control_event(next_offset: &str, cursor: u64, standing: Standing) -> Bytes {
    use std::fmt::Write as _;

    let mut event = String::with_capacity(128);
    event.push_str("event: control\ndata:{\"streamNextOffset\":\"");
    event.push_str(next_offset);
    match standing {
        Standing::Closed => event.push_str("\",\"upToDate\":true,\"streamClosed\":true}\n\n"),
        Standing::Behind | Standing::UpToDate => {
            write!(event, "\",\"streamCursor\":\"{cursor}\"").expect("a string takes it");
            let up_to_date = standing == Standing::UpToDate;
            event.push_str(if up_to_date { ",\"upToDate\":true}\n\n" } else { "}\n\n" });
        }
    }
    Bytes::from(event)
}

/// How many bytes at the end of the text are the beginning of a character that is not
/// complete: 0 to 3.
pub(crate) fn incomplete_tail(carry: &[u8], pieces: &[Bytes]) -> usize {
    let parts = std::iter::once(carry).chain(pieces.iter().map(|piece| &piece[..]));
    let mut last: [u8; 3] = [0; 3];
    let mut known = 0;
    for byte in parts.rev_bytes().take(3) {
        known += 1;
        last[3 - known] = byte;
    }
    (1..=known)
        .find(|&count| {
            let tail = &last[3 - count..];
            let error = std::str::from_utf8(tail).err();
            // `error_len` is None exactly where more bytes could complete the character.
            error.is_some_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

/// The last `withheld` bytes of the text.
pub(crate) fn tail_of(carry: &[u8], pieces: &[Bytes], withheld: usize) -> Vec<u8> {
    let parts = std::iter::once(carry).chain(pieces.iter().map(|piece| &piece[..]));
    let mut tail: Vec<u8> = parts.rev_bytes().take(withheld).collect();
    tail.reverse();
    tail
}

/// Bytes of several parts from the end.
trait RevBytes<'p> {
    fn rev_bytes(self) -> impl Iterator<Item = u8> + 'p;
}

impl<'p, I: DoubleEndedIterator<Item = &'p [u8]> + 'p> RevBytes<'p> for I {
    fn rev_bytes(self) -> impl Iterator<Item = u8> + 'p {
        self.rev().flat_map(|part| part.iter().rev().copied())
    }
}

/// Writes `data:` lines.
struct Lines {
    out: Vec<u8>,
    at_line_start: bool,
    after_cr: bool,
}

impl Lines {
    fn new(bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes + bytes / 2 + 64);
        out.extend_from_slice(DATA_HEAD);
        Self { out, at_line_start: true, after_cr: false }
    }

    fn push(&mut self, mut text: &[u8]) {
        if self.after_cr && !text.is_empty() {
            self.after_cr = false;
            text = text.strip_prefix(b"\n").unwrap_or(text);
        }
        while let Some(at) = memchr::memchr2(b'\r', b'\n', text) {
            self.write(&text[..at]);
            self.out.extend_from_slice(NEXT_LINE);
            self.at_line_start = true;
            let cr = text[at] == b'\r';
            text = &text[at + 1..];
            if cr {
                self.after_cr = text.is_empty();
                text = text.strip_prefix(b"\n").unwrap_or(text);
            }
        }
        self.write(text);
    }

    fn write(&mut self, part: &[u8]) {
        if part.is_empty() {
            return;
        }
        if self.at_line_start && part[0] == b' ' {
            self.out.push(b' ');
        }
        self.at_line_start = false;
        self.out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests;
