//! One life of the machine: a runtime, what happens in it, and how it ends.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    time::Duration,
};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::task::LocalSet;
use weir_engine::{
    Engine, Health,
    request::{From, Rejection},
};
use weir_io::{
    World,
    memory::{Drive, Faults},
    sqlite::Role,
};

use crate::{
    bucket::FOUL_OPEN_MAX,
    checks::{self, Breach},
    door::Door,
    faults::DIR,
    require,
    sabotage::Sabotage,
    verify,
    workload::{self, Target, verbs::Said},
    world::{self, Host, Sim},
};

/// How long a store may take to open when nothing is wrong.
pub(super) const OPEN_MAX: Duration = Duration::from_secs(10);
/// How long any request may take when nothing is wrong.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long what was under way on a machine that has just died goes on without it.
const AFTERLIFE: Duration = Duration::from_millis(1);
/// How often, and how many times, it is looked whether files that nobody names go.
const FILE_LOOK: Duration = Duration::from_millis(100);
const FILE_LOOKS: u32 = 50;
/// How often a verification of one stream may come to nothing, and the most pages it may take.
const TRIES_MAX: u32 = 300;
const PAGES_MAX: u32 = 20_000;

impl Sim {
    /// The faults of a drive that is well, apart from sabotage.
    pub(crate) fn calm(&self) -> Faults {
        let lies = self.sabotage == Sabotage::LyingFsync;
        Faults { sync_lies: if lies { 1.0 } else { 0.0 }, ..Faults::default() }
    }
}

/// Boots the machine and lets `life` happen until it returns or the machine dies. Whatever
/// happened, the machine is off afterwards, and nothing of it is left but the drive.
pub(crate) fn boot<L: Future<Output = ()>>(
    sim: &Rc<Sim>,
    power_lost: bool,
    life: impl FnOnce(World) -> L,
) {
    boot_ending(sim, loss(power_lost), life);
}

fn loss(power_lost: bool) -> fn(&Drive) {
    if power_lost { Drive::power_cycle } else { Drive::restart_process }
}

/// The same where `end` says what is left of the drive's last moments.
pub(crate) fn boot_ending<L: Future<Output = ()>>(
    sim: &Rc<Sim>,
    end: impl FnOnce(&Drive),
    life: impl FnOnce(World) -> L,
) {
    let runtime = world::runtime(sim.seed, sim.boots() + 1);
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let world = sim.boot();
        let drive = sim.machine.drive();
        tokio::select! {
            biased;
            () = death(drive) => sim.note("died"),
            () = life(world) => {}
        }
        sim.model.borrow_mut().wall_is(sim.wall_ms());
        sim.halt();
    });
    let drive = sim.machine.drive();
    drive.kill();
    drop(local);
    drop(runtime);
    end(drive);
    sim.set_faults(sim.calm());
    sim.model.borrow_mut().restart();
}

/// Waits until the machine has died, and what it had begun has had its time.
pub(crate) async fn death(drive: &Drive) {
    drive.death().await;
    tokio::time::sleep(AFTERLIFE).await;
}

/// Opens the store. `None`: it would not, which was checked.
pub(crate) async fn open(sim: &Rc<Sim>, world: World, faulty: bool) -> Option<Rc<Host>> {
    let config = sim.options.config();
    let bucket = sim.bucket(&world);
    let began = sim.now();
    let opening = Engine::open_with(world.clone(), config, bucket, "the simulator");
    let limit = if faulty { ANSWER_MAX * 4 } else { OPEN_MAX };
    let Some(opened) = in_time(sim, limit, opening).await else {
        sim.check::<()>(Breach::of(checks::SERVES, "the store does not finish opening"));
        return None;
    };
    let engine = match opened {
        Ok(engine) => engine,
        Err(error) => {
            sim.note(&format!("open: {error}"));
            if !sim.may_refuse(&error, began) && !faulty {
                let what = format!("the store does not open: {error}");
                sim.check::<()>(Breach::of(checks::SERVES, what));
            }
            return None;
        }
    };
    sim.note("opened");
    sim.set_faults(sim.calm());
    // What a failed commit was to name has to stay: a crash may still bring the row. What was under
    // way while the drive had faults may fail later.
    let failed = || {
        let metrics = engine.metrics();
        faulty && metrics.seals_failed.get() + metrics.merges_failed.get() > 0
    };
    sim.check(files(sim, &world, failed).await);
    Some(Rc::new(Host {
        sim: Rc::clone(sim),
        door: Door::Inside(engine.clone()),
        store: Some((world, engine)),
        stop: Cell::new(false),
        leave: Cell::new(false),
        watching: RefCell::default(),
        skew_ms: 0,
    }))
}

/// What a start comes to within `limit`, or so much later as a bad day of its bucket excuses.
async fn in_time<T>(sim: &Sim, limit: Duration, opening: impl Future<Output = T>) -> Option<T> {
    let (foul, days) = (sim.is_foul(), sim.foul_days());
    let mut opening = std::pin::pin!(opening);
    if let Ok(opened) = tokio::time::timeout(limit, &mut opening).await {
        return Some(opened);
    }
    if !foul && days == sim.foul_days() {
        return None;
    }
    tokio::time::timeout(FOUL_OPEN_MAX, opening).await.ok()
}

