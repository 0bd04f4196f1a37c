//! Watches where requests begin and end on an HTTP/1.1 connection, and spoils a head that says
//! so in two ways.
//!
//! A request with both `Content-Length` and `Transfer-Encoding`, or with two lengths, may be
//! read differently by a proxy in front of us; hyper takes it and drops one of the two headers,
//! so nothing above could refuse it. The second framing header loses its colon here, which
//! makes the head malformed: hyper answers 400 and closes.
//!
//! Bodies are skipped, not read. HTTP/2 passes unwatched: its framing has no such doubt.

/// What a request line of HTTP/2 looks like to us.
const PREFACE: &[u8; 16] = b"PRI * HTTP/2.0\r\n";
const NAME_BYTES_MAX: usize = 17;
const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";

/// Where in a request the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// Before a request.
    Between,
    /// In a request's head.
    Head,
    /// In a request's body.
    Body,
    /// In a request that will be refused.
    Spoilt,
    /// Not watched.
    Unwatched,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Start,
    RequestLine { preface: usize },
    Name,
    Value(Field),
    EndOfHead,
    Body { left: u64 },
    ChunkSize { size: u64, in_extension: bool },
    ChunkEnd,
    Trailer { blank: bool },
    Spoilt,
    Unwatched,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Length,
    Other,
}

/// The watcher of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    first: bool,
    name: [u8; NAME_BYTES_MAX],
    name_bytes: usize,
    length: Option<u64>,
    framed: bool,
    chunked: bool,
}

impl Framing {
    pub(super) const fn new() -> Self {
        Self {
            state: State::Start,
            first: true,
            name: [0; NAME_BYTES_MAX],
            name_bytes: 0,
            length: None,
            framed: false,
            chunked: false,
        }
    }

    pub(super) const fn at(&self) -> At {
        match self.state {
            // The first request is due at once.
            State::Start if self.first => At::Head,
            State::Start => At::Between,
            State::RequestLine { .. } | State::Name | State::Value(_) | State::EndOfHead => {
                At::Head
            }
            State::Body { .. }
            | State::ChunkSize { .. }
            | State::ChunkEnd
            | State::Trailer { .. } => At::Body,
            State::Spoilt => At::Spoilt,
            State::Unwatched => At::Unwatched,
        }
    }

    /// Whether the peer has begun a request and not finished it.
    pub(super) const fn is_inside_request(&self) -> bool {
        !matches!(self.state, State::Start | State::Unwatched)
    }

