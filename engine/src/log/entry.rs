//! Log entries: every change of durable state, and their bytes.
//!
//! ```text
//! entry    tag u8 | length u32 | fields
//! CREATE   stream, name, content type, expiry, lineage, created, deadline?, last append,
//!          ancestry (of a fork), retention, earliest, oldest
//! WRITE    stream, flags, first, timestamp, key?, stream-seq?, producer?, deadline?,
//!          lengths of the records but the last, payload in wire form
//! DELETE   stream, name, epoch, why, source (of a fork: it loses a reference)
//! RENEW    stream, deadline
//! RETIRE   stream, why: deleted, but kept for its forks
//! TRIM     stream, earliest, bytes dropped, oldest, bytes of the first record left
//! RETAIN   stream, retention
//! SUBSCRIBE, UNSUBSCRIBE, RELINK, CONTROL: see `subscribe::entry`
//! FENCE    reserved: writer epoch (a takeover by another node)
//! ```
//! An unknown tag is an error: a log written by a later version must not be half understood.

use std::{num::NonZeroU64, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::{
    ancestry,
    codec::{Malformed, Put, Take},
};
use crate::subscribe::entry as subscription;
use crate::types::{
    Ancestry, ContentType, Ends, Epoch, Expiry, Lineage, ProducerId, ProducerTuple, Records,
    Retention, Seq, StoreMs, StreamId, StreamName, WallMs,
};

/// One change of durable state.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Create(Create),
    Write(Write),
    Delete(Delete),
    Renew { stream: StreamId, deadline: StoreMs },
    Retire { stream: StreamId, why: Why },
    Trim(Trim),
    Retain { stream: StreamId, retention: Retention },
    Subscription(subscription::Entry),
}

/// A stream comes to be.
#[derive(Clone, Debug)]
pub(crate) struct Create {
    pub(crate) stream: StreamId,
    pub(crate) name: StreamName,
    pub(crate) content: ContentType,
    pub(crate) expiry: Expiry,
    pub(crate) lineage: Lineage,
    pub(crate) created: WallMs,
    pub(crate) deadline: Option<StoreMs>,
    /// No record of it may be older. Zero unless it inherits some: the first records may say that
    /// they are older than their stream.
    pub(crate) last_append: WallMs,
    pub(crate) fork: Option<Arc<Ancestry>>,
    pub(crate) retention: Retention,
    /// The first position that can be read; of a fork as of its source then.
    pub(crate) earliest: Seq,
    /// Timestamp of the record there, if one is inherited.
    pub(crate) oldest: Option<WallMs>,
}

/// Records, a closure, or both, with the writer state that commits together with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) stream: StreamId,
    pub(crate) first: Seq,
    pub(crate) records: Option<Records>,
    pub(crate) timestamp: WallMs,
    pub(crate) key: Option<Bytes>,
    pub(crate) closes: bool,
    pub(crate) producer: Option<ProducerTuple>,
    /// The stream had no state of this producer before.
    pub(crate) introduces: bool,
    pub(crate) stream_seq: Option<Bytes>,
    pub(crate) deadline: Option<StoreMs>,
}

/// A stream ends. Carries name and epoch so that it can be folded without the stream's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delete {
    pub(crate) stream: StreamId,
    pub(crate) name: StreamName,
    pub(crate) epoch: Epoch,
    pub(crate) why: Why,
    /// The stream it was a fork of, which loses a reference by this.
    pub(crate) source: Option<StreamId>,
}

/// A stream lets go of its oldest records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trim {
    pub(crate) stream: StreamId,
    /// The first position that can be read from here on.
    pub(crate) earliest: Seq,
    /// Bytes of the stream's own records that go.
    pub(crate) dropped: u64,
    /// Timestamp of the record at `earliest`, if there is one.
    pub(crate) oldest: Option<WallMs>,
    /// Bytes of the first of its own records that stays; zero if none does.
    pub(crate) head_bytes: u64,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Asked,
    Expired,
    /// The last fork that kept it has ended.
    Unreferenced,
}

const CREATE: u8 = 1;
const WRITE: u8 = 2;
const DELETE: u8 = 3;
const RENEW: u8 = 4;
const RETIRE: u8 = 6;
const TRIM: u8 = 7;
const RETAIN: u8 = 8;

const CLOSES: u8 = 1;
const HAS_KEY: u8 = 2;
const HAS_STREAM_SEQ: u8 = 4;
const HAS_PRODUCER: u8 = 8;
const HAS_DEADLINE: u8 = 16;
const HAS_RECORDS: u8 = 32;
const INTRODUCES: u8 = 64;
const FLAGS_KNOWN: u8 = 127;

