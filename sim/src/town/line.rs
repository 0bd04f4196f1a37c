//! Both ends of a connection to the server: a window of bytes as a kernel has it, so that a reader
//! who takes nothing is felt at the other end, and a fuse that ends the connection with a reset
//! after so many bytes.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use parking_lot::Mutex;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;
use weir_io::memory::Trace;

use super::defects::{self, Lifeless, Torn, Turnstile};
use crate::sabotage::Sabotage;

/// Connections after which a server with that defect is deaf.
const MANY: u64 = 400;
/// Bytes that a client reads at once.
const READ_BYTES_MAX: usize = 8 << 10;

/// The connections of a town, by the client's address.
#[derive(Debug)]
pub struct Lines {
    open: Mutex<BTreeMap<SocketAddr, Arc<Line>>>,
    /// Bytes under way to one client.
    window_bytes: usize,
    /// Most bytes that the server had ready for one connection at once.
    offered_max: AtomicUsize,
    defect: Sabotage,
    turnstile: Turnstile,
    accepted: AtomicU64,
    /// What clients sent and got since somebody looked.
    seen: Mutex<Vec<Seen>>,
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a client to the server.
    Sent,
    /// From the server to a client.
    Got,
    /// From the server to a receiver of webhooks.
    Heard,
}

/// Bytes at one end of a connection, on a machine that is not the server's.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub address: SocketAddr,
    pub way: Way,
    pub bytes: usize,
    pub hash: u64,
}

impl Seen {
    /// These bytes.
    #[must_use]
    pub fn new(address: SocketAddr, way: Way, bytes: &[u8]) -> Self {
        let mut hash = Trace::new();
        hash.add_bytes(bytes);
        Self { address, way, bytes: bytes.len(), hash: hash.value() }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {} bytes", self.address, self.way, self.bytes)
    }
}

/// What the two ends of a connection share.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Bytes under way, if the client has less room than others.
    window_bytes: AtomicUsize,
    /// Sent by the server and not read by the client.
    unread: AtomicUsize,
    /// Of the server, which waits for the client to read.
    waker: Mutex<Option<Waker>>,
    reset: AtomicBool,
    gone: AtomicBool,
}

