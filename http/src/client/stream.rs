//! One stream of a server and what can be asked of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use weir_io::World;

use super::{
    call::{Answer, Call, Caller, Contact, Patience, Repeat},
    error::Error,
    names::{
        CLOSED, EXPECTED_OFFSET, EXPIRES_AT, FORK_OFFSET, FORK_SUB_OFFSET, FORKED_FROM, KEY,
        NEXT_OFFSET, RETENTION, TTL, UP_TO_DATE, with_query,
    },
    target::Target,
};

/// A server. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    pub(super) caller: Arc<Caller>,
}

impl Client {
    /// A client that connects with its first request. Tasks and connections are `world`'s.
    #[must_use]
    pub fn new(world: World, target: Target, patience: Patience) -> Self {
        Self { caller: Arc::new(Caller::new(world, target, patience)) }
    }

    /// The server.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.caller.target
    }

    /// Why there is no connection, while one is looked for; nothing while there is one.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.caller.trouble.subscribe()
    }

    /// Returns once the first request has waited so long for its answer; never, if that came.
    pub async fn unanswered(&self, time: Duration) {
        let mut contact = self.caller.contact.subscribe();
        // What is returned is a lock: kept over a wait, it would keep the requests waiting.
        let asked = contact.wait_for(|it| *it >= Contact::Asked).await.is_ok();
        let answered = contact.wait_for(|it| *it == Contact::Answered);
        let is_late = timeout(time, answered).await.is_err();
        if asked && is_late {
            return;
        }
        std::future::pending().await
    }

    /// The stream of this name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Stream {
        let name = name.trim_matches('/').to_owned();
        let path = self.caller.target.path(&name);
        Stream { caller: Arc::clone(&self.caller), name, path }
    }
}

/// A stream, there or not.
#[derive(Clone)]
pub struct Stream {
    pub(super) caller: Arc<Caller>,
    pub(super) name: String,
    pub(super) path: String,
}

/// What a new stream is to be.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// Its content type; the server's default if there is none.
    pub content_type: Option<String>,
    /// How long it stays without use.
    pub ttl: Option<Duration>,
    /// When it goes, as RFC 3339.
    pub expires_at: Option<String>,
    /// `Stream-Retention`, on servers that have it.
    pub retention: Option<String>,
    /// Whether it is closed at once.
    pub closed: bool,
    /// What it begins with.
    pub body: Bytes,
    /// The stream it is a fork of, and where.
    pub fork: Option<(String, Option<String>, Option<u64>)>,
}

/// What is known of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Whether this request made it.
    pub created: bool,
    /// It was there, and an attempt before whose answer was lost may have made it.
    pub in_doubt: bool,
    /// Its content type.
    pub content_type: String,
    /// Where the next record goes.
    pub tail: String,
    /// Whether nothing follows any more.
    pub closed: bool,
    /// How long it stays without use, in seconds.
    pub ttl: Option<String>,
    /// When it goes.
    pub expires_at: Option<String>,
    /// What it lets go of.
    pub retention: Option<String>,
    /// Where it begins, if the server says so.
    pub earliest: Option<String>,
}

/// What one append did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Where the next record goes.
    pub tail: String,
    /// Whether nothing follows any more.
    pub closed: bool,
}

/// Where to read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The first record there is.
    Start,
    /// What comes from now on.
    Now,
    /// An offset that the server named.
    Offset(String),
    /// The first record at or after this time: nanoseconds since 1970, on servers that know.
    Since(u64),
}

/// One answer of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Records as they are stored: an array in JSON, else one behind the other.
    pub body: Bytes,
    /// Where to go on.
    pub next: String,
    /// Whether that is the end for now.
    pub up_to_date: bool,
    /// Whether that is the end for good.
    pub closed: bool,
    /// Type of the body.
    pub content_type: String,
}

impl Stream {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn get(&self, query: &[(&str, &str)]) -> Call {
        Call {
            method: Method::GET,
            path: with_query(&self.path, query),
            headers: Vec::new(),
            body: Bytes::new(),
            repeat: Repeat::Safe,
            what: self.name.clone(),
            extra: Duration::ZERO,
        }
    }

