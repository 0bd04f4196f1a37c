//! A connection to a server, encrypted where its URL says so.

use std::{io, time::Duration};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use weir_io::net::Socket;

use super::{Caller, Contact, Failed, Sender};
use crate::client::target::{Scheme, Target};

/// Addresses of one name that are tried, and how long each may take.
const ADDRESSES_MAX: usize = 4;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The largest head of an answer.
const HEAD_BYTES_MAX: usize = 128 << 10;

impl Caller {
    /// Connects to the first address of the server that takes it.
    pub(super) async fn connect(&self) -> Result<Sender, Failed> {
        let Target { host, port, scheme, .. } = &self.target;
        let addresses = self.world.outbound.resolve(host, *port).await;
        let addresses = addresses.map_err(|error| Failed::Unsent(error.to_string()))?;
        let mut refused = !addresses.is_empty();
        let mut reason = "the name has no address".to_owned();
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            let connect = self.world.outbound.connect(address);
            match tokio::time::timeout(CONNECT_TIME_MAX, connect).await {
                Ok(Ok(socket)) => {
                    self.reach(Contact::Connected);
                    let made = match scheme {
                        Scheme::Http => self.handshake(socket).await,
                        Scheme::Https => match self.secure(socket).await {
                            Ok(socket) => self.handshake(socket).await,
                            Err(reason) => Err(reason),
                        },
                    };
                    return made.map_err(Failed::Unsent);
                }
                Ok(Err(error)) => {
                    refused &= error.kind() == io::ErrorKind::ConnectionRefused;
                    reason = error.to_string();
                }
                Err(_) => {
                    refused = false;
                    reason = format!("no connection in {CONNECT_TIME_MAX:?}");
                }
            }
        }
        Err(if refused { Failed::Refused(reason) } else { Failed::Unsent(reason) })
    }

    async fn secure(&self, socket: Box<dyn Socket>) -> Result<impl Socket, String> {
        let connector = self.tls.connector().await.map_err(|error| error.to_string())?;
        let name = self.target.host.clone().try_into();
        let name = name.map_err(|_| "the name can't have a certificate".to_owned())?;
        let secure = tokio::time::timeout(CONNECT_TIME_MAX, connector.connect(name, socket)).await;
        let secure = secure.map_err(|_| "TLS took too long".to_owned())?;
        secure.map_err(|error: io::Error| tls_failed(&error))
    }

    async fn handshake(&self, socket: impl Socket) -> Result<Sender, String> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX.max(1 << 20));
        let made = builder.handshake(TokioIo::new(socket)).await;
        let (sender, connection) = made.map_err(|error| error.to_string())?;
        // What it ends with, the request on it learns too.
        let connection = async { drop(connection.await) };
        self.world.tasks.spawn("connection", Box::pin(connection));
        Ok(sender)
    }
}

/// Why a connection could not be encrypted.
pub(crate) fn tls_failed(error: &io::Error) -> String {
    let behind = error.get_ref().and_then(|behind| behind.downcast_ref());
    let is_plain = matches!(behind, Some(rustls::Error::InvalidMessage(_)));
    let is_cut = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    );
    match is_plain || is_cut {
        true => format!("TLS failed: {error}; does the server speak http:// there?"),
        false => format!("TLS failed: {error}"),
    }
}
