//! Live readers (skeleton).
use bytes::Bytes;

use crate::{
    request::{Error, From, Page},
    types::Offset,
};

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There are records after the position.
    Data,
    /// There are none and there never will be: the stream is closed.
    Closed,
    /// The stream was deleted, has expired, or the engine is going down.
    Gone,
}

/// A live reader's hold on one incarnation of a stream. Detaches when dropped.
pub struct Watch {}

impl Watch {
    /// Reads on, of this incarnation only.
    pub async fn read(
        &self,
        _from: From,
        _key: Option<&[u8]>,
        _bytes_max: usize,
    ) -> Result<Page, Error> {
        unreachable!("skeleton")
    }
    /// Waits until the stream has something other than an open tail at `from`; cancel safe.
    pub async fn changed(&self, _from: Offset) -> Change {
        unreachable!("skeleton")
    }
    /// The encoded form of the records `start..next`, made once and shared by all readers
    /// who ask for the same range.
    pub fn frame(&self, _start: Offset, _next: Offset, _encode: impl FnOnce() -> Bytes) -> Bytes {
        unreachable!("skeleton")
    }
}
