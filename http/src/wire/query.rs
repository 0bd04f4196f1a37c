//! The query of a read and of the list. Unknown parameters are ignored, unless they would
//! change what the client believes it got (`filter`).

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use weir_engine::{
    request::{From, List},
    types::{Offset, WallMs},
};

use super::{
    cursor, date,
    duration::{self, Bare},
    error::Refusal,
    escape::{Plus, decode},
};

/// Most rows of a list.
const LIST_ROWS_MAX: usize = 1000;
const LIST_ROWS_DEFAULT: usize = 100;

/// How a reader waits for more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Live {
    #[default]
    Off,
    LongPoll,
    Sse,
}

/// How records are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Raw,
    Json,
}

/// What a GET of a stream asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadQuery<'q> {
    /// Where to start, if the request says.
    pub(crate) from: Option<From>,
    /// The offset as the client spelt it.
    pub(crate) token: Option<Cow<'q, str>>,
    pub(crate) live: Live,
    pub(crate) wait: Option<Duration>,
    pub(crate) cursor: Option<u64>,
    pub(crate) key: Option<Bytes>,
    pub(crate) format: Option<Format>,
}

impl<'q> ReadQuery<'q> {
    /// Reads the part of a URL after `?`.
    pub(crate) fn parse(query: Option<&'q str>) -> Result<Self, Refusal> {
        let mut read = Self::default();
        let mut since: Option<WallMs> = None;
        for pair in pairs(query) {
            let (name, value) = pair?;
            match &*name {
                "offset" if read.token.is_some() => {
                    return Err(Refusal::bad_request("offset given more than once"));
                }
                "offset" => {
                    read.from = Some(parse_offset(&value)?);
                    read.token = Some(value);
                }
                "since" => since = Some(parse_since(&value)?),
                "live" => read.live = parse_live(&value)?,
                "timeout" | "timeout_ms" => read.wait = Some(parse_timeout(&value)?),
                "cursor" => read.cursor = cursor::parse(&value),
                "key" => read.key = parse_key(&value)?,
                "format" => read.format = parse_format(&value)?,
                "filter" => return Err(Refusal::bad_request("filter is not available yet")),
                _ => {}
            }
        }
        read.from = read.from.or(since.map(From::Since));
        if read.live != Live::Off && read.from.is_none() {
            return Err(Refusal::bad_request("missing offset"));
        }
        Ok(read)
    }
}

fn parse_offset(value: &str) -> Result<From, Refusal> {
    match value {
        "" => Err(Refusal::bad_request("missing offset")),
        "-1" => Ok(From::Start),
        "now" => Ok(From::Now),
        token => Offset::parse(token)
            .map(From::At)
            .map_err(|_| Refusal::bad_request(invalid_offset(token))),
    }
}

fn invalid_offset(token: &str) -> String {
    format!(
        "invalid offset of length {}: neither '-1', 'now', '<digits>_<digits>' nor 26 base-32 \
         characters",
        token.len()
    )
}

fn parse_since(value: &str) -> Result<WallMs, Refusal> {
    date::parse(value).ok_or_else(|| Refusal::bad_request("invalid since"))
}

fn parse_live(value: &str) -> Result<Live, Refusal> {
    match value {
        "" | "false" | "0" => Ok(Live::Off),
        "long-poll" | "true" | "1" => Ok(Live::LongPoll),
        "sse" => Ok(Live::Sse),
        _ => Err(Refusal::bad_request("invalid live mode")),
    }
}

/// An empty key is no key, as in the peer.
fn parse_key(value: &str) -> Result<Option<Bytes>, Refusal> {
    if value.len() > weir_engine::limits::KEY_BYTES_MAX {
        return Err(Refusal::bad_request("key too long"));
    }
    Ok((!value.is_empty()).then(|| Bytes::copy_from_slice(value.as_bytes())))
}

fn parse_format(value: &str) -> Result<Option<Format>, Refusal> {
    match value {
        "" => Ok(None),
        "raw" => Ok(Some(Format::Raw)),
        "json" => Ok(Some(Format::Json)),
        _ => Err(Refusal::bad_request("invalid format")),
    }
}

/// Reads how long a client that looks at a stream waits for something new. There is no stream of
/// events of it.
pub(crate) fn parse_wait(query: Option<&str>) -> Result<(Live, Option<Duration>), Refusal> {
    let (mut live, mut wait) = (Live::Off, None);
    for pair in pairs(query) {
        let (name, value) = pair?;
        match &*name {
            "live" => live = parse_live(&value)?,
            "timeout" | "timeout_ms" => wait = Some(parse_timeout(&value)?),
            _ => {}
        }
    }
    if live == Live::Sse {
        return Err(Refusal::bad_request("invalid live mode"));
    }
    Ok((live, wait))
}

fn parse_timeout(value: &str) -> Result<Duration, Refusal> {
    let wait = duration::parse(value, Bare::Milliseconds);
    wait.ok_or_else(|| Refusal::bad_request("invalid timeout"))
}

