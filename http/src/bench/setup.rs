//! Before and after: streams are made, read back to be verified, and deleted.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{task::JoinSet, time::Instant};
use weir_io::os::workers;

use super::{
    load::asked_to_end,
    measure::wide,
    raw::{Failure, Head, Link, Peer},
    record::{Finder, Flaws, Form, LastBreak},
    request::Streams,
    sum::Sum,
    verify::{Checker, Verdict, Written},
};
use crate::cli::{
    ONE_SIGNAL,
    client::progress::{Progress, Unit},
};

/// Bytes read at a time.
const PAGE_BUFFER_BYTES: usize = 256 << 10;
const SMALL_BUFFER_BYTES: usize = 4 << 10;
/// A server that is busy is asked again so often, after a pause that grows.
const ATTEMPTS_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// How long one request is insisted on: a server that says nothing is not waited for.
const INSIST_TIME_MAX: Duration = Duration::from_secs(30);
/// How long reading back may take.
pub(super) const VERIFY_TIME_MAX: Duration = Duration::from_secs(300);

/// How long what is on its way may take when somebody wants the end.
const GRACE: Duration = Duration::from_secs(1);
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// Somebody wants it to end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// The server has refused a request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status} {excuse}")]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) excuse: String,
}

/// How far some work is. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Gauge {
    done: Arc<AtomicU64>,
    /// Nothing more is to be begun.
    ended: Arc<AtomicBool>,
    total: u64,
    unit: Unit,
}

impl Gauge {
    /// Nothing of `total` is done.
    pub(super) fn new(unit: Unit, total: usize) -> Self {
        Self { done: Arc::default(), ended: Arc::default(), total: wide(total), unit }
    }

    /// So much more is done.
    pub(super) fn add(&self, more: usize) {
        self.done.fetch_add(wide(more), Ordering::Relaxed);
    }

    /// Whether nothing more is to be begun, since something failed or somebody wants it.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Shows it, until it is dropped.
    async fn show(&self) {
        let mut progress = Progress::of(self.unit, Some(self.total));
        let mut shown = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            let done = self.done.load(Ordering::Relaxed);
            progress.add(done - shown);
            shown = done;
        }
    }
}

/// Who does it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crew {
    pub(super) peer: Peer,
    pub(super) threads: usize,
    pub(super) connections: usize,
}

/// What is done with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Makes it. One that is there is refused: what an earlier run left in it would be taken for
    /// this one's.
    Create,
    /// Deletes it; one that is not there is fine.
    Delete,
    /// Deletes it if this run has made it.
    DeleteOwn,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Delete | Self::DeleteOwn => "delete",
        })
    }
}

impl Verb {
    async fn carry_out(
        self,
        link: &mut Link,
        streams: &Streams,
        stream: usize,
    ) -> anyhow::Result<()> {
        if self == Self::Create {
            let created = insist(link, &streams.create(stream), &[201, 200, 204]).await?;
            // The answer to an earlier attempt may have been lost.
            if created.status != 201 && created.attempts == 0 {
                bail!(THERE_ALREADY);
            }
            streams.made(stream);
        } else if self == Self::Delete || streams.is_made(stream) {
            let request = streams.plain("DELETE", stream, "");
            insist(link, &request, &[204, 200, 202, 404, 410]).await?;
        }
        Ok(())
    }
}

/// Said of a stream that is not this run's.
pub(super) const THERE_ALREADY: &str = "it is there from another run: take another --name, or \
                                        --replace it";

