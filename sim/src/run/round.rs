//! One round: boot, verify, a workload with whatever faults the seed has, and an end: a crash at
//! some operation, a crash at some time, a killed process, or a graceful stop.

use std::{cell::Cell, rc::Rc, time::Duration};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::{Engine, Health, OpenError};
use weir_io::Disk;

use super::boot::{self, ANSWER_MAX};
use crate::{
    bucket,
    checks::{self, Breach},
    faults::Options,
    require, workload,
    world::{Host, Sim},
};

/// How a round ends if nothing ends it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    CrashAtOp(u64),
    CrashAtTime,
    Kill,
    /// Clients are still at it.
    CloseBusy,
    /// Clients have ended, and everything was checked in peace.
    CloseQuiet,
}

/// What the server writes itself is no longer, but for an event with a few names.
const OWN_BYTES_MAX: usize = 1 << 10;
/// What a record takes in memory beside its bytes, with its part of its request.
const RECORD_BESIDE_BYTES: usize = 256;
/// Changes of tables between two commits, and pages that they touch: a fold's rows and a checkpoint's rest.
const SLICES_BYTES_MAX: usize = 512 << 10;
/// Pieces of segments between two looks of the checkpointer, where they are kept in the database.
const SEGMENTS_BYTES_MAX: usize = 4 << 20;

/// How long live readers may take to see everything when nobody writes any more.
const CATCH_UP_MAX: Duration = Duration::from_secs(4);
/// The same if what they read has to be fetched from a bucket on a bad day: until that is over, and
/// then a while.
const FETCHED_MAX: Duration = Duration::from_secs(360);
/// How often the supervisor looks.
const LOOK: Duration = Duration::from_millis(10);

fn ending(options: &Options, c: &mut ChaCha8Rng) -> Ending {
    // Roughly log-uniform: the first operations are as interesting as the thousandth.
    let exponent = c.random_range(0..12);
    let op = c.random_range(1..=1_u64 << exponent);
    let mut choices = vec![Ending::CloseQuiet];
    if options.crash_at_op {
        choices.extend([Ending::CrashAtOp(op); 3]);
    }
    if options.crash_at_time {
        choices.extend([Ending::CrashAtTime; 2]);
    }
    if options.process_kill {
        choices.push(Ending::Kill);
    }
    if options.graceful {
        choices.extend([Ending::CloseBusy, Ending::CloseQuiet]);
    }
    choices[c.random_range(0..choices.len())]
}

/// Runs one round.
pub(crate) fn run(sim: &Rc<Sim>, c: &mut ChaCha8Rng) {
    let ending = ending(&sim.options, c);
    let cut = c.random_bool(0.7);
    let power_lost = match ending {
        Ending::Kill => false,
        Ending::CrashAtOp(_) | Ending::CrashAtTime => true,
        Ending::CloseBusy | Ending::CloseQuiet => cut,
    };
    if sim.options.crash_in_recovery {
        for _ in 0..c.random_range(0..4) {
            let op = c.random_range(1..80);
            let power_lost = c.random_bool(0.7);
            boot::boot(sim, power_lost, async |world| {
                sim.note(&format!("recovery with a crash at op {op}"));
                sim.machine.drive().kill_in(op);
                // Nobody uses what opens: a store that opens is killed all the same.
                let host = boot::open(sim, world, false).await;
                weir_io::sometimes!("a store was cut off right after or in recovery");
                sim.machine.drive().kill();
                drop(host);
            });
            if sim.breach().is_some() {
                return;
            }
        }
    }
    if sim.options.crash_loop {
        crash_loop(sim, &mut sim.chance(1002));
        if sim.breach().is_some() {
            return;
        }
    }
    sim.note(&format!("round: {ending:?}, power lost {power_lost}"));
    let faulty = c.random_bool(0.2);
    let burst = sim.options.burst(c, sim.machine.drive().used_bytes()).filter(|_| faulty);
    boot::boot(sim, power_lost, async |world| {
        if let Some(faults) = burst {
            sim.note(&format!("opening with {faults:?}"));
            sim.set_faults(faults);
        }
        if let Some(host) = boot::open(sim, world, burst.is_some()).await {
            live(&host, ending, c).await;
            sim.machine.drive().kill();
        } else {
            sim.machine.drive().kill();
        }
    });
}

