//! `GET …?live=sse`: what is there, then what comes.
//!
//! ```text
//! page ─▶ data + control in one piece ─▶ taken by the connection ─▶ next page or wait
//! ```
//! The data event is encoded once for all readers of the stream who are at the same position;
//! the control event is each reader's own.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
};

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use tokio::time::{Duration, Instant, Sleep, sleep_until};
use tracing::{debug, warn};
use weir_engine::{
    Change, Watch,
    request::{Error, From, Page},
    types::{Form, Offset, StreamName},
};

use super::{
    Answer,
    body::{Body, Piece},
    events::{Events, Outbox},
    read, reply,
};
use crate::{
    App,
    app::Phase,
    metrics::{Mode, Reader},
    wire::{
        error::Refusal,
        names,
        query::ReadQuery,
        sse::{self, Standing},
    },
};

/// Payload bytes of one event.
const BATCH_BYTES_MAX: usize = 256 << 10;

pub(super) async fn answer(app: &Arc<App>, name: &StreamName, query: &ReadQuery<'_>) -> Answer {
    let refuse = |error| Refusal::from_engine(error, app.config.offset_format);
    let watch = app.engine.watch(name).await.map_err(refuse)?;
    let from = query.from.expect("the query demands a position of live reads");
    let bytes_max = app.config.read_bytes_max.min(BATCH_BYTES_MAX);
    let refuse = |error| Refusal::from_read(error, name, from, app.config.offset_format);
    let page = watch.read(from, query.key.as_deref(), bytes_max).await.map_err(refuse)?;
    read::check_format(&page, query.format)?;

    let mut response = reply::empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, names::EVENT_STREAM);
    headers.insert(CACHE_CONTROL, names::NO_CACHE);
    headers.insert(names::X_ACCEL_BUFFERING, names::NO);
    reply::next_offset(app, headers, page.start);
    reply::end_offset(app, headers, page.tail);
    if page.form() == Form::Binary {
        headers.insert(names::STREAM_SSE_DATA_ENCODING, names::BASE64);
    }
    let follower = Follower {
        cursor: app.cursor(query.cursor),
        recycle: Instant::now() + recycle_after(app),
        spoke: Instant::now(),
        _counted: app.metrics.reader(Mode::Sse),
        app: Arc::clone(app),
        watch,
        key: query.key.clone(),
        bytes_max,
        held: Vec::new(),
    };
    *response.body_mut() = Body::events(Events::new(|outbox| follower.run(page, outbox)));
    Ok(response)
}

/// A tenth earlier or later, so that readers who came together do not return together.
fn recycle_after(app: &App) -> Duration {
    let whole = app.config.sse_recycle;
    let spread = u64::try_from(whole.as_millis() / 5).unwrap_or(u64::MAX);
    let jitter = app.world.entropy.next_u64() % spread.max(1);
    whole - whole / 10 + Duration::from_millis(jitter)
}

/// One reader of an event stream.
struct Follower {
    app: Arc<App>,
    watch: Watch,
    key: Option<Bytes>,
    bytes_max: usize,
    cursor: u64,
    recycle: Instant,
    /// When the last piece was handed over.
    spoke: Instant,
    /// The beginning of a character whose rest has not come yet.
    held: Vec<u8>,
    _counted: Reader,
}

/// What a reader does next.
enum Next {
    Read,
    /// Nothing changed for a while.
    KeepAlive,
    /// The stream ended where the reader is.
    Closed,
    /// It is time to go; the stream goes on.
    Leave,
}

