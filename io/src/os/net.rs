//! TCP and name resolution of the operating system.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    sync::Semaphore,
};

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
    pub fn bind(address: SocketAddr) -> io::Result<OsListener> {
        Self::listen(socket_for(address)?, address)
    }

    /// Binds `address` so that others of this user can bind it too: the system spreads the
    /// connections over them (`SO_REUSEPORT`).
    ///
    /// # Errors
    /// The address is not ours, or taken by somebody who does not share it.
    pub fn bind_shared(address: SocketAddr) -> io::Result<OsListener> {
        let socket = socket_for(address)?;
        socket.set_reuseport(true)?;
        Self::listen(socket, address)
    }

    fn listen(socket: TcpSocket, address: SocketAddr) -> io::Result<OsListener> {
        // Whoever was there before may still have connections that linger.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(OsListener { listener: socket.listen(BACKLOG)? })
    }
}

/// Connections that wait to be accepted. Whoever finds no place comes again a second later, so that
/// many clients that connect at once, as after a restart, would be slow with few places. The system
/// has its own bound too (`net.core.somaxconn`).
const BACKLOG: u32 = 4_096;

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

/// A plain connection of the caller's own runtime, for load that must cost next to nothing.
///
/// # Errors
/// Nobody answers there.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// An accepted connection. It belongs to the runtime that first polls it, so that it may be accepted
/// in one and served in another.
#[derive(Debug)]
pub struct OsSocket {
    state: State,
}

#[derive(Debug)]
enum State {
    /// `None` once the runtime has refused it.
    Loose(Option<std::net::TcpStream>),
    Here(TcpStream),
}

impl OsSocket {
    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let State::Loose(socket) = &mut self.state {
            let socket = socket.take().ok_or(io::ErrorKind::NotConnected)?;
            self.state = State::Here(TcpStream::from_std(socket)?);
        }
        match &mut self.state {
            State::Here(socket) => Ok(Pin::new(socket)),
            State::Loose(_) => unreachable!("made above"),
        }
    }
}

impl AsyncRead for OsSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().here()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for OsSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().here()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().here()?.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().here()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().here()?.poll_shutdown(cx)
    }
}

impl Listener for OsListener {
    type Io = OsSocket;

    async fn accept(&mut self) -> io::Result<(OsSocket, SocketAddr)> {
        let (socket, peer) = self.listener.accept().await?;
        // An answer is written in one piece, so waiting for more to send along (Nagle)
        // only adds the peer's delayed-ACK time to every small one.
        socket.set_nodelay(true)?;
        Ok((OsSocket { state: State::Loose(Some(socket.into_std()?)) }, peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Names looked up at a time. Each takes one of the runtime's blocking threads until the name
/// server has answered or the system gives it up, whether or not anybody still waits for it: a
/// name server that is dead must not take all of them.
const LOOKUPS_MAX: usize = 32;

/// Connections by the system's resolver and TCP. Needs a tokio runtime around the caller.
#[derive(Clone, Debug)]
pub struct OsOutbound {
    lookups: Arc<Semaphore>,
}

impl OsOutbound {
    /// One that looks up no name yet. Clones share the bound of names looked up at a time.
    #[must_use]
    pub fn new() -> OsOutbound {
        OsOutbound { lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// Waits for its turn, then for the answer. The turn ends with the look-up, not with whoever
    /// waits for it.
    fn look_up<T: Send + 'static>(
        &self,
        lookup: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> Pending<T> {
        let lookups = Arc::clone(&self.lookups);
        Box::pin(async move {
            let turn = lookups.acquire_owned().await.map_err(io::Error::other)?;
            let lookup = tokio::spawn(async move {
                let found = lookup.await;
                drop(turn);
                found
            });
            lookup.await.map_err(io::Error::other)?
        })
    }
}

impl Default for OsOutbound {
    fn default() -> OsOutbound {
        OsOutbound::new()
    }
}

impl Outbound for OsOutbound {
    fn resolve(&self, host: &str, port: u16) -> Pending<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Box::pin(async move { Ok(vec![SocketAddr::new(address, port)]) });
        }
        let host = host.to_owned();
        self.look_up(async move { Ok(lookup_host((host, port)).await?.collect()) })
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn look_ups_that_nobody_waits_for_any_more_still_count() {
        let outbound = OsOutbound::new();
        let brief = Duration::from_secs(15);
        let mut servers = Vec::new();
        for _ in 0..LOOKUPS_MAX {
            let (answer, answered) = oneshot::channel();
            let lookup = async { answered.await.map_err(io::Error::other) };
            assert!(timeout(brief, outbound.look_up(lookup)).await.is_err(), "the server is dead");
            servers.push(answer);
        }
        let more = outbound.clone().look_up(async { Ok("answered") });
        let mut more = std::pin::pin!(more);
        assert!(timeout(brief, &mut more).await.is_err(), "no thread is left for it");
        let plain = timeout(brief, outbound.resolve("127.0.0.1", 80)).await;
        let plain = plain.expect("an address is no name").expect("an address");
        assert_eq!(plain, [SocketAddr::from(([127, 0, 0, 1], 80))]);
        servers.pop().expect("many").send("late").expect("the look-up goes on");
        assert_eq!(more.await.expect("its turn has come"), "answered");
    }
}
