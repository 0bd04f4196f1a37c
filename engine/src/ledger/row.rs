//! Rows of the catalogue as a ledger keeps them: the columns that the key does not have, then the
//! row's own bytes.
//!
//! ```text
//! stream        name │ lsn │ row       tombstone     epoch
//! producer      lsn │ row              subscription  id │ lsn │ row
//! link          lsn │ row
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    change::{Change, Op},
    key::Address,
};
use crate::{
    log::codec::{Malformed, Put, Take},
    state::{
        rows::{self, StreamRow},
        stream::Producer,
    },
    subscribe::{
        entry::Number,
        request::SubscriptionId,
        rows::{self as subscriptions, LinkRow, SubscriptionRow},
    },
    types::{Epoch, Lsn, ProducerId, StreamId, StreamName},
};

/// A row of one of the catalogue's tables.
#[derive(Clone, Debug)]
pub(crate) enum Row {
    Stream(Box<StreamRow>),
    Producer {
        stream: StreamId,
        id: ProducerId,
        producer: Producer,
        /// Every commit up to this one is in it.
        lsn: Lsn,
    },
    Tombstone {
        name: StreamName,
        /// The last one the name was used under.
        epoch: Epoch,
    },
    Subscription(Box<SubscriptionRow>),
    Link(LinkRow),
}

impl Row {
    /// What the key names.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Stream(row) => Address::Stream(row.identity.id),
            Self::Producer { stream, id, .. } => Address::Producer(*stream, id.clone()),
            Self::Tombstone { name, .. } => Address::Tombstone(name.clone()),
            Self::Subscription(row) => Address::Subscription(row.number),
            Self::Link(row) => Address::Link(row.number, row.path.clone()),
        }
    }

    /// The change that makes the row what it is.
    pub(crate) fn put(&self) -> Change {
        match self {
            Self::Stream(row) => stream(row),
            Self::Producer { stream, id, producer, lsn } => {
                self::producer(*stream, id, producer, *lsn)
            }
            Self::Tombstone { name, epoch } => tombstone(name, *epoch),
            Self::Subscription(row) => {
                let SubscriptionRow { number, config, created, born, control, lsn } = &**row;
                let body = subscriptions::encode_subscription(config, *created, *born, control);
                subscription(*number, &config.id, *lsn, &body)
            }
            Self::Link(row) => {
                let body = subscriptions::encode_link(&row.link);
                link(row.number, &row.path, row.lsn, &body)
            }
        }
    }

    /// The row that a change puts; `None` if it deletes.
    ///
    /// # Errors
    /// Key or value are none of this version.
    pub(crate) fn decode(change: &Change) -> Result<Option<Self>, Malformed> {
        let address = Address::parse(&change.key)?;
        let Op::Put(value) = &change.op else { return Ok(None) };
        let mut take = Take::new(value.clone());
        let take = &mut take;
        Ok(Some(match address {
            Address::Stream(id) => {
                let name = StreamName::new(&take.text("name of a stream")?);
                let name = name.map_err(|_| take.malformed("name of a stream"))?;
                let lsn = take_lsn(take)?;
                Self::Stream(Box::new(rows::decode_stream(id, name, lsn, rest(take)?)?))
            }
            Address::Producer(stream, id) => {
                let lsn = take_lsn(take)?;
                let producer = rows::decode_producer(rest(take)?)?;
                Self::Producer { stream, id, producer, lsn }
            }
            Address::Tombstone(name) => {
                let epoch = u32::try_from(take.varint("epoch of a tombstone")?);
                let epoch = epoch.map_err(|_| take.malformed("epoch of a tombstone"))?;
                if !take.is_empty() {
                    return Err(take.malformed("tombstone"));
                }
                Self::Tombstone { name, epoch: Epoch::new(epoch) }
            }
            Address::Subscription(number) => {
                let id = SubscriptionId::new(&take.text("id of a subscription")?);
                let id = id.ok_or(take.malformed("id of a subscription"))?;
                let lsn = take_lsn(take)?;
                let row = subscriptions::decode_subscription(number, id, lsn, rest(take)?)?;
                Self::Subscription(Box::new(row))
            }
            Address::Link(number, path) => {
                let lsn = take_lsn(take)?;
                Self::Link(subscriptions::decode_link(number, path, lsn, rest(take)?)?)
            }
        }))
    }
}

/// A stream's row.
pub(crate) fn stream(row: &StreamRow) -> Change {
    let body = rows::encode_stream(&row.identity, &row.state, row.sealed);
    let name = row.identity.name.as_str().as_bytes();
    let mut out = BytesMut::with_capacity(16 + name.len() + body.len());
    out.put_string(name);
    out.put_varint(row.state.lsn.get());
    out.put_slice(&body);
    Change::put(Address::Stream(row.identity.id).key(), out.freeze())
}

/// A producer's row.
pub(crate) fn producer(stream: StreamId, id: &ProducerId, producer: &Producer, lsn: Lsn) -> Change {
    let body = rows::encode_producer(producer);
    Change::put(Address::Producer(stream, id.clone()).key(), with_lsn(lsn, &body))
}

/// The last epoch a name was used under.
pub(crate) fn tombstone(name: &StreamName, epoch: Epoch) -> Change {
    let mut out = BytesMut::with_capacity(5);
    out.put_varint(u64::from(epoch.get()));
    Change::put(Address::Tombstone(name.clone()).key(), out.freeze())
}

/// A subscription's row; `body` is what [`subscriptions::encode_subscription`] made.
pub(crate) fn subscription(number: Number, id: &SubscriptionId, lsn: Lsn, body: &[u8]) -> Change {
    let mut out = BytesMut::with_capacity(16 + id.as_str().len() + body.len());
    out.put_string(id.as_str().as_bytes());
    out.put_varint(lsn.get());
    out.put_slice(body);
    Change::put(Address::Subscription(number).key(), out.freeze())
}

/// A link's row; `body` is what [`subscriptions::encode_link`] made.
pub(crate) fn link(number: Number, path: &StreamName, lsn: Lsn, body: &[u8]) -> Change {
    Change::put(Address::Link(number, path.clone()).key(), with_lsn(lsn, body))
}

fn with_lsn(lsn: Lsn, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(10 + body.len());
    out.put_varint(lsn.get());
    out.put_slice(body);
    out.freeze()
}

fn take_lsn(take: &mut Take) -> Result<Lsn, Malformed> {
    take.varint("lsn of a row").map(Lsn::new)
}

/// What is left is the row itself.
fn rest(take: &mut Take) -> Result<Vec<u8>, Malformed> {
    Ok(take.slice(take.left(), "row")?.to_vec())
}
