//! The `weir` binary: how it starts, refuses to start, and stops (core §10.1).
#![expect(clippy::disallowed_methods, reason = "tests wait for real processes")]

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use support::{
    fresh_dir,
    process::{Running, failure, start, weir},
};

#[test]
fn it_says_what_it_is_and_what_an_ack_rests_on() {
    let dir = fresh_dir();
    let began = Instant::now();
    let running = start(&dir);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for part in [
        "http://127.0.0.1:",
        &*dir.display().to_string(),
        "fsynced",
        "object store  local",
        "no backup",
    ] {
        assert!(running.announced.contains(part), "{part}: {}", running.announced);
    }
    assert!(running.ask("GET /health HTTP/1.1\r\n\r\n").ends_with(r#"{"ok":true}"#));
    assert!(dir.join("store").is_dir() && dir.join("bucket").is_dir());
}

#[test]
fn it_says_where_objects_are_kept_and_what_that_is_worth() {
    let other = fresh_dir();
    let bucket = other.join("deep/bucket");
    let elsewhere = ["--bucket-dir", bucket.to_str().expect("text"), "--bucket-prefix", "a/b"];
    for (args, says) in [
        (&elsewhere[..], format!("local: {}, below a/b/ (on the", bucket.display())),
        (&["--object-store", "memory"], "memory (lost when the server ends)".to_owned()),
    ] {
        let dir = fresh_dir();
        let running = Running::start(weir(&["--port", "0"]).args(args).arg("--data").arg(&*dir));
        assert!(running.announced.contains(&says), "{says}: {}", running.announced);
        let answer = running.ask("GET /v1/server/_details HTTP/1.1\r\n\r\n");
        let probed = r#""artifact":"probe","bytes":33,"errors":0,"requests":2"#;
        assert!(answer.contains(probed), "it was tried out: {answer}");
        assert!(!dir.join("bucket").exists(), "another bucket is used");
    }
    assert!(bucket.join("a/b/probe").is_dir());
}

#[test]
fn it_does_not_start_without_its_bucket() {
    let dir = fresh_dir();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = nobody.local_addr().expect("bound");
    drop(nobody);
    let args = ["--object-store", "s3", "--bucket", "b", "--port", "0"];
    let mut command = weir(&args);
    command.arg("--data").arg(&*dir).env("AWS_ENDPOINT_URL", format!("http://{address}"));
    command.env("AWS_ALLOW_HTTP", "true").env("AWS_ACCESS_KEY_ID", "known");
    command.env("AWS_SECRET_ACCESS_KEY", "hush-hush");
    let stderr = failure(&mut command);
    for part in ["object store (s3: b)", "cannot be used", "no answer"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    assert!(!stderr.contains("hush-hush"), "{stderr}");
    assert!(!dir.join("store").exists(), "nothing was created");
}

/// A service with the requests of S3 that creates objects whether or not there is one already, or
/// knows no conditions at all (`says` is its answer to a creation). It lives as long as the test.
fn unconditional(says: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || while serve_one(&mut socket, says).is_some() {});
        }
    });
    format!("http://{address}")
}

/// Reads one request and answers it; `None` once the connection is over.
fn serve_one(socket: &mut TcpStream, says: &str) -> Option<()> {
    let mut requests = BufReader::new(socket.try_clone().ok()?);
    let (mut head, mut body) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let start = head.len();
        if requests.read_line(&mut head).ok()? == 0 {
            return None;
        }
        let line = head[start..].to_ascii_lowercase();
        if let Some(length) = line.strip_prefix("content-length:") {
            body = length.trim().parse().ok()?;
        }
    }
    requests.read_exact(&mut vec![0; body]).ok()?;
    let status = if head.starts_with("PUT ") { says } else { "204 No Content" };
    let answer = format!("HTTP/1.1 {status}\r\nETag: \"1\"\r\nContent-Length: 0\r\n\r\n");
    socket.write_all(answer.as_bytes()).ok()
}

