//! The façade: every verb of a store, from admission to answer.

mod load;
mod notes;

pub(crate) use load::{Listed, unreadable};

use std::sync::{Arc, atomic::Ordering};

use weir_io::{Sabotage, World, disk::Lock, objects::Objects};

use crate::{
    Config, Layout, Metrics, Watch, admit,
    core::Core,
    log::{
        gate::{Gate, Outcome},
        sequencer::{Decision, Missing, Mode, Submitted},
    },
    motion::{keeper, publish, seal},
    open,
    read::{self, Want},
    request::{
        Append, AppendOutcome, Appended, Create, Created, Error, Head, List, ListRow, Page, Read,
    },
    state::{catalogue, stream::StreamState, view::Stream},
    subscribe::Subscriptions,
    types::{Offset, Retention, Seq, StreamName},
};

/// A running store. Clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) core: Arc<Core>,
    _lock: Arc<dyn Lock>,
}

/// Whether the store takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Serving,
    /// The disk is full: reads go on, writes resume when space returns.
    DiskFull,
    /// A write failed: durable data is readable, writes need a restart.
    LogFailed {
        /// What went wrong.
        reason: String,
    },
    /// It is going down.
    Draining,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the directory.
    #[error("{dir} is in use by {holder}")]
    Locked {
        /// Which directory.
        dir: String,
        /// What the holder wrote of itself.
        holder: String,
    },
    /// The settings can't be meant.
    #[error(transparent)]
    Config(#[from] crate::BadConfig),
    /// The disk refused.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("{what}")]
    Sqlite {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// What is stored can't be trusted.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// The bucket can't be used, or is not this store's.
    #[error("{0}")]
    Bucket(String),
}

impl Engine {
    /// Opens the store in `config.dir`, creating it if the directory is empty, and replays
    /// the log. `holder` is what the next process to try is told of this one.
    ///
    /// # Errors
    /// [`OpenError`] names what is in the way.
    pub async fn open(world: World, config: Config, holder: &str) -> Result<Self, OpenError> {
        Self::open_with(world, config, None, holder).await
    }

    /// As [`Engine::open`], for a store whose segments are kept in `bucket`, which is asked with
    /// the engine's own patience.
    ///
    /// # Errors
    /// [`OpenError`] names what is in the way.
    pub async fn open_with(
        world: World,
        config: Config,
        bucket: Option<Arc<dyn Objects>>,
        holder: &str,
    ) -> Result<Self, OpenError> {
        config.check()?;
        if bucket.is_some() && config.layout == Layout::OneFile {
            return Err(crate::BadConfig::Bucket.into());
        }
        let (core, lock) = open::open(world, config, bucket, holder).await?;
        let engine = Self { core, _lock: Arc::from(lock) };
        let Err(problem) = publish::attach(&engine.core).await else { return Ok(engine) };
        let away = matches!(problem, publish::Problem::Bucket(_));
        if away && publish::is_known(&engine.core).await {
            weir_io::sometimes!("a store started while its bucket was away");
            tracing::warn!(%problem, "the bucket is away: the store starts and publishes later");
            return Ok(engine);
        }
        engine.close().await;
        Err(OpenError::Bucket(problem.to_string()))
    }

    /// Creates a stream or confirms that it is there (protocol §4).
    ///
    /// # Errors
    /// [`Rejection::ConfigurationDiffers`](crate::request::Rejection::ConfigurationDiffers), [`Rejection::InvalidJson`](crate::request::Rejection::InvalidJson), what is wrong with the
    /// source or the point of a fork, or that the store takes no writes; then no stream and no
    /// reference is left behind.
    pub async fn create(&self, create: Create) -> Result<Created, Error> {
        self.core.has_room()?;
        let mut pins = Vec::new();
        let mut source = None;
        // What a fork's body is made of follows from its source, which the sequencer asks for.
        let mut prepared = match create.fork {
            None => admit::prepare(&create.content(), &create.body),
            Some(_) => Ok(None),
        };
        loop {
            let now = self.core.now();
            match self.core.sequencer.create(&create, source.as_ref(), prepared.clone(), now)? {
                Submitted::Load(missing) => {
                    let wanted = matches!(missing, Missing::Source(..));
                    pins.extend(self.core.load(missing).await?);
                    if let Some(fork) = create.fork.as_ref().filter(|_| wanted) {
                        source = self.core.source(fork).await?;
                    }
                    if let Some(found) = source.as_ref().filter(|_| wanted) {
                        let content = &found.stream.identity.content;
                        prepared = admit::prepare(content, &create.body);
                    }
                }
                Submitted::Decided(decision) => {
                    let (outcome, stream, state) = settled(decision).await?;
                    return Ok(Created { outcome, head: head_of(&stream, &state) });
                }
            }
        }
    }

    /// Appends, closes, or both (protocol §5 to §7). The answer is durable.
    ///
    /// # Errors
    /// A [`Rejection`](crate::request::Rejection) leaves no trace; [`Error::Unknown`] means that only a restart will tell.
    pub async fn append(&self, append: Append) -> Result<Appended, Error> {
        self.core.has_room()?;
        let prepared = match &append.content {
            Some(content) => admit::prepare(content, &append.body),
            None => Ok(None),
        };
        let mut pins = Vec::new();
        loop {
            let now = self.core.now();
            match self.core.sequencer.append(&append, prepared.clone(), now)? {
                Submitted::Load(missing) => pins.extend(self.core.load(missing).await?),
                Submitted::Decided(decision) => {
                    return settled(self.hastened(decision)).await;
                }
            }
        }
    }

    /// The decision as it is, unless a defect is planted that tells it before it is durable.
    fn hastened(&self, mut decision: Decision<Appended>) -> Decision<Appended> {
        let hasty = match (self.core.world.sabotage, &decision.answer) {
            (Sabotage::UndurableDuplicate, Ok(answer)) => {
                answer.outcome == AppendOutcome::Duplicate
            }
            (Sabotage::UndurableRefusal, Err(_)) => true,
            _ => false,
        };
        if hasty {
            decision.gate = None;
        }
        decision
    }

    /// Deletes a stream (protocol §8).
    ///
    /// # Errors
    /// [`Rejection::NotFound`](crate::request::Rejection::NotFound), or that the store takes no writes.
    pub async fn delete(&self, name: &StreamName) -> Result<(), Error> {
        self.delete_at(name, None).await
    }

    /// Deletes a stream that ends at `expected`, if that is given: another one of its name, or one
    /// that was appended to, stays.
    ///
    /// # Errors
    /// [`Rejection::ExpectedOffset`](crate::request::Rejection::ExpectedOffset): it ends elsewhere;
    /// and those of [`Self::delete`].
    pub async fn delete_at(
        &self,
        name: &StreamName,
        expected: Option<Offset>,
    ) -> Result<(), Error> {
        let mut pins = Vec::new();
        loop {
            match self.core.sequencer.delete(name, expected, self.core.now())? {
                Submitted::Load(missing) => pins.extend(self.core.load(missing).await?),
                Submitted::Decided(decision) => return settled(decision).await,
            }
        }
    }

    /// Metadata; never extends a sliding window (protocol §9).
    ///
    /// # Errors
    /// [`Rejection::NotFound`](crate::request::Rejection::NotFound).
    pub async fn head(&self, name: &StreamName) -> Result<Head, Error> {
        let stream = self.core.living(name).await?;
        let durable = stream.durable.lock();
        durable.presence()?;
        Ok(head_of(&stream, &durable.state))
    }

    /// Gives a stream other limits of what it keeps; what is beyond them goes soon after. Never
    /// extends a sliding window.
    ///
    /// # Errors
    /// [`Rejection::NotFound`](crate::request::Rejection::NotFound), or that the store takes no writes.
    pub async fn retain(&self, name: &StreamName, retention: Retention) -> Result<Head, Error> {
        let mut pins = Vec::new();
        loop {
            match self.core.sequencer.retain(name, retention, self.core.now())? {
                Submitted::Load(missing) => pins.extend(self.core.load(missing).await?),
                Submitted::Decided(decision) => {
                    let stream = settled(decision).await?;
                    let durable = stream.durable.lock();
                    durable.presence()?;
                    return Ok(head_of(&stream, &durable.state));
                }
            }
        }
    }

    /// A catch-up read (protocol §10.2).
    ///
    /// # Errors
    /// [`Rejection::NotFound`](crate::request::Rejection::NotFound), [`Rejection::OffsetLost`](crate::request::Rejection::OffsetLost),
    /// [`Rejection::OffsetTrimmed`](crate::request::Rejection::OffsetTrimmed), or what keeps the records from being
    /// read.
    pub async fn read(&self, read: Read) -> Result<Page, Error> {
        let stream = self.core.living(&read.name).await?;
        self.core.keep_alive(&stream, 0).await;
        let want = Want { from: read.from, key: read.key, bytes_max: read.bytes_max };
        read::page(&self.core, &stream, want).await
    }

    /// Attaches a live reader. While it is attached a sliding window does not pass.
    ///
    /// # Errors
    /// [`Rejection::NotFound`](crate::request::Rejection::NotFound).
    pub async fn watch(&self, name: &StreamName) -> Result<Watch, Error> {
        let stream = self.core.living(name).await?;
        self.core.keep_alive(&stream, keeper::WATCHED_AHEAD_MS).await;
        let watch = Watch::new(Arc::clone(&self.core), Arc::clone(&stream));
        self.core.attached(&stream).await?;
        Ok(watch)
    }

    /// Lists streams by name.
    ///
    /// # Errors
    /// The catalogue could not be read.
    pub async fn list(&self, list: List) -> Result<Vec<ListRow>, Error> {
        self.core.list(list).await
    }

    /// The store's subscriptions.
    #[must_use]
    pub fn subscriptions(&self) -> Subscriptions {
        Subscriptions::new(Arc::clone(&self.core))
    }

    /// Whether writes are taken.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.core.sequencer.mode() {
            Mode::Serving => Health::Serving,
            Mode::DiskFull => Health::DiskFull,
            Mode::Failed(reason) | Mode::Overtaken(reason) => Health::LogFailed { reason },
            Mode::Draining => Health::Draining,
        }
    }

    /// Counters and gauges.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        let (requests, bytes) = self.core.sequencer.queued();
        let metrics = &self.core.metrics;
        metrics.queue_requests.set(i64::try_from(requests).unwrap_or(i64::MAX));
        let backlog = self.core.backlog.load(Ordering::Relaxed);
        let backlog = if self.core.bucket.is_some() { backlog } else { 0 };
        metrics.publish.backlog_bytes.set(i64::try_from(backlog).unwrap_or(i64::MAX));
        let cached = self.core.blocks.bytes();
        metrics.block_cache_bytes.set(i64::try_from(cached).unwrap_or(i64::MAX));
        metrics.queue_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        metrics
    }

    /// Seals what is in memory and publishes it, if the bucket answers in time.
    pub async fn flush(&self) {
        if !self.core.sequencer.mode().is_over() {
            seal::run(&self.core).await;
            publish::finish(&self.core).await;
        }
    }

    /// Refuses new writes, commits what was admitted, lets live readers go, seals, and ends the
    /// loops.
    pub async fn close(&self) {
        let core = &self.core;
        core.sequencer.drain();
        core.leaving.send_replace(true);
        // Readers wait at their streams only: a place at one more bell would cost them with each record.
        core.crowds.lock().ring();
        while core.sequencer.queued().0 > 0 && !*core.ended.borrow() {
            // One turn of the writer: it answers after what was queued before.
            if core.on_writer("drain", |_| ()).await.is_err() {
                break;
            }
        }
        core.stopping.store(true, Ordering::Release);
        core.keeper.notify_one();
        core.evictor.notify_one();
        core.merger.notify_one();
        // What it has under way it gives up.
        drop(core.merging.lock().await);
        self.flush().await;
        let store_now = core.store_now();
        let noted = core.on_writer("store time", move |conn| {
            catalogue::put_meta(conn, "store_ms", &store_now.get().to_le_bytes())
        });
        if let Ok(Err(error)) = noted.await {
            tracing::warn!(%error, "the store's running time was not noted");
        }
        // The writer's connection is to be the last: it moves the WAL into the database.
        core.readers.close().await;
        core.rack.close().await;
        core.writer_may_end.store(true, Ordering::Release);
        core.sequencer.work.notify_one();
        let mut ended = core.ended.subscribe();
        // Only fails if the lane is gone already.
        drop(ended.wait_for(|ended| *ended).await);
    }
}

/// Waits until what a decision rests on is durable, then tells it.
async fn settled<A>(decision: Decision<A>) -> Result<A, Error> {
    if let Some(gate) = decision.gate {
        durable(&gate).await?;
    }
    Ok(decision.answer?)
}

/// Waits for a group.
pub(crate) async fn durable(gate: &Gate) -> Result<(), Error> {
    match gate.wait().await {
        Outcome::Durable => Ok(()),
        Outcome::Full => Err(Error::DiskFull),
        Outcome::Unknown => Err(Error::Unknown),
    }
}

pub(crate) fn head_of(stream: &Stream, state: &StreamState) -> Head {
    let identity = &stream.identity;
    Head {
        name: identity.name.clone(),
        content: identity.content.clone(),
        expiry: identity.expiry,
        retention: state.kept.retention,
        earliest: state.earliest(),
        next: state.tail(),
        closed: state.closed.is_some(),
        created: identity.created,
        last_append: if state.next == Seq::ZERO { identity.created } else { state.last_append },
    }
}
