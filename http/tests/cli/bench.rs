//! `weir bench`: what it measures is there, and a server that lies is caught.

use std::{net::SocketAddr, process::Child};

use crate::{
    Done, command, end, ending,
    liar::{Liar, Lie},
    signal,
    support::{DEADLINE, Server, until},
    weir,
};

async fn bench(at: SocketAddr, args: &str) -> Done {
    let common = " --seconds 0.4 --warm-up 0.1 --json";
    let args = format!("bench {args}{common}");
    weir(at, &args.split(' ').collect::<Vec<_>>()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_server_is_measured_and_found_sound() {
    let server = Server::start().await;
    for (args, phase) in [
        ("append --connections 4 --streams 3", "append"),
        ("append --connections 2 --streams 5 --producers --batch 10 --order random", "append"),
        ("append --rate 200 --content-type text/plain", "append"),
        ("create --connections 4", "create"),
        ("read --size 300KiB --streams 2", "read"),
        ("read --size 64KiB --keys 3 --connections 3", "read"),
        ("tail --readers 12 --streams 3", "append"),
        ("tail --readers 5 --live long-poll", "append"),
        ("mixed --readers 6 --scanners 2 --connections 4 --streams 2", "append"),
    ] {
        let done = bench(server.address, args).await;
        assert_eq!(done.code, Some(0), "{args}: {done:?}");
        let report = done.json();
        assert!(report[phase]["requests"].as_u64() > Some(0), "{args}: {report}");
        assert_eq!(report["problems"], serde_json::json!([]), "{args}");
        assert!(report["generator"]["cpu_seconds"].as_f64() > Some(0.0), "{args}");
        if phase != "create" {
            assert!(report["verified"]["records"].as_u64() > Some(0), "{args}: {report}");
            assert_eq!(report["verified"]["lost"], 0, "{args}");
        }
        if phase == "read" {
            assert!(report["read"].get("records").is_none(), "nobody counts them: {report}");
            assert!(report["whole_reads"].as_u64() > Some(0), "{report}");
            // Each of these is one page.
            assert!(report["whole_reads"].as_u64() <= report["read"]["requests"].as_u64());
        }
        if args.contains("readers") {
            assert!(report["tail"]["delivered"].as_u64() > Some(0), "{args}: {report}");
            assert!(report["tail"]["to_last_reader_us"]["count"].as_u64() > Some(0), "{args}");
        }
    }
    assert_eq!(weir(server.address, &["ls", "bench-"]).await.ok(), "", "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_kept_is_replaced_or_stays_as_it_is() {
    let server = Server::start().await;
    for kind in ["append --producers", "read --size 20KiB", "tail --readers 2"] {
        let kept = format!("{kind} --name mine --streams 2 --keep");
        bench(server.address, &kept).await.ok();
        let there = weir(server.address, &["ls", "bench-mine-", "--json"]).await.ok();
        assert_eq!(there.lines().count(), 2, "{there}");
        let refused = bench(server.address, &kept.replace("--streams 2", "--streams 3")).await;
        assert!(refused.code == Some(1) && refused.err.contains("--replace"), "{refused:?}");
        let same = weir(server.address, &["ls", "bench-mine-", "--json"]).await.ok();
        assert_eq!(same, there, "{kind}: what is another's stays, and nothing else does");
        let replaced = bench(server.address, &format!("{kept} --replace")).await;
        assert_eq!(replaced.json()["verified"]["repeated"], 0, "{replaced:?}");
        assert_eq!(replaced.code, Some(0), "{replaced:?}");
        let gone = ["rm", "bench-mine-00000000", "bench-mine-00000001"];
        weir(server.address, &gone).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_leaves_nothing_and_says_how() {
    let server = Server::start_with(|config| config.body_bytes_max = 1_000).await;
    let done = bench(server.address, "append --bytes 2KiB --streams 2").await;
    assert_eq!(done.code, Some(1), "{done:?}");
    let error: serde_json::Value = serde_json::from_str(&done.err).expect("one line of JSON");
    assert!(error["error"]["message"].as_str().is_some_and(|it| it.contains("413")), "{error}");
    assert_eq!(weir(server.address, &["ls", "bench-"]).await.ok(), "");
    let nobody = bench(([127, 0, 0, 1], 1).into(), "append --streams 1").await;
    assert_eq!(nobody.code, Some(7), "{nobody:?}");
    assert!(nobody.err.contains("http://127.0.0.1:1/v1/stream"), "it says where: {nobody:?}");
    let nobody = bench(server.address, "append --server-pid 4294967295").await;
    assert!(nobody.code == Some(1) && nobody.err.contains("--server-pid 4294967295"), "{nobody:?}");
    assert_eq!(weir(server.address, &["ls", "bench-"]).await.ok(), "", "it was not begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_kept_and_a_pause_of_the_server_is_seen() {
    let server = Liar::start(Lie::Pause).await;
    let done = bench(server, "append --connections 2 --rate 100 --content-type text/plain").await;
    let report = done.json();
    // The schedule goes on while the server sleeps: the requests it delays are late, all of them.
    let requests = report["append"]["requests"].as_u64().expect("a count");
    assert!((35..=45).contains(&requests), "{report}");
    let late = report["append"]["latency_us"]["p90"].as_f64().expect("a time");
    assert!(late > 50_000.0, "{report}");
}

const LIES: [(Lie, &str); 7] = [
    (Lie::Lose, "lost"),
    (Lie::Repeat, "repeated"),
    (Lie::Swap, "out_of_order"),
    (Lie::Invent, "foreign"),
    (Lie::Intrude, "foreign"),
    (Lie::Blank, "foreign"),
    (Lie::Damage, "damaged"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_is_caught() {
    for args in [
        "append --connections 1",
        "read --size 4MiB --connections 2",
        "read --size 64KiB --keys 3 --connections 3",
        "tail --connections 1 --readers 2 --live long-poll",
        "mixed --connections 1 --readers 1 --live long-poll --scanners 1 --rate 100",
    ] {
        for (lie, field) in LIES {
            // Who waits for a record that does not come does so for ten seconds.
            if lie == Lie::Lose && args.contains("long-poll") {
                continue;
            }
            let server = Liar::start(lie).await;
            let done = bench(server, &format!("{args} --content-type text/plain")).await;
            assert_eq!(done.code, Some(3), "{args}, {lie:?}: {done:?}");
            let report = done.json();
            let verified = &report["verified"];
            for (name, count) in verified.as_object().expect("an object") {
                if name != "records" {
                    let is_wrong = count.as_u64() > Some(0);
                    assert_eq!(is_wrong, name == field, "{args}, {lie:?}: {verified}");
                }
            }
            assert!(done.err.contains("of the records"), "{done:?}");
            let first = &report["violations"][0];
            assert_eq!(first["kind"], field, "{args}: {report}");
            assert!(first["stream"].as_str().is_some_and(|it| it.starts_with("bench-")), "{first}");
            assert!(first["offset"].is_string(), "{first}");
            let is_numbered = !matches!(lie, Lie::Intrude | Lie::Blank);
            assert_eq!(first["number"].is_u64(), is_numbered, "nobody numbers it: {first}");
            assert!(report["violations"].as_array().map(Vec::len) <= Some(20), "{report}");
            // What is wrong is there to be looked at.
            assert!(report["kept"] == true && done.err.contains("weir rm bench-"), "{done:?}");
            assert!(done.err.contains(&format!("--url http://{server}/v1/stream`")), "{done:?}");
        }
        let honest = Liar::start(Lie::None).await;
        let done = bench(honest, &format!("{args} --content-type text/plain")).await;
        assert_eq!(done.code, Some(0), "{args}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_that_begins_later_is_caught_by_whoever_reads_again() {
    for args in [
        "read --size 4MiB --connections 2",
        "read --size 64KiB --keys 3 --connections 3",
        "mixed --connections 1 --readers 1 --live long-poll --scanners 1 --rate 100",
    ] {
        for lie in [Lie::Rot, Lie::Shrink] {
            let server = Liar::start(lie).await;
            let done = bench(server, &format!("{args} --content-type text/plain")).await;
            assert_eq!(done.code, Some(3), "{args}, {lie:?}: {done:?}");
            let report = done.json();
            assert!(report["verified"]["changed"].as_u64() > Some(0), "{args}, {lie:?}: {report}");
            let violations = report["violations"].as_array().expect("a list");
            let changed = violations.iter().find(|it| it["kind"] == "changed");
            let changed = changed.unwrap_or_else(|| panic!("{args}, {lie:?}: {report}"));
            assert_eq!(changed["stream"].as_str().map(|it| &it[..6]), Some("bench-"), "{changed}");
            assert!(changed["offset"].is_string(), "{changed}");
            if args.starts_with("read") {
                let is_shorter = changed["bytes"].as_u64() < changed["bytes_before"].as_u64();
                assert_eq!(is_shorter, lie == Lie::Shrink, "{changed}");
            }
            assert!(done.err.contains("did not hold what one before had held"), "{done:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_answer_that_is_wrong_is_told_once() {
    let server = Liar::start(Lie::Slip).await;
    let args = "mixed --connections 1 --streams 1 --readers 1 --live long-poll --scanners 1 \
                --rate 100 --content-type text/plain";
    let done = bench(server, args).await;
    assert_eq!(done.code, Some(3), "{done:?}");
    let report = done.json();
    assert_eq!(report["verified"]["changed"], 1, "those that follow hold what is there: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_leaves_it_open_whether_anything_is_lost() {
    let cases = [
        "append --connections 2",
        "read --size 4MiB --connections 2",
        "tail --connections 1 --readers 2 --live long-poll",
        "mixed --connections 1 --readers 1 --live long-poll --scanners 1 --rate 100",
    ];
    let cases = cases.map(|args| tokio::spawn(is_left_open(args)));
    for case in cases {
        case.await.expect("it holds");
    }
}

async fn is_left_open(args: &str) {
    let (server, liar) = Liar::watched(Lie::None).await;
    let reads = if args.starts_with("read") { 10 } else { 0 };
    let args = format!("bench {args} --seconds 3 --warm-up 0 --content-type text/plain --json");
    let child = command(server, &args.split(' ').collect::<Vec<_>>()).spawn().expect("starts");
    until("it works", || async { liar.appends() > 3 && liar.reads() >= reads }).await;
    liar.leave();
    // What is to be read back is asked for twenty times, in ten seconds: servers come back.
    let done = tokio::time::timeout(3 * DEADLINE, ending(child)).await.expect("it gives up");
    assert_eq!(done.code, Some(7), "{args}: {done:?}");
    let report = done.json();
    assert!(report["not_verified"].is_string(), "{args}: {report}");
    assert_eq!(report["problems"], serde_json::json!([]), "{args}: {report}");
    assert_ne!(report["verified"]["lost"], 1, "{args}: {report}");
    assert!(done.err.contains("not verified") && done.err.contains("weir rm bench-"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_in_a_pipe_is_one_line_with_all_settings() {
    let server = Server::start().await;
    let done = bench(server.address, "append --connections 2 --order random --name mine").await;
    assert_eq!((done.code, done.out.lines().count()), (Some(0), 1), "{done:?}");
    let report = done.json();
    for (name, value) in [
        ("order", serde_json::json!("random")),
        ("seconds", 0.4.into()),
        ("warm_up", 0.1.into()),
        ("name", "mine".into()),
        ("keep", false.into()),
        ("replace", false.into()),
        ("verify", true.into()),
    ] {
        assert_eq!(report["settings"][name], value, "{name}: {report}");
    }
    let hdr = report["append"]["latency_us"]["hdr"].as_str().expect("a histogram");
    assert!(hdr.starts_with("HISTE"), "the cookie of V2: {hdr}");
    let cpu = report["generator"]["cpu_seconds"].to_string();
    assert!(cpu.split('.').nth(1).is_none_or(|digits| digits.len() <= 3), "{cpu}");
}

/// A run that has begun to write, and goes on for ten minutes.
async fn writing(server: SocketAddr) -> Child {
    let args = ["append", "--warm-up", "0", "--seconds", "600", "--json", "--connections", "2"];
    let args = [&["bench"], &args[..]].concat();
    let child = command(server, &args).spawn().expect("starts");
    until("it writes", || async {
        let there = weir(server, &["ls", "bench-", "--json"]).await.out;
        there.contains("\"next_offset\":\"1")
    })
    .await;
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_comes_twice_at_once_is_one() {
    let server = Server::start().await;
    let child = writing(server.address).await;
    signal(&child, "INT");
    signal(&child, "INT");
    let done = end(child).await;
    assert_eq!(done.code, Some(130), "{done:?}");
    let report = done.json();
    assert_eq!(report["verified"]["records"], report["acked_records"], "{report}");
    assert_eq!(weir(server.address, &["ls", "bench-"]).await.ok(), "", "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_verifies_and_cleans_up() {
    let server = Server::start().await;
    for name in ["INT", "TERM"] {
        let child = writing(server.address).await;
        signal(&child, name);
        let done = end(child).await;
        assert!(done.code == Some(130) && done.err.contains("interrupted"), "{done:?}");
        let report = done.json();
        assert_eq!(report["verified"]["records"], report["acked_records"], "{report}");
        assert_eq!(report["problems"], serde_json::json!([]), "{report}");
        let note = report["notes"][0].as_str().expect("a note");
        assert!(note.starts_with("interrupted after") && done.err.contains(note), "{done:?}");
        assert_eq!(report["append"]["seconds"], report["interrupted_after_seconds"]);
        assert!(report["append"]["seconds"].as_f64() < Some(60.0), "{report}");
        assert_eq!(weir(server.address, &["ls", "bench-"]).await.ok(), "", "nothing is left");
    }
    // Not even before there is anything to report: while it fills, or warms up.
    for args in [
        &["bench", "read", "--size", "64GiB", "--json"][..],
        &["bench", "append", "--warm-up", "600", "--json"],
        &["bench", "mixed", "--warm-up", "600", "--readers", "2", "--scanners", "1", "--json"],
    ] {
        let child = command(server.address, args).spawn().expect("starts");
        until("it writes", || async {
            let there = weir(server.address, &["ls", "bench-", "--json"]).await.out;
            there.lines().any(|stream| !stream.contains("\"next_offset\":\"0\""))
        })
        .await;
        signal(&child, "TERM");
        let done = end(child).await;
        assert_eq!((done.code, done.out.as_str()), (Some(130), ""), "{args:?}: {done:?}");
        assert!(done.err.contains("there is no report"), "{args:?}: {done:?}");
        assert_eq!(weir(server.address, &["ls", "bench-"]).await.ok(), "", "nothing is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_does_not_wait_for_a_server_that_says_nothing() {
    for args in ["append --connections 2", "read --size 1MiB", "mixed --readers 2 --live long-poll"]
    {
        let (server, liar) = Liar::watched(Lie::Stall).await;
        let args =
            format!("bench {args} --warm-up 0 --seconds 600 --content-type text/plain --json");
        let child = command(server, &args.split(' ').collect::<Vec<_>>()).spawn().expect("starts");
        until("it writes", || async { liar.appends() > 0 }).await;
        signal(&child, "INT");
        let done = end(child).await;
        assert_eq!(done.code, Some(130), "{args}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_ends_the_run_with_its_words() {
    let server = Liar::start(Lie::Refuse).await;
    let done = bench(server, "append --content-type text/plain").await;
    assert!(done.code == Some(1) && done.err.contains("no such thing"), "{done:?}");
    // What it never does is not asked for again.
    let server = Liar::start(Lie::Lack).await;
    let done = bench(server, "append --content-type text/plain").await;
    assert_eq!(done.code, Some(1), "{done:?}");
    let error: serde_json::Value = serde_json::from_str(&done.err).expect("one line of JSON");
    let message = error["error"]["message"].as_str().expect("a message");
    assert!(message.ends_with("501 Error No PUT here."), "{message}");
    assert!(error["error"]["advice"].as_str().is_some_and(|it| it.contains("--url")), "{error}");
}
