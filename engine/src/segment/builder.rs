//! Writes a segment: records in order go in, blocks stream out.
//!
//! Held in memory are one open block, the index (56 bytes a block) and the ids of the
//! streams (8 bytes each); everything else has gone to the sink. Asserts the order of
//! what is pushed: streams ascend, a stream's records ascend and its timestamps do not
//! descend. The caller makes the sink durable after [`Builder::finish`].

use std::{collections::BTreeMap, io, ops::Range};

use bytes::Bytes;

use super::{
    block,
    fields::{put_len, put_varint, varint_len},
    filter::Filter,
    format::{Codec, Entry, Footer, Header, Span, Trailer},
    part::Outline,
    reader::encode_index,
};
use crate::{
    limits,
    types::{Chunk, Form, Lsn, SegmentId, Seq, StreamId, WallMs, separator_len},
};

/// Where the bytes go, one call after the other.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

/// What a part costs beside its tables and payload, at most but for absurd lengths: the
/// block closes by this estimate, nothing depends on its being exact.
const PART_BYTES: usize = 32;
/// The same for a run of timestamps and a run of keys.
const RUN_BYTES: usize = 12;

/// A segment being written.
pub(crate) struct Builder<'a> {
    codec: Codec,
    output: Output<'a>,
    open: OpenBlock,
    index: Vec<Entry>,
    /// The streams so far, ascending.
    streams: Vec<u64>,
    /// Position after the last record, and its timestamp.
    last: Option<(Seq, WallMs)>,
    records: u64,
    raw_bytes: u64,
    oldest: Option<WallMs>,
    newest: WallMs,
}

impl<'a> Builder<'a> {
    /// Starts a segment and writes its header.
    pub(crate) fn new(
        store: [u8; 16],
        segment: SegmentId,
        codec: Codec,
        sink: Sink<'a>,
    ) -> io::Result<Self> {
        let mut output = Output { sink, offset: 0 };
        output.write(&Header { store, segment }.encode())?;
        Ok(Self {
            codec,
            output,
            open: OpenBlock::default(),
            index: Vec::new(),
            streams: Vec::new(),
            last: None,
            records: 0,
            raw_bytes: 0,
            oldest: None,
            newest: WallMs::ZERO,
        })
    }

    /// Adds records after everything added before.
    pub(crate) fn push(&mut self, stream: StreamId, form: Form, chunk: &Chunk) -> io::Result<()> {
        let continued = self.streams.last() == Some(&stream.get());
        if let Some((limit, timestamp)) = self.last.filter(|_| continued) {
            assert!(chunk.first >= limit, "records of a stream ascend");
            assert!(chunk.timestamp >= timestamp, "timestamps of a stream never decrease");
        } else {
            let ascends = self.streams.last().is_none_or(|&last| last < stream.get());
            assert!(ascends, "streams ascend");
            self.streams.push(stream.get());
        }
        let count = usize::try_from(chunk.records.count()).expect("its ends are in memory");
        let mut start = 0;
        while start < count {
            let seq = chunk.first.after(u64::try_from(start).expect("usize fits u64"));
            if self.open.must_close_before(stream, seq) {
                self.close_block()?;
            }
            let limit = self.open.fitting(form, chunk, start..count);
            if limit == start {
                assert!(!self.open.is_empty(), "an empty block takes any record");
                self.close_block()?;
                continue;
            }
            self.open.add(stream, form, chunk, start..limit);
            start = limit;
        }
        self.last = Some((chunk.limit(), chunk.timestamp));
        self.records += chunk.records.count();
        self.oldest = Some(self.oldest.map_or(chunk.timestamp, |at| at.min(chunk.timestamp)));
        self.newest = self.newest.max(chunk.timestamp);
        Ok(())
    }

    /// Writes what is left. The commits sealed into this segment are `first_lsn..=last_lsn`.
    pub(crate) fn finish(mut self, first_lsn: Lsn, last_lsn: Lsn) -> io::Result<Footer> {
        assert!(first_lsn <= last_lsn, "a segment holds a range of commits");
        if !self.open.is_empty() {
            self.close_block()?;
        }
        let index = self.output.section(&encode_index(&self.index))?;
        let filter = self.output.section(&Filter::build(&self.streams).encode())?;
        let footer = Footer {
            blocks: u32::try_from(self.index.len()).expect("2^32 blocks are 256 TiB"),
            records: self.records,
            streams: u64::try_from(self.streams.len()).expect("usize fits u64"),
            raw_bytes: self.raw_bytes,
            first_lsn,
            last_lsn,
            oldest: self.oldest.unwrap_or(WallMs::ZERO),
            newest: self.newest,
            index,
            filter,
        };
        let footer_span = self.output.section(&footer.encode())?;
        self.output.write(&Trailer { footer: footer_span }.encode())?;
        assert_eq!(self.output.offset, footer.file_bytes(), "the trailer is the end");
        Ok(footer)
    }

