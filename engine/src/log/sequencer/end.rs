//! How streams end: by request, by themselves, or because nobody needs them any more.
//!
//! A stream with forks is retired: it keeps its name and its records and answers nobody. When its
//! last fork ends it ends too, in the same commit, and so on upwards, so that the reference counts
//! are exact whatever the moment of a crash (INV-22).

use std::sync::Arc;

use super::{Inner, Missing, Sequencer, Submitted, absence, decided, pending, refuse};
use crate::{
    decide::{Now, append::check_expected},
    log::{
        entry::{self, Entry, Why},
        gate::Gate,
        group::Change,
    },
    request::{Error, Rejection},
    state::view::{Decided, Stream},
    types::{Offset, StreamName},
};

/// What became of a stream whose time may have passed.
pub(crate) enum Expired {
    /// It is alive, or was over already and durably so.
    No,
    /// It has ended; durable when this opens.
    Ending(Arc<Gate>),
    /// Load this and ask again.
    Load(Missing),
}

impl Sequencer {
    /// Decides a deletion, of a stream that ends at `expected` if that is given.
    pub(crate) fn delete(
        &self,
        name: &StreamName,
        expected: Option<Offset>,
        now: Now,
    ) -> Result<Submitted<()>, Error> {
        let mut inner = self.admit_internal()?;
        let stream = match self.named(name) {
            Ok((stream, _)) => stream,
            Err(answer) => return Ok(answer),
        };
        let mut view = stream.decided.lock();
        if view.state.retired {
            return Ok(refuse(Rejection::Gone, pending(view.gate.clone())));
        }
        let expired = stream.has_expired(view.state.deadline, now);
        if !expired && let Err(moved) = check_expected(expected, &view.state.lineage, &view.state) {
            return Ok(refuse(moved, pending(view.gate.clone())));
        }
        let why = if expired { Why::Expired } else { Why::Asked };
        let gate = match self.end(&mut inner, &stream, &mut view, why) {
            Ok(gate) => Some(gate),
            Err(missing) => return Ok(Submitted::Load(missing)),
        };
        let answer = if expired { Err(absence(&view)) } else { Ok(()) };
        Ok(decided(answer, gate))
    }

    /// Ends a stream whose time has passed.
    pub(crate) fn expire(&self, stream: &Arc<Stream>, now: Now) -> Result<Expired, Error> {
        let mut inner = self.admit_internal()?;
        let mut view = stream.decided.lock();
        if view.is_over() {
            return Ok(pending(view.gate.clone()).map_or(Expired::No, Expired::Ending));
        }
        if !stream.has_expired(view.state.deadline, now) {
            return Ok(Expired::No);
        }
        Ok(match self.end(&mut inner, stream, &mut view, Why::Expired) {
            Ok(gate) => Expired::Ending(gate),
            Err(missing) => Expired::Load(missing),
        })
    }

    /// Ends a stream, or retires it if it has forks. Nothing is done if something must be loaded
    /// first.
    pub(super) fn end(
        &self,
        inner: &mut Inner,
        stream: &Arc<Stream>,
        view: &mut Decided,
        why: Why,
    ) -> Result<Arc<Gate>, Missing> {
        if view.state.refs > 0 {
            return Ok(self.retire(inner, stream, view, why));
        }
        let released = self.released_by(stream)?;
        let mut gate = self.bury(inner, stream, view, why);
        for source in released {
            let mut view = source.decided.lock();
            view.state.refs -= 1;
            view.state.lsn = inner.open.lsn;
            view.gate = Some(Arc::clone(&gate));
            // Part of the entry that ended the fork.
            inner.also(&source, Change::Released);
            if view.state.retired && view.state.refs == 0 {
                weir_io::sometimes!("a deleted stream ended with its last fork");
                gate = self.bury(inner, &source, &mut view, Why::Unreferenced);
            }
        }
        Ok(gate)
    }

    /// The source of a fork, and if that ends with the fork, its source too, and so on.
    fn released_by(&self, stream: &Stream) -> Result<Vec<Arc<Stream>>, Missing> {
        let mut released: Vec<Arc<Stream>> = Vec::new();
        let mut fork = stream.identity.fork.clone();
        while let Some(ancestry) = fork {
            let name = &ancestry.source_name;
            let latest = self.shelf.get(name, |slot| slot.latest.clone());
            let source = latest.ok_or_else(|| Missing::Ancestor(name.clone()))?;
            let source = source.filter(|it| it.identity.id == ancestry.source);
            let source = source.expect("INV-22 a source keeps its name as long as it has forks");
            let view = source.decided.lock();
            assert!(view.state.refs > 0, "INV-22 a source counts its forks");
            let ends = view.state.retired && view.state.refs == 1;
            drop(view);
            fork = if ends { source.identity.fork.clone() } else { None };
            released.push(source);
        }
        Ok(released)
    }

    fn retire(
        &self,
        inner: &mut Inner,
        stream: &Arc<Stream>,
        view: &mut Decided,
        why: Why,
    ) -> Arc<Gate> {
        view.state.retired = true;
        view.state.lsn = inner.open.lsn;
        let retire = Entry::Retire { stream: stream.identity.id, why };
        let gate = inner.put(stream, &retire, |_| Change::Retired);
        view.gate = Some(Arc::clone(&gate));
        self.work.notify_one();
        gate
    }

    fn bury(
        &self,
        inner: &mut Inner,
        stream: &Arc<Stream>,
        view: &mut Decided,
        why: Why,
    ) -> Arc<Gate> {
        let name = stream.identity.name.clone();
        let epoch = view.state.lineage.newest();
        view.deleted = true;
        view.state.lsn = inner.open.lsn;
        let source = stream.identity.fork.as_ref().map(|fork| fork.source);
        let id = stream.identity.id;
        let delete = entry::Delete { stream: id, name: name.clone(), epoch, why, source };
        let gate = inner.put(stream, &Entry::Delete(delete), |_| Change::Dead);
        view.gate = Some(Arc::clone(&gate));
        self.shelf.change(&name, |slot| {
            slot.latest = None;
            slot.epoch = Some(epoch);
            slot.gate = Some(Arc::clone(&gate));
        });
        self.work.notify_one();
        gate
    }
}
