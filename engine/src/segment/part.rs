//! Parts: the consecutive records of one stream within one block.
//!
//! ```text
//! payload  {"a":1},{"b":2},{"c":3}        records 40..43
//! lengths   7       7       7
//! times    2 × 1000         1 × 1005      runs of equal timestamps
//! keys     1 × "x"  2 × none              runs of equal routing keys
//! ```
//! All tables are checked when a block is decoded, so the questions below have answers.

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{fields::Take, format::Damaged};
use crate::types::{Chunk, Ends, Form, Records, Seq, StreamId, WallMs, separator_len};

/// A value that holds for the records up to an index of the part.
#[derive(Clone, Copy, Debug)]
struct Run<T> {
    limit: usize,
    value: T,
}

type Runs<T> = SmallVec<[Run<T>; 1]>;

/// Consecutive records of one stream. Never empty.
#[derive(Debug)]
pub(crate) struct Part {
    stream: StreamId,
    form: Form,
    first: Seq,
    records: Records,
    times: Runs<WallMs>,
    /// Index into the dictionary plus one, or zero for no key.
    keys: Runs<usize>,
    dictionary: Box<[Bytes]>,
}

/// What a block's directory says of a part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline {
    pub(super) stream: StreamId,
    pub(super) form: Form,
    pub(super) first: Seq,
    pub(super) count: usize,
    pub(super) table_len: usize,
    pub(super) payload_len: usize,
}

impl Part {
    /// Whose records they are.
    pub(crate) const fn stream(&self) -> StreamId {
        self.stream
    }

    /// Whether `,` stands between two records.
    pub(crate) const fn form(&self) -> Form {
        self.form
    }

    /// The first record.
    pub(crate) const fn first(&self) -> Seq {
        self.first
    }

    /// How many records there are; at least one.
    pub(crate) fn count(&self) -> u64 {
        self.records.count()
    }

    /// The position after the last record.
    pub(crate) fn limit(&self) -> Seq {
        self.first.after(self.count())
    }

    /// The records of `range` in wire form, without copying; what lies outside the part is
    /// left out.
    pub(crate) fn slice(&self, range: Range<Seq>) -> Bytes {
        let range = self.indexes(range);
        self.records.payload.slice(self.bytes_of(range))
    }

    /// The routing key of a record of this part.
    #[allow(dead_code, reason = "what a keyed read asks of one record")]
    pub(crate) fn key_of(&self, seq: Seq) -> Option<&Bytes> {
        self.key(*value_at(&self.keys, self.index_of(seq)))
    }

    /// The timestamp of a record of this part.
    pub(crate) fn timestamp_of(&self, seq: Seq) -> WallMs {
        *value_at(&self.times, self.index_of(seq))
    }

    /// Timestamp of the newest record.
    pub(crate) fn newest(&self) -> WallMs {
        self.times.last().expect("a part has a record").value
    }

    /// The first record whose timestamp is not before `since`.
    pub(crate) fn first_at_or_after(&self, since: WallMs) -> Option<Seq> {
        let run = self.times.partition_point(|run| run.value < since);
        if run == self.times.len() {
            return None;
        }
        let index = run.checked_sub(1).map_or(0, |before| self.times[before].limit);
        Some(self.seq_at(index))
    }

    /// How far a page from `from` reaches whose records take at most `bytes_max` bytes in
    /// wire form; past one record in any case. `from` must be in the part.
    pub(crate) fn limit_within(&self, from: Seq, bytes_max: usize) -> Seq {
        let from = self.index_of(from);
        let fitting = match &self.records.ends {
            Ends::One => 1,
            Ends::Many(ends) => {
                let start = self.bytes_of(from..from + 1).start;
                ends.partition_point(|&end| to_usize(end) <= start.saturating_add(bytes_max))
            }
        };
        self.seq_at(fitting.max(from + 1))
    }

    /// The records of `range` as chunks with one timestamp and one key each, payloads
    /// shared. Chunk borders are where either changes, not where appends began.
    pub(crate) fn chunks(&self, range: Range<Seq>) -> impl Iterator<Item = Chunk> + '_ {
        let Range { mut start, end } = self.indexes(range);
        std::iter::from_fn(move || {
            if start >= end {
                return None;
            }
            let time = run_at(&self.times, start);
            let key = run_at(&self.keys, start);
            let limit = end.min(time.limit).min(key.limit);
            let chunk = Chunk {
                first: self.seq_at(start),
                records: self.records_of(start..limit),
                timestamp: time.value,
                key: self.key(key.value).cloned(),
            };
            start = limit;
            Some(chunk)
        })
    }

    /// Bytes held beside the payload.
    pub(super) fn table_bytes(&self) -> usize {
        let ends = match &self.records.ends {
            Ends::One => 0,
            Ends::Many(ends) => size_of_val(&**ends),
        };
        let runs = size_of_val(&*self.times) + size_of_val(&*self.keys);
        size_of::<Self>() + ends + runs + size_of_val(&*self.dictionary)
    }

    fn records_of(&self, range: Range<usize>) -> Records {
        let bytes = self.bytes_of(range.clone());
        let ends = match &self.records.ends {
            Ends::Many(ends) if range.len() > 1 => {
                let start = u32::try_from(bytes.start).expect("below a record end");
                ends[range].iter().map(|end| end - start).collect()
            }
            _ => return Records::one(self.records.payload.slice(bytes)),
        };
        Records { payload: self.records.payload.slice(bytes), ends: Ends::Many(ends) }
    }

    fn bytes_of(&self, range: Range<usize>) -> Range<usize> {
        self.records.ends.slice(range, self.records.payload.len(), self.form)
    }

    fn key(&self, value: usize) -> Option<&Bytes> {
        value.checked_sub(1).map(|index| &self.dictionary[index])
    }

    fn seq_at(&self, index: usize) -> Seq {
        self.first.after(u64::try_from(index).expect("usize fits u64"))
    }

    fn index_of(&self, seq: Seq) -> usize {
        assert!(seq >= self.first, "asked for a record before the part");
        assert!(seq < self.limit(), "asked for a record after the part");
        usize::try_from(seq.since(self.first)).expect("a part's records fit memory")
    }

    fn indexes(&self, range: Range<Seq>) -> Range<usize> {
        let clamp = |seq: Seq| {
            let index = seq.min(self.limit()).since(self.first);
            usize::try_from(index).expect("a part's records fit memory")
        };
        let (start, end) = (clamp(range.start), clamp(range.end));
        start..end.max(start)
    }
}

