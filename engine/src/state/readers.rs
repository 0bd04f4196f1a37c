//! Reading connections to the database: kept while nobody uses them, counted while somebody does.
//!
//! Whoever closes a database last moves its log into it, and a connection that reads can't: so the
//! writer's is to be the last, and a store that stops waits for the others.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::watch;

use super::catalogue::Failure;

/// Connections kept open.
const KEPT: usize = 4;
/// How long a stop waits for those that are in use.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The reading connections of a store.
pub(crate) struct Readers {
    idle: Mutex<Idle>,
    out: watch::Sender<usize>,
}

#[derive(Default)]
struct Idle {
    connections: Vec<Connection>,
    /// Nothing is kept any more.
    closed: bool,
}

/// Somebody who uses a connection, or is about to.
pub(crate) struct Out(Arc<Readers>);

impl Drop for Out {
    fn drop(&mut self) {
        self.0.out.send_modify(|out| *out -= 1);
    }
}

impl Readers {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), out: watch::Sender::new(0) })
    }

    /// Counts one more user, from before its job runs.
    pub(crate) fn enter(self: &Arc<Self>) -> Out {
        self.out.send_modify(|out| *out += 1);
        Out(Arc::clone(self))
    }

    /// Closes what is idle and waits for what is not, but not for ever.
    pub(crate) async fn close(&self) {
        {
            let mut idle = self.idle.lock();
            idle.closed = true;
            idle.connections.clear();
        }
        let mut out = self.out.subscribe();
        let ended = out.wait_for(|out| *out == 0);
        if tokio::time::timeout(WAIT_MAX, ended).await.is_err() {
            tracing::warn!(
                "a read goes on: the log stays beside the database until the next start"
            );
        }
    }
}

impl Out {
    /// Asks a connection. Runs where blocking is allowed.
    pub(crate) fn ask<R>(
        self,
        open: impl FnOnce() -> rusqlite::Result<Connection>,
        question: impl FnOnce(&Connection) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let kept = self.0.idle.lock().connections.pop();
        let conn = match kept {
            Some(conn) => conn,
            None => open()?,
        };
        let answer = question(&conn)?;
        let mut idle = self.0.idle.lock();
        if !idle.closed && idle.connections.len() < KEPT {
            idle.connections.push(conn);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_whoever_reads_and_keeps_nothing() {
        let readers = Readers::new();
        readers.enter().ask(Connection::open_in_memory, |_| Ok(())).expect("it is asked");
        assert_eq!(readers.idle.lock().connections.len(), 1);
        let reading = readers.enter();
        let closing = readers.close();
        let mut closing = std::pin::pin!(closing);
        tokio::select! {
            biased;
            () = closing.as_mut() => panic!("somebody reads"),
            () = tokio::time::sleep(WAIT_MAX / 2) => {}
        }
        reading.ask(Connection::open_in_memory, |_| Ok(())).expect("it is asked");
        closing.await;
        assert_eq!(readers.idle.lock().connections.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_for_ever() {
        let readers = Readers::new();
        let reading = readers.enter();
        readers.close().await;
        drop(reading);
    }
}
