//! What can be asked of an engine and what it answers.

use bytes::Bytes;

use crate::types::{
    Closing, ContentType, Expiry, Form, Offset, ProducerId, ProducerTuple, Records, Retention,
    StreamName, WallMs,
};

/// A stream to create (protocol §4).
#[derive(Clone, Debug)]
pub struct Create {
    /// Its name.
    pub name: StreamName,
    /// Its content type; `None`: its source's, or `application/octet-stream` without one.
    pub content: Option<ContentType>,
    /// When it ends by itself; `None`: as its source, or never without one.
    pub expiry: Option<Expiry>,
    /// Where its first records come from, if it is a fork.
    pub fork: Option<Fork>,
    /// How much of its records it keeps.
    pub retention: Retention,
    /// Whether it is closed from the start.
    pub closing: Closing,
    /// The initial body, undivided; empty for none. In JSON mode `[]` is also none.
    pub body: Bytes,
    /// Routing key of the initial records.
    pub key: Option<Bytes>,
}

impl Create {
    /// An open stream without records that lasts, and is no fork.
    #[must_use]
    pub fn new(name: StreamName, content: impl Into<Option<ContentType>>) -> Self {
        Self {
            name,
            content: content.into(),
            expiry: None,
            fork: None,
            retention: Retention::NONE,
            closing: Closing::KeepOpen,
            body: Bytes::new(),
            key: None,
        }
    }

    /// The content type of a stream without a source.
    pub(crate) fn content(&self) -> ContentType {
        self.content.clone().unwrap_or_else(ContentType::octet_stream)
    }
}

/// What a fork shares with another stream (protocol §4.2): everything before a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The other stream.
    pub source: StreamName,
    /// The point; `None`: the source's tail at that moment.
    pub at: Option<Offset>,
    /// How much farther: messages in JSON mode, else bytes of the record at the point.
    pub sub_offset: u64,
}

/// What a creation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The stream is new.
    New,
    /// It was there already, with the same configuration; the body was ignored.
    Existing,
}

/// Answer to [`Create`].
#[derive(Clone, Debug)]
pub struct Created {
    /// New or not.
    pub outcome: CreateOutcome,
    /// The stream as it is now.
    pub head: Head,
}

/// Records to append, a closure, or both (protocol §5, §7).
#[derive(Clone, Debug)]
pub struct Append {
    /// Where to.
    pub name: StreamName,
    /// Type of the body; `None` if the request names none.
    pub content: Option<ContentType>,
    /// The body, undivided; empty for a close-only request.
    pub body: Bytes,
    /// Whether this is the end of the stream.
    pub closing: Closing,
    /// Who sends it, for exactly-once appends.
    pub producer: Option<ProducerTuple>,
    /// `Stream-Seq`: must be greater, byte by byte, than the last accepted one.
    pub stream_seq: Option<Bytes>,
    /// `Stream-Expected-Offset`: append only if this is the tail.
    pub expected: Option<Offset>,
    /// Routing key of the records.
    pub key: Option<Bytes>,
    /// When the records came to be, as the client says; clamped to `last..=now`.
    pub timestamp: Option<WallMs>,
}

impl Append {
    /// Records and nothing else.
    #[must_use]
    pub fn new(name: StreamName, content: impl Into<Option<ContentType>>, body: Bytes) -> Self {
        Self {
            name,
            content: content.into(),
            body,
            closing: Closing::KeepOpen,
            producer: None,
            stream_seq: None,
            expected: None,
            key: None,
            timestamp: None,
        }
    }
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Records were written.
    Written,
    /// Nothing was written but the closure (which may have been there before).
    Closed,
    /// This producer's request had been accepted before.
    Duplicate,
}

/// Answer to [`Append`]. Everything in it is durable.
#[derive(Clone, Debug)]
pub struct Appended {
    /// What happened.
    pub outcome: AppendOutcome,
    /// The tail after this request; of a duplicate, the end of the request it repeats while
    /// that is remembered, else the current tail.
    pub next: Offset,
    /// Whether the stream is closed by this request (or was, by the one it repeats).
    pub closed: bool,
    /// Producer epoch and its highest accepted sequence.
    pub producer: Option<(u64, u64)>,
}