impl Lines {
    /// No connections yet.
    #[must_use]
    pub fn new(window_bytes: usize, defect: Sabotage) -> Self {
        Self {
            open: Mutex::default(),
            window_bytes,
            offered_max: AtomicUsize::new(0),
            defect,
            turnstile: Turnstile::default(),
            accepted: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    /// What clients sent and got since this was asked before, in that order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock())
    }

    /// Whether the server still lets anybody in.
    #[must_use]
    pub fn hears(&self) -> bool {
        self.defect != Sabotage::DeafAfterMany || self.accepted.load(Ordering::Relaxed) < MANY
    }

    /// Most bytes that the server had ready for one connection at once.
    #[must_use]
    pub fn offered_max(&self) -> usize {
        self.offered_max.load(Ordering::Relaxed)
    }

    /// The server stopped: its ends are gone.
    pub fn clear(&self) {
        self.open.lock().clear();
        self.accepted.store(0, Ordering::Relaxed);
    }

    /// The server accepted a connection.
    #[must_use]
    pub fn accept(self: &Arc<Self>, io: TcpStream, client: SocketAddr) -> ServerEnd {
        let line = Arc::new(Line::default());
        self.open.lock().insert(client, Arc::clone(&line));
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        let lines = Arc::clone(self);
        ServerEnd {
            io,
            number,
            line,
            lines,
            torn: Torn::default(),
            lifeless: Lifeless::default(),
            feigns: false,
            backlog: Vec::new(),
        }
    }

    /// A client is connected. `torn` is told when the fuse cuts what the client writes.
    ///
    /// # Errors
    /// The connection has no address.
    pub fn connected(
        self: &Arc<Self>,
        io: TcpStream,
        fuse: Fuse,
        torn: Arc<AtomicBool>,
    ) -> io::Result<ClientEnd> {
        let address = io.local_addr()?;
        let line = self.open.lock().get(&address).cloned().unwrap_or_default();
        line.window_bytes.store(fuse.window_bytes.unwrap_or(0), Ordering::Relaxed);
        Ok(ClientEnd { io: Some(io), address, line, lines: Arc::clone(self), fuse, torn })
    }
}

impl Line {
    /// Lets the server go on.
    fn ring(&self) {
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }
}

/// The server's end.
pub struct ServerEnd {
    io: TcpStream,
    number: u64,
    line: Arc<Line>,
    lines: Arc<Lines>,
    /// Of defects only.
    torn: Torn,
    lifeless: Lifeless,
    feigns: bool,
    backlog: Vec<u8>,
}

impl ServerEnd {
    fn check(&self) -> io::Result<()> {
        match self.line.reset.load(Ordering::Relaxed) {
            true => Err(ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }

    /// Writes as much as the window takes; nothing: it waits.
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let unread = self.line.unread.load(Ordering::Relaxed);
        let gone = self.line.gone.load(Ordering::Relaxed);
        let narrow = self.line.window_bytes.load(Ordering::Relaxed);
        let window_bytes = if narrow > 0 { narrow } else { self.lines.window_bytes };
        let room = if gone { bytes.len() } else { window_bytes.saturating_sub(unread) };
        if room == 0 {
            weir_io::sometimes!("the server waited for a reader to take what was sent");
            *self.line.waker.lock() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let sent = &bytes[..bytes.len().min(room)];
        let sent = ready!(Pin::new(&mut self.io).poll_write(cx, sent))?;
        self.line.unread.fetch_add(sent, Ordering::Relaxed);
        Poll::Ready(Ok(sent))
    }

    /// A defect: takes everything at once, however little of it is read.
    fn hoard(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.backlog.extend_from_slice(bytes);
        self.lines.offered_max.fetch_max(self.backlog.len(), Ordering::Relaxed);
        self.unload(cx)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn unload(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.backlog.is_empty() {
            let backlog = std::mem::take(&mut self.backlog);
            let sent = self.write(cx, &backlog);
            self.backlog = backlog;
            match sent {
                Poll::Ready(Ok(sent)) => drop(self.backlog.drain(..sent)),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    /// A defect: while one connection waits for its reader, none other writes.
    fn queue(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let lines = Arc::clone(&self.lines);
        if !lines.turnstile.enter(self.number, cx.waker()) {
            return Poll::Pending;
        }
        let sent = self.write(cx, bytes);
        match sent {
            Poll::Ready(Ok(sent)) if sent < bytes.len() => lines.turnstile.stay(self.number),
            Poll::Pending => lines.turnstile.stay(self.number),
            Poll::Ready(_) => lines.turnstile.leave(self.number),
        }
        sent
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.lines.turnstile.leave(self.number);
    }
}

impl AsyncRead for ServerEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.feigns {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.io).poll_read(cx, buffer));
        // What was on its way before the reset still arrives.
        let over = buffer.filled().len() == before;
        if this.lines.defect == Sabotage::TornBodies {
            this.torn.feed(&buffer.filled()[before..]);
            let missing = if over { this.torn.take(buffer.remaining()) } else { 0 };
            if missing > 0 {
                buffer.put_slice(&vec![b'x'; missing]);
                // The client seems to be there still.
                this.feigns = this.torn.is_whole();
                return Poll::Ready(Ok(()));
            }
        }
        if this.lines.defect == Sabotage::TagsOfNoLife {
            this.lifeless.hear(&mut buffer.filled_mut()[before..]);
        }
        Poll::Ready(if over { read.and_then(|()| this.check()) } else { read })
    }
}

impl AsyncWrite for ServerEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.lines.offered_max.fetch_max(bytes.len(), Ordering::Relaxed);
        match this.lines.defect {
            Sabotage::EndlessBuffers => this.hoard(cx, bytes),
            Sabotage::WritersWait => this.queue(cx, bytes),
            Sabotage::BeginningsUntold => this.write(cx, &defects::begun(bytes)),
            Sabotage::TagsOfNoLife => match this.lifeless.say(bytes) {
                Some(bytes) => this.write(cx, &bytes),
                None => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            },
            _ => this.write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.unload(cx)?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// What is odd about a connection: how many bytes pass before it is reset (`None`: however many), and
/// how many may be under way to its client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fuse {
    pub window_bytes: Option<usize>,
    pub written: Option<usize>,
    pub read: Option<usize>,
}

impl Fuse {
    /// Of a client that has little room.
    #[must_use]
    pub fn narrow(c: &mut ChaCha8Rng) -> Self {
        Self { window_bytes: Some(c.random_range(100..2000)), ..Self::default() }
    }

    /// Half of the connections have none. Those that have are cut anywhere in what a client sends or gets,
    /// a head as likely as a body.
    #[must_use]
    pub fn draw(c: &mut ChaCha8Rng) -> Self {
        let mut length = || {
            let most = 1_usize << c.random_range(6..15);
            c.random_range(1..most)
        };
        let (written, read) = (length(), length());
        match c.random_range(0..6) {
            0 | 1 => Self { written: Some(written), ..Self::default() },
            2 => Self { read: Some(read), ..Self::default() },
            _ => Self::default(),
        }
    }
}

/// A client's end.
pub struct ClientEnd {
    /// `None` after a reset.
    io: Option<TcpStream>,
    address: SocketAddr,
    line: Arc<Line>,
    lines: Arc<Lines>,
    fuse: Fuse,
    torn: Arc<AtomicBool>,
}

impl ClientEnd {
    fn note(&self, way: Way, bytes: &[u8]) {
        self.lines.seen.lock().push(Seen::new(self.address, way, bytes));
    }

    fn reset<T>(&mut self) -> Poll<io::Result<T>> {
        self.line.reset.store(true, Ordering::Relaxed);
        self.io = None;
        Poll::Ready(Err(ErrorKind::ConnectionReset.into()))
    }
}

/// Takes bytes off a fuse; false: there was none left of it.
fn burn(fuse: &mut Option<usize>, bytes: usize) -> bool {
    match fuse {
        None => true,
        Some(left) if *left == 0 => false,
        Some(left) => {
            *left = left.saturating_sub(bytes);
            true
        }
    }
}

impl AsyncRead for ClientEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(io) = &mut this.io else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        };
        let most = this.fuse.read.unwrap_or(READ_BYTES_MAX).clamp(1, READ_BYTES_MAX);
        let mut part = [0; READ_BYTES_MAX];
        let mut part = ReadBuf::new(&mut part[..most.min(buffer.remaining())]);
        ready!(Pin::new(io).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buffer.put_slice(part.filled());
        this.note(Way::Got, part.filled());
        this.line.unread.fetch_sub(read, Ordering::Relaxed);
        this.line.ring();
        if burn(&mut this.fuse.read, read) {
            return Poll::Ready(Ok(()));
        }
        weir_io::sometimes!("a connection was reset in the middle of an answer");
        this.reset()
    }
}

impl AsyncWrite for ClientEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(io) = &mut this.io else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        };
        if this.fuse.written == Some(0) {
            weir_io::sometimes!("a connection was reset in the middle of a request");
            this.torn.store(true, Ordering::Relaxed);
            return this.reset();
        }
        let sent = &bytes[..bytes.len().min(this.fuse.written.unwrap_or(usize::MAX))];
        let sent = ready!(Pin::new(io).poll_write(cx, sent))?;
        burn(&mut this.fuse.written, sent);
        this.note(Way::Sent, &bytes[..sent]);
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Some(io) => Pin::new(io).poll_flush(cx),
            None => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Some(io) => Pin::new(io).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        self.line.gone.store(true, Ordering::Relaxed);
        self.line.ring();
        let mut open = self.lines.open.lock();
        if open.get(&self.address).is_some_and(|line| Arc::ptr_eq(line, &self.line)) {
            open.remove(&self.address);
        }
    }
}
