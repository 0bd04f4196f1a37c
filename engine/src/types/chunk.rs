//! The records of one append, where they stand in their stream.

use bytes::Bytes;

use super::{Records, Seq, WallMs};

/// Consecutive records that came together: one timestamp, one routing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Position of the first record.
    pub first: Seq,
    /// The records in wire form.
    pub records: Records,
    /// When they were appended.
    pub timestamp: WallMs,
    /// Their routing key.
    pub key: Option<Bytes>,
}

impl Chunk {
    /// Bytes this takes in memory, about: what a bound on memory counts.
    #[must_use]
    pub fn cost(&self) -> usize {
        let key = self.key.as_ref().map_or(0, Bytes::len);
        self.records.payload.len() + key + size_of::<Self>()
    }

    /// The position after the last record.
    #[must_use]
    pub fn limit(&self) -> Seq {
        self.first.after(self.records.count())
    }
}
