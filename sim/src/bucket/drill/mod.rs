//! A drill: an operator recovers one store from its bucket, again and again, on new machines and
//! over old ones, cut off in the middle, while a client works on it in between. Requests come one
//! at a time, so the truth is a list of states: each recovery must bring one of them back, as a
//! whole and not before what was known to be in the bucket, and no offset that was ever told may
//! ever show anything else than before (INV-42, INV-43, INV-44, INV-49). Whoever verifies it at last
//! finds nothing (INV-45).

mod client;
mod truth;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::task::LocalSet;
use weir_engine::{
    Config, Engine, OpenError,
    restore::{Existing, Options, RestoreError},
    types::StoreMs,
    verify::Depth,
};
use weir_io::{
    Disk, World,
    memory::{Drive, Machine, MemoryBucket, Verb},
    objects::Objects,
};

use self::{client::Client, truth::Truth};
use super::look::audited;
use crate::{
    checks::{self, Breach},
    faults::DIR,
    require, run,
    world::{self, Sim},
};

/// Runtimes of drills are told from those of boots by this.
const BOOTS: u32 = 1 << 21;
/// Tries of one recovery that may be cut off or refused by the bucket's weather.
const TRIES_MAX: u32 = 12;
const SEAL_AGE: Duration = Duration::from_millis(300);
/// Longer than a seal, an upload and a manifest take on a good day, after a bad one.
const PUBLISHED_MAX: Duration = Duration::from_secs(90);

/// What outlives a boot of the drill.
struct Drill {
    sim: Rc<Sim>,
    bucket: MemoryBucket,
    truth: RefCell<Truth>,
    /// Records sent so far.
    sent: Cell<u32>,
    boots: Cell<u32>,
    ran: Cell<Duration>,
    /// The store was recovered since anybody looked at it: for the how manieth time.
    recovered: Cell<Option<u32>>,
}

/// Drills, if the seed does.
pub(crate) fn run(sim: &Rc<Sim>, c: &mut ChaCha8Rng) {
    if !sim.options.bucket.there || !sim.options.bucket.drill || sim.breach().is_some() {
        return;
    }
    sim.note("a drill");
    let machine = Machine::new(sim.seed ^ 0xd1d1);
    let drill = Drill {
        sim: Rc::clone(sim),
        bucket: machine.bucket().clone(),
        truth: RefCell::new(Truth::new()),
        sent: Cell::default(),
        boots: Cell::default(),
        ran: Cell::new(sim.now()),
        recovered: Cell::default(),
    };
    drill.clear_up();
    let drilled = drill.go(machine, c);
    sim.check(drilled);
}

impl Drill {
    fn go(&self, mut machine: Machine, c: &mut ChaCha8Rng) -> Result<(), Breach> {
        for life in 0..c.random_range(3..7) {
            let there = audited(&self.bucket, StoreMs::new(u64::MAX))?.is_some();
            if life > 0 && there && c.random_bool(0.75) {
                self.recover(&mut machine, c)?;
            }
            let death = c.random_bool(0.4).then(|| c.random_range(1..3000_u64));
            self.boot(&machine, c.random_bool(0.7), async |world| {
                if let Some(op) = death {
                    machine.drive().kill_in(op);
                }
                self.live(world, c).await
            })?;
        }
        self.clear_up();
        let drive = machine.drive();
        self.boot(&machine, true, async |world| self.end(world, drive, c).await)
    }

    fn note(&self, what: &str) {
        self.sim.note(&format!("drill {:.3}: {what}", self.ran.get().as_secs_f64()));
    }

    fn clear_up(&self) {
        self.bucket.set_weather(self.sim.options.bucket.fair());
    }

    fn config(&self) -> Config {
        let config = Config { seal_age: SEAL_AGE, ..Config::new(DIR) };
        self.sim.options.bucket.applied(config)
    }

    fn client_of(&self, world: &World) -> Arc<dyn Objects> {
        let client = self.bucket.client(Arc::clone(&world.clock));
        super::lying::plant(self.sim.sabotage, client)
    }

