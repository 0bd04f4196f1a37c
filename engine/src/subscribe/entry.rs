//! Log entries of subscriptions, and their bytes.
//!
//! ```text
//! SUBSCRIBE    number, id, config, created, count, placed…
//! UNSUBSCRIBE  number
//! RELINK       number, count, placed…, count, path…
//! CONTROL      number, control, count, (path, stream, offset)…
//! config       flags u8 (1 pattern, 2 pull-wake, 4 description, 8 base), pattern?, count,
//!              stream…, URL or wake stream, lease TTL in ms, description?, base?
//! placed       path, stream (0: none), offset
//! offset       epoch, position
//! control      generation, flags u8 (1 waking, 2 held, 4 failing, 8 next attempt), failures,
//!              (wake id 12 bytes, deadline)?, holder?, next attempt?
//! ```

use std::{fmt, sync::Arc};

use bytes::{BufMut, BytesMut};

use super::{
    control::{Control, Phase},
    glob::Pattern,
    request::{Delivery, Subscribe, SubscriptionId, WakeId},
};
use crate::{
    log::codec::{Malformed, Put, Take},
    types::{Epoch, Offset, Seq, StoreMs, StreamId, StreamName, WallMs},
};

/// Names a subscription for ever, unlike its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Number(u64);

impl Number {
    pub(crate) const fn new(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One change of the subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Subscribe {
        number: Number,
        config: Arc<Subscribe>,
        created: WallMs,
        links: Vec<Placed>,
    },
    Unsubscribe {
        number: Number,
    },
    Relink {
        number: Number,
        added: Vec<Placed>,
        removed: Vec<StreamName>,
    },
    /// A wake, a lease or an end of one, with everything that was processed.
    Control {
        number: Number,
        /// As it is from here on.
        control: Control,
        acks: Vec<Acked>,
    },
}

/// Where a link by name starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) path: StreamName,
    /// `None`: there is no stream of that name.
    pub(crate) stream: Option<StreamId>,
    pub(crate) acked: Offset,
}

/// How far a stream was processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) path: StreamName,
    pub(crate) stream: StreamId,
    pub(crate) offset: Offset,
}

const SUBSCRIBE: u8 = 10;
const UNSUBSCRIBE: u8 = 11;
const RELINK: u8 = 12;
const CONTROL: u8 = 13;

const HAS_PATTERN: u8 = 1;
const PULL_WAKE: u8 = 2;
const HAS_DESCRIPTION: u8 = 4;
const HAS_BASE: u8 = 8;
const CONFIG_FLAGS: u8 = 15;

const WAKING: u8 = 1;
const HELD: u8 = 2;
const FAILING: u8 = 4;
const HAS_NEXT_ATTEMPT: u8 = 8;
const CONTROL_FLAGS: u8 = 15;

impl Entry {
    /// Which subscription it changes.
    pub(crate) const fn number(&self) -> Number {
        match self {
            Self::Subscribe { number, .. }
            | Self::Unsubscribe { number }
            | Self::Relink { number, .. }
            | Self::Control { number, .. } => *number,
        }
    }

    pub(crate) const fn tag(&self) -> u8 {
        match self {
            Self::Subscribe { .. } => SUBSCRIBE,
            Self::Unsubscribe { .. } => UNSUBSCRIBE,
            Self::Relink { .. } => RELINK,
            Self::Control { .. } => CONTROL,
        }
    }

