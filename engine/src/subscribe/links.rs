//! The links of one subscription, as the log makes them.
//!
//! Only links that say something are kept: those with work, and those by name. A stream that
//! merely matches the pattern and has no work is linked at its tail, whatever that is; so a
//! pattern over a million quiet streams costs nothing. A pending link takes about 90 bytes
//! beside the text of its name.

use std::collections::BTreeMap;

use super::{
    entry::Acked,
    request::{self, Link, LinkType},
};
use crate::types::{Epoch, Offset, Seq, StreamId, StreamName};

/// The links that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links {
    /// With work, by name.
    pending: BTreeMap<StreamName, Stored>,
    /// Named ones without work.
    rested: BTreeMap<StreamName, Stored>,
    /// How many were named.
    explicit: usize,
}

/// A link that is kept. Fields lie side by side so that one takes 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    acked_next: Seq,
    tail_next: Seq,
    /// Zero: there is no stream. None has that id.
    stream: StreamId,
    acked_epoch: Epoch,
    tail_epoch: Epoch,
    kind: LinkType,
}

const _: () = assert!(size_of::<Stored>() <= 40);

impl Stored {
    pub(crate) fn new(
        kind: LinkType,
        stream: Option<StreamId>,
        acked: Offset,
        tail: Offset,
    ) -> Self {
        Self {
            acked_next: acked.next,
            tail_next: tail.next,
            stream: stream.unwrap_or(StreamId::ZERO),
            acked_epoch: acked.epoch,
            tail_epoch: tail.epoch,
            kind,
        }
    }

    pub(crate) const fn kind(&self) -> LinkType {
        self.kind
    }

    /// Which incarnation of the name; `None` if there is no stream.
    pub(crate) fn stream(&self) -> Option<StreamId> {
        Some(self.stream).filter(|id| *id != StreamId::ZERO)
    }

    /// Everything before this has been processed.
    pub(crate) const fn acked(&self) -> Offset {
        Offset { epoch: self.acked_epoch, next: self.acked_next }
    }

    /// The stream's tail.
    pub(crate) const fn tail(&self) -> Offset {
        Offset { epoch: self.tail_epoch, next: self.tail_next }
    }

    fn is_pending(&self) -> bool {
        self.tail() > self.acked()
    }

    const fn set_tail(&mut self, tail: Offset) {
        (self.tail_epoch, self.tail_next) = (tail.epoch, tail.next);
    }
}

impl Links {
    /// How many streams have work.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// How many were named.
    pub(crate) const fn explicit(&self) -> usize {
        self.explicit
    }

    /// Some stream with work.
    pub(crate) fn first_pending(&self) -> Option<&StreamName> {
        self.pending.keys().next()
    }

    /// A link, if it is kept.
    pub(crate) fn get(&self, name: &StreamName) -> Option<&Stored> {
        self.pending.get(name).or_else(|| self.rested.get(name))
    }

    /// Those that were named.
    pub(crate) fn named(&self) -> impl Iterator<Item = &StreamName> {
        let pending = self.pending.iter().filter(|(_, link)| link.kind == LinkType::Explicit);
        pending.chain(&self.rested).map(|(name, _)| name)
    }

    /// Up to `limit` links: those with work, then others that were named.
    pub(crate) fn list(&self, limit: usize) -> request::Links {
        let all = self.pending.iter().chain(&self.rested).take(limit);
        let listed = all.map(|(name, link)| Link {
            path: name.clone(),
            kind: link.kind,
            acked: link.acked(),
            tail: link.tail(),
        });
        let pending = u64::try_from(self.pending.len()).expect("usize fits u64");
        request::Links { listed: listed.collect(), pending }
    }

    /// Up to `limit` streams with work, each up to its tail: what the list says is to be done.
    pub(crate) fn snapshot(&self, limit: usize) -> Vec<Acked> {
        let pending = self.pending.iter().take(limit).map(|(path, link)| Acked {
            path: path.clone(),
            stream: link.stream,
            offset: link.tail(),
        });
        pending.collect()
    }