/// Starts that are cut off one after the other, each a little later than the one before or at the
/// same change.
fn crash_loop(sim: &Rc<Sim>, c: &mut ChaCha8Rng) {
    if c.random_bool(0.5) {
        return;
    }
    let (first, step) = (c.random_range(1..30), c.random_range(0..3));
    let mut deaths = 0;
    for turn in 0..c.random_range(3..8) {
        let op = first + step * turn;
        let opened = Cell::new(false);
        boot::boot(sim, c.random_bool(0.7), async |world| {
            sim.note(&format!("crash loop: a crash at op {op}"));
            sim.machine.drive().kill_in(op);
            drop(boot::open(sim, world, false).await);
            opened.set(true);
            sim.machine.drive().kill();
        });
        // Who dies does not come to the end of it.
        deaths += u32::from(!opened.get());
        if sim.breach().is_some() {
            return;
        }
    }
    if deaths > 1 {
        weir_io::sometimes!("recovery was cut off several times in a row");
    }
}

async fn live(host: &Rc<Host>, ending: Ending, c: &mut ChaCha8Rng) {
    let sim = &host.sim;
    boot::verify_all(host, c).await;
    if let Ending::CrashAtOp(op) = ending {
        sim.machine.drive().kill_in(op);
    }
    let clients = workload::start(host);
    let weather = tokio::task::spawn_local(weather(Rc::clone(host), sim.chance(1000)));
    let (watched, mut foul) = (Rc::clone(host), sim.chance(1010));
    let sky = tokio::task::spawn_local(async move { bucket::weather(&watched, &mut foul).await });
    let trouble = tokio::task::spawn_local(trouble(Rc::clone(host), sim.chance(1001)));
    let (rotting, mut damage) = (Rc::clone(host), sim.chance(1012));
    let rot = tokio::task::spawn_local(async move {
        let (sim, world) = (&rotting.sim, rotting.world());
        bucket::rot(sim, world, &mut damage).await;
    });
    let length = sim.options.round.mul_f64(c.random_range(0.2..1.5));
    let until = sim.now() + length;
    let paused = sim.paused();
    let mut failed_since = None;
    let patience = Duration::from_millis(c.random_range(0..2000));
    while sim.now() < until + (sim.paused() - paused) && sim.breach().is_none() {
        tokio::time::sleep(LOOK).await;
        sim.check(bounded(sim, host.engine(), &*host.world().disk));
        if matches!(host.door.health(), Health::LogFailed { .. }) {
            let since = *failed_since.get_or_insert(sim.now());
            if sim.now() > since + patience {
                weir_io::sometimes!("a store whose log failed was restarted");
                sim.note("the log failed: restarting");
                break;
            }
        }
    }
    weather.abort();
    sky.abort();
    trouble.abort();
    rot.abort();
    match ending {
        Ending::CloseBusy => close(host).await,
        Ending::CloseQuiet => {
            calm_down(host).await;
            settle(host, clients).await;
            bucket::linger(host, c).await;
            close(host).await;
        }
        Ending::CrashAtOp(_) | Ending::CrashAtTime | Ending::Kill => sim.note("killed"),
    }
}

