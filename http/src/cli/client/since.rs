//! Times that a person writes: so long ago, or then.

use jiff::Timestamp;

use crate::{
    client::From,
    wire::duration::{self, Bare},
};

/// A time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// So many milliseconds ago.
    Ago(u64),
    /// Nanoseconds since 1970.
    At(u64),
}

impl Origin {
    /// Where to read, given the milliseconds since 1970 that it is now.
    pub(super) fn from(self, now_ms: u64) -> From {
        From::Since(match self {
            Self::Ago(ms) => now_ms.saturating_sub(ms).saturating_mul(1_000_000),
            Self::At(nanoseconds) => nanoseconds,
        })
    }
}

pub(super) fn parse(text: &str) -> Result<Origin, String> {
    if let Some(ago) = duration::parse(text, Bare::Refused) {
        return u64::try_from(ago.as_millis()).map(Origin::Ago).map_err(|_| "too long".to_owned());
    }
    let then: Option<Timestamp> = text.parse().ok();
    let nanoseconds = then.and_then(|then| u64::try_from(then.as_nanosecond()).ok());
    nanoseconds.map(Origin::At).ok_or_else(|| "want 10m, 2h, or 2026-11-20T08:30:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ago_or_then() {
        for (text, expect) in [
            ("10m", Some(Origin::Ago(600_000))),
            ("1970-01-01T00:00:01.5Z", Some(Origin::At(1_500_000_000))),
            ("yesterday", None),
            ("1969-01-01T00:00:00Z", None),
        ] {
            assert_eq!(parse(text).ok(), expect, "{text}");
        }
        assert_eq!(Origin::Ago(1_000).from(5_000), From::Since(4_000_000_000));
        assert_eq!(Origin::Ago(9_000).from(5_000), From::Since(0));
    }
}