    /// Records came to a stream that concerns the subscription: its tail was `before`, now it is
    /// `after`. Returns whether a link changed.
    pub(crate) fn touch(
        &mut self,
        name: &StreamName,
        stream: StreamId,
        before: Offset,
        after: Offset,
    ) -> bool {
        if let Some(link) = self.pending.get_mut(name)
            && link.stream == stream
        {
            let moves = after > link.tail();
            if moves {
                link.set_tail(after);
            }
            return moves;
        }
        let link = match self.remove(name) {
            Some(link) if link.stream == stream => {
                Stored::new(link.kind, Some(stream), link.acked(), after.max(link.tail()))
            }
            // A stream that was not there when it was named, or another one of that name.
            Some(link) => Stored::new(link.kind, Some(stream), Offset::START, after),
            // Without a link everything before was processed, or was there before the link.
            None => {
                let acked = if before.next == Seq::ZERO { Offset::START } else { before };
                Stored::new(LinkType::Glob, Some(stream), acked, after)
            }
        };
        self.put(name.clone(), link);
        true
    }

    /// A worker has processed a stream up to `offset`. Acks of what is not linked, or is acked
    /// already, change nothing: replay may meet them again. Returns whether a link changed.
    pub(crate) fn ack(&mut self, name: &StreamName, stream: StreamId, offset: Offset) -> bool {
        let link = match self.pending.get(name) {
            Some(link) if link.stream == stream && offset > link.acked() => *link,
            _ => return false,
        };
        let next = Stored::new(link.kind, Some(stream), offset, link.tail());
        assert!(next.acked() > link.acked(), "INV-25 an acked cursor never moves back");
        self.remove(name);
        self.put(name.clone(), next);
        true
    }

    /// A stream has ended. A link by name waits for the next stream of that name. Returns whether
    /// a link changed.
    pub(crate) fn ended(&mut self, name: &StreamName, stream: StreamId) -> bool {
        if self.get(name).is_none_or(|link| link.stream != stream) {
            return false;
        }
        let link = self.remove(name).expect("found above");
        if link.kind == LinkType::Explicit {
            self.put(name.clone(), Stored::new(link.kind, None, Offset::START, Offset::START));
        }
        true
    }

    /// Names a stream: a link that is there keeps its place, else it starts at `acked`. Returns
    /// whether a link changed.
    pub(crate) fn name(
        &mut self,
        name: &StreamName,
        stream: Option<StreamId>,
        acked: Offset,
    ) -> bool {
        let kept = self.remove(name);
        let kind = LinkType::Explicit;
        let link = match kept {
            Some(link) => Stored { kind, ..link },
            None => Stored::new(kind, stream, acked, acked),
        };
        self.put(name.clone(), link);
        kept != Some(link)
    }

    /// Takes a name back; what the pattern matches too (`matches`) stays linked by it. Returns
    /// whether a link changed.
    pub(crate) fn unname(&mut self, name: &StreamName, matches: bool) -> bool {
        if self.get(name).is_none_or(|link| link.kind != LinkType::Explicit) {
            return false;
        }
        let link = self.remove(name).expect("found above");
        if matches {
            self.put(name.clone(), Stored { kind: LinkType::Glob, ..link });
        }
        true
    }

    /// Keeps a link if it says something.
    pub(crate) fn put(&mut self, name: StreamName, link: Stored) {
        let before = if link.is_pending() {
            self.pending.insert(name, link)
        } else if link.kind == LinkType::Explicit {
            self.rested.insert(name, link)
        } else {
            return;
        };
        assert!(before.is_none(), "a link is taken out before it is put back");
        self.explicit += usize::from(link.kind == LinkType::Explicit);
    }

    fn remove(&mut self, name: &StreamName) -> Option<Stored> {
        let link = self.pending.remove(name).or_else(|| self.rested.remove(name))?;
        self.explicit -= usize::from(link.kind == LinkType::Explicit);
        Some(link)
    }
}

#[cfg(test)]
mod tests;
