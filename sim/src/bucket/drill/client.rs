//! The client of a drill: one request at a time, each noted in the truth before it is sent, so that
//! what a machine died over is known to be in doubt.

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::time::Duration;
use weir_engine::{
    Engine,
    request::{
        Append, AppendOutcome, Appended, Create, CreateOutcome, Error, Fork, From, List, Page,
        Read, Rejection,
    },
    types::{Closing, ContentType, Epoch, Offset, ProducerId, ProducerTuple, Seq, StreamName},
};

use super::{
    Drill,
    truth::{Place, Seen, State, Stream},
};
use crate::{
    checks::{self, Breach},
    require,
};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Offsets that are tried after a start.
const TOKENS_MAX: usize = 120;
/// Bytes of a record.
const RECORD_BYTES: usize = 8;

type Checked = Result<(), Breach>;

/// A client and the store it talks to.
pub(super) struct Client<'a> {
    drill: &'a Drill,
    engine: Engine,
}

fn name(text: &str) -> StreamName {
    StreamName::new(text).expect("a good name")
}

fn content() -> ContentType {
    ContentType::parse("text/plain").expect("a good type")
}

fn offset((epoch, position): (u32, u64)) -> Offset {
    Offset { epoch: Epoch::new(epoch), next: Seq::new(position) }
}

fn parts(offset: Offset) -> (u32, u64) {
    (offset.epoch.get(), offset.next.get())
}

fn body(record: u32) -> Bytes {
    format!("{record:0RECORD_BYTES$}").into()
}

/// Whether an answer to a read says that an offset means this.
fn is_answer(stream: &Stream, place: Place, said: &Result<Page, Error>) -> bool {
    match (place, said) {
        (Place::Lost(next), Err(Error::Rejected(Rejection::OffsetLost { next: told }))) => {
            parts(*told) == stream.offset(next)
        }
        (Place::At(at), Ok(page)) => page.start.next.get() == at && !page.beyond_tail,
        _ => false,
    }
}

fn records(page: &Page) -> Result<Vec<u32>, Breach> {
    let bytes = page.pieces.concat();
    let number = |chunk: &[u8]| std::str::from_utf8(chunk).ok()?.parse().ok();
    match bytes.chunks(RECORD_BYTES).map(number).collect() {
        Some(numbers) => Ok(numbers),
        None => Breach::of(checks::SENT, "a page shows what nobody sent"),
    }
}

impl<'a> Client<'a> {
    pub(super) const fn new(drill: &'a Drill, engine: Engine) -> Self {
        Self { drill, engine }
    }

    pub(super) async fn close(&self) {
        self.engine.close().await;
    }

    fn record(&self) -> u32 {
        let record = self.drill.sent.get() + 1;
        self.drill.sent.set(record);
        record
    }

    fn stream(&self, stream: &str) -> Option<Stream> {
        self.drill.truth.borrow().now().get(stream).cloned()
    }

    async fn page(&self, stream: &str, from: From, bytes_max: usize) -> Result<Page, Error> {
        self.engine.read(Read { name: name(stream), from, key: None, bytes_max }).await
    }

    /// Looks at everything there is.
    async fn look(&self) -> Result<Seen, Breach> {
        let list = List { limit: 1000, ..List::default() };
        let rows = match self.engine.list(list).await {
            Ok(rows) => rows,
            Err(error) => return Breach::of(checks::SERVES, format!("no list: {error}")),
        };
        let mut seen = Seen::new();
        for row in rows {
            let text = row.head.name.as_str();
            let page = match self.page(text, From::Start, 64 << 20).await {
                Ok(page) => page,
                Err(error) => return Breach::of(checks::SERVES, format!("'{text}': {error}")),
            };
            let found = (parts(page.tail), records(&page)?, page.closed);
            let whole = page.up_to_date && page.tail == row.head.next;
            require!(whole, checks::LISTED, "'{text}' is {page:?}, listed as {:?}", row.head);
            seen.insert(text.to_owned(), found);
        }
        Ok(seen)
    }