    /// One boot of a machine, until `life` ends or the machine dies. `Ok` then too.
    fn boot<L: Future<Output = Result<(), Breach>>>(
        &self,
        machine: &Machine,
        power_lost: bool,
        life: impl FnOnce(World) -> L,
    ) -> Result<(), Breach> {
        self.boots.set(self.boots.get() + 1);
        let runtime = world::runtime(self.sim.seed, BOOTS + self.boots.get());
        let local = LocalSet::new();
        let drive = machine.drive();
        let lived = local.block_on(&runtime, async {
            let world = self.sim.sabotage.plant(machine.boot(self.ran.get()));
            let began = tokio::time::Instant::now();
            let lived = tokio::select! {
                biased;
                () = run::boot::death(drive) => Ok(()),
                lived = life(world) => lived,
            };
            self.ran.set(self.ran.get() + began.elapsed());
            lived
        });
        drive.kill();
        drop(local);
        drop(runtime);
        if power_lost {
            drive.power_cycle()
        } else {
            drive.restart_process()
        }
        lived
    }

    /// Makes the store anew out of its bucket, on a new machine or over the old store.
    fn recover(&self, machine: &mut Machine, c: &mut ChaCha8Rng) -> Result<(), Breach> {
        let old = machine.clone();
        let aside = c.random_bool(0.3);
        if !aside {
            *machine = Machine::new(self.sim.seed ^ u64::from(self.boots.get()) << 32);
            machine.share_bucket(&self.bucket);
        }
        let existing = if aside { Existing::SetAside } else { Existing::Keep };
        let options = Options { existing, ..Options::default() };
        if c.random_bool(0.3) {
            self.cloud_over(c);
        }
        self.recovered.set(None);
        for turn in 0..TRIES_MAX {
            let cut_off = c.random_bool(0.4).then(|| c.random_range(1..400_u64));
            self.note(&format!("recovery, aside {aside}, cut off at {cut_off:?}"));
            self.boot(machine, c.random_bool(0.7), async |world| {
                if let Some(op) = cut_off {
                    machine.drive().kill_in(op);
                }
                let bucket = self.client_of(&world);
                let holder = "an operator";
                let done = Engine::bootstrap(world, self.config(), bucket, options, holder).await;
                // One that was cut off before may have been done.
                let failed = turn == 0 && done.is_err();
                self.bootstrapped(done, turn)?;
                require!(
                    !failed || aside == is_there(machine),
                    checks::PLACED,
                    "a recovery failed, and there is a store: {}",
                    !aside
                );
                Ok(())
            })?;
            if self.recovered.get().is_some() {
                self.clear_up();
                if !aside && c.random_bool(0.5) {
                    self.refused(&old)?;
                }
                return Ok(());
            }
        }
        Breach::of(checks::RECOVERED, format!("no recovery in {TRIES_MAX} tries"))
    }

    fn bootstrapped(
        &self,
        done: Result<weir_engine::restore::Report, RestoreError>,
        turn: u32,
    ) -> Result<(), Breach> {
        match done {
            Ok(report) => {
                self.note(&format!("recovered from {} as {}", report.generation, report.claimed));
                self.recovered.set(Some(report.recoveries));
                Ok(())
            }
            // A recovery that was cut off after it had put the store in its place.
            Err(RestoreError::Occupied { .. }) if turn > 0 => {
                weir_io::sometimes!("a recovery was cut off when it was done");
                self.recovered.set(Some(u32::MAX));
                Ok(())
            }
            Err(error) if self.is_foul() => {
                self.note(&format!("the bucket's weather: {error}"));
                self.clear_up();
                Ok(())
            }
            Err(error) => Breach::of(checks::RECOVERED, format!("no recovery: {error}")),
        }
    }

    /// The machine that was given up comes back: it must see that it was overtaken.
    fn refused(&self, old: &Machine) -> Result<(), Breach> {
        self.boot(old, true, async |world| {
            let bucket = self.client_of(&world);
            let opened = Engine::open_with(world, self.config(), Some(bucket), "the old one").await;
            match opened {
                Err(OpenError::Bucket(reason)) if reason.contains("another process") => {
                    weir_io::sometimes!("a machine that was given up came back and was refused");
                    Ok(())
                }
                Err(error) => Breach::of(checks::CHAIN, format!("the old machine: {error}")),
                Ok(_) => Breach::of(checks::CLAIMED, "the machine that was given up serves again"),
            }
        })
    }

    fn cloud_over(&self, c: &mut ChaCha8Rng) {
        let used = self.bucket.used_bytes();
        if let Some((faults, _)) = self.sim.options.bucket.foul(c, used) {
            self.note(&format!("{faults:?}"));
            self.bucket.set_weather(faults);
        }
    }