/// Reads the query of the list of streams.
pub(crate) fn parse_list(query: Option<&str>) -> Result<List, Refusal> {
    let mut list = List { limit: LIST_ROWS_DEFAULT, ..List::default() };
    for pair in pairs(query) {
        let (name, value) = pair?;
        match &*name {
            "limit" => list.limit = parse_row(&value, "invalid limit")?.min(LIST_ROWS_MAX),
            "offset" => list.skip = parse_row(&value, "invalid offset")?,
            "after" => list.after = Some(value.into_owned()),
            "prefix" => list.prefix = Some(value.into_owned()),
            _ => {}
        }
    }
    Ok(list)
}

/// A row number: what is negative counts as zero, what is huge as the hugest.
fn parse_row(value: &str, message: &'static str) -> Result<usize, Refusal> {
    let (digits, negative) = match value.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (value, false),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::bad_request(message));
    }
    Ok(if negative { 0 } else { digits.parse().unwrap_or(usize::MAX) })
}

type Pair<'q> = (Cow<'q, str>, Cow<'q, str>);

fn pairs(query: Option<&str>) -> impl Iterator<Item = Result<Pair<'_>, Refusal>> {
    let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
    parts.map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        Ok((decode(name, Plus::Space)?, decode(value, Plus::Space)?))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(query: &str) -> ReadQuery<'_> {
        ReadQuery::parse(Some(query)).expect("valid")
    }

    #[test]
    fn offsets() {
        let at = Offset::parse("0000000000000000_0000000000000004").expect("valid");
        for (query, from) in [
            ("", None),
            ("foo=bar&offset=-1", Some(From::Start)),
            ("offset=now", Some(From::Now)),
            ("offset=0000000000000000_0000000000000004", Some(From::At(at))),
            ("offset=00000000000000000010000000", Some(From::At(at))),
            ("since=1970-01-01T00:00:01Z", Some(From::Since(WallMs::new(1000)))),
            ("since=1000000000&offset=now", Some(From::Now)),
        ] {
            assert_eq!(read(query).from, from, "{query}");
        }
        for query in [
            "offset=",
            "offset",
            "offset=a&offset=b",
            "offset=-1&offset=-1",
            "offset=0",
            "offset=1,2",
            "offset=1%2C2",
            "offset=0_0%20",
            "offset=0_0+",
            "offset=..%2F0_0",
            "offset=0_0%00",
            "offset=0_0%0d%0a",
            "offset=%zz",
            "since=",
            "since=yesterday",
        ] {
            assert!(ReadQuery::parse(Some(query)).is_err(), "{query}");
        }
    }

    #[test]
    fn live_modes_need_a_position() {
        for (query, live) in [
            ("live=&offset=-1", Live::Off),
            ("live=false", Live::Off),
            ("live=0", Live::Off),
            ("live=true&offset=-1", Live::LongPoll),
            ("live=1&offset=-1", Live::LongPoll),
            ("live=long-poll&since=0", Live::LongPoll),
            ("offset=now&live=sse", Live::Sse),
        ] {
            assert_eq!(read(query).live, live, "{query}");
        }
        for query in ["live=x&offset=-1", "live=sse", "live=long-poll", "live=SSE&offset=-1"] {
            assert!(ReadQuery::parse(Some(query)).is_err(), "{query}");
        }
    }

    #[test]
    fn the_rest() {
        assert_eq!(read("timeout=1500").wait, Some(Duration::from_millis(1500)));
        assert_eq!(read("timeout_ms=1500").wait, Some(Duration::from_millis(1500)));
        assert_eq!(read("timeout=30s").wait, Some(Duration::from_secs(30)));
        assert_eq!(read("cursor=junk").cursor, None);
        assert_eq!(read("cursor=17").cursor, Some(17));
        assert_eq!(read("key=a%20b").key, Some(Bytes::from_static(b"a b")));
        assert_eq!(read("key=").key, None);
        assert_eq!(read("format=raw").format, Some(Format::Raw));
        for query in ["timeout=", "timeout=x", "timeout=-1", "format=xml", "filter=a"] {
            assert!(ReadQuery::parse(Some(query)).is_err(), "{query}");
        }
    }

    #[test]
    fn rows_are_clamped_and_junk_is_refused() {
        for (query, limit, skip) in [
            ("", 100, 0),
            ("limit=7&offset=3", 7, 3),
            ("limit=5000", 1000, 0),
            ("limit=-4&offset=-4", 0, 0),
            ("limit=99999999999999999999999", 1000, 0),
        ] {
            let list = parse_list(Some(query)).expect("valid");
            assert_eq!((list.limit, list.skip), (limit, skip), "{query}");
        }
        for query in ["limit=abc", "limit=", "limit=1.5", "offset=x", "offset=-"] {
            assert!(parse_list(Some(query)).is_err(), "{query}");
        }
        let list = parse_list(Some("after=a%2Fb&prefix=a%2F")).expect("valid");
        assert_eq!((list.after.as_deref(), list.prefix.as_deref()), (Some("a/b"), Some("a/")));
    }

    proptest! {
        #[test]
        fn never_panics(
            name in "(offset|since|live|timeout|cursor|key|format|limit|after|[a-z%&=]{0,4})",
            value in "\\PC{0,40}",
            more in "[ -~]{0,30}",
        ) {
            let query = format!("{name}={value}&{more}");
            drop(ReadQuery::parse(Some(&query)));
            drop(parse_list(Some(&query)));
        }
    }
}
