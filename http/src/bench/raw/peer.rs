//! Who is connected to: an address, and for https a name with a certificate.

use std::{fmt, io, net::SocketAddr};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weir_io::{net::Socket, os};

use crate::client::tls_failed;

/// A server. Copies share what encrypts.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    address: SocketAddr,
    secure: Option<&'static Secure>,
}

/// How the connections to a server are encrypted.
struct Secure {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// The bytes of a connection.
pub(super) enum Wire {
    Plain(TcpStream),
    Secure(Box<dyn Socket>),
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({}, tls: {})", self.address, self.secure.is_some())
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self { address, secure: None }
    }
}

impl Peer {
    /// A server that shows a certificate for `host`.
    ///
    /// # Errors
    /// The name can't have one.
    pub(crate) fn secure(
        address: SocketAddr,
        connector: TlsConnector,
        host: &str,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        // A process measures one server, to its end.
        let secure: &'static Secure = Box::leak(Box::new(Secure { connector, name }));
        Ok(Self { address, secure: Some(secure) })
    }

    pub(super) async fn connect(self) -> io::Result<Wire> {
        let socket = os::connect(self.address).await?;
        let Some(Secure { connector, name }) = self.secure else { return Ok(Wire::Plain(socket)) };
        let secured = connector.connect(name.clone(), socket).await;
        let secured = secured.map_err(|error| io::Error::new(error.kind(), tls_failed(&error)))?;
        Ok(Wire::Secure(Box::new(secured)))
    }
}
