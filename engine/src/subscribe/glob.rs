//! Glob patterns over stream names: `*` is exactly one segment, `**` any number of them, none
//! included; anything else is a segment as it stands (protocol §6.1).

/// A valid pattern, as the client gave it without slashes at its ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(std::sync::Arc<str>);

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// Nothing is left of it.
    #[error("pattern is empty")]
    Empty,
    /// Longer than a stream name may be.
    #[error("pattern is too long")]
    TooLong,
    /// An empty, `.` or `..` segment, or a control character.
    #[error("pattern has an empty, '.' or '..' segment or a control character")]
    Segment,
    /// It can match nothing but the control plane.
    #[error("'__ds' is reserved")]
    Reserved,
}

impl Pattern {
    /// Checks and takes a decoded pattern.
    ///
    /// # Errors
    /// [`BadPattern`] says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, BadPattern> {
        let text = text.trim_matches('/');
        if text.is_empty() {
            return Err(BadPattern::Empty);
        }
        if text.len() > crate::limits::NAME_BYTES_MAX {
            return Err(BadPattern::TooLong);
        }
        let bad = |segment: &str| {
            matches!(segment, "" | "." | "..") || segment.chars().any(char::is_control)
        };
        if text.split('/').any(bad) {
            return Err(BadPattern::Segment);
        }
        if text.split('/').next() == Some("__ds") {
            return Err(BadPattern::Reserved);
        }
        Ok(Self(text.into()))
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
