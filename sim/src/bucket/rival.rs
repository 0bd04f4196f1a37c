//! One of two machines that write to one bucket, and what it was told of streams of its own.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::{
    Config, Engine, OpenError,
    inspect::Publishing,
    request::{Append, Create, Error},
    restore::Options,
    types::{ContentType, StreamName},
};
use weir_io::World;

use super::frozen::Freezer;
use crate::{
    checks::{self, Breach},
    faults::DIR,
    require,
    world::Sim,
};

const SEAL_AGE: Duration = Duration::from_millis(300);
/// Streams of one of them, at a time.
const STREAMS_MAX: u32 = 4;
/// Records of one request, and bytes of one of them.
const BATCH_MAX: u64 = 20;
const RECORD_BYTES_MAX: usize = 600;

/// Where one of them has the store from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Copied,
    Recovered,
}

/// One of the two.
pub(super) struct Rival {
    pub(super) name: &'static str,
    pub(super) world: World,
    pub(super) freezer: Freezer,
    /// `None`: its start was refused, because of what the other one had published.
    pub(super) engine: Option<Engine>,
    /// How many records of its streams were acked; streams that it deleted are not here.
    acked: RefCell<BTreeMap<StreamName, u64>>,
    chance: RefCell<ChaCha8Rng>,
}

/// What it does next.
enum Step {
    Create(StreamName),
    Append(StreamName, u64),
    Delete(StreamName),
}

fn content() -> ContentType {
    ContentType::parse("application/json").expect("a good type")
}

fn append(stream: &StreamName, records: u64, bytes: usize) -> Append {
    let record = format!("\"{}\"", "r".repeat(bytes));
    let body = vec![record; usize::try_from(records).expect("few")].join(",");
    Append::new(stream.clone(), Some(content()), Bytes::from(format!("[{body}]")))
}

impl Rival {
    /// Starts it on what it has, or after a recovery from the bucket.
    pub(super) async fn start(
        sim: &Sim,
        name: &'static str,
        world: World,
        (start, chance): (Start, ChaCha8Rng),
    ) -> Result<Self, Breach> {
        let freezer = Freezer::default();
        let world = freezer.around(world);
        let config = Config { seal_age: SEAL_AGE, ..sim.options.bucket.applied(Config::new(DIR)) };
        let bucket = sim.bucket(&world);
        if let (Start::Recovered, Some(bucket)) = (start, &bucket) {
            let (world, bucket) = (world.clone(), Arc::clone(bucket));
            let options = Options::default();
            let done = Engine::bootstrap(world, config.clone(), bucket, options, name).await;
            if let Err(error) = done {
                return Breach::of(checks::RECOVERED, format!("no recovery: {error}"));
            }
            weir_io::sometimes!("a store was recovered while its old process went on");
        }
        let engine = match Engine::open_with(world.clone(), config, bucket, name).await {
            Ok(engine) => Some(engine),
            Err(OpenError::Bucket(reason)) if reason.contains("another process") => {
                weir_io::sometimes!("a twin was refused at its start");
                None
            }
            Err(error) => {
                return Breach::of(checks::SERVES, format!("{name} does not open: {error}"));
            }
        };
        let acked = RefCell::default();
        let chance = RefCell::new(chance);
        let rival = Self { name, world, freezer, engine, acked, chance };
        if let Some(engine) = &rival.engine {
            let stream = rival.stream(0);
            let created = engine.create(Create::new(stream.clone(), Some(content()))).await;
            require!(created.is_ok(), checks::SERVES, "{name} can't create: {created:?}");
            rival.acked.borrow_mut().insert(stream, 0);
        }
        Ok(rival)
    }

    fn stream(&self, number: u32) -> StreamName {
        StreamName::new(&format!("rival/{}/{number}", self.name)).expect("a good name")
    }

    /// Whether it made this stream.
    pub(super) fn owns(&self, stream: &StreamName) -> bool {
        (0..STREAMS_MAX).any(|number| self.stream(number) == *stream)
    }

    /// Its streams, and how many records of each were acked.
    pub(super) fn acked(&self) -> BTreeMap<StreamName, u64> {
        self.acked.borrow().clone()
    }

    /// Writes to its streams, makes some and deletes some. A store that was fenced may refuse that.
    pub(super) async fn write(&self, sim: &Sim, count: u32) -> Result<(), Breach> {
        let Some(engine) = &self.engine else { return Ok(()) };
        for _ in 0..count {
            let step = self.next();
            if let Err(error) = self.act(engine, step).await {
                let fenced = self.is_fenced();
                sim.note(&format!("{}: {error}, fenced {fenced}", self.name));
                require!(fenced, checks::SERVES, "{} refuses: {error}", self.name);
            }
        }
        Ok(())
    }

    fn next(&self) -> Step {
        let chance = &mut *self.chance.borrow_mut();
        let stream = self.stream(chance.random_range(0..STREAMS_MAX));
        match self.acked.borrow().contains_key(&stream) {
            false => Step::Create(stream),
            true if chance.random_bool(0.15) => Step::Delete(stream),
            true => Step::Append(stream, chance.random_range(1..=BATCH_MAX)),
        }
    }

    async fn act(&self, engine: &Engine, step: Step) -> Result<(), Error> {
        match step {
            Step::Create(stream) => {
                engine.create(Create::new(stream.clone(), Some(content()))).await?;
                self.acked.borrow_mut().insert(stream, 0);
            }
            Step::Append(stream, records) => {
                let bytes = self.chance.borrow_mut().random_range(1..RECORD_BYTES_MAX);
                engine.append(append(&stream, records, bytes)).await?;
                *self.acked.borrow_mut().entry(stream).or_default() += records;
            }
            Step::Delete(stream) => {
                engine.delete(&stream).await?;
                self.acked.borrow_mut().remove(&stream);
            }
        }
        Ok(())
    }

    /// Being fenced, it refuses whatever is written, and says why.
    pub(super) async fn is_refused(&self) -> Result<(), Breach> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let unused = self.stream(STREAMS_MAX);
        let refused = engine.create(Create::new(unused, Some(content()))).await;
        require!(
            matches!(refused, Err(Error::Overtaken)),
            checks::CHAIN,
            "{} is fenced and answers {refused:?}",
            self.name
        );
        Ok(())
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.engine.as_ref().is_none_or(|engine| engine.metrics().publish.fenced.get() == 1)
    }

    pub(super) fn publishing(&self) -> Option<Publishing> {
        self.engine.as_ref().and_then(|engine| engine.server_details().publishing)
    }
}
