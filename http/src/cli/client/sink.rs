//! What takes the bodies of an input, in order, and knows which of them are stored.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde_json::json;

use super::{
    Context,
    cut::{Body, Mark, Place},
    exit::Told,
    journal::{Journal, Resume},
    once::{DIFFERS, Once, Sent},
    output::Form,
    progress::{self, Progress},
    so_far::SoFar,
};
use crate::client::{Append, Error, Producer, Stream};

/// What comes in, and how it is to be stored.
#[derive(Clone, Debug)]
pub(super) struct Source<'a> {
    /// Key of its records.
    pub(super) key: Option<String>,
    /// Who appends it exactly once. Without a name a lost answer leaves a doubt.
    pub(super) producer: Option<&'a str>,
    /// Its bytes, if they are known.
    pub(super) total: Option<u64>,
    /// The stream was made for it just now: nothing of it can be there.
    pub(super) into_new: bool,
}

/// A body of so many bytes may be too large for a proxy: the smallest bound they have by default.
const LARGE_BYTES: u64 = 1 << 20;

/// What takes the bodies.
pub(super) struct Sink {
    stream: Stream,
    content_type: String,
    key: Option<String>,
    once: Option<Once>,
    /// What of the input is passed over, or was cut.
    place: Place,
    /// The input is cut into lines.
    is_cut: bool,
    /// The last byte that was passed over in this file is no line break.
    within_line: bool,
    progress: Progress,
    so_far: SoFar,
    requests: u64,
    skipped: u64,
    /// Lines and bytes that an earlier process has appended.
    lines_before: u64,
    bytes_before: u64,
    lines: u64,
    bytes: u64,
    tail: String,
    /// The file that is stored in part, and how many of its lines are.
    far: Option<(String, u64)>,
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
        source: Source<'_>,
    ) -> anyhow::Result<Self> {
        let once = match source.producer {
            None => None,
            Some(id) => {
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
                let (journal, known) = opened;
                // A server that does not say when a stream was made may have had another one of
                // this name.
                let resume = match source.into_new && known != Resume::default() {
                    true => {
                        journal.clear().await?;
                        Resume::default()
                    }
                    false => known,
                };
                let done = resume.base.as_ref().map_or(0, |slot| slot.requests);
                let producer = Producer::new(stream, &content_type, id, done)?;
                Some(Once::new(producer, journal, resume))
            }
        };
        Ok(Self {
            stream: stream.clone(),
            content_type,
            key: source.key,
            skipped: once.as_ref().map_or(0, Once::before),
            once,
            place: Place::start(),
            is_cut: false,
            within_line: false,
            progress: Progress::new(source.total),
            so_far: context.so_far.clone(),
            requests: 0,
            lines_before: 0,
            bytes_before: 0,
            lines: 0,
            bytes: 0,
            tail: String::new(),
            far: None,
        })
    }

    /// What comes is lines.
    pub(super) const fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Begins with the next file.
    pub(super) fn next_input(&mut self) {
        self.within_line = false;
        self.far = None;
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
            self.lines_before += wide(memchr::memchr_iter(b'\n', passed).count());
            self.bytes_before += wide(passed.len());
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
        let uncut = lines == 0 && Form::of(&self.content_type) == Form::Json;
        let advice = uncut.then(|| match bytes.trim_ascii().contains(&b'\n') {
            true => "one message a line? use --ndjson",
            false => "a message is JSON: text stands in quotes, or in a stream of --type text",
        });
        let sent = match (self.send(bytes, mark).await, advice) {
            (Err(error), _) if length >= LARGE_BYTES && is_lost(&error) => {
                Err(error.context(Told { what: what(), advice: too_large(length) }))
            }
            (Err(error), Some(advice)) if is_no_json(&error) => {
                Err(error.context(Told { what: what(), advice: advice.to_owned() }))
            }
            (sent, _) => sent.with_context(what),
        };
        match sent? {
            Sent::Now(position) => {
                self.tail = position.tail;
                self.requests += 1;
                self.lines += lines;
                self.bytes += length;
                self.progress.add(consumed);
                self.so_far.appended(self.requests, self.lines, self.bytes, &self.tail);
            }
            Sent::Before => {
                self.skipped += 1;
                self.lines_before += lines;
                self.bytes_before += consumed;
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

    /// So many lines of this file are stored.
    pub(super) fn came_to(&mut self, file: &str, lines: u64) {
        self.far = Some((file.to_owned(), lines));
    }

    /// What is stored of an input that did not come to its end, and how to go on without storing
    /// it twice.
    pub(super) fn how_far(&self) -> Option<String> {
        let (file, lines) = self.far.as_ref()?;
        let next = lines + 1;
        let (file, rest) = match file.as_str() {
            "standard input" => (file.clone(), format!("begin with line {next}")),
            file => (file.to_owned(), format!("`tail -n +{next} {file}` is the rest")),
        };
        Some(format!(
            "{lines} lines of {file} are appended; the same command again appends them twice: \
             {rest}, or next time use --producer-id, which goes on by itself"
        ))
    }

    /// Whether there was nothing in the input.
    pub(super) const fn is_empty(&self) -> bool {
        self.place.bytes() == 0
    }

    /// Makes room for words on the terminal.
    pub(super) fn clear_progress(&mut self) {
        self.progress.clear();
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
            let what = match self.is_cut {
                true => format!("{} lines", self.lines_before),
                false => format!("{} bytes", self.bytes_before),
            };
            context.note(&format!(
                "{what} of this input were appended before and are not appended again"
            ));
        }
        if self.tail.is_empty() {
            // All of it was there already: where that ends, the stream says.
            match self.stream.head().await {
                Ok(info) => self.tail = info.tail,
                Err(error) => context.note(&format!("where it ends is not known: {error}")),
            }
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

/// Whether a server refused a body as such.
fn is_no_json(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Refused { status: 400, .. }))
}

/// Whether the connection broke before there was an answer.
fn is_lost(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Unknown { .. } | Error::Unreachable { .. }))
}

/// Said of a large body with which a connection broke.
fn too_large(bytes: u64) -> String {
    format!(
        "it had {}: a proxy that takes no request of this size may hang up instead of saying so; \
         send less at a time, by --ndjson or --lines with a smaller --batch. The stream's end says \
         whether it was appended: `weir head`",
        progress::bytes(bytes)
    )
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).expect("a length fits")
}
