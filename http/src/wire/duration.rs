//! Spans of time: `1500ms`, `3s`, `2m`, `1h`, `7d`.

use std::time::Duration;

/// What a number without a unit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    Milliseconds,
    Refused,
}

/// Reads a span; `None` for anything else, and for what overflows 64 bits of milliseconds.
pub(crate) fn parse(text: &str, bare: Bare) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit_ms = match (unit, bare) {
        ("", Bare::Milliseconds) | ("ms", _) => 1,
        ("s", _) => 1000,
        ("m", _) => 60_000,
        ("h", _) => 3_600_000,
        ("d", _) => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

/// Writes a span in the largest unit that it is a whole number of.
pub(crate) fn show(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let whole = units.into_iter().find(|(unit_ms, _)| ms.is_multiple_of(*unit_ms));
    let (unit_ms, unit) = whole.unwrap_or((1, "ms"));
    format!("{}{unit}", ms / unit_ms)
}

/// `Stream-TTL`: whole seconds as `0` or digits without a leading zero, or the same grammar
/// with a unit, as long as it comes to whole seconds.
pub(crate) fn parse_ttl_seconds(text: &str) -> Option<u64> {
    if text.len() > 1 && text.starts_with('0') && text.as_bytes()[1].is_ascii_digit() {
        return None;
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let span = parse(text, Bare::Refused)?;
    (span.subsec_millis() == 0).then_some(span.as_secs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ttl_is_whole_seconds_in_one_spelling() {
        for (text, expect) in [
            ("0", Some(0)),
            ("3600", Some(3600)),
            ("1h", Some(3600)),
            ("60m", Some(3600)),
            ("2000ms", Some(2)),
            ("1d", Some(86_400)),
            ("0s", Some(0)),
            ("abc", None),
            ("-1", None),
            ("00060", None),
            ("00", None),
            ("01s", None),
            ("+60", None),
            ("60.5", None),
            ("1e3", None),
            ("1500ms", None),
            ("1.5s", None),
            ("", None),
            ("s", None),
            ("1 s", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_ttl_seconds(text), expect, "{text}");
        }
    }

    #[test]
    fn bare_numbers_are_milliseconds_where_the_peer_says_so() {
        assert_eq!(parse("250", Bare::Milliseconds), Some(Duration::from_millis(250)));
        assert_eq!(parse("250", Bare::Refused), None);
        assert_eq!(parse("30s", Bare::Milliseconds), Some(Duration::from_secs(30)));
        assert_eq!(parse("", Bare::Milliseconds), None);
        assert_eq!(parse("18446744073709551615d", Bare::Refused), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,24}") {
            parse(&text, Bare::Milliseconds);
            parse_ttl_seconds(&text);
        }
    }
}
