//! A rehearsal: a store is recovered from a copy of the bucket on a machine of its own, at any moment
//! between two boots. What comes back is what was published, record for record what clients know;
//! what was not is named as lost (INV-49). The store itself notices nothing.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::task::LocalSet;
use weir_engine::{
    Config, Engine,
    audit::{Newest, Published},
    request::{Append, Error, From, Page, Read, Rejection},
    restore::{Options, Report},
    types::{Epoch, Expiry, Form, Offset, Seq, StoreMs, StreamName},
};
use weir_io::{World, memory::Machine, objects::Objects};

use super::{album, look};
use crate::{
    checks::{self, Breach},
    faults::DIR,
    model::Model,
    require,
    workload::subscribers::WAKES,
    world::{self, Sim},
};

/// Of so many pauses between two boots one is used.
const SHARE: u32 = 2;
/// Pages of one stream: streams of a simulation are short.
const PAGE_BYTES_MAX: usize = 64 << 20;
/// How often, and how many times, an append is tried that is refused because too much waits for the
/// bucket.
const BUSY_LOOK: Duration = Duration::from_secs(1);
const BUSY_MAX: u32 = 60;
/// Runtimes of rehearsals are told from those of boots by this.
const BOOTS: u32 = 1 << 20;

/// Recovers a copy, perhaps.
pub(crate) fn run(sim: &Rc<Sim>, c: &mut ChaCha8Rng) {
    album::keep(sim);
    if !sim.options.bucket.there || !c.random_ratio(1, SHARE) {
        return;
    }
    // How long the store has been running is not known while it does not run.
    let Some(Some(newest)) = sim.check(look(sim, StoreMs::new(u64::MAX))) else { return };
    sim.note(&format!("a rehearsal from manifest {}", newest.generation));
    let mut machine = Machine::new(sim.seed ^ 0x4e4e);
    machine.share_bucket(&sim.machine.bucket().copied(sim.seed));
    let runtime = world::runtime(sim.seed, BOOTS + sim.boots());
    let local = LocalSet::new();
    let played = local.block_on(&runtime, async {
        let world = machine.boot(sim.now());
        let asked = Asked::newest(&newest);
        play(sim, world, &machine, &asked).await
    });
    machine.drive().kill();
    drop(local);
    sim.check(played);
}

/// A recovery, and what must come of it.
pub(super) struct Asked<'a> {
    pub(super) options: Options,
    /// What comes back.
    pub(super) shown: &'a Newest,
    /// The end of the chain: its generation, and how many recoveries there are after this one.
    pub(super) end: u64,
    pub(super) recoveries: u32,
}

impl<'a> Asked<'a> {
    /// The newest manifest, of a bucket that is whole.
    pub(super) fn newest(newest: &'a Newest) -> Self {
        Self {
            options: Options::default(),
            shown: newest,
            end: newest.generation,
            recoveries: newest.recoveries + 1,
        }
    }
}

/// Recovers a store and looks at all of it.
pub(super) async fn play(
    sim: &Sim,
    world: World,
    machine: &Machine,
    asked: &Asked<'_>,
) -> Result<(), Breach> {
    let report = recover(sim, &world, machine, asked).await?;
    let engine = open(sim, &world, machine).await?;
    weir_io::sometimes!("a store was recovered from a copy of its bucket");
    let (newest, era) = (asked.shown, Epoch::first_of(report.recoveries));
    for stream in newest.streams.iter().filter(|it| !it.retired && it.name.as_str() != WAKES) {
        compare(sim, &engine, stream, era).await?;
    }
    absent(sim, &engine, newest).await?;
    cursors(sim, &engine, newest).await?;
    engine.close().await;
    Ok(())
}

pub(super) fn config(sim: &Sim) -> Config {
    sim.options.bucket.applied(Config::new(DIR))
}

pub(super) fn client(machine: &Machine, world: &World) -> Arc<dyn Objects> {
    machine.bucket().client(Arc::clone(&world.clock))
}

