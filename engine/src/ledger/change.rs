//! What a ledger says of one key.

use bytes::{BufMut, Bytes, BytesMut};

use super::key::Key;
use crate::log::codec::{Malformed, Put, Take};

const DELETE_BELOW: u8 = 0;
const DELETE: u8 = 1;
const PUT: u8 = 2;

/// A change of one row, or the end of many. Sorts by key; a [`Op::DeleteBelow`] comes before
/// the row of its own key, because it concerns older ledgers only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) op: Op,
}

/// What happens to a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    /// The rows of this key and of every key that begins with it, as older ledgers have them, are
    /// gone. Rows of the same ledger are not concerned.
    DeleteBelow,
    /// The row is gone.
    Delete,
    /// The row is this.
    Put(Bytes),
}

impl Change {
    pub(crate) const fn delete_below(prefix: Key) -> Self {
        Self { key: prefix, op: Op::DeleteBelow }
    }

    pub(crate) const fn delete(key: Key) -> Self {
        Self { key, op: Op::Delete }
    }

    pub(crate) const fn put(key: Key, value: Bytes) -> Self {
        Self { key, op: Op::Put(value) }
    }

    /// Whether it may follow `before` in a ledger: keys ascend, and one key has at most one
    /// [`Op::DeleteBelow`] and one [`Op::Put`] in this order. A [`Op::Delete`] beside a
    /// [`Op::DeleteBelow`] says nothing and is refused.
    pub(super) fn may_follow(&self, before: &Self) -> bool {
        let again = before.op == Op::DeleteBelow && matches!(self.op, Op::Put(_));
        before.key < self.key || (before.key == self.key && again)
    }

    /// About as many bytes as it takes in a block.
    pub(super) fn cost(&self) -> usize {
        let value = if let Op::Put(value) = &self.op { value.len() } else { 0 };
        self.key.bytes().len() + value + 8
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(match self.op {
            Op::DeleteBelow => DELETE_BELOW,
            Op::Delete => DELETE,
            Op::Put(_) => PUT,
        });
        out.put_string(self.key.bytes());
        if let Op::Put(value) = &self.op {
            out.put_string(value);
        }
    }

    pub(super) fn decode(take: &mut Take) -> Result<Self, Malformed> {
        let op = take.u8("change")?;
        let key = Key::new(take.string("key of a change")?);
        let op = match op {
            DELETE_BELOW => Op::DeleteBelow,
            DELETE => Op::Delete,
            PUT => Op::Put(take.string("value of a change")?),
            _ => return Err(take.malformed("kind of a change")),
        };
        Ok(Self { key, op })
    }
}
