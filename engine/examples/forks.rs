//! What forks cost: making one of a long stream, and reading through chains of them.
//!
//! ```text
//! cargo run --release -p weir-engine --example forks -- DIR
//! ```
#![expect(clippy::disallowed_methods, reason = "an example takes real time")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_engine::{
    Config, Engine,
    request::{Append, Create, Fork, From, Read},
    types::{Closing, ContentType, Offset, Retention, StreamName},
};

/// Records read in each round, however many streams they lie in.
const RECORDS: u64 = 16_384;
const RECORD_BYTES: usize = 100;
const ROUNDS: u32 = 20;

fn name(depth: u64, level: u64) -> StreamName {
    StreamName::new(&format!("chain/{depth}/{level}")).expect("a name")
}

fn content() -> ContentType {
    ContentType::parse("text/plain").expect("a type")
}

fn create(stream: StreamName, source: Option<StreamName>) -> Create {
    Create {
        name: stream,
        content: Some(content()),
        expiry: None,
        fork: source.map(|source| Fork { source, at: None, sub_offset: 0 }),
        retention: Retention::NONE,
        closing: Closing::KeepOpen,
        body: Bytes::new(),
        key: None,
    }
}

/// Requests on their way at most: the engine refuses many more.
const WAITING_MAX: usize = 10_000;

async fn append(engine: &Engine, stream: &StreamName, count: u64) {
    // A record is one body: many requests share a commit.
    let mut waiting = tokio::task::JoinSet::<Result<(), weir_engine::request::Error>>::new();
    for _ in 0..count {
        if waiting.len() == WAITING_MAX {
            let done = waiting.join_next().await.expect("some wait");
            done.expect("no panic").expect("appends");
        }
        let engine = engine.clone();
        let append =
            Append::new(stream.clone(), Some(content()), Bytes::from_static(&[b'x'; RECORD_BYTES]));
        waiting.spawn(async move { engine.append(append).await.map(drop) });
    }
    while let Some(done) = waiting.join_next().await {
        done.expect("no panic").expect("appends");
    }
}

/// Streams `0..=depth`, each a fork of the one before, which together hold [`RECORDS`].
async fn chain(engine: &Engine, depth: u64) {
    for level in 0..=depth {
        let source = level.checked_sub(1).map(|above| name(depth, above));
        engine.create(create(name(depth, level), source)).await.expect("creates");
        append(engine, &name(depth, level), RECORDS / (depth + 1)).await;
    }
}

async fn read(engine: &Engine, stream: &StreamName, from: From) -> (u64, Offset) {
    let read = Read { name: stream.clone(), from, key: None, bytes_max: 64 << 20 };
    let page = engine.read(read).await.expect("reads");
    assert!(page.up_to_date);
    (page.records, page.next)
}

/// Microseconds of one read, the mean of [`ROUNDS`].
async fn timed(engine: &Engine, stream: &StreamName, from: From) -> f64 {
    read(engine, stream, from).await;
    let began = Instant::now();
    for _ in 0..ROUNDS {
        read(engine, stream, from).await;
    }
    (began.elapsed() / ROUNDS).as_secs_f64() * 1e6
}

async fn table(engine: &Engine, what: &str, depths: &[u64]) {
    println!("{what}\n  forks  read {RECORDS} records µs  read the last own records µs");
    for &depth in depths {
        let leaf = name(depth, depth);
        let own = engine.head(&leaf).await.expect("is there").next;
        let point = Offset { next: weir_engine::types::Seq::new(own.next.get() - 4), ..own };
        let whole = timed(engine, &leaf, From::Start).await;
        let tail = timed(engine, &leaf, From::At(point)).await;
        println!("  {depth:>5}  {whole:>20.0}  {tail:>26.1}");
    }
}

#[tokio::main]
async fn main() {
    let dir = std::env::args().nth(1).expect("usage: forks DIR");
    let depths = [0, 1, 15, 127, 511];
    let open = || async {
        let world = weir_io::os::world().expect("inside a runtime");
        let mut config = Config::new(std::path::Path::new(&dir).join("store"));
        config.seal_age = Duration::from_secs(3600);
        Engine::open(world, config, "example").await.expect("the store opens")
    };
    let engine = open().await;
    for depth in depths {
        chain(&engine, depth).await;
    }
    table(&engine, "from memory", &depths).await;
    engine.close().await;
    drop(engine);
    let engine = open().await;
    let leaf = name(511, 511);
    let began = Instant::now();
    let (records, _) = read(&engine, &leaf, From::Start).await;
    println!("first read of the deepest after a restart: {:?} for {records}", began.elapsed());
    table(&engine, "from segments", &depths).await;

    let long = StreamName::new("long").expect("a name");
    engine.create(create(long.clone(), None)).await.expect("creates");
    for (records, count) in [(1_000, 1_000), (100_000, 99_000)] {
        append(&engine, &long, count).await;
        let began = Instant::now();
        for fork in 0..ROUNDS {
            let fork = StreamName::new(&format!("fork/{records}/{fork}")).expect("a name");
            engine.create(create(fork, Some(long.clone()))).await.expect("creates");
        }
        println!("fork of {records} records: {:?}, one commit each", began.elapsed() / ROUNDS);
    }
    engine.close().await;
}
