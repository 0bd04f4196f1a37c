//! What the bucket was asked, kept over restarts as a note of the store.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tracing::warn;
use weir_engine::Engine;
use weir_io::{
    World,
    objects::{Counts, Snapshot},
};

use crate::ObjectStore;

/// The name of the note.
const NOTE: &str = "bucket-requests";
/// How often it is written, if there is something new: a process that is killed forgets as much.
const PERIOD: Duration = Duration::from_secs(5);

/// Keeps the counts of a server's bucket.
pub(super) struct Bill {
    engine: Engine,
    counts: Arc<Counts>,
    /// What the note says.
    kept: Mutex<String>,
}

impl Bill {
    /// Adds what earlier runs have counted.
    pub(super) async fn restored(engine: &Engine, store: &ObjectStore) -> Arc<Self> {
        let counts = Arc::clone(&store.counts);
        let kept = match engine.note(NOTE).await {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => {
                warn!(%error, "what the bucket was asked before is not known");
                String::new()
            }
        };
        if !kept.is_empty() {
            match Snapshot::from_text(&kept) {
                Ok(earlier) => counts.restore(&earlier),
                Err(error) => warn!(%error, "what the bucket was asked before is not readable"),
            }
        }
        Arc::new(Self { engine: engine.clone(), counts, kept: Mutex::new(kept) })
    }

    /// Writes the note from time to time.
    pub(super) fn keep(self: &Arc<Self>, world: &World) {
        let bill = Arc::clone(self);
        let keep = async move {
            while bill.save().await {
                tokio::time::sleep(PERIOD).await;
            }
        };
        world.tasks.spawn("bill", Box::pin(keep));
    }

    /// Writes the note if there is something new. False if the store takes no notes any more.
    pub(super) async fn save(&self) -> bool {
        let text = self.counts.snapshot().to_text();
        if *self.kept.lock() == text {
            return true;
        }
        match self.engine.keep_note(NOTE, text.clone()).await {
            Ok(()) => {
                *self.kept.lock() = text;
                true
            }
            Err(weir_engine::request::Error::Draining) => false,
            Err(error) => {
                warn!(%error, "what the bucket was asked is not noted");
                true
            }
        }
    }
}
