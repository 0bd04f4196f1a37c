//! What a server asked its bucket is told by the next ones too: the binary, stopped and started.
#![expect(clippy::disallowed_methods, reason = "tests look at real files")]

mod support;

use std::path::Path;

use serde_json::Value;
use support::{
    fresh_dir,
    process::{Running, start},
};

/// How often a server says that it and those before it asked for this.
fn asked(running: &Running, artifact: &str, verb: &str) -> usize {
    let answer = running.ask("GET /v1/server/_details HTTP/1.1\r\n\r\n");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    let body: Value = serde_json::from_str(body).expect("JSON");
    let rows = body["object_store"]["requests"].as_array().expect("rows");
    let row = rows.iter().find(|it| it["artifact"] == artifact && it["verb"] == verb);
    let requests = row.map_or(0, |row| row["requests"].as_u64().expect("a number"));
    usize::try_from(requests).expect("few")
}

/// Objects of a kind in the bucket: each was created once.
fn created(dir: &Path, artifact: &str) -> usize {
    std::fs::read_dir(dir.join("bucket").join(artifact)).map_or(0, Iterator::count)
}

#[test]
fn what_the_bucket_was_asked_is_told_over_restarts() {
    let dir = fresh_dir();
    let mut running = start(&dir);
    let mut before = 0;
    for run in 1..=3 {
        assert_eq!(asked(&running, "probe", "create"), 2 * run, "each start tries the bucket out");
        let all = created(&dir, "manifest");
        assert_eq!(asked(&running, "manifest", "create"), all, "run {run}");
        assert!(run == 1 || all > before, "the stop of the run before has published");
        before = all;
        let path = format!("PUT /v1/stream/run-{run} HTTP/1.1\r\n");
        let put = format!("{path}Content-Type: text/plain\r\nContent-Length: 4\r\n\r\nkept");
        assert!(running.ask(&put).starts_with("HTTP/1.1 201 "));
        running.signal("TERM");
        assert_eq!(running.end().0, Some(0));
        running = start(&dir);
    }
    for artifact in ["segments", "rows", "manifest"] {
        let all = created(&dir, artifact);
        assert!(all >= 3, "{artifact}");
        assert_eq!(asked(&running, artifact, "create"), all, "{artifact}");
    }
}
