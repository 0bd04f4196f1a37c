//! The server with its bucket in a mock of S3 that others wrote: killed in the middle of its work, with
//! the bucket silent or out of reach for a while, also at a start, and made anew from the bucket alone.
#![expect(
    clippy::disallowed_methods,
    reason = "real processes: real files, real time, a store that is deleted"
)]

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use conformance::{
    binary,
    gate::Gate,
    http::Client,
    moto::Moto,
    server::{Mode, Server},
};
use serde_json::Value;

const BUCKET: &str = "weir-test";
const STORE: [&str; 4] = ["--object-store", "s3", "--bucket", BUCKET];
const STREAMS: usize = 8;
/// Kills in the middle of appends, before the bucket stops.
const KILLS: usize = 3;
/// Who writes meanwhile, each with one request under way.
const WRITERS: usize = 4;
/// Appends that are acked before such a kill.
const APPENDS: usize = 200;
/// How long it may take until something is so, such as that everything is in the bucket.
const SOON: Duration = Duration::from_secs(60);
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

/// How many records a stream has, and how many of them the bucket has.
fn in_the_bucket(client: &mut Client, name: &str) -> Result<(usize, usize)> {
    let answer = client.get(&format!("{name}/_details"))?;
    ensure!(answer.status == 200, "{name}: {} {:?}", answer.status, answer.text());
    let details: Value = serde_json::from_slice(&answer.body)?;
    let number = |field: &str| details["stream"][field].as_str()?.parse::<i64>().ok();
    // The one is where the next record will lie, the other where the last one does.
    let next = number("next_offset").context("a stream has a next offset")?;
    let last = number("uploaded_through").context("a stream is uploaded through somewhere")?;
    Ok((usize::try_from(next)?, usize::try_from(last + 1)?))
}

