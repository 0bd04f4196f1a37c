//! A rolling hash over everything that happened, to tell whether two runs were the same.
//!
//! FNV-1a over 64-bit words with a final mix of the high bits into the low ones. No defence
//! against anybody: it only has to notice a difference.

const START: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// A rolling hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Trace {
        Trace::new()
    }
}

impl Trace {
    /// The hash of nothing.
    #[must_use]
    pub const fn new() -> Trace {
        Trace(START)
    }

    /// Adds one word.
    pub fn add(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(PRIME);
        self.0 = mixed ^ (mixed >> 29);
    }

    /// Adds a string of bytes and its length.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        let words = bytes.chunks_exact(8);
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        for word in words {
            self.add(u64::from_le_bytes(word.try_into().expect("chunks of eight")));
        }
        self.add(u64::from_le_bytes(last));
        self.add(u64::try_from(bytes.len()).expect("lengths fit 64 bits"));
    }

    /// The hash so far.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Trace;

    fn hash(bytes: &[u8]) -> u64 {
        let mut trace = Trace::new();
        trace.add_bytes(bytes);
        trace.value()
    }

    #[test]
    fn order_content_and_length_all_count() {
        assert_ne!(hash(b"ab"), hash(b"ba"));
        assert_ne!(hash(b""), hash(b"\0"));
        assert_ne!(hash(b"12345678"), hash(b"12345678\0"));
        assert_eq!(hash(b"1234567890"), hash(b"1234567890"));
    }
}
