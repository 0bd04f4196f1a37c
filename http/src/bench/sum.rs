//! What a whole read held, as a length and a CRC-32C, however it was cut into pages.
//!
//! ```text
//! [1,2]  [3]  []  [4]      are the same as      [1]  [2,3,4]
//! ```
//! A page of JSON is an array: its brackets do not count, and between two pages stands a comma.
//! Pages of any other type stand one behind the other. A sum can tell its value at lengths that it
//! was to watch: what one read held must be the beginning of what a later one holds.

use super::measure::wide;

/// The sum of a read.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    json: bool,
    bytes: u64,
    crc: u32,
    /// Whether something of the page has come.
    begun: bool,
    /// A comma stands before the next byte of a page of JSON.
    comma: bool,
    /// The last byte of a page of JSON, until it is known to be no bracket.
    held: Option<u8>,
    /// Lengths that are watched, and the sum there once it is known.
    watched: Vec<(u64, Option<u32>)>,
}

impl Sum {
    /// That of nothing, in a stream that is JSON or not.
    pub(super) const fn new(json: bool) -> Self {
        Self { json, bytes: 0, crc: 0, begun: false, comma: false, held: None, watched: Vec::new() }
    }

    /// The sum at this length will be asked for.
    pub(super) fn pass(&mut self, bytes: u64) {
        let known = (bytes == self.bytes).then_some(self.crc);
        self.watched.push((bytes, known));
    }

    /// The sum at a length that was to be watched, if it came so far.
    pub(super) fn at(&self, bytes: u64) -> Option<u32> {
        self.watched.iter().find(|(watched, _)| *watched == bytes)?.1
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn crc(&self) -> u32 {
        self.crc
    }

    /// A page begins.
    pub(super) const fn begin(&mut self) {
        self.begun = false;
        self.comma = self.json && self.bytes > 0;
        self.held = None;
    }

    /// Takes the next piece of the page.
    pub(super) fn take(&mut self, mut piece: &[u8]) {
        if !self.json {
            return self.add(piece);
        }
        if !self.begun && !piece.is_empty() {
            self.begun = true;
            piece = piece.strip_prefix(b"[").unwrap_or(piece);
        }
        let Some((last, rest)) = piece.split_last() else { return };
        if let Some(held) = self.held.replace(*last) {
            self.put(&[held]);
        }
        self.put(rest);
    }

    /// The page has ended.
    pub(super) fn end(&mut self) {
        if let Some(held) = self.held.take().filter(|it| *it != b']') {
            self.put(&[held]);
        }
    }

    /// Adds what stands in a page of JSON. A page of nothing is no page.
    fn put(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if std::mem::take(&mut self.comma) {
            self.add(b",");
        }
        self.add(bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        let end = self.bytes + wide(bytes.len());
        for (watched, known) in &mut self.watched {
            if *watched > self.bytes && *watched <= end {
                let upto = usize::try_from(*watched - self.bytes).expect("within a piece");
                *known = Some(crc32c::crc32c_append(self.crc, &bytes[..upto]));
            }
        }
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.bytes = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(json: bool, pages: &[&str], step: usize, watched: &[u64]) -> Sum {
        let mut sum = Sum::new(json);
        watched.iter().for_each(|bytes| sum.pass(*bytes));
        for page in pages {
            sum.begin();
            page.as_bytes().chunks(step).for_each(|piece| sum.take(piece));
            sum.end();
        }
        sum
    }

    #[test]
    fn a_read_is_the_same_however_it_is_cut() {
        for step in [1, 2, 3, 100] {
            let whole = crc32c::crc32c(b"1,22,[3],4");
            for pages in
                [&["[1,22]", "[[3],4]"][..], &["[1,22,[3],4]"], &["[1]", "[22,[3]]", "[4]"]]
            {
                let found = sum(true, pages, step, &[]);
                assert_eq!((found.bytes(), found.crc()), (10, whole), "{pages:?} by {step}");
            }
            let text = sum(false, &["[a", "b]"], step, &[]);
            assert_eq!((text.bytes(), text.crc()), (4, crc32c::crc32c(b"[ab]")));
        }
        assert_eq!(sum(true, &["[]", "[]"], 9, &[]).bytes(), 0);
        assert_eq!(sum(true, &["[1]", "[]"], 9, &[]).bytes(), 1);
    }

    #[test]
    fn what_was_read_before_is_the_beginning_of_what_is_read_later() {
        let before = sum(true, &["[1,2]"], 100, &[]);
        for step in [1, 4, 100] {
            let (there, beyond) = (before.bytes(), 99);
            let later = sum(true, &["[1]", "[2,3]"], step, &[0, there, beyond]);
            assert_eq!(later.at(there), Some(before.crc()), "by {step}");
            assert_eq!((later.at(0), later.at(beyond)), (Some(0), None));
            let other = sum(true, &["[1,9,3]"], step, &[there]);
            assert_ne!(other.at(there), Some(before.crc()), "by {step}");
        }
    }
}