    /// Takes what was read; spoils it where it must not be understood.
    pub(super) fn feed(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Spoilt | State::Unwatched => return,
                State::Body { left } => {
                    let here = u64::try_from(bytes.len() - at).expect("usize fits u64");
                    let skipped = left.min(here);
                    at += usize::try_from(skipped).expect("at most what is here");
                    self.state = self.body_after(left - skipped);
                }
                _ => {
                    if self.step(bytes[at]) == Verdict::Spoil {
                        bytes[at] = 0;
                        self.state = State::Spoilt;
                        return;
                    }
                    at += 1;
                }
            }
        }
    }

    fn body_after(&self, left: u64) -> State {
        match (left, self.chunked) {
            (0, true) => State::ChunkEnd,
            (0, false) => State::Start,
            (left, _) => State::Body { left },
        }
    }

    fn step(&mut self, byte: u8) -> Verdict {
        self.state = match self.state {
            State::Start => self.begin(byte),
            State::RequestLine { preface } => self.request_line(preface, byte),
            State::Name => return self.name(byte),
            State::Value(field) => self.value(field, byte),
            State::EndOfHead if byte == b'\n' => self.end_of_head(),
            State::EndOfHead => State::Unwatched,
            State::ChunkSize { size, in_extension } => self.chunk_size(size, in_extension, byte),
            State::ChunkEnd if byte == b'\n' => State::ChunkSize { size: 0, in_extension: false },
            State::ChunkEnd => State::ChunkEnd,
            State::Trailer { blank } => match byte {
                b'\n' if blank => State::Start,
                b'\n' => State::Trailer { blank: true },
                b'\r' => State::Trailer { blank },
                _ => State::Trailer { blank: false },
            },
            State::Body { .. } | State::Spoilt | State::Unwatched => {
                unreachable!("skipped by feed")
            }
        };
        Verdict::Pass
    }

    fn begin(&mut self, byte: u8) -> State {
        if matches!(byte, b'\r' | b'\n') {
            return State::Start;
        }
        self.length = None;
        self.framed = false;
        self.chunked = false;
        self.request_line(0, byte)
    }

    fn request_line(&mut self, preface: usize, byte: u8) -> State {
        let preface = match PREFACE.get(preface) {
            Some(&expect) if self.first && expect == byte => preface + 1,
            _ => usize::MAX,
        };
        if preface == PREFACE.len() {
            return State::Unwatched;
        }
        if byte != b'\n' {
            return State::RequestLine { preface };
        }
        self.first = false;
        self.name_bytes = 0;
        State::Name
    }

    fn name(&mut self, byte: u8) -> Verdict {
        self.state = match byte {
            b'\r' if self.name_bytes == 0 => State::EndOfHead,
            b'\n' if self.name_bytes == 0 => self.end_of_head(),
            b':' => {
                let field = self.field();
                if let Some(field) = field {
                    if self.framed {
                        return Verdict::Spoil;
                    }
                    self.framed = true;
                    self.chunked = field == Field::Other;
                }
                State::Value(field.unwrap_or(Field::Other))
            }
            // No header at all: whoever parses it will say so.
            b'\n' => State::Unwatched,
            _ => {
                if let Some(place) = self.name.get_mut(self.name_bytes) {
                    *place = byte.to_ascii_lowercase();
                }
                self.name_bytes += 1;
                State::Name
            }
        };
        Verdict::Pass
    }

    /// Which framing header the collected name is.
    fn field(&self) -> Option<Field> {
        match self.name.get(..self.name_bytes)? {
            CONTENT_LENGTH => Some(Field::Length),
            TRANSFER_ENCODING => Some(Field::Other),
            _ => None,
        }
    }

    fn value(&mut self, field: Field, byte: u8) -> State {
        if byte == b'\n' {
            self.name_bytes = 0;
            return State::Name;
        }
        if field == Field::Length {
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let length = self.length.unwrap_or(0);
                    self.length = Some(length.saturating_mul(10).saturating_add(digit));
                }
                b' ' | b'\t' | b'\r' => {}
                _ => return State::Unwatched,
            }
        }
        State::Value(field)
    }

    fn end_of_head(&self) -> State {
        if self.chunked {
            return State::ChunkSize { size: 0, in_extension: false };
        }
        match self.length {
            None | Some(0) => State::Start,
            Some(left) => State::Body { left },
        }
    }

    fn chunk_size(&self, size: u64, in_extension: bool, byte: u8) -> State {
        match byte {
            b'\n' if size == 0 => State::Trailer { blank: true },
            b'\n' => State::Body { left: size },
            b'\r' => State::ChunkSize { size, in_extension },
            _ if in_extension => State::ChunkSize { size, in_extension },
            b';' | b' ' | b'\t' => State::ChunkSize { size, in_extension: true },
            _ => match char::from(byte).to_digit(16) {
                Some(digit) => {
                    let size = size.saturating_mul(16).saturating_add(u64::from(digit));
                    State::ChunkSize { size, in_extension }
                }
                None => State::Unwatched,
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Spoil,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds the text in pieces of `step` bytes; says whether it was spoilt, and where it ended.
    fn check(text: &str, step: usize) -> (bool, At) {
        let mut framing = Framing::new();
        let mut bytes = text.as_bytes().to_vec();
        bytes.chunks_mut(step).for_each(|chunk| framing.feed(chunk));
        (bytes != text.as_bytes(), framing.at())
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const SIZED: &str = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &str = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\
                           5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nt: v\r\n\r\n";

    #[test]
    fn two_framings_are_spoilt_wherever_they_stand() {
        let both = "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let turned =
            "POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\na: b\r\ncontent-length: 5\r\n\r\n";
        let twice = "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n";
        let coded = "POST / HTTP/1.1\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        for bad in [both, turned, twice, coded] {
            for step in [1, 3, 7, 1000] {
                for before in ["", GET, SIZED, CHUNKED, "\r\n"] {
                    let text = format!("{before}{bad}");
                    assert_eq!(check(&text, step), (true, At::Spoilt), "{step} {text}");
                }
            }
        }
    }

    #[test]
    fn ordinary_requests_pass_untouched() {
        for step in [1, 2, 5, 1000] {
            let text = [GET, SIZED, CHUNKED, SIZED, GET, CHUNKED].concat();
            assert_eq!(check(&text, step), (false, At::Between));
            assert_eq!(check(&SIZED[..SIZED.len() - 1], step), (false, At::Body));
            assert_eq!(check(&CHUNKED[..CHUNKED.len() - 1], step), (false, At::Body));
            assert_eq!(check(&GET[..GET.len() - 1], step), (false, At::Head));
        }
        assert_eq!(check("", 1), (false, At::Head));
    }

    #[test]
    fn what_looks_like_a_head_in_a_body_is_none() {
        let inner = "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let text = format!("PUT / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
        assert_eq!(check(&text, 1), (false, At::Between));
    }

    #[test]
    fn http2_passes_unwatched_as_the_first_request_only() {
        assert_eq!(check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 1), (false, At::Unwatched));
        let late = format!("{GET}PRI * HTTP/2.0\r\n");
        assert_eq!(check(&late, 1), (false, At::Head));
        assert_eq!(check("PRI / HTTP/1.1\r\n", 1), (false, At::Head));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1_usize..50) {
            let mut bytes = bytes;
            let mut framing = Framing::new();
            bytes.chunks_mut(step).for_each(|chunk| framing.feed(chunk));
        }

        #[test]
        fn the_cuts_do_not_matter(
            parts in proptest::collection::vec(
                prop_oneof![Just(GET), Just(SIZED), Just(CHUNKED),
                    Just("Content-Length: 3\r\n"), Just("\r\n"), Just("0\r\n"), Just("x")],
                0..12,
            ),
            step in 1_usize..40,
        ) {
            let text = parts.concat();
            prop_assert_eq!(check(&text, step), check(&text, text.len().max(1)));
        }
    }
}
