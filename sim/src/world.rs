//! One simulated host: a machine that outlives its boots, and what one boot of it is: a paused
//! runtime, a world, an engine. Nothing here knows a workload.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    time::Duration,
};

use rand_chacha::ChaCha8Rng;
use tokio::{runtime::Runtime, time::Instant};
use weir_engine::Engine;
use weir_io::{
    World,
    memory::{EPOCH_MS, Faults, Machine, chance},
};

use crate::{
    bucket::Depot,
    case::Case,
    checks::{self, Breach},
    door::Door,
    faults::{Options, STREAM_CLIENTS},
    log::Log,
    model::{Doubt, Model},
    sabotage::Sabotage,
    town::doubts::Doubts,
    workload::{producer::Producers, workers::Wakes},
};

/// How long what a drive has done to a store that serves may show.
const AFTERMATH: Duration = Duration::from_secs(60);

/// Everything of one seed that outlives a boot.
pub struct Sim {
    pub seed: u64,
    pub options: Options,
    pub sabotage: Sabotage,
    pub machine: Machine,
    pub model: RefCell<Model>,
    pub log: RefCell<Log>,
    pub producers: Producers,
    pub wakes: Wakes,
    /// The stream in which wakes are announced is there.
    pub announces: Cell<bool>,
    /// What is known of the bucket.
    pub depot: Depot,
    /// A bit was flipped: errors are right answers.
    pub damaged: Cell<bool>,
    /// When the drive was last made worse or better.
    disturbed_at: Cell<Duration>,
    breach: RefCell<Option<Breach>>,
    boot: Cell<u32>,
    /// Simulated time the machine ran before this boot.
    ran: Cell<Duration>,
    booted: Cell<Option<Instant>>,
    jumped_ms: Cell<i64>,
    /// Time that passed while the process was stopped.
    paused: Cell<Duration>,
    /// When it last went on.
    resumed_at: Cell<Option<Duration>>,
    /// In a town, where machines come and go: the time its supervisor counts.
    town: Cell<Option<Duration>>,
    /// In a town: what requests without an answer may still do.
    pub doubts: Doubts,
}

impl Sim {
    /// A new machine for a seed.
    #[must_use]
    pub fn new(case: &Case, options: Options, echo: bool) -> Rc<Sim> {
        let Case { seed, sabotage, .. } = *case;
        Rc::new(Sim {
            seed,
            options,
            sabotage,
            machine: Machine::new(seed),
            model: RefCell::default(),
            log: RefCell::new(Log::new(echo)),
            producers: Producers::default(),
            wakes: Wakes::default(),
            announces: Cell::default(),
            depot: Depot::default(),
            damaged: Cell::default(),
            disturbed_at: Cell::default(),
            breach: RefCell::default(),
            boot: Cell::new(0),
            ran: Cell::default(),
            booted: Cell::default(),
            jumped_ms: Cell::default(),
            paused: Cell::default(),
            resumed_at: Cell::default(),
            town: Cell::default(),
            doubts: Doubts::default(),
        })
    }

    /// Starts the machine inside the runtime of a new boot.
    pub fn boot(&self) -> World {
        self.boot.set(self.boot.get() + 1);
        self.booted.set(Some(Instant::now()));
        self.sabotage.plant(self.machine.boot(self.ran.get()))
    }

    /// Starts the machine inside the runtime of a town's host.
    pub fn plug(&self) -> World {
        self.boot.set(self.boot.get() + 1);
        self.sabotage.plant(self.machine.boot(self.now()))
    }

    /// The world of another process that starts on the running machine.
    pub fn another(&self) -> World {
        self.sabotage.plant(self.machine.boot(self.now()))
    }

    /// Gives the drive other faults.
    pub fn set_faults(&self, faults: Faults) {
        self.machine.drive().set_faults(faults);
        self.disturbed_at.set(self.now());
    }

