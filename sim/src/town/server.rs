//! The server's machine: what runs there from one start to the next.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::{sync::Notify, task::AbortHandle};
use weir_http::{
    App, HttpConfig, Loopback, Webhooks,
    config::{Hosts, Patience},
    server,
};
use weir_io::World;

use super::{
    calls::Calls,
    line::Lines,
    options::TownOptions,
    pause::{self, Gate, Gated},
    wire::TownListener,
};
use crate::{
    bucket,
    checks::{self, Breach},
    door::{
        Outside,
        outside::{Dial, Insight},
        subscriptions::Tokens,
        tags::Tags,
    },
    faults::DIR,
    run::{boot, round},
    sabotage::Sabotage,
    world::{Host, Sim},
};

/// How long a graceful stop may take, connections included.
const STOP_MAX: Duration = Duration::from_secs(40);
/// Connections that a server lets in which has room for a crowd and no more.
const CROWD: u32 = 64;

/// What the supervisor and the server's machine share.
pub struct Post {
    /// The engine, while it serves.
    pub insight: Insight,
    /// Rings when the server is to stop gracefully.
    pub stop: RefCell<Arc<Notify>>,
    /// The process has ended by itself: stopped, or it would not start.
    pub ended: Cell<bool>,
    /// Something was done to the machine since it started.
    pub troubled: Cell<bool>,
    /// Whether the process runs.
    pub gate: RefCell<Arc<Gate>>,
    /// Connections to the server.
    pub lines: Arc<Lines>,
    /// Connections are reset.
    pub resets: Cell<bool>,
    /// The way to receivers.
    pub calls: Calls,
    /// Tokens of wakes, of all workers.
    pub tokens: Tokens,
    /// What tags of pages stand for.
    pub tags: Rc<Tags>,
    /// Receivers do what they are called for, at once.
    pub honest: Cell<bool>,
    /// Slow readers read on.
    pub sipping: Cell<bool>,
    /// Slow readers that have an answer before them.
    pub sipped: Cell<u32>,
    /// What happens to a store while it runs: its bucket's weather, rot, other processes.
    pub sky: RefCell<Vec<AbortHandle>>,
    /// Hours through which the process, which is stopped, and every other machine sleep.
    pub night: Night,
}

/// Time that passes on the server's machine alone, at once.
#[derive(Debug, Default)]
pub struct Night {
    falls: Notify,
    length: Cell<Option<Duration>>,
    passed: Cell<Duration>,
}

impl Night {
    /// The clock of the server's machine moves on by this in its next step.
    pub fn fall(&self, length: Duration) {
        self.length.set(Some(length));
        self.falls.notify_one();
    }

    /// None falls: the machine has no power.
    pub fn forget(&self) {
        self.length.take();
    }

    /// How much has passed since this was asked before.
    pub fn passed(&self) -> Duration {
        self.passed.take()
    }

    /// Lets nights pass, in the runtime of the server's machine.
    async fn pass(&self) {
        loop {
            self.falls.notified().await;
            if let Some(length) = self.length.take() {
                tokio::time::advance(length).await;
                self.passed.set(self.passed.get() + length);
            }
        }
    }
}

impl Post {
    /// Before anything runs.
    #[must_use]
    pub fn new(options: &TownOptions, window_bytes: usize, defect: Sabotage) -> Self {
        Self {
            insight: Insight::default(),
            stop: RefCell::default(),
            ended: Cell::default(),
            troubled: Cell::default(),
            gate: RefCell::default(),
            lines: Arc::new(Lines::new(window_bytes, defect)),
            resets: Cell::new(options.resets),
            calls: Calls::new(defect),
            tokens: Tokens::default(),
            tags: Rc::default(),
            honest: Cell::default(),
            sipping: Cell::new(true),
            sipped: Cell::default(),
            sky: RefCell::default(),
            night: Night::default(),
        }
    }

    /// A client that reaches the server like this.
    #[must_use]
    pub fn client(&self, dial: Dial) -> Outside {
        let (insight, tokens) = (Rc::clone(&self.insight), Rc::clone(&self.tokens));
        Outside::new(dial, insight, tokens, Rc::clone(&self.tags))
    }

    /// Nothing more of that kind happens.
    pub fn still(&self) {
        self.sky.take().iter().for_each(AbortHandle::abort);
    }
}

