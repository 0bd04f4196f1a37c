//! Live readers: a hold on one incarnation of a stream, a bell to wait at, and frames that are
//! encoded once for all readers of the stream.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;

use crate::{
    core::Core,
    read::{self, Want},
    request::{Error, From, Page},
    state::view::{Frame, Stream, Wait},
    types::{Offset, Place},
};

/// Frames kept per stream: readers that are at most this many frames behind share.
const FRAMES_KEPT: usize = 4;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There are records after the position.
    Data,
    /// There are none and there never will be: the stream is closed.
    Closed,
    /// The stream was deleted, has expired, or the engine is going down.
    Gone,
}

/// A live reader's hold on one incarnation of a stream. Detaches when dropped.
pub struct Watch {
    core: Arc<Core>,
    stream: Arc<Stream>,
}

impl Watch {
    pub(crate) fn new(core: Arc<Core>, stream: Arc<Stream>) -> Self {
        let mut watched = core.watched.lock();
        let before = stream.pulse.watchers.fetch_add(1, Ordering::AcqRel);
        if before == 0 && stream.ttl_seconds().is_some() {
            watched.insert(stream.identity.id, Arc::clone(&stream));
        }
        drop(watched);
        core.crowds.lock().enter(&stream, Wait::Read);
        core.metrics.live_readers.inc();
        Self { core, stream }
    }

    /// Reads on, of this incarnation only.
    ///
    /// # Errors
    /// As [`Engine::read`](crate::Engine::read).
    pub async fn read(
        &self,
        from: From,
        key: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Page, Error> {
        // The keeper writes windows of attached readers ahead; a process that was stopped for long is behind.
        self.core.keep_alive(&self.stream, 0).await;
        let key = key.map(Bytes::copy_from_slice);
        let page = read::page(&self.core, &self.stream, Want { from, key, bytes_max }).await?;
        if let From::At(offset) = from {
            let there = page.start.next == offset.next;
            assert!(there, "INV-18 live readers see every record once: they go on where they were");
        }
        Ok(page)
    }

    /// Waits until the stream has something other than an open tail at `from`; cancel safe.
    pub async fn changed(&self, from: Offset) -> Change {
        let mut waited = false;
        loop {
            let bell = self.stream.bell.notified();
            let mut bell = std::pin::pin!(bell);
            // Enlist before looking, or a ring in between would be missed.
            bell.as_mut().enable();
            let mut change = self.look(from);
            if change.is_none() {
                waited = true;
                bell.await;
                // Mostly something has come, and then no place at the bell is needed.
                change = self.look(from);
            }
            let Some(change) = change else { continue };
            if waited {
                self.core.metrics.wakes.inc();
            }
            return change;
        }
    }

    fn look(&self, from: Offset) -> Option<Change> {
        let leaving = *self.core.leaving.borrow();
        let durable = self.stream.durable.lock();
        if durable.presence().is_err() {
            return Some(Change::Gone);
        }
        let state = &durable.state;
        match state.lineage.place(from, state.next) {
            Place::At(seq) if seq < state.next => Some(Change::Data),
            Place::Lost(_) => Some(Change::Data),
            _ if state.closed.is_some() => Some(Change::Closed),
            _ if leaving => Some(Change::Gone),
            Place::At(_) | Place::Beyond => None,
        }
    }

    /// The encoded form of the records `start..next`, made once and shared by all readers who ask
    /// for the same range.
    pub fn frame(&self, start: Offset, next: Offset, encode: impl FnOnce() -> Bytes) -> Bytes {
        let mut frames = self.stream.frames.lock();
        let same = |frame: &&Frame| frame.start == start.next && frame.next == next.next;
        if let Some(frame) = frames.iter().find(same) {
            return frame.bytes.clone();
        }
        let bytes = encode();
        if frames.len() == FRAMES_KEPT {
            frames.pop_front();
        }
        frames.push_back(Frame { start: start.next, next: next.next, bytes: bytes.clone() });
        bytes
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The window of a sliding stream starts anew when its last reader leaves.
        self.stream.pulse.touch(self.core.store_now());
        let mut watched = self.core.watched.lock();
        if self.stream.pulse.watchers.fetch_sub(1, Ordering::AcqRel) == 1 {
            watched.remove(&self.stream.identity.id);
            drop(watched);
            self.stream.frames.lock().clear();
        } else {
            drop(watched);
        }
        self.core.crowds.lock().leave(&self.stream, Wait::Read);
        self.core.metrics.live_readers.dec();
    }
}
