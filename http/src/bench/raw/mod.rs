//! One HTTP/1.1 connection, as lean as it gets.
//!
//! A load generator shares the machine with what it measures, so each of its instructions is one
//! that the server does not get. Requests are bytes made beforehand, answers are parsed as far as
//! needed, and bodies are looked at where they lie in the buffer.

mod head;
mod link;
mod peer;

use std::{io, ops::Range};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) use self::{head::Head, link::Link, peer::Peer};
use self::{
    head::{Framing, HEAD_BYTES_MAX, Malformed},
    peer::Wire,
};

/// Bytes of a refusal that are kept to be shown.
const EXCUSE_BYTES_MAX: usize = 400;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The connection broke, or was never made.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server says that it can't now.
    #[error("{0} {1}")]
    Busy(u16, String),
    /// What came is no answer.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A connection. Its server may end it any time; then another one must be opened.
pub(crate) struct Connection {
    wire: Wire,
    buffer: Vec<u8>,
    /// What of the buffer is read but not looked at yet.
    pending: Range<usize>,
    body: Body,
    last: bool,
    /// A request was sent whose answer's head has not come.
    asked: bool,
}

/// Where in a body the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Plain(u64),
    Chunk(u64),
    ChunkEnd,
    ChunkSize,
    Trailer,
    Close,
    Done,
}

impl Connection {
    /// Connects; reads `buffer_bytes` at a time.
    pub(crate) async fn open(peer: Peer, buffer_bytes: usize) -> io::Result<Self> {
        Ok(Self {
            wire: peer.connect().await?,
            buffer: vec![0; buffer_bytes],
            pending: 0..0,
            body: Body::Done,
            last: false,
            asked: false,
        })
    }

    /// Whether another request can be sent.
    pub(crate) const fn is_usable(&self) -> bool {
        !self.last && !self.asked && matches!(self.body, Body::Done)
    }

    /// Sends a request and reads the head of its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<Head, Failure> {
        self.asked = true;
        match &mut self.wire {
            Wire::Plain(socket) => socket.write_all(request).await?,
            Wire::Secure(socket) => {
                socket.write_all(request).await?;
                socket.flush().await?;
            }
        }
        let head = self.head().await?;
        self.asked = false;
        Ok(head)
    }

    async fn head(&mut self) -> Result<Head, Failure> {
        loop {
            if !self.pending.is_empty()
                && let Some(mut head) = head::parse(&self.buffer[self.pending.clone()])?
            {
                let start = self.pending.start;
                head.next_offset = head.next_offset.map(|it| start + it.start..start + it.end);
                self.pending.start += head.bytes;
                if (100..200).contains(&head.status) {
                    continue;
                }
                self.last |= head.last;
                self.body = match head.framing {
                    Framing::Length(0) => Body::Done,
                    Framing::Length(bytes) => Body::Plain(bytes),
                    Framing::Chunked => Body::ChunkSize,
                    Framing::Close => Body::Close,
                };
                return Ok(head);
            }
            self.fill().await?;
        }
    }

    /// The bytes that a head or [`Connection::piece`] spoke of, until more is read.
    pub(crate) fn bytes(&self, at: Range<usize>) -> &[u8] {
        &self.buffer[at]
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Range<usize>>, Failure> {
        loop {
            match self.body {
                Body::Done => return Ok(None),
                Body::Plain(left) | Body::Chunk(left) => {
                    if self.pending.is_empty() {
                        self.fill().await?;
                    }
                    let there = self.pending.len();
                    let taken = usize::try_from(left).map_or(there, |left| left.min(there));
                    let left = left - u64::try_from(taken).expect("a length fits");
                    self.body = match (self.body, left) {
                        (Body::Plain(_), 0) => Body::Done,
                        (Body::Plain(_), left) => Body::Plain(left),
                        (_, 0) => Body::ChunkEnd,
                        (_, left) => Body::Chunk(left),
                    };
                    return Ok(Some(self.take(taken)));
                }
                Body::ChunkEnd => {
                    self.line().await?;
                    self.body = Body::ChunkSize;
                }
                Body::ChunkSize => {
                    let line = self.line().await?;
                    self.body = match chunk_size(&self.buffer[line])? {
                        0 => Body::Trailer,
                        size => Body::Chunk(size),
                    };
                }
                Body::Trailer => {
                    let line = self.line().await?;
                    if self.buffer[line].trim_ascii().is_empty() {
                        self.body = Body::Done;
                    }
                }
                Body::Close => {
                    if self.pending.is_empty() && self.read().await? == 0 {
                        self.body = Body::Done;
                        return Ok(None);
                    }
                    return Ok(Some(self.take(self.pending.len())));
                }
            }
        }
    }

    /// Reads the body to its end and returns its length.
    pub(crate) async fn skip(&mut self) -> Result<usize, Failure> {
        let mut bytes = 0;
        while let Some(piece) = self.piece().await? {
            bytes += piece.len();
        }
        Ok(bytes)
    }

    /// Reads the body to its end and returns its beginning on one line, for a person to read.
    pub(crate) async fn excuse(&mut self) -> Result<String, Failure> {
        let mut text = Vec::new();
        while let Some(piece) = self.piece().await? {
            let room = EXCUSE_BYTES_MAX - text.len();
            let piece = self.bytes(piece);
            text.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        Ok(in_a_line(&String::from_utf8_lossy(&text)))
    }

    fn take(&mut self, bytes: usize) -> Range<usize> {
        let taken = self.pending.start..self.pending.start + bytes;
        self.pending.start = taken.end;
        taken
    }

    /// A line with its end.
    async fn line(&mut self) -> Result<Range<usize>, Failure> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.pending.clone()]) {
                return Ok(self.take(at + 1));
            }
            self.fill().await?;
        }
    }

    /// Reads more; the end of the connection is a failure.
    async fn fill(&mut self) -> Result<(), Failure> {
        match self.read().await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }

    async fn read(&mut self) -> Result<usize, Failure> {
        if self.pending.is_empty() {
            self.pending = 0..0;
        } else if self.pending.end == self.buffer.len() {
            self.make_room()?;
        }
        let room = &mut self.buffer[self.pending.end..];
        let read = match &mut self.wire {
            Wire::Plain(socket) => socket.read(room).await,
            Wire::Secure(socket) => socket.read(room).await,
        };
        if !matches!(read, Ok(1..)) {
            self.last = true;
        }
        let read = read?;
        self.pending.end += read;
        Ok(read)
    }

    fn make_room(&mut self) -> Result<(), Malformed> {
        if self.pending.start > 0 {
            self.buffer.copy_within(self.pending.clone(), 0);
            self.pending = 0..self.pending.len();
        } else if self.buffer.len() >= HEAD_BYTES_MAX {
            return Err(Malformed);
        } else {
            self.buffer.resize((self.buffer.len() * 2).max(256), 0);
        }
        Ok(())
    }
}

/// A text on one line. Of a page for a browser the words.
fn in_a_line(text: &str) -> String {
    let text = text.trim();
    let mut words = String::new();
    if text.starts_with('<') {
        for part in text.split('<').skip(1) {
            // The last mark may be cut off.
            let (_, after) = part.split_once('>').unwrap_or_default();
            words.push(' ');
            words.push_str(after);
        }
    } else {
        words.push_str(text);
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or(line).trim_ascii();
    let digits = std::str::from_utf8(digits).map_err(|_| Malformed)?;
    u64::from_str_radix(digits, 16).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests;
