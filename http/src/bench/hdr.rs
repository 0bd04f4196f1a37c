//! A histogram in the V2 encoding of HdrHistogram, which the tools of that library read.
//!
//! ```text
//! u32 0x1c849313 · u32 bytes of the counts · u32 0 · u32 digits · u64 lowest · u64 highest · f64 1.0 · counts
//! ```
//! Big-endian. A count is a ZigZag LEB128 of at most nine bytes; so many zeros in a row are one
//! negative number. Counts behind the last that is not zero are left out.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::Histogram;

const COOKIE: u32 = 0x1c84_9313;
/// Bytes of a number whose last one has eight bits of it.
const NUMBER_BYTES_MAX: usize = 9;

/// The histogram as text.
pub(super) fn base64(histogram: &Histogram<u64>) -> String {
    STANDARD.encode(encode(histogram))
}

fn encode(histogram: &Histogram<u64>) -> Vec<u8> {
    let (mut counts, mut zeros) = (Vec::new(), 0_i64);
    for bucket in histogram.iter_all() {
        let count = i64::try_from(bucket.count_at_value()).unwrap_or(i64::MAX);
        if count == 0 {
            zeros += 1;
            continue;
        }
        if zeros > 0 {
            put(&mut counts, -std::mem::take(&mut zeros));
        }
        put(&mut counts, count);
    }
    let length = u32::try_from(counts.len()).expect("a histogram has less than 2^31 buckets");
    let mut bytes = Vec::with_capacity(40 + counts.len());
    bytes.extend_from_slice(&COOKIE.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&0_u32.to_be_bytes());
    bytes.extend_from_slice(&u32::from(histogram.sigfig()).to_be_bytes());
    bytes.extend_from_slice(&histogram.low().to_be_bytes());
    bytes.extend_from_slice(&histogram.high().to_be_bytes());
    bytes.extend_from_slice(&1.0_f64.to_be_bytes());
    bytes.extend_from_slice(&counts);
    bytes
}

fn put(bytes: &mut Vec<u8>, number: i64) {
    let mut rest = number.unsigned_abs() << 1;
    if number < 0 {
        rest -= 1;
    }
    for _ in 1..NUMBER_BYTES_MAX {
        let seven = u8::try_from(rest & 0x7f).expect("seven bits");
        rest >>= 7;
        if rest == 0 {
            bytes.push(seven);
            return;
        }
        bytes.push(seven | 0x80);
    }
    bytes.push(u8::try_from(rest & 0xff).expect("eight bits"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_the_format_says() {
        for (number, expect) in [
            (1, &[2][..]),
            (-1, &[1]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (300, &[0xd8, 4]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ] {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            assert_eq!(bytes, expect, "{number}");
        }
    }

    #[test]
    fn a_histogram_is_its_head_and_its_counts() {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000, 3).expect("bounds");
        for value in [0, 1, 1, 5] {
            histogram.record(value).expect("within bounds");
        }
        let bytes = encode(&histogram);
        assert_eq!(bytes[..8], [0x1c, 0x84, 0x93, 0x13, 0, 0, 0, 4]);
        assert_eq!(bytes[12..24], [0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[40..], [2, 4, 5, 2], "one 0, two 1, three zeros, one 5");
        let empty = Histogram::new_with_bounds(1, 100, 3).expect("bounds");
        assert_eq!(encode(&empty).len(), 40);
    }
}
