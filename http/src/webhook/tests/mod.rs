//! Receivers on the simulated network, and the parts of the server that call them.

mod client;
mod crowd;
mod deliver;
mod tls;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use weir_io::{
    World,
    memory::Machine,
    net::{Listener as _, Socket},
    os::tls::Tls,
};

use super::{client::Client, guard::Loopback, keys::Keys, token::Tokens};

pub(in crate::webhook) const TIMEOUT: Duration = Duration::from_secs(15);

/// The simulated machine and the network around it.
pub(in crate::webhook) struct Net {
    pub(in crate::webhook) machine: Machine,
    pub(in crate::webhook) world: World,
}

impl Net {
    pub(in crate::webhook) fn new() -> Self {
        let machine = Machine::new(1);
        let world = machine.boot(Duration::ZERO);
        Self { machine, world }
    }

    pub(in crate::webhook) fn client(&self, loopback: Loopback) -> Client {
        let outbound = Arc::clone(&self.world.outbound);
        Client::new(outbound, Tls::new(&self.world), loopback, TIMEOUT)
    }

    pub(in crate::webhook) async fn keys(&self) -> (Arc<Keys>, Tokens) {
        let opened = Keys::open(&self.world, PathBuf::from("/keys"), None).await;
        let (keys, token_key) = opened.expect("a healthy disk");
        let (clock, entropy) = (Arc::clone(&self.world.clock), Arc::clone(&self.world.entropy));
        (Arc::new(keys), Tokens::new(&token_key, clock, entropy))
    }

    /// A receiver that answers every request alike and remembers what it was asked.
    pub(in crate::webhook) fn receiver(&self, address: &str, answer: Canned) -> Receiver {
        let mut listener =
            self.machine.outbound().listen(socket(address)).expect("nobody listens there");
        let receiver = Receiver::default();
        let seen = receiver.clone();
        tokio::spawn(async move {
            loop {
                let (io, _) = listener.accept().await.expect("the network is up");
                tokio::spawn(serve(io, answer.clone(), seen.clone()));
            }
        });
        receiver
    }

    /// How often a connection to this address was tried.
    pub(in crate::webhook) fn attempts(&self, address: &str) -> u64 {
        self.machine.outbound().attempts().get(&socket(address)).copied().unwrap_or(0)
    }

    pub(in crate::webhook) fn name(&self, host: &str, addresses: &[&str]) {
        let parse = |it: &&str| it.parse::<IpAddr>().expect("an address");
        let addresses: Vec<IpAddr> = addresses.iter().map(parse).collect();
        self.machine.outbound().name(host, &addresses);
    }
}

pub(in crate::webhook) fn socket(address: &str) -> SocketAddr {
    address.parse().expect("an address and a port")
}

/// What a receiver answers.
#[derive(Clone)]
pub(in crate::webhook) struct Canned {
    status: u16,
    location: Option<&'static str>,
    body: Bytes,
}

impl Canned {
    pub(in crate::webhook) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, location: None, body: body.into() }
    }

    pub(in crate::webhook) fn redirect(status: u16, location: &'static str) -> Self {
        Self { status, location: Some(location), body: Bytes::new() }
    }
}

/// What a receiver was asked.
#[derive(Clone, Default)]
pub(in crate::webhook) struct Receiver {
    seen: Arc<Mutex<Vec<Request<Bytes>>>>,
}

impl Receiver {
    pub(in crate::webhook) fn seen(&self) -> Vec<Request<Bytes>> {
        self.seen.lock().clone()
    }
}

pub(in crate::webhook) async fn serve(io: impl Socket, answer: Canned, receiver: Receiver) {
    let service = service_fn(|request: Request<Incoming>| {
        let (answer, receiver) = (answer.clone(), receiver.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            receiver.seen.lock().push(Request::from_parts(parts, body));
            let mut response = Response::builder().status(answer.status);
            if let Some(location) = answer.location {
                response = response.header("location", location);
            }
            Ok::<_, hyper::Error>(response.body(Full::new(answer.body)).expect("valid"))
        }
    });
    // The client hangs up when it knows enough.
    drop(http1::Builder::new().serve_connection(TokioIo::new(io), service).await);
}
