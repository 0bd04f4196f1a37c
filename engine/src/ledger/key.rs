//! Keys of rows: what sorts a ledger.
//!
//! ```text
//! stream        1 │ id u64                  link          3 │ number u64 │ 1 │ path
//! its producer  1 │ id u64 │ 1 │ producer   tombstone     2 │ name
//! subscription  3 │ number u64
//! ```
//! Numbers are big-endian, so that rows sort by them; what belongs to a stream or a subscription
//! has its key as a prefix.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    log::codec::{Malformed, Take},
    subscribe::entry::Number,
    types::{ProducerId, StreamId, StreamName},
};

const STREAM: u8 = 1;
const TOMBSTONE: u8 = 2;
const SUBSCRIPTION: u8 = 3;
/// Between a number and the name of what belongs to it.
const PART: u8 = 1;

/// A row's key, or a prefix of keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(Bytes);

impl Key {
    /// Takes the bytes of a key that was stored.
    pub(crate) const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether a deletion of `prefix` and everything below it concerns this key.
    pub(crate) fn is_below(&self, prefix: &Self) -> bool {
        self.0.starts_with(&prefix.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Address::parse(self) {
            Ok(address) => address.fmt(f),
            Err(_) => write!(f, "unknown key {}", self.0.escape_ascii()),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Stream(StreamId),
    Producer(StreamId, ProducerId),
    Tombstone(StreamName),
    Subscription(Number),
    Link(Number, StreamName),
}

impl Address {
    /// The bytes that sort it.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Stream(id) => numbered(STREAM, id.get(), None),
            Self::Producer(id, producer) => numbered(STREAM, id.get(), Some(producer.as_str())),
            Self::Tombstone(name) => {
                let mut key = BytesMut::with_capacity(1 + name.as_str().len());
                key.put_u8(TOMBSTONE);
                key.put_slice(name.as_str().as_bytes());
                Key(key.freeze())
            }
            Self::Subscription(number) => numbered(SUBSCRIPTION, number.get(), None),
            Self::Link(number, path) => numbered(SUBSCRIPTION, number.get(), Some(path.as_str())),
        }
    }

    /// What a stored key names.
    ///
    /// # Errors
    /// It is no key of any table.
    pub(crate) fn parse(key: &Key) -> Result<Self, Malformed> {
        let mut take = Take::new(key.0.clone());
        let table = take.u8("key")?;
        if table == TOMBSTONE {
            return Ok(Self::Tombstone(name(&mut take)?));
        }
        if table != STREAM && table != SUBSCRIPTION {
            return Err(take.malformed("table of a key"));
        }
        let number = u64::from_be_bytes(take.array("key")?);
        let (stream, subscription) = (StreamId::new(number), Number::new(number));
        if take.is_empty() {
            let whole = table == STREAM;
            return Ok(if whole { Self::Stream(stream) } else { Self::Subscription(subscription) });
        }
        if take.u8("key")? != PART {
            return Err(take.malformed("part of a key"));
        }
        if table == SUBSCRIPTION {
            return Ok(Self::Link(subscription, name(&mut take)?));
        }
        let producer = ProducerId::new(&rest(&mut take)?);
        let producer = producer.ok_or(take.malformed("producer of a key"))?;
        Ok(Self::Producer(stream, producer))
    }
}

fn numbered(table: u8, number: u64, part: Option<&str>) -> Key {
    let mut key = BytesMut::with_capacity(10 + part.map_or(0, str::len));
    key.put_u8(table);
    key.put_u64(number);
    if let Some(part) = part {
        key.put_u8(PART);
        key.put_slice(part.as_bytes());
    }
    Key(key.freeze())
}

fn rest(take: &mut Take) -> Result<String, Malformed> {
    let bytes = take.slice(take.left(), "key")?;
    String::from_utf8(bytes.to_vec()).map_err(|_| take.malformed("text of a key"))
}

fn name(take: &mut Take) -> Result<StreamName, Malformed> {
    StreamName::new(&rest(take)?).map_err(|_| take.malformed("name of a key"))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(id) => write!(f, "stream {id}"),
            Self::Producer(id, producer) => {
                write!(f, "producer '{}' of stream {id}", producer.as_str())
            }
            Self::Tombstone(name) => write!(f, "tombstone of '{name}'"),
            Self::Subscription(number) => write!(f, "subscription {number}"),
            Self::Link(number, path) => write!(f, "link '{path}' of subscription {number}"),
        }
    }
}
