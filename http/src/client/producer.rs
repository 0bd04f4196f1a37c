//! Appends that are carried out exactly once, over lost answers and restarts of this process.
//!
//! The server keeps for each producer the number of its last request. A request with a number that
//! it has already is acknowledged and not carried out again, so one whose answer was lost is
//! simply sent again. Nothing is sent only to ask: a server that knows no producers would store the
//! question. It is found out by what the first request is answered.

use bytes::Bytes;
use hyper::{
    Method,
    header::{CONTENT_TYPE, HeaderValue},
};

use super::{
    call::{Call, Repeat},
    error::Error,
    names::{CLOSED, KEY, PRODUCER_EPOCH, PRODUCER_ID, PRODUCER_SEQ},
    stream::{Position, Stream, header},
};

/// Epochs that are tried to find the one in force.
const EPOCHS_MAX: usize = 3;

/// A producer of one stream.
pub struct Producer {
    stream: Stream,
    content_type: HeaderValue,
    id: HeaderValue,
    /// `Stream-Key` of all its records.
    key: Option<HeaderValue>,
    epoch: u64,
    next: u64,
    /// The server has said something of this producer.
    met: bool,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was carried out.
    Now(Position),
    /// The server had it already, and all others up to the number `last`.
    Before {
        /// Number of the last request that was carried out.
        last: u64,
        /// Where the stream ends.
        position: Position,
    },
}

impl Producer {
    /// The producer of this id, of whose requests the first `done` are not sent.
    ///
    /// # Errors
    /// The type or the id can't stand in a header.
    pub fn new(stream: &Stream, content_type: &str, id: &str, done: u64) -> Result<Self, Error> {
        let (content_type, id) = (header(content_type)?, header(id)?);
        let stream = stream.clone();
        Ok(Self { stream, content_type, id, key: None, epoch: 0, next: done, met: false })
    }

    /// With a key for its records, on servers that have keys.
    ///
    /// # Errors
    /// It can't stand in a header.
    pub fn with_key(mut self, key: Option<&str>) -> Result<Self, Error> {
        self.key = key.map(header).transpose()?;
        Ok(self)
    }

    /// Number of the next request, from 0.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Leaves out the next request: the server has it.
    pub const fn pass(&mut self) {
        self.next += 1;
    }

    /// Carries out the next request. An empty body is allowed to one that closes the stream.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::OutOfSequence`]: another process uses this id.
    /// [`Error::NoProducers`]: the request was appended, and would be again. After any other error
    /// the same request can be given again.
    pub async fn append(&mut self, body: Bytes, closed: bool) -> Result<Done, Error> {
        let mut epochs = 0;
        let done = loop {
            match self.post(body.clone(), closed).await {
                // Whoever used this id before has begun anew so often.
                Err(Error::Fenced { epoch }) if !self.met && epochs < EPOCHS_MAX => {
                    self.epoch = epoch;
                    epochs += 1;
                }
                done => break done?,
            }
        };
        self.met = true;
        self.next += 1;
        Ok(done)
    }

    async fn post(&self, body: Bytes, closed: bool) -> Result<Done, Error> {
        let mut headers = vec![
            (CONTENT_TYPE, self.content_type.clone()),
            (PRODUCER_ID, self.id.clone()),
            (PRODUCER_EPOCH, self.epoch.into()),
            (PRODUCER_SEQ, self.next.into()),
        ];
        let appends = !body.is_empty();
        if let (Some(key), true) = (&self.key, appends) {
            headers.push((KEY, key.clone()));
        }
        if closed {
            headers.push((CLOSED, HeaderValue::from_static("true")));
        }
        let number = self.next;
        let get = self.stream.get(&[]);
        let call = Call { method: Method::POST, headers, body, repeat: Repeat::Safe, ..get };
        let answer = self.stream.caller.call(&call).await?;
        let doubts = answer.doubts > 0;
        let last: Option<u64> =
            answer.header(PRODUCER_SEQ.as_str()).and_then(|text| text.parse().ok());
        let repeated = appends && answer.status.as_u16() == 204;
        let position = self.stream.position(answer).await?;
        match last {
            // A server without producers ignores their headers.
            None if appends => Err(Error::NoProducers),
            // An earlier attempt of this call did it, whose answer was lost.
            Some(last) if repeated && last == number && doubts => Ok(Done::Now(position)),
            Some(last) if repeated => Ok(Done::Before { last, position }),
            _ => Ok(Done::Now(position)),
        }
    }
}
