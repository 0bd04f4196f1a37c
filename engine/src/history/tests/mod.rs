//! Reads of history on a simulated machine with a bucket.
//!
//! Here: a store whose segments are uploaded, evicted and damaged by hand.

mod budget;
mod collecting;
mod faults;
mod merging;
mod reads;
mod tally;
mod upload;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::LocalSet;
use weir_io::{
    World,
    memory::{BucketFaults, Machine, Request, Verb},
    objects::Key,
};

use crate::{
    Config, Engine,
    core::{segment_dir, segment_path},
    motion::{publish, seal},
    request::{Append, Create, Error, From, Page, Read},
    segment::Segment,
    types::{ContentType, Epoch, Offset, Seq, StreamName},
};

/// A store that is running on a machine.
struct Town {
    machine: Machine,
    world: World,
    engine: Engine,
}

/// Runs a life of a store on a machine of its own.
fn live<F: Future<Output = ()>>(config: Config, life: impl FnOnce(Town) -> F) {
    live_on(&Machine::new(7), config, life);
}

/// Boots the machine, opens the store, lives and loses power.
fn live_on<F: Future<Output = ()>>(
    machine: &Machine,
    config: Config,
    life: impl FnOnce(Town) -> F,
) {
    simulate(async {
        let world = machine.boot(Duration::ZERO);
        let bucket = machine.bucket().client(Arc::clone(&world.clock));
        let opened = Engine::open_with(world.clone(), config, Some(bucket), "test").await;
        let engine = opened.expect("opens");
        life(Town { machine: machine.clone(), world, engine }).await;
        machine.drive().kill();
    });
    machine.drive().power_cycle();
}

/// Runs a test in simulated time; nothing that it began is left.
fn simulate(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, test);
}

/// Settings under which nothing is sealed, merged or evicted but by the test.
fn config() -> Config {
    Config { seal_age: Duration::from_secs(1_000_000), ..Config::new("/data/store") }
}

/// The object of a segment that is uploaded.
fn key(segment: &Segment) -> Key {
    segment.remote().expect("uploaded").key.clone()
}

fn name(text: &str) -> StreamName {
    StreamName::new(text).expect("a good name")
}

/// One record of a KiB that is like no other.
fn record(stream: &str, at: usize) -> Bytes {
    let mut record = format!("{stream} {at:010} ").into_bytes();
    let mut noise = u32::try_from(at).expect("small").wrapping_mul(2_654_435_761) | 1;
    while record.len() < 1024 {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        record.push(b'a' + u8::try_from(noise % 26).expect("a letter"));
    }
    record.into()
}

/// The body of a whole stream of so many records.
fn body(stream: &str, count: usize) -> Vec<u8> {
    body_from(stream, 0, count)
}

/// The body of the records `from..to` of a stream.
fn body_from(stream: &str, from: usize, to: usize) -> Vec<u8> {
    (from..to).flat_map(|at| record(stream, at)).collect()
}

/// The position of a record.
fn position(at: u64) -> From {
    From::At(Offset { epoch: Epoch::ZERO, next: Seq::new(at) })
}

fn outage() -> BucketFaults {
    BucketFaults { outage: true, ..BucketFaults::default() }
}

impl Town {
    async fn create(&self, stream: &str) {
        let create = Create::new(name(stream), ContentType::parse("text/plain"));
        self.engine.create(create).await.expect("creates");
    }

    /// Appends the records `from..to` of a stream.
    async fn append(&self, stream: &str, from: usize, to: usize) {
        for at in from..to {
            let content = ContentType::parse("text/plain");
            let append = Append::new(name(stream), content, record(stream, at));
            self.engine.append(append).await.expect("appends");
        }
    }

    /// A stream of so many records in one segment that is uploaded.
    async fn uploaded(&self, stream: &str, count: usize) -> Arc<Segment> {
        self.create(stream).await;
        self.append(stream, 0, count).await;
        self.seal().await;
        self.segments().pop().expect("just sealed")
    }

    /// Seals and uploads what is in memory.
    async fn seal(&self) {
        seal::run(&self.engine.core).await;
        self.publish().await;
    }

    /// Uploads what is sealed.
    async fn publish(&self) {
        while let Err(problem) = publish::once(&self.engine.core).await {
            assert!(matches!(problem, publish::Problem::Changed), "{problem}");
        }
    }

    fn segments(&self) -> Vec<Arc<Segment>> {
        self.engine.core.segments.load().all().to_vec()
    }

    /// Takes every block of a segment out of its local copy, as a round that needs room does.
    fn evict(&self, segment: &Segment) {
        let path = segment_path(&self.engine.core.config, segment.id());
        segment.evict(&*self.world.disk, &path).expect("evicts");
        let dir = segment_dir(&self.engine.core.config);
        self.world.disk.sync_dir(&dir).expect("syncs");
    }

    /// Whether every block of a segment is in its local copy as it was written.
    fn is_here(&self, segment: &Segment) -> bool {
        let path = segment_path(&self.engine.core.config, segment.id());
        let copy = Segment::open(self.world.disk.open(&path).expect("there")).expect("opens");
        copy.blocks().all(|no| copy.block(no).is_ok())
    }

    /// Inverts a bit in the middle of the local copy of a segment's first block.
    fn damage(&self, segment: &Segment) {
        let path = segment_path(&self.engine.core.config, segment.id());
        self.machine.drive().flip_bit(&path, 5000, 3).expect("there is such a byte");
    }

    async fn page(&self, stream: &str, from: From, bytes_max: usize) -> Result<Page, Error> {
        self.engine.read(Read { name: name(stream), from, key: None, bytes_max }).await
    }

    /// The body of a stream from somewhere on, in pages of this size, or the error that ends it.
    async fn read_from(
        &self,
        stream: &str,
        mut from: From,
        bytes_max: usize,
    ) -> (Vec<u8>, Option<(Error, Option<Offset>)>) {
        let mut body = Vec::new();
        let mut at = None;
        loop {
            match self.page(stream, from, bytes_max).await {
                Ok(page) => {
                    page.pieces.iter().for_each(|piece| body.extend_from_slice(piece));
                    from = From::At(page.next);
                    at = Some(page.next);
                    if page.up_to_date {
                        return (body, None);
                    }
                }
                Err(error) => return (body, Some((error, at))),
            }
        }
    }

    /// All of a stream, in pages of this size.
    async fn read(&self, stream: &str, bytes_max: usize) -> Vec<u8> {
        let (body, error) = self.read_from(stream, From::Start, bytes_max).await;
        assert!(error.is_none(), "{error:?}");
        body
    }

    /// Requests for bytes of segments among the last ones that the bucket got.
    fn gets(&self) -> usize {
        let log = self.machine.bucket().log();
        let of_segments = |it: &&Request| it.verb == Verb::Get && it.subject.contains(".seg");
        log.iter().filter(of_segments).count()
    }
}
