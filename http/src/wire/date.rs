//! Instants on the wire: RFC 3339 in, and whole Unix nanoseconds for the peer's clients; RFC
//! 3339 with milliseconds and RFC 9110 dates out. RFC 1123 dates are not read.

use jiff::{
    Timestamp,
    fmt::{rfc2822, temporal},
};
use weir_engine::types::WallMs;

/// The last instant that four digits of a year can write in every time zone.
const WALL_MS_MAX: u64 = 253_402_207_200_000;
const NS_PER_MS: u64 = 1_000_000;

/// Reads an instant, to the millisecond below it. What lies before 1970 is 1970.
pub(crate) fn parse(text: &str) -> Option<WallMs> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<u64>().ok().map(|ns| WallMs::new(ns / NS_PER_MS));
    }
    if !is_rfc3339(text.as_bytes()) {
        return None;
    }
    let ms = text.parse::<Timestamp>().ok()?.as_millisecond();
    Some(WallMs::new(u64::try_from(ms).unwrap_or(0)))
}

/// `2026-11-20T08:30:00[.123](Z|+01:00)`. The parser behind takes more than the protocol does.
fn is_rfc3339(text: &[u8]) -> bool {
    let Some((head, mut rest)) = text.split_at_checked(19) else { return false };
    let shaped = head.iter().zip(b"0000-00-00T00:00:00").all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't'),
        other => byte == other,
    });
    if let [b'.', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return false;
        }
        rest = &fraction[digits..];
    }
    shaped
        && match rest {
            [b'Z' | b'z'] => true,
            [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].iter().all(|it| it.is_ascii_digit()),
            _ => false,
        }
}

/// `2026-11-20T08:30:00.123Z`.
pub(crate) fn rfc3339(wall: WallMs) -> String {
    let printer = temporal::DateTimePrinter::new().precision(Some(3));
    printer.timestamp_to_string(&timestamp(wall.get()))
}

/// `Fri, 20 Nov 2026 08:30:00 GMT`, for the `Date` header.
pub(crate) fn rfc9110(wall_seconds: u64) -> String {
    let printer = rfc2822::DateTimePrinter::new();
    let stamp = timestamp(wall_seconds.saturating_mul(1000));
    printer.timestamp_to_rfc9110_string(&stamp).expect("a year of four digits")
}

fn timestamp(wall_ms: u64) -> Timestamp {
    let ms = i64::try_from(wall_ms.min(WALL_MS_MAX)).expect("bounded above");
    Timestamp::from_millisecond(ms).expect("between 1970 and the end of 9999")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_rfc_3339_and_nanoseconds_are_instants() {
        for (text, expect) in [
            ("2026-11-20T08:30:00Z", Some(1_795_163_400_000)),
            ("2026-11-20T08:30:00.1239Z", Some(1_795_163_400_123)),
            ("2026-11-20T08:30:00+00:00", Some(1_795_163_400_000)),
            ("2026-11-20T09:30:00.5+01:00", Some(1_795_163_400_500)),
            ("2026-11-20t08:30:00z", Some(1_795_163_400_000)),
            ("1795163400123456789", Some(1_795_163_400_123)),
            ("1960-01-01T00:00:00Z", Some(0)),
            ("0", Some(0)),
            ("", None),
            ("not-a-timestamp", None),
            ("Fri, 20 Nov 2026 08:30:00 GMT", None),
            ("2026-11-20", None),
            ("2026-11-20T08:30:00", None),
            ("2026-11-20 08:30:00Z", None),
            ("2026-11-20T08:30Z", None),
            ("2026-11-20T08:30:00.Z", None),
            ("2026-02-30T08:30:00Z", None),
            ("2026-11-20T25:30:00Z", None),
            ("2026-11-20T08:30:00Z[UTC]", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse(text).map(WallMs::get), expect, "{text}");
        }
    }

    #[test]
    fn dates_are_written_for_their_readers() {
        assert_eq!(rfc3339(WallMs::new(1_795_163_400_123)), "2026-11-20T08:30:00.123Z");
        assert_eq!(rfc3339(WallMs::new(1_795_163_400_000)), "2026-11-20T08:30:00.000Z");
        assert_eq!(rfc9110(1_795_163_400), "Fri, 20 Nov 2026 08:30:00 GMT");
        assert_eq!(rfc3339(WallMs::new(u64::MAX)), "9999-12-30T22:00:00.000Z");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-0-9TtZz:.+ ]{0,40}") {
            parse(&text);
        }

        #[test]
        fn roundtrip(ms in 0..=WALL_MS_MAX) {
            prop_assert_eq!(parse(&rfc3339(WallMs::new(ms))), Some(WallMs::new(ms)));
        }
    }
}
