//! Writers: each has a connection and one request on the way at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;

use super::{
    load::{Pace, Run},
    measure::{Shared, wide},
    raw::Link,
    request::{Append, Headers, Shape, Streams},
    setup::{Refusal, is_busy},
    verify::Written,
};

/// Enough for any answer to an append.
const BUFFER_BYTES: usize = 4 << 10;
/// Before a refused request is sent again, if the server does not say.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest pause, whatever the server says.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What all writers of a run have in common.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) run: Run,
    pub(super) streams: Arc<Streams>,
    pub(super) shape: Shape,
    pub(super) writers: usize,
    /// The run's name, if requests are to carry producer headers.
    pub(super) producer: Option<String>,
    pub(super) order: Order,
}

/// Which stream the next request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The writer's streams in turn.
    Round,
    /// Any of them.
    Random,
}

/// One writer.
pub(super) struct Writer {
    plan: Plan,
    id: u32,
    link: Link,
    append: Append,
    pace: Pace,
    owned: Vec<(usize, Written)>,
    chance: u64,
    turn: usize,
    /// The stream and number of the request that has no answer yet.
    on_the_way: Option<(usize, u64)>,
}

/// How one attempt ended.
enum Attempt {
    Acked,
    /// Nothing was written.
    Refused(Duration),
    /// Nobody knows whether it was written.
    Unknown,
}

/// Is told of what happens to records; tail readers are measured by it.
pub(super) trait Witness: Clone + Send + Sync + 'static {
    /// The request with these records of a writer in a stream was acknowledged.
    fn acked(&self, stream: usize, writer: u32, first: u64, count: u64, at: Duration);
}

/// Nobody looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nobody;

impl Witness for Nobody {
    fn acked(&self, _: usize, _: u32, _: u64, _: u64, _: Duration) {}
}

