//! Reading request bodies: bounded in bytes, in time and in what all of them hold together.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{
    StatusCode,
    body::{Body as _, Incoming},
};
use tokio::time::{Instant, timeout_at};

use crate::{App, app::Reserved, wire::error::Refusal};

/// A frame shorter than this is copied: it is a view of the connection's read buffer of 8 KiB
/// or more, all of which would live as long as the record.
const COPY_BYTES_MAX: usize = 4096;
/// What is set aside for a body before its bytes arrive.
const AHEAD_BYTES_MAX: usize = 1 << 20;

/// A body in memory, with the room that it takes.
pub(super) struct Inbound<'a> {
    pub(super) bytes: Bytes,
    _room: Reserved<'a>,
}

/// Reads a body to its end.
pub(super) async fn read(app: &App, incoming: Incoming) -> Result<Inbound<'_>, Refusal> {
    read_up_to(app, incoming, app.config.body_bytes_max).await
}

/// Reads a body that may have this many bytes.
pub(super) async fn read_up_to(
    app: &App,
    mut incoming: Incoming,
    bytes_max: usize,
) -> Result<Inbound<'_>, Refusal> {
    let mut room = Reserved::default();
    let expect = incoming.size_hint().exact();
    if expect.is_some_and(|expect| expect > u64::try_from(bytes_max).expect("usize fits u64")) {
        return Err(Refusal::too_large(bytes_max));
    }
    let mut clock = Pace::new(app);
    let Some(first) = frame(&mut incoming, &clock).await? else {
        return Ok(Inbound { bytes: Bytes::new(), _room: room });
    };
    clock.admit(first.len(), bytes_max)?;
    app.reserve(&mut room, first.len())?;
    if incoming.is_end_stream() {
        let copy = first.len() < COPY_BYTES_MAX;
        let bytes = if copy { Bytes::copy_from_slice(&first) } else { first };
        return Ok(Inbound { bytes, _room: room });
    }
    let expect = expect.and_then(|expect| usize::try_from(expect).ok()).unwrap_or(first.len());
    let mut whole = BytesMut::with_capacity(expect.min(AHEAD_BYTES_MAX));
    whole.extend_from_slice(&first);
    while let Some(next) = frame(&mut incoming, &clock).await? {
        clock.admit(next.len(), bytes_max)?;
        app.reserve(&mut room, next.len())?;
        whole.extend_from_slice(&next);
    }
    Ok(Inbound { bytes: whole.freeze(), _room: room })
}

/// The next bytes; `None` at the end.
async fn frame(incoming: &mut Incoming, clock: &Pace) -> Result<Option<Bytes>, Refusal> {
    loop {
        let Ok(next) = timeout_at(clock.deadline(), incoming.frame()).await else {
            let slow = "the body came too slowly: nothing was stored";
            return Err(
                Refusal::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", slow).closing()
            );
        };
        match next {
            None => return Ok(None),
            Some(Err(_)) => return Err(Refusal::bad_request("the body did not arrive").closing()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                // Trailers say nothing to us.
                Ok(_) | Err(_) => {}
            },
        }
    }
}

/// How long a body may take: some time, and more for what has come.
struct Pace {
    began: Instant,
    grace: Duration,
    bytes_per_second: u32,
    received: usize,
}

impl Pace {
    fn new(app: &App) -> Self {
        let patience = app.config.patience;
        Self {
            began: Instant::now(),
            grace: patience.body,
            bytes_per_second: patience.body_bytes_per_second.max(1),
            received: 0,
        }
    }

    /// Takes note of bytes that have come.
    fn admit(&mut self, bytes: usize, bytes_max: usize) -> Result<(), Refusal> {
        self.received += bytes;
        if self.received > bytes_max {
            return Err(Refusal::too_large(bytes_max));
        }
        Ok(())
    }

    fn deadline(&self) -> Instant {
        let received = u64::try_from(self.received).expect("usize fits u64");
        let earned = Duration::from_secs(received / u64::from(self.bytes_per_second));
        self.began + self.grace + earned
    }
}
