//! How fast a stream is read whose bytes are here, and one whose bytes only the bucket has.
//!
//! ```sh
//! cargo run --release -p weir-engine --example history -- DIR [MIB] [LATENCY_MS]
//! ```
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, run by hand")]

use std::{ops::Range, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use weir_engine::{
    Config, Engine,
    request::{Append, Create, From, Read},
    types::{ContentType, Epoch, Offset, Seq, StreamName},
};
use weir_io::{
    World,
    objects::{Counting, Counts, Created, Key, Meta, Objects, Payload, Pending, Verb},
    os::{
        self,
        objects::{Bucket, Kind},
    },
};

const RECORD_BYTES: usize = 16 << 10;
const PAGES: [usize; 2] = [4 << 20, 64 << 10];

/// A bucket whose objects are read only after a while.
struct Far {
    bucket: Arc<dyn Objects>,
    latency: Duration,
}

impl Objects for Far {
    fn create<'a>(&'a self, key: &'a Key, payload: Payload) -> Pending<'a, Created> {
        self.bucket.create(key, payload)
    }
    fn get<'a>(&'a self, key: &'a Key, bytes_max: u64) -> Pending<'a, Bytes> {
        self.bucket.get(key, bytes_max)
    }
    fn get_range<'a>(&'a self, key: &'a Key, range: Range<u64>) -> Pending<'a, Bytes> {
        Box::pin(async move {
            tokio::time::sleep(self.latency).await;
            self.bucket.get_range(key, range).await
        })
    }
    fn head<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Meta>> {
        self.bucket.head(key)
    }
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        limit: usize,
    ) -> Pending<'a, Vec<Meta>> {
        self.bucket.list(prefix, after, limit)
    }
    fn delete<'a>(&'a self, key: &'a Key) -> Pending<'a, ()> {
        self.bucket.delete(key)
    }
}

/// A place with a store and its bucket.
struct Site {
    world: World,
    config: Config,
    bucket: Arc<dyn Objects>,
    counts: Arc<Counts>,
}

impl Site {
    async fn open(&self, local_bytes_max: u64) -> Engine {
        let config = Config { local_bytes_max, ..self.config.clone() };
        let bucket = Some(Arc::clone(&self.bucket));
        Engine::open_with(self.world.clone(), config, bucket, "example").await.unwrap()
    }

    /// Has every local copy evicted.
    async fn evict(&self) {
        let engine = self.open(0).await;
        while engine.metrics().evictions.get() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        engine.close().await;
    }

    /// Reads everything in pages and says how fast that was.
    async fn read(&self, what: &str, page_bytes: usize) {
        let engine = self.open(u64::MAX).await;
        let before = self.counts.snapshot().of_verb(Verb::GetRange).requests;
        let started = self.world.clock.elapsed();
        let mut bytes = 0;
        let mut from = From::Start;
        loop {
            let read = Read { name: name(), from, key: None, bytes_max: page_bytes };
            let page = engine.read(read).await.unwrap();
            bytes += page.bytes;
            from = From::At(page.next);
            if page.up_to_date {
                break;
            }
        }
        let took = self.world.clock.elapsed() - started;
        let requests = self.counts.snapshot().of_verb(Verb::GetRange).requests - before;
        let rate = (u128::try_from(bytes).unwrap() * 1_000_000 / took.as_micros()) >> 20;
        println!(
            "{what:<8} pages of {page_bytes:>8}: {took:>9.2?} {rate:>6} MiB/s {requests:>4} GETs"
        );
        engine.close().await;
    }

    /// Reads single records far from each other.
    async fn jump(&self, records: u64) {
        let engine = self.open(u64::MAX).await;
        let mut took = Vec::new();
        for at in 0..20 {
            let next = Seq::new(at * (records / 20) + 1);
            let from = From::At(Offset { epoch: Epoch::ZERO, next });
            let started = self.world.clock.elapsed();
            engine.read(Read { name: name(), from, key: None, bytes_max: 1 }).await.unwrap();
            took.push(self.world.clock.elapsed() - started);
        }
        took.sort();
        println!("one record: median {:.2?}, longest {:.2?}", took[10], took[19]);
        engine.close().await;
    }
}

fn name() -> StreamName {
    StreamName::new("history").unwrap()
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().expect("a directory");
    let mut number = |default| arguments.next().map_or(default, |it| it.parse().unwrap());
    let (mib, latency): (u64, u64) = (number(128), number(0));
    let world = os::world().unwrap();
    let kind = Kind::Local { directory: Path::new(&dir).join("bucket") };
    let bucket = Bucket { kind, name: None, prefix: None, variables: [].into() };
    let bucket = os::objects::open(&bucket, &world).await.unwrap();
    let bucket = Arc::new(Far { bucket, latency: Duration::from_millis(latency) });
    let counts = Arc::new(Counts::new(Arc::clone(&world.clock)));
    let bucket: Arc<dyn Objects> = Arc::new(Counting::new(bucket, Arc::clone(&counts)));
    let store = Path::new(&dir).join("store");
    world.disk.create_dir_all(&store).unwrap();
    let config = Config { memtable_bytes_max: 256 << 20, ..Config::new(store) };
    let site = Site { world, config, bucket, counts };

    let engine = site.open(u64::MAX).await;
    let content = ContentType::parse("application/octet-stream");
    engine.create(Create::new(name(), content.clone())).await.unwrap();
    let body: Bytes = (0..=u8::MAX).cycle().take(RECORD_BYTES).collect();
    let records = (mib << 20) / u64::try_from(RECORD_BYTES).unwrap();
    for _ in 0..records {
        engine.append(Append::new(name(), content.clone(), body.clone())).await.unwrap();
    }
    // A stop seals and publishes.
    engine.close().await;
    drop(engine);

    println!("{mib} MiB in records of {RECORD_BYTES}, {latency} ms to the bucket");
    for page_bytes in PAGES {
        site.read("here", page_bytes).await;
        site.evict().await;
        site.read("evicted", page_bytes).await;
        site.read("again", page_bytes).await;
    }
    site.evict().await;
    site.jump(records).await;
    site.world.tasks.lanes_ended().await;
}
