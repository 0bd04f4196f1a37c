//! The records that a generator writes: who wrote it, the how many-th, and when.
//!
//! ```text
//! {"i":"wwwwwwww-nnnnnnnnnnnn-tttttttttttttttt","p":"....."}
//!       writer   number       nanoseconds           as long as wanted
//! ```
//! All in hexadecimal of a fixed width, so that they are written and found in place. A record is
//! JSON, and white space between two of those is nobody's. In a stream of another type each ends
//! with a line break, and any other byte between two of them is of something else.

use std::{ops::Range, sync::Arc, time::Duration};

const OPENING: &[u8] = b"{\"i\":\"";
const WRITER: Range<usize> = 6..14;
const NUMBER: Range<usize> = 15..27;
const TIME: Range<usize> = 28..44;
const MIDDLE: &[u8] = b"\",\"p\":\"";
const ENDING: &[u8] = b"\"}";
/// The shortest record.
pub(super) const BYTES_MIN: usize = 53;

/// What a record says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) writer: u32,
    /// Dense from 0 for each writer in each stream.
    pub(super) number: u64,
    /// When it was sent, since the generator started.
    pub(super) sent: Duration,
}

/// A record of `bytes` bytes, at least [`BYTES_MIN`].
pub(super) fn blank(bytes: usize) -> Vec<u8> {
    assert!(bytes >= BYTES_MIN, "flags refuse shorter ones");
    let mut record = OPENING.to_vec();
    record.extend_from_slice(b"00000000-000000000000-0000000000000000");
    record.extend_from_slice(MIDDLE);
    // Not all the same, so that a server which compresses does not look better than it is.
    let letters = (0..bytes - BYTES_MIN).map(|at| b'a' + u8::try_from(at * at % 23).unwrap_or(0));
    record.extend(letters);
    record.extend_from_slice(ENDING);
    assert_eq!(record.len(), bytes, "the layout is fixed");
    record
}

/// Writes the mark into the record at the beginning of `record`.
pub(super) fn stamp(record: &mut [u8], mark: Mark) {
    write_hex(&mut record[WRITER], u64::from(mark.writer));
    write_hex(&mut record[NUMBER], mark.number);
    write_hex(&mut record[TIME], nanoseconds(mark.sent));
}

/// Writes the time into a record that is marked already.
pub(super) fn stamp_time(record: &mut [u8], sent: Duration) {
    write_hex(&mut record[TIME], nanoseconds(sent));
}

/// A time as it is written.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The mark of the record at the beginning of `bytes`, which must be there as far as its mark.
fn read(bytes: &[u8]) -> Option<Mark> {
    let head = bytes.get(..TIME.end)?;
    if head[WRITER.end] != b'-' || head[NUMBER.end] != b'-' {
        return None;
    }
    Some(Mark {
        writer: u32::try_from(read_hex(&head[WRITER])?).ok()?,
        number: read_hex(&head[NUMBER])?,
        sent: Duration::from_nanos(read_hex(&head[TIME])?),
    })
}

fn write_hex(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[usize::try_from(value & 15).expect("four bits")];
        value >>= 4;
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

/// How the records of a stream look, one behind the other.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// What stands behind the mark of each, with its line break where it has one.
    payload: Arc<[u8]>,
    /// Pages are arrays.
    json: bool,
}

/// Whether the line break at the end of what was read may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastBreak {
    /// It was stored, so it is there.
    Kept,
    /// An event stream frames by line breaks, and some servers leave it out.
    MayBeMissing,
}

impl Form {
    /// That of records of this length, in a stream that is JSON or not.
    pub(super) fn new(bytes: usize, json: bool) -> Self {
        let mut record = blank(bytes);
        if !json {
            record.push(b'\n');
        }
        Self { payload: record[TIME.end..].into(), json }
    }

    /// How many bytes at the beginning stand between records and are of none.
    fn separators(&self, bytes: &[u8]) -> usize {
        if !self.json {
            return 0;
        }
        let is_one = |byte: &u8| b"[,]".contains(byte) || byte.is_ascii_whitespace();
        bytes.iter().position(|byte| !is_one(byte)).unwrap_or(bytes.len())
    }
}

