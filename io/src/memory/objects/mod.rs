//! A bucket in memory, far away: it outlives every boot and may serve several machines.
//!
//! The harness holds a [`MemoryBucket`]; a boot of a machine asks it through a client of its
//! own ([`MemoryBucket::client`]). Time is the simulation's, as the client's clock tells it;
//! every draw is from one stream of the seed. A request that is on its way when its client
//! dies takes effect all the same, as it would in the world.

mod content;
mod faults;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

pub use faults::BucketFaults;

use self::{
    content::{Answer, Ask, Content, Manners, Said},
    faults::{Fate, Mangle},
};
use super::{STREAM_BUCKET, Trace, chance};
use crate::{
    Clock,
    objects::{Created, Key, Meta, ObjectError, Objects, Payload, Pending, length},
};

/// Requests that the log remembers; the counts remember all.
const LOG_MAX: usize = 4096;

/// Kinds of requests, as the clouds bill them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// A creation.
    Create,
    /// A read of an object or a part of one.
    Get,
    /// A look at an object.
    Head,
    /// A page of a listing.
    List,
    /// A deletion.
    Delete,
}

/// One request that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When, since the simulation began.
    pub at: Duration,
    /// What kind.
    pub verb: Verb,
    /// Its key or prefix.
    pub subject: String,
    /// Bytes it brought along.
    pub bytes: u64,
}

/// The simulated bucket. Clones share it.
#[derive(Clone)]
pub struct MemoryBucket {
    state: Arc<Mutex<State>>,
}

struct State {
    content: Content,
    faults: BucketFaults,
    chance: ChaCha8Rng,
    trace: Trace,
    now: Duration,
    burst_until: Duration,
    /// Requests by the moment they arrive; the number keeps those of one moment in order.
    arriving: BTreeMap<(Duration, u64), Ask>,
    /// What requests were answered that somebody still waits for.
    answers: BTreeMap<u64, Option<Answer>>,
    asked: u64,
    counts: BTreeMap<Verb, u64>,
    log: VecDeque<Request>,
}

impl MemoryBucket {
    /// An empty healthy bucket.
    #[must_use]
    pub fn new(seed: u64) -> MemoryBucket {
        let state = State {
            content: Content::default(),
            faults: BucketFaults::default(),
            chance: chance(seed, STREAM_BUCKET),
            trace: Trace::new(),
            now: Duration::ZERO,
            burst_until: Duration::ZERO,
            arriving: BTreeMap::new(),
            answers: BTreeMap::new(),
            asked: 0,
            counts: BTreeMap::new(),
            log: VecDeque::new(),
        };
        MemoryBucket { state: Arc::new(Mutex::new(state)) }
    }

    /// Another healthy bucket with the same objects, in which nothing is on its way: to try something
    /// out that leaves this one as it is.
    #[must_use]
    pub fn copied(&self, seed: u64) -> MemoryBucket {
        let copy = MemoryBucket::new(seed);
        let (state, mut target) = (self.state.lock(), copy.state.lock());
        target.content = state.content.clone();
        target.now = state.now;
        drop(target);
        drop(state);
        copy
    }

    /// The bucket as one boot asks it, in the runtime that `clock` belongs to.
    #[must_use]
    pub fn client(&self, clock: Arc<dyn Clock>) -> Arc<dyn Objects> {
        Arc::new(Client { bucket: self.clone(), clock })
    }

    /// Sets the faults from now on. Requests under way keep theirs, and a burst goes on.
    pub fn set_faults(&self, faults: BucketFaults) {
        self.state.lock().faults = faults;
    }

    /// The same, and a burst ends.
    pub fn set_weather(&self, faults: BucketFaults) {
        let mut state = self.state.lock();
        (state.faults, state.burst_until) = (faults, Duration::ZERO);
    }

    /// The faults as they are now.
    #[must_use]
    pub fn faults(&self) -> BucketFaults {
        self.state.lock().faults.clone()
    }

    /// Lets everything take effect that is still on its way, however late it would have been.
    pub fn settle(&self) {
        let mut state = self.state.lock();
        let last = state.arriving.last_key_value().map(|((at, _), _)| *at);
        if let Some(last) = last {
            let now = state.now;
            state.advance(last);
            // The clients' clocks did not move.
            state.now = now;
        }
    }