/// Appends an entry to `out`. Returns where the payload of a write lies in `out`.
pub(crate) fn encode(entry: &Entry, out: &mut BytesMut) -> std::ops::Range<usize> {
    let tag = match entry {
        Entry::Create(_) => CREATE,
        Entry::Write(_) => WRITE,
        Entry::Delete(_) => DELETE,
        Entry::Renew { .. } => RENEW,
        Entry::Retire { .. } => RETIRE,
        Entry::Trim(_) => TRIM,
        Entry::Retain { .. } => RETAIN,
        Entry::Subscription(entry) => entry.tag(),
    };
    out.put_u8(tag);
    let length_at = out.len();
    out.put_u32_le(0);
    let start = out.len();
    let mut payload = start..start;
    match entry {
        Entry::Create(create) => encode_create(create, out),
        Entry::Write(write) => payload = encode_write(write, out),
        Entry::Delete(delete) => {
            out.put_varint(delete.stream.get());
            out.put_string(delete.name.as_str().as_bytes());
            out.put_varint(u64::from(delete.epoch.get()));
            put_why(delete.why, out);
            out.put_varint(delete.source.map_or(0, StreamId::get));
        }
        Entry::Renew { stream, deadline } => {
            out.put_varint(stream.get());
            out.put_varint(deadline.get());
        }
        Entry::Retire { stream, why } => {
            out.put_varint(stream.get());
            put_why(*why, out);
        }
        Entry::Trim(trim) => {
            out.put_varint(trim.stream.get());
            out.put_varint(trim.earliest.get());
            out.put_varint(trim.dropped);
            put_oldest(trim.oldest, out);
            out.put_varint(trim.head_bytes);
        }
        Entry::Retain { stream, retention } => {
            out.put_varint(stream.get());
            put_retention(*retention, out);
        }
        Entry::Subscription(entry) => entry.encode(out),
    }
    let length = u32::try_from(out.len() - start).expect("bodies are bounded far below 4 GiB");
    out[length_at..start].copy_from_slice(&length.to_le_bytes());
    payload
}

fn encode_create(create: &Create, out: &mut BytesMut) {
    out.put_varint(create.stream.get());
    out.put_string(create.name.as_str().as_bytes());
    out.put_string(create.content.as_str().as_bytes());
    put_expiry(create.expiry, out);
    put_lineage(&create.lineage, out);
    out.put_varint(create.created.get());
    put_deadline(create.deadline, out);
    out.put_varint(create.last_append.get());
    ancestry::put(create.fork.as_deref(), out);
    put_retention(create.retention, out);
    out.put_varint(create.earliest.get());
    put_oldest(create.oldest, out);
}

/// Both limits, zero for none.
pub(crate) fn put_retention(retention: Retention, out: &mut BytesMut) {
    out.put_varint(retention.max_age_ms.map_or(0, NonZeroU64::get));
    out.put_varint(retention.max_bytes.map_or(0, NonZeroU64::get));
}

pub(crate) fn take_retention(take: &mut Take) -> Result<Retention, Malformed> {
    Ok(Retention {
        max_age_ms: NonZeroU64::new(take.varint("retention")?),
        max_bytes: NonZeroU64::new(take.varint("retention")?),
    })
}

/// A timestamp plus one, zero for none.
pub(crate) fn put_oldest(oldest: Option<WallMs>, out: &mut BytesMut) {
    out.put_varint(oldest.map_or(0, |at| at.get().saturating_add(1)));
}

pub(crate) fn take_oldest(take: &mut Take) -> Result<Option<WallMs>, Malformed> {
    Ok(take.varint("oldest")?.checked_sub(1).map(WallMs::new))
}

/// The number of parts, then epoch and first position of each.
pub(crate) fn put_lineage(lineage: &Lineage, out: &mut BytesMut) {
    let parts = lineage.parts();
    out.put_varint(u64::try_from(parts.len()).expect("usize fits u64"));
    for (epoch, first) in parts {
        out.put_varint(u64::from(epoch.get()));
        out.put_varint(first.get());
    }
}

pub(crate) fn take_lineage(take: &mut Take) -> Result<Lineage, Malformed> {
    let mut parts = SmallVec::new();
    for _ in 0..take.count("lineage")? {
        parts.push((take_epoch(take)?, Seq::new(take.varint("lineage")?)));
    }
    Lineage::from_parts(parts).ok_or(take.malformed("lineage"))
}

fn put_why(why: Why, out: &mut BytesMut) {
    out.put_u8(match why {
        Why::Asked => 0,
        Why::Expired => 1,
        Why::Unreferenced => 2,
    });
}

