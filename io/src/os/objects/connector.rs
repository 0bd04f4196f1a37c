//! HTTP to clouds, on the world's connections: what the library of clouds is given.
//!
//! HTTP/1.1 with keep-alive. A connection that was idle and turns out to be closed before a
//! request went out is replaced without a word; every other failure is told, because a
//! request that may have arrived must not be sent again in secret. Redirects are not
//! followed and proxies not used. No time limits: whoever asks drops the future, and with it
//! the connection.

use std::{
    collections::BTreeMap, fmt, future::Future, io, net::IpAddr, pin::Pin, sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper::{
    Uri,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use object_store::{
    ClientConfigKey, ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
        HttpResponse, HttpResponseBody, HttpService,
    },
};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{super::tls::Tls, refusal::Refusal};
use crate::{
    Tasks, World,
    net::{Outbound, Socket},
};

/// Requests under way at a time; more wait for room.
const REQUESTS_MAX: usize = 64;
/// Connections kept for the next request, and how long.
const IDLE_MAX: usize = 32;
const IDLE_TIME_MAX: Duration = Duration::from_secs(15);
/// Addresses of one name that are tried, and how long each may take.
const ADDRESSES_MAX: usize = 4;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of an unsuccessful answer's body that are read.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("streamweir/", env!("CARGO_PKG_VERSION")));

type Sender = SendRequest<HttpRequestBody>;

/// Makes clients that share connections.
#[derive(Clone)]
pub(super) struct Connector {
    pool: Arc<Pool>,
}

struct Pool {
    outbound: Arc<dyn Outbound>,
    tasks: Arc<dyn Tasks>,
    tls: Tls,
    requests: Arc<Semaphore>,
    idle: Mutex<BTreeMap<Target, Vec<(Sender, Instant)>>>,
}

impl Connector {
    pub(super) fn new(world: &World) -> Connector {
        let pool = Pool {
            outbound: Arc::clone(&world.outbound),
            tasks: Arc::clone(&world.tasks),
            tls: Tls::new(world),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            idle: Mutex::default(),
        };
        Connector { pool: Arc::new(pool) }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp);
        let plain =
            if plain.is_some_and(|it| it == "true") { Plain::Allowed } else { Plain::Local };
        Ok(HttpClient::new(Service { pool: Arc::clone(&self.pool), plain }))
    }
}

/// Where HTTP without TLS may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    /// Anywhere.
    Allowed,
    /// To this machine.
    Local,
}

/// A client of the library.
struct Service {
    pool: Arc<Pool>,
    plain: Plain,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

impl HttpService for Service {
    fn call<'life, 'pending>(
        &'life self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'pending>>
    where
        'life: 'pending,
        Self: 'pending,
    {
        Box::pin(async move {
            let target = Target::of(request.uri()).map_err(connecting)?;
            if !target.secure && self.plain == Plain::Local && !target.is_local() {
                let reason = "without TLS only this machine is asked, unless plain HTTP is allowed";
                return Err(refused(Refusal::plain(reason)));
            }
            let room = Arc::clone(&self.pool.requests).acquire_owned().await;
            let room = room.expect("this semaphore is never closed");
            self.pool.ask(target, request, room).await
        })
    }
}

impl Pool {
    async fn ask(
        self: &Arc<Pool>,
        target: Target,
        request: HttpRequest,
        room: OwnedSemaphorePermit,
    ) -> Result<HttpResponse, HttpError> {
        let mut request = prepared(request, &target)?;
        let (mut sender, response) = loop {
            let (mut sender, fresh) = match self.take_idle(&target) {
                Some(sender) => (sender, false),
                None => (self.connect(&target).await.map_err(connecting)?, true),
            };
            match sender.try_send_request(request).await {
                Ok(response) => break (sender, response),
                Err(mut error) => match error.take_message() {
                    // Closed while it was idle: nothing went out.
                    Some(unsent) if !fresh => request = unsent,
                    _ => return Err(interrupted(error.into_error())),
                },
            }
        };
        let pool = Arc::clone(self);
        let metadata = target.is_metadata();
        self.tasks.spawn(
            "bucket connection",
            Box::pin(async move {
                // Ready again once the answer has been read; an error once it cannot be.
                if sender.ready().await.is_ok() {
                    pool.put_idle(target, sender);
                }
                drop(room);
            }),
        );
        let status = response.status();
        // A cloud's metadata service is asked by the library for credentials, and it alone
        // knows what the answers mean.
        if status.is_success() || metadata {
            return Ok(response.map(|body| HttpResponseBody::new(body.map_err(interrupted))));
        }
        let code = response.headers().get("x-ms-error-code");
        let code = code.and_then(|code| code.to_str().ok()).map(str::to_owned);
        let body = beginning(response.into_body()).await;
        Err(refused(Refusal::read(status.as_u16(), code.as_deref(), &body)))
    }

