//! A receiver of webhooks: an HTTP server on a port of its own that hands its requests to the
//! test and answers what the test says.
#![expect(clippy::disallowed_methods, reason = "tests use real sockets")]

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::within;

/// One webhook, until it is answered.
pub struct Call {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    answer: oneshot::Sender<(u16, String)>,
}

impl Call {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a webhook is JSON")
    }

    pub fn answer(self, status: u16, body: &str) {
        // A sender that has given up needs no answer.
        drop(self.answer.send((status, body.to_owned())));
    }
}

pub struct Receiver {
    pub address: SocketAddr,
    calls: mpsc::Receiver<Call>,
    accepting: JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (sender, calls) = mpsc::channel(64);
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let sender = sender.clone();
                let service = service_fn(move |request| answer(request, sender.clone()));
                let serving = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                tokio::spawn(async move { drop(serving.await) });
            }
        });
        Self { address, calls, accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The next webhook.
    pub async fn call(&mut self) -> Call {
        within(self.calls.recv()).await.expect("the receiver runs")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    calls: mpsc::Sender<Call>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let (answer, answered) = oneshot::channel();
    let path = parts.uri.path().to_owned();
    let told = calls.send(Call { path, headers: parts.headers, body, answer }).await;
    let (status, body) = match told {
        Ok(()) => answered.await.unwrap_or((500, String::new())),
        Err(_) => (500, String::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status.try_into().expect("a status");
    Ok(response)
}
