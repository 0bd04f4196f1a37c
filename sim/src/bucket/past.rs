//! Back in time: when a seed is over, copies of its bucket that were kept on the way are recovered
//! from, also as of an earlier manifest, asked for what is superfluous, and damaged. Every copy is
//! used on machines of its own.

use std::{cell::Cell, ops::RangeInclusive, rc::Rc};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::task::LocalSet;
use weir_engine::{
    Engine,
    audit::{self, Newest},
    restore::{Item, Moment, Options, Rank, Value, describe},
    types::{StoreMs, WallMs},
};
use weir_io::{
    World,
    memory::{Machine, MemoryBucket},
    objects::Key,
};

use super::{
    album::Photo,
    garbage,
    look::audited,
    rehearsal::{self, Asked},
    ruin, spoiled,
};
use crate::{
    checks::{self, Breach},
    require,
    world::{self, Sim},
};

/// Runtimes of looks back are told from those of boots by this.
const BOOTS: u32 = 1 << 22;
/// The part of chance that says what is done with what was kept.
const PART: u32 = 1015;
/// Longer than seals, uploads and manifests of a recovered store take.
const PUBLISHED: std::time::Duration = std::time::Duration::from_secs(90);

/// One look back: machines are off when it is over.
pub(super) struct Look {
    pub(super) sim: Rc<Sim>,
    boots: Cell<u32>,
}

/// Looks back, as far as the seed does.
pub(crate) fn run(sim: &Rc<Sim>) {
    let options = &sim.options.bucket;
    if !options.there || sim.breach().is_some() {
        return;
    }
    let c = &mut sim.chance(PART);
    let look = Look { sim: Rc::clone(sim), boots: Cell::default() };
    let photos = sim.depot.album.between();
    let rest = sim.depot.album.rest();
    if options.dry_runs {
        sim.check(garbage::run(&look, &photos, rest));
    }
    let Some(photo) = photos.get(c.random_range(0..photos.len().max(1))) else { return };
    // No drawing from the chance of another, so that each can be turned off by itself.
    let chances: [ChaCha8Rng; 3] =
        std::array::from_fn(|no| sim.chance(PART + 1 + u32::try_from(no).expect("three")));
    let [mut travels, mut ruins, mut spoils] = chances;
    if options.travels && sim.breach().is_none() {
        sim.check(travel(&look, photo, &mut travels));
    }
    if options.ruins && sim.breach().is_none() {
        sim.check(ruin::run(&look, photo, &mut ruins));
    }
    if options.spoils && sim.breach().is_none() {
        sim.check(spoiled::run(&look, photo, &mut spoils));
    }
}

impl Look {
    /// One boot of a machine.
    pub(super) fn boot<T, L: Future<Output = Result<T, Breach>>>(
        &self,
        machine: &Machine,
        life: impl FnOnce(World) -> L,
    ) -> Result<T, Breach> {
        self.boots.set(self.boots.get() + 1);
        let runtime = world::runtime(self.sim.seed, BOOTS + self.boots.get());
        let local = LocalSet::new();
        let lived = local.block_on(&runtime, async { life(machine.boot(self.sim.now())).await });
        let drive = machine.drive();
        drive.kill();
        drop(local);
        drop(runtime);
        drive.restart_process();
        lived
    }

    /// Machines of looks back have a seed of their own each.
    pub(super) fn seed(&self) -> u64 {
        self.sim.seed ^ u64::from(self.boots.get() + 1) << 40
    }

    pub(super) fn note(&self, what: &str) {
        self.sim.note(&format!("looking back: {what}"));
    }
}

/// What a stored thing says of itself and what is in it.
pub(super) fn items(bucket: &MemoryBucket, key: &Key) -> Vec<Item> {
    let mut items = Vec::new();
    if let Some(bytes) = bucket.peek(key) {
        let _ = describe(&bytes, &mut |item| {
            items.push(item);
            std::ops::ControlFlow::Continue(())
        });
    }
    items
}

/// What is shown under a name.
pub(super) fn field<'a>(item: &'a Item, name: &str) -> Option<&'a Value> {
    item.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// The same, if it is a number.
