//! A store, its bucket, and the machines that come and go, for the tests of recoveries.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::task::LocalSet;
use weir_engine::{
    Config, Engine, OpenError,
    request::{Append, AppendOutcome, Appended, Create, Error, From, Page, Read, Rejection},
    restore::{Existing, Losses, Moment, Options, Report, RestoreError},
    types::{ContentType, Offset, ProducerId, ProducerTuple, StreamName},
    verify::Depth,
};
use weir_io::{
    World,
    memory::{Machine, MemoryBucket},
    objects::Key,
};

pub(crate) const DIR: &str = "/weir/store";

/// Seconds that have passed in all lives of a test.
static LIVES: AtomicU64 = AtomicU64::new(0);

/// One life of a machine. Each begins an hour after the one before.
pub(crate) fn life<R>(machine: &Machine, test: impl AsyncFnOnce(World) -> R) -> R {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    let at = Duration::from_secs(3600 * LIVES.fetch_add(1, Ordering::Relaxed));
    let world = runtime.block_on(async { machine.boot(at) });
    LocalSet::new().block_on(&runtime, test(world))
}

/// A machine with an empty disk that reaches the same bucket.
pub(crate) fn another(machine: &Machine, seed: u64) -> Machine {
    let mut other = Machine::new(seed);
    other.share_bucket(machine.bucket());
    other
}

pub(crate) fn config() -> Config {
    Config { gc_grace: Duration::from_secs(600), ..Config::new(DIR) }
}

pub(crate) async fn try_open(world: &World, machine: &Machine) -> Result<Engine, OpenError> {
    let bucket = machine.bucket().client(world.clock.clone());
    Engine::open_with(world.clone(), config(), Some(bucket), "a test").await
}

pub(crate) async fn open(world: &World, machine: &Machine) -> Engine {
    try_open(world, machine).await.expect("opens")
}

pub(crate) async fn bootstrap(
    world: &World,
    machine: &Machine,
    options: Options,
) -> Result<Report, RestoreError> {
    let bucket = machine.bucket().client(world.clock.clone());
    Engine::bootstrap(world.clone(), config(), bucket, options, "a test").await
}

/// Looks for damage, without a word if there is none.
pub(crate) async fn verify(world: &World, machine: &Machine, depth: Depth) -> Vec<&'static str> {
    let bucket = machine.bucket().client(world.clock.clone());
    let found = Engine::verify(world.clone(), config(), Some(bucket), depth).await;
    let found = found.expect("there is something to look at");
    found.findings.iter().for_each(|finding| println!("{finding}"));
    found.findings.iter().map(|finding| finding.rule).collect()
}

/// Recovers without any finding, and opens.
pub(crate) async fn recover(world: &World, machine: &Machine) -> Engine {
    let report = bootstrap(world, machine, Options::default()).await.expect("recovers");
    assert_eq!(report.findings, []);
    open(world, machine).await
}

pub(crate) fn partial() -> Options {
    Options { losses: Losses::Accept, ..Options::default() }
}

pub(crate) fn at(moment: Moment) -> Options {
    Options { at: moment, ..Options::default() }
}

pub(crate) fn forced() -> Options {
    Options { existing: Existing::SetAside, ..Options::default() }
}

pub(crate) fn name(text: &str) -> StreamName {
    StreamName::new(text).expect("a good name")
}

pub(crate) fn text() -> ContentType {
    ContentType::parse("text/plain").expect("a good type")
}

pub(crate) async fn create(engine: &Engine, stream: &str) {
    engine.create(Create::new(name(stream), text())).await.expect("creates");
}

pub(crate) async fn append(engine: &Engine, stream: &str, body: &str) -> Offset {
    let body = Bytes::copy_from_slice(body.as_bytes());
    engine.append(Append::new(name(stream), text(), body)).await.expect("appends").next
}

pub(crate) async fn produce(
    engine: &Engine,
    stream: &str,
    body: &str,
    seq: u64,
) -> Result<AppendOutcome, Error> {
    let producer = ProducerTuple { id: ProducerId::new("p").expect("an id"), epoch: 1, seq };
    let body = Bytes::copy_from_slice(body.as_bytes());
    let append = Append { producer: Some(producer), ..Append::new(name(stream), text(), body) };
    engine.append(append).await.map(|Appended { outcome, .. }| outcome)
}

pub(crate) async fn page(engine: &Engine, stream: &str, from: From) -> Result<Page, Error> {
    engine.read(Read { name: name(stream), from, key: None, bytes_max: 64 << 20 }).await
}

/// Everything in a stream.
pub(crate) async fn contents(engine: &Engine, stream: &str) -> String {
    let page = page(engine, stream, From::Start).await.expect("reads");
    String::from_utf8(page.pieces.concat()).expect("text")
}

/// What is read from an offset.
pub(crate) async fn after(engine: &Engine, stream: &str, offset: Offset) -> String {
    let page = page(engine, stream, From::At(offset)).await.expect("reads");
    String::from_utf8(page.pieces.concat()).expect("text")
}

/// Where reading goes on, of an offset that was lost.
pub(crate) async fn lost(engine: &Engine, stream: &str, offset: Offset) -> Offset {
    match page(engine, stream, From::At(offset)).await {
        Err(Error::Rejected(Rejection::OffsetLost { next, .. })) => next,
        other => panic!("offset {offset:?} of '{stream}': {other:?}"),
    }
}

/// Time passes, and everything that is due in it happens.
pub(crate) async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

pub(crate) fn keys(bucket: &MemoryBucket, prefix: &str) -> Vec<Key> {
    let keys = bucket.keys().into_iter();
    keys.filter(|key| key.as_str().starts_with(prefix)).collect()
}

pub(crate) fn manifest(generation: u64) -> Key {
    Key::new(format!("manifest/{:020}.mf", u64::MAX - generation)).expect("a good key")
}
