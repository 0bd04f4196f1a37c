//! A newest manifest that is damaged beside the server that wrote it: while that runs, and before it
//! starts again. The server has noted what it said: it goes on, another one follows, and what was
//! damaged is collected as anything is that was superseded.

use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_engine::{
    Config, Engine,
    audit::{self, Newest},
    request::{Append, Create, Error},
    restore::Options,
    types::{ContentType, StoreMs, StreamName},
};
use weir_io::{World, memory::Machine, objects::Key};

use super::{
    album::Photo,
    past::{Look, manifests},
    rehearsal,
    ruin::behead,
};
use crate::{
    checks::{self, Breach},
    require,
};

/// Longer than a seal, an upload and a manifest take, and what an earlier life left is published.
const PUBLISHED: Duration = Duration::from_secs(90);
/// How long after the grace period everything is collected that was superseded before it.
const COLLECTED: Duration = Duration::from_secs(30);
/// How often an append is tried that is refused because too much waits.
const TRIES_MAX: u32 = 120;

/// The store's machine at that moment, on a bucket whose newest manifest is damaged again and again.
pub(super) fn run(look: &Look, photo: &Photo, c: &mut ChaCha8Rng) -> Result<(), Breach> {
    let Some(machine) = photo.settled(look.seed()) else { return Ok(()) };
    let mut spoiled = Spoiled { look, machine, damaged: Vec::new(), written: 0 };
    let began = spoiled.boots(Step::Nothing, c)?;
    if began.is_none() {
        return Ok(());
    }
    for _ in 0..c.random_range(1..4) {
        let step = if c.random_bool(0.5) { Step::WhileItRuns } else { Step::BeforeItStarts };
        spoiled.boots(step, c)?;
    }
    spoiled.recovered()
}

/// When the newest manifest is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    WhileItRuns,
    BeforeItStarts,
}

struct Spoiled<'a> {
    look: &'a Look,
    machine: Machine,
    damaged: Vec<Key>,
    written: u64,
}

fn name() -> StreamName {
    StreamName::new("beside-a-damaged-manifest").expect("a good name")
}

fn content() -> Option<ContentType> {
    ContentType::parse("text/plain")
}

impl Spoiled<'_> {
    /// One boot of the server, and what is in its bucket then.
    fn boots(&mut self, step: Step, c: &mut ChaCha8Rng) -> Result<Option<Newest>, Breach> {
        self.look.note(&format!("a newest manifest is damaged: {step:?}"));
        if step == Step::BeforeItStarts {
            self.damage(c);
            weir_io::sometimes!("a server started on a newest manifest that was damaged");
        }
        let machine = self.machine.clone();
        let look = self.look;
        look.boot(&machine, async |world| {
            let engine = self.open(&world).await?;
            if step != Step::BeforeItStarts {
                self.write(&engine).await?;
                tokio::time::sleep(PUBLISHED).await;
            }
            if step == Step::WhileItRuns {
                self.damage(c);
                weir_io::sometimes!("a newest manifest was damaged while its server ran");
                self.write(&engine).await?;
            }
            tokio::time::sleep(PUBLISHED).await;
            let newest = self.published()?;
            if c.random_bool(0.5) {
                tokio::time::sleep(look.sim.options.bucket.grace * 2 + COLLECTED).await;
                self.collected()?;
            }
            engine.close().await;
            Ok(newest)
        })
    }

    async fn open(&self, world: &World) -> Result<Engine, Breach> {
        let sim = &self.look.sim;
        let config = Config { erase_within: sim.options.erase_within, ..rehearsal::config(sim) };
        let bucket = rehearsal::client(&self.machine, world);
        match Engine::open_with(world.clone(), config, Some(bucket), "beside damage").await {
            Ok(engine) => Ok(engine),
            Err(error) => {
                let what =
                    format!("its newest manifest is damaged, the store does not open: {error}");
                Breach::of(checks::SERVES, what)
            }
        }
    }

    fn damage(&mut self, c: &mut ChaCha8Rng) {
        let newest = manifests(self.machine.bucket()).pop();
        if let Some(newest) = newest.filter(|_| behead(self.machine.bucket(), c)) {
            self.damaged.push(newest.key);
        }
    }

    async fn write(&mut self, engine: &Engine) -> Result<(), Breach> {
        let mut said = Ok(());
        for _ in 0..TRIES_MAX {
            let create = engine.create(Create::new(name(), content())).await.map(drop);
            said = match create {
                Ok(()) => {
                    let body = Bytes::from_static(b"one more");
                    engine.append(Append::new(name(), content(), body)).await.map(drop)
                }
                refused => refused,
            };
            if !matches!(said, Err(Error::Busy | Error::Backlogged)) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.written += 1;
        match said {
            Ok(()) => Ok(()),
            Err(error) => Breach::of(checks::SERVES, format!("beside a damaged manifest: {error}")),
        }
    }

    /// The newest manifest is whole, younger than all that were damaged, and has everything.
    fn published(&self) -> Result<Option<Newest>, Breach> {
        let bucket = self.machine.bucket();
        let audit = audit::bucket(&bucket.keys(), &|key| bucket.peek(key), StoreMs::new(u64::MAX));
        let is_known = |object: &str| self.damaged.iter().any(|key| key.as_str() == object);
        if let Some(finding) = audit.findings.iter().find(|it| !is_known(&it.object)) {
            return Breach::of(checks::CUT, format!("beside a damaged manifest: {finding}"));
        }
        let Some(newest) = audit.newest else {
            let what = format!("{:?} were damaged, and no other followed", self.damaged);
            return Breach::of(checks::UPLOADED, what);
        };
        let stream = newest.streams.iter().find(|it| it.name == name());
        require!(
            stream.is_some_and(|it| it.next.next.get() == self.written),
            checks::UPLOADED,
            "{} records were acked beside a damaged manifest, in the bucket is {stream:?}",
            self.written
        );
        Ok(Some(newest))
    }

    /// What was damaged has gone in its time.
    fn collected(&self) -> Result<(), Breach> {
        let left = self.machine.bucket().keys();
        let stays: Vec<&Key> = self.damaged.iter().filter(|key| left.contains(key)).collect();
        require!(stays.is_empty(), checks::COLLECTED, "{stays:?} are damaged and stay");
        Ok(())
    }

    /// The next one follows, so everything can be recovered without a loss.
    fn recovered(&self) -> Result<(), Breach> {
        let mut machine = Machine::new(self.look.seed());
        machine.share_bucket(&self.machine.bucket().copied(self.look.seed()));
        self.look.boot(&machine, async |world| {
            let sim = &self.look.sim;
            let (config, bucket) = (rehearsal::config(sim), rehearsal::client(&machine, &world));
            let options = Options::default();
            match Engine::bootstrap(world, config, bucket, options, "beside damage").await {
                Ok(report) if report.losses().next().is_none() => Ok(()),
                other => {
                    let what = format!("{:?} were damaged: {other:?}", self.damaged);
                    Breach::of(checks::RECOVERED, what)
                }
            }
        })
    }
}