    /// Whether the drive has faults, or had some a moment ago.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        let over = self.machine.drive().faults() == self.calm();
        !over || self.now() < self.disturbed_at.get() + AFTERMATH
    }

    /// Time as a town's supervisor counts it.
    pub fn set_time(&self, now: Duration) {
        self.town.set(Some(now));
    }

    /// The machine goes on by itself.
    pub fn leave_town(&self) {
        self.doubts.clear();
        self.ran.set(self.now());
        self.town.set(None);
    }

    /// A request ended without an answer. Outside of towns the next restart tells what it did.
    pub fn doubt(&self, doubt: Doubt) {
        if self.town.get().is_some() {
            self.doubts.open(doubt, self.boots());
        }
    }

    /// A request with records ended without an answer. In a town it may still be heard.
    pub fn doubt_records(&self, id: usize) {
        let mut model = self.model.borrow_mut();
        if self.town.get().is_some() {
            model.give_up(id);
            self.doubts.open(Doubt::Records(id), self.boots());
        } else {
            model.doubt(id);
        }
    }

    /// Closes the doubts about requests that can have no effect any more.
    pub fn close_doubts(&self) {
        let closed = self.doubts.close(&mut self.model.borrow_mut(), self.boots());
        if closed > 0 {
            self.note(&format!("{closed} requests without an answer are over"));
        }
    }

    /// The boot is over; the runtime may go.
    pub fn halt(&self) {
        self.ran.set(self.now());
        self.booted.set(None);
    }

    /// Simulated time the machine has run, over all boots.
    #[must_use]
    pub fn now(&self) -> Duration {
        if let Some(now) = self.town.get() {
            return now;
        }
        let booted = self.booted.get();
        self.ran.get() + booted.map_or(Duration::ZERO, |booted| booted.elapsed())
    }

    /// The same in milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millis()).expect("simulations are short")
    }

    /// What the machine's wall clock shows.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        (EPOCH_MS + self.now_ms()).saturating_add_signed(self.jumped_ms.get())
    }

    /// Moves the wall clock; the model learns both sides of the jump.
    pub fn jump_wall(&self, by_ms: i64) {
        self.model.borrow_mut().wall_is(self.wall_ms());
        self.machine.jump_wall(by_ms);
        self.jumped_ms.set(self.jumped_ms.get() + by_ms);
        self.model.borrow_mut().wall_is(self.wall_ms());
    }

    /// Stops the process: time goes on and nothing in it does. Then everything that has become due
    /// meanwhile is due at once.
    pub async fn pause(&self, time: Duration) {
        self.paused.set(self.paused.get() + time);
        self.model.borrow_mut().wall_is(self.wall_ms());
        // What is due by then runs before this goes on.
        self.resumed_at.set(Some(self.now() + time));
        tokio::time::advance(time).await;
        self.model.borrow_mut().wall_is(self.wall_ms());
    }

    /// The process, which was stopped for long, goes on: much becomes due at once.
    pub fn goes_on(&self) {
        self.resumed_at.set(Some(self.now()));
    }

    /// When the process last went on after a stop.
    #[must_use]
    pub fn resumed_at(&self) -> Option<Duration> {
        self.resumed_at.get()
    }

    /// For how long the process was stopped, over all boots.
    #[must_use]
    pub fn paused(&self) -> Duration {
        self.paused.get()
    }

    /// How many boots there were.
    #[must_use]
    pub fn boots(&self) -> u32 {
        self.boot.get()
    }

    /// A stream of chance of its own for one part of this boot.
    #[must_use]
    pub fn chance(&self, part: u32) -> ChaCha8Rng {
        let stream = STREAM_CLIENTS + u64::from(self.boot.get()) * 1024 + u64::from(part);
        chance(self.seed, stream)
    }

    /// Writes a line of the trace.
    pub fn note(&self, what: &str) {
        if self.breach.borrow().is_some() {
            // What led to the breach is what the report shows.
            return;
        }
        let micros = self.now().as_micros();
        let line = format!(
            "boot {} {}.{:06} {what}",
            self.boot.get(),
            micros / 1_000_000,
            micros % 1_000_000
        );
        self.log.borrow_mut().add(line);
    }

    /// Adds what went over the wire to the trace, which no report shows.
    pub fn wire(&self, what: &impl fmt::Display, hash: u64) {
        if self.breach.borrow().is_none() {
            let micros = self.now().as_micros();
            let line = || format!("wire {micros} {what}: {hash:016x}");
            self.log.borrow_mut().aside(&[hash], line);
        }
    }

    /// Keeps the first breach.
    pub fn check<T>(&self, outcome: Result<T, Breach>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(breach) => {
                let breach = match self.damaged.get() {
                    // Whatever it shows as, a damaged file was believed.
                    true => Breach { invariant: checks::DAMAGE, what: breach.to_string() },
                    false => breach,
                };
                self.note(&format!("BREACH {breach}"));
                self.breach.borrow_mut().get_or_insert(breach);
                None
            }
        }
    }

    /// The first breach, if there was one.
    #[must_use]
    pub fn breach(&self) -> Option<Breach> {
        self.breach.borrow().clone()
    }
}

/// A running store and what its clients share.
pub struct Host {
    pub sim: Rc<Sim>,
    /// How clients reach the store.
    pub door: Door,
    /// The store itself, if it runs where this is asked.
    pub store: Option<(World, Engine)>,
    /// Clients finish what they are doing and end.
    pub stop: Cell<bool>,
    /// Live readers look at their streams no more.
    pub leave: Cell<bool>,
    /// Live readers: what each has read up to.
    pub watching: RefCell<std::collections::BTreeMap<u32, crate::workload::live::Watching>>,
    /// How far the clock that its clients go by is before the server's.
    pub skew_ms: i64,
}

impl Host {
    /// The wall clock as its clients see it.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        self.sim.wall_ms().saturating_add_signed(self.skew_ms)
    }

    fn store(&self) -> &(World, Engine) {
        self.store.as_ref().expect("asked on the machine of the store only")
    }

    /// The world the store runs in.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.store().0
    }

    /// The store's engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.store().1
    }
}

/// A runtime whose clock is simulated and whose chance is the seed's.
///
/// # Panics
/// The operating system refuses a runtime.
#[must_use]
pub fn runtime(seed: u64, boot: u32) -> Runtime {
    let mut bytes = seed.to_le_bytes().to_vec();
    bytes.extend(boot.to_le_bytes());
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&bytes))
        .unhandled_panic(tokio::runtime::UnhandledPanic::ShutdownRuntime)
        .build()
        .expect("a runtime needs nothing that could be missing")
}

/// Task ids are counted per process, and the scheduler's shards go by them: brings the count to
/// the same place before every simulation.
pub fn align_task_ids() {
    let runtime = runtime(0, 0);
    runtime.block_on(async {
        loop {
            let id = tokio::spawn(async {}).id().to_string();
            let id: u64 = id.parse().expect("task ids are shown as numbers");
            if id % 64 == 63 {
                return;
            }
        }
    });
}
