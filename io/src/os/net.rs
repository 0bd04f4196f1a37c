//! TCP and name resolution of the operating system.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpStream, lookup_host};

use crate::net::{Listener, Outbound, Pending, Socket};

/// A bound TCP port.
#[derive(Debug)]
pub struct OsListener {
    listener: TcpListener,
}

impl OsListener {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn bind(address: SocketAddr) -> io::Result<OsListener> {
        Ok(OsListener { listener: TcpListener::bind(address).await? })
    }
}

impl Listener for OsListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, peer) = self.listener.accept().await?;
        // An answer is written in one piece, so waiting for more to send along (Nagle)
        // only adds the peer's delayed-ACK time to every small one.
        socket.set_nodelay(true)?;
        Ok((socket, peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Connections by the system's resolver and TCP. Needs a tokio runtime around the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsOutbound;

impl Outbound for OsOutbound {
    fn resolve(&self, host: &str, port: u16) -> Pending<Vec<SocketAddr>> {
        let host = host.to_owned();
        Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })
    }

    fn connect(&self, address: SocketAddr) -> Pending<Box<dyn Socket>> {
        Box::pin(async move {
            let socket = TcpStream::connect(address).await?;
            // A request is written in one piece, as an answer is.
            socket.set_nodelay(true)?;
            Ok(Box::new(socket) as Box<dyn Socket>)
        })
    }
}