fn take_why(take: &mut Take) -> Result<Why, Malformed> {
    match take.u8("why")? {
        0 => Ok(Why::Asked),
        1 => Ok(Why::Expired),
        2 => Ok(Why::Unreferenced),
        _ => Err(take.malformed("why")),
    }
}

pub(crate) fn put_expiry(expiry: Expiry, out: &mut BytesMut) {
    let (tag, value) = match expiry {
        Expiry::Never => (0, 0),
        Expiry::Sliding { ttl_seconds } => (1, ttl_seconds),
        Expiry::At(at) => (2, at.get()),
    };
    out.put_u8(tag);
    out.put_varint(value);
}

pub(crate) fn take_expiry(take: &mut Take) -> Result<Expiry, Malformed> {
    let tag = take.u8("expiry")?;
    let value = take.varint("expiry")?;
    match tag {
        0 => Ok(Expiry::Never),
        1 => Ok(Expiry::Sliding { ttl_seconds: value }),
        2 => Ok(Expiry::At(WallMs::new(value))),
        _ => Err(take.malformed("expiry")),
    }
}

/// Zero means none: no deadline is ever at the very start of a store's time.
pub(crate) fn put_deadline(deadline: Option<StoreMs>, out: &mut BytesMut) {
    out.put_varint(deadline.map_or(0, |at| at.get().max(1)));
}

pub(crate) fn take_deadline(take: &mut Take) -> Result<Option<StoreMs>, Malformed> {
    let at = take.varint("deadline")?;
    Ok((at != 0).then_some(StoreMs::new(at)))
}

fn encode_write(write: &Write, out: &mut BytesMut) -> std::ops::Range<usize> {
    let flag = |bit: u8, on: bool| if on { bit } else { 0 };
    out.put_varint(write.stream.get());
    out.put_u8(
        flag(CLOSES, write.closes)
            | flag(HAS_KEY, write.key.is_some())
            | flag(HAS_STREAM_SEQ, write.stream_seq.is_some())
            | flag(HAS_PRODUCER, write.producer.is_some())
            | flag(HAS_DEADLINE, write.deadline.is_some())
            | flag(HAS_RECORDS, write.records.is_some())
            | flag(INTRODUCES, write.introduces),
    );
    out.put_varint(write.first.get());
    out.put_varint(write.timestamp.get());
    if let Some(key) = &write.key {
        out.put_string(key);
    }
    if let Some(seq) = &write.stream_seq {
        out.put_string(seq);
    }
    if let Some(producer) = &write.producer {
        out.put_string(producer.id.as_str().as_bytes());
        out.put_varint(producer.epoch);
        out.put_varint(producer.seq);
    }
    if write.deadline.is_some() {
        put_deadline(write.deadline, out);
    }
    let Some(records) = &write.records else {
        return out.len()..out.len();
    };
    encode_ends(&records.ends, out);
    out.put_slice(&records.payload);
    out.len() - records.payload.len()..out.len()
}

/// The number of records, then the distance of each end but the last from the one before it.
pub(crate) fn encode_ends(ends: &Ends, out: &mut BytesMut) {
    out.put_varint(ends.count());
    if let Ends::Many(ends) = ends {
        let mut before = 0;
        for end in &ends[..ends.len() - 1] {
            out.put_varint(u64::from(end - before));
            before = *end;
        }
    }
}

/// Reads entries until the bytes end.
pub(crate) fn decode_all(body: Bytes) -> Result<Vec<Entry>, Malformed> {
    let mut take = Take::new(body);
    let mut entries = Vec::new();
    while !take.is_empty() {
        let tag = take.u8("entry tag")?;
        let length = usize::try_from(take.u32("entry length")?).expect("u32 fits usize");
        let mut fields = Take::new(take.slice(length, "entry")?);
        let entry = match tag {
            CREATE => Entry::Create(decode_create(&mut fields)?),
            WRITE => Entry::Write(decode_write(fields)?),
            DELETE => Entry::Delete(decode_delete(&mut fields)?),
            RENEW => Entry::Renew {
                stream: StreamId::new(fields.varint("stream")?),
                deadline: StoreMs::new(fields.varint("deadline")?),
            },
            RETIRE => Entry::Retire {
                stream: StreamId::new(fields.varint("stream")?),
                why: take_why(&mut fields)?,
            },
            TRIM => Entry::Trim(Trim {
                stream: StreamId::new(fields.varint("stream")?),
                earliest: Seq::new(fields.varint("earliest")?),
                dropped: fields.varint("dropped")?,
                oldest: take_oldest(&mut fields)?,
                head_bytes: fields.varint("head")?,
            }),
            RETAIN => Entry::Retain {
                stream: StreamId::new(fields.varint("stream")?),
                retention: take_retention(&mut fields)?,
            },
            tag => match subscription::Entry::decode(tag, &mut fields)? {
                Some(entry) => Entry::Subscription(entry),
                None => return Err(take.malformed("entry tag of a later version")),
            },
        };
        entries.push(entry);
    }
    Ok(entries)
}