impl Writer {
    /// Writer number `number`. There are either several streams to a writer or several writers to
    /// a stream.
    pub(super) fn new(plan: &Plan, number: usize) -> anyhow::Result<Self> {
        let id = u32::try_from(number)?;
        let (count, writers) = (plan.streams.count, plan.writers);
        let owned: Vec<usize> = match count >= writers {
            true => (number..count).step_by(writers).collect(),
            false => vec![number % count],
        };
        let producer = plan.producer.as_ref().map(|run| format!("bench-{run}-{id}"));
        Ok(Self {
            id,
            link: Link::new(plan.run.peer, BUFFER_BYTES),
            append: Append::new(
                &plan.streams,
                plan.shape,
                id,
                Headers { producer: producer.as_deref(), key: None },
            ),
            pace: plan.run.pace()?,
            owned: owned.into_iter().map(|stream| (stream, Written::default())).collect(),
            chance: wide(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            turn: 0,
            on_the_way: None,
            plan: plan.clone(),
        })
    }

    /// Writes until the run is over. Returns what it wrote to which stream, by its own number.
    pub(super) async fn work(
        mut self,
        tally: Shared,
        witness: impl Witness,
    ) -> anyhow::Result<(u32, Vec<(usize, Written)>)> {
        let run = self.plan.run.clone();
        let written = run.unless_overdue(self.write(&tally, &witness)).await;
        match written {
            Some(written) => written?,
            None => self.give_up(&tally),
        }
        Ok((self.id, self.owned))
    }

    /// Nobody knows whether the request on its way is carried out.
    fn give_up(&mut self, tally: &Shared) {
        let Some((place, request)) = self.on_the_way.take() else { return };
        tally.append.lock().failed("no answer until the end");
        let batch = wide(self.plan.shape.batch);
        let written = &mut self.owned[place].1;
        written.doubtful.extend(request * batch..(request + 1) * batch);
        written.sent += batch;
    }

    async fn write(&mut self, tally: &Shared, witness: &impl Witness) -> anyhow::Result<()> {
        self.plan.run.connect(&mut self.link, "a writer").await?;
        self.plan.run.reach(self.plan.run.begin).await;
        let batch = wide(self.plan.shape.batch);
        let body = self.append.body().len();
        while let Some(due) = self.pace.turn().await? {
            let place = self.pick();
            let (stream, written) = &self.owned[place];
            let (stream, request) = (*stream, written.sent / batch);
            self.append.aim(stream, request);
            self.on_the_way = Some((place, request));
            let attempt = self.insist(tally).await?;
            self.on_the_way = None;
            let now = self.plan.run.now();
            let written = &mut self.owned[place].1;
            match attempt {
                Attempt::Refused(_) => break,
                Attempt::Acked => {
                    tally.append.lock().done(now, now.saturating_sub(due), batch, body);
                    witness.acked(stream, self.id, request * batch, batch, now);
                }
                Attempt::Unknown => {
                    let doubtful = request * batch..(request + 1) * batch;
                    written.doubtful.extend(doubtful);
                }
            }
            written.sent += batch;
        }
        Ok(())
    }

    /// Sends one request until something is known of it, or as long as there is time.
    async fn insist(&mut self, tally: &Shared) -> anyhow::Result<Attempt> {
        let mut unknown = false;
        loop {
            let attempt = self.attempt(tally).await?;
            let pause = match attempt {
                Attempt::Acked => return Ok(attempt),
                Attempt::Refused(pause) => pause,
                Attempt::Unknown => {
                    unknown = true;
                    PAUSE
                }
            };
            tokio::time::sleep(pause).await;
            // Without a producer's sequence a second attempt could write it twice.
            let again = self.plan.producer.is_some() || !unknown;
            if !again || self.plan.run.is_over() {
                return Ok(if unknown { Attempt::Unknown } else { attempt });
            }
        }
    }

    async fn attempt(&mut self, tally: &Shared) -> anyhow::Result<Attempt> {
        self.append.date(self.plan.run.now());
        let (head, connection) = match self.link.ask(self.append.bytes()).await {
            Ok(answer) => answer,
            Err(failure) => {
                tally.append.lock().failed(&failure.to_string());
                return Ok(Attempt::Unknown);
            }
        };
        if matches!(head.status, 200 | 201 | 204) {
            // The head has said it, whatever becomes of the rest.
            drop(connection.skip().await);
            return Ok(Attempt::Acked);
        }
        let excuse = connection.excuse().await.unwrap_or_default();
        if !is_busy(head.status) {
            return Err(Refusal { status: head.status, excuse }).context("an append was refused");
        }
        tally.append.lock().failed(&format!("{} {excuse}", head.status));
        if head.status == 429 {
            let pause = head.retry_after.map_or(PAUSE, Duration::from_secs);
            return Ok(Attempt::Refused(pause.min(PAUSE_MAX)));
        }
        Ok(Attempt::Unknown)
    }

    fn pick(&mut self) -> usize {
        let count = self.owned.len();
        match self.plan.order {
            Order::Round => {
                self.turn = if self.turn + 1 < count { self.turn + 1 } else { 0 };
                self.turn
            }
            Order::Random => {
                // xorshift64: any spread will do.
                self.chance ^= self.chance << 13;
                self.chance ^= self.chance >> 7;
                self.chance ^= self.chance << 17;
                usize::try_from(self.chance % wide(count)).expect("less than a count")
            }
        }
    }
}

/// What all writers wrote, by stream.
pub(super) fn by_stream(
    count: usize,
    written: Vec<(u32, Vec<(usize, Written)>)>,
) -> Vec<BTreeMap<u32, Written>> {
    let mut streams = vec![BTreeMap::new(); count];
    for (writer, owned) in written {
        for (stream, written) in owned {
            if written.sent > 0 {
                streams[stream].insert(writer, written);
            }
        }
    }
    streams
}

/// How many records were acknowledged.
pub(super) fn acked(written: &[BTreeMap<u32, Written>]) -> u64 {
    let sum = |written: &Written| written.sent - wide(BTreeSet::len(&written.doubtful));
    written.iter().flat_map(BTreeMap::values).map(sum).sum()
}
