//! One request and its answer: connections kept alive, repetitions with pauses.
//!
//! A request that may be repeated is, until its time is over: when nobody answers, when the
//! connection breaks, and when the server says that it is busy. One that must not be repeated is
//! sent again only if the server can't have seen it or says that it did nothing. Whether a server is
//! waited for that refuses the very first connection, [`Patience`] says.

mod connect;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::SendRequest,
    header::{
        AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
    },
};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use weir_io::{World, os::tls::Tls};

pub(crate) use self::connect::tls_failed;
use super::{error::Error, target::Target};

/// Connections kept for the next request.
const IDLE_MAX: usize = 8;
/// The first pause before a repetition; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

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

/// An error of the library with what is behind it.
fn describe(error: &hyper::Error) -> String {
    let behind = std::error::Error::source(error);
    behind.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests;