    fn close_block(&mut self) -> io::Result<()> {
        let open = std::mem::take(&mut self.open);
        let (raw, bounds) = open.lay_out();
        let stored = block::encode(&raw, self.codec);
        let len =
            |len: usize| u32::try_from(len).expect("a block is one record or near its target");
        self.index.push(Entry {
            offset: self.output.offset,
            stored_len: len(stored.len() - block::BLOCK_HEADER_LEN),
            raw_len: len(raw.len()),
            first: bounds.first,
            first_timestamp: bounds.first_timestamp,
            limit: bounds.limit,
        });
        self.raw_bytes += u64::from(len(raw.len()));
        self.output.write(&stored)
    }
}

/// The sink, and how much it has taken.
struct Output<'a> {
    sink: Sink<'a>,
    offset: u64,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        (self.sink)(bytes)?;
        self.offset += u64::try_from(bytes.len()).expect("usize fits u64");
        Ok(())
    }

    fn section(&mut self, bytes: &[u8]) -> io::Result<Span> {
        let len = u64::try_from(bytes.len()).expect("usize fits u64");
        let span = Span { offset: self.offset, len, crc: crc32c::crc32c(bytes) };
        self.write(bytes)?;
        Ok(span)
    }
}

/// The block that records are going into.
#[derive(Default)]
struct OpenBlock {
    outlines: Vec<Outline>,
    /// The tables of the closed parts.
    tables: Vec<u8>,
    /// The payloads of all parts.
    payloads: Vec<u8>,
    records: usize,
    first_timestamp: WallMs,
    part: Option<OpenPart>,
}

/// What the index will say of a block.
struct Bounds {
    first: (StreamId, Seq),
    first_timestamp: WallMs,
    limit: (StreamId, Seq),
}

impl OpenBlock {
    const fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// A part has no holes and a block one part per stream: behind a hole begins a block.
    fn must_close_before(&self, stream: StreamId, seq: Seq) -> bool {
        let open = self.part.as_ref().filter(|part| part.stream == stream);
        open.is_some_and(|part| part.limit() != seq)
    }

    /// How far records `range` of a chunk fit into what room is left. An empty block takes
    /// at least one, and one over the target leaves no room for another.
    fn fitting(&self, form: Form, chunk: &Chunk, range: Range<usize>) -> usize {
        let key_bytes = chunk.key.as_ref().map_or(0, Bytes::len);
        let open_bytes = self.part.as_ref().map_or(0, OpenPart::table_bytes);
        let mut bytes = self.payloads.len() + self.tables.len() + open_bytes;
        bytes += self.outlines.len() * PART_BYTES + PART_BYTES + RUN_BYTES + key_bytes;
        for index in range.clone() {
            let len = record(form, chunk, index..index + 1).len();
            bytes += len + separator_len(form) + varint_len(len);
            let records = self.records + (index - range.start);
            let over = bytes > limits::BLOCK_BYTES_TARGET || records == limits::BLOCK_RECORDS_MAX;
            if over && records > 0 {
                return index;
            }
        }
        range.end
    }

    /// Adds records `range` of a chunk.
    fn add(&mut self, stream: StreamId, form: Form, chunk: &Chunk, range: Range<usize>) {
        if self.is_empty() {
            self.first_timestamp = chunk.timestamp;
        }
        if self.part.as_ref().is_some_and(|part| part.stream != stream) {
            self.close_part();
        }
        let payloads_len = self.payloads.len();
        let part = self.part.get_or_insert_with(|| {
            let first = u64::try_from(range.start).expect("usize fits u64");
            OpenPart::new(stream, form, chunk.first.after(first), payloads_len)
        });
        assert_eq!(part.form, form, "a stream's content type never changes");
        if part.count > 0 && separator_len(form) == 1 {
            self.payloads.push(b',');
        }
        let bytes = record(form, chunk, range.clone());
        self.payloads.extend_from_slice(&chunk.records.payload[bytes]);
        for index in range.clone() {
            let len = record(form, chunk, index..index + 1).len();
            assert!(len > 0, "refused at the door: an empty record");
            put_len(&mut part.lengths, len);
        }
        part.add_runs(range.len(), chunk);
        self.records += range.len();
    }

