//! Looking after local servers from another process: who runs, make it stop, begin anew.
//!
//! Whoever holds the lock runs; what it wrote into the lock and into `server.json` says who that
//! is. A process is signalled only if both agree and it has not begun after them: a number alone
//! may by now be anybody's. Where the file is not there or damaged, the lock says enough.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};
use weir_engine::is_foreign;
use weir_io::{World, disk::Lock, os::process};

use super::{
    LocalError,
    place::{Name, Place, SQLITE_MAGIC},
    record::{self, Record},
};

/// How long a healthy server takes to say so.
const HEALTH_MAX: Duration = Duration::from_secs(1);
/// From the signal to the end: a server drains, seals and closes in less.
const STOP_MAX: Duration = Duration::from_secs(10);
/// A server that starts has the lock a moment before it has written who it is.
const LOOKS_MAX: u32 = 10;
const LOOK_INTERVAL: Duration = Duration::from_millis(25);
const STOP_INTERVAL: Duration = Duration::from_millis(20);
const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Who has a server's files.
enum Holder {
    /// Nobody, as long as this is held.
    Nobody(Option<Box<dyn Lock>>),
    /// A process that is the one of the record.
    Known,
    /// One that is not, with what it says of itself.
    Other(String),
}

fn holder(world: &World, place: &Place, record: Option<&Record>) -> Result<Holder, LocalError> {
    let path = place.lock();
    let failed = || LocalError::io(format!("looking at {}", path.display()));
    if !world.disk.exists(&path).map_err(failed())? {
        return Ok(Holder::Nobody(None));
    }
    if let Some(lock) = world.disk.lock(&path).map_err(failed())? {
        return Ok(Holder::Nobody(Some(lock)));
    }
    let text = record::read(&*world.disk, &path).map_err(failed())?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Ok(match record {
        Some(record) if record.is_of(&text) => Holder::Known,
        _ => Holder::Other(text),
    })
}

/// What `server.json` says.
fn read(world: &World, place: &Place) -> Result<Option<Record>, LocalError> {
    let path = place.record();
    let failed = LocalError::io(format!("reading {}", path.display()));
    Record::read(&*world.disk, &path).map_err(failed)
}

/// Who has a server's files, once that is clear.
async fn look(world: &World, place: &Place) -> Result<(Option<Record>, Holder), LocalError> {
    let mut looks = 1;
    loop {
        let record = read(world, place)?;
        let holder = holder(world, place, record.as_ref())?;
        let Holder::Other(text) = holder else { return Ok((record, holder)) };
        if record.is_none()
            && let Some(record) = Record::of_holder(&text, place.name.as_str(), &place.sqlite())
        {
            return Ok((Some(record), Holder::Known));
        }
        if looks == LOOKS_MAX {
            return Ok((record, Holder::Other(text)));
        }
        looks += 1;
        sleep(LOOK_INTERVAL).await;
    }
}

/// How a server is.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    name: Name,
    dir: PathBuf,
    record: Option<Record>,
    /// Who has the files, if that is not the process of the record.
    other: Option<String>,
    is_alive: bool,
    is_healthy: bool,
    /// There is or was a server of this name.
    is_there: bool,
    /// Why nobody knows more.
    problem: Option<String>,
}

impl Status {
    /// That of a server that can't be looked at.
    fn unknown(root: &Path, name: Name, error: LocalError) -> Self {
        let Place { name, dir } = Place::new(root, name);
        Self {
            name,
            dir,
            record: None,
            other: None,
            is_alive: false,
            is_healthy: false,
            is_there: true,
            problem: Some(format!("{:#}", anyhow::Error::from(error))),
        }
    }

    const fn is_running(&self) -> bool {
        self.is_alive && self.is_healthy
    }

    /// Who has its files, in words.
    fn holder(&self) -> Option<String> {
        match (&self.other, &self.record) {
            (Some(other), _) => Some(record::in_words(other)),
            (None, Some(record)) if self.is_alive => Some(record::in_words(&record.holder())),
            (None, _) => None,
        }
    }

    fn is_stale(&self) -> bool {
        self.record.is_some() && !self.is_running()
    }

