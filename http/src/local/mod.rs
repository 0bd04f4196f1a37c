//! Local mode: a server for one developer's machine, in one SQLite file, inside this process.
//!
//! ```no_run
//! # async fn f() -> Result<(), weir_http::local::LocalError> {
//! let server = weir_http::local::start(weir_http::local::LocalConfig::new("my-app")?).await?;
//! println!("{} keeps its data in {}", server.url, server.sqlite_path.display());
//! server.close().await?;
//! # Ok(())
//! # }
//! ```
//! The same server as ever on the same engine: no bucket, no segment files, loopback addresses
//! only. Several run in one process if their names differ; a second one of a name, in whatever
//! process, is told who has it.

pub(crate) mod control;
mod place;
pub(crate) mod record;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::oneshot;
use tracing::warn;
use weir_engine::{Config, Engine, OpenError, types::WallMs};
use weir_io::{
    World,
    disk::Create,
    net::Listener as _,
    os::{self, OsListener, process},
};

use self::record::Record;
use crate::{
    App, HttpConfig, KeysError, Loopback, Webhooks,
    config::{Auth, ConfigError, Environment, Hosts},
    server,
    wire::date,
};

pub use self::place::Name;
pub(crate) use self::place::{Place, SQLITE_MAGIC, root};

/// What the numbers of a local server are those of, in MiB of memory: the peer's.
const PRESET_MB: u32 = 1024;
/// Bytes of segment blocks kept in memory.
const BLOCK_CACHE_BYTES: u64 = 32 << 20;
/// How often a start looks whether the lock is free: who asks for the state of a server holds it
/// for a moment, too.
const LOCK_ATTEMPTS: u32 = 4;
const LOCK_INTERVAL: Duration = Duration::from_millis(25);

/// How to run a local server.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// Which of the servers below the root.
    pub name: Name,
    /// Directory of all local servers.
    pub root: PathBuf,
    /// Loopback address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// What else the server does.
    pub http: HttpConfig,
}

impl LocalConfig {
    /// The defaults for a server of this name: 127.0.0.1, a free port, and the root that
    /// `DS_LOCAL_DATA_ROOT` names, or else the user's.
    ///
    /// # Errors
    /// The name is not allowed, there is no root, or the environment has a number that is none.
    pub fn new(name: &str) -> Result<Self, LocalError> {
        Self::with(name, &Environment::of_process())
    }

    pub(crate) fn with(name: &str, environment: &Environment) -> Result<Self, LocalError> {
        let mut http = HttpConfig {
            auth: Auth::Open,
            // A web page that has its own name resolve to this machine must not get in.
            hosts: Hosts::LoopbackAnd(Vec::new()),
            loopback_webhooks: Loopback::Allowed,
            preset_mb: Some(PRESET_MB),
            ..HttpConfig::default()
        };
        http.heed(environment)?;
        Ok(Self {
            name: Name::new(name)?,
            root: place::root(environment)?,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            http,
        })
    }
}

