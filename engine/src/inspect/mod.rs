//! Inspection: what a store and its streams look like from the inside, in plain figures.
//!
//! Everything comes from what the store has in memory anyway; the one look at the disk is for the
//! size of the database file. The cost of an answer does not grow with the number of streams or
//! with what is stored. To inspect is not to use: no sliding window is extended. Knows nothing of
//! how the figures are written down.

mod publishing;
mod server;
mod stream;

pub use self::{
    publishing::{Newest, Publishing},
    server::{
        Blocks, Commits, Crowd, Limits, Local, Memtable, Queue, Segments, ServerDetails, Streams,
        Subscribers, Unfolded, Wal,
    },
    stream::{
        Details, ForkOf, IndexStatus, Inspection, ManifestStatus, Revision, Sealed, Unsealed,
        Uploaded,
    },
};

use std::sync::Arc;

use crate::{Engine, request::Error, types::StreamName};

impl Engine {
    /// A hold on one incarnation of a stream for looking at it, again and again.
    ///
    /// # Errors
    /// [`Rejection::NotFound`](crate::request::Rejection::NotFound) and
    /// [`Rejection::Gone`](crate::request::Rejection::Gone) as of [`Engine::head`].
    pub async fn inspect(&self, name: &StreamName) -> Result<Inspection, Error> {
        let stream = self.core.living(name).await?;
        Ok(Inspection::new(Arc::clone(&self.core), stream))
    }

    /// What is known of a stream.
    ///
    /// # Errors
    /// As [`Engine::inspect`].
    pub async fn details(&self, name: &StreamName) -> Result<Details, Error> {
        self.inspect(name).await?.details().await
    }

    /// How far the segments of a stream are stored elsewhere and indexed.
    ///
    /// # Errors
    /// As [`Engine::inspect`].
    pub async fn index_status(&self, name: &StreamName) -> Result<IndexStatus, Error> {
        self.inspect(name).await?.index_status()
    }

    /// What is known of the store as a whole. Touches no disk, so it answers when nothing else
    /// does.
    #[must_use]
    pub fn server_details(&self) -> ServerDetails {
        server::gather(&self.core, self.health())
    }
}
