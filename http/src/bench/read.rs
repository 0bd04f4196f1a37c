//! Readers that catch up: from the beginning of a stream to its end, again and again.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;

use super::{
    is_away,
    load::Run,
    measure::{Shared, wide},
    raw::{Failure, Link},
    request::{Append, Headers, Shape, Streams},
    setup::{self, Crew, Gauge, Page, Passed, Refusal},
    sum::Sum,
    tail::Company,
    verify::{Checker, Verdict, Written},
};
use crate::cli::client::progress::Unit;

/// Bytes of one request that fills a stream.
const FILL_BYTES: usize = 1 << 20;
/// How long filling may take, however much it is.
pub(super) const FILL_TIME_MAX: Duration = Duration::from_secs(600);
const SMALL_BUFFER_BYTES: usize = 4 << 10;
/// Bytes read from the socket at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// A reader that keeps up with its stream asks again after this, one that failed a little later.
const PAUSE: Duration = Duration::from_millis(1);
/// The longest pause before a page is asked for again.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// Attempts at one page of a server that answers, but not so that it can be read.
const ATTEMPTS_MAX: u32 = 10;

/// What the streams are filled with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filling {
    /// Bytes in each stream.
    pub(super) bytes: usize,
    pub(super) record_bytes: usize,
    /// Keys that the requests have in turn; 0: they have none.
    pub(super) keys: usize,
    /// How long that may take.
    pub(super) time_max: Duration,
}

impl Filling {
    fn shape(self) -> Shape {
        let wanted = self.bytes.min(FILL_BYTES);
        // With keys, many small requests: what shares a request shares a key.
        let wanted = if self.keys > 0 { wanted.min(8 << 10) } else { wanted };
        Shape { record_bytes: self.record_bytes, batch: (wanted / self.record_bytes).max(1) }
    }

    fn writers(self) -> usize {
        self.keys.max(1)
    }

    /// Requests of each writer to each stream.
    fn requests(self) -> u64 {
        let Shape { record_bytes, batch } = self.shape();
        wide(self.bytes.div_ceil(record_bytes * batch * self.writers()).max(1))
    }

    /// What a writer has written to each stream, afterwards.
    fn written(self) -> Written {
        Written { sent: self.requests() * wide(self.shape().batch), ..Written::default() }
    }
}

/// The name of a key.
fn key(number: usize) -> String {
    format!("key-{number}")
}

/// Fills all streams.
pub(super) fn fill(crew: Crew, streams: &Arc<Streams>, filling: Filling) -> anyhow::Result<()> {
    let crew = Crew { connections: crew.connections.min(streams.count), ..crew };
    let gauge = Gauge::new(Unit::Bytes, filling.bytes.saturating_mul(streams.count));
    crew.each(&gauge, |number| {
        let (streams, gauge) = (Arc::clone(streams), gauge.clone());
        let filled = async move {
            let mut link = Link::new(crew.peer, SMALL_BUFFER_BYTES);
            let writer = |number| {
                let key = (filling.keys > 0).then(|| key(number));
                let headers = Headers { producer: None, key: key.as_deref() };
                anyhow::Ok(Append::new(&streams, filling.shape(), u32::try_from(number)?, headers))
            };
            let writers: anyhow::Result<Vec<_>> = (0..filling.writers()).map(writer).collect();
            let mut writers = writers?;
            for stream in (number..streams.count).step_by(crew.connections) {
                for request in 0..filling.requests() {
                    if gauge.has_ended() {
                        return Ok(());
                    }
                    for append in &mut writers {
                        append.aim(stream, request);
                        let done = setup::insist(&mut link, append.bytes(), &[200, 201, 204]).await;
                        done.with_context(|| format!("cannot fill {}", streams.path(stream)))?;
                        gauge.add(append.body().len());
                    }
                }
            }
            anyhow::Ok(())
        };
        async move {
            let filled = tokio::time::timeout(filling.time_max, filled).await;
            filled.map_err(|_| {
                let minutes = filling.time_max.as_secs() / 60;
                anyhow::anyhow!(
                    "the streams are not full after {minutes} minutes: take less --size"
                )
            })?
        }
    })?;
    Ok(())
}

/// What a reader reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) stream: usize,
    /// The records of this key only.
    pub(super) key: Option<usize>,
}

impl Part {
    /// The part of reader number `number`: streams first, then keys.
    pub(super) fn of(number: usize, streams: usize, keys: usize) -> Self {
        let key = (keys > 0).then(|| number / streams % keys);
        Self { stream: number % streams, key }
    }

