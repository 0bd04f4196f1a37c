//! How much of its records a stream keeps, as a header and as JSON.
//!
//! ```text
//! Stream-Retention: max-age=7d; max-bytes=1000000      either or both, in any order
//! {"max-age":"7d","max-bytes":1000000}                 the same; {} keeps everything
//! ```

use std::num::NonZeroU64;

use bytes::Bytes;
use hyper::header::HeaderValue;
use serde_json::{Map, Value};
use weir_engine::{limits, types::Retention};

use super::{
    duration::{self, Bare},
    error::Refusal,
};

/// Longest age in milliseconds: that of a window.
const AGE_MS_MAX: u64 = limits::TTL_SECONDS_MAX * 1000;
const MAX_AGE: &str = "max-age";
const MAX_BYTES: &str = "max-bytes";
const AGE_WANTED: &str = "wants a time above zero and up to 1000 years, like 7d, 12h, 30m or 90s";
const BYTES_WANTED: &str = "wants a number of bytes above zero";

/// Reads the header. The refusal says what is wrong at which byte of it.
pub(crate) fn parse(text: &str) -> Result<Retention, Refusal> {
    let bad = |at: usize, what: &str| {
        Refusal::bad_request(format!("invalid Stream-Retention at byte {at}: {what}"))
    };
    let mut retention = Retention::NONE;
    let mut at = 0;
    for item in text.split(';') {
        let start = at + item.len() - item.trim_ascii_start().len();
        at += item.len() + 1;
        let item = item.trim_ascii();
        let Some((name, value)) = item.split_once('=') else {
            return Err(bad(
                start,
                "want max-age=TIME, max-bytes=NUMBER, or both with ';' between",
            ));
        };
        let (limit, wanted, read) = match name {
            MAX_AGE => (&mut retention.max_age_ms, AGE_WANTED, age_ms(value)),
            MAX_BYTES => (&mut retention.max_bytes, BYTES_WANTED, bytes(value)),
            _ => return Err(bad(start, "want max-age or max-bytes")),
        };
        if limit.is_some() {
            return Err(bad(start, &format!("{name} is given more than once")));
        }
        let Some(read) = read else {
            return Err(bad(start + name.len() + 1, &format!("{name} {wanted}")));
        };
        *limit = Some(read);
    }
    Ok(retention)
}

fn age_ms(text: &str) -> Option<NonZeroU64> {
    let age = duration::parse(text, Bare::Refused)?;
    let age_ms = u64::try_from(age.as_millis()).ok()?;
    NonZeroU64::new(age_ms).filter(|age_ms| age_ms.get() <= AGE_MS_MAX)
}

/// What a stream can't reach is as good as the most that can be kept track of.
fn bytes(text: &str) -> Option<NonZeroU64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// The header of a stream that does not keep everything.
pub(crate) fn header(retention: Retention) -> Option<HeaderValue> {
    let age = retention.max_age_ms.map(|age| format!("{MAX_AGE}={}", duration::show(age.get())));
    let bytes = retention.max_bytes.map(|bytes| format!("{MAX_BYTES}={bytes}"));
    let items: Vec<String> = age.into_iter().chain(bytes).collect();
    let value = HeaderValue::from_maybe_shared(Bytes::from(items.join("; ")));
    (!items.is_empty()).then(|| value.expect("digits and letters"))
}

/// Reads the body of a change. What is not in it is not limited.
pub(crate) fn from_json(body: &[u8]) -> Result<Retention, Refusal> {
    let fields: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("want a JSON object: {error}")))?;
    let mut retention = Retention::NONE;
    for (name, value) in &fields {
        let (limit, wanted, read) = match name.as_str() {
            MAX_AGE => (&mut retention.max_age_ms, AGE_WANTED, value.as_str().and_then(age_ms)),
            MAX_BYTES => {
                let read = value.as_u64().and_then(NonZeroU64::new);
                (&mut retention.max_bytes, BYTES_WANTED, read)
            }
            _ => {
                let what = format!("unknown field '{name}': want max-age, max-bytes, or both");
                return Err(Refusal::bad_request(what));
            }
        };
        *limit = read;
        if limit.is_none() && !value.is_null() {
            return Err(Refusal::bad_request(format!("{name} {wanted}")));
        }
    }
    Ok(retention)
}

