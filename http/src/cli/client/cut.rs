//! Cuts bytes into the bodies of requests, the same bytes into the same bodies. Pure.

use bytes::Bytes;

/// Bytes of lines in a request; one line may have more.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// Where to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// So many lines, each a JSON message; blank ones do not count.
    Messages(usize),
    /// So many lines, each with its line break.
    Lines(usize),
    /// So many bytes.
    Bytes,
}

/// A body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// Lines in it.
    pub(super) lines: u64,
    /// Bytes of the input that it is made of.
    pub(super) consumed: u64,
}

/// Takes bytes in pieces of any size and gives bodies.
pub(super) struct Cutter {
    cut: Cut,
    /// What no line break has come for.
    rest: Vec<u8>,
    /// How much of that is known to have none.
    searched: usize,
    body: Vec<u8>,
    lines: usize,
    consumed: usize,
}

impl Cutter {
    pub(super) const fn new(cut: Cut) -> Self {
        Self { cut, rest: Vec::new(), searched: 0, body: Vec::new(), lines: 0, consumed: 0 }
    }

    /// Takes a piece and gives `ready` the bodies that are full.
    pub(super) fn take(&mut self, piece: &[u8], ready: &mut Vec<Body>) {
        if self.cut == Cut::Bytes {
            self.take_bytes(piece, ready);
            return;
        }
        self.rest.extend_from_slice(piece);
        let rest = std::mem::take(&mut self.rest);
        let mut start = 0;
        let mut from = self.searched;
        while let Some(end) = memchr::memchr(b'\n', &rest[from..]) {
            let end = from + end + 1;
            self.line(&rest[start..end], ready);
            (start, from) = (end, end);
        }
        self.rest = rest[start..].to_vec();
        self.searched = self.rest.len();
    }

    /// The body that is not full yet, if there is one.
    pub(super) fn flush(&mut self) -> Option<Body> {
        if self.consumed == 0 || self.body.is_empty() {
            return None;
        }
        let mut body = std::mem::take(&mut self.body);
        if matches!(self.cut, Cut::Messages(_)) {
            body.push(b']');
        }
        let lines = u64::try_from(std::mem::take(&mut self.lines)).expect("a count fits");
        let consumed = u64::try_from(std::mem::take(&mut self.consumed)).expect("a length fits");
        Some(Body { bytes: body.into(), lines, consumed })
    }

    /// What is left at the end of the input.
    pub(super) fn finish(mut self, ready: &mut Vec<Body>) {
        let last = std::mem::take(&mut self.rest);
        if !last.is_empty() {
            self.line(&last, ready);
        }
        ready.extend(self.flush());
    }

    fn take_bytes(&mut self, mut piece: &[u8], ready: &mut Vec<Body>) {
        while !piece.is_empty() {
            let room = BODY_BYTES_MAX - self.body.len();
            let (taken, left) = piece.split_at(piece.len().min(room));
            self.body.extend_from_slice(taken);
            self.consumed += taken.len();
            piece = left;
            if self.body.len() == BODY_BYTES_MAX {
                ready.extend(self.flush());
            }
        }
    }

    fn line(&mut self, line: &[u8], ready: &mut Vec<Body>) {
        let (most, content) = match self.cut {
            Cut::Messages(most) => (most, line.trim_ascii()),
            Cut::Lines(most) => (most, line),
            Cut::Bytes => unreachable!("bytes have no lines"),
        };
        if content.is_empty() {
            self.consumed += line.len();
            return;
        }
        if !self.body.is_empty() && self.body.len() + content.len() + 2 > BODY_BYTES_MAX {
            ready.extend(self.flush());
        }
        if matches!(self.cut, Cut::Messages(_)) {
            self.body.push(if self.body.is_empty() { b'[' } else { b',' });
        }
        self.body.extend_from_slice(content);
        self.lines += 1;
        self.consumed += line.len();
        if self.lines == most {
            ready.extend(self.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(cut: Cut, input: &[u8], step: usize) -> Vec<Body> {
        let (mut cutter, mut ready) = (Cutter::new(cut), Vec::new());
        for piece in input.chunks(step) {
            cutter.take(piece, &mut ready);
        }
        cutter.finish(&mut ready);
        ready
    }

    fn check(how: Cut, input: &str, expect: &[(&str, u64)]) {
        for step in [1, 2, 5, 1_000] {
            let bodies = cut(how, input.as_bytes(), step);
            let found =
                bodies.iter().map(|it| (std::str::from_utf8(&it.bytes).expect("text"), it.lines));
            assert_eq!(found.collect::<Vec<_>>(), expect, "steps of {step}");
        }
    }

    #[test]
    fn lines_become_arrays_or_stay_lines() {
        check(Cut::Messages(2), "1\n\n[2]\r\n {\"a\":3} \n", &[("[1,[2]]", 2), ("[{\"a\":3}]", 1)]);
        check(Cut::Messages(9), "1", &[("[1]", 1)]);
        check(Cut::Messages(9), "\n\n", &[]);
        check(Cut::Lines(2), "a\n\nb\nc", &[("a\n\n", 2), ("b\nc", 2)]);
        check(Cut::Bytes, "ab\nc", &[("ab\nc", 0)]);
        check(Cut::Bytes, "", &[]);
    }

    #[test]
    fn a_body_has_a_bound_and_a_long_line_its_own() {
        let line = "x".repeat(400_000);
        let input = format!("{line}\n{line}\n{line}\n{}\n", line.repeat(4));
        let lines: Vec<u64> =
            cut(Cut::Lines(100), input.as_bytes(), 4_096).iter().map(|it| it.lines).collect();
        assert_eq!(lines, [2, 1, 1]);
        let bytes = vec![0; BODY_BYTES_MAX * 2 + 1];
        let bodies = cut(Cut::Bytes, &bytes, 70_000);
        assert_eq!(
            bodies.iter().map(|it| it.bytes.len()).collect::<Vec<_>>(),
            [BODY_BYTES_MAX, BODY_BYTES_MAX, 1]
        );
    }

    proptest! {
        #[test]
        fn the_same_input_is_cut_in_the_same_way(
            input in "([a-c]{0,5}\n?){0,40}", most in 1..6_usize, step in 1..50_usize,
        ) {
            for how in [Cut::Messages(most), Cut::Lines(most), Cut::Bytes] {
                let (one, other) = (cut(how, input.as_bytes(), step), cut(how, input.as_bytes(), 1_000));
                prop_assert_eq!(&one, &other);
                if how != Cut::Messages(most) {
                    let whole: Vec<u8> = one.iter().flat_map(|it| it.bytes.to_vec()).collect();
                    prop_assert_eq!(whole, input.as_bytes());
                }
            }
        }
    }
}
