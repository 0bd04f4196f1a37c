//! Newtypes for everything that is counted, so that no two can be swapped.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $raw:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($raw);

        impl $name {
            /// The first value.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw integer read from a codec.
            #[must_use]
            pub const fn new(raw: $raw) -> Self {
                Self(raw)
            }

            /// The raw integer, for codecs and display.
            #[must_use]
            pub const fn get(self) -> $raw {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Numeric identity of one incarnation of a stream; never reused in a store.
    StreamId,
    u64
);
id!(
    /// Position of a record in its stream: dense from zero, never reused under an epoch.
    Seq,
    u64
);
id!(
    /// Position of a commit in the log; increasing, holes allowed.
    Lsn,
    u64
);
id!(
    /// Which stretch of a name's history a position belongs to. Grows when a name is created
    /// again and when a store is recovered from a bucket.
    Epoch,
    u32
);
id!(
    /// Number of a segment file in its store.
    SegmentId,
    u64
);
id!(
    /// Wall time in milliseconds since the Unix epoch.
    WallMs,
    u64
);
id!(
    /// Time the store has been running, in milliseconds, summed over all its runs. It stands
    /// still while the store is down and never follows a jump of the wall clock.
    StoreMs,
    u64
);

impl Seq {
    /// Beyond every position.
    pub const LAST: Self = Self(u64::MAX);

    /// The position `count` records later. Overflow would take 2^64 records and is a broken
    /// invariant.
    #[must_use]
    pub fn after(self, count: u64) -> Self {
        Self(self.0.checked_add(count).expect("fewer than 2^64 records in a stream"))
    }

    /// How many records lie in `earlier..self`; zero if there are none.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl StoreMs {
    /// The moment `ms` later; the end of time if that overflows.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl Lsn {
    /// The next log position.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("fewer than 2^64 commits"))
    }
}

/// Epochs of one era: a name created more often than this between two recoveries would use those
/// of the next.
const ERA_EPOCHS: u32 = 1 << 16;

impl Epoch {
    /// How many recoveries from a bucket the epoch has behind it.
    #[must_use]
    pub const fn era(self) -> u32 {
        self.0 / ERA_EPOCHS
    }

    /// The first epoch of an era: above every one that was used before that recovery.
    #[must_use]
    pub const fn first_of(era: u32) -> Self {
        Self(era.saturating_mul(ERA_EPOCHS))
    }
}
