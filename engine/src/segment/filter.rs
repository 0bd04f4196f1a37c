//! The stream filter: a binary fuse filter of the ids in a segment, about nine bits each.
//!
//! It never denies a stream that is there and admits one in 256 that is not, so most
//! lookups in the wrong segment end here, without I/O. Built by `xorf`; the lookup is part
//! of the format and ours, specified in docs/FORMATS.md.

use xorf::BinaryFuse8;

use super::{
    fields::Take,
    format::{Damaged, Section},
};
use crate::types::StreamId;

const KIND_NONE: u8 = 0;
const KIND_BINARY_FUSE_8: u8 = 1;

/// Which streams may be in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Nothing is known: any stream may be.
    Open,
    /// Those the filter admits.
    Fuse(Fuse),
}

/// A binary fuse filter with 8-bit fingerprints.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fuse {
    seed: u64,
    /// A power of two.
    segment_length: u32,
    /// A multiple of the segment length; the fingerprints are two segments longer.
    segment_count_length: u32,
    fingerprints: Box<[u8]>,
}

impl Filter {
    /// A filter of distinct ids.
    pub(super) fn build(streams: &[u64]) -> Self {
        if streams.is_empty() {
            return Self::Open;
        }
        // Construction is a bounded search over seeds. Should it ever fail, the segment is
        // as good without a filter, only slower to rule out.
        let Ok(built) = BinaryFuse8::try_from(streams) else {
            return Self::Open;
        };
        Self::Fuse(Fuse {
            seed: built.descriptor.seed,
            segment_length: built.descriptor.segment_length,
            segment_count_length: built.descriptor.segment_count_length,
            fingerprints: built.fingerprints,
        })
    }

    pub(super) fn admits(&self, stream: StreamId) -> bool {
        match self {
            Self::Open => true,
            Self::Fuse(fuse) => fuse.admits(stream.get()),
        }
    }

    /// Bytes held in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Open => 0,
            Self::Fuse(fuse) => fuse.fingerprints.len(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.bytes());
        match self {
            Self::Open => out.push(KIND_NONE),
            Self::Fuse(fuse) => {
                out.push(KIND_BINARY_FUSE_8);
                out.extend_from_slice(&fuse.seed.to_le_bytes());
                out.extend_from_slice(&fuse.segment_length.to_le_bytes());
                out.extend_from_slice(&fuse.segment_count_length.to_le_bytes());
                out.extend_from_slice(&fuse.fingerprints);
            }
        }
        out
    }

    /// Reads a filter whose checksum has been verified. What a lookup will index by is
    /// checked here, so that it can't leave the fingerprints.
    pub(super) fn decode(bytes: &[u8], at: u64) -> Result<Self, Damaged> {
        let mut take = Take::new(bytes, Section::Filter, at);
        match take.u8()? {
            KIND_NONE => {
                take.end()?;
                return Ok(Self::Open);
            }
            kind => take.check(kind == KIND_BINARY_FUSE_8, "unknown filter")?,
        }
        let seed = take.u64()?;
        let segment_length = take.u32()?;
        let segment_count_length = take.u32()?;
        take.check(segment_length.is_power_of_two(), "segment length")?;
        let whole = segment_count_length.is_multiple_of(segment_length);
        take.check(whole && segment_count_length > 0, "segment count")?;
        let len = u64::from(segment_count_length) + 2 * u64::from(segment_length);
        let len = usize::try_from(len).map_err(|_| take.damaged("segment count"))?;
        let fingerprints = take.slice(len)?.into();
        take.end()?;
        Ok(Self::Fuse(Fuse { seed, segment_length, segment_count_length, fingerprints }))
    }
}

impl Fuse {
    fn admits(&self, key: u64) -> bool {
        let hash = mix(key.wrapping_add(self.seed));
        let scaled = (u128::from(hash) * u128::from(self.segment_count_length)) >> 64;
        let first = usize::try_from(scaled).expect("below the segment count length");
        let segment_length = usize::try_from(self.segment_length).expect("u32 fits usize");
        let spread = |bits: u64| {
            let masked = bits & u64::from(self.segment_length - 1);
            usize::try_from(masked).expect("below the segment length")
        };
        let second = (first + segment_length) ^ spread(hash >> 18);
        let third = (first + 2 * segment_length) ^ spread(hash);
        let [fingerprint, ..] = (hash ^ (hash >> 32)).to_le_bytes();
        let [a, b, c] = [first, second, third].map(|at| self.fingerprints[at]);
        fingerprint == a ^ b ^ c
    }
}

/// The finalizer of MurmurHash3.
const fn mix(mut key: u64) -> u64 {
    key ^= key >> 33;
    key = key.wrapping_mul(0xff51_afd7_ed55_8ccd);
    key ^= key >> 33;
    key = key.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    key ^ (key >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xorf::Filter as _;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_xorf_and_survives_storage(
            keys in prop::collection::btree_set(any::<u64>(), 1..400),
            others in prop::collection::vec(any::<u64>(), 100),
        ) {
            let keys: Vec<u64> = keys.into_iter().collect();
            let theirs = BinaryFuse8::try_from(&keys).unwrap();
            let ours = Filter::decode(&Filter::build(&keys).encode(), 0).unwrap();
            prop_assert_eq!(&ours, &Filter::build(&keys));
            for &key in &keys {
                prop_assert!(ours.admits(StreamId::new(key)));
            }
            for key in others {
                prop_assert_eq!(ours.admits(StreamId::new(key)), theirs.contains(&key));
            }
        }

        /// Checksums are verified elsewhere: whatever passes the decoder must be safe.
        #[test]
        fn never_panics(
            mut bytes in prop::collection::vec(any::<u8>(), 0..64),
            lengths in prop::option::of((0u32..6, 0u32..6)),
            key in any::<u64>(),
        ) {
            if let (Some(kind), Some((length, count))) = (bytes.first_mut(), lengths) {
                *kind = KIND_BINARY_FUSE_8;
                bytes.resize(17, 0);
                bytes[9..13].copy_from_slice(&(1u32 << length).to_le_bytes());
                bytes[13..17].copy_from_slice(&(count << length).to_le_bytes());
                bytes.resize(17 + ((count as usize + 2) << length), 0x5a);
            }
            if let Ok(filter) = Filter::decode(&bytes, 0) {
                filter.admits(StreamId::new(key));
            }
        }
    }

    #[test]
    fn few_strangers_are_admitted() {
        let keys: Vec<u64> = (0..10_000).collect();
        let filter = Filter::build(&keys);
        let strangers = (10_000..110_000).filter(|&key| filter.admits(StreamId::new(key))).count();
        assert!(strangers < 100_000 * 6 / 1000, "{strangers} of 100000");
        assert!(filter.bytes() * 8 < keys.len() * 11, "{} bytes", filter.bytes());
    }
}
