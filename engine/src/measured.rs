//! Single steps of the engine for `benches/`, which sees only what is public. For nothing else:
//! these types change with what they measure.
//!
//! Each is made once with its input, outside of what is timed, and does the step as often as
//! asked. Steps return a number that depends on their work, so that none can be optimised away.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{
    admit,
    decide::{Now, append},
    history::Deadline,
    log::entry::{self, Create, Entry, Write},
    read::gather::Gather,
    request::{Append, Prepared},
    segment::{Builder, Codec, InMemory, Segment},
    state::{
        chunks::Chunks,
        stream::{Identity, Producer, StreamState},
        view::Stream,
    },
    types::{
        Chunk, ContentType, Epoch, Expiry, Form, Lineage, Lsn, ProducerId, ProducerTuple, Records,
        Retention, SegmentId, Seq, StoreMs, StreamId, StreamName, WallMs,
    },
};

/// Everything that a step reads at most.
const SCAN_BYTES_MAX: usize = 1 << 30;
const NOW: Now = Now { wall: WallMs::new(1_000), store: StoreMs::new(50) };

/// Splits a body of JSON into its messages. Returns how many there are.
///
/// # Panics
/// It is not JSON.
#[must_use]
pub fn split_json(body: &Bytes) -> u64 {
    let content = ContentType::parse("application/json").expect("a good type");
    let records = admit::prepare(&content, body).expect("good JSON");
    records.map_or(0, |records| records.count())
}

fn name() -> StreamName {
    StreamName::new("measured").expect("a good name")
}

fn binary() -> ContentType {
    ContentType::parse("application/octet-stream").expect("a good type")
}

/// A stream as it begins that has neither window nor limits, and its entry.
pub(crate) fn creation(name: StreamName, content: ContentType) -> (Identity, Create) {
    let identity = Identity {
        id: StreamId::new(1),
        name,
        content,
        expiry: Expiry::Never,
        created: WallMs::new(500),
        fork: None,
    };
    let create = Create {
        stream: identity.id,
        name: identity.name.clone(),
        content: identity.content.clone(),
        expiry: identity.expiry,
        lineage: Lineage::starting(Epoch::ZERO),
        created: identity.created,
        deadline: None,
        last_append: WallMs::ZERO,
        fork: None,
        retention: Retention::NONE,
        earliest: Seq::ZERO,
        oldest: None,
    };
    (identity, create)
}

fn tuple() -> ProducerTuple {
    let id = ProducerId::new("measured").expect("a good id");
    ProducerTuple { id, epoch: 3, seq: 7 }
}

fn write(seq: u64, bytes: usize, producer: Option<ProducerTuple>) -> Write {
    Write {
        stream: StreamId::new(1),
        first: Seq::new(seq),
        records: Some(Records::one(Bytes::from(vec![b'x'; bytes]))),
        timestamp: NOW.wall,
        key: None,
        closes: false,
        producer,
        introduces: false,
        stream_seq: None,
        deadline: None,
    }
}

/// Log entries of one commit, and their bytes.
pub struct Entries {
    entries: Vec<Entry>,
    encoded: Bytes,
}

impl Entries {
    /// So many writes of one record each, every second one by a producer.
    #[must_use]
    pub fn new(count: u64, bytes: usize) -> Self {
        let producer = |seq: u64| seq.is_multiple_of(2).then(tuple);
        let entries =
            (0..count).map(|seq| Entry::Write(write(seq, bytes, producer(seq)))).collect();
        let mut this = Self { entries, encoded: Bytes::new() };
        this.encoded = this.encode().freeze();
        this
    }

    /// Encodes all of them.
    #[must_use]
    pub fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(self.encoded.len());
        for entry in &self.entries {
            entry::encode(entry, &mut out);
        }
        out
    }

    /// Decodes all of them. Returns how many there are.
    ///
    /// # Panics
    /// The codec does not read what it wrote.
    #[must_use]
    pub fn decode(&self) -> usize {
        entry::decode_all(self.encoded.clone()).expect("just encoded").len()
    }

    /// Length of their bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.encoded.len()
    }
}

/// One append to one stream, to be decided.
pub struct Decision {
    identity: Identity,
    state: StreamState,
    append: Append,
    known: Option<Producer>,
    prepared: Prepared,
}

impl Decision {
    /// Without producer headers.
    #[must_use]
    pub fn plain() -> Self {
        let (identity, create) = creation(name(), binary());
        let state = StreamState::new(&create, Lsn::new(1));
        let body = Bytes::from_static(&[b'x'; 100]);
        let prepared = admit::prepare(&identity.content, &body);
        let append = Append::new(identity.name.clone(), Some(identity.content.clone()), body);
        Self { identity, state, append, known: None, prepared }
    }

    /// By a producer whose next request it is.
    #[must_use]
    pub fn produced() -> Self {
        // What is not known yet begins with zero.
        let tuple = ProducerTuple { seq: 0, ..tuple() };
        let known = Producer::after(None, &tuple, Seq::new(1));
        let append_tuple = ProducerTuple { seq: tuple.seq + 1, ..tuple };
        let mut this = Self::plain();
        this.append.producer = Some(append_tuple);
        this.known = Some(known);
        this
    }

    /// Decides it. Returns the position after it.
    ///
    /// # Panics
    /// It is refused.
    #[must_use]
    pub fn decide(&self) -> u64 {
        let Self { identity, state, append, known, prepared } = self;
        let verdict =
            append::decide(identity, state, known.as_ref(), append, prepared.clone(), NOW);
        let write = verdict.expect("a good append").change.expect("it has a record");
        write.first.get() + write.records.map_or(0, |records| records.count())
    }
}

