//! The benches from their flags to their reports.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{
    Bench,
    append::{self, Nobody, Plan, Writer},
    create::Creator,
    deliver::Boards,
    flags::{
        AppendFlags, CreateFlags, LiveFlags, MixedFlags, ReadFlags, RunFlags, TailFlags, WriteFlags,
    },
    load::{Run, spread},
    raw::Link,
    read::{self, Expect, FILL_TIME_MAX, Filling, Part, Scanned, Scanner},
    record,
    report::Report,
    request::{Shape, Streams},
    say,
    setup::{Crew, Gauge, Passed, VERIFY_TIME_MAX, Verb},
    tail::{CONNECTING_MAX, Company, Live, Reader},
    verify::{Verdict, Written},
};
use crate::cli::client::progress::Unit;

pub(super) fn append(flags: &AppendFlags) -> anyhow::Result<Report> {
    let AppendFlags { run: run_flags, write, connections, rate } = flags;
    let bench = Bench::new(run_flags, *connections)?;
    let streams = bench.streams(write.streams, &write.content_type, write.bytes);
    let settings = bench.settings(run_flags, write_settings(write, *connections, *rate));
    let report = Report::new("append", &bench.target.to_string(), settings);
    bench.with_streams(run_flags, &streams, report, |report| {
        bench.phase(report, "create", || bench.crew.on_each(&streams, Verb::Create))?;
        say("append");
        let run = bench.run(run_flags, *connections, *rate);
        let plan = plan(&bench, &run, &streams, write, *connections);
        let outcome = spread(&run, bench.threads, *connections, |number, books| {
            let writer = Writer::new(&plan, number);
            async move { writer?.work(books, Nobody).await }
        })?;
        let tally = outcome.books.append.lock();
        report.put_phase("append", &tally);
        report.put_interrupted(&run.span);
        report.put_costs(outcome.costs, tally.span(), tally.requests);
        let written = append::by_stream(streams.count, outcome.results);
        let acked = append::acked(&written);
        report.put("acked_records", json!(acked));
        if !run_flags.no_verify {
            bench.verify(report, &streams, written, vec![Vec::new(); streams.count])?;
        }
        // A server that went away has not refused anything.
        if acked == 0 && !run.was_stopped() && !report.is_unverified() {
            report.problem("no request was carried out: see the failures".to_owned());
        }
        Ok(())
    })
}

pub(super) fn create(flags: &CreateFlags) -> anyhow::Result<Report> {
    let CreateFlags { run: run_flags, connections, streams, content_type } = flags;
    if run_flags.replace {
        bail!("nobody knows how many streams an earlier run has made: take another --name");
    }
    let bench = Bench::new(run_flags, *connections)?;
    let settings = json!({
        "connections": connections,
        "streams": streams,
        "content_type": content_type,
    });
    let settings = bench.settings(run_flags, settings);
    let report = Report::new("create", &bench.target.to_string(), settings);
    let all = bench.streams(*streams, content_type, record::BYTES_MIN);
    bench.with_streams(run_flags, &all, report, |report| {
        say("create");
        let run = bench.run(run_flags, *connections, None);
        let next = Arc::new(AtomicUsize::new(0));
        let outcome = spread(&run, bench.threads, *connections, |_, books| {
            let (run, streams, next) = (run.clone(), Arc::clone(&all), Arc::clone(&next));
            Creator { run, streams, next }.work(books)
        })?;
        let tally = outcome.books.append.lock();
        report.put_phase("create", &tally);
        report.put_interrupted(&run.span);
        report.put_costs(outcome.costs, tally.span(), tally.requests);
        let made = next.load(Ordering::Relaxed).min(*streams);
        report.put("streams", json!(made));
        Ok(())
    })
}