/// What is wrong with the bytes of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Flaws {
    /// Records that had other bytes than they were written with; one that was cut off is one of
    /// them.
    pub(super) damaged: Vec<Mark>,
    /// How often something stood between two records that is none, however long it was.
    pub(super) strange: u64,
}

impl Flaws {
    pub(super) fn add(&mut self, other: Self) {
        self.damaged.extend(other.damaged);
        self.strange += other.strange;
    }
}

/// Finds the records in the pieces of a body, cut anywhere, and compares what stands in them and
/// between them.
#[derive(Debug)]
pub(super) struct Finder {
    /// The end of what was seen, if a record may begin there.
    held: Vec<u8>,
    form: Form,
    /// How much of what must follow the last mark has.
    matched: usize,
    /// The record whose payload is compared.
    last: Option<Mark>,
    /// Up to the next record nothing is expected any more: what is wrong there is counted.
    astray: bool,
    flaws: Flaws,
}

impl Finder {
    /// One for records of this form.
    pub(super) fn new(form: &Form) -> Self {
        Self {
            held: Vec::new(),
            matched: form.payload.len(),
            form: form.clone(),
            last: None,
            astray: false,
            flaws: Flaws::default(),
        }
    }

    /// What was wrong.
    pub(super) fn finish(mut self, last_break: LastBreak) -> Flaws {
        match (&self.form.payload[self.matched..], last_break) {
            ([], _) | (b"\n", LastBreak::MayBeMissing) => {}
            _ => self.flaws.damaged.extend(self.last),
        }
        // It could have become a record.
        if !self.held.is_empty() {
            self.stray();
        }
        self.flaws
    }

    /// Gives `found` each record whose mark ends in this piece.
    pub(super) fn look(&mut self, piece: &[u8], mut found: impl FnMut(Mark)) {
        let piece = self.compare(piece);
        if self.held.is_empty() {
            let seen = self.scan(piece, &mut found);
            self.held.extend_from_slice(&piece[seen..]);
            return;
        }
        // What is held is shorter than a mark: the record that begins in it ends in the first
        // bytes of this piece, if the piece is as long as that.
        let joint = piece.len().min(TIME.end);
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(&piece[..joint]);
        let seen = self.scan(&held, &mut found);
        if joint == piece.len() {
            held.drain(..seen);
            self.held = held;
            return;
        }
        // What is not seen of the held bytes lies in the piece, since it is shorter than a mark;
        // or a payload has begun in the held bytes and goes on in the piece.
        let from = joint.saturating_sub(held.len() - seen);
        let rest = self.compare(&piece[from..]);
        let seen = self.scan(rest, &mut found);
        self.held = rest[seen..].to_vec();
    }

