//! How much of its records a stream keeps.

use std::num::NonZeroU64;

/// Limits after which a stream lets go of its oldest records. What is beyond either of them may go;
/// what is within both stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Records whose timestamp is older than this may go, in milliseconds of the wall clock.
    pub max_age_ms: Option<NonZeroU64>,
    /// The newest records that together have this many bytes stay, those before may go. What stands
    /// between two records does not count, nor does what a fork inherits.
    pub max_bytes: Option<NonZeroU64>,
}

impl Retention {
    /// Everything is kept.
    pub const NONE: Self = Self { max_age_ms: None, max_bytes: None };

    /// Whether nothing ever goes.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.max_age_ms.is_none() && self.max_bytes.is_none()
    }
}