    fn request(self, streams: &Streams, offset: &str) -> Vec<u8> {
        let key = self.key.map_or(String::new(), |number| format!("&key={}", key(number)));
        streams.plain("GET", self.stream, &format!("?offset={offset}{key}"))
    }
}

/// Reads a part once and compares it with what it was filled with. Returns what each later read of
/// it must hold.
pub(super) async fn check(
    link: &mut Link,
    streams: &Streams,
    part: Part,
    filling: Filling,
) -> anyhow::Result<(Passed, Verdict)> {
    let (mut checker, mut sum) = (Checker::new(part.stream), Sum::new(streams.is_json()));
    let request = |offset: &str| part.request(streams, offset);
    let offset = setup::read_all(link, request, &mut checker, &mut sum, &streams.form).await?;
    let writers = match part.key {
        Some(key) => key..key + 1,
        None => 0..filling.writers(),
    };
    let written = writers.map(|writer| anyhow::Ok((u32::try_from(writer)?, filling.written())));
    let passed = Passed { offset, bytes: sum.bytes(), crc: sum.crc() };
    Ok((passed, checker.judge(&written.collect::<anyhow::Result<_>>()?)))
}

/// What a reader knows of what it reads.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    /// The same each time.
    Same(Passed),
    /// What was there, and perhaps more behind it.
    More,
}

/// What a reader that catches up came to.
pub(super) struct Scanned {
    /// How often it came to the end in the time measured.
    pub(super) times: u64,
    pub(super) stream: usize,
    /// What it read last, from the beginning to the end.
    passed: Option<Passed>,
    /// What it read after that, if it was another thing: one of the two is wrong.
    rival: Option<Passed>,
    /// What was wrong with its reads.
    pub(super) verdict: Verdict,
    pub(super) company: Company,
}

impl Scanned {
    /// What it read last, unless it read something else as well: that is told already.
    pub(super) fn certain(&self) -> Option<Passed> {
        self.passed.clone().filter(|_| self.rival.is_none())
    }
}

/// A reader that catches up until the run is over.
pub(super) struct Scanner {
    pub(super) run: Run,
    pub(super) streams: Arc<Streams>,
    pub(super) part: Part,
    pub(super) expect: Expect,
}

impl Scanner {
    /// A link that suits it.
    pub(super) const fn link(run: &Run) -> Link {
        Link::new(run.peer, BUFFER_BYTES)
    }

    /// Reads again and again.
    pub(super) async fn work(self, tally: Shared) -> anyhow::Result<Scanned> {
        let (stream, verdict) = (self.part.stream, Verdict::default());
        let company = Company::Served;
        let mut done = Scanned { times: 0, stream, passed: None, rival: None, verdict, company };
        let scanned = self.run.unless_overdue(self.scan(&tally, &mut done)).await;
        match scanned {
            Some(Err(error)) if is_away(&error) && self.run.is_over() => {
                done.company = Company::Alone;
            }
            Some(scanned) => scanned?,
            None => tally.scan.lock().failed("no answer until the end"),
        }
        Ok(done)
    }

