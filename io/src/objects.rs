//! Buckets: whole immutable objects under keys, created if absent.
//!
//! Contract (tested by `laws::objects`): an object that [`Objects::create`] answered
//! [`Created::New`] or [`Created::AlreadyThere`] for survives every crash of this process
//! and machine; of two creations of one key exactly one is new; an object is there whole or
//! not at all, and its bytes never change. Nothing but an object that is not there reads as
//! missing: a bucket that is unreachable, unknown or forbidden is an error. After
//! [`ObjectError::Transient`] a change may have been made, may never be, or may yet be made
//! long after its caller gave up. A listing may lag behind creations and deletions; reads
//! by key do not.
//!
//! No time limits and no retries here; `retry` adds both. Dropping a future gives it up.

mod counting;
mod counts;
mod prefixed;
mod probe;

use std::{borrow::Borrow, fmt, future::Future, ops::Range, path::Path, pin::Pin, sync::Arc};

use bytes::{Bytes, BytesMut};

pub use counting::Counting;
pub use counts::{Artifact, BadSnapshot, Counts, Figures, Recent, Snapshot, Verb};
pub use prefixed::Prefixed;
pub use probe::{Unfit, probe};

/// Bytes in a key. The clouds allow 1,024; a prefix needs some of them.
pub const KEY_BYTES_MAX: usize = 512;
/// Bytes between two slashes of a key: a file name in a local bucket.
pub const SEGMENT_BYTES_MAX: usize = 200;
/// Objects in one page of a listing: what one request to any of the clouds returns.
pub const LIST_MAX: usize = 1000;

/// An answer that is still under way. Dropping it gives it up.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, ObjectError>> + Send + 'a>>;

/// A bucket, or the part of one below a prefix.
pub trait Objects: Send + Sync {
    /// Creates an object unless its key is taken.
    fn create<'a>(&'a self, key: &'a Key, payload: Payload) -> Pending<'a, Created>;

    /// Creates an object from a whole synced file of `size` bytes that never changes again, without
    /// all of them in memory. `None`: this bucket does not do that with so many, upload them
    /// instead. The file must outlive the future and may be removed afterwards; one that is not there
    /// is `NotFound`.
    ///
    /// The key must be this file's alone: unlike [`Objects::create`] it may lay the same bytes over
    /// what another call for the same file has just created.
    fn create_from_file<'a>(
        &'a self,
        key: &'a Key,
        file: &'a Path,
        size: u64,
    ) -> Option<Pending<'a, Delivery>> {
        let _ = (key, file, size);
        None
    }

    /// The whole object. One of more than `bytes_max` bytes is refused, unread.
    fn get<'a>(&'a self, key: &'a Key, bytes_max: u64) -> Pending<'a, Bytes>;

    /// Exactly these bytes of the object. A range that is empty or not wholly inside it is
    /// refused.
    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> Pending<'a, Bytes>;

    /// What is known of the object; `None` if there is none.
    fn head<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Meta>>;

    /// The first objects whose keys begin with `prefix` and are greater than `after`, in
    /// byte order of their keys. Fewer than `limit`, which is at most [`LIST_MAX`], means that
    /// there are no more.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Vec<Meta>>;

    /// Deletes the object. One that is not there is fine.
    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, ()>;

    /// As [`Objects::head`], with what it took. A bucket whose look may take more than one request says
    /// so here.
    fn head_counted<'a>(&'a self, key: &'a Key) -> Pending<'a, Counted<Option<Meta>>> {
        Box::pin(async move { Ok(Counted { value: self.head(key).await?, requests: 1 }) })
    }

    /// As [`Objects::list`], with what it took. A bucket of which one page may take several requests
    /// says so here.
    fn list_counted<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Counted<Vec<Meta>>> {
        Box::pin(async move {
            Ok(Counted { value: self.list(prefix, after, limit).await?, requests: 1 })
        })
    }
}

/// An answer and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted<T> {
    /// The answer.
    pub value: T,
    /// Requests, as the bucket bills them.
    pub requests: u64,
}

/// How a creation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object is there because of this call.
    New,
    /// The key was taken. Nothing changed.
    AlreadyThere,
}

/// How a creation from a file ended, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// How it ended.
    pub created: Created,
    /// Requests, as the bucket bills them.
    pub requests: u64,
    /// Bytes that were moved: none if the file was linked.
    pub bytes: u64,
}

/// What a bucket says of an object without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its key.
    pub key: Key,
    /// Its length in bytes.
    pub size: u64,
    /// What names this content, where the bucket has such a name.
    pub etag: Option<String>,
}

