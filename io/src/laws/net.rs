//! What every [`Listener`] and every [`Outbound`] promises.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::net::{Listener, Outbound, Socket};

/// More bytes than any window, socket or buffer on the way takes at once.
const LARGE: usize = 300_000;
/// Connections at once.
const MANY: usize = 5;
/// How long an accept is waited for that nobody answers.
const IN_VAIN: Duration = Duration::from_millis(2);

/// Every law of a listener. `connect` reaches it.
pub async fn listener<L, S, F>(listener: &mut L, connect: impl Fn() -> F)
where
    L: Listener,
    S: Socket,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    a_connection_carries_bytes_both_ways(listener, connect()).await;
    a_large_body_arrives_whole_and_in_order(listener, connect()).await;
    connections_are_apart_from_each_other(listener, [(); MANY].map(|()| connect())).await;
    an_accept_that_is_given_up_loses_no_connection(listener, connect()).await;
    an_end_that_is_dropped_is_seen_by_the_other(listener, [connect(), connect()]).await;
}

/// Bytes arrive in both directions, in order, and the end of the stream is seen.
async fn a_connection_carries_bytes_both_ways<L: Listener, S: Socket>(
    listener: &mut L,
    connect: impl Future<Output = io::Result<S>> + Send + 'static,
) {
    let local = listener.local_addr().expect("a bound listener knows its address");
    assert_ne!(local.port(), 0, "the port that was bound, not the one that was asked for");
    let client = tokio::spawn(async move { ask(&mut connected(connect).await).await });
    answer(listener).await;
    client.await.expect("the client runs to its end");
}

/// One direction ends while the other goes on, and what was sent before an end arrives.
async fn a_large_body_arrives_whole_and_in_order<L: Listener, S: Socket>(
    listener: &mut L,
    connect: impl Future<Output = io::Result<S>> + Send + 'static,
) {
    let client = tokio::spawn(async move {
        let mut socket = connected(connect).await;
        socket.write_all(&large()).await.expect("the server reads");
        socket.shutdown().await.expect("the server is there");
        rest(&mut socket).await
    });
    let (mut socket, _) = listener.accept().await.expect("a client connects");
    assert!(rest(&mut socket).await == large(), "what was sent, to its end");
    socket.write_all(&large()).await.expect("the client reads, though it says no more");
    socket.shutdown().await.expect("the client is there");
    assert!(client.await.expect("the client runs to its end") == large());
}

/// Whoever is let in last may be served first.
async fn connections_are_apart_from_each_other<L: Listener, S: Socket>(
    listener: &mut L,
    connects: [impl Future<Output = io::Result<S>> + Send + 'static; MANY],
) {
    let clients = (0_u8..).zip(connects).map(|(number, connect)| {
        tokio::spawn(async move {
            let mut socket = connected(connect).await;
            socket.write_all(&[number]).await.expect("the server reads");
            assert_eq!(rest(&mut socket).await, [number + 100]);
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut sockets = Vec::new();
    for _ in 0..MANY {
        sockets.push(listener.accept().await.expect("a client connects").0);
    }
    let mut numbers = Vec::new();
    for mut socket in sockets.into_iter().rev() {
        let mut number = [0];
        socket.read_exact(&mut number).await.expect("the client sends");
        socket.write_all(&[number[0] + 100]).await.expect("the client reads");
        socket.shutdown().await.expect("the client is there");
        numbers.extend(number);
    }
    for client in clients {
        client.await.expect("the client runs to its end");
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..).take(MANY).collect::<Vec<u8>>(), "everybody was let in once");
}

/// A server gives up its accept whenever it has something else to do.
async fn an_accept_that_is_given_up_loses_no_connection<L: Listener, S: Socket>(
    listener: &mut L,
    connect: impl Future<Output = io::Result<S>> + Send + 'static,
) {
    assert!(timeout(IN_VAIN, listener.accept()).await.is_err(), "nobody connects");
    let client = tokio::spawn(async move { ask(&mut connected(connect).await).await });
    answer(listener).await;
    client.await.expect("the client runs to its end");
    assert!(timeout(IN_VAIN, listener.accept()).await.is_err(), "nobody else has connected");
}

/// A peer that goes away without a word ends the connection, for whoever reads.
async fn an_end_that_is_dropped_is_seen_by_the_other<L: Listener, S: Socket>(
    listener: &mut L,
    connects: [impl Future<Output = io::Result<S>> + Send + 'static; 2],
) {
    let [first, second] = connects;
    let client = tokio::spawn(async move {
        drop(connected(first).await);
        rest(&mut connected(second).await).await
    });
    let (mut socket, _) = listener.accept().await.expect("a client connects");
    assert!(rest(&mut socket).await.is_empty(), "nothing was sent");
    let (socket, _) = listener.accept().await.expect("a client connects");
    drop(socket);
    assert!(client.await.expect("the client runs to its end").is_empty(), "nothing was sent");
}

/// Every law of an [`Outbound`]. At `there` somebody [answers](answer), at `nobody` nobody listens.
pub async fn outbound(outbound: &dyn Outbound, there: SocketAddr, nobody: SocketAddr) {
    for address in [there, nobody] {
        let literal = address.ip().to_string();
        let resolved = outbound.resolve(&literal, address.port()).await.expect("a literal");
        assert_eq!(resolved, [address], "a literal is its own address");
    }
    assert!(outbound.resolve("no-such-host.invalid", 1).await.is_err());
    ask(&mut connected(outbound.connect(there)).await).await;
    let refused = outbound.connect(nobody).await;
    let error = refused.err().expect("nobody listens");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    // What is never awaited is given up, and connects nobody.
    drop(outbound.connect(there));
    ask(&mut connected(outbound.connect(there)).await).await;
}

/// Answers the next connection as somebody who is [asked](outbound) does.
pub async fn answer(listener: &mut impl Listener) {
    let (mut socket, _) = listener.accept().await.expect("a client connects");
    let mut request = [0; 4];
    socket.read_exact(&mut request).await.expect("the client sends");
    assert_eq!(&request, b"ping");
    socket.write_all(b"pong").await.expect("the client reads");
    socket.shutdown().await.expect("the client is there");
}

async fn ask(socket: &mut impl Socket) {
    socket.write_all(b"ping").await.expect("the server reads");
    assert_eq!(rest(socket).await, b"pong");
}

async fn connected<S>(connect: impl Future<Output = io::Result<S>>) -> S {
    connect.await.expect("somebody listens")
}

/// Everything up to the end.
async fn rest(socket: &mut impl Socket) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.expect("the other end ends it");
    bytes
}

/// Bytes of which no two parts are the same.
fn large() -> Vec<u8> {
    (0_u32..).flat_map(u32::to_be_bytes).take(LARGE).collect()
}