    /// Every key that is taken, sorted, whatever listings show.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.state.lock().content.objects.keys().cloned().collect()
    }

    /// The bytes of an object, past all faults.
    #[must_use]
    pub fn peek(&self, key: &Key) -> Option<Bytes> {
        self.state.lock().content.objects.get(key).map(|object| object.bytes.clone())
    }

    /// Puts an object there, whatever was: damage, or another writer's doing.
    pub fn put(&self, key: Key, bytes: Bytes) {
        let mut state = self.state.lock();
        let now = state.now;
        state.content.put(key, bytes, now);
    }

    /// Takes an object away as no client would.
    pub fn lose(&self, key: &Key) -> bool {
        self.state.lock().content.objects.remove(key).is_some()
    }

    /// Inverts one bit of a stored object; whether it has that byte.
    #[must_use]
    pub fn flip_bit(&self, key: &Key, byte: usize, bit: u8) -> bool {
        let mut state = self.state.lock();
        let Some(object) = state.content.objects.get_mut(key) else { return false };
        let mut bytes = BytesMut::from(&*object.bytes);
        let Some(flipped) = bytes.get_mut(byte) else { return false };
        *flipped ^= 1 << (bit % 8);
        object.bytes = bytes.freeze();
        true
    }

    /// Bytes of all objects.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().content.used_bytes()
    }

    /// How many requests of a kind were made so far, whatever became of them.
    #[must_use]
    pub fn count(&self, verb: Verb) -> u64 {
        self.state.lock().counts.get(&verb).copied().unwrap_or(0)
    }

    /// How many requests were made so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.state.lock().asked
    }

    /// The last requests that were made, oldest first.
    #[must_use]
    pub fn log(&self) -> Vec<Request> {
        self.state.lock().log.iter().cloned().collect()
    }

    /// The hash of every request, in order, of what became of it, and of how far the bucket's
    /// chance was drawn.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let state = self.state.lock();
        let mut trace = state.trace;
        trace.add(state.chance.clone().next_u64());
        trace.value()
    }
}

/// What a request was dealt when it set out.
struct Dealt {
    number: u64,
    fate: Fate,
    mangle: Mangle,
    latency: Duration,
}

impl State {
    /// Draws what becomes of a request and sends it on its way.
    fn send(&mut self, ask: Ask, now: Duration) -> Dealt {
        self.advance(now);
        let (verb, size) = (ask.verb(), sent(&ask));
        let number = self.asked;
        self.asked += 1;
        *self.counts.entry(verb).or_default() += 1;
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        let subject = ask.subject().to_owned();
        self.log.push_back(Request { at: self.now, verb, subject, bytes: size });
        ask.trace(&mut self.trace);
        let mut latency = self.draw(self.faults.latency.clone());
        if self.roll(self.faults.tail) {
            latency += self.draw(self.faults.tail_latency.clone());
        }
        latency += self.transfer(size);
        let fate = self.fate();
        let mangle = match fate {
            Fate::Answered if verb == Verb::Get => self.mangle(),
            _ => Mangle::Nothing,
        };
        self.trace.add(fate_code(fate));
        let arrives = match fate {
            Fate::Failed | Fate::Lost | Fate::Unreachable => None,
            Fate::Answered | Fate::Broken | Fate::Unheard => Some(latency / 2),
            Fate::LateBroken(by) | Fate::LateUnheard(by) => Some(latency / 2 + by),
        };
        if let Some(arrives) = arrives {
            self.arriving.insert((self.now + arrives, number), ask);
            if fate == Fate::Answered {
                self.answers.insert(number, None);
            }
        }
        Dealt { number, fate, mangle, latency }
    }

    /// Lets everything take effect that has arrived by `now`.
    fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some(first) = self.arriving.first_entry() {
            let (at, number) = *first.key();
            if at > self.now {
                break;
            }
            let ask = first.remove();
            let lagging = matches!(ask.verb(), Verb::Create | Verb::Delete);
            let list_lag = if lagging && self.roll(self.faults.list_lag) {
                self.draw(self.faults.list_lag_by.clone())
            } else {
                Duration::ZERO
            };
            let BucketFaults { unconditional, quota_bytes, .. } = self.faults;
            let answer =
                self.content.serve(ask, at, Manners { unconditional, quota_bytes, list_lag });
            self.trace.add(number);
            self.trace.add(u64::from(answer.is_ok()));
            // Nobody waits for it any more if there is no slot.
            if let Some(slot) = self.answers.get_mut(&number) {
                *slot = Some(answer);
            }
        }
    }

    fn fate(&mut self) -> Fate {
        let faults = self.faults.clone();
        if faults.outage {
            return Fate::Unreachable;
        }
        if self.roll(faults.burst) {
            let length = self.draw(faults.burst_length);
            self.burst_until = self.burst_until.max(self.now + length);
            return Fate::Failed;
        }
        if self.now < self.burst_until || self.roll(faults.error) {
            return Fate::Failed;
        }
        if self.roll(faults.hang) {
            return Fate::Lost;
        }
        if self.roll(faults.lost_answer) {
            return if self.chance.random_bool(0.5) { Fate::Broken } else { Fate::Unheard };
        }
        if self.roll(faults.late) {
            let by = self.draw(faults.late_by);
            let broken = self.chance.random_bool(0.5);
            return if broken { Fate::LateBroken(by) } else { Fate::LateUnheard(by) };
        }
        Fate::Answered
    }

    fn mangle(&mut self) -> Mangle {
        if self.roll(self.faults.truncated) {
            Mangle::Truncate
        } else if self.roll(self.faults.corrupted) {
            Mangle::Corrupt
        } else {
            Mangle::Nothing
        }
    }

    fn mangled(&mut self, bytes: Bytes, how: Mangle) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let at = self.chance.random_range(0..bytes.len());
        match how {
            Mangle::Nothing => bytes,
            Mangle::Truncate => bytes.slice(..at),
            Mangle::Corrupt => {
                let mut bytes = BytesMut::from(&*bytes);
                bytes[at] ^= 1 << self.chance.random_range(0..8_u32);
                bytes.freeze()
            }
        }
    }

    fn transfer(&self, bytes: u64) -> Duration {
        let rate = self.faults.bytes_per_second;
        let millis = rate.map_or(0, |rate| bytes.saturating_mul(1000) / rate.max(1));
        Duration::from_millis(millis)
    }

    fn roll(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.chance.random_bool(probability)
    }

    fn draw(&mut self, range: Range<Duration>) -> Duration {
        if range.is_empty() { range.start } else { self.chance.random_range(range) }
    }
}

