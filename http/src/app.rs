//! What the handlers of one server share.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use hyper::header::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::watch;
use weir_engine::{Engine, types::WallMs};
use weir_io::World;

use crate::{
    config::HttpConfig,
    handle::HighWater,
    metrics::Metrics,
    object_store::ObjectStore,
    webhook::Webhooks,
    wire::{cursor, date, error::Refusal},
};

/// A server's engine, settings and counters.
pub struct App {
    pub(crate) engine: Engine,
    pub(crate) config: HttpConfig,
    pub(crate) world: World,
    pub(crate) webhooks: Webhooks,
    pub(crate) metrics: Metrics,
    pub(crate) object_store: Option<ObjectStore>,
    pub(crate) phase: watch::Sender<Phase>,
    started: Duration,
    requests: AtomicU64,
    bodies_bytes: AtomicUsize,
    date: Mutex<(u64, HeaderValue)>,
    /// The highest figures of memory so far.
    pub(crate) high_water: Mutex<HighWater>,
}

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// New requests are refused, live readers end, connections close when they are done.
    Draining,
    /// What is still open is cut.
    Cutting,
}

impl App {
    /// A server of `engine` in `world`, which must be the world the engine was opened in.
    #[must_use]
    pub fn new(engine: Engine, config: HttpConfig, world: World, webhooks: Webhooks) -> Self {
        let metrics = Metrics::new(engine.metrics());
        Self {
            engine,
            config,
            metrics,
            object_store: None,
            phase: watch::Sender::new(Phase::Serving),
            started: world.clock.elapsed(),
            requests: AtomicU64::new(0),
            bodies_bytes: AtomicUsize::new(0),
            date: Mutex::new((u64::MAX, HeaderValue::from_static(""))),
            high_water: Mutex::default(),
            world,
            webhooks,
        }
    }

    /// The same server, which tells what its bucket is asked.
    #[must_use]
    pub fn with_object_store(mut self, store: ObjectStore) -> Self {
        self.metrics.watch(&store);
        self.object_store = Some(store);
        self
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.phase.borrow() != Phase::Serving
    }

    /// Numbers the requests.
    pub(crate) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.world.clock.elapsed().saturating_sub(self.started)
    }

    /// The `Date` header, written once a second.
    pub(crate) fn date(&self) -> HeaderValue {
        let second = self.world.clock.wall_ms() / 1000;
        let mut date = self.date.lock();
        if date.0 != second {
            let text = date::rfc9110(second);
            *date = (second, text.parse().expect("a date is visible ASCII"));
        }
        date.1.clone()
    }

    /// The cursor to answer a live request with.
    pub(crate) fn cursor(&self, client: Option<u64>) -> u64 {
        let now = WallMs::new(self.world.clock.wall_ms());
        cursor::next(client, now, || self.world.entropy.next_u64())
    }

    /// Body bytes that are being read or committed.
    pub(crate) fn body_bytes(&self) -> usize {
        self.bodies_bytes.load(Ordering::Acquire)
    }

    /// Room for body bytes that are about to be kept in memory.
    pub(crate) fn reserve<'a>(
        &'a self,
        room: &mut Reserved<'a>,
        bytes: usize,
    ) -> Result<(), Refusal> {
        let before = self.bodies_bytes.fetch_add(bytes, Ordering::AcqRel);
        room.app = Some(self);
        room.bytes += bytes;
        if before.saturating_add(bytes) > self.config.bodies_bytes_max {
            return Err(Refusal::busy("too many request bytes in flight").closing());
        }
        Ok(())
    }
}

/// Body bytes accounted for, until dropped.
#[derive(Default)]
pub(crate) struct Reserved<'a> {
    app: Option<&'a App>,
    bytes: usize,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(app) = self.app {
            app.bodies_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        }
    }
}
