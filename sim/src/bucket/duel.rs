//! Two machines with the same store on the same bucket: somebody restored a disk image beside a
//! machine that was not gone. One of them goes on, the other is told so and stops, however long
//! either of them was stopped meanwhile (INV-48), and nothing that was published is lost.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::{
    Config, Engine, OpenError,
    inspect::Publishing,
    request::{Append, Create, Error},
    restore::Options,
    types::{ContentType, StoreMs, StreamName},
};
use weir_io::{World, memory::Machine};

use super::{frozen::Freezer, look};
use crate::{
    checks::{self, Breach},
    faults::DIR,
    require,
    world::Sim,
};

/// Longer than seals, uploads and the longest pause between two tries take.
const PUBLISHED_MAX: Duration = Duration::from_secs(90);
const SEAL_AGE: Duration = Duration::from_millis(300);

/// Where one of them has the store from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Copied,
    Recovered,
}

/// One of the two.
struct Rival {
    name: &'static str,
    stream: StreamName,
    world: World,
    freezer: Freezer,
    /// `None`: its start was refused, because of what the other one had published.
    engine: Option<Engine>,
    /// Records that were acked.
    acked: RefCell<u64>,
}

/// Lets a copy of the machine come up beside it. The store must be stopped.
pub(crate) async fn run(sim: &Rc<Sim>, world: World, c: &mut ChaCha8Rng) {
    sim.note("a twin comes up");
    let twin = sim.machine.twin(sim.seed ^ 0x7717);
    let fought = fight(sim, world, &twin, c).await;
    sim.check(fought);
    twin.drive().kill();
}

async fn fight(
    sim: &Rc<Sim>,
    world: World,
    twin: &Machine,
    c: &mut ChaCha8Rng,
) -> Result<(), Breach> {
    let first = Rival::start(sim, "first", world, Start::Copied).await?;
    if c.random_bool(0.2) {
        // What it publishes before the other one starts.
        first.write(sim, c.random_range(1..3)).await?;
        pass(sim, Duration::from_secs(c.random_range(0..20)), (&first, &first)).await?;
    }
    // The other one has a copy of the disk, or none and recovers from the bucket.
    let (machine, start) = if c.random_bool(0.3) {
        let mut bare = Machine::new(sim.seed ^ 0xba4e);
        bare.share_bucket(sim.machine.bucket());
        (bare, Start::Recovered)
    } else {
        (twin.clone(), Start::Copied)
    };
    let world = sim.sabotage.plant(machine.boot(sim.now()));
    let second = Rival::start(sim, "second", world, start).await?;
    let both = (&first, &second);
    let (sleeper, awake) = if c.random_bool(0.5) { (&first, &second) } else { (&second, &first) };
    match c.random_range(0..3) {
        // Nobody knows of the other.
        0 => {
            for _ in 0..c.random_range(2..10) {
                let rival = if c.random_bool(0.5) { sleeper } else { awake };
                rival.write(sim, 1).await?;
                pass(sim, Duration::from_millis(c.random_range(0..2000)), both).await?;
            }
        }
        // One is stopped in the middle of something.
        1 => {
            sleeper.write(sim, c.random_range(1..4)).await?;
            pass(sim, Duration::from_millis(c.random_range(0..600)), both).await?;
            overtaken(sim, (sleeper, awake), c).await?;
            sleeper.write(sim, 1).await?;
        }
        // One is stopped at rest, and does not notice for long that it was overtaken.
        _ => {
            sleeper.write(sim, 1).await?;
            pass(sim, Duration::from_secs(5), both).await?;
            overtaken(sim, (sleeper, awake), c).await?;
            for _ in 0..c.random_range(2..10) {
                awake.write(sim, 1).await?;
                pass(sim, sim.options.bucket.grace / 2, both).await?;
            }
        }
    }
    end(sim, &first, &second).await
}

/// One of the two is stopped while the other one writes, publishes and collects.
async fn overtaken(
    sim: &Rc<Sim>,
    (sleeper, awake): (&Rival, &Rival),
    c: &mut ChaCha8Rng,
) -> Result<(), Breach> {
    sim.note(&format!("{} is stopped", sleeper.name));
    sleeper.freezer.freeze();
    for _ in 0..c.random_range(1..8) {
        awake.write(sim, 1).await?;
        let time = sim.options.bucket.grace.mul_f64(c.random_range(0.1..1.0));
        pass(sim, time, (sleeper, awake)).await?;
    }
    sim.note(&format!("{} goes on", sleeper.name));
    sleeper.freezer.thaw(&sleeper.world);
    pass(sim, Duration::from_secs(1), (sleeper, awake)).await
}

