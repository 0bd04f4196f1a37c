//! Catalogue rows of subscriptions and links, and their bytes.
//!
//! ```text
//! subscription  version u8 | config | created | lsn of its creation | control
//! link          version u8 | kind u8 (0 matching, 1 named) | stream (0: none) | acked | tail
//! ```

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    control::Control,
    entry::{self, Number},
    links::Stored,
    request::{LinkType, Subscribe, SubscriptionId},
};
use crate::{
    log::codec::{Malformed, Put, Take},
    types::{Lsn, StreamId, StreamName, WallMs},
};

const VERSION: u8 = 1;

/// A subscription as the catalogue keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionRow {
    pub(crate) number: Number,
    pub(crate) config: Arc<Subscribe>,
    pub(crate) created: WallMs,
    /// The commit that made it: what was written before does not concern it.
    pub(crate) born: Lsn,
    pub(crate) control: Control,
    /// Every commit up to this one is in it.
    pub(crate) lsn: Lsn,
}

/// A link as the catalogue keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkRow {
    pub(crate) number: Number,
    pub(crate) path: StreamName,
    pub(crate) link: Stored,
    /// Every commit up to this one is in it.
    pub(crate) lsn: Lsn,
}

/// Writes everything but number, id and lsn, which are columns.
pub(crate) fn encode_subscription(
    config: &Subscribe,
    created: WallMs,
    born: Lsn,
    control: &Control,
) -> BytesMut {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(VERSION);
    entry::put_config(config, &mut out);
    out.put_varint(created.get());
    out.put_varint(born.get());
    entry::put_control(control, &mut out);
    out
}

/// Reads a subscription's row.
pub(crate) fn decode_subscription(
    number: Number,
    id: SubscriptionId,
    lsn: Lsn,
    row: Vec<u8>,
) -> Result<SubscriptionRow, Malformed> {
    let mut take = Take::new(Bytes::from(row));
    let take = &mut take;
    check_version(take)?;
    let config = Arc::new(entry::take_config(id, take)?);
    let created = WallMs::new(take.varint("created")?);
    let born = Lsn::new(take.varint("born")?);
    let control = entry::take_control(take)?;
    check_end(take)?;
    Ok(SubscriptionRow { number, config, created, born, control, lsn })
}

/// Writes everything but number, path and lsn, which are columns.
pub(crate) fn encode_link(link: &Stored) -> BytesMut {
    let mut out = BytesMut::with_capacity(32);
    out.put_u8(VERSION);
    out.put_u8(u8::from(link.kind() == LinkType::Explicit));
    out.put_varint(link.stream().map_or(0, StreamId::get));
    entry::put_offset(link.acked(), &mut out);
    entry::put_offset(link.tail(), &mut out);
    out
}

/// Reads a link's row.
pub(crate) fn decode_link(
    number: Number,
    path: StreamName,
    lsn: Lsn,
    row: Vec<u8>,
) -> Result<LinkRow, Malformed> {
    let mut take = Take::new(Bytes::from(row));
    let take = &mut take;
    check_version(take)?;
    let kind = match take.u8("kind")? {
        0 => LinkType::Glob,
        1 => LinkType::Explicit,
        _ => return Err(take.malformed("kind")),
    };
    let stream = entry::take_stream(take)?;
    let acked = entry::take_offset(take)?;
    let tail = entry::take_offset(take)?;
    check_end(take)?;
    Ok(LinkRow { number, path, link: Stored::new(kind, stream, acked, tail), lsn })
}

fn check_version(take: &mut Take) -> Result<(), Malformed> {
    if take.u8("row version")? == VERSION { Ok(()) } else { Err(take.malformed("row version")) }
}

fn check_end(take: &Take) -> Result<(), Malformed> {
    if take.is_empty() { Ok(()) } else { Err(take.malformed("end of row")) }
}
