//! The server with its bucket in a mock of S3 that others wrote: killed in the middle of its work, with
//! the bucket stopped for a while, and made anew from the bucket alone.
#![expect(
    clippy::disallowed_methods,
    reason = "real processes: real files, real time, a store that is deleted"
)]

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use conformance::{
    http::{self, Client},
    moto::Moto,
    server::{Mode, Server},
};
use serde_json::Value;

const BUCKET: &str = "weir-test";
const STORE: [&str; 4] = ["--object-store", "s3", "--bucket", BUCKET];
const STREAMS: usize = 8;
const ROUNDS: usize = 4;
/// Appends of one round; the kill comes in the middle of the last ones.
const APPENDS: usize = 120;
/// How long it may take until everything is in the bucket.
const PUBLISHED_MAX: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// What was acked, by stream.
type Acked = BTreeMap<String, Vec<u8>>;

fn stream(number: usize) -> String {
    format!("/v1/stream/s3/{number}")
}

fn append(client: &mut Client, acked: &mut Acked, number: usize) -> Result<()> {
    let name = stream(number % STREAMS);
    let record = format!("{number:06} of {name}; ");
    let content = [("Content-Type", "application/octet-stream")];
    let answer = client.post(&name, &content, record.as_bytes())?;
    ensure!(answer.status == 204, "{name}: {} {:?}", answer.status, answer.text());
    acked.get_mut(&name).context("a stream we made")?.extend(record.as_bytes());
    Ok(())
}

/// Waits until the bucket has every record.
fn published(client: &mut Client) -> Result<()> {
    let start = Instant::now();
    for number in 0..STREAMS {
        let name = format!("{}/_details", stream(number));
        loop {
            let answer = client.get(&name)?;
            ensure!(answer.status == 200, "{name}: {} {:?}", answer.status, answer.text());
            let details: Value = serde_json::from_slice(&answer.body)?;
            let of = &details["stream"];
            // The one is where the next record will lie, the other where the last one does.
            let number = |field: &str| of[field].as_str()?.parse::<i64>().ok();
            let next = number("next_offset").context("a stream has a next offset")?;
            if number("uploaded_through") == Some(next - 1) {
                break;
            }
            ensure!(start.elapsed() < PUBLISHED_MAX, "{name} is not in the bucket: {of}");
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

/// Every stream shows what was acked, and nothing else.
fn compare(client: &mut Client, acked: &Acked) -> Result<()> {
    for (name, expected) in acked {
        let answer = client.get(&format!("{name}?offset=-1"))?;
        ensure!(answer.status == 200, "{name}: {} {:?}", answer.status, answer.text());
        ensure!(
            answer.body == *expected,
            "{name} has {} bytes of {}",
            answer.body.len(),
            expected.len()
        );
    }
    Ok(())
}

#[test]
fn a_store_in_s3_survives_kills_and_a_bucket_that_stops_and_comes_back_from_it_alone() {
    let moto = Moto::start().expect("moto starts");
    let (_, port) = moto.url().rsplit_once(':').expect("a URL with a port");
    let made =
        http::Client::new(port.parse().expect("a port")).put(&format!("/{BUCKET}"), &[], b"");
    assert_eq!(made.expect("moto answers").status, 200, "moto makes a bucket");
    let mut server = Server::stopped(Mode::Full).expect("a directory and a port");
    server.set_flags(&[&STORE[..], &["--seal-age", "200ms"]].concat());
    server.set_variables(&[
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_ENDPOINT_URL", moto.url()),
        ("AWS_ALLOW_HTTP", "true"),
    ]);
    server.restart().expect("weir starts with its bucket in S3");
    let survived = survive(&mut server, &moto);
    survived.expect("what was acked is kept, and comes back from the bucket");
}

fn survive(server: &mut Server, moto: &Moto) -> Result<()> {
    let mut client = server.client();
    let mut acked = Acked::new();
    for number in 0..STREAMS {
        let content = [("Content-Type", "application/octet-stream")];
        let answer = client.put(&stream(number), &content, b"")?;
        ensure!(answer.status == 201, "{}: {}", stream(number), answer.status);
        acked.insert(stream(number), Vec::new());
    }
    for round in 0..ROUNDS {
        if round % 2 == 1 {
            // Acks do not wait for a bucket that does not answer.
            moto.pause()?;
        }
        for number in 0..APPENDS {
            append(&mut client, &mut acked, round * APPENDS + number)?;
        }
        server.kill()?;
        moto.resume()?;
        server.restart()?;
        client = server.client();
        compare(&mut client, &acked).with_context(|| format!("after kill {round}"))?;
    }
    published(&mut client)?;
    server.kill()?;
    fs::remove_dir_all(server.directory().join("store"))?;
    let bootstrapped = server.command(&[&["bootstrap"], &STORE[..]].concat())?;
    ensure!(bootstrapped.status.success(), "bootstrap: {bootstrapped:?}");
    server.restart()?;
    compare(&mut server.client(), &acked).context("after the bootstrap")?;
    server.kill()?;
    let verified = server.command(&[&["verify", "--deep"], &STORE[..]].concat())?;
    ensure!(verified.status.success(), "verify: {verified:?}");
    Ok(())
}