/// The segments that are there, as files or as pieces, are those that the catalogue names. A merge
/// may be about to remove what it has given up: nothing is to stay, but for what `may_stay`.
async fn files(sim: &Sim, world: &World, may_stay: impl Fn() -> bool) -> Result<(), Breach> {
    for _ in 0..FILE_LOOKS {
        if look_at_files(sim, world, may_stay()).is_ok() {
            return Ok(());
        }
        tokio::time::sleep(FILE_LOOK).await;
    }
    look_at_files(sim, world, may_stay())
}

fn look_at_files(sim: &Sim, world: &World, may_stay: bool) -> Result<(), Breach> {
    let dir = std::path::Path::new(DIR);
    let one_file = sim.options.is_one_file();
    let listed = || -> anyhow::Result<(Vec<String>, Vec<String>)> {
        let conn = world.sqlite.open(&sim.options.database(), Role::Reader)?;
        let ids = |sql, ending| -> anyhow::Result<Vec<String>> {
            let mut query = conn.prepare(sql)?;
            let rows = query.query_map([], |row| row.get::<_, i64>(0))?;
            let rows: Result<Vec<i64>, _> = rows.collect();
            Ok(rows?.iter().map(|id| format!("{id:016x}.{ending}")).collect())
        };
        let mut rows = ids("SELECT id FROM segments ORDER BY id", "seg")?;
        if one_file {
            return Ok((rows, ids("SELECT DISTINCT segment FROM pieces ORDER BY segment", "seg")?));
        }
        rows.extend(ids("SELECT id FROM ledgers ORDER BY id", "rows")?);
        rows.sort();
        let mut files = world.disk.list(&dir.join("segments"))?;
        files.extend(world.disk.list(&dir.join("rows"))?);
        let names = files.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let mut files: Vec<String> = names.collect();
        files.sort();
        Ok((rows, files))
    };
    match listed() {
        Ok((rows, files)) => {
            let mut files = files;
            if sim.options.bucket.there {
                // While the bucket was compared with it the store has begun to seal.
                let known = rows.last().cloned();
                files.retain(|file| rows.contains(file) || Some(file) < known.as_ref());
            }
            if may_stay {
                files.retain(|file| rows.contains(file));
            }
            require!(rows == files, checks::FILES, "rows {rows:?}, files {files:?}");
            Ok(())
        }
        Err(_) if sim.machine.drive().is_dead() => Ok(()),
        Err(error) => Breach::of(checks::SERVES, format!("the catalogue can't be read: {error}")),
    }
}

/// Reads everything there is and settles what was in doubt. Only while no client runs.
pub(crate) async fn verify_all(host: &Host, c: &mut ChaCha8Rng) {
    for target in workload::targets() {
        let known = host.sim.model.borrow().names.contains_key(&target.name);
        if known {
            verify_one(host, &target, c).await;
        }
        if host.sim.breach().is_some() {
            return;
        }
    }
    let settled = tokio::time::timeout(ANSWER_MAX, host.settle_subscriptions());
    if settled.await.is_err() {
        let what = "a look at subscriptions is not answered";
        host.sim.check::<()>(Breach::of(checks::SERVES, what));
    }
}

async fn verify_one(host: &Host, target: &Target, c: &mut ChaCha8Rng) {
    let sim = &host.sim;
    let mut from = From::Start;
    let (mut tries, mut pages) = (0, 0);
    while tries < TRIES_MAX && pages < PAGES_MAX {
        tries += 1;
        let bytes_max = c.random_range(1..200_000);
        let page = tokio::time::timeout(ANSWER_MAX, host.page(target, from, None, bytes_max));
        let Ok((_, said)) = page.await else {
            let what = format!("a read of '{}' is not answered", target.name);
            sim.check::<()>(Breach::of(checks::SERVES, what));
            return;
        };
        match said {
            Said::Yes((page, _)) if page.up_to_date => {
                let checked = verify::whole(&mut sim.model.borrow_mut(), &target.name, page.tail);
                sim.check(checked);
                sim.model.borrow_mut().settle(&target.name);
                return;
            }
            Said::Yes((page, _)) => {
                from = From::At(page.next);
                (tries, pages) = (0, pages + 1);
            }
            Said::No(Rejection::NotFound) => {
                sim.model.borrow_mut().settle(&target.name);
                return;
            }
            Said::No(Rejection::Gone) => {
                // What its forks can still read of it is not known to them yet.
                sim.model.borrow_mut().planned(&target.name);
                return;
            }
            // More went while it was read: from the start again.
            Said::No(Rejection::OffsetTrimmed { .. }) => from = From::Start,
            Said::Nothing | Said::Unknown if sim.damaged.get() => return,
            Said::No(_) | Said::Nothing | Said::Unknown => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        if sim.breach().is_some() {
            return;
        }
    }
    let excused = sim.damaged.get() || sim.may_lack_answers();
    if !excused && host.door.health() == Health::Serving {
        let what = format!("'{}' is not read to its end in {pages} pages", target.name);
        sim.check::<()>(Breach::of(checks::SERVES, what));
    }
}
