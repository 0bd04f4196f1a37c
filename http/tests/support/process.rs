//! The `weir` binary as a process.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// The command, with nothing of the environment that it would listen to.
pub fn weir(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["PORT", "DS_HOST", "DS_ROOT", "API_KEY", "RUST_LOG"] {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars_os() {
        let clouds = ["AWS_", "AZURE_", "CLOUDFLARE_", "DURABLE_STREAMS_", "GOOGLE_"];
        if name.to_str().is_some_and(|name| clouds.iter().any(|cloud| name.starts_with(cloud))) {
            command.env_remove(name);
        }
    }
    command
}

/// A running binary; killed when dropped.
pub struct Running {
    pub child: Child,
    pub address: String,
    pub announced: String,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("starts");
        let stdout = child.stdout.take().expect("piped");
        let mut announced = String::new();
        for line in BufReader::new(stdout).lines() {
            announced.push_str(&line.expect("text"));
            announced.push('\n');
            if announced.contains("  auth ") {
                break;
            }
        }
        let address = announced.split("http://").nth(1).and_then(|it| it.lines().next());
        let address = address.unwrap_or_else(|| panic!("no URL in {announced:?}")).to_owned();
        Self { child, address, announced }
    }

    pub fn ask(&self, request: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).expect("connects");
        let (line, rest) = request.split_once("\r\n").expect("a request line");
        let request = format!("{line}\r\nHost: localhost\r\nConnection: close\r\n{rest}");
        socket.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill exists").success());
    }

    /// Waits for the end; the exit code and the time it took.
    pub fn end(mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status.code(), began.elapsed());
            }
            assert!(began.elapsed() < Duration::from_secs(15), "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub fn start(dir: &Path) -> Running {
    Running::start(weir(&["--port", "0"]).arg("--data").arg(dir))
}

pub fn failure(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().expect("runs");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success(), "{stderr}");
    stderr
}