    /// With the peer's fields, and `problem` where nobody knows more.
    pub(crate) fn json(&self) -> Value {
        let mut status = json!({
            "name": self.name.as_str(),
            "dataDir": self.dir.to_string_lossy(),
            "dump": self.record.as_ref().map(Record::json),
            "pidAlive": self.is_alive,
            "healthy": self.is_healthy,
            "running": self.is_running(),
            "stale": self.is_stale(),
        });
        if let Some(problem) = &self.problem {
            status["problem"] = json!(problem);
        }
        status
    }

    /// In a line.
    pub(crate) fn text(&self) -> String {
        let name = &self.name;
        if let Some(problem) = &self.problem {
            return format!("{name}  can't be looked at: {problem}");
        }
        if let Some(holder) = &self.other {
            let holder = record::in_words(holder);
            return format!("{name}  starting, or in use by another process: {holder}");
        }
        if !self.is_there {
            return no_server(name);
        }
        match &self.record {
            Some(record) if self.is_running() => format!(
                "{name}  running  {}  pid {}, since {}",
                record.url, record.pid, record.started_at
            ),
            Some(record) if self.is_alive => {
                format!(
                    "{name}  running, but /health does not answer  {}  pid {}",
                    record.url, record.pid
                )
            }
            Some(_) => format!("{name}  stopped without a goodbye: the next start cleans up"),
            None => format!("{name}  stopped"),
        }
    }
}

fn no_server(name: &Name) -> String {
    format!("there is no server '{name}': `weir local status` shows all there are")
}

/// Looks at one server.
pub(crate) async fn status(world: &World, root: &Path, name: Name) -> Result<Status, LocalError> {
    let place = Place::new(root, name);
    let (record, holder) = look(world, &place).await?;
    let (is_alive, other) = match holder {
        Holder::Nobody(_) => (false, None),
        Holder::Known => (true, None),
        Holder::Other(holder) => (false, Some(holder)),
    };
    let is_healthy = match &record {
        Some(record) if is_alive => is_healthy(world, &record.url).await,
        _ => false,
    };
    let is_there = is_there(world, &place)?;
    let Place { name, dir } = place;
    let problem = None;
    Ok(Status { name, dir, record, other, is_alive, is_healthy, is_there, problem })
}

fn is_there(world: &World, place: &Place) -> Result<bool, LocalError> {
    let failed = LocalError::io(format!("looking at {}", place.dir.display()));
    world.disk.exists(&place.dir).map_err(failed)
}

/// Why the server `name` can't have an address that is taken: it runs already, or somebody else
/// listens there.
pub(crate) async fn taken(
    world: &World,
    root: &Path,
    name: &Name,
    address: SocketAddr,
) -> LocalError {
    // Who it is, is the lesser question.
    let all = all(world, root).await.unwrap_or_default();
    if let Some(holder) = all.iter().find(|it| it.name == *name).and_then(Status::holder) {
        return LocalError::Running { name: name.clone(), holder };
    }
    let url = format!("http://{address}");
    let listens = |it: &&Status| it.is_alive && it.record.as_ref().is_some_and(|it| it.url == url);
    LocalError::Taken { address, by: all.iter().find(listens).map(|it| it.name.clone()) }
}

/// Looks at all of them, by name. One that can't be looked at is no reason to be silent of the
/// others.
pub(crate) async fn all(world: &World, root: &Path) -> Result<Vec<Status>, LocalError> {
    let listed = match world.disk.list(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(LocalError::io(format!("listing {}", root.display())))?,
    };
    let mut found = Vec::new();
    for path in listed {
        let name = path.file_name().and_then(|it| it.to_str()).and_then(|it| Name::new(it).ok());
        if let Some(name) = name
            && world.disk.list(&path).is_ok()
        {
            let looked = status(world, root, name.clone()).await;
            found.push(looked.unwrap_or_else(|error| Status::unknown(root, name, error)));
        }
    }
    Ok(found)
}

