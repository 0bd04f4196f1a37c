//! Names of headers, and queries.

use hyper::header::HeaderName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub(super) const CLOSED: HeaderName = HeaderName::from_static("stream-closed");
pub(super) const TTL: HeaderName = HeaderName::from_static("stream-ttl");
pub(super) const EXPIRES_AT: HeaderName = HeaderName::from_static("stream-expires-at");
pub(super) const RETENTION: HeaderName = HeaderName::from_static("stream-retention");
pub(super) const KEY: HeaderName = HeaderName::from_static("stream-key");
pub(super) const EXPECTED_OFFSET: HeaderName = HeaderName::from_static("stream-expected-offset");
pub(super) const FORKED_FROM: HeaderName = HeaderName::from_static("stream-forked-from");
pub(super) const FORK_OFFSET: HeaderName = HeaderName::from_static("stream-fork-offset");
pub(super) const FORK_SUB_OFFSET: HeaderName = HeaderName::from_static("stream-fork-sub-offset");
pub(super) const PRODUCER_ID: HeaderName = HeaderName::from_static("producer-id");
pub(super) const PRODUCER_EPOCH: HeaderName = HeaderName::from_static("producer-epoch");
pub(super) const PRODUCER_SEQ: HeaderName = HeaderName::from_static("producer-seq");
pub(super) const NEXT_OFFSET: &str = "stream-next-offset";
pub(super) const UP_TO_DATE: &str = "stream-up-to-date";
pub(super) const CURSOR: &str = "stream-cursor";
pub(super) const SSE_ENCODING: &str = "stream-sse-data-encoding";

const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A path with a query of these pairs, escaped.
pub(super) fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut text = path.to_owned();
    for (index, (name, value)) in pairs.iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.extend(utf8_percent_encode(value, PLAIN));
    }
    text
}

/// One segment of a path, escaped.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let path = with_query("/s", &[("offset", "0_1"), ("key", "a b&c")]);
        assert_eq!(path, "/s?offset=0_1&key=a%20b%26c");
        assert_eq!(with_query("/s", &[]), "/s");
        assert_eq!(segment("a/b"), "a%2Fb");
    }
}
