//! Each command once, as a developer would use it.

use weir_http::config::{ApiKey, Auth};

use crate::{
    command, end, lines, signal,
    support::{Server, fresh_dir},
    weir, weir_with,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_lives_from_create_to_rm() {
    let server = Server::start().await;
    let at = server.address;
    weir(at, &["create", "a/b"]).await.ok();
    let made = weir(at, &["create", "a/b", "--json"]).await;
    assert_eq!(made.json()["created"], false);
    assert_eq!(
        made.out.trim(),
        r#"{"closed":false,"content_type":"application/json","created":false,"stream":"a/b","tail":"0000000000000000_0000000000000000"}"#,
        "what is not known is no field"
    );
    let appended = weir(at, &["append", "a/b", "-m", r#"{"x":1.0e2}"#, "-m", "[[1],2]"]).await.ok();
    assert_eq!(weir(at, &["read", "a/b"]).await.ok(), "{\"x\":1.0e2}\n[1]\n2\n");
    let page = weir(at, &["read", "a/b", "--json"]).await.json();
    assert_eq!(page["offset"], appended.trim());
    assert_eq!(page["messages"][1][0], 1);
    let one = weir(at, &["read", "a/b", "--from", "0_2"]).await.ok();
    assert_eq!(one, "[1]\n2\n");
    assert_eq!(weir(at, &["tail", "a/b", "--since", "1h"]).await.ok().lines().count(), 3);
    let head = weir(at, &["head", "a/b", "--json"]).await.json();
    assert_eq!(head["records"], 3);
    assert!(head["created_at"].as_str().is_some_and(|it| it.starts_with("20")), "{head}");
    assert_eq!((&head["closed"], &head["tail"]), (&false.into(), &appended.trim().into()));
    assert_eq!(weir(at, &["ls", "a/"]).await.ok(), "a/b\n");
    assert_eq!(weir(at, &["ls", "b"]).await.ok(), "");
    assert_eq!(weir(at, &["ls", "--json"]).await.json()["name"], "a/b");
    assert_eq!(weir(at, &["details", "a/b", "--json"]).await.json()["stream"]["name"], "a/b");
    assert!(weir(at, &["details", "--json"]).await.json()["store"].is_object());

    let fork = ["fork", "a/b", "fork", "--at", "0_2", "--ttl", "1h", "--json"];
    let fork = weir(at, &fork).await.ok();
    assert!(!fork.contains("null"), "{fork}");
    assert_eq!(weir(at, &["read", "fork"]).await.ok(), "{\"x\":1.0e2}\n");
    assert_eq!(weir(at, &["head", "fork", "--json"]).await.json()["ttl"], "3600");
    weir(at, &["close", "fork"]).await.ok();
    weir(at, &["close", "fork"]).await.ok();
    let refused = weir(at, &["append", "fork", "-m", "1"]).await;
    assert!(refused.code == Some(5) && refused.err.contains("weir fork"), "{refused:?}");
    assert_eq!(refused.out, "", "nothing was done");
    let some = weir(at, &["rm", "never", "fork", "nor", "a/b", "--json"]).await;
    assert_eq!((some.code, some.out.lines().count()), (Some(4), 4), "{some:?}");
    assert_eq!(some.err.lines().count(), 2, "one line for each that is missing: {some:?}");
    assert_eq!(weir(at, &["ls"]).await.ok(), "", "the others are gone");
    assert_eq!(weir(at, &["rm", "a/b"]).await.code, Some(4));
    weir(at, &["rm", "--force", "a/b"]).await.ok();
    let missing = weir(at, &["read", "a/b"]).await;
    assert!(missing.code == Some(4) && missing.err.contains("weir create"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_is_one_record_or_lines_of_any_type() {
    let server = Server::start().await;
    let at = server.address;
    let input = lines(250);
    let args = ["append", "json", "--ndjson", "--batch", "100", "--create", "--json"];
    let done = weir_with(at, &args, &input).await.json();
    assert_eq!(done["lines"], 250);
    assert!(done["requests"].as_u64().expect("a count") >= 3, "{done}");
    assert_eq!(weir(at, &["read", "json"]).await.ok(), input);
    assert_eq!(weir(at, &["append", "json", "--lines"]).await.code, Some(0), "no line is fine");

    let text = "one\n\ntwo\r\nthree";
    let made = ["append", "text", "--lines", "--create", "--type", "text"];
    weir_with(at, &made, text).await.ok();
    assert_eq!(weir(at, &["read", "text"]).await.ok(), text);
    let whole = weir_with(at, &["append", "text", "-", "--json"], "\nall of it").await.json();
    assert_eq!((&whole["requests"], &whole["bytes"]), (&1.into(), &10.into()));
    let refused = weir_with(at, &["append", "text", "--ndjson"], "1\n").await;
    assert!(refused.code == Some(1) && refused.err.contains("--lines"), "{refused:?}");
    let json = weir(at, &["read", "text", "--json"]).await.json();
    assert_eq!(json["text"], format!("{text}\nall of it"));

    let dir = fresh_dir();
    let (one, two) = (dir.join("one"), dir.join("two"));
    std::fs::write(&one, [0, 255, 10]).expect("written");
    std::fs::write(&two, "end").expect("written");
    let (one, two) = (one.to_str().expect("text"), two.to_str().expect("text"));
    weir(at, &["append", "bytes", one, two, "--create", "--type", "binary", "--close"]).await.ok();
    let page = weir(at, &["read", "bytes", "--json"]).await.json();
    assert_eq!((&page["base64"], &page["closed"]), (&"AP8KZW5k".into(), &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_was_made_to_be_is_what_head_says() {
    let server = Server::start().await;
    let at = server.address;
    let (when, keep) = ("2127-01-01T00:00:00Z", "max-age=7d");
    let made = ["create", "a", "--expires-at", when, "--retention", keep, "--json"];
    assert_eq!(weir(at, &made).await.json()["expires_at"], "2127-01-01T00:00:00.000Z");
    let head = weir(at, &["head", "a", "--json"]).await.json();
    assert!(head["expires_at"].as_str().is_some_and(|it| it.starts_with("2127-01-01")), "{head}");
    assert_eq!(head["retention"], keep);
    let other = weir(at, &["create", "a", "--ttl", "1h"]).await;
    assert_eq!(other.code, Some(5), "another of this name: {other:?}");
    weir(at, &["append", "a", "-m", "1", "--key", "k"]).await.ok();
    weir(at, &["append", "a", "-m", "2"]).await.ok();
    assert_eq!(weir(at, &["read", "a", "--key", "k"]).await.ok(), "1\n");
    weir(at, &["fork", "a", "f", "--at", "0_0", "--plus", "1"]).await.ok();
    assert_eq!(weir(at, &["read", "f"]).await.ok(), "1\n");
    weir(at, &["fork", "a", "f2", "--at", "start", "--plus", "1"]).await.ok();
    assert_eq!(weir(at, &["read", "f2"]).await.ok(), "1\n");
    weir(at, &["fork", "a", "f3", "--at", "now"]).await.ok();
    assert_eq!(weir(at, &["read", "f3"]).await.ok(), "1\n2\n");
    weir(at, &["fork", "a", "f4", "--at", "now", "--plus", "0"]).await.ok();
    assert_eq!(weir(at, &["read", "f4"]).await.ok(), "1\n2\n");
    assert_eq!(weir(at, &["fork", "never", "g"]).await.code, Some(4));
    assert_eq!(weir(at, &["read", "a", "--from", "-1"]).await.ok(), "1\n2\n");
    weir(at, &["create", "c", "-m", "[1,2]", "--closed"]).await.ok();
    assert_eq!(weir(at, &["tail", "-f", "c", "--from", "start"]).await.ok(), "1\n2\n");
    assert_eq!(weir(at, &["read", "a", "--from", "nonsense"]).await.code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_a_subscription_is_pulled_once() {
    let server = Server::start().await;
    let at = server.address;
    let create = ["sub", "create", "jobs", "--pattern", "jobs/*", "--wake-stream", "wakes"];
    weir(at, &create).await.ok();
    weir(at, &create).await.ok();
    let other = ["sub", "create", "jobs", "--pattern", "x", "--wake-stream", "wakes"];
    assert_eq!(weir(at, &other).await.code, Some(5));
    for name in ["wakes", "jobs/a", "jobs/b"] {
        weir(at, &["create", name]).await.ok();
    }
    assert_eq!(weir(at, &["sub", "pull", "jobs"]).await.ok(), "", "there is no work");
    weir(at, &["append", "jobs/a", "-m", "[1,2]"]).await.ok();
    weir(at, &["append", "jobs/b", "-m", "3"]).await.ok();
    let looked = weir(at, &["sub", "pull", "jobs", "--no-ack"]).await.ok();
    assert_eq!(looked.lines().count(), 3, "{looked}");
    let pulled = weir(at, &["sub", "pull", "jobs", "--json"]).await.ok();
    let mut pulled: Vec<_> = pulled.lines().collect();
    pulled.sort_unstable();
    assert_eq!(
        pulled,
        [
            r#"{"stream":"jobs/a","message":1}"#,
            r#"{"stream":"jobs/a","message":2}"#,
            r#"{"stream":"jobs/b","message":3}"#
        ]
    );
    assert_eq!(weir(at, &["sub", "pull", "jobs"]).await.ok(), "", "it is done");
    let links = weir(at, &["sub", "ls", "jobs"]).await.ok();
    assert!(links.lines().any(|line| line.starts_with("jobs/a\t0")), "{links}");
    weir(at, &["sub", "rm", "jobs"]).await.ok();
    let missing = weir(at, &["sub", "ls", "jobs"]).await;
    assert!(missing.code == Some(4) && missing.err.contains("weir sub create"), "{missing:?}");
    weir(at, &create).await.ok();
    let gone = weir(at, &["sub", "rm", "jobs", "--json"]).await.json();
    assert_eq!(gone, serde_json::json!({ "subscription": "jobs", "deleted": true }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_stream_is_what_tail_prints() {
    let server = Server::start_with(|config| config.read_bytes_max = 2_000).await;
    let at = server.address;
    let input = lines(200);
    weir_with(at, &["append", "a", "--ndjson", "--create"], &input).await.ok();
    let last = |count: usize| -> String {
        input.lines().skip(200 - count).map(|line| format!("{line}\n")).collect()
    };
    assert_eq!(weir(at, &["tail", "a"]).await.ok(), last(10));
    assert_eq!(weir(at, &["tail", "a", "-n", "150"]).await.ok(), last(150));
    assert_eq!(weir(at, &["tail", "a", "-n", "0"]).await.ok(), "");
    assert_eq!(weir(at, &["tail", "a", "--from", "start"]).await.ok(), input);
    assert_eq!(weir(at, &["tail", "a", "--from", "start", "-n", "3"]).await.ok(), last(3));
    let page = weir(at, &["tail", "a", "-n", "2", "--json"]).await.json();
    assert_eq!(
        (&page["messages"][1]["n"], page["messages"].as_array().map(Vec::len)),
        (&199.into(), Some(2))
    );
    let text = "one\ntwo\nthree";
    weir_with(at, &["append", "t", "--lines", "--create", "--type", "text"], text).await.ok();
    assert_eq!(weir(at, &["tail", "t", "-n", "2"]).await.ok(), "two\nthree");
    weir(at, &["close", "a"]).await.ok();
    assert_eq!(weir(at, &["tail", "-f", "a", "-n", "1"]).await.ok(), last(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_one_line_of_json_too_and_say_what_to_do() {
    let server = Server::start_with(|config| config.body_bytes_max = 1_000).await;
    let at = server.address;
    let error = async |args: &[&str]| -> serde_json::Value {
        let failed = weir(at, args).await;
        assert!(failed.out.is_empty(), "{failed:?}");
        serde_json::from_str(&failed.err).unwrap_or_else(|_| panic!("{failed:?}"))
    };
    let missing = error(&["read", "a", "--json"]).await;
    assert_eq!(missing["error"]["code"], 4);
    assert!(missing["error"]["advice"].as_str().is_some_and(|it| it.contains("weir create")));
    weir(at, &["create", "a", "--type", "text"]).await.ok();
    let long = "x".repeat(1_001);
    let refused = error(&["append", "a", "-m", &long, "--json"]).await;
    assert!(
        refused["error"]["advice"].as_str().is_some_and(|it| it.contains("--batch")),
        "{refused}"
    );
    let dir = fresh_dir();
    let file = dir.join("in");
    std::fs::write(&file, format!("short\n{long}\n")).expect("written");
    let file = file.to_str().expect("text");
    let refused = weir(at, &["append", "a", file, "--lines", "--batch", "1"]).await;
    assert!(refused.code == Some(1) && refused.err.contains("line 2"), "{refused:?}");
    assert!(refused.err.contains("before it is appended"), "{refused:?}");
    let noted = weir(at, &["create", "a", "--type", "text", "--json"]).await;
    assert_eq!(noted.json()["created"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_no_json_says_of_which_stream_it_is() {
    let server = Server::start().await;
    let at = server.address;
    let create = ["sub", "create", "jobs", "--pattern", "jobs/*", "--wake-stream", "wakes"];
    weir(at, &create).await.ok();
    weir(at, &["create", "wakes"]).await.ok();
    weir(at, &["create", "jobs/a", "--type", "text", "-m", "one"]).await.ok();
    let pulled = weir(at, &["sub", "pull", "jobs", "--json"]).await.json();
    assert_eq!((&pulled["stream"], &pulled["text"]), (&"jobs/a".into(), &"one".into()));
    weir(at, &["append", "jobs/a", "-m", "two"]).await.ok();
    assert_eq!(weir(at, &["sub", "pull", "jobs"]).await.ok(), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_asked_for_and_taken() {
    let key = ApiKey::new("0123456789".to_owned()).expect("long enough");
    let server = Server::start_with(|config| config.auth = Auth::ApiKey(key)).await;
    let at = server.address;
    let refused = weir(at, &["create", "a"]).await;
    assert!(refused.code == Some(6) && refused.err.contains("WEIR_AUTH"), "{refused:?}");
    assert!(refused.err.contains("wants a key, and none was given"), "{refused:?}");
    let other = weir(at, &["create", "a", "--auth", "9876543210"]).await;
    assert!(other.code == Some(6) && other.err.contains("refuses the key"), "{other:?}");
    weir(at, &["create", "a", "--auth", "0123456789"]).await.ok();
    let mut by_environment = command(at, &["head", "a"]);
    let child = by_environment.env("WEIR_AUTH", "Bearer 0123456789").spawn().expect("starts");
    end(child).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blank_environment_gives_no_server_and_no_key() {
    let server = Server::start().await;
    let url = format!("http://{}", server.address);
    let bench = ["bench", "append", "--connections", "1", "--seconds", "0.1", "--warm-up", "0"];
    for blank in ["", " "] {
        for args in [&["create", "a"][..], &["append", "a", "-m", "1"], &["ls"], &bench] {
            let mut command = command(server.address, args);
            command.args(["--url", &url]).env("WEIR_URL", blank).env("WEIR_AUTH", blank);
            end(command.spawn().expect("starts")).await.ok();
        }
    }
    let mut nonsense = command(server.address, &["ls"]);
    let nonsense = nonsense.env("WEIR_URL", "nonsense").spawn().expect("starts");
    let nonsense = end(nonsense).await;
    assert!(nonsense.code == Some(2) && nonsense.err.contains("WEIR_URL"), "{nonsense:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_told_with_what_to_do() {
    let nobody = ([127, 0, 0, 1], 1).into();
    let began = std::time::Instant::now();
    for args in [&["ls"][..], &["tail", "-f", "a"], &["ls", "--retry-for", "50ms"]] {
        let failed = weir(nobody, args).await;
        assert!(failed.code == Some(7) && failed.err.contains("--url"), "{args:?}: {failed:?}");
        for part in ["weir local start", "weir serve", "--retry-for"] {
            assert!(failed.err.contains(part), "{part}: {failed:?}");
        }
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "it is not waited for");
    let url = weir(nobody, &["ls", "--url", "localhost:8080"]).await;
    assert!(url.code == Some(2) && url.err.contains("http://"), "{url:?}");
    assert_eq!(weir(nobody, &["append"]).await.code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_about_to_start_is_waited_for_if_that_is_wanted() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = free.local_addr().expect("bound");
    drop(free);
    let waiting = command(at, &["head", "a", "--retry-for", "60s"]).spawn().expect("starts");
    let listener = tokio::net::TcpListener::bind(at).await.expect("free again");
    let answer = async {
        let (mut socket, _) = listener.accept().await.expect("it comes");
        assert!(socket.read(&mut [0; 1_024]).await.expect("a request") > 0);
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        socket.write_all(answer).await.expect("it listens");
        socket
    };
    let (_socket, done) = tokio::join!(answer, end(waiting));
    assert_eq!(done.code, Some(4), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_what_waits_and_keeps_what_was_done() {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};

    let server = Server::start().await;
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    // One that waits for records, and one that waits for input.
    let mut follower =
        command(at, &["tail", "-f", "a", "--from", "start"]).spawn().expect("starts");
    let mut writer = command(at, &["append", "a", "--ndjson"]).spawn().expect("starts");
    let mut input = writer.stdin.take().expect("piped");
    input.write_all(b"1\n2\n").expect("it listens");
    let mut shown = BufReader::new(follower.stdout.take().expect("piped"));
    let (seen, mut shown) = tokio::task::spawn_blocking(move || {
        let mut lines = String::new();
        for _ in 0..2 {
            shown.read_line(&mut lines).expect("text");
        }
        (lines, shown)
    })
    .await
    .expect("it does not panic");
    assert_eq!(seen, "1\n2\n");
    signal(&writer, "INT");
    let written = end(writer).await;
    assert_eq!(
        (written.code, written.out.trim()),
        (Some(130), "0000000000000000_0000000000000004")
    );
    for part in ["2 lines of standard input are appended", "begin with line 3", "--producer-id"] {
        assert!(written.err.contains(part), "{part}: {written:?}");
    }
    drop(input);
    signal(&follower, "INT");
    let mut rest = String::new();
    shown.read_to_string(&mut rest).expect("text");
    assert_eq!((end(follower).await.code, rest.as_str()), (Some(130), ""));
}
