//! Appends, touches, and what is known of producers.

use std::sync::Arc;

use weir_io::Sabotage;

use super::{Inner, Missing, Sequencer, Submitted, absence, pending, refuse};
use crate::{
    decide::{self, Now},
    log::{
        entry::{self, Entry, Why},
        gate::Gate,
        group::Change,
    },
    request::{Append, Appended, Error, Prepared, Rejection},
    state::{
        shelf::Folds,
        stream::Producer,
        view::{Decided, Stream},
    },
    types::ProducerId,
};

/// Producers of a stream in memory at which those known to have no state are let go.
const PRODUCERS_LEARNT_MAX: usize = 1024;

impl Sequencer {
    /// Decides an append.
    pub(crate) fn append(
        &self,
        append: &Append,
        prepared: Prepared,
        now: Now,
    ) -> Result<Submitted<Appended>, Error> {
        let mut inner = self.admit(append.body.len())?;
        let (stream, gate) = match self.named(&append.name) {
            Ok(found) => found,
            Err(answer) => return Ok(answer),
        };
        let mut decided = stream.decided.lock();
        if decided.state.retired {
            return Ok(refuse(Rejection::Gone, pending(decided.gate.clone())));
        }
        if stream.has_expired(decided.state.deadline, now) {
            return Ok(match self.end(&mut inner, &stream, &mut decided, Why::Expired) {
                Ok(gate) => refuse(absence(&decided), Some(gate)),
                Err(missing) => Submitted::Load(missing),
            });
        }
        let known = match &append.producer {
            Some(tuple) => match known_producer(&decided, &tuple.id) {
                Some(known) => known,
                None => {
                    return Ok(Submitted::Load(Missing::Producer(
                        Arc::clone(&stream),
                        tuple.id.clone(),
                    )));
                }
            },
            None => None,
        };
        let gate = pending(decided.gate.clone()).or(pending(gate));
        let decide = |append: &Append, prepared, decided: &Decided| {
            let (identity, state) = (&stream.identity, &decided.state);
            decide::append::decide(identity, state, known.as_ref(), append, prepared, now)
        };
        let lax = self.lax(append, &prepared);
        let verdict = match decide(append, prepared, &decided) {
            Ok(verdict) => verdict,
            Err(rejection) => {
                self.betray(&mut decided, append, &rejection);
                let lax = lax.map(|(append, prepared)| decide(&append, prepared, &decided));
                if let (Some(Ok(lax)), Rejection::StreamSeq { .. }) = (lax, &rejection) {
                    let write = lax.change.expect("a plain append writes");
                    drop(self.write(&mut inner, &stream, &mut decided, write));
                }
                return Ok(refuse(rejection, gate));
            }
        };
        stream.pulse.touch(now.store);
        let gate = match verdict.change {
            // A duplicate is a touch too.
            None => self.extend(&mut inner, &stream, &mut decided, now, 0).or(gate),
            Some(write) => Some(self.write(&mut inner, &stream, &mut decided, write)),
        };
        Ok(super::decided(Ok(verdict.answer), gate))
    }

    /// Nothing, unless a defect is planted: then the request of a client that is no producer as it
    /// would be without its `Stream-Seq`.
    fn lax(&self, append: &Append, prepared: &Prepared) -> Option<(Append, Prepared)> {
        let planted = self.sabotage == Sabotage::RefusedIsWritten && append.producer.is_none();
        planted.then(|| (Append { stream_seq: None, ..append.clone() }, prepared.clone()))
    }

    /// Does nothing, unless a defect is planted: then the refused request's producer counts as
    /// having written.
    fn betray(&self, decided: &mut Decided, append: &Append, rejection: &Rejection) {
        let planted = self.sabotage == Sabotage::ProducerBeforeSequence;
        if let (true, Rejection::StreamSeq { .. }, Some(tuple)) =
            (planted, rejection, &append.producer)
        {
            decided.advance(tuple);
        }
    }

    /// Makes sure that a sliding window touched now, and for `ahead_ms` longer, does not pass early
    /// after a crash. Returns the gate to wait for, if there is one.
    pub(crate) fn renew(
        &self,
        stream: &Arc<Stream>,
        now: Now,
        ahead_ms: u64,
    ) -> Result<Option<Arc<Gate>>, Error> {
        let mut inner = self.admit_internal()?;
        let mut decided = stream.decided.lock();
        Ok(self.extend(&mut inner, stream, &mut decided, now, ahead_ms))
    }

    pub(super) fn extend(
        &self,
        inner: &mut Inner,
        stream: &Arc<Stream>,
        decided: &mut Decided,
        now: Now,
        ahead_ms: u64,
    ) -> Option<Arc<Gate>> {
        let end = decide::expiry::window_end(stream.ttl_seconds()?, now.store).plus(ahead_ms);
        if decided.is_over() || decided.state.deadline.is_some_and(|deadline| deadline >= end) {
            return pending(decided.gate.clone());
        }
        let deadline = decide::expiry::deadline(stream.identity.expiry, now.store)?.plus(ahead_ms);
        decided.state.deadline = Some(deadline);
        decided.state.lsn = inner.open.lsn;
        let renew = Entry::Renew { stream: stream.identity.id, deadline };
        let gate = inner.put(stream, &renew, |_| Change::Renew(deadline));
        decided.gate = Some(Arc::clone(&gate));
        self.work.notify_one();
        Some(gate)
    }

    /// Puts a producer's stored state on the shelf, unless a fold has finished since it was asked
    /// for.
    pub(crate) fn learn(
        &self,
        stream: &Stream,
        id: ProducerId,
        found: Option<Producer>,
        asked: Folds,
    ) {
        let _inner = self.inner.lock();
        if self.shelf.folds() != asked {
            return;
        }
        let producers = &mut stream.decided.lock().producers;
        // Anybody can ask for names that nobody has used: what is not there can be asked again.
        if producers.len() >= PRODUCERS_LEARNT_MAX {
            producers.retain(|_, known| known.is_some());
        }
        producers.entry(id).or_insert(found);
    }

    /// Lets go of producer states that the catalogue has, if there are more than `kept`.
    pub(crate) fn forget_producers(&self, stream: &Stream, kept: usize) {
        let _inner = self.inner.lock();
        let mut decided = stream.decided.lock();
        // A pending group may hold states that are in no other view yet.
        if decided.producers.len() > kept && pending(decided.gate.clone()).is_none() {
            let durable = stream.durable.lock();
            decided.producers.retain(|id, _| durable.producers.contains_key(id));
        }
    }

    pub(super) fn write(
        &self,
        inner: &mut Inner,
        stream: &Arc<Stream>,
        decided: &mut Decided,
        write: entry::Write,
    ) -> Arc<Gate> {
        let after = decided.apply(&write, inner.open.lsn);
        let entry = Entry::Write(write);
        let gate = inner.put_write(stream, entry, after);
        decided.gate = Some(Arc::clone(&gate));
        self.work.notify_one();
        gate
    }
}

/// `None`: must be looked up first; `Some(None)`: has no state.
fn known_producer(decided: &Decided, id: &ProducerId) -> Option<Option<Producer>> {
    match decided.producers.get(id) {
        Some(known) => Some(known.clone()),
        None if decided.state.producers == 0 => Some(None),
        None => None,
    }
}
