//! Appends that are carried out exactly once, over lost answers and restarts of this process.
//!
//! The server keeps for each producer the number of its last request. A request with a number that
//! it has already is acknowledged and not carried out again, so one whose answer was lost is
//! simply sent again. A process that comes back asks for the number and goes on behind it: the
//! same input, cut into the same requests, is stored once.

use bytes::Bytes;
use hyper::{
    Method,
    header::{CONTENT_TYPE, HeaderValue},
};

use super::{
    call::{Call, Repeat},
    error::Error,
    names::{CLOSED, PRODUCER_EPOCH, PRODUCER_ID, PRODUCER_SEQ},
    stream::{Position, Stream, header},
};

/// The highest number there can be: no request ever has it, so it finds out the next.
const SEQUENCE_MAX: u64 = (1 << 53) - 1;
/// Epochs that are tried to find the one in force.
const EPOCHS_MAX: usize = 3;

/// A producer of one stream.
pub struct Producer {
    stream: Stream,
    content_type: HeaderValue,
    id: HeaderValue,
    epoch: u64,
    next: u64,
}

impl Producer {
    /// Finds out how far the producer of this id has come. Nothing is written.
    ///
    /// # Errors
    /// The stream is not there, closed, or of another type; the id can't stand in a header.
    pub async fn resume(stream: &Stream, content_type: &str, id: &str) -> Result<Self, Error> {
        let mut producer = Self {
            stream: stream.clone(),
            content_type: header(content_type)?,
            id: header(id)?,
            epoch: 0,
            next: SEQUENCE_MAX,
        };
        for _ in 0..EPOCHS_MAX {
            // Never carried out: a producer's numbers have no gaps. It is well-formed in every
            // type, since servers look at that first.
            let probe = Bytes::from_static(b"[null]");
            match producer.post(probe, false).await {
                Err(Error::OutOfSequence { expected, .. }) => {
                    producer.next = expected;
                    return Ok(producer);
                }
                Err(Error::Fenced { epoch }) => producer.epoch = epoch,
                // Some servers say so of a producer that they have never seen.
                Err(Error::Refused { status: 400, .. }) => {
                    producer.next = 0;
                    return Ok(producer);
                }
                Err(error) => return Err(error),
                Ok(_) => {
                    return Err(Error::Strange("a number out of sequence was taken".to_owned()));
                }
            }
        }
        Err(Error::Fenced { epoch: producer.epoch })
    }

    /// How many requests of this producer have been carried out.
    #[must_use]
    pub const fn done(&self) -> u64 {
        self.next
    }

    /// Carries out the next request. An empty body is allowed to one that closes the stream.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::OutOfSequence`]: another process uses this id. After any error
    /// the same request can be given again.
    pub async fn append(&mut self, body: Bytes, closed: bool) -> Result<Position, Error> {
        let done = self.post(body, closed).await?;
        self.next += 1;
        Ok(done)
    }

    async fn post(&self, body: Bytes, closed: bool) -> Result<Position, Error> {
        let mut headers = vec![
            (CONTENT_TYPE, self.content_type.clone()),
            (PRODUCER_ID, self.id.clone()),
            (PRODUCER_EPOCH, self.epoch.into()),
            (PRODUCER_SEQ, self.next.into()),
        ];
        if closed {
            headers.push((CLOSED, HeaderValue::from_static("true")));
        }
        let repeat = Repeat::Safe;
        let get = self.stream.get(&[]);
        let call = Call { method: Method::POST, headers, body, repeat, ..get };
        let answer = self.stream.caller.call(&call).await?;
        self.stream.position(answer).await
    }
}
