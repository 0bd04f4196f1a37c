//! Accepts connections and serves HTTP/1.1 and HTTP/2 on each, until told to stop.
//!
//! Every connection is a task that this loop owns by a permit: it takes one before it starts
//! and gives it back when it ends, so waiting for all permits is waiting for all connections.

mod connection;
mod framing;
mod socket;

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tracing::{debug, warn};
use weir_io::net::{Listener, Socket};

use crate::{App, app::Phase, webhook};

pub(crate) use connection::Ticket;

/// After a failed accept, which mostly means that descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that are being told that there are too many.
const REFUSALS_MAX: usize = 64;
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);
/// After they are cut, tasks end as soon as they run.
const CUT_TIME_MAX: Duration = Duration::from_secs(1);
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json; charset=utf-8\r\n\
    x-content-type-options: nosniff\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\
    content-length: 72\r\n\r\n\
    {\"error\":{\"code\":\"unavailable\",\"message\":\"connection limit reached\"   }}";

/// Serves until `shutdown` resolves, then drains: no new connections, new requests answered
/// 503, live readers ended with the offset to resume at, accepted appends finished. Returns
/// when the last connection is gone or `patience.drain` is over. The engine stays open.
pub async fn serve<L: Listener>(
    mut listener: L,
    app: Arc<App>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let webhooks = webhook::start(&app, listener.local_addr().ok());
    let permits_max = app.config.connections_max;
    let permits = Arc::new(Semaphore::new(usize::try_from(permits_max).expect("32 bits")));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let (io, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => {
                let work = connection::run(io, peer, Arc::clone(&app), permit);
                app.world.tasks.spread("connection", Box::pin(work));
            }
            Err(_) => turn_away(io, &app, &refusals),
        }
    }
    drop(listener);
    debug!("draining");
    app.phase.send_replace(Phase::Draining);
    let all = || permits.acquire_many(permits_max);
    if timeout(app.config.patience.drain, all()).await.is_err() {
        warn!("connections are still busy: cutting them");
        app.phase.send_replace(Phase::Cutting);
        // Their tasks end at their next poll; one that does not has nothing left to lose.
        drop(timeout(CUT_TIME_MAX, all()).await);
    }
    // An error means that they have ended: nothing is owed any more.
    drop(webhooks.await);
}

/// Tells a client that there are too many, if there is room even for that.
fn turn_away(mut io: impl Socket, app: &App, refusals: &Arc<Semaphore>) {
    app.metrics.connections_refused.inc();
    let Ok(permit) = Arc::clone(refusals).try_acquire_owned() else { return };
    let work = async move {
        let _permit: OwnedSemaphorePermit = permit;
        let told = async {
            io.write_all(TOO_MANY).await?;
            io.shutdown().await
        };
        // Nobody is owed this answer.
        drop(timeout(REFUSAL_TIME_MAX, told).await);
    };
    app.world.tasks.spawn("refusal", Box::pin(work));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canned_refusal_has_the_length_it_says() {
        let text = std::str::from_utf8(TOO_MANY).expect("ASCII");
        let (_, body) = text.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body.len(), 72);
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
