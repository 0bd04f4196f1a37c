//! What may go wrong at a simulated bucket, how often, and for how long.

use std::{ops::Range, time::Duration};

/// Probabilities are per request and drawn from the bucket's stream; one of exactly zero draws
/// nothing. The default is a healthy bucket that answers at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BucketFaults {
    /// How long a request takes from its start to its answer. Empty: no time.
    pub latency: Range<Duration>,
    /// A request takes this much longer than that, with this probability.
    pub tail: f64,
    /// See `tail`.
    pub tail_latency: Range<Duration>,
    /// Bytes per second of the connection, in both directions. `None`: any number.
    pub bytes_per_second: Option<u64>,
    /// A request fails with a server error and changes nothing.
    pub error: f64,
    /// A burst begins: this request and all that arrive while it lasts fail that way.
    pub burst: f64,
    /// How long bursts last.
    pub burst_length: Range<Duration>,
    /// A request is lost on its way: no answer, nothing changed.
    pub hang: f64,
    /// A request takes effect and its answer is lost: half the time the connection is seen to
    /// break, half the time nothing is ever heard.
    pub lost_answer: f64,
    /// A request seems lost as with `hang`, or to a broken connection, and takes effect later.
    pub late: f64,
    /// How much later.
    pub late_by: Range<Duration>,
    /// A body that is read ends early and nobody says so.
    pub truncated: f64,
    /// A body that is read has one bit inverted.
    pub corrupted: f64,
    /// A creation is not listed, or a deletion still is, for a while.
    pub list_lag: f64,
    /// How long.
    pub list_lag_by: Range<Duration>,
    /// Nobody can connect.
    pub outage: bool,
    /// A creation replaces what is there and calls it new: no store to run on, and a probe
    /// that does not notice has no teeth.
    pub unconditional: bool,
    /// Bytes the bucket holds in all; creations beyond are refused. `None`: any number.
    pub quota_bytes: Option<u64>,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It takes effect and is answered.
    Answered,
    /// It fails with a server error.
    Failed,
    /// It never arrives, and its client hears nothing.
    Lost,
    /// It takes effect and its client sees the connection break.
    Broken,
    /// It takes effect and its client hears nothing.
    Unheard,
    /// It takes effect this much later, and its client sees the connection break.
    LateBroken(Duration),
    /// It takes effect this much later, and its client hears nothing.
    LateUnheard(Duration),
    /// It never arrives and the client is told at once.
    Unreachable,
}

/// What becomes of the body of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mangle {
    Nothing,
    Truncate,
    Corrupt,
}
