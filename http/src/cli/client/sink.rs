//! What takes the bodies of an input, in order, and knows which of them are stored.

use anyhow::bail;
use bytes::Bytes;
use serde_json::json;

use super::{
    Context,
    again::Far,
    cut::{Body, Mark, Place},
    journal::{Journal, Resume},
    numbers::Numbers,
    once::{DIFFERS, Once, Sent},
    output::Form,
    progress::Progress,
    refused,
};
use crate::client::{Append, Create, Error, Producer, Stream};

/// What comes in, and how it is to be stored.
#[derive(Clone, Debug)]
pub(super) struct Source<'a> {
    /// Key of its records.
    pub(super) key: Option<String>,
    /// Who appends it.
    pub(super) by: By<'a>,
    /// Its bytes, if they are known.
    pub(super) total: Option<u64>,
}

/// Who appends an input.
#[derive(Clone, Copy, Debug)]
pub(super) enum By<'a> {
    /// Nobody with a name: a lost answer leaves a doubt.
    Anybody,
    /// A producer, exactly once: this machine remembers how far it has come.
    Producer(&'a str),
    /// A producer whose messages are numbered by whoever appends them, exactly once.
    Numbers { id: &'a str, first: u64 },
}

/// The stream of an input.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    pub(super) content_type: String,
    /// One that is not is made with the first request: who waits for input has made nothing.
    pub(super) is_there: bool,
}

/// A stream that this process has made: another one of its name, or with more in it, is not its.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    made: Option<String>,
    tail: String,
}

/// What an earlier process may have appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    /// What its journal says.
    Counts,
    /// Nothing: the stream was not there.
    Nothing,
    /// What the beginning of this input was not compared with.
    Unseen,
}

/// What takes the bodies.
pub(super) struct Sink<'a> {
    context: &'a Context,
    stream: Stream,
    goal: Goal,
    key: Option<String>,
    producer: Option<&'a str>,
    once: Option<Once>,
    numbers: Option<Numbers>,
    own: Option<Own>,
    /// What of the input is passed over, or was cut.
    place: Place,
    /// The input is cut into lines.
    is_cut: bool,
    /// The last byte that was passed over in this file is no line break.
    within_line: bool,
    progress: Progress,
    requests: u64,
    skipped: u64,
    /// Lines and bytes that an earlier process has appended.
    lines_before: u64,
    bytes_before: u64,
    lines: u64,
    bytes: u64,
    tail: String,
    far: Far,
}

impl<'a> Sink<'a> {
    /// A sink for a stream. Nothing is sent yet.
    ///
    /// # Errors
    /// Another process works with this producer, or its memory can't be used.
    pub(super) async fn open(
        context: &'a Context,
        stream: &Stream,
        goal: Goal,
        source: Source<'a>,
    ) -> anyhow::Result<Self> {
        let key = source.key;
        let (producer, numbers) = match source.by {
            By::Anybody => (None, None),
            By::Producer(id) => (Some(id), None),
            By::Numbers { id, first } => {
                let producer = Producer::new(stream, &goal.content_type, id, first)?;
                (None, Some(Numbers::new(producer.with_key(key.as_deref())?, id)))
            }
        };
        let mut sink = Self {
            context,
            stream: stream.clone(),
            goal,
            key,
            producer,
            skipped: 0,
            once: None,
            numbers,
            own: None,
            place: Place::start(),
            is_cut: false,
            within_line: false,
            progress: Progress::new(source.total),
            requests: 0,
            lines_before: 0,
            bytes_before: 0,
            lines: 0,
            bytes: 0,
            tail: String::new(),
            far: Far::default(),
        };
        if let (Some(id), true) = (sink.producer, sink.goal.is_there) {
            let made = stream.known().await?.made;
            sink.begin(id, made, Past::Counts).await?;
        }
        Ok(sink)
    }

    /// Looks up what the producer has done in this stream.
    async fn begin(&mut self, id: &str, made: Option<String>, past: Past) -> anyhow::Result<()> {
        let context = self.context;
        let Some(directory) = &context.state else {
            bail!("nobody says where to remember what is done: set HOME or WEIR_STATE_DIR")
        };
        // Another stream of the same name knows nothing of this producer, and a server may have
        // several URLs.
        let mut of = match made {
            Some(made) => format!("{made} {}", self.stream.name()),
            None => format!("{}/{}", context.client.target(), self.stream.name()),
        };
        // The same records with another key are others.
        if let Some(key) = &self.key {
            of = format!("{of}\n{key}");
        }
        let (journal, known) = Journal::open(&context.world, directory, &of, id).await?;
        let resume = match past {
            Past::Counts => known,
            Past::Nothing if known == Resume::default() => known,
            // A server that does not say when a stream was made may have had another one of this
            // name.
            Past::Nothing => {
                journal.clear().await?;
                Resume::default()
            }
            Past::Unseen if known == Resume::default() => known,
            Past::Unseen => bail!(
                "{} was made meanwhile, and the producer {id} has appended to it: the same command \
                 again goes on behind that",
                self.stream.name()
            ),
        };
        let done = resume.base.as_ref().map_or(0, |slot| slot.requests);
        let producer = Producer::new(&self.stream, &self.goal.content_type, id, done)?;
        let producer = producer.with_key(self.key.as_deref())?;
        let once = Once::new(producer, journal, resume);
        self.skipped = once.before();
        self.once = Some(once);
        Ok(())
    }

