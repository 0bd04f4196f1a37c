//! What goes wrong is told with what to do next, and what makes no sense is refused before it.

use crate::{
    proxy::{Fault, Proxy},
    support::{Server, fresh_dir},
    weir, weir_with, write,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_in_the_way_is_named() {
    let server = Server::start().await;
    let at = server.address;
    let missing = weir(at, &["fork", "source", "new"]).await;
    assert!(missing.code == Some(4) && missing.err.contains("source: not there"), "{missing:?}");
    weir(at, &["create", "a", "--type", "text", "--ttl", "1h"]).await.ok();
    let other = weir(at, &["create", "a"]).await;
    for part in ["there is text/plain", "ttl 3600 s", "asked for was application/json"] {
        assert!(other.code == Some(5) && other.err.contains(part), "{part}: {other:?}");
    }
    assert!(other.err.contains("weir head a") && other.err.contains("weir rm a"), "{other:?}");
    weir(at, &["create", "b"]).await.ok();
    let fork = weir(at, &["fork", "b", "a"]).await;
    assert!(fork.code == Some(5) && fork.err.contains("a fork of b"), "{fork:?}");
    assert!(fork.err.contains("a is there already and is not this fork"), "{fork:?}");
    assert!(fork.err.contains("weir rm a"), "{fork:?}");
    let sub = ["sub", "create", "s", "--stream", "a", "--wake-stream", "b"];
    weir(at, &sub).await.ok();
    let other = weir(at, &["sub", "create", "s", "--stream", "b", "--wake-stream", "b"]).await;
    assert!(other.code == Some(5) && other.err.contains("weir sub rm s"), "{other:?}");
    let elsewhere = format!("http://{at}/elsewhere/x");
    let list = weir(at, &["ls", "--url", &elsewhere]).await;
    assert!(list.code == Some(1) && list.err.contains("is the path in --url right?"), "{list:?}");

    let some = weir(at, &["rm", "a", "never", "b"]).await;
    assert!(some.code == Some(4) && some.err.contains("never: not there"), "{some:?}");
    assert!(some.err.contains("deleted: a, b"), "{some:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_of_what_was_deleted_is_told_from_a_name_that_is_kept() {
    let server = Server::start().await;
    let at = server.address;
    for args in [&["create", "a"][..], &["fork", "a", "b"], &["rm", "a"], &["create", "c"]] {
        weir(at, args).await.ok();
    }
    let gone = weir(at, &["fork", "a", "new"]).await;
    assert!(gone.code == Some(5) && gone.err.contains("a was deleted"), "{gone:?}");
    assert!(!gone.err.contains("weir rm new") && gone.err.contains("weir ls"), "{gone:?}");
    for args in [&["fork", "c", "a"][..], &["create", "a"]] {
        let kept = weir(at, args).await;
        assert!(kept.code == Some(5) && kept.err.contains("the name is taken"), "{kept:?}");
        assert!(
            kept.err.contains("take another name") && !kept.err.contains("weir rm"),
            "{kept:?}"
        );
    }
    let beyond = weir(at, &["fork", "c", "new", "--at", "0_99"]).await;
    assert!(beyond.code == Some(1) && beyond.err.contains("weir head c"), "{beyond:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_past_is_refused_before_anything_is_made() {
    let server = Server::start().await;
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    for args in [&["create", "b"][..], &["fork", "a", "b"]] {
        let args = [args, &["--expires-at", "2020-01-01T00:00:00Z"]].concat();
        let refused = weir(at, &args).await;
        assert!(refused.code == Some(2) && refused.err.contains("is past"), "{refused:?}");
        assert!(refused.err.contains("--ttl"), "{refused:?}");
    }
    assert_eq!(weir(at, &["ls"]).await.ok(), "a\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_of_nothing_is_told_to_be_empty() {
    let (server, dir) = (Server::start().await, fresh_dir());
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    let file = write(&dir, "in", "");
    for (args, what) in [
        (&["append", "a"][..], "the standard input was empty"),
        (&["append", "a", "--ndjson"], "the standard input was empty"),
        (&["append", "a", &file], &*format!("{file} is empty")),
    ] {
        let done = weir(at, args).await;
        assert!(done.code == Some(0) && done.err.contains(what), "{args:?}: {done:?}");
        assert!(done.err.contains("-m TEXT"), "{done:?}");
    }
    for args in [["append", "a", "-m", ""], ["create", "new", "-m", ""]] {
        let refused = weir(at, &args).await;
        assert!(refused.code == Some(2) && refused.err.contains("nothing in -m"), "{refused:?}");
    }
    assert_eq!(weir(at, &["head", "new"]).await.code, Some(4), "nothing was made");
    let closed = weir(at, &["append", "a", "--close"]).await;
    assert!(closed.code == Some(0) && closed.err.is_empty(), "{closed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_were_not_cut_are_seen_for_what_they_are() {
    let (server, dir) = (Server::start().await, fresh_dir());
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    let file = write(&dir, "in", "{\"n\":1}\n{\"n\":2}\n");
    let refused = weir(at, &["append", "a", &file]).await;
    assert!(refused.code == Some(1) && refused.err.contains("use --ndjson"), "{refused:?}");
    assert!(refused.err.contains(&file), "{refused:?}");
    let word = weir_with(at, &["append", "a"], "hello").await;
    assert!(word.code == Some(1) && word.err.contains("--type text"), "{word:?}");
    assert!(!word.err.contains("--ndjson"), "{word:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_line_that_makes_no_sense_is_not_carried_out() {
    let server = Server::start().await;
    let at = server.address;
    for (args, words) in [
        (&["append", "a", "--batch", "5"][..], "--ndjson"),
        (&["append", "a", "-m", "1", "--batch", "5"], "--batch"),
        (&["sub", "ls"], "the protocol has no list of subscriptions"),
        (&["sub", "create", "s", "--webhook", "http://a"], "--stream"),
        (&["sub", "create", "s", "--stream", "a"], "--wake-stream"),
        (&["fork", "a", "b", "--plus", "1"], "--at"),
        (&["head", ""], "a stream has a name"),
        (&["create", "http://h/v1/stream/a"], "--url http://HOST:PORT NAME"),
        (&["create", "a", "--expires-at", "tomorrow"], "2027-01-01T00:00:00Z"),
        (&["create", "a", "--retention", "foo"], "max-age=7d"),
        (&["create", "a", "--ttl", "0s"], "more than no time"),
        (&["rm", "a", "/"], "a stream has a name"),
        (&["head", "a", "--url", "nonsense"], "http://HOST:PORT"),
        (&["head", "a", "--auth", "\u{e4}"], "visible ASCII"),
        (&["bench", "append", "--seconds", "0"], "more than no time"),
        (&["bench", "append", "--url", "nonsense"], "http://HOST:PORT"),
    ] {
        let refused = weir(at, args).await;
        assert!(refused.code == Some(2) && refused.err.contains(words), "{args:?}: {refused:?}");
    }
    assert_eq!(weir(at, &["ls"]).await.ok(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_offsets_and_names_that_are_none_are_told_with_those_that_are_some() {
    let (server, dir) = (Server::start().await, fresh_dir());
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    let missing = dir.join("missing");
    let missing = missing.to_str().expect("text");
    let out = dir.join("out");
    let out = out.to_str().expect("text");
    for (args, parts) in [
        (&["append", "a", missing][..], &["is no file", "-m TEXT"][..]),
        (&["import", "a", missing], &["is no file", "weir import STREAM FILE"]),
        (&["create", "__ds/x"], &["the server's own", "take another"]),
        (&["read", "a", "--from", "bogus"], &["weir head a", "weir append"]),
        (&["tail", "-f", "a", "--from", "bogus"], &["weir head a", "weir append"]),
        (&["export", "a", out, "--from", "bogus"], &["weir head a", "weir append"]),
    ] {
        let refused = weir(at, args).await;
        assert!(refused.code != Some(0) && refused.out.is_empty(), "{args:?}: {refused:?}");
        for part in parts {
            assert!(refused.err.contains(part), "{part}: {refused:?}");
        }
    }
    assert_eq!(weir(at, &["ls"]).await.ok(), "a\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_of_the_server_may_stand_before_the_command() {
    let server = Server::start().await;
    let nobody = ([127, 0, 0, 1], 1).into();
    let url = format!("http://{}", server.address);
    weir(nobody, &["--url", &url, "create", "a"]).await.ok();
    let head = weir(nobody, &[&*format!("--url={url}"), "--json", "head", "a"]).await;
    assert_eq!(head.json()["stream"], "a");
    let other = weir(nobody, &["--port", "1", "head", "a"]).await;
    assert_eq!(other.code, Some(2), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_with_a_large_body_is_told_to_be_that() {
    let (server, dir) = (Server::start().await, fresh_dir());
    weir(server.address, &["create", "a", "--type", "text"]).await.ok();
    let file = write(&dir, "in", &"x".repeat(8 << 20));
    let proxy = Proxy::start(server.address, Fault::Full(1 << 20)).await;
    let broken = weir(proxy.address, &["append", "a", &file, "--retry-for", "100ms"]).await;
    assert!(matches!(broken.code, Some(7 | 8)), "{broken:?}");
    for part in ["a proxy that takes no request of this size", "--batch"] {
        assert!(broken.err.contains(part), "{part}: {broken:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_that_can_not_begin_says_why_once_and_what_to_do() {
    let nobody = ([127, 0, 0, 1], 1).into();
    let failed = weir(nobody, &["bench", "append"]).await;
    assert_eq!(failed.code, Some(7), "{failed:?}");
    assert!(failed.err.contains("weir local start"), "{failed:?}");
    assert!(failed.err.contains("cannot create /v1/stream/bench-"), "{failed:?}");
    assert_eq!(failed.err.matches("refused").count(), 1, "the reason once: {failed:?}");
    let server = Server::start_with(|config| config.body_bytes_max = 1_000).await;
    let args = ["bench", "append", "--bytes", "2KiB", "--seconds", "0.2", "--json"];
    let large = weir(server.address, &args).await;
    let error: serde_json::Value = serde_json::from_str(&large.err).expect("one line of JSON");
    assert_eq!(error["error"]["code"], 1, "{error}");
    assert!(error["error"]["advice"].as_str().is_some_and(|it| it.contains("--bytes")), "{error}");
}