async fn is_healthy(world: &World, url: &str) -> bool {
    let Some(address) = url.strip_prefix("http://").and_then(|it| it.parse::<SocketAddr>().ok())
    else {
        return false;
    };
    let asked = async {
        let mut socket = world.outbound.connect(address).await?;
        socket.write_all(HEALTH).await?;
        let mut start = [0; 12];
        socket.read_exact(&mut start).await?;
        io::Result::Ok(start.starts_with(b"HTTP/1.1 2"))
    };
    matches!(timeout(HEALTH_MAX, asked).await, Ok(Ok(true)))
}

/// What came of asking a server to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It has.
    Yes(u32),
    /// It was asked and did not end in time.
    NotYet(u32),
    /// There is nothing to stop.
    NotFound,
    /// It ended before, without a goodbye.
    NotRunning(u32),
    /// The files are somebody else's, who is not asked.
    Other(String),
}

impl Stopped {
    pub(crate) fn json(&self, name: &Name) -> Value {
        let name = name.as_str();
        match self {
            Self::Yes(pid) => json!({ "name": name, "stopped": true, "pid": pid }),
            Self::NotYet(pid) => {
                json!({ "name": name, "stopped": false, "reason": "timeout", "pid": pid })
            }
            Self::NotFound => json!({ "name": name, "stopped": false, "reason": "not_found" }),
            Self::NotRunning(pid) => {
                json!({ "name": name, "stopped": false, "reason": "pid_not_running", "pid": pid })
            }
            Self::Other(holder) => {
                json!({ "name": name, "stopped": false, "reason": "not_this_server", "holder": holder })
            }
        }
    }

    pub(crate) fn text(&self, name: &Name) -> String {
        match self {
            Self::Yes(pid) => format!("{name} stopped (pid {pid})"),
            Self::NotYet(pid) => format!(
                "{name} was asked to stop and still runs (pid {pid}): ask again, or `kill -9 {pid}`; \
                 what it has acknowledged is kept either way"
            ),
            Self::NotFound => {
                format!("{name} does not run; `weir local status` shows all there are")
            }
            // What has its number now may be anything.
            Self::NotRunning(pid) => {
                format!("{name} does not run: it ended without a goodbye (it was pid {pid})")
            }
            Self::Other(holder) => {
                format!(
                    "{name} is in use by a process that server.json does not name, and that is not \
                     asked to stop: {}. End it yourself, if it is a server that nobody needs",
                    record::in_words(holder)
                )
            }
        }
    }
}

/// Asks a server to stop, and waits until it has.
pub(crate) async fn stop(world: &World, root: &Path, name: &Name) -> Result<Stopped, LocalError> {
    let place = Place::new(root, name.clone());
    let (record, held) = look(world, &place).await?;
    let Some(record) = record else {
        return Ok(match held {
            Holder::Other(holder) => Stopped::Other(holder),
            Holder::Nobody(_) | Holder::Known => Stopped::NotFound,
        });
    };
    match held {
        Holder::Nobody(_) => return Ok(Stopped::NotRunning(record.pid)),
        Holder::Other(holder) => return Ok(Stopped::Other(holder)),
        Holder::Known => {}
    }
    let asked = process::terminate(record.pid);
    asked.map_err(LocalError::io(format!("asking pid {} to stop", record.pid)))?;
    let gone = async {
        while matches!(holder(world, &place, Some(&record)), Ok(Holder::Known)) {
            sleep(STOP_INTERVAL).await;
        }
    };
    Ok(match timeout(STOP_MAX, gone).await {
        Ok(()) => Stopped::Yes(record.pid),
        Err(_) => Stopped::NotYet(record.pid),
    })
}

/// What came of deleting what a server has stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// It was in this file.
    Done(PathBuf),
    /// There was nothing: this file is not there.
    Empty(PathBuf),
    /// There is no such server.
    NotFound,
}

impl Reset {
    pub(crate) fn json(&self, name: &Name) -> Value {
        let name = name.as_str();
        match self {
            Self::Done(sqlite) | Self::Empty(sqlite) => {
                json!({ "name": name, "reset": true, "sqlite": sqlite.to_string_lossy() })
            }
            Self::NotFound => json!({ "name": name, "reset": false, "reason": "not_found" }),
        }
    }

