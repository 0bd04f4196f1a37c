//! The network around a simulated machine: names, listeners and connections in memory.
//!
//! The receivers are other machines, so nothing here ends with a boot or a power cut of the
//! machine: a listener lives as long as whoever holds it, in whatever runtime. Connections
//! take no time by themselves; what they meet is said beforehand ([`MemoryOutbound::hang`])
//! or drawn from a stream of the seed ([`NetFaults`]).

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::mpsc,
};

use super::{STREAM_NETWORK, chance};
use crate::net::{Listener, Outbound, Pending, Socket};

/// Connections that wait to be accepted at one address; one more is refused.
const BACKLOG: usize = 128;
/// Bytes under way in one direction of a connection.
const WINDOW_BYTES: usize = 64 << 10;
/// Where ports are taken from when a listener asks for any.
const PORT_FREE: u16 = 49_152;
/// Where the machine's own connections come from.
const MACHINE: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), PORT_FREE);

/// Probabilities of injected faults. One of exactly zero draws nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NetFaults {
    /// A connect is refused although somebody listens.
    pub refuse: f64,
    /// A read or write ends the connection with a reset, per call.
    pub reset: f64,
}

/// What a connection to a hanging address meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// It is never established.
    Connecting,
    /// It is established, takes some bytes and never says a word.
    Answering,
}

/// The simulated network. Clones share it.
#[derive(Clone)]
pub struct MemoryOutbound {
    state: Arc<Mutex<State>>,
}

struct State {
    names: BTreeMap<String, Vec<IpAddr>>,
    listeners: BTreeMap<SocketAddr, mpsc::Sender<DuplexStream>>,
    hanging: BTreeMap<SocketAddr, Hang>,
    attempts: BTreeMap<SocketAddr, u64>,
    faults: NetFaults,
    chance: ChaCha8Rng,
}

impl MemoryOutbound {
    /// A network where nobody listens and no name is known.
    #[must_use]
    pub fn new(seed: u64) -> MemoryOutbound {
        let state = State {
            names: BTreeMap::new(),
            listeners: BTreeMap::new(),
            hanging: BTreeMap::new(),
            attempts: BTreeMap::new(),
            faults: NetFaults::default(),
            chance: chance(seed, STREAM_NETWORK),
        };
        MemoryOutbound { state: Arc::new(Mutex::new(state)) }
    }

    /// Listens at an address until the listener drops; port 0 takes a free one.
    ///
    /// # Errors
    /// `AddrInUse`: somebody listens there.
    pub fn listen(&self, address: SocketAddr) -> io::Result<MemoryListener> {
        let mut state = self.state.lock();
        let mut address = address;
        if address.port() == 0 {
            let free = (PORT_FREE..=u16::MAX)
                .map(|port| SocketAddr::new(address.ip(), port))
                .find(|address| state.is_free(address));
            address = free.ok_or(io::ErrorKind::AddrInUse)?;
        }
        if !state.is_free(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (connect, incoming) = mpsc::channel(BACKLOG);
        state.listeners.insert(address, connect);
        Ok(MemoryListener { address, incoming })
    }

    /// Gives a host its addresses from now on, whatever it had before; none: it is unknown.
    pub fn name(&self, host: &str, addresses: &[IpAddr]) {
        self.state.lock().names.insert(host.to_ascii_lowercase(), addresses.to_vec());
    }

    /// What connections to this address meet from now on; `None`: whoever listens there.
    pub fn hang(&self, address: SocketAddr, how: Option<Hang>) {
        let mut state = self.state.lock();
        match how {
            Some(how) => state.hanging.insert(address, how),
            None => state.hanging.remove(&address),
        };
    }

    /// Sets the faults from now on, for open connections too.
    pub fn set_faults(&self, faults: NetFaults) {
        self.state.lock().faults = faults;
    }

    /// How often a connection to each address was tried so far, whether it came about or not.
    #[must_use]
    pub fn attempts(&self) -> BTreeMap<SocketAddr, u64> {
        self.state.lock().attempts.clone()
    }

    /// How far the network's chance was drawn.
    pub(super) fn fingerprint(&self) -> u64 {
        self.state.lock().chance.clone().next_u64()
    }
}

impl State {
    fn is_free(&self, address: &SocketAddr) -> bool {
        self.listeners.get(address).is_none_or(mpsc::Sender::is_closed)
    }

    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.chance.random_bool(probability)
    }

    /// Both ends of a connection, as seen by the one who connects; `None`: it never comes about.
    fn connect(&mut self, address: SocketAddr) -> io::Result<Option<Ends>> {
        *self.attempts.entry(address).or_default() += 1;
        let (near, far) = tokio::io::duplex(WINDOW_BYTES);
        match self.hanging.get(&address) {
            Some(Hang::Connecting) => return Ok(None),
            Some(Hang::Answering) => return Ok(Some(Ends { near, silent: Some(far) })),
            None => {}
        }
        let refused = self.happens(self.faults.refuse);
        let listener = self.listeners.get(&address).filter(|_| !refused);
        match listener.map(|listener| listener.try_send(far)) {
            Some(Ok(())) => Ok(Some(Ends { near, silent: None })),
            Some(Err(_)) | None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

struct Ends {
    near: DuplexStream,
    /// The other end, where nobody else holds it: dropped, it would close the connection.
    silent: Option<DuplexStream>,
}

impl Outbound for MemoryOutbound {
    fn resolve(&self, host: &str, port: u16) -> Pending<Vec<SocketAddr>> {
        let literal = host.parse::<IpAddr>().ok().map(|address| vec![address]);
        let known = self.state.lock().names.get(&host.to_ascii_lowercase()).cloned();
        let found = literal.or(known).filter(|addresses| !addresses.is_empty());
        Box::pin(async move {
            let found = found.ok_or(io::ErrorKind::NotFound)?;
            Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
        })
    }

    fn connect(&self, address: SocketAddr) -> Pending<Box<dyn Socket>> {
        let network = self.clone();
        Box::pin(async move {
            let ends = network.state.lock().connect(address)?;
            let Some(Ends { near, silent }) = ends else { return std::future::pending().await };
            let state = Arc::clone(&network.state);
            Ok(Box::new(MemorySocket { stream: near, _silent: silent, state, reset: false })
                as Box<dyn Socket>)
        })
    }
}

/// Somebody who listens on the simulated network.
pub struct MemoryListener {
    address: SocketAddr,
    incoming: mpsc::Receiver<DuplexStream>,
}

impl Listener for MemoryListener {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.incoming.recv().await {
            Some(stream) => Ok((stream, MACHINE)),
            // The network is gone, and with it everybody who could connect.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// The machine's end of a connection, where faults are drawn.
struct MemorySocket {
    stream: DuplexStream,
    _silent: Option<DuplexStream>,
    state: Arc<Mutex<State>>,
    reset: bool,
}

impl MemorySocket {
    /// Drawn for what is done, never for a poll: how often a task is polled is the runtime's.
    fn survive(&mut self) -> io::Result<()> {
        let mut state = self.state.lock();
        let reset = state.faults.reset;
        self.reset = self.reset || state.happens(reset);
        if self.reset { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for MemorySocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready(self.survive())
    }
}

impl AsyncWrite for MemorySocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        Poll::Ready(self.survive().map(|()| written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