    /// After a start: what is there is what there was, or one whole state of before.
    pub(super) async fn came_back(&self) -> Checked {
        let seen = self.look().await?;
        let told = self.engine.server_details().publishing.map_or(0, |it| it.recoveries);
        let Some(recoveries) = self.drill.recovered.take() else {
            return self.drill.truth.borrow_mut().restarted(&seen);
        };
        require!(
            recoveries == told || recoveries == u32::MAX,
            checks::RECOVERED,
            "recovered for the {recoveries}th time, and the store says {told}"
        );
        let state = self.state(&seen, told).await?;
        let lost = self.drill.truth.borrow_mut().recovered(state, &seen, told)?;
        self.drill.note(&format!("{lost} requests are lost"));
        if lost > 0 {
            weir_io::sometimes!("a drill lost what was not published");
        }
        self.retry().await
    }

    /// Which of the states that look like what came back it is: the newest of those in which every
    /// offset that was ever told means what the store says. If there is none, the newest, and the
    /// offset is named later.
    async fn state(&self, seen: &Seen, recoveries: u32) -> Result<(usize, State), Breach> {
        let mut alike = self.drill.truth.borrow().alike(seen, recoveries)?;
        if alike.len() > 1 {
            for at in 0..alike.len() {
                if self.means(&alike[at].1).await {
                    return Ok(alike.swap_remove(at));
                }
            }
        }
        Ok(alike.swap_remove(0))
    }

    /// Whether every offset that was ever told means in a state what the store says.
    async fn means(&self, state: &State) -> bool {
        let tokens = self.drill.truth.borrow().tokens();
        for (text, token) in tokens {
            let Some(stream) = state.get(&text) else { continue };
            let said = self.page(&text, From::At(offset(token)), RECORD_BYTES).await;
            if !is_answer(stream, stream.place(token), &said) {
                return false;
            }
        }
        true
    }

    /// Producers repeat what was kept, which is a duplicate, and go on, which is not.
    async fn retry(&self) -> Checked {
        let streams = self.drill.truth.borrow().now().clone();
        for (text, stream) in streams.iter().filter(|(_, stream)| !stream.closed) {
            if let Some((epoch, seq, record)) = stream.producer {
                self.duplicate(text, (epoch, seq), record).await?;
            }
            self.produce(text).await?;
            let Some((epoch, seq, record)) = self.stream(text).and_then(|it| it.producer) else {
                continue;
            };
            self.duplicate(text, (epoch, seq), record).await?;
        }
        Ok(())
    }

    async fn duplicate(&self, text: &str, (epoch, seq): (u64, u64), record: u32) -> Checked {
        let said = self.engine.append(produced(text, (epoch, seq), record)).await;
        let duplicate = said.as_ref().is_ok_and(|it| it.outcome == AppendOutcome::Duplicate);
        let busy = matches!(said, Err(Error::Busy | Error::Backlogged));
        require!(
            duplicate || busy,
            checks::RECOVERED,
            "'{text}' has {epoch}.{seq} as record {record}, and the same again is {said:?}"
        );
        Ok(())
    }

    /// Offsets that were ever told mean what they meant, or are lost.
    pub(super) async fn tokens(&self, c: &mut ChaCha8Rng) -> Checked {
        let tokens = self.drill.truth.borrow().tokens();
        let skip = tokens.len().saturating_sub(TOKENS_MAX);
        let skip = c.random_range(0..=skip);
        for (text, token) in tokens.into_iter().skip(skip).take(TOKENS_MAX) {
            self.token(&text, token).await?;
        }
        Ok(())
    }