pub(super) fn read(flags: &ReadFlags) -> anyhow::Result<Report> {
    let ReadFlags { run: run_flags, connections, streams, size, bytes, content_type, keys } = flags;
    let bench = Bench::new(run_flags, *connections)?;
    let settings = json!({
        "connections": connections,
        "streams": streams,
        "size": size,
        "bytes": bytes,
        "content_type": content_type,
        "keys": keys,
    });
    let settings = bench.settings(run_flags, settings);
    let report = Report::new("read", &bench.target.to_string(), settings);
    let all = bench.streams(*streams, content_type, *bytes);
    let filling = Filling {
        bytes: *size,
        record_bytes: *bytes,
        keys: keys.unwrap_or(0),
        time_max: FILL_TIME_MAX,
    };
    bench.with_streams(run_flags, &all, report, |report| {
        bench.phase(report, "fill", || {
            bench.crew.on_each(&all, Verb::Create)?;
            read::fill(bench.crew, &all, filling)
        })?;
        let parts = connections.min(&(streams * filling.keys.max(1))).to_owned();
        let part = |number| Part::of(number % parts, *streams, filling.keys);
        let check = || check_parts(bench.crew, &all, parts, filling);
        let (expected, verdict) = bench.phase(report, "verify", check)?;
        report.verified(verdict);

        say("read");
        let run = bench.run(run_flags, *connections, None);
        let outcome = spread(&run, bench.threads, *connections, |number, books| {
            let expect = Expect::Same(expected[number % parts].clone());
            let (run, streams, part) = (run.clone(), Arc::clone(&all), part(number));
            Scanner { run, streams, part, expect }.work(books)
        })?;
        let tally = outcome.books.scan.lock();
        report.put_phase("read", &tally);
        report.put_interrupted(&run.span);
        report.put_costs(outcome.costs, tally.span(), tally.requests);
        report.put("whole_reads", json!(outcome.results.iter().map(|it| it.times).sum::<u64>()));
        let alone = outcome.results.iter().filter(|it| it.company == Company::Alone).count();
        if alone > 0 {
            report.not_verified(without_server(alone));
        }
        outcome.results.into_iter().for_each(|it| report.verified(it.verdict));
        Ok(())
    })
}

/// Reads each part once. Returns what each holds, and what is wrong.
fn check_parts(
    crew: Crew,
    streams: &Arc<Streams>,
    parts: usize,
    filling: Filling,
) -> anyhow::Result<(Vec<Passed>, Verdict)> {
    let crew = Crew { connections: parts, ..crew };
    let gauge = Gauge::new(Unit::Things("parts"), parts);
    let mut checked = crew.each(&gauge, |number| {
        let (streams, gauge) = (Arc::clone(streams), gauge.clone());
        async move {
            let mut link = Link::new(crew.peer, 256 << 10);
            let part = Part::of(number, streams.count, filling.keys);
            let checked = read::check(&mut link, &streams, part, filling);
            let checked = tokio::time::timeout(VERIFY_TIME_MAX, checked).await;
            let checked = checked.context("reading once takes too long: take less --size")??;
            gauge.add(1);
            anyhow::Ok((number, checked))
        }
    })?;
    checked.sort_by_key(|(number, _)| *number);
    let (mut held, mut all) = (Vec::new(), Verdict::default());
    for (_, (passed, verdict)) in checked {
        held.push(passed);
        all.add(verdict);
    }
    Ok((held, all))
}

pub(super) fn tail(flags: &TailFlags) -> anyhow::Result<Report> {
    let TailFlags { run, write, live, connections, rate } = flags;
    let load = Load { write, live, connections: *connections, scanners: 0, rate: Some(*rate) };
    together("tail", run, load)
}

pub(super) fn mixed(flags: &MixedFlags) -> anyhow::Result<Report> {
    let MixedFlags { run, write, live, connections, scanners, rate } = flags;
    let load = Load { write, live, connections: *connections, scanners: *scanners, rate: *rate };
    together("mixed", run, load)
}

/// Writers and readers of both kinds.
#[derive(Clone, Copy)]
struct Load<'a> {
    write: &'a WriteFlags,
    live: &'a LiveFlags,
    connections: usize,
    scanners: usize,
    rate: Option<f64>,
}

/// What one of them came to.
enum Role {
    Writer(u32, Vec<(usize, Written)>),
    Reader(Verdict, Company),
    Scanner(Scanned),
}

/// What all of them came to.
struct Together {
    written: Vec<(u32, Vec<(usize, Written)>)>,
    /// What readers saw.
    verdict: Verdict,
    /// Readers whose server was away at their end.
    alone: usize,
    whole_reads: u64,
    /// What was read last of each stream, by whom ever.
    read_before: Vec<Vec<Passed>>,
}

impl Together {
    fn of(roles: Vec<Role>, streams: usize) -> Self {
        let mut all = Self {
            written: Vec::new(),
            verdict: Verdict::default(),
            alone: 0,
            whole_reads: 0,
            read_before: vec![Vec::new(); streams],
        };
        for role in roles {
            match role {
                Role::Writer(id, owned) => all.written.push((id, owned)),
                Role::Reader(verdict, company) => {
                    all.alone += usize::from(company == Company::Alone);
                    all.verdict.add(verdict);
                }
                Role::Scanner(scanned) => {
                    all.alone += usize::from(scanned.company == Company::Alone);
                    all.whole_reads += scanned.times;
                    all.read_before[scanned.stream].extend(scanned.certain());
                    all.verdict.add(scanned.verdict);
                }
            }
        }
        all
    }
}

