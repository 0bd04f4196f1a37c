//! What every [`Listener`] and every [`Outbound`] promises.

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::{Listener, Outbound, Socket};

/// Bytes arrive in both directions, in order, and the end of the stream is seen.
pub async fn a_connection_carries_bytes_both_ways<L: Listener, S: Socket>(
    listener: &mut L,
    connect: impl Future<Output = io::Result<S>> + Send + 'static,
) {
    let local = listener.local_addr().expect("a bound listener knows its address");
    assert_ne!(local.port(), 0, "the port that was bound, not the one that was asked for");
    let client = tokio::spawn(async move {
        let mut socket = connect.await.expect("somebody listens");
        socket.write_all(b"ping").await.expect("the server reads");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.expect("the server answers");
        answer
    });
    let (mut socket, _) = listener.accept().await.expect("a client connects");
    let mut request = [0; 4];
    socket.read_exact(&mut request).await.expect("the client sends");
    assert_eq!(&request, b"ping");
    socket.write_all(b"pong").await.expect("the client reads");
    socket.shutdown().await.expect("the client is there");
    drop(socket);
    assert_eq!(client.await.expect("the client runs to its end"), b"pong");
}

/// What a listener hears of an [`Outbound`], which must be able to reach it.
pub async fn an_outbound_connects_to_the_address_it_resolved<L: Listener>(
    listener: &mut L,
    outbound: Arc<dyn Outbound>,
) {
    let address = listener.local_addr().expect("a bound listener knows its address");
    let literal = address.ip().to_string();
    let resolved = outbound.resolve(&literal, address.port()).await.expect("a literal");
    assert_eq!(resolved, [address], "a literal is its own address");
    assert!(outbound.resolve("no-such-host.invalid", 1).await.is_err());
    let connect = outbound.connect(address);
    a_connection_carries_bytes_both_ways(listener, connect).await;
}

/// Nobody listens at `address`.
pub async fn an_outbound_is_refused_where_nobody_listens(
    outbound: Arc<dyn Outbound>,
    address: SocketAddr,
) {
    let refused = outbound.connect(address).await;
    let error = refused.err().expect("nobody listens");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
