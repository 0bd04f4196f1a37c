//! No flipped bit, no cut and no crafted byte yields wrong records or a panic.

use proptest::prelude::*;

use super::*;
use crate::segment::{
    BlockNo, Known, ReadError,
    block::{self, Block},
    format::{Entry, FOOTER_LEN, HEADER_LEN, Section, TRAILER_LEN},
};

/// Two blocks, three streams, every form, keys and times.
fn sample() -> Input {
    let mut input = vec![
        (
            StreamId::new(3),
            Form::Json,
            chunk(40, 1000, Some("x"), Form::Json, &[b"{\"a\":1}", b"2"]),
        ),
        (StreamId::new(3), Form::Json, chunk(42, 1005, None, Form::Json, &[b"[]"])),
        (StreamId::new(7), Form::Text, chunk(0, 900, None, Form::Text, &[b"one", b"two"])),
    ];
    // Behind a hole begins another block.
    input.push((StreamId::new(7), Form::Text, chunk(9, 901, Some(""), Form::Text, &[b"ten"])));
    input.push((StreamId::new(9), Form::Binary, chunk(1, 1, None, Form::Binary, &[&[0; 200]])));
    input
}

/// Reads everything, by every way of asking.
fn read_all(bytes: Vec<u8>) -> Result<Model, ReadError> {
    let segment = Segment::open(MemoryFile::of(bytes))?;
    for id in 0..12 {
        let stream = StreamId::new(id);
        let found =
            [segment.locate(stream, Seq::new(9)), segment.locate_since(stream, WallMs::new(901))];
        for no in found.into_iter().flatten() {
            segment.following(no, stream);
        }
    }
    for no in segment.blocks() {
        use_block(&segment.block(no)?);
    }
    Ok(contents(&segment))
}

fn use_block(block: &Block) {
    for part in block.parts() {
        let last = Seq::new(part.limit().get() - 1);
        for seq in [part.first(), last] {
            let since = part.timestamp_of(seq);
            part.key_of(seq);
            assert!(part.first_at_or_after(since).is_some());
            assert!(part.limit_within(seq, 10) > seq);
        }
        assert!(part.newest() >= part.timestamp_of(part.first()));
        let chunks = part.chunks(part.first()..part.limit());
        assert_eq!(chunks.map(|chunk| chunk.records.count()).sum::<u64>(), part.count());
    }
}

#[test]
fn every_flipped_bit_is_found_and_its_section_named() {
    for codec in [Codec::None, Codec::Zstd] {
        let (bytes, footer) = write(&sample(), codec);
        let segment = open(bytes.clone());
        let section_of = |at: u64| {
            if at < u64::try_from(HEADER_LEN).unwrap() {
                Section::Header
            } else if at < footer.index.offset {
                let before = segment.index_offsets().filter(|&offset| offset <= at).count();
                Section::Block(BlockNo(u32::try_from(before - 1).unwrap()))
            } else if at < footer.filter.offset {
                Section::Index
            } else if at < footer.filter.offset + footer.filter.len {
                Section::Filter
            } else if at < footer.file_bytes() - u64::try_from(TRAILER_LEN).unwrap() {
                Section::Footer
            } else {
                Section::Trailer
            }
        };
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                match read_all(damaged) {
                    Err(ReadError::Damaged(error)) => {
                        assert_eq!(error.section, section_of(u64::try_from(at).unwrap()), "{at}");
                    }
                    other => panic!("bit {bit} of byte {at}: {other:?}"),
                }
            }
        }
    }
}

/// A segment, whatever of it can be done without is damaged.
fn salvaged(bytes: Vec<u8>) -> Result<Segment, ReadError> {
    let (segment, wrong) = Segment::salvage(MemoryFile::of(bytes))?;
    assert!(wrong.is_some(), "it is told");
    Ok(segment)
}

#[test]
fn every_byte_of_index_filter_and_trailer_can_be_done_without() {
    for codec in [Codec::None, Codec::Zstd] {
        let (bytes, footer) = write(&sample(), codec);
        let index_at = usize::try_from(footer.index.offset).unwrap();
        let footer_at = bytes.len() - TRAILER_LEN - FOOTER_LEN;
        let trailer_at = bytes.len() - TRAILER_LEN;
        for at in (index_at..footer_at).chain(trailer_at..bytes.len()) {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let segment = salvaged(damaged).unwrap_or_else(|bad| panic!("byte {at}: {bad}"));
                super::roundtrip::check_opened(segment, &footer, &sample());
            }
        }
        // All of index and filter at once.
        let mut damaged = bytes.clone();
        damaged[index_at..footer_at].fill(0x5a);
        super::roundtrip::check_opened(salvaged(damaged).unwrap(), &footer, &sample());
    }
}

