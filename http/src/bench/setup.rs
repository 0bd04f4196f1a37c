//! Before and after: streams are made, read back to be verified, and deleted.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{task::JoinSet, time::Instant};
use weir_io::os::workers;

use super::{
    measure::wide,
    raw::{Failure, Head, Link},
    record::Finder,
    request::Streams,
    verify::{Checker, Violations, Written},
};

/// Bytes read at a time.
const PAGE_BUFFER_BYTES: usize = 256 << 10;
const SMALL_BUFFER_BYTES: usize = 4 << 10;
/// A server that is busy is asked again so often, after a pause that grows.
const ATTEMPTS_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// How long reading back may take.
const VERIFY_TIME_MAX: Duration = Duration::from_secs(300);

/// Who does it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crew {
    pub(super) address: SocketAddr,
    pub(super) threads: usize,
    pub(super) connections: usize,
}

impl Crew {
    /// Runs a task for each connection, spread over the threads.
    pub(super) fn each<T, F>(self, task: impl Fn(usize) -> F + Sync) -> anyhow::Result<Vec<T>>
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
            let mut results = Vec::new();
            while let Some(ended) = tasks.join_next().await {
                results.push(ended??);
            }
            anyhow::Ok(results)
        })?;
        let mut all = Vec::new();
        for one in done {
            all.extend(one?);
        }
        Ok(all)
    }

    /// Makes all streams.
    pub(super) fn create(self, streams: &Arc<Streams>) -> anyhow::Result<()> {
        self.on_each_stream(
            streams,
            "create",
            |streams, stream| streams.create(stream),
            &[201, 200, 204],
        )
    }

    /// Deletes all streams; one that is not there is fine.
    pub(super) fn delete(self, streams: &Arc<Streams>) -> anyhow::Result<()> {
        let request = |streams: &Streams, stream| streams.plain("DELETE", stream, "");
        self.on_each_stream(streams, "delete", request, &[204, 200, 202, 404, 410])
    }

    fn on_each_stream(
        self,
        streams: &Arc<Streams>,
        verb: &'static str,
        request: fn(&Streams, usize) -> Vec<u8>,
        expected: &'static [u16],
    ) -> anyhow::Result<()> {
        let crew = Self { connections: self.connections.min(streams.count), ..self };
        crew.each(|number| {
            let streams = Arc::clone(streams);
            async move {
                let mut link = Link::new(crew.address, SMALL_BUFFER_BYTES);
                for stream in (number..streams.count).step_by(crew.connections) {
                    let request = request(&streams, stream);
                    let done = insist(&mut link, &request, expected).await;
                    done.with_context(|| format!("cannot {verb} {}", streams.path(stream)))?;
                }
                Ok(())
            }
        })?;
        Ok(())
    }

    /// Reads all streams and compares them with what was written there. Returns how many records
    /// were there and what is wrong.
    pub(super) fn verify(
        self,
        streams: &Arc<Streams>,
        written: Vec<BTreeMap<u32, Written>>,
    ) -> anyhow::Result<(u64, Violations)> {
        let crew = Self { connections: self.connections.min(streams.count).min(16), ..self };
        let written = Arc::new(written);
        let results = crew.each(|number| {
            let (streams, written) = (Arc::clone(streams), Arc::clone(&written));
            async move {
                let deadline = Instant::now() + VERIFY_TIME_MAX;
                let mut link = Link::new(crew.address, PAGE_BUFFER_BYTES);
                let (mut records, mut violations) = (0, Violations::default());
                for stream in (number..streams.count).step_by(crew.connections) {
                    let mut checker = Checker::default();
                    let request =
                        |offset: &str| streams.plain("GET", stream, &format!("?offset={offset}"));
                    let read = read_all(&mut link, request, &mut checker);
                    let read = tokio::time::timeout_at(deadline, read).await;
                    let read = read.context("it takes too long: --no-verify goes without")?;
                    read.with_context(|| format!("cannot read {}", streams.path(stream)))?;
                    records += checker.records;
                    violations.add(checker.judge(&written[stream]));
                }
                Ok((records, violations))
            }
        })?;
        let mut sum = (0, Violations::default());
        for (records, violations) in results {
            sum.0 += records;
            sum.1.add(violations);
        }
        Ok(sum)
    }
}

