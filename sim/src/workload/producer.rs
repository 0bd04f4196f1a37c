//! Idempotent producers: requests repeated until they are answered, over crashes too, sent twice
//! at once, and zombies that send what is long over.
//!
//! What a producer remembers outlives the boot, as a client on another machine would.

use std::{cell::RefCell, collections::BTreeMap};

use bytes::Bytes;
use rand::RngExt;
use weir_engine::{
    request::{Append, AppendOutcome, Rejection},
    types::{ProducerId, ProducerTuple},
};

use super::{Class, Client, Target, verbs::Said};
use crate::checks::{self, Breach};

/// All producers of a simulation, by client and stream.
pub type Producers = RefCell<BTreeMap<(u32, String), Memory>>;

/// The `Stream-Seq` of requests that come too late.
const LOWEST_SEQ: &str = "000000000000";

/// How many ends of a producer the server remembers.
const ENDS_KEPT: usize = 16;

/// What a producer knows of itself.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    epoch: u64,
    seq: u64,
    /// Sent and not answered.
    inflight: Option<(usize, Append)>,
    /// Answered requests, oldest first, and the epoch of the stream they went to.
    done: Vec<(u64, u64, usize)>,
}

/// Produces.
pub(super) async fn producer(mut client: Client) {
    let favourite = client.any_of(&[Class::Stable, Class::Ending]);
    while client.think().await {
        let target = if client.chance.random_bool(0.7) { favourite.clone() } else { client.any() };
        match client.chance.random_range(0..10) {
            0 => client.haunt(&target).await,
            1 => client.skip(&target).await,
            // One of two could meet the stream's next life.
            2 if target.keeps() => client.twins(&target).await,
            3 if client.chance.random_bool(0.3) => client.rise(&target),
            4 => client.lag(&target).await,
            _ => client.produce(&target).await,
        }
    }
}

impl Client {
    fn memory<T>(&self, target: &Target, change: impl FnOnce(&mut Memory) -> T) -> T {
        let key = (self.no, target.name.as_str().to_owned());
        change(self.host.sim.producers.borrow_mut().entry(key).or_default())
    }

    fn tuple(&self, epoch: u64, seq: u64) -> ProducerTuple {
        let id = ProducerId::new(&format!("producer-{}", self.no)).expect("a good id");
        ProducerTuple { id, epoch, seq }
    }

    /// What is to be sent now: the request without an answer, or the next.
    fn next(&mut self, target: &Target) -> (usize, Append) {
        if let Some(inflight) = self.memory(target, |memory| memory.inflight.clone()) {
            if target.keeps() || !self.host.sim.model.borrow().requests[inflight.0].in_doubt {
                return inflight;
            }
            self.forget(target);
        }
        let (id, mut append) = self.request(target);
        let (epoch, seq) = self.memory(target, |memory| (memory.epoch, memory.seq));
        append.producer = Some(self.tuple(epoch, seq));
        self.memory(target, |memory| memory.inflight = Some((id, append.clone())));
        (id, append)
    }

    async fn produce(&mut self, target: &Target) {
        let (id, append) = self.next(target);
        let said = self.host.append(target, append, id).await;
        self.learn(target, id, &said);
    }

    /// Sends its next request with a `Stream-Seq` that any other precedes. Where that is refused
    /// the producer has written nothing: the next request has the same number and other records.
    async fn lag(&mut self, target: &Target) {
        if self.memory(target, |memory| memory.inflight.is_some()) {
            return self.produce(target).await;
        }
        let (id, mut append) = self.next(target);
        append.stream_seq = Some(Bytes::from_static(LOWEST_SEQ.as_bytes()));
        self.host.sim.model.borrow_mut().requests[id].stream_seq = Some(0);
        self.memory(target, |memory| memory.inflight = Some((id, append.clone())));
        let said = self.host.append(target, append, id).await;
        if let Said::No(Rejection::StreamSeq { .. }) = said {
            weir_io::sometimes!("a producer's request came after a later Stream-Seq");
            self.memory(target, |memory| memory.inflight = None);
        } else {
            self.learn(target, id, &said);
        }
    }

