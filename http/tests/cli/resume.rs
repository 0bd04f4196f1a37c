//! Commands that are killed, and networks that lose answers: nothing twice, nothing lost.

use std::sync::atomic::Ordering;

use crate::{
    command, end, lines,
    proxy::{Fault, Proxy},
    signal,
    support::{Server, fresh_dir},
    weir, weir_with, write,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_goes_on_where_it_was() {
    let (server, dir) = (Server::start().await, fresh_dir());
    let input = lines(1_000);
    let file = write(&dir, "in", &input);
    // HEAD twice, PUT, the details, then requests: the eighth is stored, and nobody hears of it.
    let proxy = Proxy::start(server.address, Fault::Hold(11)).await;
    let args = ["import", "a", &file, "--batch", "50"];
    let first = command(proxy.address, &args).spawn().expect("starts");
    proxy.holds().await;
    signal(&first, "KILL");
    end(first).await;
    let done = weir(server.address, &[&args[..], &["--json"]].concat()).await;
    let report = done.json();
    assert_eq!((&report["skipped"], &report["requests"]), (&8.into(), &12.into()), "{done:?}");
    assert_eq!(weir(server.address, &["read", "a"]).await.ok(), input);
    // Once more changes nothing, and another file is another import.
    assert_eq!(
        weir(server.address, &[&args[..], &["--json"]].concat()).await.json()["requests"],
        0
    );
    let other = write(&dir, "other", "\"more\"\n");
    weir(server.address, &["import", "a", &other]).await.ok();
    assert_eq!(weir(server.address, &["read", "a"]).await.ok(), input + "\"more\"\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_goes_on_with_whatever_batch_and_is_done_once() {
    let (server, dir) = (Server::start().await, fresh_dir());
    let at = server.address;
    let input = lines(1_000);
    let file = write(&dir, "in", &input);
    let proxy = Proxy::start(at, Fault::Hold(11)).await;
    let import = |batch| ["import", "a", &file, "--json", "--batch", batch];
    let first = command(proxy.address, &import("50")).spawn().expect("starts");
    proxy.holds().await;
    signal(&first, "KILL");
    end(first).await;
    let held = weir(at, &["read", "a"]).await.ok();
    assert!(held.lines().count() == 400 && input.starts_with(&held), "{held}");
    for (batch, left) in [("70", 600), ("50", 0), ("1000", 0), ("7", 0)] {
        let done = weir(at, &import(batch)).await;
        assert_eq!(done.json()["lines"].as_u64().unwrap_or(0), left, "{batch}: {done:?}");
        assert_eq!(weir(at, &["read", "a"]).await.ok(), input, "{batch}");
    }
    // Of a stream that is made again nothing is passed over.
    weir(at, &["rm", "a"]).await.ok();
    assert_eq!(weir(at, &import("50")).await.json()["lines"], 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_killed_goes_on_where_it_was() {
    let dir = fresh_dir();
    let server = Server::start_with(|config| config.read_bytes_max = 2_000).await;
    let input = lines(200);
    weir_with(server.address, &["append", "a", "--ndjson", "--create"], &input).await.ok();
    let file = dir.join("out");
    let name = file.to_str().expect("text");
    // HEAD, then pages.
    let proxy = Proxy::start(server.address, Fault::Hold(4)).await;
    let first = command(proxy.address, &["export", "a", name]).spawn().expect("starts");
    proxy.holds().await;
    signal(&first, "KILL");
    end(first).await;
    assert!(!file.exists(), "it is not complete");
    let partial = std::fs::read_to_string(dir.join("out.partial")).expect("there");
    assert!(!partial.is_empty() && input.starts_with(&partial));
    // What a crash left behind what is whole does not stay.
    std::fs::write(dir.join("out.partial"), partial.clone() + "half a li").expect("written");
    let state = std::fs::read_to_string(dir.join("out.partial.state")).expect("there");
    let state = state.replace(&proxy.address.to_string(), &server.address.to_string());
    std::fs::write(dir.join("out.partial.state"), state).expect("written");
    let done = weir(server.address, &["export", "a", name, "--json"]).await;
    assert!(done.err.contains("from before"), "{done:?}");
    let whole = (done.json()["bytes"].as_u64(), done.json()["messages"].as_u64());
    assert_eq!(whole, (u64::try_from(input.len()).ok(), Some(200)), "of the file, both: {done:?}");
    assert_eq!(std::fs::read_to_string(&file).expect("complete"), input);
    assert!(!dir.join("out.partial").exists() && !dir.join("out.partial.state").exists());
    let again = weir(server.address, &["export", "a", name]).await;
    assert!(again.code == Some(1) && again.err.contains("--force"), "{again:?}");
    weir(server.address, &["export", "a", name, "--force"]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_goes_on_only_in_the_same_stream_and_alone() {
    let dir = fresh_dir();
    let server = Server::start_with(|config| config.read_bytes_max = 2_000).await;
    let at = server.address;
    let append = ["append", "a", "--ndjson", "--create"];
    weir_with(at, &append, &lines(200)).await.ok();
    let file = dir.join("out");
    let name = file.to_str().expect("text");
    let proxy = Proxy::start(at, Fault::Hold(4)).await;
    let mut first = command(proxy.address, &["export", "a", name]).spawn().expect("starts");
    proxy.holds().await;
    let second = weir(at, &["export", "a", name]).await;
    assert!(second.code == Some(1) && second.err.contains("another export"), "{second:?}");
    first.kill().expect("it runs");
    end(first).await;
    // Another stream of the same name, which has records where the first one had.
    weir(at, &["rm", "a"]).await.ok();
    weir_with(at, &append, &lines(200).replace('x', "y")).await.ok();
    proxy.heal();
    let refused = weir(proxy.address, &["export", "a", name]).await;
    assert!(refused.code == Some(1) && refused.err.contains("made again"), "{refused:?}");
    // Without the server's word on when it was made the records tell.
    let state = dir.join("out.partial.state");
    let text = std::fs::read_to_string(&state).expect("there");
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    value["made"] = serde_json::Value::Null;
    std::fs::write(&state, value.to_string()).expect("written");
    let refused = weir(proxy.address, &["export", "a", name]).await;
    assert!(refused.code == Some(1) && refused.err.contains("made again"), "{refused:?}");
    weir(proxy.address, &["export", "a", name, "--force"]).await.ok();
    assert_eq!(std::fs::read_to_string(&file).expect("complete"), lines(200).replace('x', "y"));
    let shown = weir(at, &["export", "a", "-"]).await.ok();
    assert_eq!(shown, lines(200).replace('x', "y"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_touches_no_file_that_is_not_its_own() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = fresh_dir();
    let server = Server::start_with(|config| config.read_bytes_max = 2_000).await;
    let at = server.address;
    weir_with(at, &["append", "a", "--ndjson", "--create"], &lines(200)).await.ok();
    let file = write(&dir, "out.partial", "a diary\n").replace(".partial", "");
    let refused = weir(at, &["export", "a", &file]).await;
    for part in ["out.partial is there and is no part of an export", "--force"] {
        assert!(refused.code == Some(1) && refused.err.contains(part), "{part}: {refused:?}");
    }
    let kept = std::fs::read_to_string(dir.join("out.partial")).expect("there");
    assert_eq!(kept, "a diary\n");
    let there = write(&dir, "there", "mine\n");
    let refused = weir(at, &["export", "a", &there]).await;
    assert!(refused.code == Some(1) && refused.err.contains("another name"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&there).expect("there"), "mine\n");

    let proxy = Proxy::start(at, Fault::Hold(4)).await;
    let mine = dir.join("mine");
    let args = ["export", "a", mine.to_str().expect("text")];
    let first = command(proxy.address, &args).spawn().expect("starts");
    proxy.holds().await;
    signal(&first, "KILL");
    end(first).await;
    for name in ["mine.partial", "mine.partial.state"] {
        let mode = std::fs::metadata(dir.join(name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_what_is_gone_says_where_the_rest_begins() {
    let (server, dir) = (Server::start().await, fresh_dir());
    let at = server.address;
    // Offsets of a stream that was there before are gone.
    weir(at, &["create", "a"]).await.ok();
    let gone = weir(at, &["append", "a", "-m", "0"]).await.ok();
    weir(at, &["rm", "a"]).await.ok();
    let first = weir(at, &["create", "a"]).await.ok();
    weir(at, &["append", "a", "-m", "1"]).await.ok();
    let state = serde_json::json!({
        "source": format!("http://{at}/v1/stream/a"), "bytes": 2, "offset": gone.trim(),
    });
    write(&dir, "out.partial.state", &state.to_string());
    let file = write(&dir, "out.partial", "0\n").replace(".partial", "");
    let refused = weir(at, &["export", "a", &file]).await;
    let next = format!("weir export --from {}", first.trim());
    assert!(refused.code == Some(4) && refused.err.contains(&next), "{refused:?}");
    let rest = dir.join("rest");
    let args = ["export", "a", rest.to_str().expect("text"), "--from", first.trim()];
    weir(at, &args).await.ok();
    assert_eq!(std::fs::read_to_string(rest).expect("there"), "1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_appends_once_over_lost_answers() {
    let server = Server::start().await;
    let input = lines(100);
    weir(server.address, &["create", "a"]).await.ok();
    // HEAD and the question come first.
    let proxy = Proxy::start(server.address, Fault::Lose(&[1, 3, 4, 8])).await;
    let args = ["append", "a", "--ndjson", "--batch", "10", "--producer-id", "p", "--json"];
    let done = weir_with(proxy.address, &args, &input).await;
    assert_eq!(done.json()["requests"], 10, "{done:?}");
    assert_eq!(proxy.faults.load(Ordering::SeqCst), 4);
    assert_eq!(weir(server.address, &["read", "a"]).await.ok(), input);
    let again = weir_with(server.address, &args, &input).await;
    assert_eq!((&again.json()["requests"], &again.json()["skipped"]), (&0.into(), &10.into()));
    assert_eq!(again.json()["tail"], done.json()["tail"], "where all of it ends");
    // An input that is shorter than what the producer did is another one.
    let other = weir_with(server.address, &args, &lines(10)).await;
    assert!(other.code == Some(1) && other.err.contains("--producer-id"), "{other:?}");
    assert_eq!(weir(server.address, &["read", "a"]).await.ok(), input);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_answer_is_lost_says_that_nobody_knows() {
    let server = Server::start().await;
    weir(server.address, &["create", "a"]).await.ok();
    let proxy = Proxy::start(server.address, Fault::Lose(&[1])).await;
    let done = weir(proxy.address, &["append", "a", "-m", "1"]).await;
    assert!(done.code == Some(8) && done.err.contains("--producer-id"), "{done:?}");
    assert_eq!(weir(server.address, &["read", "a"]).await.ok(), "1\n", "it was not sent again");
    let proxy = Proxy::start(server.address, Fault::Lose(&[0, 1])).await;
    weir(proxy.address, &["rm", "a"]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_everything_once_over_connections_that_break() {
    let server = Server::start_with(|config| config.read_bytes_max = 2_000).await;
    for live in ["sse", "long-poll"] {
        weir(server.address, &["create", live]).await.ok();
        let proxy = Proxy::start(server.address, Fault::Cut(7_000)).await;
        let args = ["tail", "-f", live, "--from", "start", "--live", live];
        let follower = command(proxy.address, &args).spawn().expect("starts");
        let input = lines(400);
        for part in input.as_bytes().chunks(4_000) {
            // Cut anywhere: what is no whole line waits for the rest.
            let part = std::str::from_utf8(part).expect("ASCII");
            server.post(&format!("/v1/stream/{live}"), crate::support::JSON, array(part)).await;
        }
        weir(server.address, &["close", live]).await.ok();
        let done = end(follower).await;
        let expect: String = input
            .as_bytes()
            .chunks(4_000)
            .map(|part| whole_lines(std::str::from_utf8(part).expect("ASCII")))
            .collect();
        assert_eq!(done.ok(), expect, "{live}");
        assert!(proxy.faults.load(Ordering::SeqCst) > 3, "{live}: the network was good");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_says_that_it_looks_for_a_connection_and_that_it_has_one() {
    use weir_http::client::{Client, Follower, From, Live, Patience, Target};

    let server = Server::start().await;
    weir(server.address, &["create", "a"]).await.ok();
    weir(server.address, &["append", "a", "-m", "1"]).await.ok();
    let proxy = Proxy::start(server.address, Fault::Lose(&[0])).await;
    let world = weir_io::os::world().expect("a runtime is running");
    let target = Target::parse(&format!("http://{}", proxy.address), None).expect("a URL");
    let client = Client::new(world, target, Patience::default());
    let mut trouble = client.trouble();
    let follower = Follower::new(&client.stream("a"), From::Start, None, Live::Sse);
    let first = tokio::spawn(async move {
        let mut follower = follower;
        follower.next().await
    });
    let told = crate::support::within(trouble.wait_for(Option::is_some)).await;
    assert!(told.expect("the client is there").is_some());
    let batch = crate::support::within(first).await.expect("it does not panic");
    assert_eq!(batch.expect("it came back").expect("a batch").body, "[1]");
    assert_eq!(*trouble.borrow(), None);
}

/// The lines of a part that are whole.
fn whole_lines(part: &str) -> String {
    part.lines()
        .filter(|line| line.starts_with('{') && line.ends_with('}'))
        .map(|line| line.to_owned() + "\n")
        .collect()
}

fn array(part: &str) -> String {
    format!("[{}]", whole_lines(part).trim_end().replace('\n', ","))
}
