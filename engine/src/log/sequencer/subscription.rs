//! Entries of subscriptions. What they say was decided before, in the subscription's turn and on
//! what is durable of it; here they get their place in the log, together with what must have the
//! same place: the tails that links by name start at, and the event that announces a wake.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{Missing, Sequencer, absence};
use crate::{
    admit,
    decide::{self, Now},
    log::{entry::Entry, gate::Gate, group::Effect},
    request::{Append, Error, Rejection},
    state::shelf::Folds,
    subscribe::{entry::Placed, subscription::Change},
    types::{Offset, StreamId, StreamName},
};

/// Whose write an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It is refused by a full queue and a full disk.
    Client,
    /// Room is reserved for it.
    Server,
}

/// What the catalogue says of names: the stream and its tail, if there is one.
pub(crate) type Tails = BTreeMap<StreamName, Option<(StreamId, Offset)>>;

/// A wake and the event that announces it.
pub(crate) enum Announced {
    /// Both are durable when the gate opens; the event was refused if it says so.
    Put(Arc<Gate>, Result<(), Rejection>),
    /// Load this and try again.
    Load(Missing, Change),
}

impl Sequencer {
    /// Gives an entry its place.
    pub(crate) fn subscription(&self, change: Change, origin: Origin) -> Result<Arc<Gate>, Error> {
        let mut inner = match origin {
            Origin::Client => self.admit(0)?,
            Origin::Server => self.admit_internal()?,
        };
        let gate = inner.put_subscription(change);
        self.work.notify_one();
        Ok(gate)
    }

    /// Gives an entry its place whose links by name start at the tails that their streams have
    /// there. `tails` is what the catalogue said after `asked` folds; `None`: ask it again.
    pub(crate) fn place(
        &self,
        tails: &Tails,
        asked: Folds,
        change: impl FnOnce(Vec<Placed>) -> Change,
    ) -> Result<Option<Arc<Gate>>, Error> {
        let mut inner = self.admit(0)?;
        if self.shelf.folds() != asked {
            weir_io::sometimes!("a link by name raced a fold and was looked up again");
            return Ok(None);
        }
        let mut placed = Vec::with_capacity(tails.len());
        for (path, stored) in tails {
            // What is not in memory is as the catalogue says (INV-11).
            let found = match self.shelf.get(path, |slot| slot.latest.clone()) {
                None => *stored,
                Some(None) => None,
                Some(Some(stream)) => {
                    let decided = stream.decided.lock();
                    let tail = (stream.identity.id, decided.state.tail());
                    (!decided.is_over()).then_some(tail)
                }
            };
            let (stream, acked) = match found {
                Some((id, tail)) => (Some(id), tail),
                None => (None, Offset::START),
            };
            placed.push(Placed { path: path.clone(), stream, acked });
        }
        let gate = inner.put_subscription(change(placed));
        self.work.notify_one();
        Ok(Some(gate))
    }

    /// Gives a wake its place, and right behind it the event that announces it, unless the stream
    /// for that takes nothing.
    pub(crate) fn announce(
        &self,
        change: Change,
        wake_stream: &StreamName,
        event: &Bytes,
        now: Now,
    ) -> Result<Announced, Error> {
        let mut inner = self.admit_internal()?;
        let Some(latest) = self.shelf.get(wake_stream, |slot| slot.latest.clone()) else {
            return Ok(Announced::Load(Missing::Name(wake_stream.clone()), change));
        };
        let gate = inner.put_subscription(change);
        self.work.notify_one();
        let Some(stream) = latest else {
            return Ok(Announced::Put(gate, Err(Rejection::NotFound)));
        };
        let mut decided = stream.decided.lock();
        if decided.is_over() || stream.has_expired(decided.state.deadline, now) {
            return Ok(Announced::Put(gate, Err(absence(&decided))));
        }
        let content = stream.identity.content.clone();
        let prepared = admit::prepare(&content, event);
        let append = Append::new(wake_stream.clone(), Some(content), event.clone());
        let verdict =
            decide::append::decide(&stream.identity, &decided.state, None, &append, prepared, now);
        let told = match verdict {
            Ok(verdict) => {
                stream.pulse.touch(now.store);
                let write = verdict.change.expect("an append without a producer is no duplicate");
                self.write(&mut inner, &stream, &mut decided, write);
                Ok(())
            }
            Err(rejection) => Err(rejection),
        };
        Ok(Announced::Put(gate, told))
    }
}

impl super::Inner {
    fn put_subscription(&mut self, mut change: Change) -> Arc<Gate> {
        let entry = Entry::Subscription(change.entry);
        self.encode(&entry);
        let Entry::Subscription(entry) = entry else { unreachable!("as made above") };
        change.entry = entry;
        self.effect(Effect::Subscription(Box::new(change)));
        Arc::clone(&self.open.gate)
    }
}