/// The same as it is shown; limits that there are.
pub(crate) fn json(retention: Retention) -> Value {
    let mut fields = Map::new();
    if let Some(age) = retention.max_age_ms {
        fields.insert(MAX_AGE.to_owned(), duration::show(age.get()).into());
    }
    if let Some(bytes) = retention.max_bytes {
        fields.insert(MAX_BYTES.to_owned(), bytes.get().into());
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(max_age_ms: u64, max_bytes: u64) -> Retention {
        let (age, bytes) = (NonZeroU64::new(max_age_ms), NonZeroU64::new(max_bytes));
        Retention { max_age_ms: age, max_bytes: bytes }
    }

    #[test]
    fn either_limit_or_both_in_any_order() {
        for (text, expect, shown) in [
            ("max-age=7d", limits(604_800_000, 0), "max-age=7d"),
            ("max-bytes=1000000", limits(0, 1_000_000), "max-bytes=1000000"),
            ("max-age=90s; max-bytes=1", limits(90_000, 1), "max-age=90s; max-bytes=1"),
            (" max-bytes=07 ;max-age=48h ", limits(172_800_000, 7), "max-age=2d; max-bytes=7"),
            ("max-age=1500ms", limits(1500, 0), "max-age=1500ms"),
        ] {
            assert_eq!(parse(text).expect("valid"), expect, "{text}");
            assert_eq!(header(expect).expect("some"), shown, "{text}");
        }
        assert_eq!(header(Retention::NONE), None);
    }

    #[test]
    fn a_bad_header_is_told_what_is_wrong_and_where() {
        for (text, at, says) in [
            ("", 0, "want max-age=TIME"),
            ("7d", 0, "want max-age=TIME"),
            ("max-age=7d;", 11, "want max-age=TIME"),
            ("max-age=7x", 8, "max-age wants a time"),
            ("max-age=7", 8, "max-age wants a time"),
            ("max-age=0s", 8, "max-age wants a time"),
            ("max-age=9999999d", 8, "max-age wants a time"),
            ("max-age=1d; max-bytes=1KB", 22, "max-bytes wants a number"),
            ("max-bytes=0", 10, "max-bytes wants a number"),
            ("max-bytes=+1", 10, "max-bytes wants a number"),
            ("max-bytes=99999999999999999999", 10, "max-bytes wants a number"),
            ("max-bytes=1;  max-bytes=2", 14, "max-bytes is given more than once"),
            ("max-bytes=1; ttl=2", 13, "want max-age or max-bytes"),
            ("Max-Age=1d", 0, "want max-age or max-bytes"),
        ] {
            let refusal = parse(text).expect_err(text);
            let expect = format!("invalid Stream-Retention at byte {at}: {says}");
            assert!(refusal.message.starts_with(&expect), "{text}: {}", refusal.message);
        }
    }

    #[test]
    fn a_body_says_the_same() {
        for (text, expect) in [
            ("{}", Retention::NONE),
            (r#"{"max-age":null}"#, Retention::NONE),
            (r#"{"max-age":"7d","max-bytes":1000000}"#, limits(604_800_000, 1_000_000)),
        ] {
            assert_eq!(from_json(text.as_bytes()).expect("valid"), expect, "{text}");
            let shown = json(expect).to_string();
            assert_eq!(from_json(shown.as_bytes()).expect("valid"), expect, "{text}");
        }
        for (text, says) in [
            ("", "want a JSON object: EOF"),
            ("[]", "want a JSON object: invalid type"),
            (r#"{"max-age":7}"#, "max-age wants a time"),
            (r#"{"max-age":"7"}"#, "max-age wants a time"),
            (r#"{"max-bytes":"7"}"#, "max-bytes wants a number"),
            (r#"{"max-bytes":0}"#, "max-bytes wants a number"),
            (r#"{"max_bytes":7}"#, "unknown field 'max_bytes'"),
        ] {
            let refusal = from_json(text.as_bytes()).expect_err(text);
            assert!(refusal.message.starts_with(says), "{text}: {}", refusal.message);
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_reads_what_it_shows(text in "\\PC{0,40}", age: u64, bytes: u64) {
            drop(parse(&text));
            drop(from_json(text.as_bytes()));
            let retention = limits(age % (AGE_MS_MAX + 1), bytes);
            if let Some(shown) = header(retention) {
                let shown = shown.to_str().expect("ASCII");
                prop_assert_eq!(parse(shown).expect("valid"), retention);
            }
        }
    }
}
