//! What the commands say: who runs, what can't be done and what to do, what was never there.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};
use weir_io::{os, sqlite::Role};

use crate::{Running, answer, ask, names, output, support::fresh_dir, weir};

#[test]
fn a_second_start_of_a_name_says_who_runs_it_and_other_names_run_beside() {
    let root = fresh_dir();
    let server = Running::start(&root, "one");
    for port in ["0", &server.exports["http"]["port"].to_string()] {
        let (ok, _, stderr) = output(&root, &["start", "--name", " one ", "--port", port]);
        assert!(!ok, "{stderr}");
        for part in ["'one' is running", &format!("pid {}", server.child.id()), server.url()] {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
        for noise in ["instance", "process start"] {
            assert!(!stderr.contains(noise), "{noise}: {stderr}");
        }
    }
    let other = Running::start(&root, "two");
    assert_eq!(ask(other.url(), "PUT", "/v1/stream/s", "2").0, 201);
    assert_eq!(ask(server.url(), "GET", "/v1/stream/s", "").0, 404);
}

#[test]
fn what_can_not_be_done_says_what_to_do() {
    let root = fresh_dir();
    let server = Running::start(&root, "a");
    let port = server.exports["http"]["port"].to_string();
    let (ok, _, stderr) = output(&root, &["start", "--name", "b", "--port", &port]);
    assert!(!ok && stderr.contains("--port 0"), "{stderr}");
    assert!(stderr.contains("the local server 'a' listens there"), "{stderr}");
    assert!(stderr.contains(&format!("127.0.0.1:{port} is taken")), "{stderr}");
    assert_eq!(names(&root), ["a"], "what did not start leaves nothing");
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = other.local_addr().expect("bound").port().to_string();
    let (ok, _, stderr) = output(&root, &["start", "--name", "b", "--port", &taken]);
    assert!(!ok && stderr.contains("another program"), "{stderr}");
    assert_eq!(names(&root), ["a"]);
    let (ok, _, stderr) = output(&root, &["start", "--name", "a"]);
    assert!(!ok && stderr.contains("weir local stop --name a"), "{stderr}");
    let (ok, _, stderr) = output(&root, &["reset", "--name", "a", "--json"]);
    let error: Value = serde_json::from_str(&stderr).expect("one line of JSON");
    assert!(!ok && error["error"]["advice"].as_str().is_some_and(|it| it.contains("stop")));
    let (ok, stdout, _) = output(&root, &["stop", "--name", "none"]);
    assert!(ok && stdout.contains("weir local status"), "{stdout}");
}

#[test]
fn reset_deletes_everything_but_not_under_a_running_server() {
    let root = fresh_dir();
    let server = Running::start(&root, "r");
    assert_eq!(ask(server.url(), "PUT", "/v1/stream/s", "gone").0, 201);
    let (ok, _, stderr) = output(&root, &["reset", "--name", "r"]);
    assert!(!ok && stderr.contains("'r' is running"), "{stderr}");
    assert_eq!(ask(server.url(), "GET", "/v1/stream/s", ""), (200, "gone".to_owned()));
    server.kill();
    let reset = answer(&root, &["reset", "--name", "r", "--json"]);
    let sqlite = root.join("r/durable-streams.sqlite").to_string_lossy().into_owned();
    assert_eq!(reset, json!({ "name": "r", "reset": true, "sqlite": sqlite }));
    assert_eq!(names(&root.join("r")), ["server.lock"]);
    let server = Running::start(&root, "r");
    assert_eq!(ask(server.url(), "GET", "/v1/stream/s", "").0, 404);
    drop(server);
    let (ok, again, _) = output(&root, &["reset", "--name", "r"]);
    assert!(ok && again.contains("was deleted"), "{again}");
    let (ok, again, _) = output(&root, &["reset", "--name", "r"]);
    assert!(ok && again.contains("r was empty") && !again.contains("deleted"), "{again}");
    let never = answer(&root, &["reset", "--name", "never", "--json"]);
    assert_eq!(never, json!({ "name": "never", "reset": false, "reason": "not_found" }));
    for command in ["reset", "status"] {
        let (ok, text, _) = output(&root, &[command, "--name", "typo"]);
        assert!(ok && text.contains("there is no server 'typo'"), "{command}: {text}");
    }
    let (_, text, _) = output(&root, &["status", "--name", "r"]);
    assert!(text.contains("r  stopped"), "{text}");
    assert_eq!(names(&root), ["r"], "who asks makes nothing");
}

/// A database as another program makes it.
fn database(path: &Path) -> Vec<u8> {
    let world = os::world().expect("a runtime is running");
    let database = world.sqlite.open(path, Role::Writer).expect("made");
    database.execute_batch("CREATE TABLE notes (text)").expect("made");
    drop(database);
    fs::read(path).expect("there")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_store_is_named_and_stays() {
    let (root, elsewhere) = (fresh_dir(), fresh_dir());
    let other = database(&elsewhere.join("notes"));
    for (name, bytes, what) in [
        ("diary", b"dear diary, this is no database at all".to_vec(), "is no SQLite file"),
        ("short", b"x".to_vec(), "is no SQLite file"),
        ("other", other, "is another program's"),
    ] {
        fs::create_dir(root.join(name)).expect("made");
        let path = root.join(name).join("durable-streams.sqlite");
        fs::write(&path, &bytes).expect("written");
        for command in ["start", "reset", "verify"] {
            let (ok, _, stderr) = output(&root, &[command, "--name", name]);
            let said = format!("{} {what}", path.display());
            assert!(!ok && stderr.contains(&said), "{command} {name}: {stderr}");
            assert!(!stderr.contains("damaged"), "{command} {name}: {stderr}");
        }
        assert!(fs::read(&path).expect("there") == bytes, "{name} is as it was");
    }
    // What a crash leaves of a start is nobody's loss.
    fs::create_dir(root.join("empty")).expect("made");
    fs::write(root.join("empty/durable-streams.sqlite"), "").expect("written");
    let (ok, text, _) = output(&root, &["reset", "--name", "empty"]);
    assert!(ok && text.contains("was deleted"), "{text}");
}

#[test]
fn only_the_server_itself_is_ever_signalled() {
    let root = fresh_dir();
    let server = Running::start(&root, "a");
    let path = root.join("a/server.json");
    let dump: Value = serde_json::from_slice(&fs::read(&path).expect("there")).expect("JSON");
    let mut bystander = Command::new("sleep").arg("60").spawn().expect("sleep");
    for (field, value) in [
        ("pid", json!(bystander.id())),
        ("instance", json!("0000000000000000")),
        ("instance", Value::Null),
    ] {
        let mut other = dump.clone();
        other[field] = value;
        fs::write(&path, other.to_string()).expect("written");
        let (ok, stdout, _) = output(&root, &["stop", "--name", "a", "--json"]);
        let stop: Value = serde_json::from_str(&stdout).expect("JSON");
        assert!(!ok && stop["reason"] == "not_this_server", "{stdout}");
        assert_eq!(answer(&root, &["status", "--name", "a", "--json"])["running"], false);
    }
    // Of a server that was killed, whose number is somebody else's by now.
    let killed = Running::start(&root, "b");
    killed.kill();
    let left = root.join("b/server.json");
    let mut other: Value = serde_json::from_slice(&fs::read(&left).expect("there")).expect("JSON");
    other["pid"] = json!(bystander.id());
    fs::write(&left, other.to_string()).expect("written");
    let (ok, stdout, _) = output(&root, &["stop", "--name", "b"]);
    let pid = bystander.id();
    assert!(ok && stdout.contains("does not run"), "{stdout}");
    assert!(stdout.contains(&pid.to_string()) && !stdout.contains("has ended"), "{stdout}");
    assert!(bystander.try_wait().expect("a child").is_none(), "it was not asked to end");
    bystander.kill().expect("it runs");
    bystander.wait().expect("it ends");
    assert_eq!(ask(server.url(), "GET", "/health", "").0, 200);
    fs::write(&path, dump.to_string()).expect("written");
    assert_eq!(answer(&root, &["stop", "--name", "a", "--json"])["stopped"], true);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_start_says_how_the_commands_find_it() {
    let root = fresh_dir();
    let mut child = weir(&root, &["start", "--name", "a"]).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut said = Vec::new();
    // The banner is written as a whole; its last line is the one that is wanted.
    for line in lines.by_ref() {
        said.push(line.expect("text"));
        if said.last().is_some_and(|line| line.contains("WEIR_URL")) {
            break;
        }
    }
    let url = said[0].split_whitespace().last().expect("a URL");
    assert_eq!(said.last().map(|line| line.trim()), Some(&*format!("export WEIR_URL={url}")));
    assert_eq!(ask(url, "GET", "/health", "").0, 200);
    let head = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["head", "none"])
        .env("WEIR_URL", url)
        .output()
        .expect("runs");
    assert_eq!(head.status.code(), Some(4), "{head:?}");
    assert_eq!(answer(&root, &["stop", "--name", "a", "--json"])["stopped"], true);
    child.wait().expect("it ends");
}

#[test]
fn a_directory_that_is_no_servers_is_told_beside_the_servers() {
    let root = fresh_dir();
    let server = Running::start(&root, "a");
    fs::create_dir_all(root.join("odd/server.lock")).expect("made");
    let (ok, text, stderr) = output(&root, &["status"]);
    assert!(ok && text.contains(&format!("a  running  {}", server.url())), "{text}{stderr}");
    assert!(text.contains("odd  can't be looked at: ") && text.contains("server.lock"), "{text}");
    let all = answer(&root, &["status", "--json"]);
    assert_eq!(all[0]["running"], true);
    assert!(all[0].get("problem").is_none(), "{all}");
    assert_eq!((&all[1]["name"], &all[1]["running"]), (&json!("odd"), &json!(false)));
    assert!(all[1]["problem"].as_str().is_some_and(|it| it.contains("server.lock")), "{all}");
    let (ok, _, stderr) = output(&root, &["status", "--name", "odd"]);
    assert!(!ok && stderr.contains("server.lock"), "{stderr}");
}

#[test]
fn a_root_that_is_a_file_is_told_with_the_variable_that_names_it() {
    let dir = fresh_dir();
    let file = dir.join("file");
    fs::write(&file, "mine").expect("written");
    for root in [file.clone(), file.join("below")] {
        for command in ["start", "status", "stop", "verify", "reset"] {
            let (ok, _, stderr) = output(&root, &[command]);
            let said = format!("{} is no directory", root.display());
            assert!(!ok && stderr.contains(&said), "{command}: {stderr}");
            assert!(stderr.contains("DS_LOCAL_DATA_ROOT"), "{command}: {stderr}");
        }
    }
    assert_eq!(fs::read(&file).expect("there"), b"mine");
}
