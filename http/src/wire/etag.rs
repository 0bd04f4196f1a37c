//! Entity tags of pages, and `If-None-Match`.
//!
//! A tag names the incarnation of the stream, the range, whether the page ends at the tail (`t`)
//! and whether the stream is closed there (`c`), the routing key and the format. The tail mark
//! matters: the same bytes stop being up to date when a record follows that did not fit, and a
//! cache that revalidated them by range alone would keep saying so.

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue, IF_NONE_MATCH};
use weir_engine::{
    request::Page,
    types::{Form, OffsetFormat},
};

use super::query::Format;

/// The tag of a page.
pub(crate) fn of(page: &Page, key: Option<&[u8]>, format: Option<Format>) -> HeaderValue {
    use std::fmt::Write as _;

    let mut tag = String::with_capacity(96);
    let start = page.start.mint(OffsetFormat::Reference);
    let next = page.next.mint(OffsetFormat::Reference);
    write!(tag, "\"{}:{start}:{next}", page.incarnation).expect("a string takes it");
    if page.up_to_date {
        tag.push_str(":t");
    }
    if page.closed {
        tag.push_str(":c");
    }
    if let Some(key) = key {
        write!(tag, ":k{:016x}", fnv1a(key)).expect("a string takes it");
    }
    let json = page.form() == Form::Json && format != Some(Format::Raw);
    tag.push_str(if json { ":json\"" } else { ":raw\"" });
    HeaderValue::from_maybe_shared(Bytes::from(tag)).expect("visible ASCII")
}

/// A tag belongs to one URL, so the key in it need only differ where it differs by accident.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Whether the client has `tag` already: lists, `*` and weak tags count (RFC 9110 §13.1.2).
pub(crate) fn matches(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|value| lists(value.as_bytes(), tag.as_bytes()))
}

fn lists(mut text: &[u8], tag: &[u8]) -> bool {
    if text.trim_ascii() == b"*" {
        return true;
    }
    loop {
        let skip = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b',')).count();
        text = &text[skip..];
        text = text.strip_prefix(b"W/").unwrap_or(text);
        // What is not a quoted tag ends the list: nothing behind it can be trusted.
        let [b'"', inside @ ..] = text else { return false };
        let Some(end) = memchr::memchr(b'"', inside) else { return false };
        if &text[..end + 2] == tag {
            return true;
        }
        text = &inside[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_weak_tags_and_the_star_match() {
        for (text, expect) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("*", true),
            (" * ", true),
            ("\"b\", \"a\"", true),
            ("\"b,\",W/\"a\"", true),
            ("\"b\"", false),
            ("a", false),
            ("\"a", false),
            ("", false),
            ("\"\"", false),
            ("\"x\" \"a\"", true),
            ("junk, \"a\"", false),
        ] {
            assert_eq!(lists(text.as_bytes(), b"\"a\""), expect, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            lists(&text, b"\"a\"");
        }
    }
}