impl Crew {
    /// Runs a task for each connection, spread over the threads.
    ///
    /// # Errors
    /// The first that one failed with, or [`Interrupted`].
    pub(super) fn each<T, F>(
        self,
        gauge: &Gauge,
        task: impl Fn(usize) -> F + Sync,
    ) -> anyhow::Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        let threads = self.threads.min(self.connections).max(1);
        let done = workers::run("bench", threads, async |thread| {
            let mut tasks = JoinSet::new();
            for number in (thread..self.connections).step_by(threads) {
                tasks.spawn(task(number));
            }
            // What is on its way ends, whatever becomes of the others: it may make a stream.
            let work = async {
                let mut results = Ok(Vec::new());
                while let Some(ended) = tasks.join_next().await {
                    match (&mut results, ended?) {
                        (Ok(results), Ok(result)) => results.push(result),
                        (Ok(_), Err(error)) => {
                            gauge.end();
                            results = Err(error);
                        }
                        (Err(_), _) => {}
                    }
                }
                results
            };
            let mut work = pin!(work);
            let shown = async {
                if thread > 0 {
                    std::future::pending::<()>().await;
                }
                gauge.show().await;
            };
            tokio::select! {
                results = &mut work => results,
                () = asked_to_end() => {
                    gauge.end();
                    // Who is in the middle of something long is not waited for.
                    let work = tokio::time::timeout(GRACE, work);
                    // What is done next would take the rest of this signal for one of its own.
                    drop(tokio::join!(work, tokio::time::sleep(ONE_SIGNAL)));
                    Err(Interrupted.into())
                }
                () = shown => unreachable!("it has no end"),
            }
        })?;
        let mut all = Vec::new();
        for one in done {
            all.extend(one?);
        }
        Ok(all)
    }

    /// Does something with each stream.
    ///
    /// # Errors
    /// The first that failed.
    pub(super) fn on_each(self, streams: &Arc<Streams>, verb: Verb) -> anyhow::Result<()> {
        let crew = Self { connections: self.connections.min(streams.count), ..self };
        let gauge = Gauge::new(Unit::Things("streams"), streams.count);
        crew.each(&gauge, |number| {
            let (streams, gauge) = (Arc::clone(streams), gauge.clone());
            async move {
                let mut link = Link::new(crew.peer, SMALL_BUFFER_BYTES);
                for stream in (number..streams.count).step_by(crew.connections) {
                    if gauge.has_ended() {
                        break;
                    }
                    let done = verb.carry_out(&mut link, &streams, stream).await;
                    done.with_context(|| format!("cannot {verb} {}", streams.path(stream)))?;
                    gauge.add(1);
                }
                Ok(())
            }
        })?;
        Ok(())
    }

    /// Whether somebody takes connections where the server was.
    pub(super) fn is_there(self) -> bool {
        let tried = workers::run("probe", 1, async |_| {
            let connected =
                async { Link::new(self.peer, SMALL_BUFFER_BYTES).connect().await.is_ok() };
            tokio::time::timeout(GRACE, connected).await.unwrap_or(false)
        });
        tried.is_ok_and(|tried| tried.into_iter().all(|it| it))
    }

    /// Reads all streams and compares them with what was written there, and with what was read
    /// there before.
    pub(super) fn verify(
        self,
        streams: &Arc<Streams>,
        written: Vec<BTreeMap<u32, Written>>,
        read_before: Vec<Vec<Passed>>,
    ) -> anyhow::Result<Verdict> {
        let crew = Self { connections: self.connections.min(streams.count).min(16), ..self };
        let written = Arc::new((written, read_before));
        let gauge = Gauge::new(Unit::Things("streams"), streams.count);
        let results = crew.each(&gauge, |number| {
            let (streams, written) = (Arc::clone(streams), Arc::clone(&written));
            let gauge = gauge.clone();
            async move {
                let deadline = Instant::now() + VERIFY_TIME_MAX;
                let mut link = Link::new(crew.peer, PAGE_BUFFER_BYTES);
                let mut verdict = Verdict::default();
                for stream in (number..streams.count).step_by(crew.connections) {
                    if gauge.has_ended() {
                        break;
                    }
                    let (written, before) = (&written.0[stream], &written.1[stream]);
                    let mut checker = Checker::new(stream);
                    let mut sum = Sum::new(streams.is_json());
                    before.iter().for_each(|it| sum.pass(it.bytes));
                    let request =
                        |offset: &str| streams.plain("GET", stream, &format!("?offset={offset}"));
                    let read = read_all(&mut link, request, &mut checker, &mut sum, &streams.form);
                    let read = tokio::time::timeout_at(deadline, read).await;
                    let read = read.context("it takes too long: --no-verify goes without")?;
                    read.with_context(|| format!("cannot read {}", streams.path(stream)))?;
                    verdict.add(checker.judge(written));
                    for it in before.iter().filter(|it| sum.at(it.bytes) != Some(it.crc)) {
                        verdict.changed(stream, &it.offset, (it.bytes, sum.bytes()));
                    }
                    gauge.add(1);
                }
                Ok(verdict)
            }
        })?;
        let mut all = Verdict::default();
        results.into_iter().for_each(|verdict| all.add(verdict));
        Ok(all)
    }
}

