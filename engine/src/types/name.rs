//! Stream names: the decoded path below the stream root.

use std::{fmt, sync::Arc};

use crate::limits;

/// A valid stream name: 1 to [`limits::NAME_BYTES_MAX`] bytes of UTF-8 without control
/// characters, no empty, `.` or `..` segment, first segment not `__ds`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

/// Why a text is no stream name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing is left of the path.
    #[error("missing stream name")]
    Missing,
    /// Longer than [`limits::NAME_BYTES_MAX`].
    #[error("stream name longer than {} bytes", limits::NAME_BYTES_MAX)]
    TooLong,
    /// A control character at this byte.
    #[error("control character in stream name at byte {0}")]
    Control(usize),
    /// An empty, `.` or `..` segment.
    #[error("stream name has an empty, '.' or '..' segment")]
    Segment,
    /// The control plane's prefix (protocol §17).
    #[error("'__ds' is reserved")]
    Reserved,
}

impl StreamName {
    /// Checks and takes a decoded name.
    ///
    /// # Errors
    /// [`BadName`] says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, BadName> {
        if text.is_empty() {
            return Err(BadName::Missing);
        }
        if text.len() > limits::NAME_BYTES_MAX {
            return Err(BadName::TooLong);
        }
        if let Some(at) = text.bytes().position(|byte| byte < 0x20 || byte == 0x7f) {
            return Err(BadName::Control(at));
        }
        if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(BadName::Segment);
        }
        if text.split('/').next() == Some("__ds") {
            return Err(BadName::Reserved);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for StreamName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
