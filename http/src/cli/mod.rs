//! `weir serve`: opens the store, listens, and goes down in order.
//!
//! ```text
//! bind ─▶ bucket (probe) ─▶ [bootstrap] ─▶ open (lock, replay) ─▶ announce ─▶ serve ─signal─▶ drain ─▶ close the engine ─▶ exit
//! ```

mod bill;
pub mod client;
mod first;
pub mod flags;
pub mod local;
pub mod offline;
mod port;
pub mod store;

use std::{
    io::{self, IsTerminal as _},
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use clap::Parser as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tracing::{info, warn};
use weir_engine::{Engine, OpenError, restore::RestoreError};
use weir_io::{
    World,
    os::{self, objects::sweep_staging},
};

use self::{
    bill::Bill,
    client::flags::ClientCommand,
    flags::{Aside, KeysCommand},
    local::LocalCommand,
    offline::{Offline, Restore, work::Work},
    store::StoreKind,
};
use crate::{
    App, KeysError, ObjectStore, Webhooks,
    bench::flags::BenchFlags,
    config::{self, Auth, ConfigError, Environment, Settings, StoreSettings},
    object_store::StoreError,
    server,
    webhook::keys,
    wire::date,
};

/// From the signal to the exit. Draining has its own part of it.
const SHUTDOWN_MAX: Duration = Duration::from_secs(9);
/// Signals within this time are one: a terminal, a script and a parent may all pass it on.
pub(crate) const ONE_SIGNAL: Duration = Duration::from_millis(500);
/// How much of that the bucket may take.
const PUBLISH_AT_STOP: Duration = Duration::from_secs(3);
/// Descriptors for files, SQLite and standard streams.
const DESCRIPTORS_RESERVED: u64 = 256;

/// Why the server did not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The settings make no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `--log` makes no sense.
    #[error("--log: {0}")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    /// The system refused something.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody listens there.
    #[error(
        "{0} is taken, another program listens there: --port 0 takes a free one, or take another --port"
    )]
    Taken(SocketAddr),
    /// The object store can't be used.
    #[error("cannot use the object store ({place})")]
    ObjectStore {
        /// Which.
        place: String,
        /// Why.
        source: StoreError,
    },
    /// The store did not open.
    #[error("cannot open {}", dir.display())]
    Open {
        /// Which store.
        dir: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The store could not be made out of what the bucket has.
    #[error("bootstrap")]
    Bootstrap(#[from] RestoreError),
    /// The keys of webhooks can't be used.
    #[error("keys of webhooks")]
    Keys(#[from] KeysError),
    /// The store did not come to rest in time; nothing acknowledged is lost.
    #[error("the store did not close in time: the next start replays its log")]
    SlowClose,
}

impl ServeError {
    fn object_store(settings: &StoreSettings, source: StoreError) -> Self {
        Self::ObjectStore { place: settings.place.clone(), source }
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Task {
    /// Run a server.
    Serve(Box<Settings>),
    /// Make a new signing key for the store in this data directory.
    RotateKeys(PathBuf),
    /// Do something without a server.
    Offline(Offline),
    /// Measure a server.
    Bench(Box<BenchFlags>),
    /// Ask a server.
    Client(Box<ClientCommand>),
    /// Run a server on a developer's machine, or look after some.
    Local(LocalCommand),
}

/// What to do, from the command line and the environment.
///
/// # Errors
/// They make no sense. `--help` and `--version` end the process here.
pub fn task() -> Result<Task, ServeError> {
    let environment = Environment::of_process();
    let arguments = first::in_place(std::env::args_os().collect());
    match flags::Cli::parse_from(arguments).into_serve() {
        Ok(flags) => {
            let settings = Settings::resolve(flags, &environment)?;
            Ok(Task::Serve(Box::new(settings)))
        }
        Err(Aside::Keys(KeysCommand::Rotate { data })) => {
            Ok(Task::RotateKeys(config::data(data, &environment)))
        }
        Err(Aside::Bench(flags)) => Ok(Task::Bench(flags)),
        Err(Aside::Client(command)) => Ok(Task::Client(command)),
        Err(Aside::Local(command)) => Ok(Task::Local(command)),
        Err(Aside::Offline(command)) => Ok(Task::Offline(command.resolve(&environment)?)),
    }
}

/// Makes a new signing key and says which.
///
/// # Errors
/// There is no store, or its keys can't be changed.
pub async fn rotate_keys(data: PathBuf) -> Result<(), ServeError> {
    let world = os::world().map_err(|source| io_error("the system", source))?;
    let store = data.join("store");
    let there = world.disk.list(&store);
    there.map_err(|source| io_error(&format!("no store in {}", data.display()), source))?;
    let rotated = keys::rotate(&world, keys::dir(&store)).await?;
    println!("signing with {}", rotated.active);
    if let Some(retired) = rotated.retired {
        println!("{retired} is published for ten more minutes");
    }
    Ok(())
}

/// Does something without a server and prints what came of it. Returns the exit code.
///
/// # Errors
/// It could not be done.
pub async fn offline(task: Offline) -> anyhow::Result<u8> {
    start_log("warn")?;
    let world = os::world().map_err(|source| io_error("the system", source))?;
    let report = {
        let mut out = io::BufWriter::new(io::stdout().lock());
        offline::run(&Work, &world, task, &mut out).await?
    };
    print!("{}", report.text);
    world.tasks.lanes_ended().await;
    Ok(report.code())
}

/// Runs the server until a signal ends it.
///
/// # Errors
/// It could not start, or not stop in time.
pub async fn serve(settings: Settings) -> Result<(), ServeError> {
    start_log(&settings.log)?;
    let mut interrupts = Signals::new()?;
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let world = os::world_with_crew(threads).map_err(|source| io_error("the system", source))?;
    let mut settings = settings;
    settings.http.connections_max =
        settings.http.connections_max.min(connections_within_descriptors());

    // First: a server that can't listen leaves the store alone, and the lock names the port.
    let (listener, url) = port::bind(&world, &settings)?;
    if settings.bootstrap.is_some() {
        offline::refuse_one_file(&world, &settings.data)?;
    }
    let object_store = open_object_store(&world, &settings).await?;
    if let Some(restore) = settings.bootstrap {
        bootstrap(&world, &settings, &object_store, restore).await?;
    }
    let engine = open(&world, &settings, &object_store, &url).await?;
    if let Err(error) = sweep_staging(&settings.object_store.bucket, &world).await {
        warn!(%error, "what a crash left half-written in the object store stays");
    }
    let bill = Bill::restored(&engine, &object_store).await;
    bill.keep(&world);
    let store = settings.data.join("store");
    let own_key = settings.signing_key.clone();
    let webhooks = Webhooks::open(&world, &store, &settings.http, own_key).await?;
    announce(&settings, &url);

    let app = App::new(engine.clone(), settings.http.clone(), world.clone(), webhooks);
    let app = Arc::new(app.with_object_store(object_store));
    let (stop, stopped) = oneshot::channel::<()>();
    let running = async {
        // The sender is dropped to stop: either way the channel speaks once.
        server::serve(listener, app, async { drop(stopped.await) }).await;
        info!("drained");
        close(&engine, &bill, &world, settings.http.patience.drain).await
    };
    let mut running = pin!(running);
    tokio::select! {
        biased;
        ended = &mut running => return ended,
        () = interrupts.next() => drop(stop),
    }
    tokio::select! {
        biased;
        ended = &mut running => ended,
        () = interrupts.next() => std::process::exit(1),
    }
}

/// Commits what was admitted, seals and ends the lanes, in what draining left of the time.
async fn close(
    engine: &Engine,
    bill: &Bill,
    world: &World,
    drained: Duration,
) -> Result<(), ServeError> {
    let closed = async {
        engine.flush().await;
        bill.save().await;
        engine.close().await;
        world.tasks.lanes_ended().await;
    };
    let left = SHUTDOWN_MAX.saturating_sub(drained);
    tokio::time::timeout(left, closed).await.map_err(|_| ServeError::SlowClose)?;
    info!("closed");
    Ok(())
}

fn start_log(filter: &str) -> Result<(), ServeError> {
    let filter: tracing_subscriber::EnvFilter = filter.parse()?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // A subscriber that is there already was set by whoever embeds the server.
    drop(subscriber.try_init());
    Ok(())
}

async fn open_object_store(world: &World, settings: &Settings) -> Result<ObjectStore, ServeError> {
    let has_store = has_store(world, settings);
    // What is to be recovered is there: an empty bucket is a disk that is not mounted.
    let opened = match has_store || settings.bootstrap.is_some() {
        true => ObjectStore::open_known(world, &settings.object_store).await,
        false => ObjectStore::open(world, &settings.object_store).await,
    };
    let opened = match opened {
        // It was tried out when the store was new. The engine will not publish before it has
        // compared the two.
        Err(away) if away.is_away() && has_store => {
            let reason = std::error::Error::source(&away).map(ToString::to_string);
            warn!(problem = %away, reason, "the object store is away: the server starts without it");
            ObjectStore::open_untried(world, &settings.object_store)
        }
        opened => opened,
    };
    opened.map_err(|source| ServeError::object_store(&settings.object_store, source))
}

/// Makes the store out of what the bucket has.
async fn bootstrap(
    world: &World,
    settings: &Settings,
    object_store: &ObjectStore,
    restore: Restore,
) -> Result<(), ServeError> {
    let restored = offline::work::bootstrap(world, &settings.data, object_store, restore).await;
    let report = restored.inspect_err(|error| {
        if let RestoreError::Damaged(report) = error {
            report.findings.iter().for_each(|problem| warn!(%problem, "damaged"));
        }
    })?;
    report.findings.iter().for_each(|problem| warn!(%problem, "not restored"));
    info!(
        manifest = report.generation,
        claimed = report.claimed,
        streams = report.streams,
        problems = report.findings.len(),
        set_aside = report.set_aside.as_ref().map(|path| path.display().to_string()),
        "bootstrapped"
    );
    Ok(())
}

/// Whether there is a store in the data directory.
fn has_store(world: &World, settings: &Settings) -> bool {
    world.disk.exists(&settings.data.join("store").join("weir.sqlite")).unwrap_or(false)
}

async fn open(
    world: &World,
    settings: &Settings,
    object_store: &ObjectStore,
    url: &str,
) -> Result<Engine, ServeError> {
    let store = settings.data.join("store");
    let made = world.disk.create_dir_all(&store);
    made.map_err(|source| io_error(&format!("cannot create {}", store.display()), source))?;
    let config = weir_engine::Config {
        memtable_bytes_max: settings.memtable_bytes_max,
        // What such a bucket holds may be gone any time: no local copy may go.
        local_bytes_max: match object_store.kind {
            StoreKind::Memory => u64::MAX,
            _ => settings.local_bytes_max,
        },
        seal_age: settings.seal_age,
        bucket_is_volatile: object_store.kind == StoreKind::Memory,
        gc_grace: settings.publishing.gc_grace,
        backlog_bytes_max: settings.publishing.backlog_bytes_max,
        publish_at_stop: PUBLISH_AT_STOP,
        erase_within: settings.erase_within,
        ..weir_engine::Config::new(&store)
    };
    let holder = format!(
        "pid {}, weir {}, {url}, since {}",
        std::process::id(),
        env!("CARGO_PKG_VERSION"),
        date::rfc3339(weir_engine::types::WallMs::new(world.clock.wall_ms())),
    );
    let bucket = Some(Arc::clone(&object_store.objects));
    let opened = Engine::open_with(world.clone(), config, bucket, &holder).await;
    opened.map_err(|source| ServeError::Open { dir: store, source })
}

/// Says what runs where and what an ack rests on.
fn announce(settings: &Settings, url: &str) {
    let data = settings.data.display();
    let http = &settings.http;
    let auth = match http.auth {
        Auth::Open => "none, everybody who can connect may ask",
        Auth::ApiKey(_) => "api-key",
    };
    println!("weir {} listens on {url}", env!("CARGO_PKG_VERSION"));
    println!("  data          {data}");
    println!("  durability    local: an answer is given after the log in {data}/store is fsynced");
    let object_store = &settings.object_store;
    match object_store.warning() {
        Some(warning) => println!("  object store  {} ({warning})", object_store.place),
        None => println!("  object store  {}", object_store.place),
    }
    println!("  auth          {auth}");
    info!(
        %url,
        data = %data,
        auth,
        object_store = object_store.place,
        gc_grace = ?settings.publishing.gc_grace,
        backlog_bytes_max = settings.publishing.backlog_bytes_max,
        offset_format = ?http.offset_format,
        long_poll_timeout = ?http.long_poll_timeout,
        long_poll_max = ?http.long_poll_max,
        sse_recycle = ?http.sse_recycle,
        sse_keepalive = ?http.sse_keepalive,
        body_bytes_max = http.body_bytes_max,
        read_bytes_max = http.read_bytes_max,
        connections_max = http.connections_max,
        idle_timeout = ?http.patience.idle,
        memtable_bytes_max = settings.memtable_bytes_max,
        local_bytes_max = settings.local_bytes_max,
        seal_age = ?settings.seal_age,
        erase_within = ?settings.erase_within,
        loopback_webhooks = ?http.loopback_webhooks,
        webhook_timeout = ?http.webhook_timeout,
        signing_key = ?settings.signing_key,
        public_url = http.public_url.as_ref().map(config::PublicUrl::as_str),
        "started"
    );
}

/// Says how many connections fit.
fn connections_within_descriptors() -> u32 {
    let room = raise_descriptors();
    let room = room.map_or(u64::MAX, |it| it.saturating_sub(DESCRIPTORS_RESERVED).max(1));
    u32::try_from(room).unwrap_or(u32::MAX)
}

/// Raises the soft limit of descriptors to the hard one, and returns it if there is one.
pub(crate) fn raise_descriptors() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            warn!(%error, "could not raise the limit of descriptors");
            limit.current
        }
    }
}

fn io_error(what: &str, source: io::Error) -> ServeError {
    ServeError::Io { what: what.to_owned(), source }
}

/// Whom a `SIGINT` is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interrupts {
    Own,
    /// A terminal sends it to the parent as well, who ends this process when it is done with it.
    Parent,
}

/// The two signals that end the server.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    interrupts: Interrupts,
    /// When the last one came that counted.
    counted: Option<tokio::time::Instant>,
}

impl Signals {
    fn new() -> Result<Self, ServeError> {
        let listen = |kind| signal(kind).map_err(|source| io_error("signals", source));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            interrupts: Interrupts::Own,
            counted: None,
        })
    }

    /// Leaves `SIGINT` to the parent.
    const fn without_interrupts(mut self) -> Self {
        self.interrupts = Interrupts::Parent;
        self
    }

    /// Returns with the name of the next one and says nothing of it. One that follows another at
    /// once is the same wish.
    async fn quietly(&mut self) -> &'static str {
        loop {
            let name = tokio::select! {
                biased;
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => match self.interrupts {
                    Interrupts::Own => "SIGINT",
                    Interrupts::Parent => {
                        info!("SIGINT is left to whoever holds standard input");
                        continue;
                    }
                },
            };
            if self.counted.is_none_or(|counted| counted.elapsed() >= ONE_SIGNAL) {
                self.counted = Some(tokio::time::Instant::now());
                return name;
            }
        }
    }

    async fn next(&mut self) {
        let signal = self.quietly().await;
        info!(signal, "asked to stop");
    }
}