#[test]
fn it_does_not_start_on_a_bucket_that_can_not_tell_two_writers_apart() {
    for (says, why) in [
        ("200 OK", "the bucket ignores create-if-absent"),
        ("501 Not Implemented", "the bucket can't create an object only if there is none"),
    ] {
        let dir = fresh_dir();
        let mut command = weir(&["--object-store", "s3", "--bucket", "b", "--port", "0"]);
        command.arg("--data").arg(&*dir).env("AWS_ENDPOINT_URL", unconditional(says));
        command.env("AWS_ALLOW_HTTP", "true").env("AWS_ACCESS_KEY_ID", "known");
        command.env("AWS_SECRET_ACCESS_KEY", "hush-hush");
        let stderr = failure(&mut command);
        for part in ["object store (s3: b)", why, "two servers could destroy each other's data"] {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
        assert!(!dir.join("store").exists(), "nothing was created");
    }
}

#[test]
fn a_signal_ends_it_in_order_and_loses_nothing() {
    for signal in ["TERM", "INT"] {
        let dir = fresh_dir();
        let running = start(&dir);
        let put = "PUT /v1/stream/s HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nkept";
        assert!(running.ask(put).starts_with("HTTP/1.1 201 "));
        // A reader that waits must not hold up the end.
        let mut reader = TcpStream::connect(&running.address).expect("connects");
        reader
            .write_all(b"GET /v1/stream/s?live=sse&offset=now HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("sent");
        let mut first = [0; 1];
        reader.read_exact(&mut first).expect("the head comes at once");
        running.signal(signal);
        let (code, took) = running.end();
        assert_eq!(code, Some(0), "{signal}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("a clean end");
        assert!(rest.contains("streamNextOffset") && rest.ends_with("0\r\n\r\n"), "{rest}");
        let running = start(&dir);
        let answer = running.ask("GET /v1/stream/s HTTP/1.1\r\n\r\n");
        assert!(answer.ends_with("\r\n\r\nkept"), "{answer}");
    }
}

#[test]
fn two_servers_of_one_directory_meet_at_the_lock() {
    let dir = fresh_dir();
    let running = start(&dir);
    let stderr = failure(weir(&["--port", "0"]).arg("--data").arg(&*dir));
    for part in [
        &*format!("pid {}", running.child.id()),
        &*format!("weir {}", env!("CARGO_PKG_VERSION")),
        &*format!("http://{}", running.address),
        "since 20",
        &*dir.display().to_string(),
    ] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    // The same where the port would be in the way, too.
    let port = running.address.rsplit(':').next().expect("a port").to_owned();
    let stderr = failure(weir(&["--port", &port]).arg("--data").arg(&*dir));
    assert!(stderr.contains("is in use by"), "{stderr}");
}

#[test]
fn a_server_whose_port_is_taken_says_so_and_touches_no_store() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("bound");
    let dir = fresh_dir();
    let mut command = weir(&["--port", &address.port().to_string(), "--bootstrap"]);
    let stderr = failure(command.arg("--data").arg(&*dir));
    for part in [&*format!("{address} is taken"), "another program listens", "--port 0"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    assert!(!dir.join("store").exists() && !dir.join("bucket").exists(), "nothing was created");
    // Of a store that is there, nothing is read or written either.
    drop(start(&dir));
    let files = || -> Vec<_> {
        let entries = std::fs::read_dir(dir.join("store")).expect("it is there");
        let mut files: Vec<_> = entries
            .map(|entry| entry.expect("an entry"))
            .map(|it| (it.file_name(), it.metadata().expect("there").modified().expect("a time")))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let port = address.port().to_string();
    let stderr = failure(weir(&["--port", &port]).arg("--data").arg(&*dir));
    assert!(stderr.contains("is taken"), "{stderr}");
    assert_eq!(files(), before);
}

#[test]
fn it_refuses_settings_that_make_no_sense() {
    let key = "0123456789";
    for (args, api_key, says) in [
        (&["--host", "0.0.0.0"][..], None, "--no-auth"),
        (&["--no-auth", "--auth-strategy", "api-key"], Some(key), "exclude each other"),
        (&["--auth-strategy", "api-key"], None, "API_KEY"),
        (&["--auth-strategy=api-key"], Some("123456789"), "at least 10 characters"),
        (&["--auth-strategy", "magic"], Some(key), "magic"),
        (&["--object-store", "r2"], None, "DURABLE_STREAMS_R2_BUCKET"),
        (&["--object-store", "r2", "--bucket", "b"], None, "DURABLE_STREAMS_R2_ACCOUNT_ID"),
        (&["--object-store", "s3"], None, "--bucket or set AWS_BUCKET"),
        (&["--bucket", "b"], None, "--object-store"),
        (&["--gc-grace", "1s"], None, "--gc-grace"),
        (&["--object-store", "tape"], None, "tape"),
        (&["--port", "70000"], None, "70000"),
        (&["--nonsense"], None, "--nonsense"),
        (&["--log", "=,=="], None, "--log"),
    ] {
        let dir = fresh_dir();
        let mut command = weir(args);
        command.env("DS_ROOT", &*dir);
        if let Some(api_key) = api_key {
            command.env("API_KEY", api_key);
        }
        let stderr = failure(&mut command);
        assert!(stderr.contains(says), "{args:?}: {stderr}");
        assert!(!stderr.contains(key) && !stderr.contains("123456789"), "the key: {stderr}");
        assert!(!dir.join("store").exists(), "nothing was created: {args:?}");
    }
}

#[test]
fn the_environment_works_as_in_the_peer() {
    let dir = fresh_dir();
    let mut command = weir(&["serve", "--object-store", "local", "--auth-strategy=api-key"]);
    command.env("DS_ROOT", &*dir).env("DS_HOST", "127.0.0.1").env("PORT", "0");
    command.env("API_KEY", "correct horse");
    let running = Running::start(&mut command);
    assert!(!running.announced.contains("horse"));
    assert!(running.ask("GET /health HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
    assert!(running.ask("GET /v1/streams HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 401 "));
    let good = "GET /v1/streams HTTP/1.1\r\nAuthorization: Bearer correct horse\r\n\r\n";
    assert!(running.ask(good).ends_with("\r\n\r\n[]"));
    assert!(dir.join("store").is_dir());
}

#[test]
fn help_explains_every_flag() {
    let Output { status, stdout, .. } = weir(&["serve", "--help"]).output().expect("runs");
    let help = String::from_utf8_lossy(&stdout);
    assert!(status.success());
    for flag in [
        "--host",
        "--port",
        "--data",
        "--object-store",
        "--bucket",
        "--bucket-prefix",
        "--bucket-dir",
        "--gc-grace",
        "--backlog-bytes",
        "--no-auth",
        "--auth-strategy",
        "--long-poll-timeout",
        "--long-poll-max",
        "--sse-recycle",
        "--sse-keepalive",
        "--offset-format",
        "--memtable-bytes",
        "--seal-age",
        "--body-max",
        "--read-bytes-max",
        "--public-url",
        "--allow-loopback-webhooks",
        "--log",
        "PORT",
        "DS_HOST",
        "DS_ROOT",
        "API_KEY",
    ] {
        assert!(help.contains(flag), "{flag} in {help}");
    }
}

/// Runs a command without a server: its exit code and what it said.
fn offline(args: &[&str], dir: &Path) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        weir(args).arg("--data").arg(dir).output().expect("runs");
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// The only file in a directory of the bucket, or the first of several.
fn object(dir: &Path, kind: &str) -> PathBuf {
    let mut names: Vec<_> = std::fs::read_dir(dir.join("bucket").join(kind))
        .expect("it is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    names.sort();
    names.swap_remove(0)
}

/// A server takes the stream `kept` with records, and is stopped gracefully.
fn keep_records(dir: &Path) {
    let running = start(dir);
    let create = "PUT /v1/stream/kept HTTP/1.1\r\nContent-Type: text/plain\r\n\
                  Content-Length: 7\r\n\r\nrecords";
    assert!(running.ask(create).starts_with("HTTP/1.1 201"));
    running.signal("TERM");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_store_that_is_lost_comes_back_from_its_bucket() {
    let dir = fresh_dir();
    keep_records(&dir);

    for args in [&["verify"][..], &["verify", "--deep"], &["bootstrap", "--check"]] {
        assert_eq!(offline(args, &dir).0, Some(0), "{args:?}: {:?}", offline(args, &dir));
    }
    let (code, said) = offline(&["bootstrap", "--check", "--json"], &dir);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &said["ok"], &said["restored"]), (Some(0), &true.into(), &false.into()));
    assert_eq!((&said["claimed"], &said["findings"]), (&().into(), &serde_json::json!([])));
    assert_eq!(said["restorable"]["newest"], said["generation"]);
    let (code, said) = offline(&["bootstrap"], &dir);
    assert_eq!(code, Some(1));
    assert!(said.contains("is not empty") && said.contains("--force"), "{said}");
    let (code, said) = offline(&["gc", "--dry-run"], &dir);
    assert_eq!(code, Some(0));
    assert!(said.contains("needed       2 objects"), "{said}");
    let (code, said) = offline(&["gc", "--dry-run", "--json"], &dir);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &said["needed"]["objects"]), (Some(0), &2.into()));

    std::fs::remove_dir_all(dir.join("store")).expect("it was there");
    let (code, said) = offline(&["bootstrap"], &dir);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("streams      1"), "{said}");
    assert!(!dir.join("store.recovering").exists());
    let running = start(&dir);
    let read = "GET /v1/stream/kept?offset=-1 HTTP/1.1\r\n\r\n";
    assert!(running.ask(read).ends_with("records"));
    running.signal("TERM");
    assert_eq!(running.end().0, Some(0));
    let (code, said) = offline(&["verify", "--deep", "--json"], &dir);
    assert_eq!(code, Some(0), "{said}");
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&said["ok"], &said["checked"]["streams"]), (&true.into(), &1.into()));

    // In place of the store that is there, by the server itself.
    let forced = ["--port", "0", "--bootstrap-from-r2", "--force"];
    let running = Running::start(weir(&forced).arg("--data").arg(&*dir));
    assert!(running.ask(read).ends_with("records"));
    drop(running);
    let aside = std::fs::read_dir(&*dir).expect("it is there").filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.to_string_lossy().starts_with("store.before-")
    });
    assert_eq!(aside.count(), 1);
}