    async fn token(&self, text: &str, token: (u32, u64)) -> Checked {
        let said = self.page(text, From::At(offset(token)), RECORD_BYTES).await;
        let broken = |expected: &str| {
            let what = format!("{token:?} of '{text}' is {expected}, and the answer is {said:?}");
            Breach::of(checks::RECOVERED, what)
        };
        let Some(stream) = self.stream(text) else {
            let none = matches!(said, Err(Error::Rejected(Rejection::NotFound)));
            return if none { Ok(()) } else { broken("of a stream that is not there") };
        };
        let place = stream.place(token);
        if !is_answer(&stream, place, &said) {
            return broken(&format!("{place:?}"));
        }
        match (place, &said) {
            (Place::At(at), Ok(page)) => {
                let shown = records(page)?;
                let index = usize::try_from(at).expect("drills are short");
                let expected = stream.records.get(index);
                if shown.first() != expected {
                    return broken(&format!("record {expected:?}"));
                }
                match shown.first() {
                    Some(record) => self.drill.truth.borrow_mut().shown((text, token), *record),
                    None => Ok(()),
                }
            }
            _ => {
                weir_io::sometimes!("an offset of a lost range was named as lost");
                Ok(())
            }
        }
    }

    /// Some requests.
    pub(super) async fn work(&self, c: &mut ChaCha8Rng) -> Checked {
        for _ in 0..c.random_range(1..25) {
            let text = NAMES[c.random_range(0..NAMES.len())];
            match (self.stream(text), c.random_range(0..12)) {
                (None, 0..=7) => self.create(text).await?,
                (None, _) => self.fork(text, c).await?,
                (Some(_), 0) if c.random_bool(0.3) => self.end(text).await?,
                (Some(stream), 1) if c.random_bool(0.5) => self.delete(text, &stream).await?,
                (Some(stream), 2..=4) if !stream.closed => self.produce(text).await?,
                (Some(stream), 5..=6) => self.read(text, &stream, c).await?,
                (Some(stream), _) if !stream.closed => {
                    self.append(text, Closing::KeepOpen).await?;
                }
                (Some(_), _) => {}
            }
            tokio::time::sleep(Duration::from_millis(c.random_range(0..800))).await;
        }
        Ok(())
    }

    /// Notes how a request ended; `None` if it was not taken.
    fn answered<T>(&self, what: &str, answer: Result<T, Error>) -> Result<Option<T>, Breach> {
        let mut truth = self.drill.truth.borrow_mut();
        match answer {
            Ok(value) => {
                truth.done();
                Ok(Some(value))
            }
            Err(Error::Busy | Error::Backlogged) => {
                truth.undone();
                Ok(None)
            }
            Err(error) => Breach::of(checks::SERVES, format!("{what} is refused: {error}")),
        }
    }

    async fn create(&self, text: &str) -> Checked {
        let fresh = |state: &mut super::truth::State| {
            state.insert(text.to_owned(), Stream::default());
        };
        self.drill.truth.borrow_mut().begin(fresh);
        let answer = self.engine.create(Create::new(name(text), content())).await;
        let Some(created) = self.answered("a creation", answer)? else { return Ok(()) };
        let new = created.outcome == CreateOutcome::New;
        require!(new, checks::RECOVERED, "'{text}' is not there, and the answer is {created:?}");
        let (epoch, next) = parts(created.head.next);
        let mut truth = self.drill.truth.borrow_mut();
        truth.correct(text, |stream| stream.lineage = vec![(epoch, 0)]);
        truth.born(text, epoch)?;
        truth.tell(text, (epoch, next));
        Ok(())
    }

    async fn fork(&self, text: &str, c: &mut ChaCha8Rng) -> Checked {
        let source = NAMES[c.random_range(0..NAMES.len())];
        let Some(of) = self.stream(source) else { return Ok(()) };
        let at = c.random_range(0..=of.tail());
        let era = self.drill.truth.borrow().recoveries;
        let fork = of.forked(source, at, era);
        self.drill.truth.borrow_mut().begin(|state| {
            state.insert(text.to_owned(), fork);
        });
        let point = offset(of.offset(at));
        let fork = Fork { source: name(source), at: Some(point), sub_offset: 0 };
        let create = Create { fork: Some(fork), ..Create::new(name(text), content()) };
        let answer = self.engine.create(create).await;
        let Some(created) = self.answered("a fork", answer)? else { return Ok(()) };
        let (epoch, next) = parts(created.head.next);
        require!(next == at, checks::FORKED, "'{text}' forks '{source}' at {next}, not at {at}");
        // It counts on under its source's epochs, or under one of its own from the start.
        let first = match self.page(text, From::Start, RECORD_BYTES).await {
            Ok(page) => page.start.epoch.get(),
            Err(error) => return Breach::of(checks::SERVES, format!("'{text}': {error}")),
        };
        let mut truth = self.drill.truth.borrow_mut();
        if first == epoch {
            truth.correct(text, |stream| stream.lineage = vec![(epoch, 0)]);
        }
        let shared = truth.now()[text].newest();
        require!(shared == epoch, checks::EPOCHS, "'{text}' is of epoch {epoch}, not {shared}");
        truth.born(text, epoch)?;
        truth.tell(text, (epoch, next));
        Ok(())
    }