/// How far a read came, and what it read up to there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) offset: String,
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

/// Reads from the beginning to the end, with the request for each offset. Returns the offset of
/// the end.
pub(super) async fn read_all(
    link: &mut Link,
    request: impl Fn(&str) -> Vec<u8>,
    checker: &mut Checker,
    sum: &mut Sum,
    form: &Form,
) -> anyhow::Result<String> {
    let mut offset = "-1".to_owned();
    loop {
        checker.at(&offset);
        let (page, flaws) = page(link, &request(&offset), form, checker, sum).await?;
        checker.flawed(&flaws);
        match page.next {
            Some(next) if !page.is_last && next != offset => offset = next,
            Some(next) => return Ok(next),
            None => bail!("the answer names no next offset"),
        }
    }
}

/// One answer of a read.
pub(super) struct Page {
    pub(super) next: Option<String>,
    pub(super) is_last: bool,
}

/// Reads one page and gives its records to the checker. Returns what was wrong with it.
async fn page(
    link: &mut Link,
    request: &[u8],
    form: &Form,
    checker: &mut Checker,
    sum: &mut Sum,
) -> anyhow::Result<(Page, Flaws)> {
    let mut attempt = 0;
    loop {
        let (head, connection) = match link.ask(request).await {
            Ok(answer) => answer,
            Err(failure) => {
                pause(&mut attempt, failure).await?;
                continue;
            }
        };
        if head.status != 200 {
            let excuse = connection.excuse().await?;
            if !is_busy(head.status) {
                return Err(Refusal { status: head.status, excuse }.into());
            }
            pause(&mut attempt, Failure::Busy(head.status, excuse)).await?;
            continue;
        }
        let next = next_offset(&head, connection.bytes(head.next_offset.clone().unwrap_or(0..0)));
        let mut finder = Finder::new(form);
        sum.begin();
        while let Some(piece) = connection.piece().await? {
            let piece = connection.bytes(piece);
            sum.take(piece);
            finder.look(piece, |mark| checker.see(mark));
        }
        sum.end();
        let page = Page { next, is_last: head.up_to_date || head.closed };
        return Ok((page, finder.finish(LastBreak::Kept)));
    }
}

/// The next offset of an answer, where its head says that it stands.
pub(super) fn next_offset(head: &Head, bytes: &[u8]) -> Option<String> {
    head.next_offset.as_ref().map(|_| String::from_utf8_lossy(bytes).into_owned())
}

/// Whether asking again makes sense. What a server does not do at all it does not do later.
pub(super) const fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502..)
}

/// How a request ended that was insisted on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Insisted {
    status: u16,
    /// Attempts before the one that was answered so.
    attempts: u32,
}

/// Asks until the answer is as expected, or for long enough.
pub(super) async fn insist(
    link: &mut Link,
    request: &[u8],
    expected: &[u16],
) -> anyhow::Result<Insisted> {
    let insisted = tokio::time::timeout(INSIST_TIME_MAX, ask(link, request, expected)).await;
    insisted.unwrap_or_else(|_| {
        let silent = io::Error::new(io::ErrorKind::TimedOut, "the server does not answer");
        Err(Failure::from(silent).into())
    })
}

async fn ask(link: &mut Link, request: &[u8], expected: &[u16]) -> anyhow::Result<Insisted> {
    let mut attempt = 0;
    loop {
        let failure: Failure = match link.ask(request).await {
            Ok((head, connection)) if expected.contains(&head.status) => {
                connection.skip().await?;
                return Ok(Insisted { status: head.status, attempts: attempt });
            }
            Ok((head, connection)) => {
                let excuse = connection.excuse().await?;
                if !is_busy(head.status) {
                    return Err(Refusal { status: head.status, excuse }.into());
                }
                Failure::Busy(head.status, excuse)
            }
            Err(failure) => failure,
        };
        pause(&mut attempt, failure).await?;
    }
}

/// Waits before the next attempt, if there is one.
async fn pause(attempt: &mut u32, failure: Failure) -> Result<(), Failure> {
    *attempt += 1;
    if *attempt == ATTEMPTS_MAX {
        return Err(failure);
    }
    tokio::time::sleep(PAUSE * *attempt).await;
    Ok(())
}
