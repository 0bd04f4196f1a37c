//! The bucket of a server: opened, counted, asked with patience, and tried out before it is
//! trusted.
//!
//! ```text
//! settings ─▶ open ─▶ count ─▶ retry ─▶ probe ─▶ the engine publishes to it
//! ```
//! Two servers on one bucket are told apart by create-if-absent alone, so a bucket that ignores
//! it is refused, and so is one that can't be asked: a server that never publishes would fill
//! its disk and then refuse appends, long after anybody looked at its start.

use std::{io, sync::Arc, time::Duration};

use tokio::time::timeout;
use weir_io::{
    World,
    objects::{Counting, Counts, ObjectError, Objects, Unfit, probe},
    os::objects::{self, Kind},
    retry::{Patience, Retrying},
};

use crate::{cli::store::StoreKind, config::StoreSettings};

/// How long a bucket may take to prove itself.
const PROBE_MAX: Duration = Duration::from_secs(30);

/// How often it is asked the same thing meanwhile.
const PROBE_ATTEMPTS_MAX: u32 = 3;

/// A bucket that may be used.
#[derive(Clone)]
pub struct ObjectStore {
    /// The bucket, asked once for each request.
    pub objects: Arc<dyn Objects>,
    /// The same, asked with patience.
    pub bucket: Arc<Retrying>,
    /// What it was asked, every attempt for itself.
    pub counts: Arc<Counts>,
    /// Its kind.
    pub kind: StoreKind,
    /// How an operator knows it.
    pub place: String,
    /// How long and how often it is asked.
    pub patience: Patience,
}

/// Why a bucket can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A setting is missing or wrong, or the directory can't be used.
    #[error("it cannot be opened")]
    Open(#[source] ObjectError),
    /// Its directory can't be listed.
    #[error("there is no bucket")]
    Missing(#[source] io::Error),
    /// It failed its trial.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// It did not answer.
    #[error("it did not answer within {PROBE_MAX:?}")]
    Silent,
}

impl StoreError {
    /// Whether the bucket did not answer, so that asking again may help.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Silent | Self::Unfit(Unfit::Error(ObjectError::Transient(_))))
    }
}

impl ObjectStore {
    /// Opens the bucket and tries it out.
    ///
    /// # Errors
    /// It can't be opened or asked, or does not do what two servers must rely on.
    pub async fn open(world: &World, settings: &StoreSettings) -> Result<Self, StoreError> {
        let opened = objects::open(&settings.bucket, world).await.map_err(StoreError::Open)?;
        Self::counted(world, settings, opened).tried(world).await
    }

    /// As [`ObjectStore::open`], for a store that has used the bucket before: one that is not there is
    /// away, not new.
    ///
    /// # Errors
    /// As there.
    pub async fn open_known(world: &World, settings: &StoreSettings) -> Result<Self, StoreError> {
        Self::open_untried(world, settings)?.tried(world).await
    }

    async fn tried(self, world: &World) -> Result<Self, StoreError> {
        // Who starts a server waits for this.
        let trial = Patience { attempts_max: PROBE_ATTEMPTS_MAX, ..self.patience };
        let trial = self.bucket.with_patience(trial);
        let probed = timeout(PROBE_MAX, probe(&trial, &*world.entropy)).await;
        probed.map_err(|_| StoreError::Silent)??;
        Ok(self)
    }

    /// Opens the bucket for one who only looks: without a trial, which writes, and a directory
    /// must be there.
    ///
    /// # Errors
    /// It can't be opened.
    pub async fn open_to_look(world: &World, settings: &StoreSettings) -> Result<Self, StoreError> {
        if let Kind::Local { directory } = &settings.bucket.kind {
            let listed = world.disk.list(directory);
            listed.map_err(StoreError::Missing)?;
        }
        let opened = objects::open_to_look(&settings.bucket, world).map_err(StoreError::Open)?;
        Ok(Self::counted(world, settings, opened))
    }

    /// Opens a bucket that was tried out before.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn open_untried(world: &World, settings: &StoreSettings) -> Result<Self, StoreError> {
        let opened = objects::open_known(&settings.bucket, world).map_err(StoreError::Open)?;
        Ok(Self::counted(world, settings, opened))
    }

    fn counted(world: &World, settings: &StoreSettings, opened: Arc<dyn Objects>) -> Self {
        let counts = Arc::new(Counts::new(Arc::clone(&world.clock)));
        let objects: Arc<dyn Objects> = Arc::new(Counting::new(opened, Arc::clone(&counts)));
        let patience = Patience::default();
        let entropy = Arc::clone(&world.entropy);
        let bucket = Arc::new(Retrying::new(Arc::clone(&objects), entropy, patience));
        let (kind, place) = (settings.kind, settings.place.clone());
        Self { objects, bucket, counts, kind, place, patience }
    }
}