    /// Writes the fields.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_varint(self.number().get());
        match self {
            Self::Subscribe { config, created, links, .. } => {
                out.put_string(config.id.as_str().as_bytes());
                put_config(config, out);
                out.put_varint(created.get());
                put_all(links, out, put_placed);
            }
            Self::Unsubscribe { .. } => {}
            Self::Relink { added, removed, .. } => {
                put_all(added, out, put_placed);
                put_all(removed, out, put_path);
            }
            Self::Control { control, acks, .. } => {
                put_control(control, out);
                put_all(acks, out, |ack, out| {
                    put_path(&ack.path, out);
                    out.put_varint(ack.stream.get());
                    put_offset(ack.offset, out);
                });
            }
        }
    }

    /// Reads the fields; `None` if the tag is none of these.
    pub(crate) fn decode(tag: u8, take: &mut Take) -> Result<Option<Self>, Malformed> {
        if !(SUBSCRIBE..=CONTROL).contains(&tag) {
            return Ok(None);
        }
        let number = Number(take.varint("subscription")?);
        let entry = match tag {
            SUBSCRIBE => {
                let id = take.text("subscription id")?;
                let id = SubscriptionId::new(&id).ok_or(take.malformed("subscription id"))?;
                Self::Subscribe {
                    number,
                    config: Arc::new(take_config(id, take)?),
                    created: WallMs::new(take.varint("created")?),
                    links: take_all(take, take_placed)?,
                }
            }
            UNSUBSCRIBE => Self::Unsubscribe { number },
            RELINK => Self::Relink {
                number,
                added: take_all(take, take_placed)?,
                removed: take_all(take, take_path)?,
            },
            _ => Self::Control {
                number,
                control: take_control(take)?,
                acks: take_all(take, |take| {
                    Ok(Acked {
                        path: take_path(take)?,
                        stream: StreamId::new(take.varint("stream")?),
                        offset: take_offset(take)?,
                    })
                })?,
            },
        };
        if take.is_empty() { Ok(Some(entry)) } else { Err(take.malformed("end of entry")) }
    }
}

fn put_all<T>(items: &[T], out: &mut BytesMut, put: impl Fn(&T, &mut BytesMut)) {
    out.put_varint(u64::try_from(items.len()).expect("usize fits u64"));
    items.iter().for_each(|item| put(item, out));
}

fn take_all<T>(
    take: &mut Take,
    one: impl Fn(&mut Take) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = take.count("count")?;
    // A count that lies must not reserve memory: every item takes a byte at least.
    let mut items = Vec::with_capacity(count.min(take.left()));
    for _ in 0..count {
        items.push(one(take)?);
    }
    Ok(items)
}

fn put_path(path: &StreamName, out: &mut BytesMut) {
    out.put_string(path.as_str().as_bytes());
}

fn take_path(take: &mut Take) -> Result<StreamName, Malformed> {
    StreamName::new(&take.text("path")?).map_err(|_| take.malformed("path"))
}

fn put_placed(placed: &Placed, out: &mut BytesMut) {
    put_path(&placed.path, out);
    out.put_varint(placed.stream.map_or(0, StreamId::get));
    put_offset(placed.acked, out);
}

fn take_placed(take: &mut Take) -> Result<Placed, Malformed> {
    Ok(Placed { path: take_path(take)?, stream: take_stream(take)?, acked: take_offset(take)? })
}

/// Reads a stream's id; zero is none.
pub(crate) fn take_stream(take: &mut Take) -> Result<Option<StreamId>, Malformed> {
    let raw = take.varint("stream")?;
    Ok((raw != 0).then_some(StreamId::new(raw)))
}

/// Writes an offset.
pub(crate) fn put_offset(offset: Offset, out: &mut BytesMut) {
    out.put_varint(u64::from(offset.epoch.get()));
    out.put_varint(offset.next.get());
}

/// Reads what [`put_offset`] wrote.
pub(crate) fn take_offset(take: &mut Take) -> Result<Offset, Malformed> {
    let epoch = u32::try_from(take.varint("epoch")?).map_err(|_| take.malformed("epoch"))?;
    Ok(Offset { epoch: Epoch::new(epoch), next: Seq::new(take.varint("position")?) })
}

