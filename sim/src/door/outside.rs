//! A client on another machine: one connection that is made anew when it breaks, answers that may
//! never come, and what may be concluded then.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, StatusCode, client::conn::http1, header::HeaderMap};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use weir_engine::{
    Change, Engine,
    request::{Append, Appended, Create, Created, Error, From, Head, List, ListRow, Page, Read},
    types::{Offset, StreamName},
};
use weir_io::net::Socket;

use super::{
    answer::{self, Reply},
    events::Events,
    request::{self, Outgoing},
    subscriptions::Tokens,
    tags::{Pages, Tags},
};

/// How long a client waits for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long a client waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long it waits before it polls again after a broken poll.
const AGAIN: Duration = Duration::from_millis(100);
/// Polls that may break in a row before a live reader gives up.
const BROKEN_MAX: u32 = 20;

/// Makes a connection to the server.
pub type Dial = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<Dialed>>>>>;
/// The engine behind the server, for the judge; `None` while the server is down.
pub type Insight = Rc<RefCell<Option<Engine>>>;

/// A connection to the server.
pub struct Dialed {
    pub socket: Box<dyn Socket>,
    /// A reset cut what was being written: the server can't have heard the whole of it.
    pub torn: Arc<AtomicBool>,
}

pub(super) type Sender = http1::SendRequest<Full<Bytes>>;

/// A connection that carries one request after the other.
struct Connected {
    sender: Sender,
    torn: Arc<AtomicBool>,
}

/// A client. Clones share its connection.
#[derive(Clone)]
pub struct Outside {
    dial: Dial,
    insight: Insight,
    connection: Rc<RefCell<Option<Connected>>>,
    pub(super) tokens: Tokens,
    pages: Rc<Pages>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// The request never left.
    Unsent,
    /// It may have been heard.
    Unanswered,
}

impl Outside {
    /// A client that has no connection yet and keeps no page. Workers share their tokens with others,
    /// and everybody what tags stand for.
    #[must_use]
    pub fn new(dial: Dial, insight: Insight, tokens: Tokens, tags: Rc<Tags>) -> Self {
        let pages = Rc::new(Pages::new(tags));
        Self { dial, insight, connection: Rc::default(), tokens, pages }
    }

    /// The engine behind the server.
    #[must_use]
    pub fn engine(&self) -> Option<Engine> {
        self.insight.borrow().clone()
    }

    async fn connected(&self) -> Result<Connected, Lost> {
        let kept = self.connection.borrow_mut().take();
        if let Some(mut kept) = kept
            && kept.sender.ready().await.is_ok()
        {
            return Ok(kept);
        }
        let dialed = timeout(CONNECT_MAX, (self.dial)()).await.map_err(|_| Lost::Unsent)?;
        let Dialed { socket, torn } = dialed.map_err(|_| Lost::Unsent)?;
        let handshake = http1::handshake(TokioIo::new(socket)).await;
        let (sender, connection) = handshake.map_err(|_| Lost::Unsent)?;
        tokio::task::spawn_local(connection);
        Ok(Connected { sender, torn })
    }

