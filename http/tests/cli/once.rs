//! Exactly once, and of which input: what has grown, what is another, what has a bad line.

use std::io::{BufRead as _, BufReader, Write as _};

use crate::{
    command, end,
    liar::{Liar, Lie},
    lines,
    proxy::{Fault, Proxy},
    signal,
    support::{Server, fresh_dir},
    weir, weir_with, write,
};

const APPEND: [&str; 5] = ["append", "a", "--ndjson", "--producer-id", "p"];

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_has_grown_is_gone_on_with_and_another_is_refused() {
    let server = Server::start().await;
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    weir_with(at, &APPEND, "1\n2\n").await.ok();
    weir_with(at, &APPEND, "1\n2\n3\n").await.ok();
    let batch = [&APPEND[..], &["--batch", "1", "--json"]].concat();
    let done = weir_with(at, &batch, "1\n2\n3\n4\n5").await;
    assert_eq!(done.json()["lines"], 2, "{done:?}");
    for other in ["1\n2\n", "1\n7\n3\n4\n5\n", "7\n", "1\n2\n3\n4\n56\n", "1\n2\n\n3\n4\n5\n"] {
        let refused = weir_with(at, &APPEND, other).await;
        assert!(refused.code == Some(1) && refused.err.contains("not the input"), "{refused:?}");
    }
    weir_with(at, &APPEND, "1\n2\n3\n4\n5\n6\n").await.ok();
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n2\n3\n4\n5\n6\n");
    // A stream that was made again knows nothing of it, and neither does another stream.
    weir(at, &["rm", "a"]).await.ok();
    weir(at, &["create", "a"]).await.ok();
    weir_with(at, &APPEND, "1\n2\n").await.ok();
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_not_what_they_are_together() {
    let (server, dir) = (Server::start().await, fresh_dir());
    let at = server.address;
    let (one, two) = (write(&dir, "one", "1\n"), write(&dir, "two", "2"));
    let both = write(&dir, "both", "1\n2");
    let append = |files: &[&str]| {
        let args = [&["append", "a", "--create", "--type", "text", "--producer-id", "p"], files];
        args.concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = async |files: &[&str]| {
        let args = append(files);
        weir(at, &args.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    run(&[&one]).await.ok();
    run(&[&one, &two]).await.ok();
    run(&[&one, &two]).await.ok();
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n2");
    assert_eq!(run(&[&both]).await.code, Some(1));
    write(&dir, "two", "23");
    assert_eq!(run(&[&one, &two]).await.code, Some(1), "a record that has grown is another");
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_killed_is_started_again_with_whatever_batch() {
    let server = Server::start().await;
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    let input = lines(100);
    // HEAD, the details, and four requests, of which the last is stored unheard.
    let proxy = Proxy::start(at, Fault::Hold(5)).await;
    let args = |batch| [&APPEND[..], &["--batch", batch]].concat();
    let mut first = command(proxy.address, &args("10")).spawn().expect("starts");
    let mut pipe = first.stdin.take().expect("piped");
    pipe.write_all(input.as_bytes()).expect("it listens");
    proxy.holds().await;
    signal(&first, "KILL");
    end(first).await;
    let held = weir(at, &["read", "a"]).await.ok();
    assert!(held.lines().count() == 40 && input.starts_with(&held), "{held}");
    proxy.heal();
    let again = weir_with(proxy.address, &args("7"), &input).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(weir(at, &["read", "a"]).await.ok(), input);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_a_number_is_stored_once_and_the_next_has_the_next() {
    let server = Server::start().await;
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    let numbered = |text: &'static str, number: &'static str| {
        ["append", "a", "-m", text, "--producer-id", "p", "--producer-seq", number]
    };
    // HEAD, and the message, which is stored unheard.
    let proxy = Proxy::start(at, Fault::Hold(1)).await;
    let first = command(proxy.address, &numbered("1", "0")).spawn().expect("starts");
    proxy.holds().await;
    signal(&first, "KILL");
    end(first).await;
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n");
    let again = weir(at, &numbered("1", "0")).await;
    assert!(again.code == Some(0) && again.err.contains("--producer-seq 1"), "{again:?}");
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n");
    // The same text is another message when it has another number.
    let proxy = Proxy::start(at, Fault::Lose(&[1])).await;
    let second = weir(proxy.address, &numbered("1", "1")).await;
    assert!(second.code == Some(0) && second.err.is_empty(), "{second:?}");
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n1\n");
    let left_out = weir(at, &numbered("2", "3")).await;
    assert!(left_out.code == Some(5), "{left_out:?}");
    assert!(left_out.err.contains("the next one has --producer-seq 2"), "{left_out:?}");
    let several = [&numbered("5", "2")[..], &["-m", "6", "--json"]].concat();
    for skipped in [0, 2] {
        let done = weir(at, &several).await;
        assert_eq!((done.code, &done.json()["skipped"]), (Some(0), &skipped.into()), "{done:?}");
    }
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n1\n5\n6\n");
    // Its requests were not made of any input that this machine knows.
    let input = weir_with(at, &APPEND, "7\n").await;
    assert!(input.code == Some(1) && input.err.contains("another --producer-id"), "{input:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_producer_without_a_number_is_refused_with_what_to_do() {
    let server = Server::start().await;
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    for (more, words) in [
        (&["-m", "1", "--producer-id", "p"][..], "--producer-seq N"),
        (&["-m", "1", "--producer-seq", "0"], "--producer-id"),
        (&["--producer-id", "p", "--producer-seq", "0"], "--message"),
        (&["-m", "1", "--producer-id", "p", "--producer-seq", "0", "--close"], "--close"),
        (
            &["-m", "1", "--producer-id", "p", "--producer-seq", "9007199254740992"],
            "--producer-seq",
        ),
    ] {
        let refused = weir(at, &[&["append", "a"][..], more].concat()).await;
        assert!(refused.code == Some(2) && refused.err.contains(words), "{more:?}: {refused:?}");
    }
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "");
    // Who has lost an answer is told of it.
    let proxy = Proxy::start(at, Fault::Lose(&[1])).await;
    let lost = weir(proxy.address, &["append", "a", "-m", "1"]).await;
    assert_eq!(lost.code, Some(8), "{lost:?}");
    assert!(lost.err.contains("--producer-id ID --producer-seq 0"), "{lost:?}");
    // The first of several is stored, and the second is no JSON.
    let part = weir(at, &["append", "a", "-m", "2", "-m", "x"]).await;
    assert!(part.code == Some(1) && part.err.contains("--producer-seq N"), "{part:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_with_a_key_are_a_producers_too() {
    let server = Server::start().await;
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    let red = [&APPEND[..], &["--key", "red"]].concat();
    for input in ["1\n", "1\n2\n", "1\n2\n"] {
        weir_with(at, &red, input).await.ok();
    }
    assert_eq!(weir(at, &["read", "a", "--key", "red"]).await.ok(), "1\n2\n");
    // With another key they would be others.
    let blue = [&APPEND[..], &["--key", "blue"]].concat();
    for other in [&APPEND[..], &blue[..]] {
        let refused = weir_with(at, other, "1\n2\n").await;
        assert!(refused.code == Some(1), "{refused:?}");
        assert!(refused.err.contains("another --producer-id"), "{refused:?}");
    }
    let green = ["append", "a", "-m", "3", "--key", "green", "--producer-id", "q"];
    for _ in 0..2 {
        weir(at, &[&green[..], &["--producer-seq", "0"]].concat()).await.ok();
    }
    assert_eq!(weir(at, &["read", "a", "--key", "green"]).await.ok(), "3\n");
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n2\n3\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_named_and_costs_nothing_when_it_is_mended() {
    let (server, dir) = (Server::start().await, fresh_dir());
    let at = server.address;
    let bad = lines(30).replacen("\"n\":20,", "\"n\":,", 1);
    let file = write(&dir, "in", &bad);
    let import = ["import", "new", &file, "--batch", "10"];
    let refused = weir(at, &import).await;
    assert!(refused.code == Some(1) && refused.err.contains("line 21"), "{refused:?}");
    assert_eq!(weir(at, &["head", "new"]).await.code, Some(4), "nothing is made for it");
    write(&dir, "in", &lines(30));
    weir(at, &import).await.ok();
    weir(at, &import).await.ok();
    assert_eq!(weir(at, &["read", "new"]).await.ok(), lines(30));

    // What comes by a pipe can't be looked at before.
    weir(at, &["create", "a"]).await.ok();
    let refused = weir_with(at, &APPEND, &bad).await;
    assert!(refused.code == Some(1) && refused.err.contains("line 21"), "{refused:?}");
    assert_eq!(weir(at, &["read", "a"]).await.ok(), lines(20));
    weir_with(at, &APPEND, &lines(30)).await.ok();
    assert_eq!(weir(at, &["read", "a"]).await.ok(), lines(30));
    for two in ["1,2\n", "1]\n[2\n"] {
        let refused = weir_with(at, &["append", "a", "--ndjson"], two).await;
        assert!(refused.code == Some(1) && refused.err.contains("line 1 "), "{refused:?}");
    }
    // A stream that was made for what is refused does not stay.
    let made = weir_with(at, &["append", "made", "--create", "--ndjson"], "x\n").await;
    assert_eq!((made.code, weir(at, &["head", "made"]).await.code), (Some(1), Some(4)));
    let made = weir(at, &["append", "made", "--create", "-m", "x"]).await;
    assert_eq!((made.code, weir(at, &["head", "made"]).await.code), (Some(1), Some(4)));
    assert!(made.err.contains("message 1"), "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupt_cuts_off_is_gone_on_with() {
    let server = Server::start().await;
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    let mut writer = command(at, &APPEND).spawn().expect("starts");
    let mut input = writer.stdin.take().expect("piped");
    let mut follower = command(at, &["tail", "-f", "a", "-n", "9"]).spawn().expect("starts");
    let mut shown = BufReader::new(follower.stdout.take().expect("piped"));
    input.write_all(b"1\n2\n3").expect("it listens");
    // A batch is not waited for: what came is sent.
    let seen = tokio::task::spawn_blocking(move || {
        let mut lines = String::new();
        for _ in 0..2 {
            shown.read_line(&mut lines).expect("text");
        }
        lines
    });
    assert_eq!(seen.await.expect("it does not panic"), "1\n2\n");
    signal(&writer, "INT");
    let ended = end(writer).await;
    assert_eq!(ended.code, Some(130));
    assert!(ended.err.contains("goes on"), "{ended:?}");
    drop(input);
    follower.kill().expect("it runs");
    end(follower).await;
    let again = [&APPEND[..], &["--json"]].concat();
    let again = weir_with(at, &again, "1\n2\n3\n4\n").await;
    assert_eq!(again.json()["lines"], 2, "{again:?}");
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n2\n3\n4\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_stream_is_done_only_for_who_closed_it() {
    let (server, dir) = (Server::start().await, fresh_dir());
    let at = server.address;
    let (file, other) = (write(&dir, "in", &lines(25)), write(&dir, "other", &lines(26)));
    let import = |file: &str| ["import", "i", file, "--close", "--batch", "10"].map(str::to_owned);
    let run = async |file: &str| {
        let args = import(file);
        weir(at, &args.each_ref().map(String::as_str)).await
    };
    run(&file).await.ok();
    let again = run(&file).await;
    assert!(again.code == Some(0) && again.err.contains("closed already"), "{again:?}");
    assert_eq!(run(&other).await.code, Some(5));
    assert_eq!(weir(at, &["import", "i", &other]).await.code, Some(5));

    weir(at, &["create", "a"]).await.ok();
    let close = [&APPEND[..], &["--close"]].concat();
    weir_with(at, &close, "1\n2\n").await.ok();
    let again = weir_with(at, &close, "1\n2\n").await;
    assert!(again.code == Some(0) && again.err.contains("closed already"), "{again:?}");
    assert_eq!(weir_with(at, &close, "1\n2\n3\n").await.code, Some(5));
    assert_eq!(weir_with(at, &close, "7\n").await.code, Some(1), "it is another input");
    let strange = ["append", "a", "--ndjson", "--producer-id", "q", "--close"];
    assert_eq!(weir_with(at, &strange, "1\n2\n").await.code, Some(5));
    assert_eq!(weir(at, &["append", "a", "-m", "1", "--close"]).await.code, Some(5));
    weir(at, &["close", "a"]).await.ok();
    let made = weir(at, &["create", "a", "-m", "3", "--closed"]).await;
    assert!(made.code == Some(5) && made.err.contains("append"), "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_somebody_else_has_used_is_refused() {
    let server = Server::start().await;
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    weir_with(at, &APPEND, "1\n").await.ok();
    // On another machine.
    let dir = fresh_dir();
    let mut elsewhere = command(at, &APPEND);
    let mut elsewhere = elsewhere.env("WEIR_STATE_DIR", dir.join("state")).spawn().expect("starts");
    elsewhere.stdin.take().expect("piped").write_all(b"2\n").expect("it listens");
    let refused = end(elsewhere).await;
    assert!(
        refused.code == Some(1) && refused.err.contains("another --producer-id"),
        "{refused:?}"
    );
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_producers_stores_nothing_that_is_not_of_the_input() {
    let server = Liar::start(Lie::None).await;
    let args = ["append", "a", "--lines", "--batch", "1", "--producer-id", "p"];
    let refused = weir_with(server, &args, "one\ntwo\n").await;
    assert!(refused.code == Some(1) && refused.err.contains("no producers"), "{refused:?}");
    assert_eq!(weir(server, &["read", "a", "--raw"]).await.ok(), "one\n");
}

/// The journals of a directory, by name.
fn journals(state: &std::path::Path) -> std::collections::BTreeSet<String> {
    let entries = std::fs::read_dir(state.join("producers")).expect("there");
    let names = entries.map(|it| it.expect("an entry").file_name().into_string().expect("text"));
    names.filter(|name| !name.ends_with(".lock")).collect()
}

/// Makes a journal as old as can be.
fn age(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).expect("there");
    for slot in bytes.chunks_mut(512) {
        // A slot that was never written is empty.
        let Ok(text) = std::str::from_utf8(slot) else { continue };
        let Ok(mut value) = serde_json::from_str::<serde_json::Value>(text.trim()) else {
            continue;
        };
        value["at"] = 0.into();
        slot.copy_from_slice(format!("{:511}\n", value.to_string()).as_bytes());
    }
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn journals_of_long_ago_go_and_those_in_use_stay() {
    let (server, dir) = (Server::start().await, fresh_dir());
    let at = server.address;
    weir(at, &["create", "a"]).await.ok();
    let state = dir.join("state");
    let producer = |id: &str| {
        let mut command = command(at, &["append", "a", "--ndjson", "--producer-id", id]);
        command.env("WEIR_STATE_DIR", &state);
        command
    };
    let run = async |id: &str| {
        let mut child = producer(id).spawn().expect("starts");
        child.stdin.take().expect("piped").write_all(b"1\n").expect("it listens");
        end(child).await.ok();
    };
    let mut known = std::collections::BTreeSet::new();
    let mut names = Vec::new();
    for id in ["old", "used", "young"] {
        run(id).await;
        let now = journals(&state);
        names.extend(now.difference(&known).cloned());
        known = now;
    }
    let [old, used, young] = names.as_slice() else { panic!("one each: {names:?}") };
    let path = |name: &str| state.join("producers").join(name);
    [old, used].iter().for_each(|name| age(&path(name)));
    // Whoever has a lock writes into it.
    let lock = path(&format!("{used}.lock"));
    let before = std::fs::read(&lock).expect("there");
    let mut user = producer("used").spawn().expect("starts");
    crate::support::until("it is in use", || async {
        std::fs::read(&lock).expect("there").len() == before.len()
            && std::fs::read(&lock).expect("there") != before
    })
    .await;
    run("new").await;
    let left = journals(&state);
    assert!(!left.contains(old) && !path(&format!("{old}.lock")).exists(), "{left:?}");
    assert!(left.contains(used) && left.contains(young) && left.len() == 3, "{left:?}");
    // Without its journal a producer is refused, and stores nothing twice.
    let mut again = producer("old").spawn().expect("starts");
    again.stdin.take().expect("piped").write_all(b"1\n").expect("it listens");
    let again = end(again).await;
    assert!(again.code == Some(1) && again.err.contains("another --producer-id"), "{again:?}");
    user.kill().expect("it runs");
    end(user).await;
    assert_eq!(weir(at, &["read", "a"]).await.ok(), "1\n1\n1\n1\n");
}
