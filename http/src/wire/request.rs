//! Request headers of create and append.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use weir_engine::{
    limits,
    request::Fork,
    types::{Closing, ContentType, Expiry, Offset, ProducerId, ProducerTuple, Retention, WallMs},
};

use super::{
    date, duration,
    error::Refusal,
    names, retention,
    route::{self, Route},
};

/// A header that may stand once.
fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Refusal::bad_request(format!("{name} given more than once")));
    }
    Ok(first)
}

/// The same as trimmed text.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refusal> {
    let Some(value) = single(headers, name)? else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_| Refusal::bad_request(format!("{name} is not UTF-8")))?;
    Ok(Some(text.trim_ascii()))
}

/// `Content-Type`: `None` if there is none or it is blank.
pub(crate) fn content_type(headers: &HeaderMap) -> Result<Option<ContentType>, Refusal> {
    match text(headers, &CONTENT_TYPE)? {
        None | Some("") => Ok(None),
        Some(text) => match ContentType::parse(text) {
            Some(content) => Ok(Some(content)),
            None => Err(Refusal::bad_request("invalid content-type")),
        },
    }
}

/// `Stream-Closed`: only `true`, in any case, closes; every other value is ignored.
pub(crate) fn closing(headers: &HeaderMap) -> Closing {
    let value = headers.get(names::STREAM_CLOSED).map(|value| value.as_bytes().trim_ascii());
    match value {
        Some(value) if value.eq_ignore_ascii_case(b"true") => Closing::Close,
        _ => Closing::KeepOpen,
    }
}

/// `Stream-TTL` or `Stream-Expires-At`.
pub(crate) fn expiry(headers: &HeaderMap) -> Result<Option<Expiry>, Refusal> {
    let ttl = text(headers, &names::STREAM_TTL)?;
    let at = text(headers, &names::STREAM_EXPIRES_AT)?;
    match (ttl, at) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(Refusal::bad_request("only one of Stream-TTL or Stream-Expires-At is allowed"))
        }
        (Some(ttl), None) => match duration::parse_ttl_seconds(ttl) {
            Some(ttl_seconds) if ttl_seconds <= limits::TTL_SECONDS_MAX => {
                Ok(Some(Expiry::Sliding { ttl_seconds }))
            }
            _ => Err(Refusal::bad_request("invalid Stream-TTL")),
        },
        (None, Some(at)) => match date::parse(at) {
            Some(at) => Ok(Some(Expiry::At(at))),
            None => Err(Refusal::bad_request("invalid Stream-Expires-At")),
        },
    }
}

/// `Stream-Retention`.
pub(crate) fn retention(headers: &HeaderMap) -> Result<Retention, Refusal> {
    text(headers, &names::STREAM_RETENTION)?.map_or(Ok(Retention::NONE), retention::parse)
}

/// `Stream-Forked-From` with `Stream-Fork-Offset` and `Stream-Fork-Sub-Offset`, which mean
/// nothing without it.
pub(crate) fn fork(headers: &HeaderMap) -> Result<Option<Fork>, Refusal> {
    let source = text(headers, &names::STREAM_FORKED_FROM)?;
    let at = text(headers, &names::STREAM_FORK_OFFSET)?;
    let sub_offset = text(headers, &names::STREAM_FORK_SUB_OFFSET)?;
    let Some(source) = source else {
        let lonely = match (at, sub_offset) {
            (None, None) => return Ok(None),
            (Some(_), _) => names::STREAM_FORK_OFFSET,
            (None, Some(_)) => names::STREAM_FORK_SUB_OFFSET,
        };
        return Err(Refusal::bad_request(format!("{lonely} needs Stream-Forked-From")));
    };
    let path = source.starts_with(FORK_ROOT) && !source.contains(['?', '#']);
    let Some(Ok(Route::Stream(source))) = path.then(|| route::parse(source)) else {
        return Err(Refusal::bad_request("Stream-Forked-From is not the path of a stream"));
    };
    let at = match at {
        None | Some("now") => None,
        Some("-1") => Some(Offset::START),
        Some(text) => match Offset::parse(text) {
            Ok(offset) => Some(offset),
            Err(_) => return Err(Refusal::bad_request("invalid Stream-Fork-Offset")),
        },
    };
    let sub_offset = match sub_offset.map(sub_offset_number) {
        None => 0,
        Some(Some(number)) => number,
        Some(None) => return Err(Refusal::bad_request("invalid Stream-Fork-Sub-Offset")),
    };
    Ok(Some(Fork { source, at, sub_offset }))
}

