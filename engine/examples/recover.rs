//! How long it takes from an empty disk and a full bucket until the first read and the first append.
//!
//! ```sh
//! cargo run --release -p weir-engine --example recover -- DIR STREAMS MIB
//! ```
//! Fills so many streams with so much in all, deletes `DIR/store`, recovers it from `DIR/bucket`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, run by hand")]

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinSet;
use weir_engine::{
    Config, Engine,
    request::{Append, Create, Error, From, Read},
    restore::Options,
    types::{ContentType, StreamName},
};
use weir_io::{
    World,
    objects::{Counting, Counts, Objects, Verb},
    os::{
        self,
        objects::{Bucket, Kind},
    },
};

/// Requests at a time.
const CLIENTS: usize = 16;
/// Bytes of an append at most.
const BODY_BYTES: usize = 256 << 10;
/// How often a request is tried again that is refused because too much waits for the bucket.
const BUSY_LOOK: Duration = Duration::from_millis(20);

fn name(stream: usize) -> StreamName {
    StreamName::new(&format!("kept/{stream}")).unwrap()
}

fn binary() -> ContentType {
    ContentType::parse("application/octet-stream").unwrap()
}

/// Bytes that no codec makes shorter.
fn noise(len: usize, seed: usize) -> Bytes {
    let mut state = u64::try_from(seed).unwrap() | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// Whether a request was refused because too much waits for the bucket; then some time has passed.
async fn is_busy<T>(answer: Result<T, Error>) -> bool {
    match answer {
        Err(Error::Busy | Error::Backlogged) => {
            tokio::time::sleep(BUSY_LOOK).await;
            true
        }
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    }
}

async fn create(engine: &Engine, stream: usize) {
    let create = Create::new(name(stream), binary());
    while is_busy(engine.create(create.clone()).await).await {}
}

async fn append(engine: &Engine, stream: usize, body: Bytes) {
    let append = Append::new(name(stream), binary(), body);
    while is_busy(engine.append(append.clone()).await).await {}
}

async fn fill(engine: &Engine, streams: usize, each: usize) {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let engine = engine.clone();
        clients.spawn(async move {
            for stream in (client..streams).step_by(CLIENTS) {
                create(&engine, stream).await;
                let mut left = each;
                while left > 0 {
                    let len = left.min(BODY_BYTES);
                    append(&engine, stream, noise(len, stream + left)).await;
                    left -= len;
                }
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
}

/// Waits until the bucket has everything.
async fn published(engine: &Engine) {
    loop {
        let details = engine.server_details();
        let publishing = details.publishing.unwrap();
        let newest = publishing.newest.is_some_and(|it| it.through >= details.commits.durable);
        if newest && publishing.pending_files == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn bucket(world: &World, dir: &Path) -> (Arc<dyn Objects>, Arc<Counts>) {
    let kind = Kind::Local { directory: dir.join("bucket") };
    let bucket = Bucket { kind, name: None, prefix: None, variables: [].into() };
    let bucket = os::objects::open(&bucket, world).await.unwrap();
    let counts = Arc::new(Counts::new(Arc::clone(&world.clock)));
    (Arc::new(Counting::new(bucket, Arc::clone(&counts))), counts)
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = std::path::PathBuf::from(arguments.next().expect("a directory"));
    let mut number = || arguments.next().and_then(|it| it.parse::<usize>().ok()).expect("a number");
    let (streams, bytes) = (number(), number() << 20);
    let world = os::world().unwrap();
    let clock = Arc::clone(&world.clock);
    let store = dir.join("store");
    world.disk.create_dir_all(&store).unwrap();

    let began = clock.elapsed();
    let (objects, _) = bucket(&world, &dir).await;
    let config = || Config::new(&store);
    let engine =
        Engine::open_with(world.clone(), config(), Some(objects), "example").await.unwrap();
    fill(&engine, streams, bytes / streams).await;
    published(&engine).await;
    engine.close().await;
    drop(engine);
    println!("filled and published in {:.1?}", clock.elapsed() - began);

    std::fs::remove_dir_all(&store).unwrap();
    let (objects, counts) = bucket(&world, &dir).await;
    let options = Options::default();
    let began = clock.elapsed();
    let report =
        Engine::bootstrap(world.clone(), config(), Arc::clone(&objects), options, "example");
    let report = report.await.unwrap();
    println!(
        "bootstrap of {} streams, {} segments: {:.2?}",
        report.streams,
        report.segments,
        clock.elapsed() - began
    );
    let engine =
        Engine::open_with(world.clone(), config(), Some(objects), "example").await.unwrap();
    println!("open: {:.2?}", clock.elapsed() - began);
    let read = Read { name: name(streams / 2), from: From::Start, key: None, bytes_max: 64 << 10 };
    let page = engine.read(read).await.unwrap();
    println!("first read, of {} bytes: {:.2?}", page.bytes, clock.elapsed() - began);
    append(&engine, streams / 2, noise(100, 1)).await;
    println!("first append: {:.2?}", clock.elapsed() - began);
    let asked = counts.snapshot();
    for verb in Verb::ALL {
        let figures = asked.of_verb(verb);
        println!("{}: {} requests, {} bytes", verb.as_str(), figures.requests, figures.bytes);
    }
    engine.close().await;
    world.tasks.lanes_ended().await;
}