    fn close_part(&mut self) {
        let part = self.part.take().expect("a block that is not empty has an open part");
        let tables_len = self.tables.len();
        part.put_tables(&mut self.tables);
        self.outlines.push(Outline {
            stream: part.stream,
            form: part.form,
            first: part.first,
            count: part.count,
            table_len: self.tables.len() - tables_len,
            payload_len: self.payloads.len() - part.payload_start,
        });
    }

    /// The raw bytes of the block, and where it starts and ends.
    fn lay_out(mut self) -> (Vec<u8>, Bounds) {
        let open = self.part.as_ref().expect("a block that is not empty has an open part");
        let limit = (open.stream, open.limit());
        self.close_part();
        let first = self.outlines.first().expect("the part just closed, if no other");
        let bounds = Bounds {
            first: (first.stream, first.first),
            first_timestamp: self.first_timestamp,
            limit,
        };
        let directory = (self.outlines.len() + 1) * PART_BYTES;
        let mut raw = Vec::with_capacity(directory + self.tables.len() + self.payloads.len());
        put_len(&mut raw, self.outlines.len());
        let mut before = None;
        for outline in &self.outlines {
            outline.encode(before, &mut raw);
            before = Some(outline.stream);
        }
        raw.extend_from_slice(&self.tables);
        raw.extend_from_slice(&self.payloads);
        (raw, bounds)
    }
}

/// Where records `range` of a chunk lie in its payload.
fn record(form: Form, chunk: &Chunk, range: Range<usize>) -> Range<usize> {
    chunk.records.ends.slice(range, chunk.records.payload.len(), form)
}

/// The part that records are going into.
struct OpenPart {
    stream: StreamId,
    form: Form,
    first: Seq,
    count: usize,
    payload_start: usize,
    /// The first table: record lengths, encoded.
    lengths: Vec<u8>,
    /// How many records in a row have which timestamp.
    times: Vec<(usize, WallMs)>,
    /// How many records in a row have which key: its dictionary index plus one, or zero.
    keys: Vec<(usize, usize)>,
    dictionary: Vec<Bytes>,
    dictionary_bytes: usize,
    /// Where in the dictionary a key is, plus one.
    known: BTreeMap<Bytes, usize>,
}

impl OpenPart {
    const fn new(stream: StreamId, form: Form, first: Seq, payload_start: usize) -> Self {
        Self {
            stream,
            form,
            first,
            count: 0,
            payload_start,
            lengths: Vec::new(),
            times: Vec::new(),
            keys: Vec::new(),
            dictionary: Vec::new(),
            dictionary_bytes: 0,
            known: BTreeMap::new(),
        }
    }

    fn limit(&self) -> Seq {
        self.first.after(u64::try_from(self.count).expect("usize fits u64"))
    }

    fn table_bytes(&self) -> usize {
        let runs = self.times.len() + self.keys.len();
        self.lengths.len() + self.dictionary_bytes + runs * RUN_BYTES / 2
    }

    /// `count` more records of one chunk.
    fn add_runs(&mut self, count: usize, chunk: &Chunk) {
        let key = chunk.key.as_ref().map_or(0, |key| self.key_value(key));
        extend(&mut self.times, count, chunk.timestamp);
        extend(&mut self.keys, count, key);
        self.count += count;
    }

    fn key_value(&mut self, key: &Bytes) -> usize {
        if let Some(&value) = self.known.get(key) {
            return value;
        }
        self.dictionary.push(key.clone());
        self.dictionary_bytes += key.len() + varint_len(key.len());
        self.known.insert(key.clone(), self.dictionary.len());
        self.dictionary.len()
    }

    fn put_tables(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lengths);
        put_len(out, self.times.len());
        let mut before = 0;
        for (count, timestamp) in &self.times {
            put_len(out, *count);
            put_varint(out, timestamp.get() - before);
            before = timestamp.get();
        }
        put_len(out, self.dictionary.len());
        for key in &self.dictionary {
            put_len(out, key.len());
            out.extend_from_slice(key);
        }
        if self.dictionary.is_empty() {
            return;
        }
        put_len(out, self.keys.len());
        for (count, value) in &self.keys {
            put_len(out, *count);
            put_len(out, *value);
        }
    }
}

/// Makes the last run longer, or begins one.
fn extend<T: PartialEq>(runs: &mut Vec<(usize, T)>, count: usize, value: T) {
    match runs.last_mut().filter(|(_, last)| *last == value) {
        Some((run, _)) => *run += count,
        None => runs.push((count, value)),
    }
}