    /// Makes the stream; one that is there already and is the same is fine.
    ///
    /// # Errors
    /// [`Error::Conflict`]: there is another of this name.
    pub async fn create(&self, create: Create) -> Result<Info, Error> {
        let mut wanted = vec![
            (CONTENT_TYPE, create.content_type),
            // Whole seconds, and never less than what was asked for.
            (TTL, create.ttl.map(|ttl| ttl.as_millis().div_ceil(1_000).to_string())),
            (EXPIRES_AT, create.expires_at),
            (RETENTION, create.retention),
            (CLOSED, create.closed.then(|| "true".to_owned())),
        ];
        if let Some((source, offset, sub_offset)) = create.fork {
            wanted.push((FORKED_FROM, Some(self.caller.target.path(&source))));
            wanted.push((FORK_OFFSET, offset));
            wanted.push((FORK_SUB_OFFSET, sub_offset.map(|it| it.to_string())));
        }
        let given = wanted.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let headers = given.map(|(name, value)| Ok((name, header(&value)?)));
        let headers = headers.collect::<Result<Vec<_>, Error>>()?;
        let call = Call { method: Method::PUT, headers, body: create.body, ..self.get(&[]) };
        let answer = self.caller.call(&call).await?;
        match answer.status.as_u16() {
            status @ (200 | 201 | 204) => {
                let created = status == 201;
                // After a lost answer nobody knows which request made it.
                let in_doubt = !created && answer.doubts > 0;
                Ok(Info { created, in_doubt, ..finished(answer).await })
            }
            _ => Err(answer.into_error(&self.name).await),
        }
    }

    /// What is known of it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Gone`].
    pub async fn head(&self) -> Result<Info, Error> {
        let call = Call { method: Method::HEAD, ..self.get(&[]) };
        let answer = self.caller.call(&call).await?;
        match answer.status.as_u16() {
            200 | 204 => Ok(finished(answer).await),
            _ => Err(answer.into_error(&self.name).await),
        }
    }

    /// Appends a body, which is not sent again if its answer is lost, and may close the stream
    /// behind it. An empty body only closes.
    ///
    /// # Errors
    /// [`Error::Unknown`]: nobody knows whether it was appended.
    pub async fn append(&self, append: Append<'_>) -> Result<Position, Error> {
        let Append { content_type, body, key, closed } = append;
        let mut headers = vec![(CONTENT_TYPE, header(content_type)?)];
        if let Some(key) = key {
            headers.push((KEY, header(key)?));
        }
        if closed {
            headers.push((CLOSED, HeaderValue::from_static("true")));
        }
        // To close twice is to close.
        let repeat = if body.is_empty() { Repeat::Safe } else { Repeat::Never };
        let call = Call { method: Method::POST, headers, body, repeat, ..self.get(&[]) };
        let answer = self.caller.call(&call).await?;
        self.position(answer).await
    }

    pub(super) async fn position(&self, answer: Answer) -> Result<Position, Error> {
        match answer.status.as_u16() {
            200 | 201 | 204 => {
                let tail = answer.header(NEXT_OFFSET).unwrap_or_default().to_owned();
                let closed = is_true(&answer.headers, CLOSED.as_str());
                // The head has said it, whatever becomes of the rest.
                drop(answer.read().await);
                Ok(Position { tail, closed })
            }
            _ => Err(answer.into_error(&self.name).await),
        }
    }

    /// Deletes it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Gone`].
    pub async fn delete(&self) -> Result<(), Error> {
        self.delete_with(Vec::new()).await
    }

    /// Deletes it if it ends at this offset. Servers that know no such condition delete it.
    ///
    /// # Errors
    /// [`Error::Conflict`]: it ends elsewhere; and those of [`Self::delete`].
    pub async fn delete_at(&self, tail: &str) -> Result<(), Error> {
        self.delete_with(vec![(EXPECTED_OFFSET, header(tail)?)]).await
    }

