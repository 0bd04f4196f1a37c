//! What the clients of a schedule do: each verb says what was asked and what was told, and keeps
//! the truth of its stream.

use std::time::Duration;

use bytes::Bytes;
use weir_engine::{
    request::{Append, AppendOutcome, Appended, Create, Error, Fork, From, Read},
    types::{
        ContentType, Epoch, Expiry, Form, Offset, ProducerId, ProducerTuple, Seq, StreamName,
        WallMs,
    },
};

use super::stage::{Fate, Life, Sent, Truth};
use crate::{
    checks::{self, Breach},
    require,
};

/// Bytes of one page: everything a schedule writes.
const PAGE_BYTES: usize = 1 << 20;

pub(super) fn named(text: &str) -> StreamName {
    StreamName::new(text).expect("the script uses good names")
}

fn typed(text: &str) -> ContentType {
    ContentType::parse(text).expect("the script uses good types")
}

impl Life {
    /// Makes a stream that lasts. JSON if its name says so, else text.
    pub(super) async fn create(&self, name: &str) {
        self.create_until(name, Expiry::Never).await;
    }

    /// Makes a stream that ends by itself.
    pub(super) async fn create_until(&self, name: &str, expiry: Expiry) {
        let content = if name.ends_with("json") { "application/json" } else { "text/plain" };
        let create = Create { expiry: Some(expiry), ..Create::new(named(name), typed(content)) };
        let asked = format!("create {name}");
        let answer = self.ask(&asked, self.engine().create(create)).await;
        if answer.is_ok() {
            self.scene.truths.borrow_mut().insert(name.to_owned(), Truth::default());
        }
        let told = answer.map(|created| format!("{:?}", created.outcome).to_lowercase());
        self.say(&format!("{asked}: {}", told.unwrap_or_else(|error| error.to_string())));
    }

    /// Makes a fork of everything that a stream has now.
    pub(super) async fn fork(&self, name: &str, source: &str) {
        let fork = Fork { source: named(source), at: None, sub_offset: 0 };
        let create = Create { fork: Some(fork), ..Create::new(named(name), None) };
        let asked = format!("fork {name} of {source}");
        let answer = self.ask(&asked, self.engine().create(create)).await;
        let told = match answer {
            Ok(created) => {
                let mut truths = self.scene.truths.borrow_mut();
                let mut truth = truths.get(source).cloned().unwrap_or_default();
                truth.sent.retain(|sent| sent.fate == Fate::Acked);
                truth.ended = false;
                truths.insert(name.to_owned(), truth);
                format!("{:?} at {}", created.outcome, shown(created.head.next)).to_lowercase()
            }
            Err(error) => error.to_string(),
        };
        self.say(&format!("{asked}: {told}"));
    }

    /// Ends a stream.
    pub(super) async fn delete(&self, name: &str) {
        let asked = format!("delete {name}");
        let answer = self.ask(&asked, self.engine().delete(&named(name))).await;
        if answer.is_ok() {
            self.ends(name);
        }
        let told = answer.map_or_else(|error| error.to_string(), |()| "deleted".to_owned());
        self.say(&format!("{asked}: {told}"));
    }

    /// From now on the stream is expected to be gone.
    pub(super) fn ends(&self, name: &str) {
        let mut truths = self.scene.truths.borrow_mut();
        truths.get_mut(name).expect("the script made it").ended = true;
    }

    /// Appends `count` new records in one request.
    pub(super) async fn append(&self, name: &str, count: u64) -> Result<Appended, Error> {
        self.send(name, count, None).await
    }

    /// Appends one new record as request `seq` of a producer.
    pub(super) async fn produce(&self, name: &str, seq: u64) -> Result<Appended, Error> {
        self.send(name, 1, Some(seq)).await
    }

    async fn send(&self, name: &str, count: u64, seq: Option<u64>) -> Result<Appended, Error> {
        let first = self.scene.counted.get();
        self.scene.counted.set(first + count);
        let records: Vec<u64> = (first..first + count).collect();
        self.note_sent(name, &records);
        let by = seq.map_or(String::new(), |seq| format!(" by p#{seq}"));
        let numbers: Vec<String> = records.iter().map(u64::to_string).collect();
        let asked = format!("append {name} [{}]{by}", numbers.join(" "));
        let append = request(name, &records, seq);
        let answer = self.ask(&asked, self.engine().append(append)).await;
        self.settle(name, &records, &answer);
        self.say(&format!("{asked}: {}", told(&answer)));
        answer
    }

    /// Repeats what a producer sent.
    pub(super) async fn repeat(&self, name: &str, record: u64, seq: u64) {
        let asked = format!("append {name} [{record}] by p#{seq} again");
        let append = request(name, &[record], Some(seq));
        let answer = self.ask(&asked, self.engine().append(append)).await;
        if answer.is_ok() {
            self.judge(name, &[record], Fate::Acked);
        }
        self.say(&format!("{asked}: {}", told(&answer)));
    }

    fn note_sent(&self, name: &str, records: &[u64]) {
        let boot = self.scene.sim.boots();
        let mut truths = self.scene.truths.borrow_mut();
        let truth = truths.entry(name.to_owned()).or_default();
        truth.sent.extend(records.iter().map(|number| Sent {
            number: *number,
            fate: Fate::Open,
            boot,
        }));
    }

