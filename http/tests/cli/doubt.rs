//! What may have been done: nothing is taken back that is somebody else's, nothing is said for sure
//! that nobody knows.

use std::{io::Write as _, sync::atomic::Ordering};

use crate::{
    command, end, lines,
    proxy::{Fault, Proxy},
    script::{CUT, Said, Script},
    signal,
    support::{Server, fresh_dir, until},
    weir, weir_with, write,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_input_has_made_nothing_and_takes_nothing_back() {
    let server = Server::start().await;
    let at = server.address;
    for bad_line in [true, false] {
        let proxy = Proxy::start(at, Fault::Lose(&[])).await;
        let args = ["append", "a", "--create", "--ndjson"];
        let mut waiting = command(proxy.address, &args).spawn().expect("starts");
        let mut input = waiting.stdin.take().expect("piped");
        until("it has asked", || async { proxy.answers.load(Ordering::SeqCst) > 0 }).await;
        weir(at, &["append", "a", "--create", "-m", "1"]).await.ok();
        if bad_line {
            input.write_all(b"x\n").expect("it listens");
        } else {
            signal(&waiting, "INT");
        }
        let ended = end(waiting).await;
        drop(input);
        assert_eq!(ended.code, Some(if bad_line { 1 } else { 130 }), "{ended:?}");
        assert_eq!(ended.out, "", "nothing was appended");
        assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n");
        weir(at, &["rm", "a"]).await.ok();
    }
    // An input that has come to its end makes the stream all the same.
    weir(at, &["append", "a", "--create", "--ndjson"]).await.ok();
    weir(at, &["head", "a"]).await.ok();
}

/// A stream that is made, and whose first record is refused.
fn refused(line: &str, before: usize, tail: &'static str) -> Said {
    match (line.split(' ').next(), before) {
        (Some("HEAD"), 0) => ("404 Not Found", "", ""),
        (Some("HEAD"), _) => ("200 OK", tail, ""),
        (Some("PUT"), _) => ("201 Created", "Stream-Next-Offset: 0_0\r\n", ""),
        (Some("GET"), _) => ("200 OK", "", r#"{"stream":{"created_at":"2026-11-20"}}"#),
        (Some("POST"), _) => ("400 Bad Request", "", "no such thing"),
        _ => ("204 No Content", "", ""),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_others_have_begun_to_use_is_not_taken_back() {
    let used = Script::start(|line, before| {
        refused(line, before, "Content-Type: application/json\r\nStream-Next-Offset: 0_5\r\n")
    });
    let used = used.await;
    let args = ["append", "a", "--create", "-m", "x"];
    let kept = weir(used.address, &args).await;
    assert!(kept.code == Some(1) && kept.err.contains("a was made and stays"), "{kept:?}");
    assert_eq!((used.asked("POST"), used.asked("DELETE")), (1, 0), "{kept:?}");
    let own = Script::start(|line, before| {
        refused(line, before, "Content-Type: application/json\r\nStream-Next-Offset: 0_0\r\n")
    });
    let own = own.await;
    let gone = weir(own.address, &args).await;
    assert_eq!((gone.code, own.asked("DELETE")), (Some(1), 1), "{gone:?}");
    // Somebody may append after it has looked: then the server says so.
    assert_eq!(own.sent("DELETE", "stream-expected-offset"), ["0_0"]);
    let late = Script::start(|line, before| match line.split(' ').next() {
        Some("DELETE") => ("409 Conflict", "Stream-Next-Offset: 0_1\r\n", "it ends elsewhere"),
        _ => refused(line, before, "Content-Type: application/json\r\nStream-Next-Offset: 0_0\r\n"),
    });
    let late = late.await;
    let kept = weir(late.address, &args).await;
    assert!(kept.code == Some(1) && kept.err.contains("others append to it"), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_made_a_stream_is_not_said_after_a_lost_answer() {
    let server = Server::start().await;
    let at = server.address;
    let proxy = Proxy::start(at, Fault::Lose(&[0])).await;
    let made = weir(proxy.address, &["create", "a", "-m", "1"]).await;
    assert!(made.code == Some(8) && made.err.contains("weir read a"), "{made:?}");
    assert!(!made.err.contains("was not appended"), "{made:?}");
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n");
    let proxy = Proxy::start(at, Fault::Lose(&[0])).await;
    let made = weir(proxy.address, &["create", "b", "--json"]).await;
    let fact = made.json();
    assert!(made.code == Some(0) && fact.get("created").is_none(), "{made:?}");
    assert_eq!(fact["stream"], "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_whose_answer_was_lost_are_told_from_those_that_are_stored() {
    let (server, dir) = (Server::start().await, fresh_dir());
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    let file = write(&dir, "in", &lines(6));
    let args = ["append", "a", &file, "--ndjson", "--batch", "2"];
    // HEAD, then requests.
    let proxy = Proxy::start(at, Fault::Lose(&[2])).await;
    let lost = weir(proxy.address, &args).await;
    let told = format!(
        "lines 1 to 2 of {file} are appended, lines 3 to 4 of {file} may be: `weir head a`"
    );
    assert!(lost.code == Some(8) && lost.err.contains(&told), "{lost:?}");
    assert!(!lost.err.contains("is the rest"), "{lost:?}");
    let proxy = Proxy::start(at, Fault::Lose(&[1])).await;
    let lost = weir(proxy.address, &args).await;
    let told = format!("weir: lines 1 to 2 of {file} may be");
    assert!(lost.code == Some(8) && lost.err.contains(&told), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_interrupt_ends_what_only_asks() {
    let server = Server::start().await;
    weir(server.address, &["create", "a"]).await.ok();
    let file = fresh_dir().join("out");
    let file = file.to_str().expect("text");
    for args in [&["head", "a"][..], &["ls"], &["read", "a"], &["export", "a", file]] {
        let proxy = Proxy::start(server.address, Fault::Hold(0)).await;
        let child = command(proxy.address, args).spawn().expect("starts");
        proxy.holds().await;
        signal(&child, "INT");
        let ended = end(child).await;
        assert_eq!((ended.code, &*ended.err), (Some(130), ""), "{args:?}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_breaks_off_is_told_from_a_server_that_is_away() {
    let server = Script::start(|line, _| match line.split(' ').next() {
        Some("HEAD") => ("200 OK", "Content-Type: text/plain\r\nStream-Next-Offset: 9\r\n", ""),
        _ => (CUT, "Content-Type: text/plain\r\nStream-Next-Offset: 9\r\n", "part"),
    });
    let server = server.await;
    let args = ["read", "a", "--retry-for", "300ms"];
    let broken = weir(server.address, &args).await;
    assert!(broken.code == Some(7) && broken.out.is_empty(), "{broken:?}");
    for part in ["breaks off", "--read-bytes-max", "--retry-for"] {
        assert!(broken.err.contains(part), "{part}: {broken:?}");
    }
    assert!(!broken.err.contains("weir local start"), "{broken:?}");
    assert!(server.asked("GET") > 1, "it is asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_another_worker_has_is_waited_for() {
    let server = Script::start(|_, before| match before {
        0 => {
            let body = r#"{"error":{"code":"ALREADY_CLAIMED","message":"claimed by x"}}"#;
            ("409 Conflict", "Content-Type: application/json\r\n", body)
        }
        _ => {
            let body = r#"{"error":{"code":"NO_PENDING_WORK","message":"nothing"}}"#;
            ("409 Conflict", "Content-Type: application/json\r\n", body)
        }
    });
    let server = server.await;
    let at = server.address;
    let busy = weir(at, &["sub", "pull", "s"]).await;
    assert!(busy.code == Some(5) && busy.err.contains("lease"), "{busy:?}");
    assert!(!busy.err.contains("weir sub rm"), "{busy:?}");
    let worker = command(at, &["sub", "pull", "other", "-f"]).spawn().expect("starts");
    let claim = "POST /v1/stream/__ds/subscriptions/other/claim";
    until("it asks again", || async { server.asked(claim) > 1 }).await;
    signal(&worker, "INT");
    assert_eq!(end(worker).await.code, Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_while_the_reader_of_the_output_is_slow() {
    let server = Server::start().await;
    let at = server.address;
    let create = ["sub", "create", "jobs", "--pattern", "jobs/*", "--wake-stream", "wakes"];
    weir(at, &[&create[..], &["--lease", "1s"]].concat()).await.ok();
    for name in ["wakes", "jobs/a"] {
        weir(at, &["create", name]).await.ok();
    }
    // More than a pipe holds.
    weir_with(at, &["append", "jobs/a", "--ndjson"], &lines(5_000)).await.ok();
    let proxy = Proxy::start(at, Fault::Lose(&[0])).await;
    let lost = weir(proxy.address, &["sub", "pull", "jobs"]).await;
    assert!(lost.code == Some(8) && lost.err.contains("weir sub ls jobs"), "{lost:?}");
    until("the lease has ended", || async {
        !weir(at, &["sub", "pull", "jobs", "--no-ack"]).await.out.is_empty()
    })
    .await;
    // The claim, HEAD and a page, all of which it prints; nobody reads that.
    let proxy = Proxy::start(at, Fault::Hold(3)).await;
    let mut slow = command(proxy.address, &["sub", "pull", "jobs"]).spawn().expect("starts");
    proxy.holds().await;
    slow.kill().expect("it runs");
    end(slow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_followed_keeps_its_line_breaks() {
    use std::io::{BufRead as _, BufReader, Read as _};

    let server = Server::start().await;
    let at = server.address;
    weir(at, &["create", "a", "--type", "text"]).await.ok();
    weir(at, &["append", "a", "-m", "first\n"]).await.ok();
    let args = ["tail", "-f", "a", "--from", "start"];
    let mut follower = command(at, &args).spawn().expect("starts");
    let mut shown = BufReader::new(follower.stdout.take().expect("piped"));
    let shown = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        shown.read_line(&mut line).expect("text");
        assert_eq!(line, "first\n");
        shown
    });
    let mut shown = shown.await.expect("it does not panic");
    weir(at, &["append", "a", "-m", "one\r\ntwo\rthree\r\n", "--close"]).await.ok();
    let rest = tokio::task::spawn_blocking(move || {
        let mut rest = String::new();
        shown.read_to_string(&mut rest).expect("text");
        rest
    });
    assert_eq!(rest.await.expect("it does not panic"), "one\r\ntwo\rthree\r\n");
    end(follower).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_takes_no_more_is_named() {
    let server = Server::start().await;
    weir(server.address, &["create", "a", "-m", "1"]).await.ok();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("it is there");
    let reader = command(server.address, &["read", "a"]).stdout(full).spawn().expect("starts");
    let failed = end(reader).await;
    assert!(failed.code == Some(1) && failed.err.contains("the standard output"), "{failed:?}");
}