impl Follower {
    async fn run(mut self, mut page: Page, outbox: Outbox) {
        let mut said = None;
        // Both are enlisted once and not for each record.
        let mut phase = self.app.phase.subscribe();
        let draining = async move { drop(phase.wait_for(|it| *it != Phase::Serving).await) };
        let mut draining = pin!(draining);
        let mut alarm = pin!(sleep_until(self.due()));
        loop {
            let standing = standing(&page);
            // Only other keys' records came: a reader who is told so each time would pay for
            // what is not its own.
            let nothing_new = page.records == 0 && said == Some(Standing::UpToDate);
            if !(nothing_new && standing == Standing::UpToDate) {
                outbox.put(self.encode(&page, standing)).await;
                self.spoke = Instant::now();
                said = Some(standing);
            }
            if standing == Standing::Closed || Instant::now() >= self.recycle {
                return;
            }
            let mut next = if standing == Standing::Behind && !page.beyond_tail {
                Next::Read
            } else {
                self.wait(&page, draining.as_mut(), alarm.as_mut()).await
            };
            while matches!(next, Next::KeepAlive) {
                outbox.put(sse::KEEPALIVE.into()).await;
                self.spoke = Instant::now();
                next = self.wait(&page, draining.as_mut(), alarm.as_mut()).await;
            }
            let end = match next {
                Next::Read | Next::KeepAlive => match self.read(page.next).await {
                    Ok(read) => {
                        page = read;
                        continue;
                    }
                    Err(()) => Standing::Behind,
                },
                Next::Closed => Standing::Closed,
                Next::Leave => standing,
            };
            let control = self.control(page.next, end);
            outbox.put(control.into()).await;
            return;
        }
    }

    async fn read(&self, from: Offset) -> Result<Page, ()> {
        let read = self.watch.read(From::At(from), self.key.as_deref(), self.bytes_max).await;
        // The answer has begun, so there is no status left to say it with: the reader is told
        // where it is, and learns more when it asks again.
        read.map_err(|error| match error {
            Error::Corrupt(_) | Error::Away(_) | Error::ReadFailed(_) => {
                warn!(%error, "live read failed")
            }
            error => debug!(%error, "live read ended"),
        })
    }

    /// When this reader has to be told something, or to go. Moves on with each piece.
    fn due(&self) -> Instant {
        // Wakes that bring this reader nothing do not break its silence.
        self.recycle.min(self.spoke + self.app.config.sse_keepalive)
    }

    /// `alarm` rings when it is due, or before.
    async fn wait(
        &self,
        page: &Page,
        mut draining: Pin<&mut impl Future<Output = ()>>,
        mut alarm: Pin<&mut Sleep>,
    ) -> Next {
        loop {
            tokio::select! {
                biased;
                change = self.watch.changed(page.next) => return match change {
                    Change::Data => Next::Read,
                    Change::Closed if page.beyond_tail => Next::Closed,
                    // Read once more: what came with the closure comes before it.
                    Change::Closed => Next::Read,
                    Change::Gone => Next::Leave,
                },
                () = draining.as_mut() => return Next::Leave,
                () = alarm.as_mut() => {}
            }
            let now = Instant::now();
            if now >= self.recycle {
                return Next::Leave;
            }
            if now >= self.due() {
                return Next::KeepAlive;
            }
            alarm.as_mut().reset(self.due());
        }
    }

    /// The page and where it ends, in one piece.
    fn encode(&mut self, page: &Page, standing: Standing) -> Piece {
        let data = self.data(page, standing);
        Piece::two(data, self.control(page.next, standing))
    }

    fn data(&mut self, page: &Page, standing: Standing) -> Bytes {
        let flushes = standing == Standing::Closed && !self.held.is_empty();
        if page.records == 0 && !flushes {
            return Bytes::new();
        }
        let form = page.form();
        let pieces = &page.pieces;
        let cut = match form {
            Form::Text => sse::incomplete_tail(&self.held, pieces),
            Form::Json | Form::Binary => 0,
        };
        // At the end nothing can complete a character: it goes out as it is.
        let withheld = if standing == Standing::Closed { 0 } else { cut };
        let held = std::mem::take(&mut self.held);
        if withheld > 0 {
            self.held = sse::tail_of(&held, pieces, withheld);
        }
        let encode = || sse::data_event(form, &held, pieces, withheld);
        // The frame of a range is the same for all readers but those of a key, those with a
        // character in their hands, and those at an end that cuts one.
        if self.key.is_none() && held.is_empty() && withheld == cut {
            self.watch.frame(page.start, page.next, encode)
        } else {
            encode()
        }
    }

    fn control(&self, next: Offset, standing: Standing) -> Bytes {
        let cursor = self.cursor.max(self.app.cursor(None));
        sse::control_event(&next.mint(self.app.config.offset_format), cursor, standing)
    }
}

fn standing(page: &Page) -> Standing {
    match (page.closed, page.up_to_date) {
        (true, _) => Standing::Closed,
        (false, true) => Standing::UpToDate,
        (false, false) => Standing::Behind,
    }
}