#[test]
fn an_index_that_its_blocks_do_not_make_is_not_made_up() {
    let (bytes, footer) = write(&sample(), Codec::None);
    let index_at = usize::try_from(footer.index.offset).unwrap();
    for at in HEADER_LEN..index_at {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        damaged[index_at + 3] ^= 1;
        let error = salvaged(damaged).err().unwrap();
        let ReadError::Damaged(error) = error else { panic!("{error}") };
        assert_eq!(error.section, Section::Index, "{at}");
    }
    // What else is to be known is nowhere but there.
    let footer_at = bytes.len() - TRAILER_LEN - FOOTER_LEN;
    for at in (0..HEADER_LEN).chain(footer_at..bytes.len() - TRAILER_LEN) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(matches!(salvaged(damaged), Err(ReadError::Damaged(_))), "{at}");
    }
}

/// A segment that is known to be the one of these tests.
fn recovered(bytes: Vec<u8>, len: usize) -> Result<Segment, ReadError> {
    let whole = u64::try_from(len).unwrap();
    let known = Known { store: STORE, id: SegmentId::new(7), bytes: whole };
    let (segment, wrong) = Segment::recover(MemoryFile::of(bytes), &known)?;
    assert!(wrong.is_some(), "it is told");
    Ok(segment)
}

#[test]
fn of_a_known_segment_every_byte_beside_the_blocks_can_be_done_without() {
    for codec in [Codec::None, Codec::Zstd] {
        let (bytes, footer) = write(&sample(), codec);
        assert_eq!(open(bytes.clone()).id(), SegmentId::new(7), "what these tests take it for");
        let len = bytes.len();
        let index_at = usize::try_from(footer.index.offset).unwrap();
        for at in (0..HEADER_LEN).chain(index_at..len) {
            for bits in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= bits;
                let segment = recovered(damaged, len);
                let segment = segment.unwrap_or_else(|bad| panic!("byte {at}: {bad}"));
                assert_eq!((segment.store(), segment.id()), (STORE, SegmentId::new(7)));
                assert_eq!(segment.mark(), footer.mark(), "byte {at}");
                super::roundtrip::check_opened(segment, &footer, &sample());
            }
        }
        // Header, index and all of the footer but the commits at once.
        let footer_at = len - TRAILER_LEN - FOOTER_LEN;
        let mut damaged = bytes.clone();
        damaged[..HEADER_LEN].fill(0x5a);
        damaged[index_at..usize::try_from(footer.filter.offset).unwrap()].fill(0x5a);
        damaged[footer_at..footer_at + 28].fill(0x5a);
        damaged[footer_at + 44..len - TRAILER_LEN].fill(0x5a);
        super::roundtrip::check_opened(recovered(damaged, len).unwrap(), &footer, &sample());
    }
}

#[test]
fn a_footer_that_nothing_vouches_for_is_not_made_up() {
    let (bytes, footer) = write(&sample(), Codec::None);
    let len = bytes.len();
    let index_at = usize::try_from(footer.index.offset).unwrap();
    let footer_at = len - TRAILER_LEN - FOOTER_LEN;
    let is_refused = |change: &dyn Fn(&mut [u8])| {
        let mut damaged = bytes.clone();
        damaged[footer_at] ^= 1;
        change(&mut damaged);
        matches!(recovered(damaged, len), Err(ReadError::Damaged(_)))
    };
    // A block is damaged, too; both checksums of it; more than a byte of the commits.
    for at in HEADER_LEN..index_at {
        assert!(is_refused(&|bytes| bytes[at] ^= 1), "{at}");
    }
    assert!(is_refused(&|bytes| bytes[len - TRAILER_LEN + 12..][..8].fill(0x5a)));
    assert!(is_refused(&|bytes| bytes[footer_at + 28..][..16].fill(0x5a)));
    // It is another length, or another segment.
    assert!(matches!(recovered(bytes[..len - 1].to_vec(), len), Err(ReadError::Damaged(_))));
    let mut other = bytes.clone();
    other[footer_at] ^= 1;
    assert!(matches!(recovered(other, len + 1), Err(ReadError::Damaged(_))));
}

