//! Local mode as a developer meets it: the commands, kill -9, several servers in one process.
#![expect(clippy::disallowed_methods, reason = "tests wait for real processes")]

mod ends;
#[path = "../support/mod.rs"]
mod support;
mod told;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{Client, fresh_dir, receiver::Receiver};
use weir_http::local::{self, LocalConfig, LocalError, LocalServer, Name};

fn weir(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("local").args(args).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // What the environment of a full server says does not concern a local one.
    command.env("PORT", "1").env("DS_HOST", "0.0.0.0").env("DS_ROOT", "/nowhere");
    command.env("API_KEY", "0123456789").env_remove("RUST_LOG");
    command.env("DS_LOCAL_DATA_ROOT", root);
    command
}

/// Runs a command to its end: whether it succeeded, and what it printed to where.
fn output(root: &Path, args: &[&str]) -> (bool, String, String) {
    let Output { status, stdout, stderr } = weir(root, args).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.success(), text(stdout), text(stderr))
}

fn answer(root: &Path, args: &[&str]) -> Value {
    let (ok, stdout, stderr) = output(root, args);
    assert!(ok, "{args:?}: {stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("no JSON: {stdout:?}"))
}

/// `weir local start`; killed when dropped.
struct Running {
    child: Child,
    exports: Value,
}

impl Running {
    fn start(root: &Path, name: &str) -> Self {
        Self::with(weir(root, &["start", "--name", name, "--json"]))
    }

    fn with(mut command: Command) -> Self {
        let mut child = command.spawn().expect("starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        stdout.read_line(&mut line).expect("text");
        let exports = serde_json::from_str(&line).unwrap_or_else(|_| {
            let mut stderr = String::new();
            child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
            panic!("no JSON: {line:?} {stderr}")
        });
        child.stdout = Some(stdout.into_inner());
        Self { child, exports }
    }

    fn url(&self) -> &str {
        self.exports["http"]["url"].as_str().expect("a URL")
    }

    /// The exit code.
    fn end(mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(began.elapsed() < Duration::from_secs(15), "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One request on a connection of its own: status and body.
fn ask(url: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let address = url.strip_prefix("http://").expect("a URL");
    let mut socket = TcpStream::connect(address).expect("connects");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
    (status, body.to_owned())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("there").map(|it| it.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|it| it.into_string().expect("text")).collect();
    names.sort();
    names
}

#[test]
fn a_server_keeps_its_data_in_one_file_and_says_where() {
    let root = fresh_dir();
    let server = Running::start(&root, "my-app");
    let dir = root.join("my-app");
    let sqlite = dir.join("durable-streams.sqlite");
    assert_eq!(server.exports["name"], "my-app");
    assert_eq!(server.exports["pid"], server.child.id());
    assert_eq!(server.exports["sqlite"]["path"], *sqlite.to_string_lossy());
    let port = server.exports["http"]["port"].as_u64().expect("a port");
    assert_eq!(server.url(), format!("http://127.0.0.1:{port}"));
    assert_eq!(ask(server.url(), "PUT", "/v1/stream/s", "kept").0, 201);
    assert_eq!(
        names(&dir),
        [
            "durable-streams.sqlite",
            "durable-streams.sqlite-shm",
            "durable-streams.sqlite-wal",
            "server.json",
            "server.lock"
        ]
    );
    for name in names(&dir) {
        let mode = fs::metadata(dir.join(&name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name} is its owner's");
    }
    let dump: Value =
        serde_json::from_slice(&fs::read(dir.join("server.json")).expect("there")).expect("JSON");
    assert_eq!(dump["version"], 1);
    assert_eq!(dump["http"], server.exports["http"]);
    assert_eq!(dump["sqlite"], server.exports["sqlite"]);
    assert!(dump["startedAt"].as_str().is_some_and(|it| it.starts_with("20")));

    let details = ask(server.url(), "GET", "/v1/server/_details", "").1;
    let details: Value = serde_json::from_str(&details).expect("JSON");
    let preset = json!({
        "enabled": true, "requested_memory_mb": 1024, "preset_mb": 1024,
        "effective_memory_limit_mb": 1024,
    });
    assert_eq!(details["auto_tune"], preset);
    assert_eq!(details["configured_limits"]["memory"]["pressure_limit_bytes"], 0);

    let stopped = answer(&root, &["stop", "--name", "my-app", "--json"]);
    assert_eq!(stopped, json!({ "name": "my-app", "stopped": true, "pid": server.child.id() }));
    assert_eq!(server.end(), Some(0));
    assert_eq!(names(&dir), ["durable-streams.sqlite", "server.lock"], "a clean stop");
    let server = Running::start(&root, "my-app");
    assert_eq!(ask(server.url(), "GET", "/v1/stream/s", ""), (200, "kept".to_owned()));
}

#[test]
fn what_is_sealed_and_merged_makes_no_file() {
    let root = fresh_dir();
    let mut server = Running::start(&root, "sealed");
    let body = "0123456789".repeat(20_000);
    for round in 0..10 {
        let path = format!("/v1/stream/s{round}");
        assert_eq!(ask(server.url(), "PUT", &path, &body).0, 201);
        // A stop seals.
        assert_eq!(answer(&root, &["stop", "--name", "sealed", "--json"])["stopped"], true);
        server = Running::start(&root, "sealed");
        assert_eq!(ask(server.url(), "GET", &path, ""), (200, body.clone()));
    }
    let only_one = || {
        let known = ["durable-streams.sqlite", "server."];
        let others = names(&root.join("sealed"));
        assert!(
            others.iter().all(|name| known.iter().any(|it| name.starts_with(it))),
            "{others:?}"
        );
    };
    let segments = || {
        let details = ask(server.url(), "GET", "/v1/server/_details", "").1;
        let details: Value = serde_json::from_str(&details).expect("JSON");
        let counts = &details["runtime"]["memory"]["subsystems"]["counts"];
        counts["segments"].as_u64().expect("a count")
    };
    assert_eq!(segments(), 10, "each stop sealed");
    only_one();
    // The next seal, which comes by age, merges them.
    assert_eq!(ask(server.url(), "PUT", "/v1/stream/last", &body).0, 201);
    comes_true("segments are merged", || segments() < 5);
    only_one();
    for round in 0..10 {
        assert_eq!(ask(server.url(), "GET", &format!("/v1/stream/s{round}"), "").1, body);
    }
    // What is deleted leaves the file, and the file gets smaller.
    let file = root.join("sealed/durable-streams.sqlite");
    let bytes = || fs::metadata(&file).expect("there").len();
    assert!(bytes() > 2_000_000, "{}", bytes());
    for round in 0..10 {
        assert_eq!(ask(server.url(), "DELETE", &format!("/v1/stream/s{round}"), "").0, 204);
    }
    comes_true("the space is free", || bytes() < 1_000_000);
    only_one();
    assert_eq!(ask(server.url(), "GET", "/v1/stream/last", "").1, body);
}

/// Looks until it is so: a server seals and frees what is old enough, some seconds later.
fn comes_true(what: &str, fact: impl Fn() -> bool) {
    let began = Instant::now();
    while !fact() {
        assert!(began.elapsed() < Duration::from_secs(90), "it never came true: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn status_tells_running_from_stopped_and_from_killed() {
    let root = fresh_dir();
    assert_eq!(answer(&root, &["status", "--json"]), json!([]));
    let nothing = answer(&root, &["status", "--name", "a", "--json"]);
    let dir = root.join("a").to_string_lossy().into_owned();
    let stopped = json!({
        "name": "a", "dataDir": dir, "dump": null, "pidAlive": false, "healthy": false,
        "running": false, "stale": false,
    });
    assert_eq!(nothing, stopped);
    let server = Running::start(&root, "a");
    let killed = Running::start(&root, "b");
    killed.kill();
    let all = answer(&root, &["status", "--json"]);
    let all = all.as_array().expect("all of them");
    let show = |it: &Value| {
        ["name", "pidAlive", "healthy", "running", "stale"].map(|field| it[field].clone())
    };
    assert_eq!(show(&all[0]), [json!("a"), json!(true), json!(true), json!(true), json!(false)]);
    assert_eq!(show(&all[1]), [json!("b"), json!(false), json!(false), json!(false), json!(true)]);
    assert_eq!(all[0]["dump"]["http"], server.exports["http"]);
    let (ok, text, _) = output(&root, &["status"]);
    assert!(ok && text.contains(&format!("a  running  {}", server.url())), "{text}");
    assert!(text.contains("b  stopped without"), "{text}");
    let stop = answer(&root, &["stop", "--name", "b", "--json"]);
    assert_eq!((&stop["stopped"], &stop["reason"]), (&json!(false), &json!("pid_not_running")));
    let stop = answer(&root, &["stop", "--name", "c", "--json"]);
    assert_eq!((&stop["stopped"], &stop["reason"]), (&json!(false), &json!("not_found")));
}

#[test]
fn a_killed_server_starts_again_with_everything_it_acked() {
    let root = fresh_dir();
    let server = Running::start(&root, "k");
    for at in 0..20 {
        let made = ask(server.url(), "PUT", &format!("/v1/stream/{at}"), &format!("kept {at}"));
        assert_eq!(made.0, 201);
    }
    server.kill();
    let server = Running::start(&root, "k");
    for at in 0..20 {
        let read = ask(server.url(), "GET", &format!("/v1/stream/{at}"), "");
        assert_eq!(read, (200, format!("kept {at}")));
    }
    assert_eq!(answer(&root, &["status", "--name", "k", "--json"])["stale"], false);
}

#[test]
fn a_damaged_or_missing_record_is_made_up_for_by_the_lock() {
    let root = fresh_dir();
    for damage in [Some("{"), Some(""), None] {
        let server = Running::start(&root, "a");
        let path = root.join("a/server.json");
        match damage {
            Some(text) => fs::write(&path, text).expect("written"),
            None => fs::remove_file(&path).expect("there"),
        }
        let status = answer(&root, &["status", "--name", "a", "--json"]);
        assert_eq!((&status["running"], &status["stale"]), (&json!(true), &json!(false)));
        assert_eq!(status["dump"]["http"], server.exports["http"]);
        let stop = answer(&root, &["stop", "--name", "a", "--json"]);
        assert_eq!((&stop["stopped"], &stop["pid"]), (&json!(true), &json!(server.child.id())));
        assert_eq!(server.end(), Some(0));
    }
    // Of one that was killed the damage is all there is.
    let killed = Running::start(&root, "a");
    killed.kill();
    fs::write(root.join("a/server.json"), "{").expect("written");
    assert_eq!(answer(&root, &["stop", "--name", "a", "--json"])["stopped"], false);
    Running::start(&root, "a");
}

/// Runs `weir` itself: its exit code and what it said.
fn offline(args: &[&str], data: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = command.args(args).arg("--data").arg(data).output().expect("runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_store_in_one_file_is_verified_and_nothing_else_is_made_of_it() {
    let root = fresh_dir();
    let running = Running::start(&root, "a");
    assert_eq!(ask(running.url(), "PUT", "/v1/stream/s", "kept").0, 201);
    let dir = root.join("a");
    let file = dir.join("durable-streams.sqlite");
    let all = [
        (&["local", "verify", "--name", "a"][..], None),
        (&["verify"], Some(&dir)),
        (&["verify", "--local"], Some(&dir)),
        (&["verify", "--deep"], Some(&file)),
    ];
    let verified = || {
        for (args, data) in &all {
            let (code, said) = match data {
                Some(data) => offline(args, data),
                None => {
                    let output = weir(&root, &args[1..]).output().expect("runs");
                    let said = String::from_utf8_lossy(&output.stdout).into_owned();
                    (output.status.code(), said)
                }
            };
            assert!(code == Some(0) && said.contains("1 commits in the log"), "{args:?}: {said}");
        }
    };
    verified();
    drop(running);
    verified();
    let before = names(&dir);
    for args in [
        &["verify", "--remote"][..],
        &["bootstrap"],
        &["bootstrap", "--force"],
        &["bootstrap", "--check"],
        &["serve", "--port", "0", "--bootstrap"],
        &["gc", "--dry-run"],
    ] {
        for data in [&dir, &file] {
            let (code, said) = offline(args, data);
            assert!(code == Some(1) && said.contains("is a store in one file"), "{args:?}: {said}");
        }
    }
    let none = answer_of_verify(&root, "none");
    assert!(none.0 == Some(1) && none.1.contains("there is no store"), "{none:?}");
    assert_eq!(names(&dir), before, "nothing was made");
    let mut inspect = Command::new(env!("CARGO_BIN_EXE_weir"));
    let said = inspect.args(["inspect", "segment"]).arg(&file).output().expect("runs").stderr;
    assert!(String::from_utf8_lossy(&said).contains("weir verify"), "{said:?}");
}

fn answer_of_verify(root: &Path, name: &str) -> (Option<i32>, String) {
    let output = weir(root, &["verify", "--name", name]).output().expect("runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn bad_names_and_open_addresses_are_refused() {
    let root = fresh_dir();
    for name in ["..", ".", "a/b", "a b", "../x", "", " "] {
        for command in ["start", "status", "stop", "reset"] {
            let (ok, _, stderr) = output(&root, &[command, "--name", name]);
            assert!(!ok && stderr.contains("invalid server name"), "{command} {name}: {stderr}");
        }
    }
    let (ok, _, stderr) = output(&root, &["start", "--hostname", "0.0.0.0"]);
    assert!(!ok && stderr.contains("loopback"), "{stderr}");
    assert!(names(&root).is_empty(), "nothing was made");
    let server = Running::start(&root, "default");
    let address = server.url().strip_prefix("http://").expect("a URL");
    let status = |host: &str| {
        let request =
            format!("GET /v1/streams HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut socket = TcpStream::connect(address).expect("connects");
        socket.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).map(str::to_owned).expect("a status")
    };
    // A page of another site whose name resolves to this machine.
    for stranger in
        ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1"]
    {
        assert_eq!(status(stranger), "403", "{stranger}");
    }
    for own in ["localhost", "localhost:1", "127.0.0.1", address, "[::1]:1"] {
        assert_eq!(status(own), "200", "{own}");
    }
}

fn config(root: &Path, name: &str) -> LocalConfig {
    let name = Name::new(name).expect("a good name");
    let config = LocalConfig::new("default").expect("a home");
    LocalConfig { name, root: root.to_owned(), ..config }
}

async fn started(root: &Path, name: &str) -> LocalServer {
    local::start(config(root, name)).await.expect("starts")
}

/// A client of a server in this process.
async fn client(server: &LocalServer) -> Client {
    Client::connect(([127, 0, 0, 1], server.port).into()).await
}

const TEXT: &[(&str, &str)] = &[("content-type", "text/plain")];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

#[tokio::test(flavor = "multi_thread")]
async fn several_run_in_one_process_and_start_again_at_once() {
    let root = fresh_dir();
    let (one, two) = (started(&root, "one").await, started(&root, "two").await);
    assert_ne!(one.port, two.port);
    assert_eq!(one.url, format!("http://127.0.0.1:{}", one.port));
    client(&one).await.send("PUT", "/v1/stream/s", TEXT, "x").await.check(201);
    client(&two).await.send("GET", "/v1/stream/s", &[], "").await.check(404);
    let refused = local::start(config(&root, "one")).await;
    assert!(matches!(refused, Err(LocalError::Running { .. })), "{refused:?}");
    for _ in 0..3 {
        let again = started(&root, "again").await;
        assert!(again.sqlite_path.ends_with("again/durable-streams.sqlite"));
        again.close().await.expect("closes");
    }
    one.close().await.expect("closes");
    let one = started(&root, "one").await;
    let read = client(&one).await.send("GET", "/v1/stream/s", &[], "").await.check(200);
    assert_eq!(read.text(), "x");
    one.close().await.expect("closes");
    two.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_may_go_to_this_machine_and_its_key_lies_in_the_file() {
    let root = fresh_dir();
    let mut receiver = Receiver::start().await;
    let server = started(&root, "hooks").await;
    let subscription = json!({
        "type": "webhook", "pattern": "e/*", "webhook": { "url": receiver.url() },
    });
    let mut peer = client(&server).await;
    let path = "/v1/stream/__ds/subscriptions/s";
    peer.send("PUT", path, JSON, subscription.to_string()).await.check(201);
    peer.send("PUT", "/v1/stream/e/1", TEXT, "work").await.check(201);
    let call = receiver.call().await;
    assert!(call.headers.contains_key("webhook-signature"), "{:?}", call.headers);
    call.answer(200, "{}");
    let keys = peer.send("GET", "/v1/stream/__ds/jwks.json", &[], "").await.check(200).json();
    server.close().await.expect("closes");
    assert_eq!(names(&root.join("hooks")), ["durable-streams.sqlite", "server.lock"]);
    let server = started(&root, "hooks").await;
    let again = client(&server).await.send("GET", "/v1/stream/__ds/jwks.json", &[], "").await;
    assert_eq!(again.check(200).json(), keys, "a restart keeps them");
    server.close().await.expect("closes");
    let other = started(&root, "other").await;
    let others = client(&other).await.send("GET", "/v1/stream/__ds/jwks.json", &[], "").await;
    assert_ne!(others.check(200).json(), keys, "every server has its own");
    other.close().await.expect("closes");
}