    /// The same request twice at once: one of them is the duplicate.
    async fn twins(&mut self, target: &Target) {
        let (id, append) = self.next(target);
        self.host.sim.model.borrow_mut().requests[id].in_doubt = true;
        let (one, two) = tokio::join!(
            self.host.append(target, append.clone(), id),
            self.host.append(target, append, id)
        );
        let written = |said: &Said<_>| {
            let outcome =
                |it: &weir_engine::request::Appended| it.outcome == AppendOutcome::Written;
            matches!(said, Said::Yes(appended) if outcome(appended))
        };
        if written(&one) && written(&two) {
            let what = format!("request {id} of '{}' was written twice", target.name);
            self.host.sim.check::<()>(Breach::of(checks::ONCE, what));
        }
        let better = if matches!(one, Said::Yes(_)) { &one } else { &two };
        self.learn(target, id, better);
    }

    fn learn(&mut self, target: &Target, id: usize, said: &Said<weir_engine::request::Appended>) {
        match said {
            Said::Yes(_) => self.memory(target, |memory| {
                memory.done.push((memory.epoch, memory.seq, id));
                memory.seq += 1;
                memory.inflight = None;
            }),
            Said::No(rejection) => {
                let order = matches!(
                    rejection,
                    Rejection::ProducerGap { .. }
                        | Rejection::StaleEpoch { .. }
                        | Rejection::EpochStart
                );
                // Only a stream that was created anew may have forgotten its producers.
                if order && target.keeps() {
                    let what = format!("request {id} of '{}': {rejection}", target.name);
                    self.host.sim.check::<()>(Breach::of(checks::ONCE, what));
                }
                self.forget(target);
            }
            // A repetition could meet the stream's next life, which is another stream.
            Said::Unknown if !target.keeps() => self.forget(target),
            Said::Nothing | Said::Unknown => {}
        }
    }

    /// Begins anew under the next epoch.
    fn forget(&self, target: &Target) {
        self.memory(target, |memory| {
            let epoch = memory.epoch + 1;
            *memory = Memory { epoch, ..Memory::default() };
        });
    }

    /// A new life of the producer; the old one is fenced by its first request.
    fn rise(&mut self, target: &Target) {
        self.memory(target, |memory| {
            if memory.inflight.is_none() && memory.seq > 0 {
                memory.epoch += 1;
                memory.seq = 0;
            }
        });
    }

    /// Sends the tuple of an old request, with other records: they must not be taken.
    async fn haunt(&mut self, target: &Target) {
        let (done, now) =
            self.memory(target, |memory| (memory.done.clone(), (memory.epoch, memory.seq)));
        if done.is_empty() || !matches!(target.class, Class::Stable) {
            return;
        }
        let back = self.chance.random_range(0..done.len().min(24));
        let (epoch, seq, original) = done[done.len() - 1 - back];
        let (id, mut append) = self.request(target);
        append.producer = Some(self.tuple(epoch, seq));
        let ticket = self.host.ticket(target);
        let answer = self.host.door.append(append).await;
        let said = self.host.sort(&ticket, &format!("haunt {} #{id}", target.name), answer);
        let sim = &self.host.sim;
        sim.model.borrow_mut().requests[id].fate = crate::model::Fate::Refused;
        let Said::Yes(appended) = said else {
            return;
        };
        sim.note(&format!("haunt {} #{id}: {:?}", target.name, appended));
        let recent = epoch == now.0 && back + 1 < ENDS_KEPT;
        let model = sim.model.borrow();
        let end = model.requests[original].at.map(|(_, first)| {
            first + u64::try_from(model.requests[original].records.len()).expect("small")
        });
        drop(model);
        let wrong = appended.outcome != AppendOutcome::Duplicate
            || (recent && end != Some(appended.next.next.get()));
        if wrong {
            let what = format!(
                "'{}' producer {epoch}/{seq} (request {original}, end {end:?}) again: {appended:?}",
                target.name
            );
            sim.check::<()>(Breach::of(checks::ONCE, what));
        }
    }

    /// Leaves a gap.
    async fn skip(&mut self, target: &Target) {
        let (id, mut append) = self.request(target);
        let (epoch, seq) = self.memory(target, |memory| (memory.epoch, memory.seq));
        append.producer = Some(self.tuple(epoch, seq + 2));
        let said = self.host.append(target, append, id).await;
        self.must_be_refused(id, &said);
    }
}
