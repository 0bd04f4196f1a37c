//! Two machines with the same store on the same bucket: somebody restored a disk image beside a
//! machine that was not gone. One of them goes on, the other is told so and stops, however long
//! either of them was stopped meanwhile (INV-48), and nothing that was published is lost.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::types::{StoreMs, StreamName};
use weir_io::{World, memory::Machine};

use super::{
    look,
    rival::{Rival, Start},
};
use crate::{
    checks::{self, Breach},
    require,
    world::Sim,
};

/// Longer than seals, uploads and the longest pause between two tries take.
const PUBLISHED_MAX: Duration = Duration::from_secs(90);

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
    let first = Rival::start(sim, "first", world, (Start::Copied, sim.chance(930))).await?;
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
    let second = Rival::start(sim, "second", world, (start, sim.chance(931))).await?;
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
    lost.is_refused().await?;
    let published = newest.iter().flat_map(|newest| &newest.streams);
    let published = published.filter(|stream| left.owns(&stream.name));
    let published: BTreeMap<StreamName, u64> =
        published.map(|stream| (stream.name.clone(), stream.next.next.get())).collect();
    let acked = left.acked();
    require!(
        published == acked,
        checks::UPLOADED,
        "{} has acked {acked:?}, {published:?} are in the bucket",
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
