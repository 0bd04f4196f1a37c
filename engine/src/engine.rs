//! The façade (skeleton).
use std::sync::Arc;

use weir_io::World;

use crate::{
    Config, Metrics, Watch,
    request::{Append, Appended, Create, Created, Error, Head, List, ListRow, Page, Read},
    types::StreamName,
};

/// A running store. Clones share it.
#[derive(Clone)]
pub struct Engine {
    _inner: Arc<()>,
}

/// Whether the store takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Serving,
    /// The disk is full: reads go on, writes resume when space returns.
    DiskFull,
    /// A write failed: durable data is readable, writes need a restart.
    LogFailed {
        /// What went wrong.
        reason: String,
    },
    /// It is going down.
    Draining,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the directory.
    #[error("{dir} is in use by {holder}")]
    Locked {
        /// Which directory.
        dir: String,
        /// What the holder wrote of itself.
        holder: String,
    },
    /// The disk refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("{what}: {source}")]
    Sqlite {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// What is stored can't be trusted.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
}

impl Engine {
    /// Opens the store in `config.dir`, creating it if the directory is empty, and replays
    /// the log.
    ///
    /// # Errors
    /// [`OpenError`] names what is in the way.
    pub async fn open(_world: World, _config: Config, _holder: &str) -> Result<Self, OpenError> {
        unreachable!("skeleton")
    }
    /// Creates a stream or confirms that it is there.
    pub async fn create(&self, _create: Create) -> Result<Created, Error> {
        unreachable!("skeleton")
    }
    /// Appends, closes, or both. The answer is durable.
    pub async fn append(&self, _append: Append) -> Result<Appended, Error> {
        unreachable!("skeleton")
    }
    /// Deletes a stream.
    pub async fn delete(&self, _name: &StreamName) -> Result<(), Error> {
        unreachable!("skeleton")
    }
    /// Metadata; never extends a sliding window.
    pub async fn head(&self, _name: &StreamName) -> Result<Head, Error> {
        unreachable!("skeleton")
    }
    /// A catch-up read.
    pub async fn read(&self, _read: Read) -> Result<Page, Error> {
        unreachable!("skeleton")
    }
    /// Attaches a live reader. While it is attached a sliding window does not pass.
    pub async fn watch(&self, _name: &StreamName) -> Result<Watch, Error> {
        unreachable!("skeleton")
    }
    /// Lists streams by name.
    pub async fn list(&self, _list: List) -> Result<Vec<ListRow>, Error> {
        unreachable!("skeleton")
    }
    /// Whether writes are taken.
    pub fn health(&self) -> Health {
        unreachable!("skeleton")
    }
    /// Counters and gauges.
    pub fn metrics(&self) -> &Metrics {
        unreachable!("skeleton")
    }
    /// Refuses new writes, commits what was admitted, seals, and ends the loops.
    pub async fn close(&self) {
        unreachable!("skeleton")
    }
}
