//! One `weir` process on a directory and a port of its own.
//!
//! A start waits for two facts, the printed address and a 200 of `/health`, and
//! gives up at a deadline; it never waits for a length of time. A kill is
//! `SIGKILL` and is over when the process is reaped. The directory outlives the
//! process, so a restart finds exactly what the kill left. When a test panics,
//! the directory stays and the end of the server's log is printed.

use std::{
    collections::VecDeque,
    env, fs,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{self, Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{binary, http};

/// How long a start may take before the test fails.
const START_MAX: Duration = Duration::from_secs(30);
/// Between two questions to `/health`.
const HEALTH_PAUSE: Duration = Duration::from_millis(5);
/// Lines of the server's output kept for a failure report.
const LOG_LINES_MAX: usize = 200;
/// Below the range the kernel hands to outgoing connections, so that nothing
/// takes the port between a kill and the restart on it.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// What `weir` is asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `weir serve`: segments in files, and a bucket.
    Full,
    /// `weir local start`: one SQLite file.
    Local,
}

/// A running server, or a killed one that can be started again.
pub struct Server {
    binary: PathBuf,
    mode: Mode,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    directory: Scratch,
    port: u16,
    child: Option<Child>,
    log: Log,
}

impl Server {
    /// Starts the binary under test on a free port and an empty directory.
    pub fn start() -> Result<Server> {
        Server::start_in(Mode::Full)
    }

    /// The same in this mode.
    pub fn start_in(mode: Mode) -> Result<Server> {
        let mut server = Server::stopped(mode)?;
        server.restart()?;
        Ok(server)
    }

    /// One that was not started yet: [`restart`](Server::restart) does.
    pub fn stopped(mode: Mode) -> Result<Server> {
        Ok(Server {
            binary: binary::weir()?.to_owned(),
            mode,
            flags: Vec::new(),
            variables: Vec::new(),
            directory: Scratch::new()?,
            port: free_port()?,
            child: None,
            log: Log::default(),
        })
    }

    /// Further flags of the next start.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Environment variables of the next start, and of commands.
    pub fn set_variables(&mut self, variables: &[(&str, &str)]) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.variables = variables.iter().map(owned).collect();
    }

    /// Where its data lies.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs another command of the binary, with these arguments, on the data of the stopped server.
    pub fn command(&self, arguments: &[&str]) -> Result<Output> {
        ensure!(self.child.is_none(), "the server is still running");
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--data").arg(self.directory.path());
        command.envs(self.variables.iter().cloned()).stdin(Stdio::null());
        command.output().with_context(|| format!("{} could not be started", self.binary.display()))
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn client(&self) -> http::Client {
        http::Client::new(self.port)
    }

    /// `kill -9`, over when the process is gone. Nothing is flushed or told.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("a server is killed once per start")?;
        child.kill().context("SIGKILL")?;
        child.wait().context("the killed process is reaped")?;
        Ok(())
    }

    /// Starts the killed server again: same directory, same port.
    pub fn restart(&mut self) -> Result<()> {
        let announced = self.spawn()?;
        match announced.recv_timeout(START_MAX) {
            Ok(()) => self.await_health(),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the server did not print {} in {START_MAX:?}{}", self.url(), self.log.tail())
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the server ended without printing {}{}", self.url(), self.log.tail())
            }
        }
    }

    /// Starts the killed server and kills it so soon that it may not be up yet.
    pub fn start_and_kill_after(&mut self, delay: Duration) -> Result<()> {
        self.spawn()?;
        thread::sleep(delay);
        self.kill()
    }

    /// The process, and a word when it has printed its address.
    fn spawn(&mut self) -> Result<Receiver<()>> {
        ensure!(self.child.is_none(), "the server is still running");
        let mut command = Command::new(&self.binary);
        match self.mode {
            Mode::Full => {
                command.args(["serve", "--allow-loopback-webhooks", "--data"]);
                command.arg(self.directory.path());
            }
            Mode::Local => {
                command.args(["local", "start", "--json"]);
                command.env("DS_LOCAL_DATA_ROOT", self.directory.path());
            }
        }
        let mut child = command
            .args(["--port", &self.port.to_string()])
            .args(&self.flags)
            .envs(self.variables.iter().cloned())
            .env_remove("PORT")
            .env_remove("DS_HOST")
            .env_remove("DS_ROOT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} could not be started", self.binary.display()))?;
        let (announce, announced) = sync_channel(1);
        let stdout = child.stdout.take().context("stdout is piped")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        self.log.follow(stdout, announce.clone(), self.url());
        self.log.follow(stderr, announce, self.url());
        self.child = Some(child);
        Ok(announced)
    }

    fn await_health(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let answer = self.client().get("/health");
            if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            let child = self.child.as_mut().context("the server was just started")?;
            if let Some(status) = child.try_wait()? {
                bail!("the server ended with {status} before it was healthy{}", self.log.tail());
            }
            if start.elapsed() > START_MAX {
                bail!("/health is not 200 after {START_MAX:?}: {answer:?}{}", self.log.tail());
            }
            thread::sleep(HEALTH_PAUSE);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("data kept in {}{}", self.directory.path().display(), self.log.tail());
            self.directory.keep = true;
        }
        if let Some(mut child) = self.child.take() {
            // A process that already ended has nothing left to kill or to report.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The last lines the server wrote, of all its lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    /// Copies a pipe's lines until it closes; says once that the address came by.
    fn follow(&self, pipe: impl Read + Send + 'static, announce: SyncSender<()>, url: String) {
        let log = self.clone();
        thread::spawn(move || {
            let mut announce = Some(announce);
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if line.contains(&url)
                    && let Some(announce) = announce.take()
                {
                    // The other pipe may have announced it first: one word is enough.
                    let _ = announce.try_send(());
                }
                log.push(line);
            }
        });
    }

    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LOG_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn tail(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::from("\nthe server's last words:\n");
        for line in lines.iter() {
            text.push_str("  | ");
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// An empty directory, removed with its content unless a test failed on it.
pub struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    pub fn new() -> Result<Scratch> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("weir-conformance-{}-{count}", process::id()));
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("a left-over {}", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Scratch { path, keep: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            // A temporary directory left behind fails no test.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A port nobody listens on. Each call of one process tries the next one, from
/// a start that differs between processes.
fn free_port() -> Result<u16> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let span = u32::from(PORTS.end - PORTS.start);
    for _ in 0..span {
        let step =
            process::id().wrapping_mul(97).wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + u16::try_from(step % span).context("the span is of ports")?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("every port of {PORTS:?} is taken");
}
