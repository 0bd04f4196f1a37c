//! Records in wire form: the bytes a reader will receive, with the ends of the records
//! beside them.
//!
//! JSON messages are joined by one `,`; other records lie back to back. So any range of
//! records is one contiguous slice of a response body:
//!
//! ```text
//! JSON   {"a":1},{"b":2}      ends 7, 15      record 1 = bytes 8..15
//! other  onetwo               ends 3, 6       record 1 = bytes 3..6
//! ```

use std::ops::Range;

use bytes::Bytes;

use super::Form;

/// Where the records of one append end, relative to the start of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// One record that fills the bytes.
    One,
    /// Several records: strictly increasing ends, the last one the length of the bytes.
    Many(Box<[u32]>),
}

/// The records of one append: never empty bytes without a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// The bytes in wire form.
    pub payload: Bytes,
    /// Where each record ends.
    pub ends: Ends,
}

impl Records {
    /// One record.
    #[must_use]
    pub const fn one(payload: Bytes) -> Self {
        Self { payload, ends: Ends::One }
    }

    /// How many records there are; at least one.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ends.count()
    }

    /// The bytes of all records, without what stands between them.
    #[must_use]
    pub fn own_bytes(&self, form: Form) -> u64 {
        let separators = u64::try_from(separator_len(form)).expect("usize fits u64");
        let payload = u64::try_from(self.payload.len()).expect("usize fits u64");
        payload - (self.count() - 1) * separators
    }

    /// The bytes of one record, by its index.
    #[must_use]
    pub fn bytes_of(&self, index: usize, form: Form) -> u64 {
        let range = self.ends.slice(index..index + 1, self.payload.len(), form);
        u64::try_from(range.len()).expect("usize fits u64")
    }
}

impl Ends {
    /// How many records there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::One => 1,
            Self::Many(ends) => u64::try_from(ends.len()).expect("usize fits u64"),
        }
    }

    /// The byte range of records `range` (indexes within this append) of a payload of
    /// `payload_len` bytes, separators between them included, those around them not.
    #[must_use]
    pub fn slice(&self, range: Range<usize>, payload_len: usize, form: Form) -> Range<usize> {
        match self {
            Self::One if range.is_empty() => 0..0,
            Self::One => 0..payload_len,
            Self::Many(_) if range.is_empty() => 0..0,
            Self::Many(ends) => {
                let end = ends[range.end - 1] as usize;
                let start = match range.start.checked_sub(1) {
                    None => 0,
                    Some(before) => ends[before] as usize + separator_len(form),
                };
                start..end
            }
        }
    }
}

/// How many bytes lie between two records.
#[must_use]
pub const fn separator_len(form: Form) -> usize {
    match form {
        Form::Json => 1,
        Form::Text | Form::Binary => 0,
    }
}