/// Reads from the beginning to the end, with the request for each offset. Returns the bytes of all
/// bodies.
pub(super) async fn read_all(
    link: &mut Link,
    request: impl Fn(&str) -> Vec<u8>,
    checker: &mut Checker,
) -> anyhow::Result<u64> {
    let (mut offset, mut bytes) = ("-1".to_owned(), 0);
    loop {
        let page = page(link, &request(&offset), |mark| checker.see(mark)).await?;
        bytes += page.bytes;
        match page.next {
            Some(next) if !page.is_last && next != offset => offset = next,
            Some(_) => return Ok(bytes),
            None => bail!("the answer names no next offset"),
        }
    }
}

/// One answer of a read.
pub(super) struct Page {
    pub(super) next: Option<String>,
    pub(super) is_last: bool,
    pub(super) bytes: u64,
}

/// Reads one page and gives the marks of its records to `see`.
async fn page(
    link: &mut Link,
    request: &[u8],
    mut see: impl FnMut(super::record::Mark),
) -> anyhow::Result<Page> {
    let mut attempt = 0;
    loop {
        let (head, connection) = match link.ask(request).await {
            Ok(answer) => answer,
            Err(failure) if attempt < ATTEMPTS_MAX => {
                pause(&mut attempt, &failure.to_string()).await?;
                continue;
            }
            Err(failure) => return Err(failure.into()),
        };
        if head.status != 200 {
            let excuse = connection.excuse().await?;
            if !is_busy(head.status) {
                bail!("{} {excuse}", head.status);
            }
            pause(&mut attempt, &excuse).await?;
            continue;
        }
        let next = next_offset(&head, connection.bytes(head.next_offset.clone().unwrap_or(0..0)));
        let (mut finder, mut bytes) = (Finder::default(), 0);
        while let Some(piece) = connection.piece().await? {
            bytes += wide(piece.len());
            finder.look(connection.bytes(piece), &mut see);
        }
        return Ok(Page { next, is_last: head.up_to_date || head.closed, bytes });
    }
}

/// The next offset of an answer, where its head says that it stands.
pub(super) fn next_offset(head: &Head, bytes: &[u8]) -> Option<String> {
    head.next_offset.as_ref().map(|_| String::from_utf8_lossy(bytes).into_owned())
}

/// Whether asking again makes sense.
pub(super) const fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..)
}

/// Asks until the answer is as expected.
pub(super) async fn insist(
    link: &mut Link,
    request: &[u8],
    expected: &[u16],
) -> anyhow::Result<()> {
    let mut attempt = 0;
    loop {
        let failure: Failure = match link.ask(request).await {
            Ok((head, connection)) if expected.contains(&head.status) => {
                connection.skip().await?;
                return Ok(());
            }
            Ok((head, connection)) => {
                let excuse = connection.excuse().await?;
                if !is_busy(head.status) {
                    bail!("{} {excuse}", head.status);
                }
                pause(&mut attempt, &format!("{} {excuse}", head.status)).await?;
                continue;
            }
            Err(failure) => failure,
        };
        pause(&mut attempt, &failure.to_string()).await?;
    }
}

/// Waits before the next attempt, if there is one.
async fn pause(attempt: &mut u32, why: &str) -> anyhow::Result<()> {
    *attempt += 1;
    if *attempt == ATTEMPTS_MAX {
        bail!("given up after {ATTEMPTS_MAX} attempts: {why}");
    }
    tokio::time::sleep(PAUSE * *attempt).await;
    Ok(())
}