/// Sources are named by their path below this root, the one the protocol's examples use.
const FORK_ROOT: &str = "/v1/stream/";

/// `0` or digits that begin with another one.
fn sub_offset_number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if plain && canonical { text.parse().ok() } else { None }
}

/// `Stream-Key`; blank is none.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<Bytes>, Refusal> {
    let Some(value) = single(headers, &names::STREAM_KEY)? else { return Ok(None) };
    let value = value.as_bytes().trim_ascii();
    if value.len() > limits::KEY_BYTES_MAX {
        return Err(Refusal::bad_request("Stream-Key too long"));
    }
    Ok((!value.is_empty()).then(|| Bytes::copy_from_slice(value)))
}

/// `Stream-Seq`: opaque, compared byte by byte, not blank.
pub(crate) fn stream_seq(headers: &HeaderMap) -> Result<Option<Bytes>, Refusal> {
    let Some(value) = single(headers, &names::STREAM_SEQ)? else { return Ok(None) };
    let value = value.as_bytes().trim_ascii();
    if value.is_empty() || value.len() > limits::STREAM_SEQ_BYTES_MAX {
        return Err(Refusal::bad_request("invalid Stream-Seq"));
    }
    Ok(Some(Bytes::copy_from_slice(value)))
}

/// `Stream-Timestamp`.
pub(crate) fn timestamp(headers: &HeaderMap) -> Result<Option<WallMs>, Refusal> {
    match text(headers, &names::STREAM_TIMESTAMP)? {
        None => Ok(None),
        Some("") => Err(Refusal::bad_request("empty timestamp")),
        Some(text) => match date::parse(text) {
            Some(at) => Ok(Some(at)),
            None => Err(Refusal::bad_request("invalid timestamp")),
        },
    }
}

/// `Stream-Expected-Offset`.
pub(crate) fn expected_offset(headers: &HeaderMap) -> Result<Option<Offset>, Refusal> {
    let Some(text) = text(headers, &names::STREAM_EXPECTED_OFFSET)? else { return Ok(None) };
    match Offset::parse(text) {
        Ok(offset) => Ok(Some(offset)),
        Err(_) => Err(Refusal::bad_request("invalid Stream-Expected-Offset")),
    }
}

/// The three producer headers: all or none.
pub(crate) fn producer(headers: &HeaderMap) -> Result<Option<ProducerTuple>, Refusal> {
    let id = text(headers, &names::PRODUCER_ID)?;
    let epoch = text(headers, &names::PRODUCER_EPOCH)?;
    let seq = text(headers, &names::PRODUCER_SEQ)?;
    let (id, epoch, seq) = match (id, epoch, seq) {
        (None, None, None) => return Ok(None),
        (Some(id), Some(epoch), Some(seq)) => (id, epoch, seq),
        _ => return Err(Refusal::bad_request("missing producer headers")),
    };
    let id = ProducerId::new(id).ok_or_else(|| Refusal::bad_request("invalid Producer-Id"))?;
    match (producer_number(epoch), producer_number(seq)) {
        (Some(epoch), Some(seq)) => Ok(Some(ProducerTuple { id, epoch, seq })),
        _ => Err(Refusal::bad_request("invalid producer headers")),
    }
}

