//! Bodies of answers. Pieces of pages go out as they are, uncopied; events are made when the
//! connection has room for them.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};

use super::events::Events;
use crate::server::Ticket;

/// Bodies up to this size are copied into one piece.
const COPY_BYTES_MAX: usize = 16 << 10;

/// Bytes that reach the client in one piece: one chunk of a chunked body. The first half of an
/// event may be shared by all readers, the second is this reader's own.
#[derive(Debug)]
pub(crate) struct Piece {
    first: Bytes,
    second: Bytes,
}

impl Piece {
    pub(crate) const fn two(first: Bytes, second: Bytes) -> Self {
        Self { first, second }
    }
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self { first: bytes, second: Bytes::new() }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.first.len() + self.second.len()
    }

    fn chunk(&self) -> &[u8] {
        if self.first.is_empty() { &self.second } else { &self.first }
    }

    fn chunks_vectored<'a>(&'a self, parts: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for part in [&self.first, &self.second] {
            if filled < parts.len() && !part.is_empty() {
                parts[filled] = IoSlice::new(part);
                filled += 1;
            }
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        let of_first = count.min(self.first.len());
        self.first.advance(of_first);
        self.second.advance(count - of_first);
    }
}

/// The body of an answer.
pub(crate) struct Body {
    inner: Inner,
    ticket: Option<Ticket>,
}

enum Inner {
    Whole(Bytes),
    Pieces { pieces: VecDeque<Bytes>, left: usize },
    Events(Events),
}

impl Body {
    pub(crate) const fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    pub(crate) const fn whole(bytes: Bytes) -> Self {
        Self { inner: Inner::Whole(bytes), ticket: None }
    }

    /// The pieces one after the other, between `open` and `close`.
    pub(crate) fn joined(open: &'static [u8], pieces: Vec<Bytes>, close: &'static [u8]) -> Self {
        let payload = pieces.iter().map(Bytes::len).sum::<usize>();
        let left = open.len() + payload + close.len();
        if left <= COPY_BYTES_MAX && (pieces.len() > 1 || !open.is_empty()) {
            let mut whole = BytesMut::with_capacity(left);
            whole.put_slice(open);
            pieces.iter().for_each(|piece| whole.put_slice(piece));
            whole.put_slice(close);
            return Self::whole(whole.freeze());
        }
        let mut pieces = VecDeque::from(pieces);
        pieces.push_front(Bytes::from_static(open));
        pieces.push_back(Bytes::from_static(close));
        pieces.retain(|piece| !piece.is_empty());
        Self { inner: Inner::Pieces { pieces, left }, ticket: None }
    }

    pub(crate) const fn events(events: Events) -> Self {
        Self { inner: Inner::Events(events), ticket: None }
    }

    /// Holds the request's ticket until the body is gone.
    pub(crate) fn keep(&mut self, ticket: Ticket) {
        self.ticket = Some(ticket);
    }

    pub(crate) const fn is_events(&self) -> bool {
        matches!(self.inner, Inner::Events(_))
    }
}

impl hyper::body::Body for Body {
    type Data = Piece;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Infallible>>> {
        let piece = match &mut self.get_mut().inner {
            Inner::Whole(bytes) if bytes.is_empty() => None,
            Inner::Whole(bytes) => Some(Piece::from(std::mem::take(bytes))),
            Inner::Pieces { pieces, left } => pieces.pop_front().map(|piece| {
                *left -= piece.len();
                Piece::from(piece)
            }),
            Inner::Events(events) => match events.poll_next(cx) {
                Poll::Ready(piece) => piece,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Whole(bytes) => bytes.is_empty(),
            Inner::Pieces { pieces, .. } => pieces.is_empty(),
            Inner::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let left = match &self.inner {
            Inner::Whole(bytes) => bytes.len(),
            Inner::Pieces { left, .. } => *left,
            Inner::Events(_) => return SizeHint::default(),
        };
        SizeHint::with_exact(u64::try_from(left).expect("usize fits u64"))
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Body as _;

    use super::*;

    fn drain(mut body: Body) -> (u64, Vec<u8>) {
        let length = body.size_hint().exact().expect("known");
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut bytes = Vec::new();
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) {
            let mut piece = frame.into_data().expect("only data");
            while piece.has_remaining() {
                let chunk = piece.chunk().len();
                bytes.extend_from_slice(piece.chunk());
                piece.advance(chunk);
            }
        }
        assert!(body.is_end_stream());
        (length, bytes)
    }

    #[test]
    fn a_body_is_as_long_as_it_says_however_it_is_cut() {
        let large = vec![b'x'; COPY_BYTES_MAX];
        for pieces in [vec![], vec![&b"1"[..]], vec![b"1", b",2", b",3"], vec![&large[..], b"y"]] {
            let expect = [b"[", &pieces.concat()[..], b"]"].concat();
            let pieces = pieces.into_iter().map(Bytes::copy_from_slice).collect();
            let (length, bytes) = drain(Body::joined(b"[", pieces, b"]"));
            assert_eq!(usize::try_from(length), Ok(expect.len()));
            assert_eq!(bytes, expect);
        }
        assert_eq!(drain(Body::empty()), (0, Vec::new()));
    }

    #[test]
    fn a_piece_of_two_is_read_as_one() {
        let mut piece = Piece::two(Bytes::from_static(b"abc"), Bytes::from_static(b"de"));
        assert_eq!(piece.remaining(), 5);
        let mut parts = [IoSlice::new(b""); 4];
        assert_eq!(piece.chunks_vectored(&mut parts), 2);
        piece.advance(4);
        assert_eq!(piece.chunk(), b"e");
        piece.advance(1);
        assert!(!piece.has_remaining());
    }
}
