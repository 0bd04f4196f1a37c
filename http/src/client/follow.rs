//! What is there, then what comes: over lost connections, without loss and without repeats.
//!
//! Pages are read until the end; then an event stream or long-polls take over. Whatever ends, the
//! next request begins at the last offset whose records were handed out.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{
    call::{Answer, Call},
    error::Error,
    events::{Encoding, Parser, Said},
    names::{CURSOR, NEXT_OFFSET, SSE_ENCODING},
    stream::{From, Page, Stream, is_true, read_page},
};

/// How long an event stream may be silent: servers send something every 15 s or end it after 60 s.
const SILENCE_MAX: Duration = Duration::from_secs(100);
/// How long a long-poll may take: servers wait for up to a minute.
const LONG_POLL_MAX: Duration = Duration::from_secs(90);

/// How to wait for what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// Not at all: it ends with what is there.
    No,
    /// An event stream; long-polls on a server that has none.
    Sse,
    /// One long-poll after the other.
    LongPoll,
}

/// Records that came together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// As they are stored: an array in JSON, else one behind the other. May be empty.
    pub body: Bytes,
    /// Where to go on after them.
    pub next: String,
    /// Whether that is the end for now.
    pub up_to_date: bool,
    /// Whether that is the end for good.
    pub closed: bool,
}

/// A reader that goes on where it was.
pub struct Follower {
    stream: Stream,
    from: From,
    key: Option<String>,
    live: Live,
    cursor: Option<String>,
    state: State,
    /// Failures since the last record.
    failures: u32,
}

enum State {
    /// Reading what is there.
    Behind,
    /// Waiting, with the event stream there is.
    Waiting(Option<Box<Events>>),
    Ended,
}

struct Events {
    body: Incoming,
    parser: Parser,
    /// Batches that came with the last bytes, the next one last.
    ready: Vec<Said>,
}

impl Follower {
    /// Reads a stream from somewhere on; with `key`, the records of that key only.
    #[must_use]
    pub fn new(stream: &Stream, from: From, key: Option<&str>, live: Live) -> Self {
        let state = State::Behind;
        let key = key.map(str::to_owned);
        Self { stream: stream.clone(), from, key, live, cursor: None, state, failures: 0 }
    }