#[test]
fn a_file_of_any_other_length_is_refused() {
    let (bytes, _) = write(&sample(), Codec::None);
    for len in 0..bytes.len() {
        let error = read_all(bytes[..len].to_vec()).unwrap_err();
        assert!(matches!(error, ReadError::Damaged(_)), "{len}: {error}");
    }
    let longer = [&bytes[..], b"\0"].concat();
    assert!(matches!(read_all(longer), Err(ReadError::Damaged(_))));
}

#[test]
fn a_refusing_disk_is_no_damage() {
    let (bytes, _) = write(&sample(), Codec::None);
    let file = MemoryFile::of(bytes);
    let segment = Segment::open(Arc::clone(&file) as Arc<dyn File>).unwrap();
    file.refuse(true);
    assert!(matches!(segment.block(BlockNo(1)), Err(ReadError::Failed { .. })));
    assert!(matches!(Segment::open(file), Err(ReadError::Failed { .. })));
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Makes every checksum right again, as a forger would. The layout must be as written.
fn reseal(bytes: &mut [u8], original: &[u8]) {
    let segment = open(original.to_vec());
    let footer = *segment.footer();
    let to_usize = |value: u64| usize::try_from(value).unwrap();
    let crc = crc32c::crc32c(&bytes[..HEADER_LEN - 4]);
    put(bytes, HEADER_LEN - 4, crc);
    let index_at = to_usize(footer.index.offset);
    let mut limits: Vec<usize> = segment.index_offsets().map(to_usize).skip(1).collect();
    limits.push(index_at);
    for (start, limit) in segment.index_offsets().map(to_usize).zip(limits) {
        let crc = crc32c::crc32c(&bytes[start + block::BLOCK_HEADER_LEN..limit]);
        put(bytes, start + 16, crc);
        let crc = crc32c::crc32c(&bytes[start..start + 20]);
        put(bytes, start + 20, crc);
    }
    let filter_at = to_usize(footer.filter.offset);
    let trailer_at = bytes.len() - TRAILER_LEN;
    let footer_at = trailer_at - FOOTER_LEN;
    let crc = crc32c::crc32c(&bytes[index_at..filter_at]);
    put(bytes, footer_at + 76, crc);
    let crc = crc32c::crc32c(&bytes[filter_at..footer_at]);
    put(bytes, footer_at + 96, crc);
    let crc = crc32c::crc32c(&bytes[footer_at..trailer_at]);
    put(bytes, trailer_at + 12, crc);
    let crc = crc32c::crc32c(&bytes[trailer_at..trailer_at + 16]);
    put(bytes, trailer_at + 16, crc);
}

#[test]
fn a_forged_byte_with_right_checksums_never_panics() {
    for codec in [Codec::None, Codec::Zstd] {
        let (bytes, _) = write(&sample(), codec);
        let mut resealed = bytes.clone();
        reseal(&mut resealed, &bytes);
        assert_eq!(resealed, bytes, "the checksums are where this test thinks they are");
        for at in 0..bytes.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(1)] {
                let mut forged = bytes.clone();
                forged[at] = value;
                reseal(&mut forged, &bytes);
                drop(read_all(forged));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_forged_file_never_panics(
        forgeries in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (bytes, _) = write(&sample(), Codec::None);
        let mut forged = bytes.clone();
        for (index, value) in forgeries {
            forged[index.index(bytes.len())] = value;
        }
        drop(Segment::salvage(MemoryFile::of(forged.clone())));
        reseal(&mut forged, &bytes);
        drop(read_all(forged));
    }

    #[test]
    fn arbitrary_content_never_panics(
        raw in prop::collection::vec(prop_oneof![3 => 0..8u8, 1 => any::<u8>()], 0..120),
    ) {
        let stored = Bytes::from(block::encode(&raw, Codec::None));
        let len = u32::try_from(raw.len()).unwrap();
        let entry = Entry {
            offset: 0,
            stored_len: len,
            raw_len: len,
            first: (StreamId::ZERO, Seq::ZERO),
            first_timestamp: WallMs::ZERO,
            limit: (StreamId::ZERO, Seq::new(1)),
        };
        if let Ok(block) = Block::decode(BlockNo(0), &entry, &stored) {
            use_block(&block);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Segment::salvage(MemoryFile::of(bytes.clone())).is_err());
        prop_assert!(read_all(bytes).is_err());
    }
}
