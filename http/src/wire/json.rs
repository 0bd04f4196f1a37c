//! JSON streams read with `format=raw`: the messages without what joins them.

use bytes::{BufMut, Bytes, BytesMut};

/// Drops the commas between messages. The input was checked when it was appended, so a comma
/// outside strings and brackets can only be a separator.
pub(crate) fn without_separators(pieces: &[Bytes], bytes: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in pieces.iter().flat_map(|piece| piece.iter().copied()) {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else {
            match byte {
                b',' if depth == 0 => continue,
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        out.put_u8(byte);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_separators_between_messages_go() {
        for (joined, expect) in [
            ("1,2", "12"),
            (r#"{"a":[1,2]},"x,\"y",[3,4]"#, r#"{"a":[1,2]}"x,\"y"[3,4]"#),
            (r#""\\",1"#, r#""\\"1"#),
            ("", ""),
        ] {
            let pieces = [Bytes::from_static(joined.as_bytes())];
            assert_eq!(without_separators(&pieces, joined.len()), expect.as_bytes(), "{joined}");
        }
    }
}