    /// What comes next; `None` at the end. Dropping the call loses nothing.
    ///
    /// # Errors
    /// The stream is not there any more, or the server was away for longer than
    /// [`super::Patience`] allows. The next call tries again.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            let batch = match &mut self.state {
                State::Ended => return Ok(None),
                State::Behind => Some(self.page().await?),
                State::Waiting(_) if self.live == Live::LongPoll => Some(self.poll().await?),
                State::Waiting(None) => {
                    self.subscribe().await?;
                    None
                }
                State::Waiting(Some(events)) => match listen(events).await {
                    Ok(Some(said)) => Some(self.heard(said)),
                    // It ended, as all do after a while, or broke: on to the next one.
                    Ok(None) => {
                        self.state = State::Waiting(None);
                        None
                    }
                    Err(reason) => {
                        self.state = State::Waiting(None);
                        self.stumble(reason).await?;
                        None
                    }
                },
            };
            let Some(batch) = batch else { continue };
            self.from = From::Offset(batch.next.clone());
            if !batch.body.is_empty() {
                self.failures = 0;
            }
            if batch.closed {
                self.state = State::Ended;
            }
            return Ok(Some(batch));
        }
    }

    async fn page(&mut self) -> Result<Batch, Error> {
        let page = self.stream.page(&self.from, self.key.as_deref()).await?;
        // A server that does not say so has said all when it says nothing new.
        let stuck = matches!(&self.from, From::Offset(offset) if *offset == page.next);
        if page.up_to_date || stuck {
            self.state = match self.live {
                Live::No => State::Ended,
                Live::Sse | Live::LongPoll => State::Waiting(None),
            };
        }
        let Page { body, next, up_to_date, closed, .. } = page;
        Ok(Batch { body, next, up_to_date, closed })
    }

    fn live_call(&self, live: &str) -> Call {
        let From::Offset(offset) = &self.from else { unreachable!("a page came before") };
        let mut query = vec![("offset", offset.as_str()), ("live", live)];
        query.extend(self.cursor.as_deref().map(|cursor| ("cursor", cursor)));
        query.extend(self.key.as_deref().map(|key| ("key", key)));
        Call { extra: LONG_POLL_MAX, ..self.stream.get(&query) }
    }

    async fn poll(&mut self) -> Result<Batch, Error> {
        loop {
            let answer = self.stream.caller.call(&self.live_call("long-poll")).await?;
            self.cursor = answer.header(CURSOR).map(str::to_owned);
            match answer.status.as_u16() {
                200 => match read_page(answer).await {
                    Ok(Page { body, next, up_to_date, closed, .. }) => {
                        return Ok(Batch { body, next, up_to_date, closed });
                    }
                    Err(Error::BrokenOff { reason, .. }) => self.stumble(reason).await?,
                    Err(error) => return Err(error),
                },
                204 => return self.nothing_new(answer).await,
                _ => return Err(answer.into_error(&self.stream.name).await),
            }
        }
    }

    async fn nothing_new(&mut self, answer: Answer) -> Result<Batch, Error> {
        let next = answer.header(NEXT_OFFSET).map(str::to_owned);
        let closed = is_true(&answer.headers, "stream-closed");
        // There is no body to break off.
        drop(answer.read().await);
        let next = next.ok_or_else(|| Error::Strange("no Stream-Next-Offset".to_owned()))?;
        Ok(Batch { body: Bytes::new(), next, up_to_date: true, closed })
    }

    async fn subscribe(&mut self) -> Result<(), Error> {
        let answer = self.stream.caller.call(&self.live_call("sse")).await?;
        match answer.status.as_u16() {
            200 => {
                let encoding = match answer.header(SSE_ENCODING) {
                    Some("base64") => Encoding::Base64,
                    _ => Encoding::Plain,
                };
                let parser = Parser::new(encoding);
                let events = Events { body: answer.body, parser, ready: Vec::new() };
                self.state = State::Waiting(Some(Box::new(events)));
            }
            400 | 405 | 406 | 501 => self.live = Live::LongPoll,
            _ => return Err(answer.into_error(&self.stream.name).await),
        }
        Ok(())
    }

    fn heard(&mut self, said: Said) -> Batch {
        let Said { body, next, cursor, up_to_date, closed } = said;
        self.cursor = cursor.or_else(|| self.cursor.take());
        Batch { body, next, up_to_date, closed }
    }

    /// Waits a little after a connection broke; gives up after too many in a row.
    async fn stumble(&mut self, reason: String) -> Result<(), Error> {
        self.failures += 1;
        self.stream.caller.tell(Some(reason.clone()));
        if self.failures > FAILURES_MAX {
            self.failures = 0;
            return Err(Error::Unreachable {
                server: self.stream.caller.target.to_string(),
                reason,
            });
        }
        tokio::time::sleep(self.stream.caller.pause(self.failures)).await;
        Ok(())
    }
}

/// Broken connections in a row without a record between them.
const FAILURES_MAX: u32 = 20;

/// The next batch of an event stream; `None` if it has ended.
async fn listen(events: &mut Events) -> Result<Option<Said>, String> {
    loop {
        if let Some(said) = events.ready.pop() {
            return Ok(Some(said));
        }
        let frame = tokio::time::timeout(SILENCE_MAX, Pin::new(&mut events.body).frame()).await;
        let frame = frame.map_err(|_| format!("silence for {SILENCE_MAX:?}"))?;
        let Some(frame) = frame else { return Ok(None) };
        let Ok(bytes) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        let taken = events.parser.take(&bytes, &mut events.ready);
        taken.map_err(|error| error.to_string())?;
        events.ready.reverse();
    }
}