/// The unsealed records of one stream.
pub struct Memtable {
    writes: Vec<Write>,
    chunks: Chunks,
}

impl Memtable {
    /// So many appends of one record each.
    #[must_use]
    pub fn new(count: u64, bytes: usize) -> Self {
        let writes: Vec<Write> = (0..count).map(|seq| write(seq, bytes, None)).collect();
        let mut this = Self { writes, chunks: Chunks::default() };
        let stream = this.filled();
        this.chunks = std::mem::take(&mut stream.durable.lock().chunks);
        this
    }

    fn filled(&self) -> Stream {
        let (identity, create) = creation(name(), binary());
        let stream = Stream::unborn(identity, StreamState::new(&create, Lsn::new(1)));
        for (lsn, write) in (2..).zip(&self.writes) {
            stream.durable.lock().apply(write.clone(), None, Lsn::new(lsn));
        }
        stream
    }

    /// Applies all appends to an empty one. Returns the bytes it has then.
    #[must_use]
    pub fn fill(&self) -> usize {
        self.filled().durable.lock().chunks.weight().payload
    }

    /// Gathers the first page of at most so many bytes. Returns its length.
    #[must_use]
    pub fn read(&self, bytes_max: usize) -> usize {
        let mut gather = Gather::new(
            Form::Binary,
            None,
            bytes_max,
            SCAN_BYTES_MAX,
            Seq::ZERO,
            Deadline::of_now(),
        );
        let limit = self.chunks.newest().map_or(Seq::ZERO, Chunk::limit);
        gather.take_chunks(&self.chunks, limit);
        gather.into_pieces().1
    }
}

/// How the blocks of a segment are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// As they are.
    Plain,
    /// Compressed.
    Compressed,
}

/// What is sealed into a segment, and the segment.
pub struct Sealed {
    streams: u64,
    chunks: Vec<Chunk>,
    codec: Codec,
    file: Arc<InMemory>,
}

impl Sealed {
    /// So many streams with so many records each, all of one length.
    #[must_use]
    pub fn new(streams: u64, records: u64, bytes: usize, blocks: Blocks) -> Self {
        let chunk = |seq: u64| Chunk {
            first: Seq::new(seq),
            records: Records::one(text(seq, bytes)),
            timestamp: WallMs::new(1_000 + seq),
            key: None,
        };
        let codec = match blocks {
            Blocks::Plain => Codec::None,
            Blocks::Compressed => Codec::Zstd,
        };
        let chunks = (0..records).map(chunk).collect();
        let mut this = Self { streams, chunks, codec, file: Arc::default() };
        this.file = Arc::new(InMemory(this.build().into()));
        this
    }

    /// Builds the segment. Returns its bytes.
    ///
    /// # Panics
    /// Memory refuses a write, which it never does.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut sink = |bytes: &[u8]| {
            out.extend_from_slice(bytes);
            Ok(())
        };
        let id = SegmentId::new(1);
        let mut builder =
            Builder::new([7; 16], id, self.codec, &mut sink).expect("memory takes it");
        for stream in 1..=self.streams {
            for chunk in &self.chunks {
                builder.push(StreamId::new(stream), Form::Json, chunk).expect("memory takes it");
            }
        }
        builder.finish(Lsn::new(1), Lsn::new(2)).expect("memory takes it");
        out
    }

    /// Opens the segment and reads every block. Returns the bytes of all records.
    ///
    /// # Panics
    /// The reader does not read what the builder wrote.
    #[must_use]
    pub fn read(&self) -> usize {
        let file = Arc::clone(&self.file);
        let segment = Segment::open(file).expect("just built");
        let block = |no| segment.block(no).expect("just built").bytes();
        segment.blocks().map(block).sum()
    }

    /// Finds one stream's block and reads it. Returns the bytes of its part.
    ///
    /// # Panics
    /// The reader does not read what the builder wrote.
    #[must_use]
    pub fn locate(&self, segment: &Opened, stream: u64) -> usize {
        let stream = StreamId::new(1 + stream % self.streams);
        let no = segment.0.locate(stream, Seq::ZERO).expect("it has the stream");
        let block = segment.0.block(no).expect("just built");
        let part = block.part(stream).expect("it was located");
        part.slice(Seq::ZERO..part.limit()).len()
    }

    /// The segment, opened.
    ///
    /// # Panics
    /// The reader does not read what the builder wrote.
    #[must_use]
    pub fn open(&self) -> Opened {
        let file = Arc::clone(&self.file);
        Opened(Segment::open(file).expect("just built"))
    }

    /// Bytes of the records, before anything is done to them.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        let each: usize = self.chunks.iter().map(|chunk| chunk.records.payload.len()).sum();
        self.streams * u64::try_from(each).expect("usize fits u64")
    }
}

/// An open segment.
pub struct Opened(Segment);

/// A record of JSON that compresses as such records do.
fn text(seq: u64, bytes: usize) -> Bytes {
    let mut text = format!(r#"{{"seq":{seq},"user":"user-{}","text":""#, seq * 7_919 % 1_000);
    let words = ["stream", "record", "offset", "segment", "reader", "writer"];
    let mut turn = usize::try_from(seq % 1_000).expect("small");
    while text.len() + 2 < bytes {
        turn = turn * 31 + 7;
        text.push_str(words[turn % words.len()]);
        text.push(' ');
        turn %= 1_000;
    }
    text.truncate(bytes.saturating_sub(2));
    text.push_str("\"}");
    Bytes::from(text)
}