    /// Makes the stream if it is not there.
    pub(super) async fn make(&mut self) -> anyhow::Result<()> {
        if self.goal.is_there {
            return Ok(());
        }
        let content_type = Some(self.goal.content_type.clone());
        let create = Create { content_type, ..Create::default() };
        let info = match self.stream.create(create).await {
            // Somebody else has made one meanwhile, which may live otherwise and take the same.
            Err(error @ Error::Conflict { .. }) => match self.stream.head().await {
                Ok(info) if info.content_type == self.goal.content_type => info,
                _ => return Err(error.into()),
            },
            made => made?,
        };
        self.goal.is_there = true;
        let known = self.stream.known().await;
        if let (true, Ok(known)) = (info.created, &known) {
            self.own = Some(Own { made: known.made.clone(), tail: info.tail });
        }
        if let Some(id) = self.producer {
            let past = if info.created || info.in_doubt { Past::Nothing } else { Past::Unseen };
            self.begin(id, known?.made, past).await?;
        }
        Ok(())
    }

    /// Whether the stream is there.
    pub(super) const fn is_there(&self) -> bool {
        self.goal.is_there
    }

    /// Deletes a stream that was made for an input of which nothing was stored, unless somebody
    /// else has begun to use it.
    pub(super) async fn take_back(&self, context: &Context) {
        let Some(own) = &self.own else { return };
        let name = self.stream.name();
        let now = match (self.stream.head().await, self.stream.known().await) {
            (Ok(info), Ok(known)) => Ok(Own { made: known.made, tail: info.tail }),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        let deleted = match now {
            // Who appends meanwhile keeps it, on servers that know the condition.
            Ok(now) if now == *own && !own.tail.is_empty() => {
                self.stream.delete_at(&own.tail).await
            }
            Ok(now) if now == *own => self.stream.delete().await,
            Ok(_) => Err(Error::Conflict { what: name.to_owned(), message: String::new() }),
            Err(error) => Err(error),
        };
        match deleted {
            Ok(()) => {}
            Err(Error::Conflict { .. }) => {
                context.note(&format!("{name} was made and stays: others append to it"));
            }
            Err(error) => context.note(&format!("{name} was made and stays: {error}")),
        }
    }

    /// What comes is lines.
    pub(super) const fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Begins with the next file.
    pub(super) fn next_input(&mut self) {
        self.lines_before += u64::from(self.within_line);
        self.within_line = false;
        self.far = Far::default();
        self.place.next_input();
    }

    /// Passes over what an earlier process has sent of these bytes and is stored for sure. Returns
    /// what is left of them.
    pub(super) fn pass<'p>(&mut self, piece: &'p [u8]) -> anyhow::Result<&'p [u8]> {
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
        self.make().await?;
        let Body { bytes, lines, consumed, mark, .. } = body;
        let length = wide(bytes.len());
        let is_message = lines == 0 && Form::of(&self.goal.content_type) == Form::Json;
        let advice = is_message.then(|| refused::no_message(&bytes));
        let sent = self.send(bytes, mark).await;
        match sent.map_err(|error| refused::explained(error, what(), length, advice))? {
            Sent::Now(position) => {
                self.tail = position.tail;
                self.requests += 1;
                self.lines += lines;
                self.bytes += length;
                self.progress.add(consumed);
                self.context.so_far.appended(self.requests, self.lines, self.bytes, &self.tail);
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
        if let Some(numbers) = &mut self.numbers {
            return numbers.send(body).await;
        }
        let (content_type, key) = (self.goal.content_type.as_str(), self.key.as_deref());
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
            content_type: &self.goal.content_type,
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
        self.far.stored = Some((file.to_owned(), lines));
    }

    /// The next request ends with this line of the file.
    pub(super) fn goes_to(&mut self, file: &str, line: u64) {
        self.far.sent = Some((file.to_owned(), line));
    }

    /// What is stored of an input that did not come to its end, and how to go on without storing
    /// it twice. Of a request whose answer was lost nobody knows.
    pub(super) fn how_far(&self, lost: bool) -> Option<String> {
        self.far.words(lost, self.stream.name())
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

    /// What of the input was appended before.
    fn before(&self) -> Option<String> {
        if self.skipped == 0 {
            return None;
        }
        if let Some(numbers) = &self.numbers {
            return numbers.before();
        }
        // The last line that was passed over may have no line break.
        let count = match self.is_cut {
            true => self.lines_before + u64::from(self.within_line),
            false => self.bytes_before,
        };
        let unit = if self.is_cut { "line" } else { "byte" };
        Some(match count {
            1 => format!("1 {unit} of this input was appended before and is not appended again"),
            _ => format!(
                "{count} {unit}s of this input were appended before and are not appended again"
            ),
        })
    }

    /// Says what was done.
    pub(super) async fn report(mut self, context: &Context) -> anyhow::Result<()> {
        self.progress.clear();
        if let Some(once) = &self.once {
            once.settle().await?;
        }
        if let Some(before) = self.before() {
            context.note(&before);
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

fn wide(count: usize) -> u64 {
    u64::try_from(count).expect("a length fits")
}