async fn recover(
    sim: &Sim,
    world: &World,
    machine: &Machine,
    asked: &Asked<'_>,
) -> Result<Report, Breach> {
    let Asked { options, shown, end, recoveries } = *asked;
    let (config, bucket) = (config(sim), client(machine, world));
    let report = Engine::bootstrap(world.clone(), config, bucket, options, "a rehearsal").await;
    let report = match report {
        Ok(report) => report,
        Err(error) => return Breach::of(checks::RECOVERED, format!("no recovery: {error}")),
    };
    require!(
        report.recoveries == recoveries
            && (report.generation, report.through) == (shown.generation, shown.through)
            && report.claimed == end + 1,
        checks::RECOVERED,
        "manifest {} has commit {}, {end} is the last and {recoveries} the recovery; restored was \
         {report:?}",
        shown.generation,
        shown.through
    );
    Ok(report)
}

/// Opens what was recovered.
pub(super) async fn open(sim: &Sim, world: &World, machine: &Machine) -> Result<Engine, Breach> {
    let (config, bucket) = (config(sim), client(machine, world));
    match Engine::open_with(world.clone(), config, Some(bucket), "a rehearsal").await {
        Ok(engine) => Ok(engine),
        Err(error) => Breach::of(checks::RECOVERED, format!("recovered, not opened: {error}")),
    }
}

/// Everything from a position on.
pub(super) async fn read(engine: &Engine, name: &StreamName, from: From) -> Result<Page, Error> {
    part(engine, name, from, PAGE_BYTES_MAX).await
}

/// So many bytes, one record at least.
pub(super) async fn part(
    engine: &Engine,
    name: &StreamName,
    from: From,
    bytes_max: usize,
) -> Result<Page, Error> {
    engine.read(Read { name: name.clone(), from, key: None, bytes_max }).await
}

/// One stream: what it shows, where it ends, and what it says of what was lost.
async fn compare(sim: &Sim, engine: &Engine, stream: &Published, era: Epoch) -> Result<(), Breach> {
    let name = &stream.name;
    let page = match read(engine, name, From::Start).await {
        Ok(page) => page,
        Err(error) if may_be_over(sim, stream, &error) => return Ok(()),
        Err(error) => {
            return Breach::of(checks::RECOVERED, format!("'{name}' can't be read: {error}"));
        }
    };
    let (epoch, end) = (stream.next.epoch, stream.next.next);
    require!(
        page.tail == Offset { epoch: epoch.max(era), next: end } && page.closed == stream.closed,
        checks::RECOVERED,
        "'{name}' is published as {stream:?}, and ends at {:?}, closed {}",
        page.tail,
        page.closed
    );
    same(&sim.model.borrow(), name, epoch.get(), &page)?;
    // The old tail means what it meant.
    let resumed = read(engine, name, From::At(stream.next)).await;
    if resumed.as_ref().is_err_and(|error| may_be_over(sim, stream, error)) {
        return Ok(());
    }
    require!(
        resumed.as_ref().is_ok_and(|page| page.start.next == end && page.records == 0),
        checks::RECOVERED,
        "{:?} was the tail of '{name}', and now: {resumed:?}",
        stream.next
    );
    let tail = tail(&sim.model.borrow(), name, epoch.get());
    if let Some(tail) = tail.filter(|tail| *tail > end.get()) {
        let lost = Offset { epoch, next: Seq::new(tail) };
        let said = read(engine, name, From::At(lost)).await;
        let next = Offset { epoch: era, next: end };
        if said.as_ref().is_err_and(|error| may_be_over(sim, stream, error)) {
            return Ok(());
        }
        require!(
            matches!(&said, Err(Error::Rejected(Rejection::OffsetLost { next: it })) if *it == next),
            checks::RECOVERED,
            "{lost:?} of '{name}' is lost and goes on at {next:?}, and the answer is {said:?}"
        );
        weir_io::sometimes!("a recovery had lost records that were acked");
    }
    if stream.closed {
        return Ok(());
    }
    takes(sim, engine, stream, &page, era).await
}

