//! Offsets: opaque tokens for clients, positions for us (design: Identity).
//!
//! A position is the number of records before it, within an epoch. Two spellings are read
//! everywhere: the reference servers' `<epoch>_<2·position>`, minted as 16 + 16 digits, where
//! an odd second part rounds down into its record; and the peer's 26 Crockford base-32
//! characters of `epoch u32 | position u64 | 0 u32`, shifted left by two. Both sort as text.

use super::{Epoch, Seq};

/// A position in a stream: everything before `next` has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset {
    /// The epoch `next` is counted under.
    pub epoch: Epoch,
    /// The first record not yet seen.
    pub next: Seq,
}

/// How offsets are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffsetFormat {
    /// `0000000000000000_0000000000000002`.
    #[default]
    Reference,
    /// `0000000000000000000G000000`.
    Peer,
}

/// Why a text is no offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset is neither '-1', 'now', '<digits>_<digits>' nor 26 base-32 characters")]
pub struct BadOffset;

const PART_DIGITS_MAX: usize = 16;
const PEER_CHARS: usize = 26;
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl Offset {
    /// The start of every stream, of whatever epoch.
    pub const START: Self = Self { epoch: Epoch::ZERO, next: Seq::ZERO };

    /// Reads either spelling.
    ///
    /// # Errors
    /// [`BadOffset`] for anything else; `-1` and `now` are words of requests, not offsets.
    pub fn parse(text: &str) -> Result<Self, BadOffset> {
        match text.split_once('_') {
            Some((epoch, position)) => parse_reference(epoch, position),
            None => parse_peer(text.as_bytes()),
        }
        .ok_or(BadOffset)
    }

    /// Writes the offset as clients will send it back.
    #[must_use]
    pub fn mint(self, format: OffsetFormat) -> String {
        match format {
            OffsetFormat::Reference => {
                let position = self.next.get().saturating_mul(2);
                let mut text = Vec::with_capacity(2 * PART_DIGITS_MAX + 1);
                put_digits(u64::from(self.epoch.get()), &mut text);
                text.push(b'_');
                put_digits(position, &mut text);
                String::from_utf8(text).expect("digits are ASCII")
            }
            OffsetFormat::Peer => mint_peer(self),
        }
    }
}

/// As `{:016}` formats, which every answer would pay for twice.
fn put_digits(value: u64, text: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let (mut rest, mut first) = (value, digits.len());
    while rest > 0 {
        first -= 1;
        digits[first] += u8::try_from(rest % 10).expect("one digit");
        rest /= 10;
    }
    text.extend_from_slice(&digits[first.min(digits.len() - PART_DIGITS_MAX)..]);
}

fn parse_reference(epoch: &str, position: &str) -> Option<Offset> {
    let epoch = digits(epoch)?;
    let position = digits(position)?;
    // Nobody has that many epochs: it is a client's way to say "beyond any tail".
    let epoch = u32::try_from(epoch).unwrap_or(u32::MAX);
    Some(Offset { epoch: Epoch::new(epoch), next: Seq::new(position / 2) })
}

fn digits(text: &str) -> Option<u64> {
    let plain = (1..=PART_DIGITS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().expect("at most 16 digits fit u64"))
}

fn parse_peer(text: &[u8]) -> Option<Offset> {
    if text.len() != PEER_CHARS {
        return None;
    }
    // 26 × 5 = 130 bits: the two lowest are padding, so the first character has 5 real bits.
    let mut bits: u128 = 0;
    for (index, &byte) in text.iter().enumerate() {
        let digit = u128::from(crockford(byte)?);
        bits = if index + 1 == PEER_CHARS { bits << 3 | digit >> 2 } else { bits << 5 | digit };
    }
    let epoch = u32::try_from(bits >> 96).expect("the top 32 of 128 bits");
    let next = u64::try_from((bits >> 32) & u128::from(u64::MAX)).expect("masked to 64 bits");
    Some(Offset { epoch: Epoch::new(epoch), next: Seq::new(next) })
}

fn crockford(byte: u8) -> Option<u8> {
    let upper = match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    CROCKFORD.iter().position(|&digit| digit == upper).and_then(|at| u8::try_from(at).ok())
}

fn mint_peer(offset: Offset) -> String {
    let bits = u128::from(offset.epoch.get()) << 96 | u128::from(offset.next.get()) << 32;
    (0..PEER_CHARS)
        .map(|index| {
            let digit = if index + 1 == PEER_CHARS {
                (bits & 0b111) << 2
            } else {
                (bits >> (3 + 5 * (PEER_CHARS - 2 - index))) & 0b1_1111
            };
            char::from(CROCKFORD[usize::try_from(digit).expect("five bits")])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(epoch: u32, next: u64) -> Offset {
        Offset { epoch: Epoch::new(epoch), next: Seq::new(next) }
    }

    #[test]
    fn the_peers_vectors_hold() {
        for (next, text) in [
            (0, "00000000000000000000000000"),
            (1, "0000000000000000000G000000"),
            (2, "00000000000000000010000000"),
            (3, "0000000000000000001G000000"),
            (4, "00000000000000000020000000"),
            (8, "00000000000000000040000000"),
        ] {
            assert_eq!(at(0, next).mint(OffsetFormat::Peer), text);
            assert_eq!(Offset::parse(text), Ok(at(0, next)));
            assert_eq!(Offset::parse(&text.to_lowercase()), Ok(at(0, next)));
        }
        assert_eq!(Offset::parse("OOOOOOOOOOOOOOOOOOOGOOOOOO"), Ok(at(0, 1)));
        assert_eq!(Offset::parse("U000000000000000000G000000"), Err(BadOffset));
    }

    #[test]
    fn the_reference_form_rounds_down_and_takes_unpadded_and_literal_tokens() {
        assert_eq!(Offset::parse("0_0"), Ok(Offset::START));
        assert_eq!(Offset::parse("0000000000000000_0000000000000003"), Ok(at(0, 1)));
        assert_eq!(at(1, 3).mint(OffsetFormat::Reference), "0000000000000001_0000000000000006");
        let beyond = Offset::parse("9999999999999999_9999999999999999").expect("valid");
        assert!(beyond > at(1000, 1 << 50));
        for bad in ["", "0", "-1", "now", "_", "1_", "_1", "+1_0", "1_2_3", "00000000000000000_0"] {
            assert_eq!(Offset::parse(bad), Err(BadOffset), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn both_forms_round_trip_and_sort(a: (u32, u64), b: (u32, u64)) {
            let below = 4_999_999_999_999_999;
            let (a, b) = (at(a.0, a.1 % below), at(b.0, b.1 % below));
            for format in [OffsetFormat::Reference, OffsetFormat::Peer] {
                let (x, y) = (a.mint(format), b.mint(format));
                prop_assert_eq!(Offset::parse(&x), Ok(a));
                prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            }
        }

        #[test]
        fn the_reference_form_is_sixteen_digits_or_more(epoch: u32, next: u64) {
            let position = next.saturating_mul(2);
            let text = at(epoch, next).mint(OffsetFormat::Reference);
            prop_assert_eq!(text, format!("{epoch:016}_{position:016}"));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            if let Ok(offset) = Offset::parse(&text) {
                prop_assert!(!text.is_empty() && offset.epoch <= Epoch::new(u32::MAX));
            }
        }
    }
}
