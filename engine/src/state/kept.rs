//! What a stream keeps of its records: the limits it was given, where the readable part begins, and
//! what a decision to let go of more needs to know. Part of the fold of its entries.

use crate::{
    log::entry::{Create, Trim},
    types::{Form, Lsn, Records, Retention, Seq, WallMs},
};

/// What a stream keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) retention: Retention,
    /// The first position that can be read, inherited or its own.
    pub(crate) earliest: Seq,
    /// Bytes of its own records from there on, without what stands between two.
    pub(crate) bytes: u64,
    /// Bytes of its own records before that.
    pub(crate) dropped: u64,
    /// Timestamp of the record at `earliest`, if there is one.
    pub(crate) oldest: Option<WallMs>,
    /// Bytes of the first of its own records that is kept; zero if there is none.
    pub(crate) head_bytes: u64,
    /// The commit that moved `earliest` last; zero: none did.
    pub(crate) trimmed: Lsn,
}

impl Kept {
    /// What a new stream keeps: all of it, and of its source what that kept then.
    pub(crate) const fn new(create: &Create) -> Self {
        Self {
            retention: create.retention,
            earliest: create.earliest,
            bytes: 0,
            dropped: 0,
            oldest: create.oldest,
            head_bytes: 0,
            trimmed: Lsn::ZERO,
        }
    }

    /// Folds records in that were appended.
    pub(crate) fn wrote(&mut self, records: &Records, timestamp: WallMs, form: Form) {
        if self.bytes == 0 {
            self.head_bytes = records.bytes_of(0, form);
        }
        self.oldest.get_or_insert(timestamp);
        self.bytes += records.own_bytes(form);
    }

    /// Folds a trim in.
    pub(crate) fn trim(&mut self, trim: &Trim, lsn: Lsn) {
        assert!(trim.earliest > self.earliest, "INV-31 the earliest position only moves forward");
        let left = self.bytes.checked_sub(trim.dropped);
        self.bytes = left.expect("INV-31 a trim drops what is there");
        self.dropped += trim.dropped;
        self.earliest = trim.earliest;
        self.oldest = trim.oldest;
        self.head_bytes = trim.head_bytes;
        self.trimmed = lsn;
    }
}