    async fn scan(&self, tally: &Shared, done: &mut Scanned) -> anyhow::Result<()> {
        let mut link = Self::link(&self.run);
        self.run.connect(&mut link, "a reader").await?;
        while !self.run.is_over() {
            let (mut offset, mut sum) = ("-1".to_owned(), Sum::new(self.streams.is_json()));
            done.passed.iter().chain(&done.rival).for_each(|it| sum.pass(it.bytes));
            let end = loop {
                let began = self.run.now();
                let (page, length) = self.page(&mut link, &offset, tally, &mut sum).await?;
                let now = self.run.now();
                tally.scan.lock().done(now, now.saturating_sub(began), 0, length);
                let next = page.next.context("an answer names no next offset")?;
                if page.is_last || next == offset {
                    // Like a request, it counts when it ends in the time measured.
                    done.times += u64::from(self.run.span.contains(now));
                    break next;
                }
                if self.run.is_over() {
                    return Ok(());
                }
                offset = next;
            };
            self.compare(Passed { offset: end, bytes: sum.bytes(), crc: sum.crc() }, &sum, done);
            if matches!(self.expect, Expect::More) {
                // Streams that are written to meanwhile may be nearly empty.
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Compares a whole read with the one before. Of two that differ either may be the wrong one:
    /// the next one says which, so that one bad answer is told once.
    fn compare(&self, now: Passed, sum: &Sum, done: &mut Scanned) {
        match &self.expect {
            Expect::Same(before) if (before.bytes, before.crc) != (now.bytes, now.crc) => {
                done.verdict.changed(done.stream, &now.offset, (before.bytes, now.bytes));
                return;
            }
            Expect::Same(_) => {}
            Expect::More => {
                let goes_on = |it: &Passed| sum.at(it.bytes) == Some(it.crc);
                let is_new = !done.passed.iter().chain(&done.rival).any(goes_on);
                if let Some(before) = done.passed.as_ref().filter(|_| is_new) {
                    done.verdict.changed(done.stream, &now.offset, (before.bytes, now.bytes));
                    done.rival = Some(now);
                    return;
                }
            }
        }
        (done.passed, done.rival) = (Some(now), None);
    }

    /// Reads one page; one that breaks off or is refused for now is asked for again, for as long as
    /// the run: a server that is away may come back. Returns the bytes of its body too.
    async fn page(
        &self,
        link: &mut Link,
        offset: &str,
        tally: &Shared,
        sum: &mut Sum,
    ) -> anyhow::Result<(Page, usize)> {
        let request = self.part.request(&self.streams, offset);
        let before = sum.clone();
        let mut attempt = 0;
        loop {
            sum.clone_from(&before);
            attempt += 1;
            let error = match self.attempt(link, &request, sum).await {
                Err(error) if error.is::<Failure>() => error,
                page => return page,
            };
            let is_hopeless = attempt >= ATTEMPTS_MAX && !is_away(&error);
            if is_hopeless || self.run.is_over() {
                return Err(error);
            }
            tally.scan.lock().failed(&error.to_string());
            tokio::time::sleep((PAUSE * attempt).min(PAUSE_MAX)).await;
        }
    }

    async fn attempt(
        &self,
        link: &mut Link,
        request: &[u8],
        sum: &mut Sum,
    ) -> anyhow::Result<(Page, usize)> {
        let (head, connection) = link.ask(request).await?;
        if head.status != 200 {
            let excuse = connection.excuse().await?;
            if setup::is_busy(head.status) {
                return Err(Failure::Busy(head.status, excuse).into());
            }
            return Err(Refusal { status: head.status, excuse }).context("a read was refused");
        }
        let next = head.next_offset.clone().unwrap_or(0..0);
        let next = setup::next_offset(&head, connection.bytes(next));
        let mut bytes = 0;
        sum.begin();
        while let Some(piece) = connection.piece().await? {
            bytes += piece.len();
            sum.take(connection.bytes(piece));
        }
        sum.end();
        Ok((Page { next, is_last: head.up_to_date || head.closed }, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Target;

    #[test]
    fn a_stream_is_filled_at_least_as_far_as_asked() {
        for bytes in [1, 100, 10_000, 1 << 20, (5 << 20) + 1] {
            for keys in [0, 1, 7] {
                let filling = Filling { bytes, record_bytes: 100, keys, time_max: FILL_TIME_MAX };
                let total = filling.written().sent * 100 * wide(filling.writers());
                assert!(total + 100 > wide(bytes), "{bytes} {keys}: {total}");
                assert!(total <= wide(bytes) + (2 << 20), "{bytes} {keys}: {total}");
            }
        }
    }

    #[test]
    fn a_server_that_takes_nothing_ends_the_filling() {
        // Connections wait in its backlog for ever.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let target = Target::parse(&format!("http://{address}"), None).expect("a URL");
        let streams = Arc::new(Streams::new(&target, "run", 2, "text/plain", 100));
        let time_max = Duration::from_millis(50);
        let filling = Filling { bytes: 1 << 20, record_bytes: 100, keys: 0, time_max };
        let crew = Crew { peer: address.into(), threads: 1, connections: 2 };
        let given_up = fill(crew, &streams, filling).expect_err("there is no answer");
        assert!(given_up.to_string().contains("--size"), "{given_up:#}");
    }

    #[test]
    fn readers_spread_over_streams_then_keys() {
        let parts: Vec<_> = (0..5).map(|number| Part::of(number, 2, 2)).collect();
        let parts: Vec<_> = parts.iter().map(|part| (part.stream, part.key)).collect();
        assert_eq!(parts, [(0, Some(0)), (1, Some(0)), (0, Some(1)), (1, Some(1)), (0, Some(0))]);
        assert_eq!(Part::of(3, 1, 0).key, None);
    }
}
