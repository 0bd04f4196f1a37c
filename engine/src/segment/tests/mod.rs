//! Segments against a model, under damage and byte for byte.
//!
//! Here: a file in memory, and the model (a map of records) that tests compare with.

mod damage;
mod format;
mod merge;
mod roundtrip;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use proptest::prelude::*;
use weir_io::File;

use super::{Builder, Codec, InMemory, Segment, format::Footer};
use crate::types::{Chunk, Ends, Form, Lsn, Records, SegmentId, Seq, StreamId, WallMs};

pub(super) const STORE: [u8; 16] = *b"0123456789abcdef";

/// Bytes in memory as a file that counts reads and can refuse them.
#[derive(Default)]
pub(super) struct MemoryFile {
    bytes: InMemory,
    reads: AtomicUsize,
    refuses: AtomicBool,
}

impl MemoryFile {
    fn of(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { bytes: InMemory(bytes.into()), ..Self::default() })
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }
}

impl File for MemoryFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.refuses.load(Ordering::SeqCst) {
            return Err(io::Error::other("refused"));
        }
        self.bytes.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.bytes.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.bytes.len()
    }

    fn allocated(&self) -> io::Result<u64> {
        self.bytes.allocated()
    }

    fn sync(&self) -> io::Result<()> {
        self.bytes.sync()
    }
}

/// One record of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    bytes: Bytes,
    timestamp: WallMs,
    key: Option<Bytes>,
}

pub(super) type Model = BTreeMap<StreamId, BTreeMap<Seq, Record>>;

/// What goes into a builder, in order.
pub(super) type Input = Vec<(StreamId, Form, Chunk)>;

pub(super) fn chunk(
    first: u64,
    timestamp: u64,
    key: Option<&str>,
    form: Form,
    records: &[&[u8]],
) -> Chunk {
    let separator: &[u8] = if form == Form::Json { b"," } else { b"" };
    let mut end = 0;
    let ends: Vec<u32> = records
        .iter()
        .map(|record| {
            end += record.len();
            let this = u32::try_from(end).unwrap();
            end += separator.len();
            this
        })
        .collect();
    let ends = if ends.len() == 1 { Ends::One } else { Ends::Many(ends.into()) };
    Chunk {
        first: Seq::new(first),
        records: Records { payload: records.join(separator).into(), ends },
        timestamp: WallMs::new(timestamp),
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
    }
}

pub(super) fn model(input: &Input) -> Model {
    let mut model = Model::new();
    for (stream, form, chunk) in input {
        let records = model.entry(*stream).or_default();
        for index in 0..usize::try_from(chunk.records.count()).unwrap() {
            let payload = &chunk.records.payload;
            let range = chunk.records.ends.slice(index..index + 1, payload.len(), *form);
            let record = Record {
                bytes: payload.slice(range),
                timestamp: chunk.timestamp,
                key: chunk.key.clone(),
            };
            records.insert(chunk.first.after(u64::try_from(index).unwrap()), record);
        }
    }
    model
}

/// The bytes of a segment, and its footer.
pub(super) fn write(input: &Input, codec: Codec) -> (Vec<u8>, Footer) {
    let mut bytes = Vec::new();
    let mut sink = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    let mut builder = Builder::new(STORE, SegmentId::new(7), codec, &mut sink).unwrap();
    for (stream, form, chunk) in input {
        builder.push(*stream, *form, chunk).unwrap();
    }
    let footer = builder.finish(Lsn::new(3), Lsn::new(9)).unwrap();
    assert_eq!(footer.file_bytes(), u64::try_from(bytes.len()).unwrap());
    (bytes, footer)
}

pub(super) fn open(bytes: Vec<u8>) -> Segment {
    Segment::open(MemoryFile::of(bytes)).unwrap()
}

/// Everything in a segment, read front to back.
pub(super) fn contents(segment: &Segment) -> Model {
    let mut model = Model::new();
    for no in segment.blocks() {
        for part in segment.block(no).unwrap().parts() {
            let chunks = part.chunks(Seq::ZERO..part.limit());
            let input: Input = chunks.map(|chunk| (part.stream(), part.form(), chunk)).collect();
            for (stream, records) in self::model(&input) {
                model.entry(stream).or_default().extend(records);
            }
        }
    }
    model
}

fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let len = prop_oneof![40 => 1..60usize, 1 => 20_000..140_000usize];
    let record = (any::<u8>(), len).prop_map(|(seed, len)| {
        (0..len).map(|at| seed.wrapping_add(u8::try_from(at % 251).unwrap())).collect()
    });
    prop::collection::vec(record, 1..12)
}

fn key() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, None, Some(""), Some("a"), Some("user/42"), Some("é")])
}

/// Streams in order with chunks in order; holes, equal times and repeated keys included.
pub(super) fn input() -> impl Strategy<Value = Input> {
    let hole = prop_oneof![6 => Just(0u64), 1 => 1..1000u64];
    let step = prop_oneof![2 => Just(0u64), 2 => 1..100u64, 1 => any::<u32>().prop_map(u64::from)];
    let chunk = (hole, step, key(), records());
    let form = prop::sample::select(vec![Form::Json, Form::Binary, Form::Text]);
    let stream = (1..40u64, form, 0..1u64 << 40, prop::collection::vec(chunk, 1..10));
    prop::collection::vec(stream, 0..12).prop_map(|streams| {
        let mut input = Input::new();
        let mut id = 0;
        for (delta, form, mut next, chunks) in streams {
            id += delta;
            let mut time = 1_700_000_000_000;
            for (hole, step, key, records) in chunks {
                next += hole;
                time += step;
                let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
                let chunk = self::chunk(next, time, key, form, &records);
                next = chunk.limit().get();
                input.push((StreamId::new(id), form, chunk));
            }
        }
        input
    })
}