/// Why a bucket did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// There is no such object.
    #[error("no such object")]
    NotFound,
    /// Asking again will not help: credentials, configuration, a full quota, a wrong request.
    /// Nothing was changed.
    #[error("refused: {0}")]
    Refused(String),
    /// The bucket can't create an object on the condition that there is none. Nothing was changed.
    #[error("no create-if-absent: {0}")]
    Unconditional(String),
    /// Asking again may help. A change may have been made, or may yet be.
    #[error("no answer: {0}")]
    Transient(String),
}

/// Names an object: segments joined by `/`.
///
/// A segment has letters, digits and `- _ . =`, does not begin with a dot, and is at most
/// [`SEGMENT_BYTES_MAX`] long. No key may be the directory of another (`a` beside `a/b`):
/// a local bucket could not hold both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Checks a key.
    ///
    /// # Errors
    /// It breaks the rules above.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Key, InvalidKey> {
        let text = text.into();
        let length = 1..=KEY_BYTES_MAX;
        if length.contains(&text.len()) && text.split('/').all(is_segment) {
            Ok(Key(text))
        } else {
            Err(InvalidKey(text.chars().take(KEY_BYTES_MAX).collect()))
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_segment(segment: &str) -> bool {
    (1..=SEGMENT_BYTES_MAX).contains(&segment.len())
        && !segment.starts_with('.')
        && segment.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.=".contains(&it))
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// This is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be the key of an object")]
pub struct InvalidKey(String);

/// The bytes of an object to be, in pieces that are shared, not copied.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Payload(Arc<[Bytes]>);

impl Payload {
    /// The pieces in order.
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        &self.0
    }

    /// Bytes of all pieces.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.iter().map(|part| length(part)).sum()
    }

    /// All pieces as one, copied unless there is just one.
    #[must_use]
    pub fn joined(&self) -> Bytes {
        if let [only] = &*self.0 {
            return only.clone();
        }
        let mut joined = BytesMut::new();
        for part in &*self.0 {
            joined.extend_from_slice(part);
        }
        joined.freeze()
    }

    /// Whether `bytes` are exactly these.
    #[must_use]
    pub fn is(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for part in &*self.0 {
            match rest.strip_prefix(&**part) {
                Some(left) => rest = left,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Payload {
        Payload(Arc::from([bytes]))
    }
}

impl From<Vec<Bytes>> for Payload {
    fn from(parts: Vec<Bytes>) -> Payload {
        Payload(parts.into())
    }
}

impl From<&'static str> for Payload {
    fn from(text: &'static str) -> Payload {
        Bytes::from_static(text.as_bytes()).into()
    }
}

/// A length in memory as a size.
pub(crate) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("lengths fit 64 bits")
}

/// Where `range` lies in an object of `size` bytes, as indices of memory.
pub(crate) fn inside(range: &Range<u64>, size: u64) -> Result<Range<usize>, ObjectError> {
    let fits = range.start < range.end && range.end <= size;
    let indices = (usize::try_from(range.start), usize::try_from(range.end));
    match indices {
        (Ok(start), Ok(end)) if fits => Ok(start..end),
        _ => Err(ObjectError::Refused(format!("bytes {range:?} are not inside {size} bytes"))),
    }
}

/// Refuses an object of `size` bytes that is longer than its reader allows.
pub(crate) fn bounded(size: u64, bytes_max: u64) -> Result<(), ObjectError> {
    if size <= bytes_max {
        return Ok(());
    }
    Err(ObjectError::Refused(format!("the object has {size} bytes, at most {bytes_max} are read")))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{KEY_BYTES_MAX, Key, Payload, SEGMENT_BYTES_MAX};

    #[test]
    fn a_key_is_made_of_plain_segments() {
        for good in ["a", "manifest/0000.bin", "A-b_c=1/2/3"] {
            assert_eq!(Key::new(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(SEGMENT_BYTES_MAX + 1);
        let deep = "a/".repeat(KEY_BYTES_MAX / 2) + "a";
        let bad = ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", ".hidden", "a b", "a\\b"];
        for bad in bad.into_iter().chain(["ä", "a\0", "a%2f", "a?b", &long, &deep]) {
            assert!(Key::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_payload_is_its_pieces_in_order() {
        let parts: [&[u8]; 3] = [b"ab", b"", b"cde"];
        let payload = Payload::from(parts.map(Bytes::from_static).to_vec());
        assert_eq!(payload.size(), 5);
        assert_eq!(payload.joined(), "abcde");
        assert!(payload.is(b"abcde"));
        for other in ["", "ab", "abcd", "abcdef", "abXde"] {
            assert!(!payload.is(other.as_bytes()), "{other}");
        }
        assert!(Payload::default().is(b""));
    }
}