/// An open stream takes an append where it ends.
pub(super) async fn takes(
    sim: &Sim,
    engine: &Engine,
    stream: &Published,
    page: &Page,
    era: Epoch,
) -> Result<(), Breach> {
    let name = &stream.name;
    let append = || Append::new(name.clone(), page.content.clone(), body(page.form()));
    let mut appended = engine.append(append()).await;
    for _ in 0..BUSY_MAX {
        // The rows of the recovery are still on their way into the bucket.
        if !matches!(appended, Err(Error::Busy | Error::Backlogged)) {
            break;
        }
        tokio::time::sleep(BUSY_LOOK).await;
        appended = engine.append(append()).await;
    }
    if appended.as_ref().is_err_and(|error| may_be_over(sim, stream, error)) {
        return Ok(());
    }
    let appended = appended.map(|appended| appended.next);
    let next = Offset { epoch: stream.next.epoch.max(era), next: stream.next.next.after(1) };
    require!(
        matches!(&appended, Ok(it) if *it == next),
        checks::RECOVERED,
        "an append to '{name}' ends at {appended:?} instead of {next:?}"
    );
    Ok(())
}

/// Whether an answer may mean that the window of a stream has passed: at any moment, unless it is
/// known to have none.
pub(super) fn may_be_over(sim: &Sim, stream: &Published, error: &Error) -> bool {
    let model = sim.model.borrow();
    let lives = model.names.get(&stream.name).map(|named| &named.lives);
    let life = lives.and_then(|lives| lives.get(&stream.next.epoch.get()));
    let lasts = life.is_some_and(|life| life.expiry == Some(Expiry::Never));
    !lasts && matches!(error, Error::Rejected(Rejection::NotFound | Rejection::Gone))
}

/// The tail that clients know of.
fn tail(model: &Model, name: &StreamName, epoch: u32) -> Option<u64> {
    let life = model.names.get(name)?.lives.get(&epoch)?;
    Some(life.tail)
}

fn body(form: Form) -> Bytes {
    match form {
        Form::Json => Bytes::from_static(b"[{}]"),
        Form::Text | Form::Binary => Bytes::from_static(b"after the recovery"),
    }
}

/// What clients know of a position is what a page shows there.
pub(super) fn same(
    model: &Model,
    name: &StreamName,
    epoch: u32,
    page: &Page,
) -> Result<(), Breach> {
    if model.is_murky(name, epoch) {
        return Ok(());
    }
    let whole = page.pieces.concat();
    let mut rest = &whole[..];
    for position in page.start.next.get()..page.next.next.get() {
        if page.form() == Form::Json && rest.len() < whole.len() {
            rest = &rest[1..];
        }
        // What nobody was told of can't be told from what follows.
        let Some((request, index)) = model.known(name, epoch, position) else { return Ok(()) };
        let record = &model.requests[request].records[index];
        require!(
            rest.starts_with(record),
            checks::RECOVERED,
            "'{name}' {epoch}_{position} is record {index} of request {request}, and came back as \
             '{}'",
            String::from_utf8_lossy(&rest[..rest.len().min(40)])
        );
        rest = &rest[record.len()..];
    }
    require!(rest.is_empty(), checks::RECOVERED, "'{name}' came back with more than it has");
    Ok(())
}

/// What subscriptions that came back have to do.
async fn cursors(sim: &Sim, engine: &Engine, newest: &Newest) -> Result<(), Breach> {
    let mut tails = Vec::new();
    for stream in newest.streams.iter().filter(|it| !it.retired && it.name.as_str() != WAKES) {
        // Where its window has passed it is nobody's work any more.
        let there = read(engine, &stream.name, From::Now).await.is_ok();
        if there && !sim.model.borrow().is_murky(&stream.name, stream.next.epoch.get()) {
            tails.push((stream.name.clone(), stream.next));
        }
    }
    let ids = sim.model.borrow().calm_subscriptions();
    for id in ids {
        // One that was not published yet is not there.
        if let Ok(view) = engine.subscriptions().get(&id).await {
            sim.model.borrow().recovered_links(&id, &view.links, &tails)?;
            weir_io::sometimes!("a subscription came back with its cursors");
        }
    }
    Ok(())
}

/// What was not published is not there.
async fn absent(sim: &Sim, engine: &Engine, newest: &Newest) -> Result<(), Breach> {
    let names: Vec<StreamName> = sim.model.borrow().names.keys().cloned().collect();
    for name in names {
        if newest.streams.iter().any(|stream| stream.name == name) {
            continue;
        }
        let said = read(engine, &name, From::Start).await;
        require!(
            matches!(said, Err(Error::Rejected(Rejection::NotFound))),
            checks::RECOVERED,
            "'{name}' was not published, and the answer is {said:?}"
        );
    }
    Ok(())
}
