//! Bytes of catalogue rows (docs/FORMATS.md, Catalogue).
//!
//! ```text
//! stream    version u8 | content type, expiry, created | lineage: count, (epoch, first)… |
//!           next | sealed | closed u8 (0 open, 1 closed, 2 closed by producer …) |
//!           stream-seq? | last append | deadline | bytes | producers | references |
//!           retired u8 | fork u8 (0 none, 1: ancestry as in CREATE) | retention | earliest |
//!           bytes kept | bytes dropped | oldest | bytes of the first record kept | trimmed
//! producer  version u8 | epoch | seq | count, ends as distances
//! ```

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::{
    kept::Kept,
    stream::{ClosedBy, Identity, Producer, StreamState},
};
use crate::{
    log::{
        ancestry,
        codec::{Malformed, Put, Take},
        entry,
    },
    types::{Lsn, Seq, StreamId, StreamName, WallMs},
};

const VERSION: u8 = 2;
/// Of producers' rows.
const PRODUCER_VERSION: u8 = 1;

/// A stream as the catalogue keeps it.
#[derive(Clone, Debug)]
pub(crate) struct StreamRow {
    pub(crate) identity: Identity,
    pub(crate) state: StreamState,
    pub(crate) sealed: Seq,
}

/// Writes everything but id, name and lsn, which are columns.
pub(crate) fn encode_stream(identity: &Identity, state: &StreamState, sealed: Seq) -> BytesMut {
    let mut out = BytesMut::with_capacity(96);
    out.put_u8(VERSION);
    out.put_string(identity.content.as_str().as_bytes());
    entry::put_expiry(identity.expiry, &mut out);
    out.put_varint(identity.created.get());
    entry::put_lineage(&state.lineage, &mut out);
    out.put_varint(state.next.get());
    out.put_varint(sealed.get());
    match &state.closed {
        None => out.put_u8(0),
        Some(ClosedBy { producer: None }) => out.put_u8(1),
        Some(ClosedBy { producer: Some(tuple) }) => {
            out.put_u8(2);
            out.put_string(tuple.id.as_str().as_bytes());
            out.put_varint(tuple.epoch);
            out.put_varint(tuple.seq);
        }
    }
    out.put_option(state.stream_seq.as_deref());
    out.put_varint(state.last_append.get());
    entry::put_deadline(state.deadline, &mut out);
    out.put_varint(state.bytes);
    out.put_varint(u64::from(state.producers));
    out.put_varint(state.refs);
    out.put_u8(u8::from(state.retired));
    ancestry::put(identity.fork.as_deref(), &mut out);
    put_kept(&state.kept, &mut out);
    out
}

fn put_kept(kept: &Kept, out: &mut BytesMut) {
    entry::put_retention(kept.retention, out);
    out.put_varint(kept.earliest.get());
    out.put_varint(kept.bytes);
    out.put_varint(kept.dropped);
    entry::put_oldest(kept.oldest, out);
    out.put_varint(kept.head_bytes);
    out.put_varint(kept.trimmed.get());
}

fn take_kept(take: &mut Take) -> Result<Kept, Malformed> {
    Ok(Kept {
        retention: entry::take_retention(take)?,
        earliest: Seq::new(take.varint("earliest")?),
        bytes: take.varint("bytes kept")?,
        dropped: take.varint("bytes dropped")?,
        oldest: entry::take_oldest(take)?,
        head_bytes: take.varint("bytes of the first record")?,
        trimmed: Lsn::new(take.varint("trimmed")?),
    })
}

/// Reads a stream row.
pub(crate) fn decode_stream(
    id: StreamId,
    name: StreamName,
    lsn: Lsn,
    row: Vec<u8>,
) -> Result<StreamRow, Malformed> {
    let mut take = Take::new(Bytes::from(row));
    let take = &mut take;
    if take.u8("row version")? != VERSION {
        return Err(take.malformed("row version"));
    }
    let content = entry::take_content(take)?;
    let expiry = entry::take_expiry(take)?;
    let created = WallMs::new(take.varint("created")?);
    let lineage = entry::take_lineage(take)?;
    let next = Seq::new(take.varint("next")?);
    let sealed = Seq::new(take.varint("sealed")?);
    let closed = match take.u8("closed")? {
        0 => None,
        1 => Some(ClosedBy { producer: None }),
        2 => Some(ClosedBy { producer: Some(entry::take_producer(take)?) }),
        _ => return Err(take.malformed("closed")),
    };
    let stream_seq = take.option("stream-seq")?;
    let last_append = WallMs::new(take.varint("last append")?);
    let deadline = entry::take_deadline(take)?;
    let bytes = take.varint("bytes")?;
    let producers = u32::try_from(take.varint("producers")?);
    let producers = producers.map_err(|_| take.malformed("producers"))?;
    let refs = take.varint("references")?;
    let retired = take.u8("retired")? != 0;
    let fork = ancestry::take(take)?.map(Arc::new);
    let kept = take_kept(take)?;
    let own_start = fork.as_ref().map_or(Seq::ZERO, |fork| fork.at);
    if sealed > next || sealed < own_start || kept.earliest > next || !take.is_empty() {
        return Err(take.malformed("stream row"));
    }
    let state = StreamState {
        lineage,
        next,
        closed,
        stream_seq,
        last_append,
        deadline,
        form: content.form(),
        bytes,
        kept,
        producers,
        refs,
        retired,
        lsn,
    };
    let identity = Identity { id, name, content, expiry, created, fork };
    Ok(StreamRow { identity, state, sealed })
}

/// Writes a producer's state.
pub(crate) fn encode_producer(producer: &Producer) -> BytesMut {
    let mut out = BytesMut::with_capacity(32);
    out.put_u8(PRODUCER_VERSION);
    out.put_varint(producer.epoch);
    out.put_varint(producer.seq);
    out.put_varint(u64::try_from(producer.ends.len()).expect("usize fits u64"));
    let mut before = Seq::ZERO;
    for end in &producer.ends {
        out.put_varint(end.since(before));
        before = *end;
    }
    out
}

/// Reads a producer's state.
pub(crate) fn decode_producer(row: Vec<u8>) -> Result<Producer, Malformed> {
    let mut take = Take::new(Bytes::from(row));
    let take = &mut take;
    if take.u8("row version")? != PRODUCER_VERSION {
        return Err(take.malformed("row version"));
    }
    let epoch = take.varint("producer epoch")?;
    let seq = take.varint("producer sequence")?;
    let mut ends = SmallVec::new();
    let mut before = 0u64;
    for _ in 0..take.count("ends")? {
        let end = before.checked_add(take.varint("end")?);
        before = end.ok_or(take.malformed("end"))?;
        ends.push(Seq::new(before));
    }
    if !take.is_empty() {
        return Err(take.malformed("producer row"));
    }
    Ok(Producer { epoch, seq, ends })
}