/// What is known of a stream without reading it.
#[derive(Clone, Debug)]
pub struct Head {
    /// Name.
    pub name: StreamName,
    /// Content type as created.
    pub content: ContentType,
    /// Expiry as created.
    pub expiry: Expiry,
    /// How much of its records it keeps.
    pub retention: Retention,
    /// Where what can be read begins: everything before was let go of.
    pub earliest: Offset,
    /// The tail.
    pub next: Offset,
    /// Closed for good.
    pub closed: bool,
    /// When it was created.
    pub created: WallMs,
    /// Timestamp of the last append (creation time if none).
    pub last_append: WallMs,
}

/// Where a read starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first record there is.
    Start,
    /// At the tail.
    Now,
    /// After what this offset covers.
    At(Offset),
    /// At the first record whose timestamp is not before this.
    Since(WallMs),
}

/// A catch-up read (protocol §10.2).
#[derive(Clone, Debug)]
pub struct Read {
    /// Of which stream.
    pub name: StreamName,
    /// From where.
    pub from: From,
    /// Only records with this routing key.
    pub key: Option<Bytes>,
    /// Most payload bytes to return; at least one record comes if there is one.
    pub bytes_max: usize,
}

/// A range of records, as they are on the wire.
#[derive(Clone, Debug)]
pub struct Page {
    /// The stream's content type.
    pub content: ContentType,
    /// The stream's expiry.
    pub expiry: Expiry,
    /// How much of its records the stream keeps.
    pub retention: Retention,
    /// Where the page starts: the requested position in its current spelling.
    pub start: Offset,
    /// Where it ends: resume here.
    pub next: Offset,
    /// The tail when the page was made.
    pub tail: Offset,
    /// The page reaches the tail.
    pub up_to_date: bool,
    /// The stream is closed and the page reaches its end.
    pub closed: bool,
    /// The requested position lies beyond the tail: nothing to return, never cache.
    pub beyond_tail: bool,
    /// The pieces, one after the other, are the records in wire form (`types::Records`): JSON
    /// messages joined by `,` without the brackets around them, other records back to back.
    pub pieces: Vec<Bytes>,
    /// Sum of the pieces' lengths.
    pub bytes: usize,
    /// How many records there are.
    pub records: u64,
    /// Names this incarnation of the stream for entity tags.
    pub incarnation: u64,
}

impl Page {
    /// How the bytes are to be treated.
    #[must_use]
    pub const fn form(&self) -> Form {
        self.content.form()
    }
}

/// One row of the list of streams.
#[derive(Clone, Debug)]
pub struct ListRow {
    /// What HEAD says.
    pub head: Head,
    /// Absolute expiry in wall time if there is one (for a sliding window: as of now).
    pub expires_at: Option<WallMs>,
    /// Records in sealed segments: everything before this.
    pub sealed_through: Offset,
    /// Records in the bucket: at least everything before this.
    pub uploaded_through: Offset,
}

/// A page of the list of streams, ordered by name.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Rows to skip (the peer's paging).
    pub skip: usize,
    /// Start after this name (paging that stays O(page)).
    pub after: Option<String>,
    /// Only names with this prefix.
    pub prefix: Option<String>,
    /// Most rows to return.
    pub limit: usize,
}