fn together(name: &str, run_flags: &RunFlags, load: Load<'_>) -> anyhow::Result<Report> {
    let Load { write, live: LiveFlags { readers, live }, connections, scanners, rate } = load;
    let bench = Bench::new(run_flags, connections)?;
    let streams = bench.streams(write.streams, &write.content_type, write.bytes);
    if *live == Live::Sse && !streams.is_json() && !write.content_type.starts_with("text/") {
        bail!("event streams of {} are base64: take JSON, text or long-poll", write.content_type);
    }
    let mut settings = write_settings(write, connections, rate);
    settings["readers"] = (*readers).into();
    settings["scanners"] = scanners.into();
    settings["live"] = live.name().into();
    let settings = bench.settings(run_flags, settings);
    let report = Report::new(name, &bench.target.to_string(), settings);
    bench.with_streams(run_flags, &streams, report, |report| {
        bench.phase(report, "create", || bench.crew.on_each(&streams, Verb::Create))?;

        say(name);
        let all = connections + readers + scanners;
        let run = bench.run(run_flags, all, rate);
        let plan = plan(&bench, &run, &streams, write, connections);
        let boards = Boards::new(&run.span, streams.count, connections, *readers);
        let turn = Arc::new(Semaphore::new(CONNECTING_MAX));
        let outcome = spread(&run, bench.threads, all, |number, books| {
            let (run, streams, boards) = (run.clone(), Arc::clone(&streams), boards.clone());
            let (plan, turn, live) = (plan.clone(), Arc::clone(&turn), *live);
            let readers = connections..connections + readers;
            async move {
                if number < connections {
                    let done = Writer::new(&plan, number)?.work(books, boards.clone()).await;
                    // Readers wait for all writers, those that failed too.
                    let written = done.as_ref().map_or(&[][..], |(_, owned)| owned);
                    boards.writer_ended(u32::try_from(number)?, written);
                    let (id, owned) = done?;
                    Ok(Role::Writer(id, owned))
                } else if readers.contains(&number) {
                    let stream = (number - connections) % streams.count;
                    let reader = Reader { run, streams, stream, live, boards, turn };
                    let (verdict, company) = reader.work(books).await?;
                    Ok(Role::Reader(verdict, company))
                } else {
                    let part = Part::of(number - readers.end, streams.count, 0);
                    let scanner = Scanner { run, streams, part, expect: Expect::More };
                    Ok(Role::Scanner(scanner.work(books).await?))
                }
            }
        })?;
        let done = Together::of(outcome.results, streams.count);
        report.verified(done.verdict);
        let tally = outcome.books.append.lock();
        report.put_phase("append", &tally);
        let deliveries = outcome.books.tail.lock();
        report.put("tail", deliveries.to_json());
        if scanners > 0 {
            report.put_phase("read", &outcome.books.scan.lock());
            report.put("whole_reads", json!(done.whole_reads));
        }
        report.put_interrupted(&run.span);
        // What is paid for here is the delivery of a record to a reader.
        report.put_costs(outcome.costs, tally.span(), deliveries.count());
        if !run_flags.no_verify {
            let written = append::by_stream(streams.count, done.written);
            bench.verify(report, &streams, written, done.read_before)?;
        } else if done.alone > 0 {
            report.not_verified(without_server(done.alone));
        }
        Ok(())
    })
}

fn without_server(readers: usize) -> String {
    format!("{readers} readers had no server at their end")
}

fn plan(
    bench: &Bench,
    run: &Run,
    streams: &Arc<Streams>,
    write: &WriteFlags,
    writers: usize,
) -> Plan {
    Plan {
        run: run.clone(),
        streams: Arc::clone(streams),
        shape: Shape { record_bytes: write.bytes, batch: write.batch },
        writers,
        producer: write.producers.then(|| bench.nonce.clone()),
        order: write.order.into(),
    }
}

fn write_settings(write: &WriteFlags, connections: usize, rate: Option<f64>) -> Value {
    json!({
        "connections": connections,
        "streams": write.streams,
        "bytes": write.bytes,
        "batch": write.batch,
        "content_type": write.content_type,
        "producers": write.producers,
        "order": write.order.to_possible_value().map(|it| it.get_name().to_owned()),
        "rate": rate,
    })
}