/// Why a local server did not start, or not stop, or could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Not a name of a server.
    #[error("invalid server name: {:?} ({})", .0, place::rule(.0))]
    Name(String),
    /// Nobody says where data goes.
    #[error("no directory for data is known: set DS_LOCAL_DATA_ROOT or HOME")]
    Root,
    /// Something else is where the directories of all servers are to be.
    #[error(
        "{} is no directory: DS_LOCAL_DATA_ROOT names the one that has those of all local servers",
        .0.display()
    )]
    NoDirectory(PathBuf),
    /// Other machines could reach it.
    #[error("{0} is no loopback address: a local server is for this machine only")]
    Host(IpAddr),
    /// A setting of the environment.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It runs already.
    #[error("server '{name}' is running: {holder}")]
    Running {
        /// Which.
        name: Name,
        /// What it says of itself.
        holder: String,
    },
    /// Somebody listens there.
    #[error(
        "{address} is taken, {} listens there: --port 0 takes a free one, or take another --port",
        whose(by.as_ref())
    )]
    Taken {
        /// Where.
        address: SocketAddr,
        /// Which of the local servers it is, if it is one.
        by: Option<Name>,
    },
    /// It is another program's.
    #[error("{} is another program's and stays: delete it yourself if nobody needs it", .0.display())]
    Foreign(PathBuf),
    /// It is no store at all.
    #[error(
        "{} is no SQLite file, so it is no server's, and stays: move it away or delete it yourself, \
         or take another --name",
        .0.display()
    )]
    NoStore(PathBuf),
    /// The store did not open.
    #[error("cannot open {}", path.display())]
    Open {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The keys of webhooks can't be used.
    #[error("keys of webhooks")]
    Keys(#[from] KeysError),
    /// The system refused something.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn whose(by: Option<&Name>) -> String {
    by.map_or("another program".to_owned(), |name| format!("the local server '{name}'"))
}

impl LocalError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A running local server. Dropped, it stops as well, but nobody can wait for that.
#[derive(Debug)]
pub struct LocalServer {
    /// Its name.
    pub name: Name,
    /// Where it listens: `http://127.0.0.1:<port>`.
    pub url: String,
    /// On which port.
    pub port: u16,
    /// Where its data is.
    pub sqlite_path: PathBuf,
    record: Record,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl LocalServer {
    /// Stops: no new requests, live readers end, what was admitted is committed. When this returns
    /// another server of the name can start.
    ///
    /// # Errors
    /// None today: what an end leaves undone, the next start does.
    pub async fn close(self) -> Result<(), LocalError> {
        drop(self.stop);
        // The sender is dropped at the end: either way the channel speaks once.
        drop(self.ended.await);
        Ok(())
    }

    /// What it says of itself, as the peer's `exports`.
    pub(crate) fn exports(&self) -> serde_json::Value {
        serde_json::json!({
            "http": { "url": self.url, "port": self.port },
            "sqlite": { "path": self.sqlite_path.to_string_lossy() },
            "name": self.name.as_str(),
            "pid": self.record.pid,
        })
    }
}

/// Starts a server on the runtime of the caller, whose I/O and time must be enabled.
///
/// # Errors
/// [`LocalError`] says what is in the way: [`LocalError::Running`] if another server has the name.
pub async fn start(config: LocalConfig) -> Result<LocalServer, LocalError> {
    if !config.host.is_loopback() {
        return Err(LocalError::Host(config.host));
    }
    let world = os::world().map_err(LocalError::io("the system"))?;
    refuse_file(&world, &config.root)?;
    let place = Place::new(&config.root, config.name.clone());
    // Before anything is made: a server that can't listen leaves no files. The port must be known
    // before the lock is taken, too, because the lock names it.
    let (listener, address) = match bind(&config) {
        Err(LocalError::Taken { address, .. }) => {
            return Err(control::taken(&world, &config.root, &config.name, address).await);
        }
        bound => bound?,
    };
    let made = world.disk.create_private_dir(&place.dir);
    made.map_err(LocalError::io(format!("creating {}", place.dir.display())))?;
    let (port, url) = (address.port(), format!("http://{address}"));
    let record = describe(&world, &place, &url, port);
    let engine = open(&world, &place, &record, config.http.body_bytes_max).await?;
    let serving = serve(&world, &place, &config, &engine, &record).await;
    let app = match serving {
        Ok(app) => app,
        Err(error) => {
            engine.close().await;
            return Err(error);
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let (ending, ended) = oneshot::channel::<()>();
    let (sqlite_path, running) = (place.sqlite(), world.clone());
    let life = async move {
        server::serve(listener, app, async { drop(stopped.await) }).await;
        engine.close().await;
        running.tasks.lanes_ended().await;
        if let Err(error) = running.disk.remove(&place.record()) {
            warn!(%error, "server.json stays");
        }
        // Gives the lock back.
        drop(engine);
        drop(ending);
    };
    world.tasks.spawn("local server", Box::pin(life));
    Ok(LocalServer { name: config.name, url, port, sqlite_path, record, stop, ended })
}

/// Refuses a root that is a file, or lies below one.
pub(crate) fn refuse_file(world: &World, root: &Path) -> Result<(), LocalError> {
    match world.disk.list(root) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(LocalError::NoDirectory(root.to_owned()))
        }
        // Whatever else is in the way is met by who uses it.
        _ => Ok(()),
    }
}

fn bind(config: &LocalConfig) -> Result<(OsListener, SocketAddr), LocalError> {
    let address = SocketAddr::new(config.host, config.port);
    let failed = || LocalError::io(format!("listening on {address}"));
    let listener = OsListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => LocalError::Taken { address, by: None },
        _ => failed()(error),
    })?;
    let address = listener.local_addr().map_err(failed())?;
    Ok((listener, address))
}

fn describe(world: &World, place: &Place, url: &str, port: u16) -> Record {
    let pid = process::id();
    Record {
        name: place.name.to_string(),
        pid,
        started_at: date::rfc3339(WallMs::new(world.clock.wall_ms())),
        port,
        url: url.to_owned(),
        sqlite: place.sqlite().to_string_lossy().into_owned(),
        instance: Some(format!("{:016x}", world.entropy.next_u64())),
        process_start: process::started(pid),
    }
}

async fn open(
    world: &World,
    place: &Place,
    record: &Record,
    body_bytes_max: usize,
) -> Result<Engine, LocalError> {
    let defaults = Config::one_file(&place.dir);
    let config = Config {
        block_cache_bytes: BLOCK_CACHE_BYTES,
        // One body must not be more than all of it.
        memtable_bytes_max: defaults.memtable_bytes_max.max(body_bytes_max),
        ..defaults
    };
    let holder = record.holder();
    control::refuse_no_database(world, &place.sqlite()).await?;
    make_private(world, &place.sqlite())?;
    let mut attempt = 1;
    loop {
        match Engine::open(world.clone(), config.clone(), &holder).await {
            Ok(engine) => return Ok(engine),
            Err(OpenError::Locked { .. }) if attempt < LOCK_ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(LOCK_INTERVAL).await;
            }
            Err(OpenError::Locked { holder, .. }) => {
                let (name, holder) = (place.name.clone(), record::in_words(&holder));
                return Err(LocalError::Running { name, holder });
            }
            Err(source) => {
                let path = place.sqlite();
                control::refuse_foreign(world, &path).await?;
                return Err(LocalError::Open { path, source });
            }
        }
    }
}

/// Makes an empty file that nobody but its owner may read, unless one is there: SQLite makes a
/// database of it, and what it keeps beside that as private. Its own would be open to others.
fn make_private(world: &World, path: &Path) -> Result<(), LocalError> {
    match world.disk.create(path, Create::Private) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(LocalError::io(format!("creating {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Everything between the open store and the first request.
async fn serve(
    world: &World,
    place: &Place,
    config: &LocalConfig,
    engine: &Engine,
    record: &Record,
) -> Result<Arc<App>, LocalError> {
    let webhooks = Webhooks::open_noted(world, engine, &config.http).await?;
    let path = place.record();
    let written = record.write(&*world.disk, &path);
    written.map_err(LocalError::io(format!("writing {}", path.display())))?;
    let app = App::new(engine.clone(), config.http.clone(), world.clone(), webhooks);
    Ok(Arc::new(app))
}