/// Writes everything but the id.
pub(crate) fn put_config(config: &Subscribe, out: &mut BytesMut) {
    let flag = |bit: u8, on: bool| if on { bit } else { 0 };
    out.put_u8(
        flag(HAS_PATTERN, config.pattern.is_some())
            | flag(PULL_WAKE, matches!(config.delivery, Delivery::PullWake { .. }))
            | flag(HAS_DESCRIPTION, config.description.is_some())
            | flag(HAS_BASE, config.base.is_some()),
    );
    if let Some(pattern) = &config.pattern {
        out.put_string(pattern.as_str().as_bytes());
    }
    put_all(&config.streams, out, put_path);
    match &config.delivery {
        Delivery::Webhook { url } => out.put_string(url.as_bytes()),
        Delivery::PullWake { wake_stream } => put_path(wake_stream, out),
    }
    out.put_varint(config.lease_ttl_ms);
    if let Some(description) = &config.description {
        out.put_string(description.as_bytes());
    }
    if let Some(base) = &config.base {
        out.put_string(base.as_bytes());
    }
}

/// Reads what [`put_config`] wrote.
pub(crate) fn take_config(id: SubscriptionId, take: &mut Take) -> Result<Subscribe, Malformed> {
    let flags = take.u8("flags")?;
    if flags & !CONFIG_FLAGS != 0 {
        return Err(take.malformed("flags of a later version"));
    }
    let has = |bit| flags & bit != 0;
    let pattern = match has(HAS_PATTERN) {
        true => {
            let text = take.text("pattern")?;
            Some(Pattern::new(&text).map_err(|_| take.malformed("pattern"))?)
        }
        false => None,
    };
    let streams = take_all(take, take_path)?;
    let delivery = match has(PULL_WAKE) {
        true => Delivery::PullWake { wake_stream: take_path(take)? },
        false => Delivery::Webhook { url: take.text("url")? },
    };
    let lease_ttl_ms = take.varint("lease")?;
    let description = has(HAS_DESCRIPTION).then(|| take.text("description")).transpose()?;
    let base = has(HAS_BASE).then(|| take.text("base")).transpose()?;
    Ok(Subscribe { id, pattern, streams, delivery, lease_ttl_ms, description, base })
}

/// Writes a subscription's control.
pub(crate) fn put_control(control: &Control, out: &mut BytesMut) {
    let phase = match control.phase {
        Phase::Idle => 0,
        Phase::Waking { .. } => WAKING,
        Phase::Held { .. } => HELD,
    };
    let failing = if control.failing { FAILING } else { 0 };
    let next = if control.next_attempt.is_some() { HAS_NEXT_ATTEMPT } else { 0 };
    out.put_varint(control.generation);
    out.put_u8(phase | failing | next);
    out.put_varint(u64::from(control.failures));
    match &control.phase {
        Phase::Idle => {}
        Phase::Waking { wake_id, deadline } => {
            out.put_slice(&wake_id.0);
            out.put_varint(deadline.get());
        }
        Phase::Held { wake_id, holder, deadline } => {
            out.put_slice(&wake_id.0);
            out.put_varint(deadline.get());
            out.put_string(holder.as_bytes());
        }
    }
    if let Some(next_attempt) = control.next_attempt {
        out.put_varint(next_attempt.get());
    }
}

/// Reads what [`put_control`] wrote.
pub(crate) fn take_control(take: &mut Take) -> Result<Control, Malformed> {
    let generation = take.varint("generation")?;
    let flags = take.u8("control")?;
    if flags & !CONTROL_FLAGS != 0 {
        return Err(take.malformed("control of a later version"));
    }
    let failures = u32::try_from(take.varint("failures")?);
    let failures = failures.map_err(|_| take.malformed("failures"))?;
    let phase = match flags & (WAKING | HELD) {
        0 => Phase::Idle,
        WAKING => Phase::Waking {
            wake_id: WakeId(take.array("wake id")?),
            deadline: StoreMs::new(take.varint("deadline")?),
        },
        HELD => Phase::Held {
            wake_id: WakeId(take.array("wake id")?),
            deadline: StoreMs::new(take.varint("deadline")?),
            holder: take.text("holder")?.into(),
        },
        _ => return Err(take.malformed("phase")),
    };
    let next_attempt = match flags & HAS_NEXT_ATTEMPT {
        0 => None,
        _ => Some(StoreMs::new(take.varint("next attempt")?)),
    };
    Ok(Control { generation, phase, failures, next_attempt, failing: flags & FAILING != 0 })
}

#[cfg(test)]
mod tests;
