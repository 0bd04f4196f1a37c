//! Connections that make streams.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::{
    load::Run,
    measure::Shared,
    raw::Link,
    request::Streams,
    setup::{Refusal, THERE_ALREADY, is_busy},
};

const BUFFER_BYTES: usize = 4 << 10;
/// Before a request that was refused or got no answer is sent again.
const PAUSE: Duration = Duration::from_millis(5);

/// One connection that makes streams.
pub(super) struct Creator {
    pub(super) run: Run,
    pub(super) streams: Arc<Streams>,
    /// The next stream that nobody makes yet.
    pub(super) next: Arc<AtomicUsize>,
}

impl Creator {
    /// Makes streams until the run is over or there are enough.
    pub(super) async fn work(self, tally: Shared) -> anyhow::Result<()> {
        match self.run.unless_overdue(self.create(&tally)).await {
            Some(created) => created,
            None => {
                tally.append.lock().failed("no answer until the end");
                Ok(())
            }
        }
    }

    async fn create(&self, tally: &Shared) -> anyhow::Result<()> {
        let mut link = Link::new(self.run.peer, BUFFER_BYTES);
        self.run.connect(&mut link, "a connection").await?;
        self.run.reach(self.run.begin).await;
        while !self.run.is_over() {
            let stream = self.next.fetch_add(1, Ordering::Relaxed);
            if stream >= self.streams.count {
                break;
            }
            let request = self.streams.create(stream);
            let began = self.run.now();
            let mut first = true;
            loop {
                match self.attempt(&mut link, &request, tally).await? {
                    // The answer to an earlier attempt may have been lost.
                    Some(201) => break,
                    Some(_) if !first => break,
                    Some(_) => bail!("{}: {THERE_ALREADY}", self.streams.path(stream)),
                    None => {}
                }
                first = false;
                if self.run.is_over() {
                    return Ok(());
                }
                tokio::time::sleep(PAUSE).await;
            }
            self.streams.made(stream);
            let now = self.run.now();
            tally.append.lock().done(now, now - began, 1, 0);
        }
        Ok(())
    }

    /// The status, if it is there now.
    async fn attempt(
        &self,
        link: &mut Link,
        request: &[u8],
        tally: &Shared,
    ) -> anyhow::Result<Option<u16>> {
        let (head, connection) = match link.ask(request).await {
            Ok(answer) => answer,
            Err(failure) => {
                tally.append.lock().failed(&failure.to_string());
                return Ok(None);
            }
        };
        if matches!(head.status, 200 | 201 | 204) {
            // The head has said it, whatever becomes of the rest.
            drop(connection.skip().await);
            return Ok(Some(head.status));
        }
        let excuse = connection.excuse().await.unwrap_or_default();
        if !is_busy(head.status) {
            return Err(Refusal { status: head.status, excuse }).context("a stream was refused");
        }
        tally.append.lock().failed(&format!("{} {excuse}", head.status));
        Ok(None)
    }
}