    async fn append(&self, text: &str, closing: Closing) -> Checked {
        let record = self.record();
        self.drill.truth.borrow_mut().begin(|state| {
            let stream = state.get_mut(text).expect("it is there");
            stream.records.push(record);
            stream.closed |= closing == Closing::Close;
        });
        let append = Append { closing, ..Append::new(name(text), content(), body(record)) };
        let answer = self.engine.append(append).await;
        let appended = self.answered("an append", answer)?;
        self.written(text, appended)
    }

    async fn end(&self, text: &str) -> Checked {
        if self.stream(text).is_some_and(|stream| stream.closed) {
            return Ok(());
        }
        self.append(text, Closing::Close).await
    }

    async fn produce(&self, text: &str) -> Checked {
        let record = self.record();
        let before = self.stream(text).and_then(|stream| stream.producer);
        let (epoch, seq) = before.map_or((0, 0), |(epoch, seq, _)| (epoch, seq + 1));
        self.drill.truth.borrow_mut().begin(|state| {
            let stream = state.get_mut(text).expect("it is there");
            stream.records.push(record);
            stream.producer = Some((epoch, seq, record));
        });
        let answer = self.engine.append(produced(text, (epoch, seq), record)).await;
        let appended = self.answered("a producer's append", answer)?;
        self.written(text, appended)
    }

    /// An append was answered: the tail is where it should be.
    fn written(&self, text: &str, appended: Option<Appended>) -> Checked {
        let Some(appended) = appended else { return Ok(()) };
        let stream = self.stream(text).expect("it is there");
        let expected = stream.offset(stream.tail());
        let told = parts(appended.next);
        require!(
            appended.outcome == AppendOutcome::Written && told == expected,
            checks::RECOVERED,
            "'{text}' should end at {expected:?} now, and the answer is {appended:?}"
        );
        self.drill.truth.borrow_mut().tell(text, told);
        Ok(())
    }

    /// Deletes a stream that no fork needs.
    async fn delete(&self, text: &str, _: &Stream) -> Checked {
        let needed = |stream: &Stream| stream.source.as_deref() == Some(text);
        if self.drill.truth.borrow().now().values().any(needed) {
            return Ok(());
        }
        self.drill.truth.borrow_mut().begin(|state| drop(state.remove(text)));
        let answer = self.engine.delete(&name(text)).await;
        self.answered("a deletion", answer).map(drop)
    }

    /// Reads a page from some position, and is told where it ends.
    async fn read(&self, text: &str, stream: &Stream, c: &mut ChaCha8Rng) -> Checked {
        let at = c.random_range(0..=stream.tail());
        let from = stream.offset(at);
        let bytes_max = RECORD_BYTES * c.random_range(1..6_usize);
        let page = match self.page(text, From::At(offset(from)), bytes_max).await {
            Ok(page) => page,
            Err(error) => return Breach::of(checks::SERVES, format!("'{text}': {error}")),
        };
        let mut truth = self.drill.truth.borrow_mut();
        truth.tell(text, parts(page.next));
        match records(&page)?.first() {
            Some(record) if from != (0, 0) => truth.shown((text, from), *record),
            _ => Ok(()),
        }
    }
}

fn produced(text: &str, (epoch, seq): (u64, u64), record: u32) -> Append {
    let id = ProducerId::new("a-producer").expect("a good id");
    let producer = Some(ProducerTuple { id, epoch, seq });
    Append { producer, ..Append::new(name(text), content(), body(record)) }
}
