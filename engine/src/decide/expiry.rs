//! When a stream ends by itself (design: Time).
//!
//! A sliding window runs on store time, which no jump of the wall clock touches and which stands
//! still while the server is down. Its durable deadline lies one quantum beyond the window, so
//! that most touches need no write; the exact one is kept in memory.

use super::Now;
use crate::types::{Expiry, StoreMs};

/// Longest quantum in milliseconds.
const QUANTUM_MS_MAX: u64 = 60_000;

/// How far ahead of the window its durable deadline is written.
pub(crate) fn quantum_ms(ttl_seconds: u64) -> u64 {
    (ttl_seconds.saturating_mul(1000) / 4).min(QUANTUM_MS_MAX)
}

/// When the window passes if nothing touches the stream after `touched`.
pub(crate) const fn window_end(ttl_seconds: u64, touched: StoreMs) -> StoreMs {
    touched.plus(ttl_seconds.saturating_mul(1000))
}

/// The deadline to store for a stream touched `now`.
pub(crate) fn deadline(expiry: Expiry, now: StoreMs) -> Option<StoreMs> {
    match expiry {
        Expiry::Sliding { ttl_seconds } => {
            Some(window_end(ttl_seconds, now).plus(quantum_ms(ttl_seconds)))
        }
        Expiry::Never | Expiry::At(_) => None,
    }
}

/// Whether the stream has ended by itself. `touched`: the last touch in memory, if any is
/// remembered; without one the durable deadline speaks, which is later, never earlier.
pub(crate) fn has_passed(
    expiry: Expiry,
    deadline: Option<StoreMs>,
    touched: Option<StoreMs>,
    now: Now,
) -> bool {
    match expiry {
        Expiry::Never => false,
        Expiry::At(at) => now.wall >= at,
        Expiry::Sliding { ttl_seconds } => {
            let end = match touched {
                Some(touched) => window_end(ttl_seconds, touched),
                None => deadline.expect("INV-12 a sliding stream has a durable deadline"),
            };
            now.store >= end
        }
    }
}
