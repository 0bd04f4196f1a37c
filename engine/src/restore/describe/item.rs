//! What is shown of a stored thing: plain items, which somebody else writes down.

use std::{fmt::Write as _, ops::ControlFlow};

use bytes::Bytes;

use crate::types::{Form, Records, Seq, StreamId, WallMs};

/// Goes on, or stops because whoever looks has seen enough.
pub type Flow = ControlFlow<()>;

/// Takes what is shown, item by item.
pub type Each<'a> = &'a mut dyn FnMut(Item) -> Flow;

/// A name and what is shown under it.
pub type Field = (&'static str, Value);

/// One thing to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What part of the thing it is.
    pub rank: Rank,
    /// What it is, in a word.
    pub kind: &'static str,
    /// What is known of it.
    pub fields: Vec<Field>,
}

/// What part of a stored thing an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// What the thing says of itself; comes first.
    Head,
    /// One of the things in it.
    Entry,
    /// Something that can't be read.
    Damage,
}

/// What is known of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// There is none.
    Nothing,
    /// Yes or no.
    Flag(bool),
    /// How many, or which.
    Number(u64),
    /// A name, or a sentence.
    Text(String),
    /// Bytes of somebody's own.
    Bytes(Bytes),
    /// A record.
    Record(Bytes, Form),
    /// Several of a kind.
    List(Vec<Self>),
    /// Several of different kinds.
    Group(Vec<Field>),
}

impl Item {
    pub(super) const fn head(kind: &'static str, fields: Vec<Field>) -> Self {
        Self { rank: Rank::Head, kind, fields }
    }

    pub(super) const fn entry(kind: &'static str, fields: Vec<Field>) -> Self {
        Self { rank: Rank::Entry, kind, fields }
    }

    pub(super) fn damage(what: impl Into<String>, why: impl ToString) -> Self {
        let fields = vec![("what", text(what)), ("why", text(why.to_string()))];
        Self { rank: Rank::Damage, kind: "damage", fields }
    }
}

pub(super) fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

pub(super) fn number(number: impl Into<u64>) -> Value {
    Value::Number(number.into())
}

pub(super) fn option<T>(it: Option<T>, value: impl FnOnce(T) -> Value) -> Value {
    it.map_or(Value::Nothing, value)
}

pub(super) fn mark(crc: u32) -> Value {
    text(format!("{crc:08x}"))
}

pub(super) fn hex(bytes: &[u8]) -> Value {
    Value::Text(bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes it");
        text
    }))
}

/// Whose records are shown.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) stream: StreamId,
    /// The stream's name, where it is known.
    pub(super) name: Option<&'a str>,
}

/// Some records that came together.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    pub(super) first: Seq,
    pub(super) records: &'a Records,
    pub(super) timestamp: WallMs,
    pub(super) key: Option<&'a Bytes>,
}

/// Shows the records of a batch from a position on. Without their form nobody knows what stands
/// between two of them: then they are shown as the bytes that they are.
pub(super) fn records(
    whose: Whose<'_>,
    batch: Batch<'_>,
    from: Seq,
    form: Option<Form>,
    each: Each<'_>,
) -> Flow {
    let Batch { first, records, timestamp, key } = batch;
    let count = records.count();
    let item = |kind, at: u64, more: Vec<Field>| {
        let mut fields = Vec::with_capacity(8);
        if let Some(name) = whose.name {
            fields.push(("name", text(name)));
        }
        fields.push(("stream", number(whose.stream.get())));
        fields.push(("seq", number(first.after(at).get())));
        fields.push(("timestamp_ms", number(timestamp.get())));
        if let Some(key) = key {
            fields.push(("key", Value::Bytes(key.clone())));
        }
        fields.extend(more);
        Item::entry(kind, fields)
    };
    let Some(form) = form.or((count == 1).then_some(Form::Binary)) else {
        let bytes = Value::Bytes(records.payload.clone());
        return each(item("records", 0, vec![("count", number(count)), ("bytes", bytes)]));
    };
    for at in from.since(first)..count {
        let index = usize::try_from(at).expect("records of a batch fit memory");
        let range = records.ends.slice(index..index + 1, records.payload.len(), form);
        let record = Value::Record(records.payload.slice(range), form);
        each(item("record", at, vec![("value", record)]))?;
    }
    Flow::Continue(())
}
