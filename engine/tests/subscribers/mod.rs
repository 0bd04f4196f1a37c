//! Streams and subscriptions in few words, for the tests of subscriptions.

use bytes::Bytes;
use weir_engine::{
    Engine,
    request::{Append, Create, Error, From, Read},
    subscribe::{
        Ack, Credential, Delivery, Link, Pattern, Refused, Report, Reported, Subscribe,
        SubscriptionId, SubscriptionView, Via, Wake,
    },
    types::{ContentType, Offset},
};

pub(crate) use crate::support::name;

pub(crate) fn id(text: &str) -> SubscriptionId {
    SubscriptionId::new(text).expect("a good id")
}

pub(crate) async fn create(engine: &Engine, text: &str, body: &str) {
    try_create(engine, text, body).await.expect("creates");
}

pub(crate) async fn try_create(engine: &Engine, text: &str, body: &str) -> Result<(), Error> {
    let create = Create {
        body: Bytes::copy_from_slice(body.as_bytes()),
        ..Create::new(name(text), ContentType::parse("application/json"))
    };
    engine.create(create).await.map(drop)
}

/// Appends a record and returns the tail.
pub(crate) async fn append(engine: &Engine, text: &str) -> Offset {
    try_append(engine, text, "{}").await.expect("appends")
}

pub(crate) async fn try_append(engine: &Engine, text: &str, body: &str) -> Result<Offset, Error> {
    let append = Append::new(
        name(text),
        ContentType::parse("application/json"),
        Bytes::copy_from_slice(body.as_bytes()),
    );
    engine.append(append).await.map(|appended| appended.next)
}

/// Everything in a JSON stream.
pub(crate) async fn contents(engine: &Engine, text: &str) -> Vec<serde_json::Value> {
    let read = Read { name: name(text), from: From::Start, key: None, bytes_max: 1 << 20 };
    let page = engine.read(read).await.expect("reads");
    let body = page.pieces.concat();
    serde_json::from_str(&format!("[{}]", String::from_utf8_lossy(&body))).expect("JSON")
}

pub(crate) fn pull(subscription: &str, pattern: Option<&str>, streams: &[&str]) -> Subscribe {
    Subscribe {
        id: id(subscription),
        pattern: pattern.map(|text| Pattern::new(text).expect("a good pattern")),
        streams: streams.iter().map(|text| name(text)).collect(),
        delivery: Delivery::PullWake { wake_stream: name("wakes") },
        lease_ttl_ms: 30_000,
        description: None,
        base: None,
    }
}

pub(crate) fn webhook(subscription: &str, pattern: &str) -> Subscribe {
    let url = "https://example.com/hook".to_owned();
    Subscribe { delivery: Delivery::Webhook { url }, ..pull(subscription, Some(pattern), &[]) }
}

pub(crate) async fn view(engine: &Engine, subscription: &str) -> SubscriptionView {
    engine.subscriptions().get(&id(subscription)).await.expect("is there")
}

/// The link to one stream as the subscription shows it.
pub(crate) async fn link(engine: &Engine, subscription: &str, stream: &str) -> Option<Link> {
    let listed = view(engine, subscription).await.links.listed;
    listed.into_iter().find(|link| link.path == name(stream))
}

pub(crate) async fn claim(engine: &Engine, subscription: &str) -> Wake {
    engine.subscriptions().claim(&id(subscription), "worker").await.expect("claims")
}

pub(crate) fn report(wake: &Wake, acks: &[(&str, Offset)], done: bool) -> Report {
    let acks = acks.iter().map(|(stream, offset)| Ack { stream: name(stream), offset: *offset });
    Report {
        credential: credential(wake),
        wake_id: wake.wake_id,
        generation: wake.generation,
        acks: acks.collect(),
        done,
    }
}

pub(crate) fn credential(wake: &Wake) -> Credential {
    Credential { incarnation: wake.incarnation, generation: wake.generation }
}

/// Reports on a pull-wake.
pub(crate) async fn ack(
    engine: &Engine,
    subscription: &str,
    wake: &Wake,
    acks: &[(&str, Offset)],
    done: bool,
) -> Result<Reported, Refused> {
    let report = report(wake, acks, done);
    let reported = engine.subscriptions().report(&id(subscription), Via::Pull, report).await;
    reported.map_err(refused)
}

/// The refusal that an error is.
pub(crate) fn refused(error: Error) -> Refused {
    match error {
        Error::Refused(refused) => refused,
        other => panic!("no refusal: {other}"),
    }
}
