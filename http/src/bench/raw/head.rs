//! The head of an answer, as far as a load generator reads it. Pure.

use std::ops::Range;

/// Bytes of a head; more is nothing that any server of streams sends.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    /// The connection ends with this answer.
    pub(crate) last: bool,
    pub(crate) up_to_date: bool,
    pub(crate) closed: bool,
    /// Where the value of `Stream-Next-Offset` stands.
    pub(crate) next_offset: Option<Range<usize>>,
    /// Seconds of `Retry-After`.
    pub(crate) retry_after: Option<u64>,
    /// Bytes of the head, blank line included.
    pub(crate) bytes: usize,
}

/// Where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    /// With the connection.
    Close,
}

/// These bytes are no answer in HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not HTTP/1.1")]
pub(crate) struct Malformed;

/// The head at the beginning of `bytes`; `None` if it is not all there yet.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() >= HEAD_BYTES_MAX { Err(Malformed) } else { Ok(None) };
    };
    let mut lines = memchr::memchr_iter(b'\n', &bytes[..end + 2]);
    let mut start = lines.next().ok_or(Malformed)? + 1;
    let status = status(&bytes[..start])?;
    let mut head = Head {
        status,
        framing: Framing::Close,
        last: bytes.starts_with(b"HTTP/1.0"),
        up_to_date: false,
        closed: false,
        next_offset: None,
        retry_after: None,
        bytes: end + 4,
    };
    for line_end in lines {
        field(&mut head, bytes, start..line_end)?;
        start = line_end + 1;
    }
    if matches!(status, 100..200 | 204 | 304) {
        head.framing = Framing::Length(0);
    }
    head.last |= head.framing == Framing::Close;
    Ok(Some(head))
}

fn status(line: &[u8]) -> Result<u16, Malformed> {
    let digits = line.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5)).ok_or(Malformed)?;
    let status = digits.iter().try_fold(0, |status, digit| {
        digit.is_ascii_digit().then(|| status * 10 + u16::from(digit - b'0'))
    });
    status.ok_or(Malformed)
}

/// Takes note of the line at `at`, whose `\r` may be at its end.
fn field(head: &mut Head, bytes: &[u8], at: Range<usize>) -> Result<(), Malformed> {
    let line = &bytes[at.clone()];
    let colon = memchr::memchr(b':', line).ok_or(Malformed)?;
    let (name, rest) = (&line[..colon], &line[colon + 1..]);
    let value = rest.trim_ascii();
    // The length tells nearly all names apart, and most fields are none of these.
    match name.len() {
        10 if name.eq_ignore_ascii_case(b"connection") => {
            head.last |= value.eq_ignore_ascii_case(b"close");
        }
        11 if name.eq_ignore_ascii_case(b"retry-after") => head.retry_after = number(value),
        13 if name.eq_ignore_ascii_case(b"stream-closed") => {
            head.closed = value.eq_ignore_ascii_case(b"true");
        }
        // Chunks, if there are any, say it better.
        14 if name.eq_ignore_ascii_case(b"content-length") && head.framing == Framing::Close => {
            head.framing = Framing::Length(number(value).ok_or(Malformed)?);
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed);
            }
            head.framing = Framing::Chunked;
        }
        17 if name.eq_ignore_ascii_case(b"stream-up-to-date") => {
            head.up_to_date = value.eq_ignore_ascii_case(b"true");
        }
        18 if name.eq_ignore_ascii_case(b"stream-next-offset") => {
            let start = at.start + colon + 1 + (rest.len() - rest.trim_ascii_start().len());
            head.next_offset = Some(start..start + value.len());
        }
        _ => {}
    }
    Ok(())
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &str, framing: Framing, last: bool) -> Head {
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes.as_bytes()[..cut]), Ok(None), "cut at {cut}");
        }
        let with_body = format!("{bytes}body\r\n\r\n");
        let head = parse(with_body.as_bytes()).expect("HTTP").expect("whole");
        assert_eq!((head.framing, head.last, head.bytes), (framing, last, bytes.len()));
        head
    }

    #[test]
    fn the_framing_is_what_the_fields_say() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", Framing::Length(7), false);
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked, false);
        check("HTTP/1.1 200 OK\r\n\r\n", Framing::Close, true);
        check("HTTP/1.0 200 OK\r\nContent-Length:0\r\n\r\n", Framing::Length(0), true);
        check("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n", Framing::Length(0), true);
        check("HTTP/1.1 304\r\nContent-Length: 9\r\n\r\n", Framing::Length(0), false);
    }

    #[test]
    fn what_a_stream_says_of_itself_is_read() {
        let bytes = "HTTP/1.1 200 OK\r\nStream-Next-Offset:  0_2 \r\nStream-Up-To-Date: true\r\n\
                     stream-closed: TRUE\r\nRetry-After: 3\r\nContent-Length: 1\r\n\r\n";
        let head = check(bytes, Framing::Length(1), false);
        assert_eq!(&bytes[head.next_offset.expect("there")], "0_2");
        assert!(head.up_to_date && head.closed);
        assert_eq!(head.retry_after, Some(3));
    }

    #[test]
    fn other_things_are_not_http() {
        for bytes in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        ] {
            assert_eq!(parse(bytes.as_bytes()), Err(Malformed), "{bytes}");
        }
        assert_eq!(parse(&vec![b'x'; HEAD_BYTES_MAX]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
            answer.extend_from_slice(&bytes);
            answer.extend_from_slice(b"\r\n\r\n");
            // Whatever it says of them.
            drop(parse(&answer));
        }
    }
}
