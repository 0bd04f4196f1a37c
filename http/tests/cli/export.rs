//! Exports that go on, those that must not, and files that are none.

use std::{net::SocketAddr, path::Path};

use crate::{
    command, end, lines,
    proxy::{Fault, Proxy},
    signal,
    support::{Server, fresh_dir},
    weir, weir_with, write,
};

/// The answers to all pages, behind those to HEAD and to the question what the stream is.
static PAGES: [usize; 100] = {
    let (mut numbers, mut at) = ([0; 100], 0);
    while at < numbers.len() {
        numbers[at] = at + 2;
        at += 1;
    }
    numbers
};

/// A server with a stream of many pages.
async fn served() -> Server {
    let server = Server::start_with(|config| config.read_bytes_max = 2_000).await;
    weir_with(server.address, &["append", "a", "--ndjson", "--create"], &lines(200)).await.ok();
    server
}

/// An export by another URL that was killed in the middle. Returns its file.
async fn killed(server: SocketAddr, dir: &Path, more: &[&str]) -> String {
    let file = dir.join("out").to_str().expect("text").to_owned();
    let proxy = Proxy::start(server, Fault::Hold(4)).await;
    let args = [&["export", "a", &*file][..], more].concat();
    let child = command(proxy.address, &args).spawn().expect("starts");
    proxy.holds().await;
    signal(&child, "KILL");
    end(child).await;
    file
}

fn content(file: &str) -> String {
    std::fs::read_to_string(file).expect("there")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_goes_on_only_from_where_it_began() {
    let server = served().await;
    let at = server.address;
    let rest = weir(at, &["read", "a", "--from", "0_10"]).await.ok();
    for (began, other, whole) in
        [(&[][..], &["--from", "0_10"][..], &lines(200)), (&["--from", "0_10"], &[], &rest)]
    {
        let dir = fresh_dir();
        let file = killed(at, &dir, began).await;
        let args = |more: &[&'static str]| -> Vec<String> {
            let args = [&["export", "a", &*file][..], more].concat();
            args.into_iter().map(str::to_owned).collect()
        };
        let run = async |more: &[&'static str]| {
            let args = args(more);
            weir(at, &args.iter().map(String::as_str).collect::<Vec<_>>()).await
        };
        let refused = run(other).await;
        assert!(refused.code == Some(1), "{refused:?}");
        for part in ["begins at", "--from 0_10", "no --from", "--force"] {
            assert!(refused.err.contains(part), "{part}: {refused:?}");
        }
        // It is the same stream, whatever URL its server has now.
        let done = run(began).await;
        assert!(done.code == Some(0) && done.err.contains("from before"), "{done:?}");
        assert_eq!(&content(&file), whole);
    }
    let dir = fresh_dir();
    let file = killed(at, &dir, &[]).await;
    weir(at, &["export", "a", &file, "--from", "0_10", "--force"]).await.ok();
    assert_eq!(content(&file), rest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_was_cut_is_named_with_its_state_or_begun_anew() {
    let (server, dir) = (served().await, fresh_dir());
    let at = server.address;
    let file = killed(at, &dir, &[]).await;
    std::fs::remove_file(dir.join("out.partial")).expect("there");
    let refused = weir(at, &["export", "a", &file, "--json"]).await;
    let error: serde_json::Value = serde_json::from_str(&refused.err).expect("JSON");
    let message = error["error"]["message"].as_str().expect("text");
    for part in ["was cut", "out.partial.state", "--force"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(error["error"].get("advice").is_none(), "what is not known is no field: {error}");
    weir(at, &["export", "a", &file, "--force"]).await.ok();
    assert_eq!(content(&file), lines(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_not_replaced_and_a_link_is_followed() {
    use std::{os::unix::fs::symlink, process::Command};

    let (server, dir) = (served().await, fresh_dir());
    let at = server.address;
    let path = |name: &str| dir.join(name).to_str().expect("text").to_owned();
    // What stands for a device: nothing is ever written to one here.
    let made = Command::new("mkfifo").arg(dir.join("pipe")).status();
    assert!(made.expect("mkfifo exists").success());
    symlink(dir.join("pipe"), dir.join("link")).expect("a free name");
    symlink(dir.join("nowhere"), dir.join("dangling")).expect("a free name");
    for (name, part) in
        [("pipe", "is no file"), ("link", "is no file"), ("dangling", "a link to something")]
    {
        for force in [&[][..], &["--force"]] {
            let file = path(name);
            let args = [&["export", "a", &*file][..], force].concat();
            let refused = weir(at, &args).await;
            assert!(refused.code == Some(1) && refused.err.contains(part), "{name}: {refused:?}");
        }
    }
    let real = write(&dir, "real", "old\n");
    symlink(&real, dir.join("good")).expect("a free name");
    weir(at, &["export", "a", &path("good"), "--force"]).await.ok();
    assert_eq!(content(&real), lines(200));
    assert!(dir.join("good").is_symlink(), "the link stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_wrote_nothing_leaves_nothing() {
    let (server, dir) = (served().await, fresh_dir());
    let proxy = Proxy::start(server.address, Fault::Lose(&PAGES)).await;
    let file = dir.join("out");
    let args = ["export", "a", file.to_str().expect("text"), "--retry-for", "100ms"];
    let failed = weir(proxy.address, &args).await;
    assert_eq!(failed.code, Some(7), "{failed:?}");
    assert_eq!(std::fs::read_dir(&*dir).expect("there").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_to_the_standard_output_is_a_read() {
    let server = served().await;
    let at = server.address;
    for more in [&[][..], &["--json"], &["--from", "0_10"], &["--from", "start"]] {
        let shown = weir(at, &[&["export", "a", "-"], more].concat()).await.ok();
        assert_eq!(shown, weir(at, &[&["read", "a"], more].concat()).await.ok(), "{more:?}");
    }
    let proxy = Proxy::start(at, Fault::Hold(3)).await;
    let child = command(proxy.address, &["export", "a", "-"]).spawn().expect("starts");
    proxy.holds().await;
    signal(&child, "INT");
    let ended = end(child).await;
    assert!(ended.code == Some(130) && ended.err.contains("go on with --from"), "{ended:?}");
}