/// Waits until the bucket has every record of these streams.
fn published<'a>(client: &mut Client, streams: impl Iterator<Item = &'a String>) -> Result<()> {
    for name in streams {
        until(&format!("{name} is in the bucket"), || {
            let (next, uploaded) = in_the_bucket(client, name)?;
            Ok(uploaded == next)
        })?;
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
fn server(url: &str, flags: &[&str]) -> Result<Server> {
    let mut server = Server::stopped(Mode::Full)?;
    server.set_flags(&[&STORE[..], &["--seal-age", "200ms"], flags].concat());
    server.set_variables(&[
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_ENDPOINT_URL", url),
        ("AWS_ALLOW_HTTP", "true"),
    ]);
    Ok(server)
}

#[test]
fn a_store_in_s3_survives_kills_and_a_bucket_that_stops_and_comes_back_from_it_alone() {
    let moto = moto().expect("moto starts");
    let port = moto.url().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let gate = Gate::before(port.expect("a URL with a port")).expect("a gate before moto");
    let mut server = server(&gate.url(), &[]).expect("a directory and a port");
    server.restart().expect("weir starts with its bucket in S3");
    let survived = survive(&mut server, &moto, &gate);
    survived.expect("what was acked is kept, and comes back from the bucket");
}

fn survive(server: &mut Server, moto: &Moto, gate: &Gate) -> Result<()> {
    let mut streams = Streams::new();
    for number in 0..STREAMS {
        create(&mut server.client(), &stream(number), None)?;
        streams.insert(stream(number), Stream::default());
    }
    for kill in 0..KILLS {
        kill_in_the_middle(server, &mut streams)?;
        server.restart()?;
        settle(server, &mut streams).with_context(|| format!("after kill {kill}"))?;
    }
    published(&mut server.client(), streams.keys())?;
    outlive(server, &mut streams, moto, gate).context("a bucket that stops while a server runs")?;
    start_without(server, &mut streams, gate).context("a bucket that is away at a start")?;

    let known = kill_in_the_middle(server, &mut streams)?;
    fs::remove_dir_all(server.directory().join("store"))?;
    let bootstrapped = server.command(&[&["bootstrap"], &STORE[..]].concat())?;
    ensure!(bootstrapped.status.success(), "bootstrap: {bootstrapped:?}");
    server.restart()?;
    come_back(server, &mut streams, &known).context("after the bootstrap")?;
    add_all(&mut server.client(), &mut streams)?;
    published(&mut server.client(), streams.keys())?;
    settle(server, &mut streams)?;
    server.kill()?;
    let verified = server.command(&[&["verify", "--deep"], &STORE[..]].concat())?;
    ensure!(verified.status.success(), "verify: {verified:?}");
    Ok(())
}

/// The streams of a server that is killed while it is written to.
type Streams = BTreeMap<String, Stream>;

/// What is known of one.
#[derive(Default)]
struct Stream {
    acked: Vec<u8>,
    /// A record that was sent and not answered: it is there or not.
    doubtful: Vec<u8>,
    /// Records that were sent.
    sent: usize,
}

/// One append. False if there was no answer.
fn add(client: &mut Client, name: &str, stream: &mut Stream) -> Result<bool> {
    let record = format!("{:06} of {name}; ", stream.sent).into_bytes();
    stream.sent += 1;
    let Ok(answer) = client.post(name, &BYTES, &record) else {
        stream.doubtful = record;
        return Ok(false);
    };
    ensure!(answer.status == 204, "{name}: {} {:?}", answer.status, answer.text());
    stream.acked.extend(record);
    Ok(true)
}

/// One append to each.
fn add_all(client: &mut Client, streams: &mut Streams) -> Result<()> {
    for (name, stream) in streams {
        ensure!(add(client, name, stream)?, "{name}: no answer");
    }
    Ok(())
}

/// Kills the server while every writer waits for an answer or is about to ask. Returns how many records
/// of each stream were seen to be in the bucket before.
fn kill_in_the_middle(
    server: &mut Server,
    streams: &mut Streams,
) -> Result<BTreeMap<String, usize>> {
    let names: Vec<String> = streams.keys().cloned().collect();
    let (acks, mut looker) = (AtomicUsize::new(0), server.client());
    let mut parts: Vec<Vec<_>> = (0..WRITERS).map(|_| Vec::new()).collect();
    streams.iter_mut().enumerate().for_each(|(at, stream)| parts[at % WRITERS].push(stream));
    let mut known = BTreeMap::new();
    thread::scope(|scope| {
        let writers: Vec<_> = parts
            .into_iter()
            .map(|mut part| {
                let (mut client, acks) = (server.client(), &acks);
                scope.spawn(move || -> Result<()> {
                    loop {
                        for (name, stream) in &mut part {
                            if !add(&mut client, name, stream)? {
                                return Ok(());
                            }
                            acks.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        let enough = until("enough is acked", || {
            ensure!(writers.iter().all(|it| !it.is_finished()), "a writer has ended");
            Ok(acks.load(Ordering::Relaxed) >= APPENDS)
        });
        let looked = enough.and_then(|()| {
            for name in &names {
                known.insert(name.clone(), in_the_bucket(&mut looker, name)?.1);
            }
            Ok(())
        });
        // Whatever went wrong: only this ends the writers.
        let killed = server.kill();
        for writer in writers {
            writer.join().expect("no writer panics")?;
        }
        looked.and(killed)
    })?;
    Ok(known)
}

/// Every stream shows what was acked, and what was not answered or not.
fn settle(server: &Server, streams: &mut Streams) -> Result<()> {
    let mut client = server.client();
    for (name, stream) in streams {
        let body = read(&mut client, name)?;
        let doubtful = [&stream.acked[..], &stream.doubtful].concat();
        let has = body.len();
        let fits = body == stream.acked || body == doubtful;
        ensure!(fits, "{name} has {has} bytes of {}", stream.acked.len());
        *stream = Stream { acked: body, doubtful: Vec::new(), sent: stream.sent };
    }
    Ok(())
}

/// Every stream shows what was seen to be in the bucket, and of what followed any beginning.
fn come_back(
    server: &Server,
    streams: &mut Streams,
    known: &BTreeMap<String, usize>,
) -> Result<()> {
    let mut client = server.client();
    for (name, stream) in streams {
        let body = read(&mut client, name)?;
        let sent = [&stream.acked[..], &stream.doubtful].concat();
        ensure!(sent.starts_with(&body), "{name} shows what was never sent, or in another order");
        let records = body.split_inclusive(|byte| *byte == b';').count();
        ensure!(body.is_empty() || body.ends_with(b"; "), "{name} ends within a record");
        // What follows the last `;` is a space.
        let records = records.saturating_sub(1);
        ensure!(records >= known[name], "{name} has {records} records of {}", known[name]);
        *stream = Stream { acked: body, doubtful: Vec::new(), sent: stream.sent };
    }
    Ok(())
}

fn read(client: &mut Client, name: &str) -> Result<Vec<u8>> {
    let answer = client.get(&format!("{name}?offset=-1"))?;
    ensure!(answer.status == 200, "{name}: {} {:?}", answer.status, answer.text());
    Ok(answer.body)
}

/// The bucket says nothing for so long that requests are given up, and then can't be reached; the server
/// lives through both, acks meanwhile, and goes on publishing.
fn outlive(server: &Server, streams: &mut Streams, moto: &Moto, gate: &Gate) -> Result<()> {
    let mut client = server.client();
    let (given_up, failed) = ("weir_bucket_errors_total", "weir_publish_failed_total");
    let before = (figures(&mut client, given_up)?, figures(&mut client, failed)?);
    moto.pause()?;
    add_all(&mut client, streams)?;
    until("a request is given up", || Ok(figures(&mut client, given_up)? > before.0))?;
    add_all(&mut client, streams)?;
    gate.shut();
    until("publishing failed", || Ok(figures(&mut client, failed)? > before.1))?;
    add_all(&mut client, streams)?;
    for name in streams.keys() {
        let (next, uploaded) = in_the_bucket(&mut client, name)?;
        ensure!(uploaded < next, "{name}: all of it is in a bucket that nobody can reach");
    }
    gate.open();
    moto.resume()?;
    published(&mut client, streams.keys())?;
    settle(server, streams)
}

/// A store that was published before starts without its bucket, serves all it has, acks, and publishes
/// once the bucket is there again.
fn start_without(server: &mut Server, streams: &mut Streams, gate: &Gate) -> Result<()> {
    gate.shut();
    add_all(&mut server.client(), streams)?;
    server.kill()?;
    server.restart().context("a known store starts while its bucket is away")?;
    settle(server, streams)?;
    add_all(&mut server.client(), streams)?;
    gate.open();
    published(&mut server.client(), streams.keys())?;
    settle(server, streams)
}

#[test]
fn a_store_in_s3_deletes_forks_and_evicts_and_gives_way_to_who_takes_it_over() {
    let moto = moto().expect("moto starts");
    let flags = ["--cache-bytes", "1MiB"];
    let mut first = server(moto.url(), &flags).expect("a directory and a port");
    let mut second = server(moto.url(), &flags).expect("a directory and a port");
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
        ensure!(start.elapsed() < SOON, "{what}: not within {SOON:?}");
        thread::sleep(LOOK);
    }
    Ok(())
}

fn figure(client: &mut Client, name: &str) -> Result<u64> {
    let text = client.get("/metrics")?.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?)
}

/// The sum of what a family of counters shows, whatever its labels; nothing if it is not there yet.
fn figures(client: &mut Client, family: &str) -> Result<u64> {
    let text = client.get("/metrics")?.text();
    let of_family = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(family)?;
        (rest.starts_with(' ') || rest.starts_with('{')).then_some(rest)
    });
    let values = of_family.filter_map(|rest| rest.rsplit_once(' '));
    Ok(values.map(|(_, value)| value.parse::<u64>()).sum::<Result<u64, _>>()?)
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
