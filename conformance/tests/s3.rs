//! The server with its bucket in a mock of S3 that others wrote: killed in the middle of its work, with
//! the bucket stopped for a while, and made anew from the bucket alone.
#![expect(
    clippy::disallowed_methods,
    reason = "real processes: real files, real time, a store that is deleted"
)]

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use conformance::{
    binary,
    http::Client,
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

/// Waits until the bucket has every record of these streams.
fn published<'a>(client: &mut Client, streams: impl Iterator<Item = &'a String>) -> Result<()> {
    let start = Instant::now();
    for name in streams {
        let name = format!("{name}/_details");
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

/// moto with an empty bucket.
fn moto() -> Result<Moto> {
    let moto = Moto::start()?;
    let (_, port) = moto.url().rsplit_once(':').context("a URL with a port")?;
    let made = Client::new(port.parse()?).put(&format!("/{BUCKET}"), &[], b"")?;
    ensure!(made.status == 200, "moto makes no bucket: {}", made.status);
    Ok(moto)
}

/// A server with its bucket there, not started yet.
fn server(moto: &Moto, flags: &[&str]) -> Result<Server> {
    let mut server = Server::stopped(Mode::Full)?;
    server.set_flags(&[&STORE[..], &["--seal-age", "200ms"], flags].concat());
    server.set_variables(&[
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_ENDPOINT_URL", moto.url()),
        ("AWS_ALLOW_HTTP", "true"),
    ]);
    Ok(server)
}

#[test]
fn a_store_in_s3_survives_kills_and_a_bucket_that_stops_and_comes_back_from_it_alone() {
    let moto = moto().expect("moto starts");
    let mut server = server(&moto, &[]).expect("a directory and a port");
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
    published(&mut client, acked.keys())?;
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

#[test]
fn a_store_in_s3_deletes_forks_and_evicts_and_gives_way_to_who_takes_it_over() {
    let moto = moto().expect("moto starts");
    let flags = ["--cache-bytes", "1MiB"];
    let mut first = server(&moto, &flags).expect("a directory and a port");
    let mut second = server(&moto, &flags).expect("a directory and a port");
    first.restart().expect("weir starts with its bucket in S3");
    let mut acked = fill(&mut first).expect("streams, a fork, one that is deleted, and evictions");
    let replaced = replace(&mut first, &mut second, &mut acked);
    replaced.expect("the second has everything, the first serves nothing but reads");
}

/// Bytes that do not compress.
fn noise(len: usize, seed: usize) -> Vec<u8> {
    let mut word = u32::try_from(seed).unwrap_or(u32::MAX).wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        word ^= word << 13;
        word ^= word >> 17;
        word ^= word << 5;
        word.to_le_bytes()[1]
    };
    (0..len).map(|_| next()).collect()
}

const BYTES: [(&str, &str); 1] = [("Content-Type", "application/octet-stream")];

fn create(client: &mut Client, name: &str, fork_of: Option<&str>) -> Result<()> {
    let fork = fork_of.map(|source| ("Stream-Forked-From", source));
    let headers: Vec<(&str, &str)> = BYTES.into_iter().chain(fork).collect();
    let answer = client.put(name, &headers, b"")?;
    ensure!(answer.status == 201, "{name}: {} {:?}", answer.status, answer.text());
    Ok(())
}

/// Asks until there is an answer that will do.
fn until(what: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !ask()? {
        ensure!(start.elapsed() < PUBLISHED_MAX, "{what}: not within {PUBLISHED_MAX:?}");
        thread::sleep(LOOK);
    }
    Ok(())
}

fn figure(client: &mut Client, name: &str) -> Result<u64> {
    let text = client.get("/metrics")?.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?)
}

/// Writes more than the cache holds, deletes a stream and forks another; everything is read back.
fn fill(first: &mut Server) -> Result<Acked> {
    let mut client = first.client();
    let mut acked = Acked::new();
    for number in 0..STREAMS {
        create(&mut client, &stream(number), None)?;
        acked.insert(stream(number), Vec::new());
    }
    for number in 0..4 * STREAMS {
        append(&mut client, &mut acked, number)?;
    }
    let (gone, source, fork) = (stream(1), stream(2), "/v1/stream/s3/fork".to_owned());
    create(&mut client, &fork, Some(&source))?;
    acked.insert(fork.clone(), acked[&source].clone());
    for (name, record) in [(&fork, "of the fork; "), (&source, "of the source alone; ")] {
        let answer = client.post(name, &BYTES, record.as_bytes())?;
        ensure!(answer.status == 204, "{name}: {} {:?}", answer.status, answer.text());
        acked.get_mut(name).context("a stream we made")?.extend(record.as_bytes());
    }
    let deleted = client.delete(&gone)?;
    ensure!(deleted.status == 204, "{gone}: {}", deleted.status);
    acked.remove(&gone);
    let large = "/v1/stream/s3/large".to_owned();
    create(&mut client, &large, None)?;
    let mut body = Vec::new();
    for turn in 0..24 {
        let record = noise(128 << 10, turn);
        let answer = client.post(&large, &BYTES, &record)?;
        ensure!(answer.status == 204, "{large}: {} {:?}", answer.status, answer.text());
        body.extend(record);
    }
    acked.insert(large, body);
    published(&mut client, acked.keys())?;
    until("evictions", || Ok(figure(&mut client, "weir_history_evictions_total")? > 0))?;
    compare(&mut client, &acked).context("after the evictions")?;
    ensure!(figure(&mut client, "weir_history_fetches_total")? > 0, "evicted blocks were fetched");
    Ok(acked)
}

/// Another server takes the bucket over while the first one runs.
fn replace(first: &mut Server, second: &mut Server, acked: &mut Acked) -> Result<()> {
    let bootstrapped = second.command(&[&["bootstrap"], &STORE[..]].concat())?;
    ensure!(bootstrapped.status.success(), "bootstrap: {bootstrapped:?}");
    second.restart()?;
    let (mut old, mut new) = (first.client(), second.client());
    compare(&mut new, acked).context("what the second server has")?;
    let gone = new.get(&format!("{}?offset=-1", stream(1)))?;
    ensure!(gone.status == 404, "a deleted stream is there again: {}", gone.status);

    // The first one does not know yet, and acks what will never be published.
    let mut alone = acked.clone();
    let mut number = 0;
    until("the first server refuses writes", || {
        let record = format!("alone {number}; ");
        let answer = old.post(&stream(0), &BYTES, record.as_bytes())?;
        if answer.status == 204 {
            number += 1;
            let to = alone.get_mut(&stream(0)).context("a stream we made")?;
            to.extend(record.as_bytes());
        }
        Ok(answer.status == 503)
    })?;
    ensure!(number > 0, "it was told before it published");
    compare(&mut old, &alone).context("reads go on where writes are refused")?;
    for number in 0..2 * STREAMS {
        if number % STREAMS != 1 {
            append(&mut new, acked, number)?;
        }
    }
    published(&mut new, acked.keys())?;
    first.kill()?;
    compare(&mut new, acked).context("the second server goes on")?;

    let mut inspect = Command::new(binary::weir()?);
    inspect.args(["inspect", "unpublished", "--json"]).arg(first.directory());
    let shown = inspect.output()?;
    ensure!(shown.status.success(), "inspect: {shown:?}");
    let shown = String::from_utf8(shown.stdout)?;
    for record in 0..number {
        let value = format!("\"value\":\"alone {record}; \"");
        ensure!(shown.contains(&value), "{value} is not among what was not published:\n{shown}");
    }
    second.kill()?;
    let verified = second.command(&[&["verify", "--deep"], &STORE[..]].concat())?;
    ensure!(verified.status.success(), "verify: {verified:?}");
    Ok(())
}
