//! Creations, forks included.

use std::sync::Arc;

use weir_io::Sabotage;

use super::{Inner, Missing, Sequencer, Submitted, absence, decided, pending, refuse};
use crate::{
    decide::{
        self, Now,
        create::{Birth, Cut, Named},
    },
    log::{
        entry::{Entry, Why},
        gate::Gate,
        group::Change,
    },
    request::{Create, CreateOutcome, Error, Fork, Prepared, Rejection},
    state::{
        stream::{Identity, StreamState},
        view::Stream,
    },
    types::{Lsn, Offset, StreamId, StreamName},
};

/// The source of a fork as the request found it.
pub(crate) struct Source {
    pub(crate) stream: Arc<Stream>,
    /// The record at the fork point, if the sub-offset may cut it.
    pub(crate) cut: Option<Cut>,
}

type Creation = (CreateOutcome, Arc<Stream>, StreamState);

impl Sequencer {
    /// Decides a creation. `source`: what the request found under its source's name, if it is a
    /// fork; found there now, it is decided upon, else the request is to look again.
    pub(crate) fn create(
        &self,
        create: &Create,
        source: Option<&Source>,
        prepared: Prepared,
        now: Now,
    ) -> Result<Submitted<Creation>, Error> {
        let mut inner = self.admit(create.body.len())?;
        let known = self
            .shelf
            .get(&create.name, |slot| (slot.latest.clone(), slot.epoch, slot.gate.clone()));
        let Some((latest, mut epoch, gate)) = known else {
            return Ok(Submitted::Load(Missing::Name(create.name.clone())));
        };
        let mut gate = pending(gate);
        if let Some(stream) = latest {
            let mut view = stream.decided.lock();
            let over = !view.state.retired && stream.has_expired(view.state.deadline, now);
            if over {
                gate = match self.end(&mut inner, &stream, &mut view, Why::Expired) {
                    Ok(gate) => Some(gate),
                    Err(missing) => return Ok(Submitted::Load(missing)),
                };
            }
            if !over || view.state.retired {
                gate = pending(view.gate.clone()).or(gate);
                let state = view.state.clone();
                let answer = decide::create::over_existing(&stream.identity, &state, create);
                if answer.is_ok() {
                    stream.pulse.touch(now.store);
                    gate = self.extend(&mut inner, &stream, &mut view, now, 0).or(gate);
                }
                let answer = answer.map(|outcome| (outcome, Arc::clone(&stream), state));
                return Ok(decided(answer, gate));
            }
            epoch = Some(view.state.lineage.newest());
        }
        let stream = StreamId::new(inner.next_stream);
        let named = Named { stream, last: epoch, floor: self.floor };
        match &create.fork {
            None => match decide::create::over_nothing(named, create, prepared, now) {
                Ok(verdict) => {
                    let birth = verdict.change.expect("a creation over nothing changes something");
                    Ok(self.born(&mut inner, birth, None, now))
                }
                Err(rejection) => Ok(refuse(rejection, gate)),
            },
            Some(fork) => {
                let fork = (create, &fork.source, source);
                self.fork(&mut inner, fork, named, prepared, now, gate)
            }
        }
    }

