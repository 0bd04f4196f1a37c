//! A server that does nothing: it reads each body and answers 204.
//!
//! What it reaches is what the HTTP library, the kernel and the generator allow; a server of
//! streams can only come close.

use std::{convert::Infallible, net::SocketAddr};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use weir_io::{
    net::Listener as _,
    os::{OsListener, OsSocket, TokioTasks, workers},
    tasks::Tasks as _,
};

/// How its threads share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runtimes {
    /// One runtime with so many threads.
    Shared(usize),
    /// So many runtimes of one thread each, between which the system spreads the connections.
    Apart(usize),
}

/// Serves until the process ends.
pub(super) fn serve(address: SocketAddr, runtimes: Runtimes) -> anyhow::Result<()> {
    match runtimes {
        Runtimes::Shared(threads) => workers::share("ceiling", threads, async move {
            let listener = OsListener::bind(address).context("cannot listen")?;
            announce(&listener)?;
            accept(listener).await
        })?,
        Runtimes::Apart(threads) => {
            // The first says where the others are, should the port be any.
            let first = workers::run("ceiling", 1, async |_| {
                OsListener::bind_shared(address)?.local_addr()
            });
            let address = first?.into_iter().next().context("one worker")??;
            let ended = workers::run("ceiling", threads, async |thread| {
                let listener = OsListener::bind_shared(address).context("cannot listen")?;
                if thread == 0 {
                    announce(&listener)?;
                }
                accept(listener).await
            })?;
            ended.into_iter().collect()
        }
    }
}

fn announce(listener: &OsListener) -> anyhow::Result<()> {
    println!("ceiling listens on http://{}", listener.local_addr()?);
    Ok(())
}

async fn accept(mut listener: OsListener) -> anyhow::Result<()> {
    let tasks = TokioTasks::new(Handle::current());
    loop {
        let (socket, _) = listener.accept().await?;
        tasks.spawn("connection", Box::pin(converse(socket)));
    }
}

async fn converse(socket: OsSocket) {
    let connection =
        http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer));
    // A client that goes away is how every connection ends.
    drop(connection.await);
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    // A body that breaks off ends the connection anyway.
    while let Some(Ok(_)) = request.body_mut().frame().await {}
    let mut answer = Response::new(Empty::new());
    // A generator that makes a stream wants to hear that it is new.
    let made = request.method() == Method::PUT;
    *answer.status_mut() = if made { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(answer)
}