/// One run of the process.
pub async fn run(sim: Rc<Sim>, post: Rc<Post>, config: HttpConfig) {
    let gate = Arc::new(Gate::default());
    post.gate.replace(Arc::clone(&gate));
    post.lines.clear();
    post.tags.begin();
    let world = World { outbound: Arc::new(post.calls.way.clone()), ..sim.plug() };
    let world = pause::stoppable(world, &gate);
    let process = Gated::new(&gate, Box::pin(live(sim, Rc::clone(&post), config, world)));
    tokio::select! {
        biased;
        () = process => {}
        () = post.night.pass() => {}
    }
}

async fn live(sim: Rc<Sim>, post: Rc<Post>, config: HttpConfig, world: World) {
    let stop = Arc::new(Notify::new());
    post.stop.replace(Arc::clone(&stop));
    let opened = boot::open(&sim, world.clone(), true).await;
    let excused = sim.was_refused() || post.troubled.get() || sim.machine.drive().is_dead();
    if opened.is_none() && !excused {
        sim.check::<()>(Breach::of(checks::SERVES, "the store does not open"));
    }
    if let Some(host) = opened {
        let engine = host.engine().clone();
        post.insight.replace(Some(engine.clone()));
        stir(&sim, &post, host);
        match TownListener::bind(Arc::clone(&post.lines)).await {
            Ok(listener) => {
                let dir = std::path::Path::new(DIR);
                let webhooks = match Webhooks::open(&world, dir, &config, None).await {
                    Ok(webhooks) => webhooks,
                    Err(error) => {
                        sim.note(&format!("keys: {error}"));
                        post.ended.set(true);
                        return;
                    }
                };
                let app = Arc::new(App::new(engine.clone(), config, world, webhooks));
                server::serve(listener, app, async move { stop.notified().await }).await;
                sim.note("the server has stopped serving");
            }
            Err(error) => {
                let what = format!("the port can't be bound: {error}");
                sim.check::<()>(Breach::of(checks::SERVES, what));
            }
        }
        post.insight.replace(None);
        post.still();
        if tokio::time::timeout(STOP_MAX, engine.close()).await.is_err() {
            sim.check::<()>(Breach::of(checks::SERVES, "the store does not stop"));
        }
    }
    post.ended.set(true);
}

/// Lets the bucket have its bad days, and looks now and then what is in it; lets local copies rot, and
/// other processes start. All of it happens whether or not this process is stopped.
fn stir(sim: &Rc<Sim>, post: &Rc<Post>, host: Rc<Host>) {
    if post.honest.get() {
        return;
    }
    let mut foul = sim.chance(1010);
    let shared = Rc::clone(&host);
    let sky = tokio::task::spawn_local(async move { bucket::weather(&shared, &mut foul).await });
    let mut damage = sim.chance(1012);
    let rot = tokio::task::spawn_local(async move {
        bucket::rot(&host.sim, host.world(), &mut damage).await;
    });
    let others = tokio::task::spawn_local(others(Rc::clone(sim), sim.chance(1013)));
    post.sky.replace(vec![sky.abort_handle(), rot.abort_handle(), others.abort_handle()]);
}

/// Other processes want the directory.
async fn others(sim: Rc<Sim>, mut c: ChaCha8Rng) {
    if !sim.options.second_process {
        return;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(c.random_range(500..8000))).await;
        round::second_process(&sim).await;
    }
}

/// The server's settings of a seed.
#[must_use]
pub fn config(options: &TownOptions, c: &mut ChaCha8Rng) -> HttpConfig {
    let config = HttpConfig {
        hosts: Hosts::Any,
        read_bytes_max: [300, 5_000, 4 << 20][c.random_range(0..3)],
        long_poll_timeout: Duration::from_secs(2),
        sse_recycle: Duration::from_secs(7),
        sse_keepalive: Duration::from_secs(3),
        loopback_webhooks: Loopback::Allowed,
        webhook_timeout: Duration::from_secs(3),
        ..HttpConfig::default()
    };
    if !options.impatient {
        return config;
    }
    let patience = Patience {
        head: Duration::from_secs(2),
        body: Duration::from_secs(3),
        idle: Duration::from_secs(6),
        stall: Duration::from_secs(4),
        drain: Duration::from_secs(2),
        ..config.patience
    };
    HttpConfig { patience, connections_max: CROWD, ..config }
}
