//! Notes of whoever runs the store, kept beside it on this disk. No part of the log: what is
//! recovered from a bucket has none.

use super::Engine;
use crate::{request::Error, state::catalogue};

/// Bytes of one note at most.
const NOTE_BYTES_MAX: usize = 64 << 10;

impl Engine {
    /// Keeps a note under `name`, instead of the one before.
    ///
    /// # Errors
    /// It is too long or could not be written.
    pub async fn keep_note(&self, name: &str, text: String) -> Result<(), Error> {
        if text.len() > NOTE_BYTES_MAX {
            return Err(Error::ReadFailed(format!("a note has at most {NOTE_BYTES_MAX} bytes")));
        }
        let key = format!("note/{name}");
        let kept = self
            .core
            .on_writer("note", move |conn| catalogue::put_meta(conn, &key, text.as_bytes()));
        let kept = kept.await.map_err(|_| Error::Draining)?;
        kept.map_err(|error| Error::ReadFailed(error.to_string()))
    }

    /// Reads a note; `None` if there is none.
    ///
    /// # Errors
    /// The catalogue could not be read.
    pub async fn note(&self, name: &str) -> Result<Option<String>, Error> {
        let key = format!("note/{name}");
        let found = self.core.on_reader(move |conn| catalogue::meta(conn, &key)).await;
        let found = found.map_err(|error| Error::ReadFailed(error.to_string()))?;
        Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}
