//! One call of a receiver: look up, judge, connect, ask once, read a little.
//!
//! What is connected to is an address that was just judged, never a name, so a name that
//! changes its mind between the two gains nothing. A redirect is an answer like any other:
//! nothing is followed. The whole call has one time limit; dropping it ends the connection.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    body::Incoming,
    client::conn::http1,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use weir_io::{
    net::{Outbound, Socket},
    os::tls::{Tls, TlsError},
};

use super::guard::{self, Loopback, Rejected, Scheme, Target};

/// Bytes of an answer that are read. The answer that means something is 13 bytes long.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Bytes and fields of an answer's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
/// Addresses of one name that are tried, and how long each may take.
const ADDRESSES_MAX: usize = 4;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

pub(crate) const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("streamweir/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a receiver said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `None`: it was longer than anybody wants to know.
    pub(crate) body: Option<Bytes>,
}

/// Why a receiver said nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the URL is refused: {0}")]
    Url(Rejected),
    #[error("the host has no address: {0}")]
    Resolve(io::Error),
    #[error("the host's address {address} is refused: {rejected}")]
    Address { address: SocketAddr, rejected: Rejected },
    #[error("cannot connect to {address}: {error}")]
    Connect { address: SocketAddr, error: io::Error },
    #[error("no certificates to trust: {0}")]
    Trust(TlsError),
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    #[error("HTTP failed: {0}")]
    Http(hyper::Error),
    #[error("no answer in time")]
    Timeout,
}

/// Calls receivers. Clones share what they trust.
#[derive(Clone)]
pub(crate) struct Client {
    outbound: Arc<dyn Outbound>,
    tls: Tls,
    loopback: Loopback,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(
        outbound: Arc<dyn Outbound>,
        tls: Tls,
        loopback: Loopback,
        timeout: Duration,
    ) -> Self {
        Self { outbound, tls, loopback, timeout }
    }

    /// Posts a JSON body.
    pub(crate) async fn post(
        &self,
        url: &str,
        signature: HeaderValue,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let target = guard::check_url(url, self.loopback).map_err(Failure::Url)?;
        let call = self.call(&target, signature, body);
        tokio::time::timeout(self.timeout, call).await.map_err(|_| Failure::Timeout)?
    }

    async fn call(
        &self,
        target: &Target,
        signature: HeaderValue,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let socket = self.connect(target).await?;
        let request = request(target, signature, body);
        match target.scheme {
            Scheme::Http => exchange(socket, request).await,
            Scheme::Https => {
                let connector = self.tls.connector().await.map_err(Failure::Trust)?;
                let name = target.host.clone().try_into().map_err(io::Error::other);
                let secure = connector.connect(name.map_err(Failure::Tls)?, socket).await;
                exchange(secure.map_err(Failure::Tls)?, request).await
            }
        }
    }

    /// A connection to the first address that may be called and answers.
    async fn connect(&self, target: &Target) -> Result<Box<dyn Socket>, Failure> {
        let resolved = self.outbound.resolve(&target.host, target.port).await;
        let resolved = resolved.map_err(Failure::Resolve)?;
        let mut failure = Failure::Resolve(io::ErrorKind::NotFound.into());
        let mut tried = 0;
        for address in resolved {
            if let Err(rejected) = self.check(target, address) {
                if tried == 0 {
                    failure = Failure::Address { address, rejected };
                }
                continue;
            }
            if tried == ADDRESSES_MAX {
                break;
            }
            tried += 1;
            let connect = self.outbound.connect(address);
            let error = match tokio::time::timeout(CONNECT_TIME_MAX, connect).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => error,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            failure = Failure::Connect { address, error };
        }
        Err(failure)
    }

    fn check(&self, target: &Target, address: SocketAddr) -> Result<(), Rejected> {
        guard::check_address(address.ip(), self.loopback)?;
        // Without TLS only this machine is called, whatever `localhost` means here.
        if target.scheme == Scheme::Http && !guard::is_loopback(address.ip()) {
            return Err(Rejected { reason: "receivers must be called by https" });
        }
        Ok(())
    }
}

fn request(target: &Target, signature: HeaderValue, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = hyper::Method::POST;
    *request.uri_mut() = target.path_and_query.clone().into();
    let headers = request.headers_mut();
    let host = target.authority().parse().expect("a checked host is visible ASCII");
    headers.insert(HOST, host);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CONTENT_LENGTH, body.len().into());
    headers.insert(USER_AGENT, AGENT);
    headers.insert(WEBHOOK_SIGNATURE, signature);
    request
}

/// One request and its answer on a connection of its own, which ends with it.
async fn exchange(socket: impl Socket, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
    let mut builder = http1::Builder::new();
    builder.max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(socket)).await.map_err(Failure::Http)?;
    let mut answer = pin!(async move {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: bounded(response.into_body()).await? })
    });
    let mut connection = pin!(connection);
    let answer: Result<Answer, hyper::Error> = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // What it failed with, the answer says too; what it had received, the answer still has.
        _ = &mut connection => answer.await,
    };
    answer.map_err(Failure::Http)
}

async fn bounded(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > ANSWER_BYTES_MAX {
            return Ok(None);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes.freeze()))
}