fn run_at<T: Copy>(runs: &[Run<T>], index: usize) -> Run<T> {
    runs[runs.partition_point(|run| run.limit <= index)]
}

fn value_at<T>(runs: &[Run<T>], index: usize) -> &T {
    &runs[runs.partition_point(|run| run.limit <= index)].value
}

fn to_usize(value: u32) -> usize {
    usize::try_from(value).expect("u32 fits usize")
}

impl Outline {
    /// Reads the part's table from `take`; its payload is given.
    pub(super) fn fill(
        &self,
        take: &mut Take<'_>,
        raw: &Bytes,
        payload: Bytes,
    ) -> Result<Part, Damaged> {
        let start = take.at();
        let ends = self.ends(take)?;
        let times = self.times(take)?;
        let dictionary = dictionary(take, raw)?;
        let keys = if dictionary.is_empty() {
            SmallVec::from_elem(Run { limit: self.count, value: 0 }, 1)
        } else {
            self.runs(take, |take, _| {
                let value = take.len()?;
                take.check(value <= dictionary.len(), "key outside the dictionary")?;
                Ok(value)
            })?
        };
        take.check(take.at() - start == self.table_len, "length of a table")?;
        Ok(Part {
            stream: self.stream,
            form: self.form,
            first: self.first,
            records: Records { payload, ends },
            times,
            keys,
            dictionary,
        })
    }

    fn ends(&self, take: &mut Take<'_>) -> Result<Ends, Damaged> {
        let separator = separator_len(self.form);
        let mut ends = Vec::with_capacity(if self.count == 1 { 0 } else { self.count });
        let mut end = 0usize;
        for index in 0..self.count {
            let len = take.len()?;
            take.check(len > 0, "empty record")?;
            let before = if index == 0 { 0 } else { separator };
            let sum = end.checked_add(before).and_then(|start| start.checked_add(len));
            end =
                sum.filter(|&end| end <= self.payload_len).ok_or(take.damaged("record lengths"))?;
            if self.count > 1 {
                ends.push(u32::try_from(end).map_err(|_| take.damaged("part over 4 GiB"))?);
            }
        }
        take.check(end == self.payload_len, "record lengths")?;
        Ok(if self.count == 1 { Ends::One } else { Ends::Many(ends.into_boxed_slice()) })
    }

    fn times(&self, take: &mut Take<'_>) -> Result<Runs<WallMs>, Damaged> {
        self.runs(take, |take, before: Option<WallMs>| {
            let delta = take.varint()?;
            let time = before.map_or(0, WallMs::get).checked_add(delta);
            Ok(WallMs::new(time.ok_or(take.damaged("timestamp over 64 bits"))?))
        })
    }

    /// Reads runs that together cover the records; `value` is given the run before's.
    fn runs<T: Copy>(
        &self,
        take: &mut Take<'_>,
        value: impl Fn(&mut Take<'_>, Option<T>) -> Result<T, Damaged>,
    ) -> Result<Runs<T>, Damaged> {
        let count = take.count()?;
        let mut runs: Runs<T> = SmallVec::with_capacity(count);
        for _ in 0..count {
            let len = take.len()?;
            take.check(len > 0, "empty run")?;
            let start = runs.last().map_or(0, |run| run.limit);
            let limit = start.checked_add(len).filter(|&limit| limit <= self.count);
            let limit = limit.ok_or(take.damaged("runs exceed the records"))?;
            let value = value(take, runs.last().map(|run| run.value))?;
            runs.push(Run { limit, value });
        }
        let covered = runs.last().map_or(0, |run| run.limit);
        take.check(covered == self.count, "runs fall short of the records")?;
        Ok(runs)
    }
}

fn dictionary(take: &mut Take<'_>, raw: &Bytes) -> Result<Box<[Bytes]>, Damaged> {
    let count = take.count()?;
    let mut keys = Vec::with_capacity(count);
    for _ in 0..count {
        let len = take.len()?;
        keys.push(raw.slice(take.range(len)?));
    }
    Ok(keys.into_boxed_slice())
}
