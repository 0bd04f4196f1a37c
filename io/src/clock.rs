//! Wall time. Elapsed time needs no trait: `tokio::time` is real in production and
//! simulated under a paused runtime.

/// Reads the wall clock, which may jump in either direction at any moment.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> u64;

    /// Time since some fixed moment of this process, never decreasing, unaffected by
    /// jumps of the wall clock. In the simulator it is the simulated elapsed time.
    fn elapsed(&self) -> std::time::Duration;
}
