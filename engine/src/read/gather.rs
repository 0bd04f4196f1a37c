//! Collects consecutive records into the pieces of one page.
//!
//! Small pieces are copied together, large ones are shared: a page of many small appends is one
//! buffer, a page out of large ones copies nothing.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    history::Deadline,
    segment::Part,
    state::chunks::Chunks,
    types::{Ends, Form, Seq},
};

/// Pieces shorter than this are copied.
const COPY_BYTES_MAX: usize = 4096;

/// A page in the making.
pub(crate) struct Gather {
    form: Form,
    key: Option<Bytes>,
    bytes_max: usize,
    scan_left: usize,
    /// The first record not yet looked at.
    pub(crate) next: Seq,
    start: Seq,
    pub(crate) records: u64,
    bytes: usize,
    pieces: Vec<Bytes>,
    small: BytesMut,
    done: bool,
    /// Until when the page waits for blocks from the bucket.
    pub(crate) deadline: Deadline,
}

impl Gather {
    pub(crate) fn new(
        form: Form,
        key: Option<Bytes>,
        bytes_max: usize,
        scan_bytes_max: usize,
        start: Seq,
        deadline: Deadline,
    ) -> Self {
        Self {
            form,
            key,
            bytes_max,
            scan_left: scan_bytes_max,
            next: start,
            start,
            records: 0,
            bytes: 0,
            pieces: Vec::new(),
            small: BytesMut::new(),
            done: false,
            deadline,
        }
    }

    /// Whether the page has its fill.
    pub(crate) const fn is_done(&self) -> bool {
        self.done
    }

    /// Whether it takes the records of one key only.
    pub(crate) const fn is_keyed(&self) -> bool {
        self.key.is_some()
    }

    /// Whether it has looked at any record.
    pub(crate) fn has_begun(&self) -> bool {
        self.next > self.start
    }

    /// The page ends here, whatever it has.
    pub(crate) const fn end(&mut self) {
        self.done = true;
    }

    /// Payload bytes that still fit.
    pub(crate) const fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes)
    }

    /// Takes from a part of a segment's block all that are wanted and fit, up to `limit`.
    pub(crate) fn take_part(&mut self, part: &Part, limit: Seq) {
        let limit = limit.min(part.limit());
        if self.key.is_some() {
            for chunk in part.chunks(self.next..limit) {
                if self.done {
                    return;
                }
                let records = &chunk.records;
                self.take(chunk.first..limit, &records.ends, &records.payload, chunk.key.as_ref());
            }
            return;
        }
        let room = self.room();
        let fitting = part.limit_within(self.next, room).min(limit);
        let piece = part.slice(self.next..fitting);
        if self.records > 0 && piece.len() > room {
            self.done = true;
            return;
        }
        self.push(piece);
        self.records += fitting.since(self.next);
        self.next = fitting;
        self.done = fitting < limit || self.bytes >= self.bytes_max;
    }

    /// Takes from records in memory all that are wanted and fit, up to `limit`.
    pub(crate) fn take_chunks(&mut self, chunks: &Chunks, limit: Seq) {
        let from = self.next;
        for chunk in chunks.beyond(|chunk| chunk.limit() <= from) {
            if self.done || self.next >= limit {
                return;
            }
            assert!(chunk.first <= self.next, "INV-4 no hole between records in memory");
            let records = &chunk.records;
            let key = chunk.key.as_ref();
            self.take(chunk.first..limit, &records.ends, &records.payload, key);
        }
    }

    /// Takes from one run of records with one key, of which the first has position
    /// `within.start`, those that are wanted, fit and lie before `within.end`.
    pub(crate) fn take(
        &mut self,
        within: Range<Seq>,
        ends: &Ends,
        payload: &Bytes,
        key: Option<&Bytes>,
    ) {
        let first = within.start;
        let skip = usize::try_from(self.next.since(first)).expect("checked by the caller");
        let limit = first.after(ends.count()).min(within.end);
        let count = usize::try_from(limit.since(first)).expect("bounded by the body limit");
        if self.key.is_some() && self.key.as_ref() != key {
            self.pass_over(payload.len(), limit);
            return;
        }
        let fits = self.fitting(skip, count, ends, payload.len());
        if fits == skip {
            self.done = true;
            return;
        }
        let range = ends.slice(skip..fits, payload.len(), self.form);
        self.push(payload.slice(range));
        let taken = u64::try_from(fits - skip).expect("usize fits u64");
        self.records += taken;
        self.next = self.next.after(taken);
        self.done = fits < count || self.bytes >= self.bytes_max;
    }

    /// Skips records that are not wanted; a page may skip only so many bytes.
    pub(crate) fn pass_over(&mut self, bytes: usize, limit: Seq) {
        self.next = limit;
        self.scan_left = self.scan_left.saturating_sub(bytes);
        self.done = self.scan_left == 0;
    }

    /// How many of the records `..count` can be on the page; always one if the page is empty.
    fn fitting(&self, skip: usize, count: usize, ends: &Ends, payload_len: usize) -> usize {
        let room = self.room();
        let fits = |limit: usize| ends.slice(skip..limit, payload_len, self.form).len() <= room;
        if fits(count) {
            return count;
        }
        // Largest limit that fits, by halving: `skip` fits (nothing), `count` does not.
        let (mut good, mut bad) = (skip, count);
        while bad - good > 1 {
            let middle = good.midpoint(bad);
            if fits(middle) { good = middle } else { bad = middle }
        }
        if good == skip && self.records == 0 { skip + 1 } else { good }
    }

    fn push(&mut self, piece: Bytes) {
        if self.records > 0 && self.form == Form::Json {
            self.small.put_u8(b',');
            self.bytes += 1;
        }
        self.bytes += piece.len();
        if piece.len() < COPY_BYTES_MAX && self.records > 0 {
            self.small.put_slice(&piece);
            return;
        }
        if !self.small.is_empty() {
            let small = self.small.split().freeze();
            self.pieces.push(small);
        }
        self.pieces.push(piece);
    }

    /// The pieces and the sum of their lengths.
    pub(crate) fn into_pieces(mut self) -> (Vec<Bytes>, usize) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.freeze());
        }
        (self.pieces, self.bytes)
    }
}
