//! Commits and their entries; each write is followed by its records.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    item::{Batch, Each, Field, Flow, Item, Value, Whose, mark, number, option, records, text},
    rows,
};
use crate::{
    log::{
        commit,
        entry::{self, Create, Delete, Entry, Trim, Why, Write},
    },
    subscribe::entry::{Acked, Entry as Subscription, Placed},
    types::{Form, Lsn, Seq, StreamId, StreamName},
};

/// A stream, as far as it is known by its number.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) name: StreamName,
    pub(super) form: Form,
}

/// Finds a stream by its number.
pub(super) type Find<'a> = dyn Fn(StreamId) -> Option<Known> + 'a;

/// Shows commits one after the other.
pub(super) struct Commits<'a> {
    find: &'a Find<'a>,
    /// What was found, and what the log itself makes.
    known: BTreeMap<StreamId, Option<Known>>,
    /// Records before these positions were shown already.
    shown: BTreeMap<StreamId, Seq>,
}

impl<'a> Commits<'a> {
    pub(super) fn new(find: &'a Find<'a>) -> Self {
        Self { find, known: BTreeMap::new(), shown: BTreeMap::new() }
    }

    /// What is known of a stream.
    pub(super) fn stream(&mut self, id: StreamId) -> Option<Known> {
        let find = self.find;
        self.known.entry(id).or_insert_with(|| find(id)).clone()
    }

    /// The first record of a stream that was not shown.
    pub(super) fn unshown(&self, id: StreamId) -> Seq {
        self.shown.get(&id).copied().unwrap_or(Seq::ZERO)
    }

    /// Notes that the records of a stream before `limit` were shown.
    pub(super) fn showed(&mut self, id: StreamId, limit: Seq) {
        let shown = self.shown.entry(id).or_insert(limit);
        *shown = limit.max(*shown);
    }

    pub(super) fn commit(&mut self, bytes: &Bytes, each: Each<'_>) -> Flow {
        let (header, link, body) = match commit::open(bytes) {
            Ok(opened) => opened,
            Err(bad) => return each(Item::damage("a commit", bad)),
        };
        each(Item::entry(
            "commit",
            vec![
                ("commit", number(link.lsn.get())),
                ("mark", mark(link.crc)),
                ("after", number(header.before.lsn.get())),
                ("after_mark", mark(header.before.crc)),
                ("writer_epoch", number(header.writer_epoch)),
                ("wall_ms", number(header.wall.get())),
                ("store_ms", number(header.store_ms.get())),
                ("entries", number(header.entries)),
            ],
        ))?;
        match entry::decode_all(body) {
            Ok(entries) => entries.iter().try_for_each(|it| self.entry(link.lsn, it, each)),
            Err(bad) => each(Item::damage(format!("entries of commit {}", link.lsn), bad)),
        }
    }

    fn entry(&mut self, lsn: Lsn, entry: &Entry, each: Each<'_>) -> Flow {
        if let Entry::Create(create) = entry {
            let (name, form) = (create.name.clone(), create.content.form());
            self.known.insert(create.stream, Some(Known { name, form }));
        }
        let (kind, mut fields) = plain(entry);
        fields.insert(0, ("commit", number(lsn.get())));
        each(Item::entry(kind, fields))?;
        match entry {
            Entry::Write(write) => self.records(write, each),
            _ => Flow::Continue(()),
        }
    }

    fn records(&mut self, write: &Write, each: Each<'_>) -> Flow {
        let Some(written) = &write.records else { return Flow::Continue(()) };
        let known = self.stream(write.stream);
        let (first, timestamp) = (write.first, write.timestamp);
        // A damaged commit may say anything.
        let Some(limit) = first.get().checked_add(written.count()).map(Seq::new) else {
            return each(Item::damage("records of a write", "their positions exceed 64 bits"));
        };
        let from = self.unshown(write.stream).max(first);
        if from >= limit {
            return Flow::Continue(());
        }
        let name = known.as_ref().map(|it| it.name.as_str());
        let whose = Whose { stream: write.stream, name };
        let batch = Batch { first, records: written, timestamp, key: write.key.as_ref() };
        records(whose, batch, from, known.as_ref().map(|it| it.form), each)?;
        self.showed(write.stream, limit);
        Flow::Continue(())
    }
}