    fn fork(
        &self,
        inner: &mut Inner,
        (create, name, source): (&Create, &StreamName, Option<&Source>),
        named: Named,
        prepared: Prepared,
        now: Now,
        gate: Option<Arc<Gate>>,
    ) -> Result<Submitted<Creation>, Error> {
        let slot = self.shelf.get(name, |slot| (slot.latest.clone(), slot.gate.clone()));
        let Some((latest, slot_gate)) = slot else {
            return Ok(Submitted::Load(Missing::Name(name.clone())));
        };
        let Some(stream) = latest else {
            let gate = pending(slot_gate).or(gate);
            return Ok(refuse(Rejection::SourceNotFound(name.clone()), gate));
        };
        let mut view = stream.decided.lock();
        let gate = pending(view.gate.clone()).or(gate);
        if view.state.retired {
            return Ok(refuse(Rejection::SourceGone(name.clone()), gate));
        }
        if stream.has_expired(view.state.deadline, now) {
            return Ok(match self.end(inner, &stream, &mut view, Why::Expired) {
                Ok(gate) if absence(&view) == Rejection::Gone => {
                    refuse(Rejection::SourceGone(name.clone()), Some(gate))
                }
                Ok(gate) => refuse(Rejection::SourceNotFound(name.clone()), Some(gate)),
                Err(missing) => Submitted::Load(missing),
            });
        }
        let Some(source) = source.filter(|source| Arc::ptr_eq(&source.stream, &stream)) else {
            return Ok(Submitted::Load(Missing::Source(name.clone(), gate)));
        };
        let seen = (&stream.identity, &view.state);
        let cut = source.cut.as_ref();
        let belated = self.belated(create, &view.state);
        let create = belated.as_ref().unwrap_or(create);
        let birth = match decide::create::fork(named, seen, create, cut, prepared, now) {
            Ok(verdict) => verdict.change.expect("a fork over nothing changes something"),
            Err(rejection) => return Ok(refuse(rejection, gate)),
        };
        drop(view);
        Ok(self.born(inner, birth, Some(&stream), now))
    }

    /// Nothing, unless a defect is planted: then a fork that draws on one record more.
    fn belated(&self, create: &Create, of: &StreamState) -> Option<Create> {
        let fork = create.fork.as_ref().filter(|_| self.sabotage == Sabotage::PointsTooHigh)?;
        let at = fork.at.filter(|at| at.next < of.next && fork.sub_offset == 0)?;
        let at = Some(Offset { next: at.next.after(1), ..at });
        Some(Create { fork: Some(Fork { at, ..fork.clone() }), ..create.clone() })
    }

    fn born(
        &self,
        inner: &mut Inner,
        birth: Birth,
        source: Option<&Arc<Stream>>,
        now: Now,
    ) -> Submitted<Creation> {
        inner.next_stream += 1;
        let (stream, gate) = self.give_birth(inner, birth, source, now);
        let state = stream.decided.lock().state.clone();
        decided(Ok((CreateOutcome::New, stream, state)), Some(gate))
    }

    fn give_birth(
        &self,
        inner: &mut Inner,
        birth: Birth,
        source: Option<&Arc<Stream>>,
        now: Now,
    ) -> (Arc<Stream>, Arc<Gate>) {
        let create = birth.create;
        let lsn = inner.open.lsn;
        let identity = Identity {
            id: create.stream,
            name: create.name.clone(),
            content: create.content.clone(),
            expiry: create.expiry,
            created: create.created,
            fork: create.fork.clone(),
        };
        let (name, epoch) = (create.name.clone(), create.lineage.newest());
        let state = StreamState::new(&create, lsn);
        let stream = Arc::new(Stream::unborn(identity, state));
        stream.pulse.touch(now.store);
        let mut gate = inner.put(&stream, &Entry::Create(create), |_| Change::Born);
        if let Some(source) = source {
            self.refer(inner, source, lsn, &gate);
        }
        for write in birth.writes {
            let after = stream.decided.lock().apply(&write, lsn);
            gate = inner.put_write(&stream, Entry::Write(write), after);
        }
        stream.decided.lock().gate = Some(Arc::clone(&gate));
        self.shelf.change(&name, |slot| {
            assert!(slot.epoch < Some(epoch), "INV-10 a name never uses an epoch twice");
            slot.latest = Some(Arc::clone(&stream));
            slot.epoch = Some(epoch);
            slot.gate = Some(Arc::clone(&gate));
        });
        inner.close_if_full();
        self.work.notify_one();
        (stream, gate)
    }

    /// A fork draws on `source` from here on; part of the entry that creates the fork.
    fn refer(&self, inner: &mut Inner, source: &Arc<Stream>, lsn: Lsn, gate: &Arc<Gate>) {
        let mut view = source.decided.lock();
        view.state.refs += 1;
        view.state.lsn = lsn;
        view.gate = Some(Arc::clone(gate));
        drop(view);
        inner.also(source, Change::Referred);
        self.shelf.register(source);
    }
}
