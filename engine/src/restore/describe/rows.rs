//! Rows of streams, producers and subscriptions, and what they have in common with entries of the
//! log.

use super::item::{Field, Value, number, option, text};
use crate::{
    ledger::Row,
    state::{kept::Kept, rows::StreamRow},
    subscribe::{
        control::{Control, Phase},
        request::{Delivery, LinkType, Subscribe, WakeId},
        rows::{LinkRow, SubscriptionRow},
    },
    types::{Ancestry, Expiry, Lineage, Offset, ProducerTuple, Retention, WallMs},
};

pub(super) fn row(row: &Row) -> Vec<Field> {
    match row {
        Row::Stream(row) => stream(row),
        Row::Producer { stream, id, producer, lsn } => vec![
            ("stream", number(stream.get())),
            ("producer", text(id.as_str())),
            ("epoch", number(producer.epoch)),
            ("seq", number(producer.seq)),
            ("ends", Value::List(producer.ends.iter().map(|end| number(end.get())).collect())),
            ("commit", number(lsn.get())),
        ],
        Row::Tombstone { name, epoch } => {
            vec![("name", text(name.as_str())), ("epoch", number(epoch.get()))]
        }
        Row::Subscription(row) => {
            let SubscriptionRow { number: it, config, created, born, control, lsn } = &**row;
            let mut fields = vec![("subscription", number(it.get()))];
            fields.extend(subscribe(config));
            fields.push(("created_ms", number(created.get())));
            fields.push(("born", number(born.get())));
            fields.extend(self::control(control));
            fields.push(("commit", number(lsn.get())));
            fields
        }
        Row::Link(LinkRow { number: it, path, link, lsn }) => vec![
            ("subscription", number(it.get())),
            ("path", text(path.as_str())),
            ("type", link_type(link.kind())),
            ("stream", option(link.stream(), |id| number(id.get()))),
            ("acked", offset(link.acked())),
            ("tail", offset(link.tail())),
            ("commit", number(lsn.get())),
        ],
    }
}

fn stream(row: &StreamRow) -> Vec<Field> {
    let StreamRow { identity, state, sealed } = row;
    let Kept { retention, earliest, bytes, dropped, oldest, .. } = state.kept;
    let closed_by = state.closed.as_ref().and_then(|closed| closed.producer.as_ref());
    vec![
        ("stream", number(identity.id.get())),
        ("name", text(identity.name.as_str())),
        ("content_type", text(identity.content.as_str())),
        ("expiry", expiry(identity.expiry)),
        ("created_ms", number(identity.created.get())),
        ("lineage", lineage(&state.lineage)),
        ("next", number(state.next.get())),
        ("sealed", number(sealed.get())),
        ("closed", Value::Flag(state.closed.is_some())),
        ("closed_by", option(closed_by, producer)),
        ("stream_seq", option(state.stream_seq.clone(), Value::Bytes)),
        ("last_append_ms", number(state.last_append.get())),
        ("deadline_store_ms", option(state.deadline, |at| number(at.get()))),
        ("bytes", number(state.bytes)),
        ("producers", number(state.producers)),
        ("forks", number(state.refs)),
        ("retired", Value::Flag(state.retired)),
        ("fork_of", option(identity.fork.as_deref(), ancestry)),
        ("retention", self::retention(retention)),
        ("earliest", number(earliest.get())),
        ("kept_bytes", number(bytes)),
        ("dropped_bytes", number(dropped)),
        ("oldest_ms", option(oldest, wall)),
        ("commit", number(state.lsn.get())),
    ]
}

pub(super) fn wall(at: WallMs) -> Value {
    number(at.get())
}

pub(super) fn expiry(expiry: Expiry) -> Value {
    match expiry {
        Expiry::Never => Value::Nothing,
        Expiry::Sliding { ttl_seconds } => Value::Group(vec![("ttl_seconds", number(ttl_seconds))]),
        Expiry::At(at) => Value::Group(vec![("at_ms", wall(at))]),
    }
}

pub(super) fn lineage(lineage: &Lineage) -> Value {
    let parts = lineage.parts().iter().map(|(epoch, first)| {
        Value::Group(vec![("epoch", number(epoch.get())), ("first", number(first.get()))])
    });
    Value::List(parts.collect())
}

pub(super) fn producer(tuple: &ProducerTuple) -> Value {
    Value::Group(vec![
        ("id", text(tuple.id.as_str())),
        ("epoch", number(tuple.epoch)),
        ("seq", number(tuple.seq)),
    ])
}

pub(super) fn ancestry(fork: &Ancestry) -> Value {
    let runs = fork.runs.iter().map(|run| {
        Value::Group(vec![("stream", number(run.stream.get())), ("limit", number(run.limit.get()))])
    });
    Value::Group(vec![
        ("stream", number(fork.source.get())),
        ("name", text(fork.source_name.as_str())),
        ("at", number(fork.at.get())),
        ("anchor", number(fork.anchor.get())),
        ("sub_offset", number(fork.sub_offset)),
        ("asked", option(fork.asked, offset)),
        ("depth", number(fork.depth)),
        ("expiry_inherited", Value::Flag(fork.expiry_inherited)),
        ("runs", Value::List(runs.collect())),
    ])
}

pub(super) fn retention(retention: Retention) -> Value {
    if retention.is_none() {
        return Value::Nothing;
    }
    let limit = |it: Option<std::num::NonZeroU64>| option(it, |limit| number(limit.get()));
    Value::Group(vec![
        ("max_age_ms", limit(retention.max_age_ms)),
        ("max_bytes", limit(retention.max_bytes)),
    ])
}

pub(super) fn offset(offset: Offset) -> Value {
    Value::Group(vec![("epoch", number(offset.epoch.get())), ("next", number(offset.next.get()))])
}

fn link_type(kind: LinkType) -> Value {
    text(match kind {
        LinkType::Glob => "glob",
        LinkType::Explicit => "explicit",
    })
}

pub(super) fn subscribe(config: &Subscribe) -> Vec<Field> {
    let streams = config.streams.iter().map(|name| text(name.as_str()));
    let delivery = match &config.delivery {
        Delivery::Webhook { url } => ("webhook", text(url)),
        Delivery::PullWake { wake_stream } => ("wake_stream", text(wake_stream.as_str())),
    };
    vec![
        ("id", text(config.id.as_str())),
        ("pattern", option(config.pattern.as_ref(), |it| text(it.as_str()))),
        ("streams", Value::List(streams.collect())),
        delivery,
        ("lease_ttl_ms", number(config.lease_ttl_ms)),
        ("description", option(config.description.clone(), Value::Text)),
        ("base", option(config.base.clone(), Value::Text)),
    ]
}

pub(super) fn control(control: &Control) -> Vec<Field> {
    let wake = |WakeId(id): &WakeId| super::item::hex(id);
    let (phase, wake_id, holder, deadline) = match &control.phase {
        Phase::Idle => ("idle", Value::Nothing, Value::Nothing, Value::Nothing),
        Phase::Waking { wake_id, deadline } => {
            ("waking", wake(wake_id), Value::Nothing, number(deadline.get()))
        }
        Phase::Held { wake_id, holder, deadline } => {
            ("held", wake(wake_id), text(&**holder), number(deadline.get()))
        }
    };
    vec![
        ("generation", number(control.generation)),
        ("phase", text(phase)),
        ("wake", wake_id),
        ("holder", holder),
        ("deadline_store_ms", deadline),
        ("failures", number(control.failures)),
        ("failing", Value::Flag(control.failing)),
        ("next_attempt_store_ms", option(control.next_attempt, |at| number(at.get()))),
    ]
}