    async fn delete_with(&self, headers: Vec<(HeaderName, HeaderValue)>) -> Result<(), Error> {
        let call = Call { method: Method::DELETE, headers, ..self.get(&[]) };
        let answer = self.caller.call(&call).await?;
        match answer.status.as_u16() {
            200 | 202 | 204 => {
                finished(answer).await;
                Ok(())
            }
            // An earlier attempt did it, whose answer was lost.
            404 | 410 if answer.doubts > 0 => Ok(()),
            _ => Err(answer.into_error(&self.name).await),
        }
    }

    /// Reads one page.
    ///
    /// # Errors
    /// [`Error::Gone`]: what stood there was let go of.
    pub async fn page(&self, from: &From, key: Option<&str>) -> Result<Page, Error> {
        let since;
        let mut query = match from {
            From::Start => vec![("offset", "-1")],
            From::Now => vec![("offset", "now")],
            From::Offset(offset) => vec![("offset", offset.as_str())],
            From::Since(nanoseconds) => {
                since = nanoseconds.to_string();
                vec![("since", since.as_str())]
            }
        };
        query.extend(key.map(|key| ("key", key)));
        let deadline = Instant::now() + self.caller.patience.total;
        let mut attempts = 0;
        loop {
            let answer = self.caller.call(&self.get(&query)).await?;
            if answer.status.as_u16() != 200 {
                return Err(answer.into_error(&self.name).await);
            }
            // A page that breaks off is asked for again, as if it had never begun.
            match read_page(answer).await {
                Err(Error::BrokenOff { .. }) if Instant::now() < deadline => {
                    attempts += 1;
                    let pause = Instant::now() + self.caller.pause(attempts);
                    tokio::time::sleep_until(pause.min(deadline)).await;
                }
                page => return page,
            }
        }
    }
}

/// What is appended.
#[derive(Clone, Debug)]
pub struct Append<'a> {
    /// Type of the body: that of the stream.
    pub content_type: &'a str,
    /// One record, or a JSON array of several.
    pub body: Bytes,
    /// Key of the records, on servers that have keys.
    pub key: Option<&'a str>,
    /// Whether nothing follows.
    pub closed: bool,
}

pub(super) async fn read_page(answer: Answer) -> Result<Page, Error> {
    let server = answer.server();
    let read = answer.read().await;
    let (headers, body) =
        read.map_err(|error| Error::BrokenOff { server, reason: error.to_string() })?;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let next =
        text(NEXT_OFFSET).ok_or_else(|| Error::Strange("no Stream-Next-Offset".to_owned()))?;
    Ok(Page {
        body,
        next: next.to_owned(),
        up_to_date: is_true(&headers, UP_TO_DATE),
        closed: is_true(&headers, CLOSED.as_str()),
        content_type: text(CONTENT_TYPE.as_str()).unwrap_or_default().to_owned(),
    })
}

pub(super) fn is_true(headers: &HeaderMap, name: &str) -> bool {
    headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// What the head of an answer says, whose body is of no interest.
async fn finished(answer: Answer) -> Info {
    let info = info(&answer);
    // The connection serves again if it can be read.
    drop(answer.read().await);
    info
}

fn info(answer: &Answer) -> Info {
    let text = |name: &str| answer.header(name).map(str::to_owned);
    Info {
        created: false,
        in_doubt: false,
        content_type: text(CONTENT_TYPE.as_str()).unwrap_or_default(),
        tail: text(NEXT_OFFSET).unwrap_or_default(),
        closed: is_true(&answer.headers, CLOSED.as_str()),
        ttl: text(TTL.as_str()),
        expires_at: text(EXPIRES_AT.as_str()),
        retention: text(RETENTION.as_str()),
        earliest: text("stream-earliest-offset"),
    }
}

/// A header's value.
pub(super) fn header(text: &str) -> Result<HeaderValue, Error> {
    text.parse().map_err(|_| Error::Refused {
        status: 400,
        message: format!("{text:?} can't stand in a header"),
    })
}
