//! The command line against a server: real processes, real sockets, a bad network between them.
#![expect(clippy::disallowed_methods, reason = "tests use real sockets, files and processes")]

mod advice;
mod bench;
mod commands;
mod doubt;
mod ends;
mod export;
mod https;
mod liar;
mod once;
mod proxy;
mod resume;
mod script;
#[path = "../support/mod.rs"]
mod support;

use std::{
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

/// What a command did.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// It did what it was to do, and this is what it printed.
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

/// A command about a server.
fn command(server: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(args).env("WEIR_URL", format!("http://{server}")).env_remove("WEIR_AUTH");
    command.env("WEIR_STATE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn done(output: &Output) -> Done {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Runs a command to its end, with this standard input.
async fn weir_with(server: SocketAddr, args: &[&str], input: &str) -> Done {
    let mut child = command(server, args).spawn().expect("starts");
    let input = input.as_bytes().to_vec();
    let output = tokio::task::spawn_blocking(move || {
        let mut stdin = child.stdin.take().expect("piped");
        // A command that reads nothing may be gone already.
        drop(stdin.write_all(&input));
        drop(stdin);
        child.wait_with_output().expect("ends")
    });
    done(&output.await.expect("it does not panic"))
}

async fn weir(server: SocketAddr, args: &[&str]) -> Done {
    weir_with(server, args, "").await
}

/// What a command that runs already comes to.
async fn end(child: Child) -> Done {
    support::within(ending(child)).await
}

/// The same for one that goes on until it has no patience left.
async fn ending(child: Child) -> Done {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().expect("ends"));
    done(&output.await.expect("it does not panic"))
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
    assert!(sent.expect("kill exists").success());
}

/// Makes a file. Returns its path.
fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("text").to_owned()
}

/// Messages, one a line.
fn lines(count: usize) -> String {
    (0..count)
        .map(|number| format!("{{\"n\":{number},\"pad\":\"{}\"}}\n", "x".repeat(60)))
        .collect()
}
