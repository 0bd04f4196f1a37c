//! A connection that is made again when it has ended.

use std::{io, time::Duration};

use super::{Connection, Failure, Head, Peer};

/// How long a server may take to accept a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// The way to a server: at most one connection at a time.
pub(crate) struct Link {
    peer: Peer,
    buffer_bytes: usize,
    connection: Option<Connection>,
}

impl Link {
    /// Connects with the first request.
    pub(crate) const fn new(peer: Peer, buffer_bytes: usize) -> Self {
        Self { peer, buffer_bytes, connection: None }
    }

    /// Connects now if there is no connection.
    pub(crate) async fn connect(&mut self) -> io::Result<&mut Connection> {
        let usable = self.connection.take().filter(Connection::is_usable);
        let connection = match usable {
            Some(connection) => connection,
            None => {
                let open = Connection::open(self.peer, self.buffer_bytes);
                let opened = tokio::time::timeout(CONNECT_TIME_MAX, open).await;
                opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Sends a request and returns the head of its answer, and the connection to read the body
    /// from. A body that is not read to its end costs the connection.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<(Head, &mut Connection), Failure> {
        let connection = self.connect().await?;
        let head = connection.ask(request).await?;
        Ok((head, connection))
    }
}
