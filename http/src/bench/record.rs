//! The records that a generator writes: who wrote it, the how many-th, and when.
//!
//! ```text
//! {"i":"wwwwwwww-nnnnnnnnnnnn-tttttttttttttttt","p":"....."}
//!       writer   number       nanoseconds           as long as wanted
//! ```
//! All in hexadecimal of a fixed width, so that they are written and found in place. A record is
//! JSON; in a stream of another type each ends with a line break.

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

/// What stands behind the mark of each record of this length.
pub(super) fn payload(bytes: usize) -> Arc<[u8]> {
    blank(bytes)[TIME.end..].into()
}

/// Finds the records in the pieces of a body, cut anywhere, and compares what stands in them.
#[derive(Debug)]
pub(super) struct Finder {
    /// The end of what was seen, if a record may begin there.
    held: Vec<u8>,
    /// What must follow each mark, and how much of it has.
    payload: Arc<[u8]>,
    matched: usize,
    /// The record whose payload is compared.
    last: Option<Mark>,
    damaged: Vec<Mark>,
}

impl Finder {
    /// One for records with this payload.
    pub(super) fn new(payload: &Arc<[u8]>) -> Self {
        let payload = Arc::clone(payload);
        let (held, matched) = (Vec::new(), payload.len());
        Self { held, matched, payload, last: None, damaged: Vec::new() }
    }

    /// The records that had other bytes than they were written with; one that was cut off is one
    /// of them.
    pub(super) fn finish(mut self) -> Vec<Mark> {
        if self.matched < self.payload.len() {
            self.damaged.extend(self.last);
        }
        self.damaged
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
        let left = &self.payload[self.matched..];
        let there = bytes.len().min(left.len());
        if bytes[..there] == left[..there] {
            self.matched += there;
            return &bytes[there..];
        }
        // Where the next record begins nobody knows: it is searched for.
        self.damaged.extend(self.last);
        self.matched = self.payload.len();
        bytes
    }

    /// Returns how far `bytes` were seen: what follows may be the beginning of a record.
    fn scan(&mut self, bytes: &[u8], found: &mut impl FnMut(Mark)) -> usize {
        let mut at = 0;
        while let Some(start) = memchr::memmem::find(&bytes[at..], OPENING) {
            let start = at + start;
            if bytes.len() - start < TIME.end {
                return start;
            }
            match read(&bytes[start..]) {
                Some(mark) => {
                    found(mark);
                    self.last = Some(mark);
                    self.matched = 0;
                    let rest = self.compare(&bytes[start + TIME.end..]).len();
                    at = bytes.len() - rest;
                }
                None => at = start + OPENING.len(),
            }
        }
        if self.matched < self.payload.len() {
            // All of it is seen: the payload goes on in the next piece.
            return bytes.len();
        }
        // The last bytes may be the beginning of an opening.
        at.max(bytes.len().saturating_sub(OPENING.len() - 1))
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

    #[test]
    fn what_only_looks_like_a_record_is_none() {
        let mut finder = Finder::new(&payload(BYTES_MIN));
        let text = br#"{"i":"no record, though it begins as one does, and it is long enough"}"#;
        finder.look(text, |mark| panic!("{mark:?}"));
    }

    proptest! {
        #[test]
        fn records_are_found_wherever_a_page_is_cut(
            bytes in BYTES_MIN..120,
            cuts in proptest::collection::vec(1..90_usize, 1..80),
        ) {
            let page = page(20, bytes);
            let (mut finder, mut numbers, mut rest) = (Finder::new(&payload(bytes)), Vec::new(), &page[..]);
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                finder.look(piece, |mark| numbers.push(mark.number));
                rest = after;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(numbers, (0..20).collect::<Vec<_>>());
            prop_assert!(finder.finish().is_empty());
        }

        #[test]
        fn a_byte_that_is_another_is_seen_wherever_it_is(
            bytes in BYTES_MIN..120, record in 0..20_usize, at in 0..200_usize, step in 1..300_usize,
        ) {
            let mut page = page(20, bytes);
            let at = 1 + record * (bytes + 1) + TIME.end + at % (bytes - TIME.end);
            page[at] ^= 1;
            let (mut finder, mut count) = (Finder::new(&payload(bytes)), 0);
            page.chunks(step).for_each(|piece| finder.look(piece, |_| count += 1));
            let number = u64::try_from(record).expect("small");
            prop_assert_eq!((count, finder.finish()), (20, vec![mark(number)]));
            // So is an end that is missing.
            let mut finder = Finder::new(&payload(bytes));
            finder.look(&page[..bytes], |_| {});
            prop_assert_eq!(finder.finish(), vec![mark(0)]);
        }
    }
}
