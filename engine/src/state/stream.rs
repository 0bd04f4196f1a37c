//! The state of one stream as the fold of its log entries, without its records.
//!
//! [`StreamState::apply`] is the only writer of state: the sequencer applies what it decided to
//! its speculative copy, the writer applies what became durable to the visible one, and replay
//! applies what it reads. It consults no clock and no disk.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::kept::Kept;
use crate::{
    limits,
    log::entry::{Create, Trim, Write},
    types::{
        Ancestry, ContentType, Expiry, Form, Lineage, Lsn, Offset, ProducerId, ProducerTuple, Seq,
        StoreMs, StreamId, StreamName, WallMs,
    },
};

/// What never changes in an incarnation of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) id: StreamId,
    pub(crate) name: StreamName,
    pub(crate) content: ContentType,
    pub(crate) expiry: Expiry,
    pub(crate) created: WallMs,
    /// Where its first records come from, if it is a fork.
    pub(crate) fork: Option<Arc<Ancestry>>,
}

impl Identity {
    /// The first position that is the stream's own, not inherited.
    pub(crate) fn own_start(&self) -> Seq {
        self.fork.as_ref().map_or(Seq::ZERO, |fork| fork.at)
    }
}

/// Who closed a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClosedBy {
    /// The request that did, if a producer sent it: its repetition is a duplicate.
    pub(crate) producer: Option<ProducerTuple>,
}

/// The fold of a stream's entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamState {
    pub(crate) lineage: Lineage,
    /// The tail: one past the last record.
    pub(crate) next: Seq,
    pub(crate) closed: Option<ClosedBy>,
    pub(crate) stream_seq: Option<Bytes>,
    pub(crate) last_append: WallMs,
    /// When a sliding window passes at the latest, in store time.
    pub(crate) deadline: Option<StoreMs>,
    /// How its bytes are treated, as its content type says.
    pub(crate) form: Form,
    /// Payload bytes ever appended.
    pub(crate) bytes: u64,
    pub(crate) kept: Kept,
    /// How many producers have state.
    pub(crate) producers: u32,
    /// Forks that draw on this stream directly.
    pub(crate) refs: u64,
    /// Deleted, but kept for its forks.
    pub(crate) retired: bool,
    /// The last entry folded in.
    pub(crate) lsn: Lsn,
}

impl StreamState {
    /// The state of a new stream.
    pub(crate) fn new(create: &Create, lsn: Lsn) -> Self {
        Self {
            lineage: create.lineage.clone(),
            next: create.fork.as_ref().map_or(Seq::ZERO, |fork| fork.at),
            closed: None,
            stream_seq: None,
            last_append: create.last_append,
            deadline: create.deadline,
            form: create.content.form(),
            bytes: 0,
            kept: Kept::new(create),
            producers: 0,
            refs: 0,
            retired: false,
            lsn,
        }
    }

    pub(crate) fn tail(&self) -> Offset {
        self.lineage.offset(self.next)
    }

    /// Where what can be read begins.
    pub(crate) fn earliest(&self) -> Offset {
        self.lineage.offset(self.kept.earliest)
    }

    /// Lets go of the oldest records.
    pub(crate) fn trim(&mut self, trim: &Trim, lsn: Lsn) {
        assert!(trim.earliest <= self.next, "INV-31 what is not there yet is not trimmed");
        self.kept.trim(trim, lsn);
        self.lsn = lsn;
    }

    /// Folds one write in.
    pub(crate) fn apply(&mut self, write: &Write, lsn: Lsn) {
        assert!(self.closed.is_none(), "INV-6 closed is final: decide refuses writes to it");
        assert!(write.first == self.next, "INV-3 offsets are dense: a write starts at the tail");
        if let Some(records) = &write.records {
            self.next = self.next.after(records.count());
            self.bytes += u64::try_from(records.payload.len()).expect("usize fits u64");
            assert!(write.timestamp >= self.last_append, "INV-9 timestamps never decrease");
            self.last_append = write.timestamp;
            self.kept.wrote(records, write.timestamp, self.form);
        }
        if write.introduces {
            self.producers += 1;
        }
        if let Some(seq) = &write.stream_seq {
            self.stream_seq = Some(seq.clone());
        }
        if write.closes {
            self.closed = Some(ClosedBy { producer: write.producer.clone() });
        }
        self.deadline = write.deadline.or(self.deadline);
        self.lsn = lsn;
    }
}

/// What a stream remembers of one producer (protocol §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: u64,
    /// The highest accepted sequence of that epoch.
    pub(crate) seq: u64,
    /// Where its last requests ended, oldest first; the last one is that of `seq`.
    pub(crate) ends: SmallVec<[Seq; 2]>,
}

impl Producer {
    /// The state after an accepted request that ends at `end`.
    pub(crate) fn after(known: Option<&Self>, tuple: &ProducerTuple, end: Seq) -> Self {
        let same = known.is_some_and(|known| known.epoch == tuple.epoch);
        let turn = known.filter(|_| same).map_or(0, |known| known.seq + 1);
        assert!(tuple.seq == turn, "INV-5 a producer's requests are accepted once, in order");
        let mut ends = match known {
            Some(known) if same => known.ends.clone(),
            _ => SmallVec::new(),
        };
        if ends.len() == limits::PRODUCER_ENDS_KEPT {
            ends.remove(0);
        }
        ends.push(end);
        Self { epoch: tuple.epoch, seq: tuple.seq, ends }
    }

    /// Where request `seq` of this epoch ended, if that is still remembered.
    pub(crate) fn end_of(&self, seq: u64) -> Option<Seq> {
        let back = usize::try_from(self.seq.checked_sub(seq)?).ok()?;
        let index = self.ends.len().checked_sub(back + 1)?;
        self.ends.get(index).copied()
    }
}

/// A producer's name with its state.
pub(crate) type ProducerRow = (ProducerId, Producer);
