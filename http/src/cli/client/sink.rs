//! What takes the bodies of an input, in order, and knows which of them are stored.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde_json::json;

use super::{
    Context,
    cut::{Body, Mark, Place},
    journal::Journal,
    once::{DIFFERS, Once, Sent},
    progress::Progress,
};
use crate::client::{Append, Error, Producer, Stream};

/// How often a request may be carried out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Times<'a> {
    /// Once, or nobody knows.
    Once,
    /// Exactly once: the producer's name is made of the whole input.
    Counted(&'a str),
    /// Exactly once: somebody named the producer.
    Named(&'a str),
}

/// What takes the bodies.
pub(super) struct Sink {
    stream: Stream,
    content_type: String,
    key: Option<String>,
    once: Option<Once>,
    /// What of the input is passed over, or was cut.
    place: Place,
    /// The last byte that was passed over in this file is no line break.
    within_line: bool,
    progress: Progress,
    requests: u64,
    skipped: u64,
    lines: u64,
    bytes: u64,
    tail: String,
}

impl Sink {
    /// A sink for a stream. Nothing is sent yet.
    ///
    /// # Errors
    /// Another process works with this producer, or its memory can't be used.
    pub(super) async fn open(
        context: &Context,
        stream: &Stream,
        content_type: String,
        key: Option<String>,
        times: Times<'_>,
        total: Option<u64>,
    ) -> anyhow::Result<Self> {
        let once = match times {
            Times::Once => None,
            Times::Counted(id) => Some(Once::counted(Producer::new(stream, &content_type, id, 0)?)),
            Times::Named(id) => {
                let Some(directory) = &context.state else {
                    bail!("nobody says where to remember what is done: set HOME or WEIR_STATE_DIR")
                };
                // Another stream of the same name knows nothing of this producer, and a server
                // may have several URLs.
                let of = match stream.known().await?.made {
                    Some(made) => format!("{made} {}", stream.name()),
                    None => format!("{}/{}", context.client.target(), stream.name()),
                };
                let opened = Journal::open(&context.world, directory, &of, id).await?;
                let (journal, resume) = opened;
                let done = resume.base.as_ref().map_or(0, |slot| slot.requests);
                let producer = Producer::new(stream, &content_type, id, done)?;
                Some(Once::remembered(producer, journal, resume))
            }
        };
        Ok(Self {
            stream: stream.clone(),
            content_type,
            key,
            skipped: once.as_ref().map_or(0, Once::before),
            once,
            place: Place::start(),
            within_line: false,
            progress: Progress::new(total),
            requests: 0,
            lines: 0,
            bytes: 0,
            tail: String::new(),
        })
    }

    /// Whether parts of the input may be sent as they come.
    pub(super) fn may_linger(&self) -> bool {
        self.once.as_ref().is_none_or(Once::may_linger)
    }

    /// Begins with the next file.
    pub(super) fn next_input(&mut self) {
        self.within_line = false;
        self.place.next_input();
    }

    /// Passes over what an earlier process has sent of these bytes and is stored for sure. Returns
    /// what is left of them.
    pub(super) fn pass<'a>(&mut self, piece: &'a [u8]) -> anyhow::Result<&'a [u8]> {
        let Some(base) = self.once.as_ref().and_then(Once::base) else { return Ok(piece) };
        let left = usize::try_from(base.bytes - self.place.bytes().min(base.bytes));
        let (passed, rest) = piece.split_at(piece.len().min(left.unwrap_or(usize::MAX)));
        if !passed.is_empty() {
            self.place.pass(passed);
            self.within_line = !passed.ends_with(b"\n");
            self.progress.skip(wide(passed.len()));
            self.check(base)?;
        }
        Ok(rest)
    }

    /// Whether what was passed over in this file ends with a line.
    pub(super) const fn is_at_line(&self) -> bool {
        !self.within_line
    }

    /// Passes over a whole file, if it was sent. False if it was not.
    pub(super) fn pass_whole(&mut self, file: &[u8]) -> anyhow::Result<bool> {
        let Some(base) = self.once.as_ref().and_then(Once::base) else { return Ok(false) };
        let left = base.bytes.saturating_sub(self.place.bytes());
        if left == 0 {
            return Ok(false);
        }
        if wide(file.len()) > left {
            bail!(DIFFERS);
        }
        self.pass(file)?;
        Ok(true)
    }

    /// Once all is passed over, it must be what was sent.
    fn check(&self, base: Mark) -> anyhow::Result<()> {
        if self.place.bytes() == base.bytes && self.place.mark() != base {
            bail!(DIFFERS);
        }
        Ok(())
    }

    /// Where the next body begins, and where it must end.
    pub(super) fn place(&self) -> (Place, Option<u64>) {
        (self.place.clone(), self.once.as_ref().and_then(Once::again))
    }

    /// The bodies end here.
    pub(super) fn reached(&mut self, place: Place) {
        self.place = place;
    }

    /// Appends a body, unless it was appended before; `what` says which it is.
    pub(super) async fn take(
        &mut self,
        body: Body,
        what: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let Body { bytes, lines, consumed, mark, .. } = body;
        let length = wide(bytes.len());
        match self.send(bytes, mark).await.with_context(what)? {
            Sent::Now(position) => {
                self.tail = position.tail;
                self.requests += 1;
                self.lines += lines;
                self.bytes += length;
                self.progress.add(consumed);
            }
            Sent::Before => {
                self.skipped += 1;
                self.progress.skip(consumed);
            }
        }
        Ok(())
    }

    async fn send(&mut self, body: Bytes, mark: Mark) -> anyhow::Result<Sent> {
        if let Some(once) = &mut self.once {
            return once.send(body, mark).await;
        }
        let (content_type, key) = (self.content_type.as_str(), self.key.as_deref());
        let append = Append { content_type, body, key, closed: false };
        Ok(Sent::Now(self.stream.append(append).await?))
    }

    /// There is no more of the input.
    ///
    /// # Errors
    /// An earlier process had more.
    pub(super) fn end(&self) -> anyhow::Result<()> {
        let Some(once) = &self.once else { return Ok(()) };
        let base = once.base().map_or(0, |base| base.bytes);
        if self.place.bytes() < base.max(once.again().unwrap_or(0)) {
            bail!(DIFFERS);
        }
        Ok(())
    }

    /// The stream must not be found closed.
    pub(super) fn must_be_open(&self) -> anyhow::Result<()> {
        if self.once.as_ref().is_some_and(Once::must_close) {
            let (what, tail) = (self.stream.name().to_owned(), self.tail.clone());
            return Err(Error::Closed { what, tail }.into());
        }
        Ok(())
    }

    /// Closes the stream behind all of the input.
    pub(super) async fn close(&mut self) -> anyhow::Result<Sent> {
        if let Some(once) = &mut self.once {
            return once.close(self.place.mark()).await;
        }
        let append = Append {
            content_type: &self.content_type,
            body: Bytes::new(),
            key: None,
            closed: true,
        };
        let done = self.stream.append(append).await?;
        self.tail.clone_from(&done.tail);
        Ok(Sent::Now(done))
    }

    /// Whether anything was appended.
    pub(super) const fn has_done(&self) -> bool {
        self.requests > 0
    }

    /// Says what was done.
    pub(super) async fn report(mut self, context: &Context) -> anyhow::Result<()> {
        self.progress.clear();
        if let Some(once) = &self.once {
            once.settle().await?;
        }
        if self.skipped > 0 {
            context.note(&format!(
                "{} requests of this input were appended before and are not appended again",
                self.skipped
            ));
        }
        let tail = (!self.tail.is_empty()).then_some(self.tail.as_str());
        let fact = json!({
            "requests": self.requests,
            "skipped": self.skipped,
            "lines": (self.lines > 0).then_some(self.lines),
            "bytes": self.bytes,
            "tail": tail,
        });
        context.output.fact(&fact, tail.unwrap_or("-"))
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).expect("a length fits")
}