/// Both try to write once more: then one of them has been told.
async fn end(sim: &Rc<Sim>, first: &Rival, second: &Rival) -> Result<(), Breach> {
    for rival in [first, second] {
        rival.write(sim, 1).await?;
        pass(sim, PUBLISHED_MAX, (first, second)).await?;
    }
    let newest = look(sim, running((first, second)))?;
    let (lost, left): (Vec<_>, Vec<_>) =
        [first, second].into_iter().partition(|rival| rival.is_fenced());
    require!(
        lost.len() == 1,
        checks::CHAIN,
        "two write to one bucket and {} of them were fenced: {:?}, {:?}",
        lost.len(),
        first.publishing(),
        second.publishing()
    );
    let (lost, left) = (lost[0], left[0]);
    sim.note(&format!("{} is fenced", lost.name));
    if let Some(engine) = &lost.engine {
        let refused = engine.append(append(&lost.stream)).await;
        require!(
            matches!(refused, Err(Error::Overtaken)),
            checks::CHAIN,
            "{} is fenced and answers {refused:?}",
            lost.name
        );
    }
    let acked = *left.acked.borrow();
    let published = newest.iter().flat_map(|newest| &newest.streams);
    let published = published.filter(|stream| stream.name == left.stream);
    let published = published.map(|stream| stream.next.next.get()).next().unwrap_or(0);
    require!(
        published == acked,
        checks::UPLOADED,
        "{} has acked {acked} records, {published} are in the bucket",
        left.name
    );
    for rival in [first, second] {
        if let Some(engine) = &rival.engine {
            engine.close().await;
        }
    }
    Ok(())
}

/// Lets time pass; whatever is done meanwhile, the bucket stays whole.
async fn pass(sim: &Rc<Sim>, time: Duration, both: (&Rival, &Rival)) -> Result<(), Breach> {
    tokio::time::sleep(time).await;
    look(sim, running(both)).map(drop)
}

/// The store time of the one who is further.
fn running(both: (&Rival, &Rival)) -> StoreMs {
    let engines = [both.0, both.1].into_iter().filter_map(|rival| rival.engine.as_ref());
    engines.map(|engine| engine.server_details().running).max().unwrap_or_default()
}

fn content() -> ContentType {
    ContentType::parse("text/plain").expect("a good type")
}

fn append(stream: &StreamName) -> Append {
    Append::new(stream.clone(), Some(content()), Bytes::from_static(b"a record"))
}

impl Rival {
    async fn start(
        sim: &Rc<Sim>,
        name: &'static str,
        world: World,
        start: Start,
    ) -> Result<Rival, Breach> {
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
        let stream = StreamName::new(&format!("rival/{name}")).expect("a good name");
        let rival = Rival { name, stream, world, freezer, engine, acked: RefCell::new(0) };
        if let Some(engine) = &rival.engine {
            let created = engine.create(Create::new(rival.stream.clone(), Some(content()))).await;
            require!(created.is_ok(), checks::SERVES, "{name} can't create: {created:?}");
        }
        Ok(rival)
    }

    /// Appends records. A store that was fenced may refuse them.
    async fn write(&self, sim: &Rc<Sim>, count: u32) -> Result<(), Breach> {
        let Some(engine) = &self.engine else { return Ok(()) };
        for _ in 0..count {
            match engine.append(append(&self.stream)).await {
                Ok(_) => *self.acked.borrow_mut() += 1,
                Err(error) => {
                    let fenced = self.is_fenced();
                    sim.note(&format!("{}: {error}, fenced {fenced}", self.name));
                    require!(fenced, checks::SERVES, "{} refuses: {error}", self.name);
                }
            }
        }
        Ok(())
    }

    fn is_fenced(&self) -> bool {
        self.engine.as_ref().is_none_or(|engine| engine.metrics().publish.fenced.get() == 1)
    }

    fn publishing(&self) -> Option<Publishing> {
        self.engine.as_ref().and_then(|engine| engine.server_details().publishing)
    }
}
