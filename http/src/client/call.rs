//! One request and its answer: connections kept alive, repetitions with pauses.
//!
//! A request that may be repeated is, until its time is over: when nobody answers, when the
//! connection breaks, and when the server says that it is busy. One that must not be repeated is
//! sent again only if the server can't have seen it or says that it did nothing. Whether a server is
//! waited for that refuses the very first connection, [`Patience`] says.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{
        AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
    },
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use weir_io::{World, net::Socket, os::tls::Tls};

use super::{
    error::Error,
    target::{Scheme, Target},
};

/// Connections kept for the next request.
const IDLE_MAX: usize = 8;
/// Addresses of one name that are tried, and how long each may take.
const ADDRESSES_MAX: usize = 4;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The first pause before a repetition; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The largest head of an answer.
const HEAD_BYTES_MAX: usize = 128 << 10;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("weir/", env!("CARGO_PKG_VERSION")));

/// How long a client keeps trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From the first attempt to the last.
    pub total: Duration,
    /// For the head of one answer.
    pub answer: Duration,
    /// Whether it waits for a server that is not there yet.
    pub absent: Absent,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(30),
            answer: Duration::from_secs(60),
            absent: Absent::MayCome,
        }
    }
}

/// What a connection means that is refused before any was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The server is on its way: the connection is tried again.
    MayCome,
    /// There is none.
    IsAbsent,
}

/// How far a client has come with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contact {
    /// Nothing was asked.
    None,
    /// The first request is on its way.
    Asked,
    /// There was a connection.
    Connected,
    /// There was an answer.
    Answered,
}

/// Whether a request had an `Authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Given,
    Missing,
}

/// Whether a request may be sent again when its answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    Safe,
    Never,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
    pub(super) repeat: Repeat,
    /// What it is about, for messages.
    pub(super) what: String,
    /// How long its answer may take beyond the usual.
    pub(super) extra: Duration,
}

type Sender = SendRequest<Full<Bytes>>;

/// The way to one server.
pub(super) struct Caller {
    world: World,
    tls: Tls,
    pub(super) target: Target,
    pub(super) patience: Patience,
    idle: Mutex<Vec<Sender>>,
    /// Why there is no connection, while one is looked for.
    pub(super) trouble: watch::Sender<Option<String>>,
    pub(super) contact: watch::Sender<Contact>,
}

/// An answer whose body is still to be read.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
    /// Attempts before this one whose outcome nobody knows.
    pub(super) doubts: u32,
    key: Key,
    sender: Sender,
    caller: Arc<Caller>,
}

impl Answer {
    /// A header's value, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Who answered.
    pub(super) fn server(&self) -> String {
        self.caller.target.to_string()
    }

    /// Reads the body to its end; the connection serves the next request.
    pub(super) async fn read(self) -> Result<(HeaderMap, Bytes), hyper::Error> {
        let body = self.body.collect().await?.to_bytes();
        let mut idle = self.caller.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(self.sender);
        }
        drop(idle);
        Ok((self.headers, body))
    }

    /// This answer as the failure of a request about `what`.
    pub(super) async fn into_error(self, what: &str) -> Error {
        Error::of(what, self.status, &self.headers, self.key, self.body).await
    }
}

/// How one attempt failed.
enum Failed {
    /// Nobody listens there.
    Refused(String),
    /// The server can't have seen the request.
    Unsent(String),
    /// It may have.
    Broken(String),
}

impl Caller {
    pub(super) fn new(world: World, target: Target, patience: Patience) -> Self {
        let tls = Tls::new(&world);
        Self {
            world,
            tls,
            target,
            patience,
            idle: Mutex::default(),
            trouble: watch::Sender::new(None),
            contact: watch::Sender::new(Contact::None),
        }
    }

