//! The stage of a schedule: one machine, its boots, and a scribe who writes down what clients ask
//! and what they are told.
//!
//! The scribe also keeps the small truth of a schedule: which records of which stream were acked,
//! refused, or left without an answer. Reading a stream whole settles what was in doubt.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt::Write as _,
    future::Future,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use weir_engine::{Config, Engine};
use weir_io::{
    World,
    memory::{Drive, MemoryBucket},
    objects::Objects,
};

use crate::{
    case::Case,
    checks::Breach,
    faults::{DIR, Options},
    run::{Over, boot},
    sabotage::Sabotage,
    world::Sim,
};

/// What is known of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Acked,
    /// It was refused, or nobody was told and it was not there after a restart.
    Absent,
    /// Nobody was told.
    Open,
}

/// A record that somebody sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) fate: Fate,
    /// The boot in which it was sent.
    pub(super) boot: u32,
}

/// What one stream of a schedule should show.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    pub(super) sent: Vec<Sent>,
    /// It is not expected to be there.
    pub(super) ended: bool,
}

/// What outlives a boot.
pub(super) struct Scene {
    pub(super) sim: Rc<Sim>,
    told: RefCell<String>,
    /// Fields of the answers about streams, as they were shown last.
    pub(super) answers: RefCell<BTreeMap<String, BTreeMap<String, String>>>,
    pub(super) truths: RefCell<BTreeMap<String, Truth>>,
    /// The request that waits for an answer.
    pub(super) asking: RefCell<Option<String>>,
    /// Records sent so far, over all streams.
    pub(super) counted: Cell<u64>,
    /// Stores have a bucket.
    supplied: Cell<bool>,
}

/// Where a schedule plays.
pub(super) struct Stage {
    scene: Rc<Scene>,
}

/// Long enough that no seal begins before a script waits for one.
const SEAL_AGE: Duration = Duration::from_secs(10);

/// How long every look at the disk takes.
const LATENCY: Duration = Duration::from_millis(1);

/// How a boot ends.
pub(super) type End = fn(&Drive);

impl Stage {
    pub(super) fn new(seed: u64, echo: bool) -> Stage {
        let case = Case::new(seed, Over::Engine, Sabotage::None);
        let sim = Sim::new(&case, Options::calm(), echo);
        // Nothing is drawn: a script tells the same when others draw more or less.
        sim.machine.set_latency(LATENCY..LATENCY);
        let scene = Scene {
            sim,
            told: RefCell::default(),
            answers: RefCell::default(),
            truths: RefCell::default(),
            asking: RefCell::default(),
            counted: Cell::new(0),
            supplied: Cell::new(false),
        };
        Stage { scene: Rc::new(scene) }
    }

    /// Boots the machine and lets `life` happen until it returns or the machine dies.
    pub(super) fn boot<L: Future<Output = ()>>(&mut self, end: End, life: impl FnOnce(Life) -> L) {
        self.say(&format!("boot {}", self.scene.sim.boots() + 1));
        self.boot_unseen(end, life);
    }

    /// The same, and nobody writes down that it was.
    pub(super) fn boot_unseen<L: Future<Output = ()>>(
        &mut self,
        end: End,
        life: impl FnOnce(Life) -> L,
    ) {
        let scene = Rc::clone(&self.scene);
        if self.breach().is_some() {
            return;
        }
        boot::boot_ending(&scene.sim, end, async |world| {
            life(Life { scene: Rc::clone(&scene), world, engine: None, dir: DIR }).await;
        });
        let unanswered = self.scene.asking.borrow_mut().take();
        if let Some(asked) = unanswered {
            self.scene.tell(1, &format!("{asked}: no answer, the machine died"));
        }
    }

    pub(super) fn drive(&self) -> Drive {
        self.scene.sim.machine.drive().clone()
    }

    /// From now on stores have a bucket.
    pub(super) fn supply(&self) {
        self.scene.supplied.set(true);
    }

    pub(super) fn bucket(&self) -> MemoryBucket {
        self.scene.sim.machine.bucket().clone()
    }

    pub(super) fn say(&self, what: &str) {
        self.scene.tell(0, what);
    }

    /// From now on errors are right answers, or no longer.
    pub(super) fn damaged(&self, damaged: bool) {
        self.scene.sim.damaged.set(damaged);
    }

    pub(super) fn breach(&self) -> Option<Breach> {
        self.scene.sim.breach()
    }

    pub(super) fn told(&self) -> String {
        self.scene.told.borrow().clone()
    }
}

impl Scene {
    /// Writes a line down.
    pub(super) fn tell(&self, depth: usize, line: &str) {
        self.sim.note(line);
        writeln!(self.told.borrow_mut(), "{:1$}{line}", "", depth * 2)
            .expect("a string takes every line");
    }
}

/// One boot of the machine, as the script and its clients see it.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) scene: Rc<Scene>,
    pub(super) world: World,
    engine: Option<Engine>,
    /// Where its store is.
    dir: &'static str,
}

impl Life {
    /// The store, which is open.
    pub(super) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the script has opened it")
    }

    pub(super) fn say(&self, what: &str) {
        self.scene.tell(1, what);
    }

    pub(super) fn drive(&self) -> &Drive {
        self.scene.sim.machine.drive()
    }

    /// The settings of the store.
    pub(super) fn config(&self) -> Config {
        Config { seal_age: SEAL_AGE, ..Config::new(self.dir) }
    }

    /// The same machine, for another store.
    pub(super) fn elsewhere(&self, dir: &'static str) -> Life {
        Life { scene: Rc::clone(&self.scene), world: self.world.clone(), engine: None, dir }
    }

    /// The bucket as a store asks it, if there is one.
    pub(super) fn supply(&self) -> Option<Arc<dyn Objects>> {
        let bucket = || self.scene.sim.machine.bucket().client(Arc::clone(&self.world.clock));
        self.scene.supplied.get().then(bucket)
    }

    /// Opens the store. `None`: it would not, and said why.
    pub(super) async fn open(mut self) -> Option<Life> {
        self.scene.asking.replace(Some("open".to_owned()));
        let (world, config) = (self.world.clone(), self.config());
        let opened = Engine::open_with(world, config, self.supply(), "a schedule").await;
        self.scene.asking.replace(None);
        match opened {
            Ok(engine) => {
                self.say("open: serving");
                self.engine = Some(engine);
                Some(self)
            }
            Err(error) => {
                self.say(&format!("open: refused: {error}"));
                None
            }
        }
    }

    /// Opens the store, which must be possible.
    pub(super) async fn opened(self) -> Life {
        self.open().await.expect("nothing is in the way of this start")
    }

    /// Asks for something and waits for the answer. The machine may die meanwhile.
    pub(super) async fn ask<T>(&self, what: &str, answer: impl Future<Output = T>) -> T {
        self.scene.asking.replace(Some(what.to_owned()));
        let answer = answer.await;
        self.scene.asking.replace(None);
        answer
    }

    /// The machine was to die before this, else the script shows nothing.
    pub(super) fn survived(&self) {
        panic!("the moment at which the machine was to die never came");
    }

    /// Lets time pass.
    pub(super) async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Waits until everything is sealed and folded, or the machine dies.
    pub(super) async fn sealed(&self) {
        self.wait(SEAL_AGE + Duration::from_secs(3)).await;
    }

    /// Stops the store gracefully.
    pub(super) async fn close(&self) {
        self.ask("close", self.engine().close()).await;
        self.say("close: stopped");
    }
}