/// A refusal: the request must change, nothing was done. Carries what the client needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such stream (404).
    #[error("no such stream")]
    NotFound,
    /// Deleted, kept only for its forks (410).
    #[error("stream is deleted")]
    Gone,
    /// The name belongs to a deleted stream that is kept for its forks (409).
    #[error("stream is deleted, its forks keep the name")]
    NameKept,
    /// No such source to fork from (404).
    #[error("source stream '{0}' does not exist")]
    SourceNotFound(StreamName),
    /// The source is deleted and kept only for the forks it has (409).
    #[error("source stream '{0}' is deleted")]
    SourceGone(StreamName),
    /// The fork point is not in the source (400).
    #[error("fork point: {0}")]
    ForkPoint(&'static str),
    /// Forks of forks nest too deep (400).
    #[error(
        "forks nest at most {} deep and draw on at most {} streams",
        crate::limits::FORK_DEPTH_MAX,
        crate::limits::FORK_RUNS_MAX
    )]
    ForkDepth,
    /// The name is taken by a stream of another configuration (409).
    #[error("stream exists with a different configuration")]
    ConfigurationDiffers,
    /// Nothing in the body, and not a close (400).
    #[error("empty body")]
    EmptyBody,
    /// The body has no content type (400).
    #[error("missing content-type")]
    ContentTypeMissing,
    /// The body has another content type than the stream (409).
    #[error("content-type mismatch")]
    ContentTypeDiffers,
    /// Not JSON (400).
    #[error("invalid JSON: {reason} at byte {at}")]
    InvalidJson {
        /// What is wrong.
        reason: &'static str,
        /// Where.
        at: usize,
    },
    /// `[]` appended (400).
    #[error("empty JSON array")]
    EmptyArray,
    /// The stream is closed (409).
    #[error("stream is closed")]
    Closed {
        /// Its final offset.
        tail: Offset,
    },
    /// `Stream-Seq` is not greater than the last one (409).
    #[error("sequence conflict: Stream-Seq must be greater than the last accepted one")]
    StreamSeq {
        /// The last accepted one.
        last: Bytes,
        /// The tail.
        tail: Offset,
    },
    /// `Stream-Expected-Offset` is not the tail (409).
    #[error("the tail is not at the expected offset")]
    ExpectedOffset {
        /// The tail.
        tail: Offset,
    },
    /// The producer's epoch is over (403).
    #[error("producer epoch is fenced")]
    StaleEpoch {
        /// The current epoch.
        current: u64,
    },
    /// A new producer epoch must start at sequence 0 (400).
    #[error("a new producer epoch must start at sequence 0")]
    EpochStart,
    /// A producer sequence was skipped (409).
    #[error("producer sequence gap: expected {expected}, received {received}")]
    ProducerGap {
        /// What should have come.
        expected: u64,
        /// What came.
        received: u64,
    },
    /// One more producer than a stream may have (429 would not help: 409).
    #[error("stream {0} has as many producers as it may have")]
    TooManyProducers(StreamName),
    /// The stream has let go of the records from this position on (410).
    #[error("the stream no longer keeps the records from this offset on")]
    OffsetTrimmed {
        /// The earliest position it keeps.
        next: Offset,
    },
    /// The position lies in an epoch that this stream has left behind (410).
    #[error("offset belongs to an earlier life of this stream")]
    OffsetLost {
        /// Where to go on.
        next: Offset,
    },
}

/// Why an operation has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Change the request.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The same, by a subscription.
    #[error(transparent)]
    Refused(#[from] crate::subscribe::request::Refused),
    /// Too much is queued: nothing was done, try again (429).
    #[error("ingest queue full")]
    Busy,
    /// Too much waits for the bucket: nothing was done, try again (429).
    #[error(
        "too much waits for the object store, which is slow or does not answer: nothing was written"
    )]
    Backlogged,
    /// The disk is full: nothing was done (507).
    #[error("disk full: nothing was written")]
    DiskFull,
    /// The server is going down: nothing was done (503).
    #[error("server shutting down")]
    Draining,
    /// The log can't be written until a restart: nothing was done (503).
    #[error("the log failed: no writes until a restart")]
    LogFailed,
    /// Another process has taken the store over: nothing was done, here or after a restart (503).
    #[error("another server has taken this store over: no more writes here")]
    Overtaken,
    /// The write may or may not survive (503).
    #[error("outcome unknown: the write may or may not have been stored; check Stream-Next-Offset")]
    Unknown,
    /// Stored bytes are damaged (500).
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// What was to be read is only in the object store, which does not answer: try again (503).
    #[error("the object store does not answer: {0}")]
    Away(String),
    /// The disk refused a read (500).
    #[error("read failed: {0}")]
    ReadFailed(String),
}

/// Ids of producers are shown in errors and logs as text.
impl std::fmt::Display for ProducerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The records of a prepared body.
pub type Prepared = Result<Option<Records>, Rejection>;
