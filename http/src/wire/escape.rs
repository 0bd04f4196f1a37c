//! Percent-decoding that refuses what it does not understand: every `%` has two hex digits
//! after it, and what comes out is UTF-8.

use std::borrow::Cow;

use super::error::Refusal;

/// What a `+` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plus {
    /// Itself, as in paths.
    Plus,
    /// A space, as in queries.
    Space,
}

/// Decodes one component.
pub(crate) fn decode(text: &str, plus: Plus) -> Result<Cow<'_, str>, Refusal> {
    let special = |byte: u8| byte == b'%' || (byte == b'+' && plus == Plus::Space);
    if !text.bytes().any(special) {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => {
                let [high, low, tail @ ..] = rest else { return Err(malformed()) };
                let (Some(high), Some(low)) = (hex(*high), hex(*low)) else {
                    return Err(malformed());
                };
                bytes.push(high << 4 | low);
                rest = tail;
            }
            b'+' if plus == Plus::Space => bytes.push(b' '),
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| malformed())
}

fn malformed() -> Refusal {
    Refusal::bad_request("malformed percent-encoding")
}

const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_decoded_or_refused() {
        for (text, expect) in [
            ("abc", Some("abc")),
            ("a%2Fb", Some("a/b")),
            ("a%2fb", Some("a/b")),
            ("%C3%A9", Some("é")),
            ("a+b", Some("a b")),
            ("%2B", Some("+")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%ff", None),
            ("%C3", None),
        ] {
            let decoded = decode(text, Plus::Space).ok();
            assert_eq!(decoded.as_deref(), expect, "{text}");
        }
        assert_eq!(decode("a+b", Plus::Plus).expect("no escape"), "a+b");
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*") {
            drop(decode(&text, Plus::Space));
        }

        #[test]
        fn agrees_with_the_encoder(text in ".*") {
            let encoded =
                percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
            let encoded = encoded.to_string();
            prop_assert_eq!(decode(&encoded, Plus::Space).expect("valid"), text);
        }
    }
}
