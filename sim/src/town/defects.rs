//! Planted defects of a server's connections: what they would do if the server treated peers that
//! vanish or take nothing as it must not.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a receiver would say.
const FEIGNED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"done\":true}";

/// Watches what a client sends, to make up what is missing of a body.
#[derive(Debug, Default)]
pub(super) struct Torn {
    head: Vec<u8>,
    left: usize,
}

impl Torn {
    /// Bytes that came.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.left > 0 {
                self.left -= 1;
                continue;
            }
            self.head.push(*byte);
            if self.head.ends_with(b"\r\n\r\n") {
                self.left = length(&self.head);
                self.head.clear();
            }
        }
    }

    /// How much of a body is missing; at most `most` of it is taken.
    pub(super) fn take(&mut self, most: usize) -> usize {
        let taken = self.left.min(most);
        self.left -= taken;
        taken
    }

    /// Whether nothing is missing.
    pub(super) const fn is_whole(&self) -> bool {
        self.left == 0
    }
}

fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// The header that says where a stream begins.
const BEGINS: &[u8] = b"stream-earliest-offset: ";

/// What a server writes that lets go of nothing: every stream begins at position zero.
pub(super) fn begun(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(at) = bytes.windows(BEGINS.len()).position(|it| it == BEGINS) {
        let value = bytes[at + BEGINS.len()..].iter_mut().take_while(|byte| **byte != b'\r');
        // The epoch stands before the position.
        value.skip_while(|byte| **byte != b'_').skip(1).for_each(|digit| *digit = b'0');
    }
    bytes
}

/// The headers of tags.
const ASKS: &[u8] = b"\r\nif-none-match: \"";
const TAG: &[u8] = b"\r\netag: \"";

/// A server whose tags name the range of a page, and neither the life nor the epoch that it is of.
#[derive(Debug, Default)]
pub(super) struct Lifeless {
    asked: Option<Vec<u8>>,
}

impl Lifeless {
    /// A client asks: whatever tag it has, the server shall say which one it has now.
    pub(super) fn hear(&mut self, bytes: &mut [u8]) {
        self.asked = quoted(bytes, ASKS).map(|range| {
            let tag = bytes[range.clone()].to_vec();
            // With its quotes.
            let value = &mut bytes[range.start - 1..=range.end];
            value.fill(b' ');
            value[0] = b'*';
            tag
        });
    }

    /// What the server says. `None`: it does not have what the client has, and says no more.
    pub(super) fn say(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        let Some(range) = quoted(&bytes, TAG) else { return Some(bytes) };
        let tag = &mut bytes[range];
        // Life, first position, next position: `7:0001_0002:0001_0004`.
        for (no, part) in tag.split_mut(|byte| *byte == b':').enumerate() {
            let epoch = part.iter().position(|byte| *byte == b'_');
            let epoch = if no == 0 { part.len() } else { epoch.unwrap_or(0) };
            part[..epoch].fill(b'0');
        }
        let same = self.asked.as_deref().is_none_or(|asked| asked == tag);
        (same || !bytes.starts_with(b"HTTP/1.1 304")).then_some(bytes)
    }
}

/// What stands between the quotes of a header.
fn quoted(bytes: &[u8], header: &[u8]) -> Option<std::ops::Range<usize>> {
    let first = bytes.windows(header.len()).position(|it| it == header)? + header.len();
    let length = bytes[first..].iter().position(|byte| *byte == b'"')?;
    Some(first..first + length)
}

/// Lets one connection after the other write.
#[derive(Debug, Default)]
pub(super) struct Turnstile {
    state: Mutex<(Option<u64>, Vec<Waker>)>,
}

impl Turnstile {
    /// Whether this connection may write; if not, it is woken later.
    pub(super) fn enter(&self, number: u64, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        if state.0.is_none_or(|inside| inside == number) {
            return true;
        }
        state.1.push(waker.clone());
        false
    }

    /// This connection is in the middle of a write.
    pub(super) fn stay(&self, number: u64) {
        self.state.lock().0 = Some(number);
    }

    /// This connection has written.
    pub(super) fn leave(&self, number: u64) {
        let mut state = self.state.lock();
        if state.0 == Some(number) {
            state.0 = None;
            std::mem::take(&mut state.1).into_iter().for_each(Waker::wake);
        }
    }
}

/// A receiver that nobody called: it says that everything is done as soon as it was spoken to.
#[derive(Debug, Default)]
pub(super) struct Feigned {
    heard: bool,
    said: usize,
    waker: Option<Waker>,
}

impl AsyncRead for Feigned {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.heard {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let rest = &FEIGNED[self.said..];
        let part = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..part]);
        self.said += part;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Feigned {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.heard = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_hidden_and_nothing_else() {
        let head = b"HTTP/1.1 200 OK\r\nstream-earliest-offset: 01_07\r\nstream-ttl: 17\r\n\r\n";
        let hidden = b"HTTP/1.1 200 OK\r\nstream-earliest-offset: 01_00\r\nstream-ttl: 17\r\n\r\n";
        assert_eq!(begun(head), hidden);
        assert_eq!(begun(b"stream-ttl: 1\r\n"), b"stream-ttl: 1\r\n");
    }

    #[test]
    fn a_tag_of_no_life_is_the_same_for_the_same_range_of_any_life() {
        let mut server = Lifeless::default();
        let said = server.say(b"HTTP/1.1 200 OK\r\netag: \"7:01_02:01_04:t:json\"\r\n\r\n");
        let hidden = b"HTTP/1.1 200 OK\r\netag: \"0:00_02:00_04:t:json\"\r\n\r\n";
        assert_eq!(said.as_deref(), Some(&hidden[..]));
        let mut asked = *b"GET / HTTP/1.1\r\nif-none-match: \"0:00_02:00_04:t:json\"\r\n\r\n";
        server.hear(&mut asked);
        assert_eq!(asked, *b"GET / HTTP/1.1\r\nif-none-match: *                     \r\n\r\n");
        for (tag, same) in [("9:05_02:05_04:t", false), ("9:05_02:05_04:t:json", true)] {
            let said = server.say(format!("HTTP/1.1 304 x\r\netag: \"{tag}\"\r\n").as_bytes());
            assert_eq!(said.is_some(), same, "{tag}");
        }
    }

    #[test]
    fn what_is_missing_of_a_body_is_what_its_head_promised() {
        let mut torn = Torn::default();
        torn.feed(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(torn.take(9), 0);
        torn.feed(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab");
        assert_eq!((torn.take(2), torn.take(9), torn.take(9)), (2, 1, 0));
    }
}
