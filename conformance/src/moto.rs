//! moto, a mock of S3, as a process of its own that dies with the test.
//!
//! It says on its standard error where it listens, once it does; a start waits
//! for that line, never for a length of time.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::sync_channel,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::python::{self, Environment};

/// How long a start may take before the test fails.
const START_MAX: Duration = Duration::from_secs(60);
/// Lines of output that a reader is behind at most.
const LINES_MAX: usize = 16;

/// A running mock.
pub struct Moto {
    child: Child,
    url: String,
}

impl Moto {
    /// Starts a mock without buckets on a free port.
    pub fn start() -> Result<Moto> {
        let interpreter = python::install(Environment::Moto)?;
        let mut command = Command::new(interpreter);
        // Nothing of the caller's own account gets in.
        command.env_clear().args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("moto can be started")?;
        let output = child.stderr.take().context("its output is a pipe")?;
        let mut moto = Moto { child, url: String::new() };
        let (listens, listening) = sync_channel(LINES_MAX);
        // Reads on until moto dies, or its log would fill the pipe and stop it.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, url)) = line.split_once("Running on ") {
                    // The start may have given up.
                    drop(listens.try_send(url.trim().to_owned()));
                }
            }
        });
        moto.url = listening.recv_timeout(START_MAX).context("moto did not start to listen")?;
        Ok(moto)
    }

    /// Stops it: it keeps its connections, takes new ones, and answers nobody.
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let mut command = Command::new("kill");
        command.args([&format!("-{name}"), &self.child.id().to_string()]);
        ensure!(command.status().context("kill")?.success(), "SIG{name} reaches moto");
        Ok(())
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have died by itself; either way it is over once it is reaped.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
