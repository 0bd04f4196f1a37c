//! An event stream as a body: a future that hands over one piece at a time and goes on only
//! when the connection has taken it. So a reader that does not drain is simply not run; what it
//! missed it reads from the log later.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;

use super::body::Piece;

/// The consuming end, polled by the connection.
pub(crate) struct Events {
    writer: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    slot: Slot,
}

type Slot = Arc<Mutex<Option<Piece>>>;

/// The producing end, held by the future that makes the events.
pub(crate) struct Outbox(Slot);

impl Events {
    /// Runs the future that `write` makes, as far as its pieces are taken.
    pub(crate) fn new<F>(write: impl FnOnce(Outbox) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let slot = Slot::default();
        let writer = Box::pin(write(Outbox(Arc::clone(&slot))));
        Self { writer: Some(writer), slot }
    }

    /// The next piece; `None` at the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        if let Some(writer) = &mut self.writer
            && writer.as_mut().poll(cx).is_ready()
        {
            self.writer = None;
        }
        match (self.slot.lock().take(), &self.writer) {
            (Some(piece), _) => Poll::Ready(Some(piece)),
            (None, None) => Poll::Ready(None),
            (None, Some(_)) => Poll::Pending,
        }
    }
}

impl Outbox {
    /// Hands over a piece; returns when it has been taken.
    pub(crate) async fn put(&self, piece: Piece) {
        let before = self.0.lock().replace(piece);
        assert!(before.is_none(), "put waits until the piece before is taken");
        // Needs no waker: whoever takes the piece polls again.
        poll_fn(|_| if self.0.lock().is_none() { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf as _, Bytes};

    use super::*;

    #[test]
    fn pieces_come_one_by_one_and_then_the_end() {
        let mut events = Events::new(|outbox| async move {
            outbox.put(Bytes::from_static(b"a").into()).await;
            outbox.put(Bytes::from_static(b"b").into()).await;
        });
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut next = || match events.poll_next(&mut cx) {
            Poll::Ready(piece) => piece.map(|piece| piece.chunk().to_vec()),
            Poll::Pending => panic!("nothing to wait for"),
        };
        assert_eq!(next().as_deref(), Some(&b"a"[..]));
        assert_eq!(next().as_deref(), Some(&b"b"[..]));
        assert_eq!(next(), None);
        assert_eq!(next(), None);
    }
}