/// An entry without its records.
fn plain(entry: &Entry) -> (&'static str, Vec<Field>) {
    match entry {
        Entry::Create(it) => ("create", create(it)),
        Entry::Write(it) => ("write", write(it)),
        Entry::Delete(Delete { stream, name, epoch, why: reason, source }) => (
            "delete",
            vec![
                ("stream", number(stream.get())),
                ("name", text(name.as_str())),
                ("epoch", number(epoch.get())),
                ("why", why(*reason)),
                ("source", option(*source, |id| number(id.get()))),
            ],
        ),
        Entry::Renew { stream, deadline } => (
            "renew",
            vec![("stream", number(stream.get())), ("deadline_store_ms", number(deadline.get()))],
        ),
        Entry::Trim(Trim { stream, earliest, dropped, oldest, head_bytes }) => (
            "trim",
            vec![
                ("stream", number(stream.get())),
                ("earliest", number(earliest.get())),
                ("dropped_bytes", number(*dropped)),
                ("oldest_ms", option(*oldest, rows::wall)),
                ("head_bytes", number(*head_bytes)),
            ],
        ),
        Entry::Retain { stream, retention } => (
            "retain",
            vec![("stream", number(stream.get())), ("retention", rows::retention(*retention))],
        ),
        Entry::Retire { stream, why: reason } => {
            ("retire", vec![("stream", number(stream.get())), ("why", why(*reason))])
        }
        Entry::Subscription(it) => subscription(it),
    }
}

fn create(create: &Create) -> Vec<Field> {
    vec![
        ("stream", number(create.stream.get())),
        ("name", text(create.name.as_str())),
        ("content_type", text(create.content.as_str())),
        ("expiry", rows::expiry(create.expiry)),
        ("lineage", rows::lineage(&create.lineage)),
        ("created_ms", number(create.created.get())),
        ("deadline_store_ms", option(create.deadline, |at| number(at.get()))),
        ("fork_of", option(create.fork.as_deref(), rows::ancestry)),
        ("retention", rows::retention(create.retention)),
        ("earliest", number(create.earliest.get())),
    ]
}

fn write(write: &Write) -> Vec<Field> {
    let count = write.records.as_ref().map_or(0, crate::types::Records::count);
    let bytes = write.records.as_ref().map_or(0, |records| records.payload.len());
    vec![
        ("stream", number(write.stream.get())),
        ("first", number(write.first.get())),
        ("records", number(count)),
        ("bytes", number(u64::try_from(bytes).expect("usize fits u64"))),
        ("timestamp_ms", number(write.timestamp.get())),
        ("stream_seq", option(write.stream_seq.clone(), Value::Bytes)),
        ("producer", option(write.producer.as_ref(), rows::producer)),
        ("closes", Value::Flag(write.closes)),
    ]
}

fn subscription(entry: &Subscription) -> (&'static str, Vec<Field>) {
    match entry {
        Subscription::Subscribe { number: it, config, created, links } => {
            let mut fields = vec![("subscription", number(it.get()))];
            fields.extend(rows::subscribe(config));
            fields.push(("created_ms", number(created.get())));
            fields.push(("links", Value::List(links.iter().map(placed).collect())));
            ("subscribe", fields)
        }
        Subscription::Unsubscribe { number: it } => {
            ("unsubscribe", vec![("subscription", number(it.get()))])
        }
        Subscription::Relink { number: it, added, removed } => (
            "relink",
            vec![
                ("subscription", number(it.get())),
                ("added", Value::List(added.iter().map(placed).collect())),
                ("removed", Value::List(removed.iter().map(|it| text(it.as_str())).collect())),
            ],
        ),
        Subscription::Control { number: it, control, acks } => {
            let mut fields = vec![("subscription", number(it.get()))];
            fields.extend(rows::control(control));
            fields.push(("acks", Value::List(acks.iter().map(acked).collect())));
            ("control", fields)
        }
    }
}

fn placed(Placed { path, stream, acked }: &Placed) -> Value {
    Value::Group(vec![
        ("path", text(path.as_str())),
        ("stream", option(*stream, |id| number(id.get()))),
        ("acked", rows::offset(*acked)),
    ])
}

fn acked(Acked { path, stream, offset }: &Acked) -> Value {
    Value::Group(vec![
        ("path", text(path.as_str())),
        ("stream", number(stream.get())),
        ("acked", rows::offset(*offset)),
    ])
}

fn why(why: Why) -> Value {
    text(match why {
        Why::Asked => "asked",
        Why::Expired => "expired",
        Why::Unreferenced => "unreferenced",
    })
}