/// Bytes that a request brings along.
fn sent(ask: &Ask) -> u64 {
    match ask {
        Ask::Create(_, payload) => payload.size(),
        _ => 0,
    }
}

fn fate_code(fate: Fate) -> u64 {
    match fate {
        Fate::Answered => 0,
        Fate::Failed => 1,
        Fate::Lost => 2,
        Fate::Broken => 3,
        Fate::Unheard => 4,
        Fate::LateBroken(_) => 5,
        Fate::LateUnheard(_) => 6,
        Fate::Unreachable => 7,
    }
}

/// The bucket for one boot.
struct Client {
    bucket: MemoryBucket,
    clock: Arc<dyn Clock>,
}

/// Somebody waits for an answer; dropping it gives it up, not the request.
struct Waiting<'a> {
    client: &'a Client,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.client.bucket.state.lock().answers.remove(&self.number);
    }
}

impl Client {
    async fn ask(&self, ask: Ask) -> Answer {
        let now = self.clock.elapsed();
        let dealt = self.bucket.state.lock().send(ask, now);
        let waiting = Waiting { client: self, number: dealt.number };
        wait(dealt.latency).await;
        // Timers are rounded up to milliseconds, so this is never too early.
        self.bucket.state.lock().advance(now + dealt.latency);
        let transient = |reason: &str| Err(ObjectError::Transient(reason.to_owned()));
        match dealt.fate {
            Fate::Answered => {}
            Fate::Failed => return transient("503: the simulated bucket is busy"),
            Fate::Broken | Fate::LateBroken(_) => {
                return transient("the connection to the simulated bucket broke");
            }
            Fate::Unreachable => return transient("the simulated bucket is unreachable"),
            Fate::Lost | Fate::Unheard | Fate::LateUnheard(_) => {
                std::future::pending::<()>().await;
            }
        }
        let (answer, transfer) = {
            let mut state = self.bucket.state.lock();
            let answer = state.answers.get_mut(&waiting.number).and_then(Option::take);
            let answer = answer.expect("a request that is answered has arrived by now");
            let answer = answer.map(|said| match said {
                Said::Body(bytes) if dealt.mangle != Mangle::Nothing => {
                    Said::Body(state.mangled(bytes, dealt.mangle))
                }
                said => said,
            });
            let received = match &answer {
                Ok(Said::Body(bytes)) => length(bytes),
                _ => 0,
            };
            (answer, state.transfer(received))
        };
        wait(transfer).await;
        answer
    }
}

async fn wait(time: Duration) {
    if time > Duration::ZERO {
        tokio::time::sleep(time).await;
    }
}

impl Objects for Client {
    fn create<'a>(&'a self, key: &'a Key, payload: Payload) -> Pending<'a, Created> {
        Box::pin(async move {
            match self.ask(Ask::Create(key.clone(), payload)).await? {
                Said::Created(created) => Ok(created),
                said => unreachable!("a creation was answered {said:?}"),
            }
        })
    }

    fn get<'a>(&'a self, key: &'a Key, bytes_max: u64) -> Pending<'a, Bytes> {
        Box::pin(async move { body(self.ask(Ask::Get(key.clone(), bytes_max)).await?) })
    }

    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> Pending<'a, Bytes> {
        Box::pin(async move { body(self.ask(Ask::GetRange(key.clone(), range)).await?) })
    }

    fn head<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Meta>> {
        Box::pin(async move {
            match self.ask(Ask::Head(key.clone())).await? {
                Said::Head(meta) => Ok(meta),
                said => unreachable!("a look was answered {said:?}"),
            }
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Vec<Meta>> {
        Box::pin(async move {
            match self.ask(Ask::List(prefix.to_owned(), after.cloned(), limit)).await? {
                Said::Listed(found) => Ok(found),
                said => unreachable!("a listing was answered {said:?}"),
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, ()> {
        Box::pin(async move { self.ask(Ask::Delete(key.clone())).await.map(drop) })
    }
}

fn body(said: Said) -> Result<Bytes, ObjectError> {
    match said {
        Said::Body(bytes) => Ok(bytes),
        said => unreachable!("a read was answered {said:?}"),
    }
}