/// Ends all faults.
pub(crate) async fn calm_down(host: &Host) {
    let sim = &host.sim;
    sim.note("calm");
    sim.set_faults(sim.calm());
    sim.machine.set_latency(Duration::from_micros(50)..Duration::from_millis(3));
    for _ in 0..2000 {
        if host.door.health() != Health::DiskFull {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    let what = "writes do not resume although there is space again";
    sim.check::<()>(Breach::of(checks::SERVES, what));
}

/// Clients end, live readers have seen everything.
pub(crate) async fn settle(host: &Host, clients: Vec<tokio::task::JoinHandle<()>>) {
    let sim = &host.sim;
    host.stop.set(true);
    tokio::time::sleep(CATCH_UP_MAX).await;
    caught_up(host).await;
    if host.door.health() == Health::Serving {
        sim.check(watched(host));
    }
    host.leave.set(true);
    // Somebody who asks for what only the bucket has may do so once more.
    let waits = if sim.may_lack_answers() { ANSWER_MAX * 3 } else { ANSWER_MAX };
    let patience = tokio::time::Instant::now() + waits;
    for (no, client) in clients.into_iter().enumerate() {
        // A client that panicked has shut the runtime down.
        if tokio::time::timeout_at(patience, client).await.is_err() {
            let what = format!("a request of client {no} is not answered");
            sim.check::<()>(Breach::of(checks::SERVES, what));
        }
    }
}

/// Waits for live readers as long as they move: who takes small pages may have far to go. Nobody appends
/// any more.
async fn caught_up(host: &Host) {
    let sim = &host.sim;
    let bucket = sim.options.bucket.there;
    // A block that can't be read here is fetched from the bucket, whatever its weather.
    let patience = if bucket { FETCHED_MAX } else { CATCH_UP_MAX };
    let (mut seen, mut since) = (positions(host), tokio::time::Instant::now());
    while host.door.health() == Health::Serving
        && watched(host).is_err()
        && since.elapsed() < patience
    {
        tokio::time::sleep(LOOK).await;
        if bucket {
            sim.pass_weather();
        }
        let now = positions(host);
        if now != seen {
            (seen, since) = (now, tokio::time::Instant::now());
        }
    }
}

/// Where live readers are.
fn positions(host: &Host) -> Vec<u64> {
    host.watching.borrow().values().map(|watching| watching.at.next.get()).collect()
}

/// Live readers of living streams are at the tail.
pub(crate) fn watched(host: &Host) -> Result<(), Breach> {
    let model = host.sim.model.borrow();
    for watching in host.watching.borrow().values() {
        let epoch = watching.life;
        let life = model.names.get(&watching.name).and_then(|named| named.lives.get(&epoch));
        if let Some(life) = life.filter(|life| life.alive) {
            let at = watching.at.next.get();
            require!(
                at >= life.tail,
                checks::LIVE,
                "a live reader of '{}' is at {epoch}_{at}, the tail at {}",
                watching.name,
                life.tail
            );
        }
    }
    Ok(())
}

/// Stops the store gracefully.
pub(crate) async fn close(host: &Host) {
    let sim = &host.sim;
    sim.note("closing");
    if tokio::time::timeout(ANSWER_MAX, host.engine().close()).await.is_err() {
        sim.check::<()>(Breach::of(checks::SERVES, "the store does not stop"));
    }
    sim.note("closed");
}

/// Memory and log are within what the configuration says, whatever the faults, with room for what was
/// let in before: at most two requests of each client, and what the server writes itself.
pub(crate) fn bounded(sim: &Sim, engine: &Engine, disk: &dyn Disk) -> Result<(), Breach> {
    let (options, metrics) = (&sim.options, engine.metrics());
    let queued = usize::try_from(metrics.queue_requests.get()).unwrap_or(0);
    within("requests are queued", queued, options.queue_requests_max, || own_requests(sim))?;
    let held = usize::try_from(metrics.memtable_bytes.get()).unwrap_or(0);
    within("bytes are in memory", held, 2 * options.memtable_bytes_max, || let_in(sim))?;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let cached = usize::try_from(metrics.block_cache_bytes.get()).unwrap_or(0);
    within("bytes of blocks are kept", cached, size(options.block_cache_bytes), || 0)?;
    let mut wal = options.database().into_os_string();
    wal.push("-wal");
    let wal = disk.open(std::path::Path::new(&wal));
    let Ok(len) = wal.and_then(|wal| wal.len()) else {
        return Ok(());
    };
    within("bytes are in the WAL", size(len), size(options.wal_bytes_max), || {
        // Pages are not filled, and have heads.
        let commits = let_in(sim) / 8 * 9;
        // In one file segments pass through it, a merged one as well.
        let segments = size(options.wal_bytes_max) + SEGMENTS_BYTES_MAX;
        commits + SLICES_BYTES_MAX + if options.is_one_file() { segments } else { 0 }
    })
}

/// There are no more of them than `most` and what was let in before; the latter is looked at only if it
/// matters.
fn within(
    what: &str,
    count: usize,
    most: usize,
    room: impl FnOnce() -> usize,
) -> Result<(), Breach> {
    if count <= most {
        return Ok(());
    }
    let room = room();
    require!(count <= most + room, checks::BOUNDED, "{count} {what}, at most {most} and {room}");
    Ok(())
}

/// What the server has to write itself, at most at once: an end or a trim and a renewal of each stream,
/// a wake and its event of each subscription, and what a deletion ends with it.
fn own_requests(sim: &Sim) -> usize {
    let clients = usize::try_from(sim.options.clients).unwrap_or(usize::MAX);
    2 * (workload::targets().len() + workload::subscribers::kinds().len() + clients)
}

/// Bytes that may be let in while there is room for none: the largest requests that were ever sent, two
/// of each client, and the server's own.
fn let_in(sim: &Sim) -> usize {
    let clients = usize::try_from(sim.options.clients).unwrap_or(usize::MAX);
    let own = own_requests(sim) * OWN_BYTES_MAX;
    sim.model.borrow().largest(2 * clients, RECORD_BESIDE_BYTES) + own
}

/// Faults come and go.
async fn weather(host: Rc<Host>, mut c: ChaCha8Rng) {
    let sim = &host.sim;
    loop {
        tokio::time::sleep(Duration::from_millis(c.random_range(50..2500))).await;
        let drive = sim.machine.drive();
        match c.random_range(0..4) {
            0 if sim.options.wall_jumps => {
                let by_ms = c.random_range(-20_000..20_000);
                sim.note(&format!("the wall clock jumps by {by_ms} ms"));
                sim.jump_wall(by_ms);
            }
            1 if sim.options.slow_disk => {
                sim.machine.set_latency(Options::slowness(&mut c));
                tokio::time::sleep(Duration::from_millis(c.random_range(10..3000))).await;
                sim.machine.set_latency(Duration::from_micros(50)..Duration::from_millis(3));
            }
            _ => {
                let Some(faults) = sim.options.burst(&mut c, drive.used_bytes()) else {
                    continue;
                };
                sim.note(&format!("{faults:?}"));
                sim.set_faults(faults);
                let length = c.random_range(1..3000);
                tokio::time::sleep(Duration::from_millis(length)).await;
                sim.set_faults(sim.calm());
                sim.note("well again");
            }
        }
    }
}

/// What happens to the process: it is stopped for a while, or another one wants its directory.
async fn trouble(host: Rc<Host>, mut c: ChaCha8Rng) {
    let sim = &host.sim;
    loop {
        tokio::time::sleep(Duration::from_millis(c.random_range(100..4000))).await;
        if sim.options.stops && c.random_bool(0.5) {
            let time = Options::pause(&mut c);
            sim.note(&format!("the process is stopped for {time:?}"));
            sim.pause(time).await;
            if time > Duration::from_secs(3600) {
                weir_io::sometimes!("the process was stopped for more than an hour");
            }
        }
        if sim.options.second_process && c.random_bool(0.5) {
            second_process(sim).await;
        }
    }
}

/// Another process starts on the same directory. It must be refused, and whatever it did before
/// that must harm nothing.
pub(crate) async fn second_process(sim: &Rc<Sim>) {
    if sim.machine.drive().is_dead() {
        return;
    }
    let (world, config) = (sim.another(), sim.options.config());
    match Engine::open(world, config, "a second process").await {
        Ok(_) => {
            let what = "a second process opened the directory of a running one";
            sim.check::<()>(Breach::of(checks::ALONE, what));
        }
        Err(OpenError::Locked { holder, .. }) => {
            weir_io::sometimes!("a second process was refused");
            sim.note(&format!("a second process: in use by {holder}"));
        }
        // The lock could not even be looked at.
        Err(error) => sim.note(&format!("a second process: {error}")),
    }
}
