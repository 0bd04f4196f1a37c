//! Sockets: where connections come from, and where the server's own ones go.

use std::{future::Future, io, net::SocketAddr, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to one peer.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Socket for T {}

/// Accepts connections. Generic, not `dyn`: the bytes of every request pass through it.
pub trait Listener: Send + 'static {
    /// The connection type.
    type Io: Socket;

    /// Waits for the next connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;

    /// The bound address.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A result of the network that is still under way. Dropping it gives it up.
pub type Pending<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Opens connections to others.
///
/// Names and addresses are two steps on purpose: the caller looks at the addresses before it
/// connects to one of them, and what it connects to is what it looked at. Neither step has a
/// time limit of its own.
pub trait Outbound: Send + Sync {
    /// The addresses of a host, in the order to try them. An IP literal is its own address.
    fn resolve(&self, host: &str, port: u16) -> Pending<Vec<SocketAddr>>;

    /// Connects to exactly this address; `ConnectionRefused` if nobody listens there.
    fn connect(&self, address: SocketAddr) -> Pending<Box<dyn Socket>>;
}