#[test]
fn what_is_stored_is_shown_and_damage_is_named() {
    let dir = fresh_dir();
    keep_records(&dir);
    let inspect = |what: &str, file: &Path| {
        let output = weir(&["inspect", what]).arg(file).output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (what, kind, word) in [
        ("segment", "segments", "record stream=1 seq=0 "),
        ("rows", "rows", " name=kept content_type=text/plain "),
        ("manifest", "manifest", "recoveries         0\n"),
    ] {
        let file = object(&dir, kind);
        let (code, shown) = inspect(what, &file);
        assert!(code == Some(0) && shown.contains(word), "{what}: {shown}");
        let other = if what == "segment" { "rows" } else { "segment" };
        assert_eq!(inspect(other, &file).0, Some(1), "{what} is no {other}");
    }
    let (code, shown) = inspect("log", &dir.join("store/weir.sqlite"));
    assert!(code == Some(0) && shown.starts_with("database "), "{shown}");
    let lines = |args: &[&str], file: &Path| -> Vec<serde_json::Value> {
        let output = weir(args).arg(file).arg("--json").output().expect("runs");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        let shown = String::from_utf8(output.stdout).expect("text");
        shown.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    };
    let shown = lines(&["inspect", "segment"], &object(&dir, "segments"));
    assert_eq!((&shown[0]["kind"], &shown[0]["records"]), (&"segment".into(), &1.into()));
    assert_eq!((&shown[1]["kind"], &shown[1]["value"]), (&"record".into(), &"records".into()));
    let shown = lines(&["inspect", "segment", "--skip", "1"], &object(&dir, "segments"));
    assert_eq!(shown.len(), 1, "there is one record");
    let shown = lines(&["inspect", "unpublished"], &dir);
    assert!(shown.len() == 1 && shown[0]["published"].is_u64(), "all is published: {shown:?}");

    let segment = object(&dir, "segments");
    std::fs::remove_file(&segment).expect("it was there");
    let name = segment.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
    let (code, said) = offline(&["verify", "--remote"], &dir);
    assert!(code == Some(3) && said.contains(&name), "{said}");
    let (code, said) = offline(&["bootstrap", "--check"], &dir);
    assert!(code == Some(3) && said.contains(&name), "{said}");
    std::fs::remove_dir_all(dir.join("store")).expect("it was there");
    let (code, said) = offline(&["bootstrap"], &dir);
    assert!(code == Some(3) && said.contains("--partial") && said.contains(&name), "{said}");
    assert!(!dir.join("store").exists());
    let (code, said) = offline(&["bootstrap", "--partial"], &dir);
    assert!(code == Some(3) && said.contains("streams      1"), "{said}");
    let running = start(&dir);
    let read = "GET /v1/stream/kept?offset=-1 HTTP/1.1\r\n\r\n";
    assert!(running.ask(read).starts_with("HTTP/1.1 500"), "{}", running.ask(read));
}
