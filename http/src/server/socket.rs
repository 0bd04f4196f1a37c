//! A socket with patience: counts its bytes, watches its framing, and gives up on a peer that
//! dribbles a head or takes nothing of what is written.

use std::{
    future::Future,
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use weir_io::net::Socket;

use super::framing::{At, Framing};
use crate::{config::Patience, metrics::Metrics};

/// What is read and thrown away after an answer that came before the end of its request, so
/// that the client can read the answer instead of a reset.
const LINGER_BYTES_MAX: usize = 16 << 20;
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);
const LINGER_BUFFER_BYTES: usize = 4096;

pub(super) struct Guarded<I> {
    io: I,
    patience: Patience,
    framing: Framing,
    head: Timer,
    stall: Timer,
    linger: Timer,
    linger_bytes: usize,
    shut: bool,
    received: Counter,
    sent: Counter,
}

impl<I: Socket> Guarded<I> {
    pub(super) fn new(io: I, patience: Patience, metrics: &Metrics) -> Self {
        Self {
            io,
            patience,
            framing: Framing::new(),
            head: Timer::default(),
            stall: Timer::default(),
            linger: Timer::default(),
            linger_bytes: 0,
            shut: false,
            received: metrics.bytes_in.clone(),
            sent: metrics.bytes_out.clone(),
        }
    }

    /// Keeps a write's outcome, and time while there is none.
    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match wrote {
            Poll::Ready(Ok(bytes)) => {
                self.stall.stop();
                self.sent.inc_by(u64::try_from(bytes).expect("usize fits u64"));
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.stall.poll(cx, self.patience.stall));
                Poll::Ready(Err(ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Reads away what the peer still sends, for a while.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [0; LINGER_BUFFER_BYTES];
        while self.linger_bytes < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.linger_bytes += buffer.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.linger.poll(cx, LINGER_TIME_MAX),
            }
        }
        Poll::Ready(())
    }
}

impl<I: Socket> AsyncRead for Guarded<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                let read = &mut buffer.filled_mut()[before..];
                this.received.inc_by(u64::try_from(read.len()).expect("usize fits u64"));
                this.framing.feed(read);
                if this.framing.at() != At::Head {
                    this.head.stop();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if this.framing.at() == At::Head => {
                ready!(this.head.poll(cx, this.patience.head));
                Poll::Ready(Err(ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<I: Socket> AsyncWrite for Guarded<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote(cx, wrote)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.io).poll_write_vectored(cx, parts);
        this.wrote(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.shut = true;
        }
        if this.framing.is_inside_request() {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

/// A deadline that exists only while somebody waits.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Starts the time at the first call; ready when it is over.
    fn poll(&mut self, cx: &mut Context<'_>, time: Duration) -> Poll<()> {
        self.0.get_or_insert_with(|| Box::pin(sleep(time))).as_mut().poll(cx)
    }

    fn stop(&mut self) {
        self.0 = None;
    }
}
