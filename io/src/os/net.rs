//! TCP of the operating system.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpStream};

use crate::net::Listener;

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