    fn take_idle(&self, target: &Target) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let senders = idle.get_mut(target)?;
        while let Some((sender, since)) = senders.pop() {
            if sender.is_ready() && since.elapsed() < IDLE_TIME_MAX {
                return Some(sender);
            }
        }
        None
    }

    fn put_idle(&self, target: Target, sender: Sender) {
        let mut idle = self.idle.lock();
        idle.retain(|_, senders| {
            senders.retain(|(sender, since)| sender.is_ready() && since.elapsed() < IDLE_TIME_MAX);
            !senders.is_empty()
        });
        if idle.values().map(Vec::len).sum::<usize>() < IDLE_MAX {
            idle.entry(target).or_default().push((sender, Instant::now()));
        }
    }

    async fn connect(&self, target: &Target) -> io::Result<Sender> {
        let socket = self.dial(target).await?;
        if !target.secure {
            return self.shake_hands(socket).await;
        }
        let name = target.host.clone().try_into().map_err(io::Error::other)?;
        let secure = self.tls.connector().await?.connect(name, socket).await?;
        self.shake_hands(secure).await
    }

    async fn dial(&self, target: &Target) -> io::Result<Box<dyn Socket>> {
        let addresses = self.outbound.resolve(&target.host, target.port).await?;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            let connect = self.outbound.connect(address);
            failure = match tokio::time::timeout(CONNECT_TIME_MAX, connect).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => error,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
        }
        Err(failure)
    }

    async fn shake_hands(&self, socket: impl Socket) -> io::Result<Sender> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
        // It ends with its sender, or with the peer; what it failed with, the request says too.
        self.tasks.spawn("bucket socket", Box::pin(async move { drop(connection.await) }));
        Ok(sender)
    }
}

/// Whom a request goes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    secure: bool,
    host: String,
    port: u16,
}

impl Target {
    fn of(uri: &Uri) -> io::Result<Target> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "the endpoint is no http URL");
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = uri.host().ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Target { secure, host, port })
    }

    fn is_local(&self) -> bool {
        let address: Option<IpAddr> = self.host.parse().ok();
        self.host == "localhost" || address.is_some_and(|it| it.is_loopback())
    }

    fn is_metadata(&self) -> bool {
        let link_local = match self.host.parse() {
            Ok(IpAddr::V4(address)) => address.is_link_local(),
            Ok(IpAddr::V6(address)) => address.is_unique_local() || address.is_unicast_link_local(),
            Err(_) => false,
        };
        link_local || matches!(&*self.host, "metadata" | "metadata.google.internal")
    }
}

/// The request as it goes over the wire: without scheme and host in its first line.
fn prepared(mut request: HttpRequest, target: &Target) -> Result<HttpRequest, HttpError> {
    let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
    let path = path.parse::<Uri>().map_err(|error| connecting(io::Error::other(error)))?;
    if !request.headers().contains_key(HOST) {
        let authority = request.uri().authority().map_or(&*target.host, |it| it.as_str());
        let host = HeaderValue::from_str(authority);
        let host = host.map_err(|error| connecting(io::Error::other(error)))?;
        request.headers_mut().insert(HOST, host);
    }
    request.headers_mut().insert(USER_AGENT, AGENT);
    *request.uri_mut() = path;
    Ok(request)
}

/// The beginning of a body, as far as it could be read.
async fn beginning(mut body: Incoming) -> BytesMut {
    let mut bytes = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        let room = REFUSAL_BYTES_MAX - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if bytes.len() == REFUSAL_BYTES_MAX {
            break;
        }
    }
    bytes
}

fn connecting(error: io::Error) -> HttpError {
    HttpError::new(HttpErrorKind::Connect, error)
}

fn interrupted(error: hyper::Error) -> HttpError {
    HttpError::new(HttpErrorKind::Interrupted, error)
}

fn refused(refusal: Refusal) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, refusal)
}
