//! Commands that end before their end: what was done is said, and where to go on.

use std::{
    io::{BufRead as _, BufReader},
    time::Duration,
};

use crate::{
    command, end, lines,
    proxy::{Fault, Proxy},
    signal,
    support::Server,
    weir, weir_with,
};

/// Longer than two signals are one.
const ANOTHER_SIGNAL: Duration = Duration::from_millis(700);
/// The answers behind the second page.
static LOST: [usize; 200] = {
    let (mut numbers, mut at) = ([0; 200], 0);
    while at < numbers.len() {
        numbers[at] = at + 3;
        at += 1;
    }
    numbers
};

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_ended_says_where_to_go_on() {
    let server = Server::start().await;
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    let tail = weir(at, &["append", "a", "-m", "1"]).await.ok();
    for json in [false, true] {
        let args = ["tail", "-f", "a", "--from", "start", "--json"];
        let args = if json { &args[..] } else { &args[..5] };
        let mut child = command(at, args).spawn().expect("starts");
        let mut shown = BufReader::new(child.stdout.take().expect("piped"));
        let shown = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            shown.read_line(&mut line).expect("text");
            (line, shown)
        });
        let (line, shown) = shown.await.expect("it does not panic");
        assert!(line.contains('1'), "{line}");
        signal(&child, "INT");
        let done = end(child).await;
        drop(shown);
        assert_eq!(done.code, Some(130), "{done:?}");
        let expect = format!("go on with --from {}", tail.trim());
        if json {
            let note: serde_json::Value = serde_json::from_str(done.err.trim()).expect("JSON");
            assert_eq!((&note["note"], &note["offset"]), (&expect.into(), &tail.trim().into()));
        } else {
            assert_eq!(done.err, format!("weir: {expect}\n"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_server_goes_away_says_where_to_go_on() {
    let server = Server::start_with(|config| config.read_bytes_max = 2_000).await;
    let input = lines(200);
    weir_with(server.address, &["append", "a", "--ndjson", "--create"], &input).await.ok();
    let proxy = Proxy::start(server.address, Fault::Lose(&LOST)).await;
    let first = weir(proxy.address, &["read", "a", "--retry-for", "200ms"]).await;
    assert!(first.code == Some(7) && input.starts_with(&first.out), "{first:?}");
    let (_, from) = first.err.split_once("go on with --from ").expect("a place");
    let from = from.lines().next().expect("an offset");
    let rest = weir(server.address, &["read", "a", "--from", from]).await.ok();
    assert!(!first.out.is_empty() && !rest.is_empty());
    assert_eq!(first.out + &rest, input);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_end_says_what_was_acknowledged_by_then() {
    let server = Server::start().await;
    weir(server.address, &["create", "a"]).await.ok();
    // HEAD, one request, and the next one has no answer.
    let proxy = Proxy::start(server.address, Fault::Hold(2)).await;
    let args = ["append", "a", "--ndjson", "--batch", "1"];
    let mut child = command(proxy.address, &args).spawn().expect("starts");
    let mut input = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, b"1\n2\n3\n").expect("it listens");
    proxy.holds().await;
    signal(&child, "INT");
    signal(&child, "INT");
    // Real time: that is what tells one wish from two.
    tokio::time::sleep(ANOTHER_SIGNAL).await;
    assert!(child.try_wait().expect("a process").is_none(), "two at once are one");
    signal(&child, "INT");
    let done = end(child).await;
    drop(input);
    assert_eq!(done.code, Some(130), "{done:?}");
    for part in ["1 lines", "were acknowledged by then", "nobody knows"] {
        assert!(done.err.contains(part), "{part}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_appended_before_is_counted_in_lines() {
    let server = Server::start().await;
    let at = server.address;
    let args = ["append", "a", "--ndjson", "--create", "--producer-id", "p", "--batch", "2"];
    weir_with(at, &args, "1\n2\n3\n").await.ok();
    let again = weir_with(at, &args, "1\n2\n3\n4\n").await;
    assert!(again.err.contains("3 lines of this input were appended before"), "{again:?}");
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n2\n3\n4\n");
    // A line without its end is one, and one is not several.
    let args = ["append", "b", "--ndjson", "--create", "--producer-id", "p"];
    weir_with(at, &args, "1").await.ok();
    let again = weir_with(at, &args, "1\n2\n").await;
    assert!(again.err.contains("1 line of this input was appended before"), "{again:?}");
}