pub(super) fn number(item: &Item, name: &str) -> Option<u64> {
    match field(item, name)? {
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

/// A manifest of a bucket.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) key: Key,
    pub(super) generation: u64,
    created: u64,
}

/// All manifests that a bucket has, oldest first.
pub(super) fn manifests(bucket: &MemoryBucket) -> Vec<Manifest> {
    let keys = bucket.keys().into_iter().filter(|key| key.as_str().starts_with("manifest/"));
    let mut found: Vec<Manifest> = keys
        .filter_map(|key| {
            let items = items(bucket, &key);
            let head = items.first().filter(|it| it.rank == Rank::Head)?;
            let (generation, created) = (number(head, "generation")?, number(head, "created_ms")?);
            Some(Manifest { key, generation, created })
        })
        .collect();
    found.sort_by_key(|it| it.generation);
    found
}

/// What a manifest showed when it was the newest.
pub(super) fn as_of(bucket: &MemoryBucket, generation: u64) -> Result<Newest, Breach> {
    let later: Vec<Key> = manifests(bucket)
        .into_iter()
        .filter(|it| it.generation > generation)
        .map(|it| it.key)
        .collect();
    let mut keys = bucket.keys();
    keys.retain(|key| !later.contains(key));
    let audit = audit::bucket(&keys, &|key| bucket.peek(key), StoreMs::new(u64::MAX));
    if let Some(finding) = audit.findings.first() {
        let what = format!("manifest {generation}: {finding}");
        return Breach::of(checks::COLLECTED, what);
    }
    match audit.newest.filter(|it| it.generation == generation) {
        Some(newest) => Ok(newest),
        None => Breach::of(checks::COLLECTED, format!("manifest {generation} is not there")),
    }
}

/// The generations that a store can be recovered as of, as a check says.
pub(super) fn restorable(look: &Look, photo: &Photo) -> Result<RangeInclusive<u64>, Breach> {
    let machine = photo.bare(look.seed());
    look.boot(&machine, async |world| {
        let bucket = rehearsal::client(&machine, &world);
        match Engine::check_bootstrap(world, bucket, Moment::Newest).await {
            Ok(report) if report.losses().next().is_none() => Ok(report.oldest..=report.newest),
            other => Breach::of(checks::RECOVERED, format!("checked: {other:?}")),
        }
    })
}

/// Recovers the store as it was at some manifest of the grace period: what comes back is what that one
/// showed, and the manifests that came after it stay, with the claim behind the last of them.
fn travel(look: &Look, photo: &Photo, c: &mut ChaCha8Rng) -> Result<(), Breach> {
    let Some(newest) = audited(&photo.bucket, StoreMs::new(u64::MAX))? else { return Ok(()) };
    let there = restorable(look, photo)?;
    require!(
        *there.end() == newest.generation,
        checks::RECOVERED,
        "manifest {} is the newest, and restorable are {there:?}",
        newest.generation
    );
    let generation = c.random_range(there.clone());
    let shown = as_of(&photo.bucket, generation)?;
    let at = moment(&photo.bucket, generation, c);
    look.note(&format!("recovery as of {at:?}, manifest {generation} of {there:?}"));
    let asked = Asked {
        options: Options { at, ..Options::default() },
        shown: &shown,
        end: newest.generation,
        recoveries: newest.recoveries + 1,
    };
    let machine = photo.bare(look.seed());
    look.boot(&machine, async |world| {
        rehearsal::play(&look.sim, world.clone(), &machine, &asked).await?;
        if generation < newest.generation {
            weir_io::sometimes!("a store was recovered as of an earlier manifest");
        }
        goes_on(look, &world, &machine, (photo, &newest)).await
    })?;
    too_early(look, photo, *there.start())
}

/// A manifest by its generation, or by a time at which it was the newest, if the clock tells.
fn moment(bucket: &MemoryBucket, generation: u64, c: &mut ChaCha8Rng) -> Moment {
    let all = manifests(bucket);
    let in_order = all.windows(2).all(|pair| pair[0].created < pair[1].created);
    let at = all.iter().position(|it| it.generation == generation);
    let Some(at) = at.filter(|_| in_order && c.random_bool(0.5)) else {
        return Moment::Generation(generation);
    };
    weir_io::sometimes!("a store was recovered as of a time");
    let until = all.get(at + 1).map_or(all[at].created + 10_000, |next| next.created);
    Moment::Time(WallMs::new(c.random_range(all[at].created..until)))
}

/// Everything that was there when the recovery began is there still, but for what has been collected
/// since, and the store that was recovered publishes behind the claim.
async fn goes_on(
    look: &Look,
    world: &World,
    machine: &Machine,
    (photo, newest): (&Photo, &Newest),
) -> Result<(), Breach> {
    let (before, after) = (&photo.bucket, machine.bucket());
    for manifest in manifests(before).iter().filter(|it| it.generation == newest.generation) {
        let same = before.peek(&manifest.key) == after.peek(&manifest.key);
        require!(same, checks::CHAIN, "manifest {} was replaced", manifest.generation);
    }
    let engine = rehearsal::open(&look.sim, world, machine).await?;
    tokio::time::sleep(PUBLISHED).await;
    engine.close().await;
    let Some(now) = audited(after, StoreMs::new(u64::MAX))? else {
        return Breach::of(checks::CUT, "the bucket has no manifest any more");
    };
    require!(
        now.generation > newest.generation && now.recoveries == newest.recoveries + 1,
        checks::CHAIN,
        "manifest {} has {} recoveries, after {} with {}",
        now.generation,
        now.recoveries,
        newest.generation,
        newest.recoveries
    );
    Ok(())
}

/// What is beyond the grace period is refused, and then nothing is done.
fn too_early(look: &Look, photo: &Photo, oldest: u64) -> Result<(), Breach> {
    let Some(generation) = oldest.checked_sub(1).filter(|it| *it > 0) else { return Ok(()) };
    weir_io::sometimes!("a recovery as of a manifest beyond the grace period was refused");
    let machine = photo.bare(look.seed());
    look.boot(&machine, async |world| {
        let options = Options { at: Moment::Generation(generation), ..Options::default() };
        let (config, bucket) = (rehearsal::config(&look.sim), rehearsal::client(&machine, &world));
        let done = Engine::bootstrap(world, config, bucket, options, "too late").await;
        require!(
            done.is_err() && machine.bucket().keys() == photo.bucket.keys(),
            checks::RECOVERED,
            "manifest {generation} is beyond the grace period, and: {done:?}"
        );
        Ok(())
    })
}