    fn is_foul(&self) -> bool {
        self.bucket.faults() != self.sim.options.bucket.fair()
    }

    /// Opens the store, checks what came back, works, and ends somehow.
    async fn live(&self, world: World, c: &mut ChaCha8Rng) -> Result<(), Breach> {
        let Some(client) = self.open(&world).await? else { return Ok(()) };
        client.came_back().await?;
        client.tokens(c).await?;
        if c.random_bool(0.4) {
            self.cloud_over(c);
        }
        for _ in 0..c.random_range(1..4) {
            client.work(c).await?;
            if c.random_bool(0.5) {
                self.clear_up();
                tokio::time::sleep(PUBLISHED_MAX).await;
                self.is_published()?;
            }
        }
        if c.random_bool(0.3) {
            client.close().await;
        }
        Ok(())
    }

    async fn open(&self, world: &World) -> Result<Option<Client<'_>>, Breach> {
        let bucket = self.client_of(world);
        let opened = Engine::open_with(world.clone(), self.config(), Some(bucket), "a drill").await;
        match opened {
            Ok(engine) => Ok(Some(Client::new(self, engine))),
            Err(error) if self.is_foul() => {
                self.note(&format!("the bucket's weather: {error}"));
                self.clear_up();
                Ok(None)
            }
            Err(error) => Breach::of(checks::SERVES, format!("the store does not open: {error}")),
        }
    }

    /// After some good days everything is in the bucket, and from here on it can't be lost.
    fn is_published(&self) -> Result<(), Breach> {
        let newest = audited(&self.bucket, StoreMs::new(u64::MAX))?;
        let found = newest.map(|newest| newest.streams).unwrap_or_default();
        let found: Vec<_> = found
            .into_iter()
            .map(|it| (it.name.as_str().to_owned(), it.next.next.get(), it.closed))
            .collect();
        let mut truth = self.truth.borrow_mut();
        let now = truth.now().iter();
        let expected: Vec<_> = now.map(|(name, it)| (name.clone(), it.tail(), it.closed)).collect();
        require!(
            found == expected,
            checks::UPLOADED,
            "in the bucket are {found:?}, in the store {expected:?}"
        );
        truth.published();
        Ok(())
    }

    /// The last boot: everything is as it should be, and whoever verifies it finds nothing.
    async fn end(&self, world: World, drive: &Drive, c: &mut ChaCha8Rng) -> Result<(), Breach> {
        let Some(client) = self.open(&world).await? else {
            return Breach::of(checks::SERVES, "the store does not open at the end");
        };
        client.came_back().await?;
        client.tokens(c).await?;
        tokio::time::sleep(PUBLISHED_MAX).await;
        self.is_published()?;
        client.close().await;
        drop(client);
        let bucket = self.client_of(&world);
        let changes = || (drive.written_bytes(), drive.mutations(), changes(&self.bucket));
        let before = changes();
        let (config, shared) = (self.config(), world.clone());
        let verified = Engine::verify(shared, config, Some(bucket), Depth::Deep).await;
        match verified {
            Ok(found) => {
                let shown: Vec<String> =
                    found.findings.iter().take(4).map(ToString::to_string).collect();
                require!(shown.is_empty(), checks::CUT, "verified: {}", shown.join("; "));
                let after = changes();
                require!(before == after, checks::LOOKED, "verified: {before:?} became {after:?}");
                self.kept(world).await
            }
            Err(error) => Breach::of(checks::SERVES, format!("can't be verified: {error}")),
        }
    }

    /// Who does not say that a store may be replaced is refused.
    async fn kept(&self, world: World) -> Result<(), Breach> {
        let (bucket, options) = (self.client_of(&world), Options::default());
        let done = Engine::bootstrap(world, self.config(), bucket, options, "nobody").await;
        let refused = matches!(done, Err(RestoreError::Occupied { .. }));
        require!(refused, checks::PLACED, "a store was replaced unasked: {done:?}");
        Ok(())
    }
}

/// Whether a machine has a store where one belongs.
fn is_there(machine: &Machine) -> bool {
    machine.drive().mount().exists(&Config::new(DIR).dir.join("lock")).unwrap_or(true)
}

/// How often a bucket was asked to change something.
fn changes(bucket: &MemoryBucket) -> (u64, u64) {
    (bucket.count(Verb::Create), bucket.count(Verb::Delete))
}