fn decode_create(take: &mut Take) -> Result<Create, Malformed> {
    Ok(Create {
        stream: StreamId::new(take.varint("stream")?),
        name: take_name(take)?,
        content: take_content(take)?,
        expiry: take_expiry(take)?,
        lineage: take_lineage(take)?,
        created: WallMs::new(take.varint("created")?),
        deadline: take_deadline(take)?,
        last_append: WallMs::new(take.varint("last append")?),
        fork: ancestry::take(take)?.map(Arc::new),
        retention: take_retention(take)?,
        earliest: Seq::new(take.varint("earliest")?),
        oldest: take_oldest(take)?,
    })
}

pub(crate) fn take_name(take: &mut Take) -> Result<StreamName, Malformed> {
    StreamName::new(&take.text("name")?).map_err(|_| take.malformed("name"))
}

pub(crate) fn take_content(take: &mut Take) -> Result<ContentType, Malformed> {
    ContentType::parse(&take.text("content type")?).ok_or(take.malformed("content type"))
}

pub(crate) fn take_epoch(take: &mut Take) -> Result<Epoch, Malformed> {
    let raw = take.varint("epoch")?;
    u32::try_from(raw).map(Epoch::new).map_err(|_| take.malformed("epoch"))
}

fn decode_delete(take: &mut Take) -> Result<Delete, Malformed> {
    Ok(Delete {
        stream: StreamId::new(take.varint("stream")?),
        name: take_name(take)?,
        epoch: take_epoch(take)?,
        why: take_why(take)?,
        source: match take.varint("source")? {
            0 => None,
            source => Some(StreamId::new(source)),
        },
    })
}

fn decode_write(mut take: Take) -> Result<Write, Malformed> {
    let stream = StreamId::new(take.varint("stream")?);
    let flags = take.u8("flags")?;
    if flags & !FLAGS_KNOWN != 0 {
        return Err(take.malformed("flags of a later version"));
    }
    let has = |bit| flags & bit != 0;
    let first = Seq::new(take.varint("first")?);
    let timestamp = WallMs::new(take.varint("timestamp")?);
    let key = has(HAS_KEY).then(|| take.string("key")).transpose()?;
    let stream_seq = has(HAS_STREAM_SEQ).then(|| take.string("stream-seq")).transpose()?;
    let producer = has(HAS_PRODUCER).then(|| take_producer(&mut take)).transpose()?;
    let deadline = if has(HAS_DEADLINE) { take_deadline(&mut take)? } else { None };
    let records = if has(HAS_RECORDS) { Some(take_records(&mut take)?) } else { None };
    if !take.is_empty() {
        return Err(take.malformed("end of write"));
    }
    Ok(Write {
        stream,
        first,
        records,
        timestamp,
        key,
        closes: has(CLOSES),
        producer,
        introduces: has(INTRODUCES),
        stream_seq,
        deadline,
    })
}

pub(crate) fn take_producer(take: &mut Take) -> Result<ProducerTuple, Malformed> {
    let id = take.text("producer")?;
    Ok(ProducerTuple {
        id: ProducerId::new(&id).ok_or(take.malformed("producer"))?,
        epoch: take.varint("producer epoch")?,
        seq: take.varint("producer sequence")?,
    })
}

fn take_records(take: &mut Take) -> Result<Records, Malformed> {
    let count = take.count("record count")?;
    let mut inner = Vec::new();
    let mut before = 0u32;
    for _ in 1..count {
        let length = take.varint("record end")?;
        let end = u32::try_from(length).ok().and_then(|length| before.checked_add(length));
        before = end.ok_or(take.malformed("record end"))?;
        inner.push(before);
    }
    let payload = take.slice(take.left(), "payload")?;
    let ends = match count {
        0 => return Err(take.malformed("record count")),
        1 => Ends::One,
        _ => {
            let last = u32::try_from(payload.len()).map_err(|_| take.malformed("payload"))?;
            if last < before {
                return Err(take.malformed("payload"));
            }
            inner.push(last);
            Ends::Many(inner.into())
        }
    };
    Ok(Records { payload, ends })
}
