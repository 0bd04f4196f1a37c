//! Cursors: numbers that make the next live request differ from the last, so that a cache
//! between client and server never answers for ever with the same empty response.

use weir_engine::types::WallMs;

/// 2024-10-09T00:00:00Z, where intervals are counted from.
const EPOCH_MS: u64 = 1_728_432_000_000;
const INTERVAL_MS: u64 = 20_000;
/// 3600 s in intervals.
const JITTER_MAX: u64 = 3_600_000 / INTERVAL_MS;

/// A client's cursor. Junk is no cursor.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// The cursor to answer with: the current interval or, if the client is there already, one
/// ahead of it by a random 1..=180 intervals. `chance` gives any random number.
pub(crate) fn next(client: Option<u64>, now: WallMs, chance: impl FnOnce() -> u64) -> u64 {
    let current = now.get().saturating_sub(EPOCH_MS) / INTERVAL_MS;
    match client {
        Some(client) if client >= current => client.saturating_add(1 + chance() % JITTER_MAX),
        _ => current,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: WallMs = WallMs::new(EPOCH_MS + 1000 * INTERVAL_MS + 7);

    #[test]
    fn a_client_behind_gets_the_current_interval() {
        for client in [None, Some(0), Some(999)] {
            assert_eq!(next(client, NOW, || 5), 1000, "{client:?}");
        }
        assert_eq!(next(None, WallMs::ZERO, || 5), 0);
    }

    #[test]
    fn junk_is_no_cursor() {
        for text in ["", "abc", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_echoed_cursor_grows_by_at_most_an_hour(client in 1000..u64::MAX / 2, chance: u64) {
            let answer = next(Some(client), NOW, || chance);
            prop_assert!(answer > client);
            prop_assert!(answer <= client + 180);
        }

        #[test]
        fn never_panics(text in "\\PC{0,30}", chance: u64, now: u64) {
            next(parse(&text), WallMs::new(now), || chance);
        }
    }
}
