//! What must always hold: one constant per invariant, named as in docs/INVARIANTS.md, and the
//! value that says which of them was broken.

use std::fmt;

/// An invariant: its id and its sentence.
pub type Invariant = &'static str;

pub const ACKED: Invariant = "INV-1 acked is kept";
pub const DURABLE: Invariant = "INV-2 visible implies durable";
pub const DENSE: Invariant = "INV-3 offsets are dense and never reused";
pub const SAME: Invariant = "INV-4 same offset, same bytes, for ever";
pub const ONCE: Invariant = "INV-5 producers exactly once";
pub const CLOSED: Invariant = "INV-6 closed is final";
pub const SEALED: Invariant = "INV-7 what is sealed has no hole";
pub const FOLDED: Invariant = "INV-8 a reopened store has gone back in nothing";
pub const TIMES: Invariant = "INV-9 timestamps never decrease and since finds by them";
pub const EPOCHS: Invariant = "INV-10 a name never uses an epoch twice";
pub const STALE: Invariant = "INV-11 deleted stays deleted and the newest state is served";
pub const WINDOW: Invariant = "INV-12 a window never passes early, and does pass";
pub const BOUNDED: Invariant = "INV-13 WAL and memtable are bounded";
pub const FILES: Invariant = "INV-14 rows and files agree";
pub const TRACE: Invariant = "INV-15 a rejected request leaves no trace";
pub const SENT: Invariant = "INV-16 nothing read was not sent";
pub const KEYED: Invariant = "INV-17 a keyed read equals a scan";
pub const LIVE: Invariant = "INV-18 live readers see every record once, in order";
pub const LISTED: Invariant = "INV-19 the list is what there is";
pub const SERVES: Invariant = "INV-20 without faults the store opens, answers and ends";
pub const DAMAGE: Invariant = "INV-21 damaged bytes are reported, never served";
pub const COUNTED: Invariant = "INV-22 a source is there and counts its forks exactly";
pub const KEPT: Invariant = "INV-23 nothing a fork can read is dropped";
pub const FORKED: Invariant =
    "INV-24 a fork shows its source's records before the point and no later one";
pub const CURSOR: Invariant = "INV-25 an acked cursor never moves back, nor past what was acked";
pub const FENCED: Invariant = "INV-26 a generation never repeats, and an old one changes nothing";
pub const HOLDER: Invariant = "INV-27 a subscription has one holder, as long as its lease";
pub const WOKEN: Invariant = "INV-28 no wake is lost";
pub const ALONE: Invariant = "INV-29 a store has one process";
pub const LINEAR: Invariant = "INV-32 answers about a stream are in one order";
pub const CUT: Invariant = "INV-40 a manifest is a whole cut";
pub const COLLECTED: Invariant =
    "INV-41 what a kept manifest names stays, and everything else goes";
pub const UPLOADED: Invariant = "INV-46 what is acked is in the bucket soon, and sealed before";
pub const IDLE: Invariant = "INV-47 a store at rest owes its bucket nothing and asks it nothing";
pub const CHAIN: Invariant = "INV-48 a bucket has one writer: who is overtaken stops, nobody else";
pub const ERASED: Invariant = "INV-30 what nobody may read leaves the disk in time";
pub const LIMITS: Invariant = "INV-31 what is within its limits can be read, what is not goes";
pub const RECOVERED: Invariant =
    "INV-49 what comes back was published, and what was lost meets nothing new";

pub const ERA: Invariant = "INV-42 an era has epochs of its own";
pub const CLAIMED: Invariant = "INV-43 who recovers has claimed the bucket";
pub const PLACED: Invariant = "INV-44 a recovery takes its place in one step, and when asked";
pub const LOOKED: Invariant = "INV-45 who verifies changes nothing";

/// All of them, for reports.
pub const ALL: [Invariant; 42] = [
    ACKED, DURABLE, DENSE, SAME, ONCE, CLOSED, SEALED, FOLDED, TIMES, EPOCHS, STALE, WINDOW,
    BOUNDED, FILES, TRACE, SENT, KEYED, LIVE, LISTED, SERVES, DAMAGE, COUNTED, KEPT, FORKED,
    CURSOR, FENCED, HOLDER, WOKEN, ALONE, LINEAR, ERASED, LIMITS, CUT, COLLECTED, UPLOADED, IDLE,
    CHAIN, RECOVERED, ERA, CLAIMED, PLACED, LOOKED,
];

/// A broken invariant.
#[derive(Clone, Debug)]
pub struct Breach {
    /// Which one.
    pub invariant: Invariant,
    /// What was seen.
    pub what: String,
}

impl Breach {
    /// A breach, as an error.
    ///
    /// # Errors
    /// Always.
    pub fn of<T>(invariant: Invariant, what: impl Into<String>) -> Result<T, Breach> {
        Err(Breach { invariant, what: what.into() })
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Fails with a breach unless the condition holds.
#[macro_export]
macro_rules! require {
    ($condition:expr, $invariant:expr, $($what:tt)+) => {
        if !$condition {
            return $crate::checks::Breach::of($invariant, format!($($what)+));
        }
    };
}