    pub(crate) fn text(&self, name: &Name) -> String {
        match self {
            Self::Done(sqlite) => format!("{name} is empty: {} was deleted", sqlite.display()),
            Self::Empty(sqlite) => format!("{name} was empty: there is no {}", sqlite.display()),
            Self::NotFound => no_server(name),
        }
    }
}

/// Deletes what a server has stored, unless somebody runs it.
pub(crate) async fn reset(world: &World, root: &Path, name: &Name) -> Result<Reset, LocalError> {
    let place = Place::new(root, name.clone());
    if !is_there(world, &place)? {
        return Ok(Reset::NotFound);
    }
    let (record, held) = look(world, &place).await?;
    let running = |holder: String| {
        let holder = record::in_words(&holder);
        LocalError::Running { name: name.clone(), holder }
    };
    // Held to the end: nobody starts meanwhile.
    let _lock = match held {
        Holder::Nobody(lock) => lock,
        Holder::Other(holder) => return Err(running(holder)),
        Holder::Known => {
            let record = record.expect("what is known has a record");
            return Err(running(format!("pid {}, {}", record.pid, record.url)));
        }
    };
    // Another program that keeps to the same files has another kind of lock.
    if let Some(record) = record.filter(|it| it.instance.is_none())
        && process::is_alive(record.pid)
        && is_healthy(world, &record.url).await
    {
        return Err(running(format!("pid {}, {}", record.pid, record.url)));
    }
    let sqlite = place.sqlite();
    refuse_others(world, &sqlite).await?;
    let existed = world.disk.exists(&sqlite);
    let existed = existed.map_err(LocalError::io(format!("looking at {}", sqlite.display())))?;
    // The file first: a log without it is deleted by whoever opens the next one.
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut path = sqlite.clone().into_os_string();
        path.push(suffix);
        remove(world, Path::new(&path))?;
    }
    remove(world, &place.record())?;
    Ok(if existed { Reset::Done(sqlite) } else { Reset::Empty(sqlite) })
}

/// Refuses a file that is there and is no server's.
pub(crate) async fn refuse_others(world: &World, sqlite: &Path) -> Result<(), LocalError> {
    refuse_no_database(world, sqlite).await?;
    refuse_foreign(world, sqlite).await
}

/// Refuses a file that SQLite did not make. It would take a very short one for a database to be, and
/// write over it.
pub(super) async fn refuse_no_database(world: &World, sqlite: &Path) -> Result<(), LocalError> {
    match looked_at(world, sqlite, is_no_database).await? {
        true => Err(LocalError::NoStore(sqlite.to_owned())),
        false => Ok(()),
    }
}

/// Refuses a database that another program made.
pub(super) async fn refuse_foreign(world: &World, sqlite: &Path) -> Result<(), LocalError> {
    match looked_at(world, sqlite, |world, path| Ok(is_foreign(world, path))).await? {
        true => Err(LocalError::Foreign(sqlite.to_owned())),
        false => Ok(()),
    }
}

async fn looked_at(
    world: &World,
    sqlite: &Path,
    look: fn(&World, &Path) -> io::Result<bool>,
) -> Result<bool, LocalError> {
    let (shared, path) = (world.clone(), sqlite.to_owned());
    let looked = weir_io::tasks::run(&*world.blocking, move || look(&shared, &path));
    let looked = looked.await.map_err(io::Error::other).flatten();
    looked.map_err(LocalError::io(format!("looking at {}", sqlite.display())))
}

/// Whether a file is there that SQLite did not make. One without a byte is a database to be.
fn is_no_database(world: &World, path: &Path) -> io::Result<bool> {
    let file = match world.disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    if file.is_empty()? {
        return Ok(false);
    }
    let mut start = [0; SQLITE_MAGIC.len()];
    match file.read_exact_at(&mut start, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
        read => read.map(|()| start != *SQLITE_MAGIC),
    }
}

fn remove(world: &World, path: &Path) -> Result<(), LocalError> {
    match world.disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(LocalError::io(format!("deleting {}", path.display()))),
    }
}