    /// Compares the payload that has begun. Returns what follows it.
    fn compare<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let left = &self.form.payload[self.matched..];
        let there = bytes.len().min(left.len());
        if bytes[..there] == left[..there] {
            self.matched += there;
            return &bytes[there..];
        }
        // Where the next record begins nobody knows: it is searched for.
        self.flaws.damaged.extend(self.last);
        self.matched = self.form.payload.len();
        self.astray = true;
        bytes
    }

    /// Returns how far `bytes` were seen: what follows may be the beginning of a record.
    fn scan(&mut self, bytes: &[u8], found: &mut impl FnMut(Mark)) -> usize {
        let mut at = 0;
        loop {
            if !self.astray {
                at += self.form.separators(&bytes[at..]);
            }
            if !bytes[at..].starts_with(OPENING) {
                if !self.astray && OPENING.starts_with(&bytes[at..]) {
                    return at;
                }
                self.stray();
                match memchr::memmem::find(&bytes[at..], OPENING) {
                    Some(skipped) => at += skipped,
                    // The last bytes may be the beginning of an opening.
                    None => return at.max(bytes.len().saturating_sub(OPENING.len() - 1)),
                }
            }
            if bytes.len() - at < TIME.end {
                return at;
            }
            let Some(mark) = read(&bytes[at..]) else {
                self.stray();
                at += OPENING.len();
                continue;
            };
            found(mark);
            (self.last, self.matched, self.astray) = (Some(mark), 0, false);
            let rest = self.compare(&bytes[at + TIME.end..]).len();
            at = bytes.len() - rest;
            if self.matched < self.form.payload.len() {
                // All of it is seen: the payload goes on in the next piece.
                return bytes.len();
            }
        }
    }

    /// Here stands something that is no record.
    fn stray(&mut self) {
        self.flaws.strange += u64::from(!self.astray);
        self.astray = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(number: u64) -> Mark {
        Mark { writer: 7, number, sent: Duration::from_nanos(number * 1_000_003) }
    }

    fn page(count: u64, bytes: usize) -> Vec<u8> {
        let mut page = b"[".to_vec();
        for number in 0..count {
            let mut record = blank(bytes);
            stamp(&mut record, mark(number));
            page.extend_from_slice(&record);
            page.push(b',');
        }
        page
    }

    #[test]
    fn a_record_is_json_of_the_length_that_was_asked_for() {
        for bytes in [BYTES_MIN, 100, 1_024] {
            let mut record = blank(bytes);
            stamp(&mut record, mark(0xabc));
            assert_eq!(record.len(), bytes);
            let value: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
            assert_eq!(
                value["i"],
                "00000007-000000000abc-00000000abc01f94"
                    .replace("abc01f94", &format!("{:08x}", 0xabc_u64 * 1_000_003))
            );
            assert_eq!(read(&record), Some(mark(0xabc)));
        }
    }

    /// What is found in these pieces: the numbers of the records, and what is wrong.
    fn find<'a>(form: &Form, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u64>, Flaws) {
        let (mut finder, mut numbers) = (Finder::new(form), Vec::new());
        for piece in pieces {
            finder.look(piece, |mark| numbers.push(mark.number));
        }
        (numbers, finder.finish(LastBreak::Kept))
    }

    fn strange(times: u64) -> Flaws {
        Flaws { damaged: Vec::new(), strange: times }
    }

    #[test]
    fn what_only_looks_like_a_record_is_none() {
        let text = br#"{"i":"no record, though it begins as one does, and it is long enough"}"#;
        let found = find(&Form::new(BYTES_MIN, true), [&text[..]]);
        assert_eq!(found, (vec![], strange(1)));
    }

    #[test]
    fn brackets_and_commas_are_between_records_in_json_only() {
        let (page, bare) = (page(2, 60), b"[ ]\r\n");
        for step in [1, 7, 44, 1_000] {
            let json = Form::new(60, true);
            assert_eq!(find(&json, page.chunks(step)), (vec![0, 1], strange(0)), "by {step}");
            assert_eq!(find(&json, bare.chunks(step)), (vec![], strange(0)), "by {step}");
            let text = Form::new(60, false);
            // The bracket is something else, and the commas stand where line breaks were written.
            let flaws = Flaws { damaged: vec![mark(0), mark(1)], strange: 1 };
            assert_eq!(find(&text, page.chunks(step)), (vec![0, 1], flaws), "by {step}");
            let lines = String::from_utf8_lossy(&page[1..]).replace("},", "}\n");
            assert_eq!(
                find(&text, lines.as_bytes().chunks(step)),
                (vec![0, 1], strange(0)),
                "by {step}"
            );
        }
    }

    #[test]
    fn a_record_of_white_space_is_seen_where_white_space_is_stored() {
        let page = page(3, 60);
        let lines = String::from_utf8_lossy(&page[1..]).replace("},", "}\n");
        for blank in ["\n", " ", " \n", "\r\n", "\t\n\n"] {
            for before in 0..=3 {
                let mut lines = lines.clone();
                lines.insert_str(before * 61, blank);
                for step in [1, 7, 44, 61, 1_000] {
                    let found = find(&Form::new(60, false), lines.as_bytes().chunks(step));
                    assert_eq!(found, (vec![0, 1, 2], strange(1)), "{blank:?} by {step}");
                }
            }
            let all = find(&Form::new(60, false), [blank.as_bytes()]);
            assert_eq!(all, (vec![], strange(1)), "{blank:?} is all there is");
            // No message of JSON is white space.
            assert_eq!(find(&Form::new(60, true), [blank.as_bytes()]), (vec![], strange(0)));
        }
    }

    #[test]
    fn a_line_break_that_is_not_there_is_missed_where_it_was_stored() {
        let page = page(1, 60);
        let record = &page[1..61];
        assert_eq!(
            find(&Form::new(60, false), [record]),
            (vec![0], Flaws { damaged: vec![mark(0)], strange: 0 })
        );
        for (bytes, damaged) in [(60, 0), (59, 1)] {
            let mut finder = Finder::new(&Form::new(60, false));
            finder.look(&record[..bytes], |_| {});
            let flaws = finder.finish(LastBreak::MayBeMissing);
            assert_eq!((flaws.damaged.len(), flaws.strange), (damaged, 0), "{bytes} bytes");
        }
    }

    #[test]
    fn a_beginning_of_a_record_that_is_all_there_is_is_none() {
        for end in 1..TIME.end {
            let page = page(1, 60);
            let found = find(&Form::new(60, true), [&page[..1 + end]]);
            assert_eq!(found, (vec![], strange(1)), "{end} bytes of it");
        }
    }

    proptest! {
        #[test]
        fn what_is_no_record_is_seen_wherever_it_is(
            bytes in BYTES_MIN..120,
            before in 0..=20_usize,
            intruder in proptest::sample::select(vec![
                r#"{"x":1}"#, "7", "\"\"", "{", r#"{"i":"#, r#"{"i":"}"#, r#"{"i":"{"i":""#, "null",
                r#"{"i":"0000000g-000000000000-0000000000000000","p":"x"}"#,
                r#"{"what":"much longer than any mark of a record is, and than two of them: 88"}"#,
            ]),
            cuts in proptest::collection::vec(1..90_usize, 1..80),
        ) {
            let mut page = page(20, bytes);
            let at = 1 + before * (bytes + 1);
            page.splice(at..at, format!("{intruder},").into_bytes());
            let (mut pieces, mut rest) = (Vec::new(), &page[..]);
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
                if rest.is_empty() { break; }
            }
            let found = find(&Form::new(bytes, true), pieces);
            prop_assert_eq!(found, ((0..20).collect::<Vec<_>>(), strange(1)));
        }
    }

    proptest! {
        #[test]
        fn records_are_found_wherever_a_page_is_cut(
            bytes in BYTES_MIN..120,
            cuts in proptest::collection::vec(1..90_usize, 1..80),
        ) {
            let page = page(20, bytes);
            let (mut finder, mut numbers, mut rest) = (Finder::new(&Form::new(bytes, true)), Vec::new(), &page[..]);
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                finder.look(piece, |mark| numbers.push(mark.number));
                rest = after;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(numbers, (0..20).collect::<Vec<_>>());
            prop_assert_eq!(finder.finish(LastBreak::Kept), Flaws::default());
        }

        #[test]
        fn a_byte_that_is_another_is_seen_wherever_it_is(
            bytes in BYTES_MIN..120, record in 0..20_usize, at in 0..200_usize, step in 1..300_usize,
        ) {
            let mut page = page(20, bytes);
            let at = 1 + record * (bytes + 1) + TIME.end + at % (bytes - TIME.end);
            page[at] ^= 1;
            let (mut finder, mut count) = (Finder::new(&Form::new(bytes, true)), 0);
            page.chunks(step).for_each(|piece| finder.look(piece, |_| count += 1));
            let number = u64::try_from(record).expect("small");
            let flaws = Flaws { damaged: vec![mark(number)], strange: 0 };
            prop_assert_eq!((count, finder.finish(LastBreak::Kept)), (20, flaws));
            // So is an end that is missing.
            let mut finder = Finder::new(&Form::new(bytes, true));
            finder.look(&page[..bytes], |_| {});
            prop_assert_eq!(finder.finish(LastBreak::Kept), Flaws { damaged: vec![mark(0)], strange: 0 });
        }
    }
}