    fn settle(&self, name: &str, records: &[u64], answer: &Result<Appended, Error>) {
        let fate = match answer {
            Ok(_) => Fate::Acked,
            Err(Error::Unknown) => Fate::Open,
            Err(_) => Fate::Absent,
        };
        self.judge(name, records, fate);
    }

    fn judge(&self, name: &str, records: &[u64], fate: Fate) {
        let mut truths = self.scene.truths.borrow_mut();
        let truth = truths.entry(name.to_owned()).or_default();
        for sent in truth.sent.iter_mut().filter(|sent| records.contains(&sent.number)) {
            sent.fate = fate;
        }
    }

    /// Reads a stream whole and compares it with what was acked.
    pub(super) async fn read(&self, name: &str) -> String {
        match self.whole(name).await {
            Ok(numbers) => {
                let checked = self.compare(name, &numbers);
                self.scene.sim.check(checked);
                let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
                format!("reads [{}]", numbers.join(" "))
            }
            Err(error) => {
                let truths = self.scene.truths.borrow();
                let ended = truths.get(name).is_some_and(|truth| truth.ended);
                drop(truths);
                let excused = ended || self.scene.sim.damaged.get();
                if !excused {
                    let what = format!("'{name}' can't be read: {error}");
                    self.scene.sim.check::<()>(Breach::of(checks::SERVES, what));
                }
                format!("reads nothing: {error}")
            }
        }
    }

    /// Reads a stream from a position of its first life on, and says what comes.
    pub(super) async fn read_from(&self, name: &str, at: u64) {
        let from = Offset { epoch: Epoch::new(0), next: Seq::new(at) };
        let told = match self.pages(name, From::At(from)).await {
            Ok(numbers) => format!("reads {numbers:?}"),
            Err(error) => format!("reads nothing: {error}"),
        };
        self.say(&format!("{name} from {at}: {told}"));
    }

    async fn whole(&self, name: &str) -> Result<Vec<u64>, Error> {
        self.pages(name, From::Start).await
    }

    async fn pages(&self, name: &str, mut from: From) -> Result<Vec<u64>, Error> {
        let mut numbers = Vec::new();
        loop {
            let read = Read { name: named(name), from, key: None, bytes_max: PAGE_BYTES };
            let page = self.engine().read(read).await?;
            numbers.extend(numbers_in(&page.pieces.concat()));
            if page.up_to_date {
                return Ok(numbers);
            }
            from = From::At(page.next);
        }
    }

    fn compare(&self, name: &str, shown: &[u64]) -> Result<(), Breach> {
        let boot = self.scene.sim.boots();
        let mut truths = self.scene.truths.borrow_mut();
        let truth = truths.entry(name.to_owned()).or_default();
        require!(!truth.ended, checks::STALE, "'{name}' has ended and shows {shown:?}");
        let mut rest = shown.iter().peekable();
        for sent in &mut truth.sent {
            let is_there = rest.next_if(|number| **number == sent.number).is_some();
            match (sent.fate, is_there) {
                (Fate::Acked, false) => {
                    let what = format!("'{name}' lacks record {}, shows {shown:?}", sent.number);
                    return Breach::of(checks::ACKED, what);
                }
                (Fate::Absent, true) => {
                    let what = format!(
                        "'{name}' shows record {}, of which was said that it is not stored",
                        sent.number
                    );
                    return Breach::of(checks::TRACE, what);
                }
                (Fate::Open, true) => sent.fate = Fate::Acked,
                // While the process that took it runs it may still come.
                (Fate::Open, false) if sent.boot < boot => sent.fate = Fate::Absent,
                _ => {}
            }
        }
        let more: Vec<&u64> = rest.collect();
        require!(more.is_empty(), checks::SENT, "'{name}' shows {more:?} beside what was sent");
        Ok(())
    }
}

fn request(name: &str, records: &[u64], seq: Option<u64>) -> Append {
    let content = if name.contains("json") { "application/json" } else { "text/plain" };
    let content = typed(content);
    let body = match content.form() {
        Form::Json => {
            let messages: Vec<String> =
                records.iter().map(|number| format!("{{\"n\":{number}}}")).collect();
            format!("[{}]", messages.join(","))
        }
        Form::Text | Form::Binary => records.iter().map(|number| format!("<{number}>")).collect(),
    };
    let id = ProducerId::new("p").expect("a good id");
    Append {
        producer: seq.map(|seq| ProducerTuple { id, epoch: 0, seq }),
        ..Append::new(named(name), content, Bytes::from(body))
    }
}

fn numbers_in(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.split(|byte| !byte.is_ascii_digit()).filter(|word| !word.is_empty());
    words
        .map(|word| String::from_utf8_lossy(word).parse().expect("digits of a small number"))
        .collect()
}

fn told(answer: &Result<Appended, Error>) -> String {
    match answer {
        Ok(appended) => {
            let what = match appended.outcome {
                AppendOutcome::Written => "written",
                AppendOutcome::Closed => "closed",
                AppendOutcome::Duplicate => "a duplicate",
            };
            format!("{what}, tail {}", shown(appended.next))
        }
        Err(error) => error.to_string(),
    }
}

/// A position with its epoch.
pub(super) fn shown(offset: Offset) -> String {
    format!("{}_{}", offset.epoch, offset.next)
}

/// An instant so long after now by the wall clock.
pub(super) fn from_now(life: &Life, time: Duration) -> Expiry {
    let ms = u64::try_from(time.as_millis()).expect("a short time");
    Expiry::At(WallMs::new(life.scene.sim.wall_ms() + ms))
}