    async fn send(&self, outgoing: Outgoing) -> Result<Reply, Lost> {
        let mut connected = self.connected().await?;
        let exchange = async {
            let response =
                connected.sender.send_request(outgoing).await.map_err(|_| Lost::Unanswered)?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|_| Lost::Unanswered)?;
            Ok(Reply { parts, body: body.to_bytes() })
        };
        let reply = timeout(ANSWER_MAX, exchange).await.unwrap_or(Err(Lost::Unanswered));
        let reply = reply.map_err(|lost| match connected.torn.load(Ordering::Relaxed) {
            // Part of a request is none.
            true => Lost::Unsent,
            false => lost,
        })?;
        // Only a connection whose last answer arrived whole can carry another request.
        self.connection.replace(Some(connected));
        Ok(reply)
    }

    /// A request that may change something.
    pub(super) async fn change(&self, outgoing: Outgoing) -> Result<Reply, Error> {
        self.send(outgoing).await.map_err(|lost| match lost {
            Lost::Unsent => Error::Draining,
            Lost::Unanswered => {
                weir_io::sometimes!("an answer was lost on the network");
                Error::Unknown
            }
        })
    }

    /// A request that changes nothing.
    pub(super) async fn ask(&self, outgoing: Outgoing) -> Result<Reply, Error> {
        self.send(outgoing).await.map_err(|_| Error::Draining)
    }

    pub(super) async fn create(&self, create: Create) -> Result<Created, Error> {
        let reply = self.change(request::create(&create)).await?;
        answer::created(&create, &reply)
    }

    pub(super) async fn append(&self, append: Append) -> Result<Appended, Error> {
        let reply = self.change(request::append(&append)).await?;
        answer::appended(&append, &reply)
    }

    pub(super) async fn delete(
        &self,
        name: &StreamName,
        expected: Option<Offset>,
    ) -> Result<(), Error> {
        let outgoing = request::delete(name, expected);
        answer::deleted(name, &self.change(outgoing).await?)
    }

    pub(super) async fn head(&self, name: &StreamName) -> Result<Head, Error> {
        let path = request::path(name);
        let outgoing = request::build(Method::HEAD, &path, HeaderMap::new(), Bytes::new());
        answer::head(name, &self.ask(outgoing).await?)
    }

    pub(super) async fn read(&self, read: Read) -> Result<Page, Error> {
        let mut outgoing = request::read(&read, "");
        let asked = self.pages.ask(&mut outgoing);
        let reply = self.pages.take(asked, self.ask(outgoing).await?);
        answer::page(&read, &reply)
    }

    pub(super) async fn list(&self, list: &List) -> Result<Vec<ListRow>, Error> {
        let path = format!("/v1/streams?limit={}", list.limit);
        let outgoing = request::build(Method::GET, &path, HeaderMap::new(), Bytes::new());
        answer::listed(&self.ask(outgoing).await?)
    }

    /// A reader of events from a position on, while the connection lasts.
    ///
    /// # Errors
    /// As [`Outside::read`].
    pub(crate) async fn events(&self, name: &StreamName, from: From) -> Result<Events, Error> {
        let lost = |_| Error::Draining;
        let Connected { mut sender, .. } = self.connected().await.map_err(lost)?;
        let read = Read { name: name.clone(), from, key: None, bytes_max: 0 };
        let exchange = async {
            let response = sender.send_request(request::read(&read, "&live=sse"));
            let response = response.await.map_err(|_| Lost::Unanswered)?;
            if response.status() == StatusCode::OK {
                return Ok(Ok(Events::new(sender, response)));
            }
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|_| Lost::Unanswered)?.to_bytes();
            Ok(Err(answer::refused(name, &Reply { parts, body })))
        };
        let answer = timeout(ANSWER_MAX, exchange).await.unwrap_or(Err(Lost::Unanswered));
        answer.map_err(lost)?
    }

    /// Long-polls until there is something other than an open tail. With data comes the page that was
    /// waited for.
    pub(super) async fn changed(
        &self,
        name: &StreamName,
        from: Offset,
    ) -> (Change, Option<Result<Page, Error>>) {
        let read = Read { name: name.clone(), from: From::At(from), key: None, bytes_max: 0 };
        let mut broken = 0;
        loop {
            let poll = request::read(&read, "&live=long-poll&timeout=2s");
            let Ok(reply) = self.send(poll).await else {
                broken += 1;
                if broken > BROKEN_MAX {
                    return (Change::Gone, None);
                }
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            broken = 0;
            let head = &reply.parts;
            let closed = head.headers.contains_key("stream-closed");
            match head.status {
                StatusCode::OK => return (Change::Data, Some(answer::page(&read, &reply))),
                StatusCode::NO_CONTENT if closed => return (Change::Closed, None),
                StatusCode::NO_CONTENT => {}
                // What it was to go on with is gone, and the stream goes on.
                StatusCode::GONE if head.headers.contains_key("stream-next-offset") => {
                    weir_io::sometimes!("a poll was overtaken by a trim");
                    return (Change::Data, None);
                }
                StatusCode::NOT_FOUND | StatusCode::GONE => return (Change::Gone, None),
                _ => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}
