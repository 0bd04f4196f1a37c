//! The simulated network as the server's listener and the clients' dial.

use std::{io, net::SocketAddr, rc::Rc};

use turmoil::net::{TcpListener, TcpStream};
use weir_io::net::{Listener, Socket};

use crate::door::outside::Dial;

/// Name of the server's machine.
pub const SERVER: &str = "server";
const PORT: u16 = 4437;

/// Accepts connections of the simulated network.
pub struct TownListener(TcpListener);

impl TownListener {
    /// Binds the server's port.
    ///
    /// # Errors
    /// It is bound already.
    pub async fn bind() -> io::Result<Self> {
        TcpListener::bind(("0.0.0.0", PORT)).await.map(Self)
    }
}

impl Listener for TownListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// How clients reach the server.
#[must_use]
pub fn dial() -> Dial {
    Rc::new(|| {
        Box::pin(async {
            let stream = TcpStream::connect((SERVER, PORT)).await?;
            Ok(Box::new(stream) as Box<dyn Socket>)
        })
    })
}