/// Digits only, leading zeros allowed, at most 2^53 − 1.
fn producer_number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = text.parse().ok()?;
    (number <= limits::PRODUCER_NUMBER_MAX).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_engine::types::StreamName;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (name.clone(), HeaderValue::from_bytes(value.as_bytes()).expect("valid"))
        });
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn only_true_closes_in_any_case() {
        for (value, expect) in [
            ("true", Closing::Close),
            ("TRUE", Closing::Close),
            ("True", Closing::Close),
            ("yes", Closing::KeepOpen),
            ("1", Closing::KeepOpen),
            ("false", Closing::KeepOpen),
            ("", Closing::KeepOpen),
        ] {
            assert_eq!(closing(&headers(&[(names::STREAM_CLOSED, value)])), expect, "{value}");
        }
        assert_eq!(closing(&HeaderMap::new()), Closing::KeepOpen);
    }

    #[test]
    fn one_expiry_at_most() {
        let ttl = |value| expiry(&headers(&[(names::STREAM_TTL, value)])).ok();
        assert_eq!(ttl("60"), Some(Some(Expiry::Sliding { ttl_seconds: 60 })));
        assert_eq!(ttl("1m"), Some(Some(Expiry::Sliding { ttl_seconds: 60 })));
        assert_eq!(ttl(""), None);
        assert_eq!(ttl("31622400001"), None);
        let at = |value| expiry(&headers(&[(names::STREAM_EXPIRES_AT, value)])).ok();
        assert_eq!(at("1970-01-01T00:00:01Z"), Some(Some(Expiry::At(WallMs::new(1000)))));
        assert_eq!(expiry(&HeaderMap::new()).ok(), Some(None));
        assert_eq!(at("Thu, 01 Jan 1970 00:00:01 GMT"), None);
        let both = [(names::STREAM_TTL, "60"), (names::STREAM_EXPIRES_AT, "1970-01-01T00:00:01Z")];
        assert!(expiry(&headers(&both)).is_err());
    }

    #[test]
    fn producer_headers_come_together_as_digits() {
        let parse = |id: Option<&str>, epoch: Option<&str>, seq: Option<&str>| {
            let fields = [
                (names::PRODUCER_ID, id),
                (names::PRODUCER_EPOCH, epoch),
                (names::PRODUCER_SEQ, seq),
            ];
            let given: Vec<_> =
                fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            producer(&headers(&given)).map(|it| it.map(|it| (it.epoch, it.seq)))
        };
        assert_eq!(parse(None, None, None).expect("none"), None);
        assert_eq!(parse(Some("p"), Some("0"), Some("007")).expect("valid"), Some((0, 7)));
        let max = "9007199254740991";
        assert!(parse(Some("p"), Some(max), Some(max)).is_ok());
        for (id, epoch, seq) in [
            (Some("p"), None, None),
            (None, Some("0"), Some("0")),
            (Some("p"), Some("0"), None),
            (Some(""), Some("0"), Some("0")),
            (Some("p"), Some("1abc"), Some("0")),
            (Some("p"), Some("0"), Some("0xyz")),
            (Some("p"), Some("0"), Some("1e3")),
            (Some("p"), Some("-1"), Some("0")),
            (Some("p"), Some("+1"), Some("0")),
            (Some("p"), Some(""), Some("0")),
            (Some("p"), Some("9007199254740992"), Some("0")),
            (Some("p"), Some("0"), Some("99999999999999999999999")),
        ] {
            assert!(parse(id, epoch, seq).is_err(), "{id:?} {epoch:?} {seq:?}");
        }
    }

    fn forked(from: Option<&str>, at: Option<&str>, sub: Option<&str>) -> Option<Option<Fork>> {
        let fields = [
            (names::STREAM_FORKED_FROM, from),
            (names::STREAM_FORK_OFFSET, at),
            (names::STREAM_FORK_SUB_OFFSET, sub),
        ];
        let given: Vec<_> =
            fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        fork(&headers(&given)).ok()
    }

    #[test]
    fn a_fork_names_its_source_by_path_and_its_point() {
        let point = |at, sub_offset| {
            let source = StreamName::new("a/b").expect("valid");
            Some(Some(Fork { source, at, sub_offset }))
        };
        let two = Offset::parse("0_4").expect("valid");
        for (from, at, sub, expect) in [
            (None, None, None, Some(None)),
            (Some("/v1/stream/a/b"), None, None, point(None, 0)),
            (Some(" /v1/stream/a%2Fb "), Some("now"), Some("0"), point(None, 0)),
            (Some("/v1/stream/a/b/"), Some("-1"), Some("10"), point(Some(Offset::START), 10)),
            (Some("/v1/stream/a/b"), Some("0_5"), Some("3"), point(Some(two), 3)),
            (Some("/v1/stream/a/b"), Some("00000000000000000010000000"), None, point(Some(two), 0)),
        ] {
            assert_eq!(forked(from, at, sub), expect, "{from:?} {at:?} {sub:?}");
        }
    }

    #[test]
    fn malformed_forks_are_refused() {
        let good = Some("/v1/stream/a");
        for (from, at, sub) in [
            (None, Some("0_0"), None),
            (None, None, Some("0")),
            (None, Some("x"), Some("x")),
            (Some(""), None, None),
            (Some("a"), None, None),
            (Some("/v1/stream/"), None, None),
            (Some("/v1/streams/a"), None, None),
            (Some("/v1/stream/__ds/a"), None, None),
            (Some("/v1/stream/a/_schema"), None, None),
            (Some("/v1/stream/a?x=1"), None, None),
            (Some("/v1/stream/%zz"), None, None),
            (Some("http://h/v1/stream/a"), None, None),
            (good, Some(""), None),
            (good, Some("zzz"), None),
            (good, None, Some("")),
            (good, None, Some("-1")),
            (good, None, Some("+1")),
            (good, None, Some("05")),
            (good, None, Some("00")),
            (good, None, Some("1.5")),
            (good, None, Some("abc")),
            (good, None, Some("99999999999999999999")),
        ] {
            assert_eq!(forked(from, at, sub), None, "{from:?} {at:?} {sub:?}");
        }
        for name in
            [names::STREAM_FORKED_FROM, names::STREAM_FORK_OFFSET, names::STREAM_FORK_SUB_OFFSET]
        {
            let value = if name == names::STREAM_FORKED_FROM { "/v1/stream/a" } else { "0" };
            let mut map = headers(&[(names::STREAM_FORKED_FROM, "/v1/stream/a")]);
            map.append(name.clone(), HeaderValue::from_static(value));
            map.append(name, HeaderValue::from_static(value));
            assert!(fork(&map).is_err());
        }
    }

    #[test]
    fn repeated_headers_are_refused() {
        for name in [names::STREAM_SEQ, names::STREAM_TTL, names::PRODUCER_ID, names::STREAM_KEY] {
            let map = headers(&[(name.clone(), "1"), (name.clone(), "2")]);
            let refused = [
                stream_seq(&map).is_err(),
                expiry(&map).is_err(),
                producer(&map).is_err(),
                key(&map).is_err(),
            ];
            assert_eq!(refused.iter().filter(|it| **it).count(), 1, "{name}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(value in proptest::collection::vec(any::<u8>(), 0..40), which in 0_usize..12) {
            let name = [
                names::STREAM_SEQ, names::STREAM_TTL, names::STREAM_EXPIRES_AT,
                names::STREAM_CLOSED, names::STREAM_TIMESTAMP, names::STREAM_EXPECTED_OFFSET,
                names::PRODUCER_EPOCH, names::STREAM_KEY, CONTENT_TYPE, names::STREAM_FORKED_FROM,
                names::STREAM_FORK_OFFSET, names::STREAM_FORK_SUB_OFFSET,
            ][which].clone();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut map = HeaderMap::new();
                map.insert(name, value);
                drop(content_type(&map));
                closing(&map);
                drop(expiry(&map));
                drop(key(&map));
                drop(stream_seq(&map));
                drop(timestamp(&map));
                drop(expected_offset(&map));
                drop(producer(&map));
                drop(fork(&map));
                let from = HeaderValue::from_static("/v1/stream/a");
                map.entry(names::STREAM_FORKED_FROM).or_insert(from);
                drop(fork(&map));
            }
        }
    }
}
