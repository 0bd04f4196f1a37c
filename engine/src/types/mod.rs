//! The words of the engine: ids, positions, names, content types, expiry and records.
//! Plain values without I/O; every part above may use them.

mod ancestry;
mod chunk;
mod content;
mod ids;
mod lineage;
mod name;
pub mod offset;
mod producer;
mod records;
mod retention;

pub(crate) use ancestry::{Ancestry, Run};
pub use chunk::Chunk;
pub use content::{ContentType, Form};
pub use ids::{Epoch, Lsn, SegmentId, Seq, StoreMs, StreamId, WallMs};
pub(crate) use lineage::{Lineage, Place};
pub use name::{BadName, StreamName};
pub use offset::{Offset, OffsetFormat};
pub use producer::{ProducerId, ProducerTuple};
pub use records::{Ends, Records, separator_len};
pub use retention::Retention;

/// When a stream ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It does not.
    Never,
    /// After this many seconds without a read or a write (protocol: `Stream-TTL`).
    Sliding {
        /// The window in seconds.
        ttl_seconds: u64,
    },
    /// At this instant of the wall clock (protocol: `Stream-Expires-At`).
    At(WallMs),
}

/// Whether a request leaves the stream open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// More may follow.
    KeepOpen,
    /// This is the end.
    Close,
}