    /// Sends a request, again if that is safe. Any status but "busy" is an answer.
    pub(super) async fn call(self: &Arc<Self>, call: &Call) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.patience.total;
        let (mut attempts, mut doubts) = (0_u32, 0);
        self.reach(Contact::Asked);
        loop {
            attempts += 1;
            let (error, wait) = match self.attempt(call).await {
                Ok(mut answer) => {
                    answer.doubts = doubts;
                    if !may_come_back(answer.status, call.repeat) {
                        self.tell(None);
                        return Ok(answer);
                    }
                    let wait = retry_after(&answer.headers);
                    (answer.into_error(&call.what).await, wait)
                }
                Err(Failed::Refused(reason)) if self.is_absent() => {
                    let server = self.target.to_string();
                    return Err(Error::Unreachable { server, reason });
                }
                Err(Failed::Refused(reason) | Failed::Unsent(reason)) => {
                    let server = self.target.to_string();
                    (Error::Unreachable { server, reason }, None)
                }
                Err(Failed::Broken(reason)) if call.repeat == Repeat::Never => {
                    return Err(Error::Unknown { reason });
                }
                Err(Failed::Broken(reason)) => {
                    doubts += 1;
                    let server = self.target.to_string();
                    (Error::Unreachable { server, reason }, None)
                }
            };
            let now = Instant::now();
            // Before the server wants it there is no use in asking; otherwise the last attempt is
            // made when the time is over.
            if now >= deadline || wait.is_some_and(|wait| now + wait > deadline) {
                return Err(error);
            }
            self.tell(Some(error.to_string()));
            let pause = self.pause(attempts).max(wait.unwrap_or(Duration::ZERO));
            tokio::time::sleep_until((now + pause).min(deadline)).await;
        }
    }

    /// Says why there is no connection, or that there is one.
    pub(super) fn tell(&self, trouble: Option<String>) {
        self.trouble.send_if_modified(|known| {
            let is_new = *known != trouble;
            *known = trouble;
            is_new
        });
    }

    fn is_absent(&self) -> bool {
        self.patience.absent == Absent::IsAbsent && *self.contact.borrow() < Contact::Connected
    }

    /// It has come so far with the server, or farther.
    fn reach(&self, contact: Contact) {
        self.contact.send_if_modified(|known| {
            let is_new = *known < contact;
            *known = contact.max(*known);
            is_new
        });
    }

    /// A pause after so many attempts: half of it fixed, half by chance, so that clients that
    /// were thrown out together do not come back together.
    pub(super) fn pause(&self, attempts: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = PAUSE.saturating_mul(doubled).min(PAUSE_MAX);
        let mut chance = [0];
        self.world.entropy.fill(&mut chance);
        longest / 2 + longest / 2 * u32::from(chance[0]) / 255
    }

    async fn attempt(self: &Arc<Self>, call: &Call) -> Result<Answer, Failed> {
        let limit = self.patience.answer + call.extra;
        let mut request = self.request(call).map_err(Failed::Unsent)?;
        let key = match request.headers().contains_key(AUTHORIZATION) {
            true => Key::Given,
            false => Key::Missing,
        };
        loop {
            // A connection that was kept may have ended meanwhile: then the next is tried.
            let (mut sender, kept) = match self.take_idle() {
                Some(sender) => (sender, true),
                None => (self.connect().await?, false),
            };
            let sent = tokio::time::timeout(limit, sender.try_send_request(request)).await;
            let sent = sent.map_err(|_| Failed::Broken(format!("no answer in {limit:?}")))?;
            match sent {
                Ok(response) => {
                    self.reach(Contact::Answered);
                    return Ok(self.answer(response, key, sender));
                }
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) if kept => request = unsent,
                    Some(_) => return Err(Failed::Unsent(failure.error().to_string())),
                    None => return Err(Failed::Broken(describe(failure.error()))),
                },
            }
        }
    }

    fn answer(self: &Arc<Self>, response: Response<Incoming>, key: Key, sender: Sender) -> Answer {
        let (head, body) = response.into_parts();
        let caller = Arc::clone(self);
        Answer { status: head.status, headers: head.headers, body, doubts: 0, key, sender, caller }
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock();
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path.parse().map_err(|_| format!("bad path {}", call.path))?;
        let headers = request.headers_mut();
        let value = |text: &str| text.parse().map_err(|_| "a header with strange characters");
        headers.insert(HOST, value(&self.target.authority())?);
        headers.insert(USER_AGENT, AGENT);
        if let Some(auth) = &self.target.auth {
            let mut auth: HeaderValue = value(auth)?;
            auth.set_sensitive(true);
            headers.insert(AUTHORIZATION, auth);
        }
        if call.method == Method::POST || call.method == Method::PUT {
            headers.insert(CONTENT_LENGTH, call.body.len().into());
        }
        for (name, value) in &call.headers {
            headers.insert(name.clone(), value.clone());
        }
        Ok(request)
    }

    async fn connect(&self) -> Result<Sender, Failed> {
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

/// Whether to ask again later instead of taking this for the answer.
fn may_come_back(status: StatusCode, repeat: Repeat) -> bool {
    match status.as_u16() {
        // It says that it did nothing.
        429 => true,
        408 | 500 | 502 | 503 | 504 => repeat == Repeat::Safe,
        _ => false,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
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

/// An error of the library with what is behind it.
fn describe(error: &hyper::Error) -> String {
    let behind = std::error::Error::source(error);
    behind.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };
    use weir_io::{
        memory::{Hang, Machine, MemoryListener},
        net::Listener as _,
    };

    use super::*;
    use crate::client::{Client, Info, Stream};

    const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn client(machine: &Machine, absent: Absent) -> Client {
        let target = Target::parse("http://127.0.0.1:8080", None).expect("a URL");
        let patience = Patience { absent, ..Patience::default() };
        Client::new(machine.boot(Duration::ZERO), target, patience)
    }

    fn attempts(machine: &Machine) -> u64 {
        machine.outbound().attempts().get(&ADDRESS.into()).copied().unwrap_or(0)
    }

    /// Asks a server that answers one request and is gone.
    async fn asked_once(machine: &Machine, stream: &Stream) -> Result<Info, Error> {
        // It listens before it is asked.
        let listener = machine.outbound().listen(ADDRESS.into()).expect("nobody listens there");
        let (answer, ()) = tokio::join!(stream.head(), answer_once(listener));
        answer
    }

    async fn answer_once(mut listener: MemoryListener) {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        drop(listener);
        let mut request = [0; 1_024];
        assert!(socket.read(&mut request).await.expect("a request") > 0);
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        socket.write_all(answer).await.expect("it listens");
    }

    async fn within_a_world(work: impl Future<Output = ()>) {
        tokio::task::LocalSet::new().run_until(work).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_never_there_is_tried_once_unless_it_may_come() {
        within_a_world(async {
            let machine = Machine::new(1);
            let began = Instant::now();
            let failed = client(&machine, Absent::IsAbsent).stream("a").head().await;
            assert!(matches!(failed, Err(Error::Unreachable { .. })), "{failed:?}");
            assert_eq!((attempts(&machine), began.elapsed()), (1, Duration::ZERO));
            let failed = client(&machine, Absent::MayCome).stream("a").head().await;
            assert!(matches!(failed, Err(Error::Unreachable { .. })), "{failed:?}");
            assert!(attempts(&machine) > 5, "{}", attempts(&machine));
            assert!(began.elapsed() >= Patience::default().total, "{:?}", began.elapsed());
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_there_is_waited_for() {
        within_a_world(async {
            let machine = Machine::new(1);
            let stream = client(&machine, Absent::IsAbsent).stream("a");
            let answer = asked_once(&machine, &stream).await;
            assert!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
            let failed = stream.head().await;
            assert!(matches!(failed, Err(Error::Unreachable { .. })), "{failed:?}");
            assert!(attempts(&machine) > 5, "{}", attempts(&machine));
        })
        .await;
    }

    /// Answers every request with a page that breaks off.
    async fn cut_pages(mut listener: MemoryListener) -> Infallible {
        loop {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 1_024];
            assert!(socket.read(&mut request).await.expect("a request") > 0);
            let page = b"HTTP/1.1 200 OK\r\nStream-Next-Offset: 1\r\nContent-Length: 9\r\n\r\npart";
            socket.write_all(page).await.expect("it listens");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_breaks_off_is_asked_for_until_the_time_is_over() {
        within_a_world(async {
            let machine = Machine::new(1);
            let listener = machine.outbound().listen(ADDRESS.into()).expect("nobody listens there");
            let stream = client(&machine, Absent::IsAbsent).stream("a");
            let began = Instant::now();
            let page = tokio::select! {
                page = stream.page(&crate::client::From::Start, None) => page,
                never = cut_pages(listener) => match never {},
            };
            assert!(matches!(page, Err(Error::BrokenOff { .. })), "{page:?}");
            assert!(attempts(&machine) > 5, "{}", attempts(&machine));
            assert!(began.elapsed() >= Patience::default().total, "{:?}", began.elapsed());
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_first_answer_is_told_to_be_late() {
        within_a_world(async {
            let machine = Machine::new(1);
            let late = Duration::from_secs(2);
            for how in [Hang::Connecting, Hang::Answering] {
                machine.outbound().hang(ADDRESS.into(), Some(how));
                let client = client(&machine, Absent::IsAbsent);
                let nothing_asked = timeout(HOUR, client.unanswered(late)).await;
                assert!(nothing_asked.is_err(), "nobody waits");
                let (stream, began) = (client.stream("a"), Instant::now());
                tokio::select! {
                    answer = stream.head() => panic!("{answer:?}"),
                    () = client.unanswered(late) => assert_eq!(began.elapsed(), late, "{how:?}"),
                }
            }
            machine.outbound().hang(ADDRESS.into(), None);
            let client = client(&machine, Absent::IsAbsent);
            let stream = client.stream("a");
            let requests = async {
                for _ in 0..2 {
                    let answer = asked_once(&machine, &stream).await;
                    assert!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
                }
            };
            let late = timeout(HOUR, client.unanswered(late));
            let (late, ()) = tokio::join!(late, requests);
            assert!(late.is_err(), "it has answered");
        })
        .await;
    }
}
