//! One connection: HTTP/1.1 or HTTP/2 as the client begins, ended by the client, by idleness
//! or by the server's phase.

use std::{
    convert::Infallible,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};
use tracing::debug;
use weir_io::{Tasks, net::Socket};

use super::socket::Guarded;
use crate::{App, app::Phase, handle};

/// Most header fields and most bytes of a request's head.
const HEADERS_MAX: usize = 100;
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEAD_BYTES_MAX_H2: u32 = 64 << 10;
/// Requests at once on one HTTP/2 connection, and what each may have waiting to be written.
const STREAMS_MAX: u32 = 1000;
const SEND_BYTES_MAX: usize = 256 << 10;
const WINDOW_BYTES: u32 = 1 << 20;
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A connection that was asked to end and has no request.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(5);

/// Serves one connection to its end. The permit goes back when it returns.
pub(super) async fn run(
    io: impl Socket,
    peer: SocketAddr,
    app: Arc<App>,
    permit: OwnedSemaphorePermit,
) {
    let _permit = permit;
    let _counted = Counted::new(&app);
    let activity = Arc::new(Activity::new(peer.ip()));
    let service = service_fn(|request| {
        let app = Arc::clone(&app);
        let ticket = Ticket::new(&activity);
        async move { Ok::<_, Infallible>(handle::answer(&app, request, ticket).await) }
    });
    let socket = Guarded::new(io, app.config.patience, &app.metrics);
    let builder = builder(&app);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut phase = app.phase.subscribe();
    phase.mark_changed();
    let mut leaving = false;
    let mut seen = None;
    let mut tick = pin!(sleep(app.config.patience.idle));
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    debug!(%peer, error, "connection failed");
                }
                return;
            }
            // The sender lives as long as `app`.
            _ = phase.changed() => match *phase.borrow_and_update() {
                Phase::Serving => {}
                Phase::Draining => {
                    leaving = true;
                    serving.as_mut().graceful_shutdown();
                }
                Phase::Cutting => return,
            },
            () = tick.as_mut() => {
                let idle = activity.idle_since();
                if leaving && idle.is_some() {
                    return;
                }
                let mut pause = app.config.patience.idle;
                if idle.is_some() && idle == seen {
                    leaving = true;
                    serving.as_mut().graceful_shutdown();
                    pause = LEAVE_TIME_MAX;
                }
                seen = idle;
                tick.as_mut().reset(Instant::now() + pause);
            }
        }
    }
}

fn builder(app: &App) -> auto::Builder<Spawner> {
    let mut builder = auto::Builder::new(Spawner(Arc::clone(&app.world.tasks)));
    builder
        .http1()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        // Idle connections and slow heads are timed here and in `socket`, alike for both
        // protocols.
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX_H2)
        .max_send_buf_size(SEND_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    builder
}

/// Runs the streams of an HTTP/2 connection as tasks of the world.
#[derive(Clone)]
struct Spawner(Arc<dyn Tasks>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, work: F) {
        self.0.spawn("http2", Box::pin(work));
    }
}

/// Who is connected, and which requests of the connection are under way.
struct Activity {
    peer: IpAddr,
    under_way: AtomicUsize,
    begun: AtomicU64,
}

impl Activity {
    fn new(peer: IpAddr) -> Self {
        Self { peer, under_way: AtomicUsize::new(0), begun: AtomicU64::new(0) }
    }

    /// How many requests had begun when none was under way; `None` if one is.
    fn idle_since(&self) -> Option<u64> {
        let idle = self.under_way.load(Ordering::Acquire) == 0;
        idle.then(|| self.begun.load(Ordering::Acquire))
    }
}

/// A request under way, from its head to the last byte of its answer.
pub(crate) struct Ticket(Arc<Activity>);

impl Ticket {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::AcqRel);
        activity.under_way.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(activity))
    }

    /// Who sent the request: a client, or a proxy before it.
    pub(crate) fn peer(&self) -> IpAddr {
        self.0.peer
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An open connection in the figures.
struct Counted<'a>(&'a App);

impl<'a> Counted<'a> {
    fn new(app: &'a App) -> Self {
        app.metrics.connections.inc();
        Self(app)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}
