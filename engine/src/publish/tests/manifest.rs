//! A manifest is read back as it was written, or refused.

use bytes::BytesMut;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    ledger::tests::{assert_snapshot, dump},
    limits::{MANIFEST_BYTES_MAX, PAGE_ENTRIES},
    publish::listing::{PAGE_BYTES, PageRef, Unresolved},
};

#[test]
fn the_bytes_of_a_manifest_are_as_specified() {
    let encoded = manifest().encode();
    assert_eq!(encoded.digest, Digest::of(&encoded.bytes));
    assert_eq!(Manifest::decode(&encoded.bytes), Ok(manifest()));
    assert_snapshot("manifest__v1", dump(&encoded.bytes));
}

#[test]
fn the_bytes_of_a_page_are_as_specified() {
    let (listing, pages) = Listing::assemble(&many());
    assert_eq!(pages.len(), 2);
    let mut manifest = manifest();
    manifest.segments = listing;
    let encoded = manifest.encode();
    assert_eq!(Manifest::decode(&encoded.bytes), Ok(manifest));
    let page = &pages[1].bytes;
    let (first, last) = (dump(&page[..122]), dump(&page[PAGE_BYTES - 57..]));
    let shown = format!(
        "{}\n\n{first}... {} bytes in all, the last:\n{last}\nin a manifest:\n{}",
        pages[1].reference.artifact().key(),
        page.len(),
        dump(&encoded.bytes[160..160 + 8 + 2 * 40]),
    );
    assert_snapshot("page__v1", shown);
}

#[test]
fn any_flipped_bit_of_a_manifest_is_noticed() {
    let bytes = manifest().encode().bytes;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << bit;
            assert!(Manifest::decode(&damaged.into()).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_manifest_of_any_other_length_is_refused() {
    let bytes = manifest().encode().bytes;
    for len in 0..bytes.len() {
        assert!(Manifest::decode(&bytes.slice(..len)).is_err(), "{len}");
    }
    assert!(Manifest::decode(&[&bytes[..], b"\0"].concat().into()).is_err());
    let endless = [&bytes[..], &vec![0; MANIFEST_BYTES_MAX]].concat();
    assert!(Manifest::decode(&endless.into()).is_err());
}

/// Makes the checksum right again, as a forger would.
fn reseal(bytes: &mut [u8]) -> Bytes {
    let at = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..at]).to_le_bytes();
    bytes[at..].copy_from_slice(&crc);
    Bytes::copy_from_slice(bytes)
}

#[test]
fn a_forged_manifest_is_read_or_refused() {
    let bytes = manifest().encode().bytes;
    let mut read = 0;
    for at in 0..bytes.len() - 4 {
        for value in [0, 1, 2, 0x7f, 0xff, bytes[at] ^ 1] {
            let mut forged = bytes.to_vec();
            forged[at] = value;
            if let Ok(manifest) = Manifest::decode(&reseal(&mut forged)) {
                assert_eq!(manifest.encode().bytes, forged, "one manifest, one spelling");
                read += 1;
            }
        }
    }
    assert!(read > bytes.len(), "the checksum is where this test thinks it is");
}

#[test]
fn a_listing_is_resolved_from_its_pages() {
    for count in [0, 1, PAGE_ENTRIES - 1, PAGE_ENTRIES, PAGE_ENTRIES + 1, 2 * PAGE_ENTRIES + 5] {
        let entries = &many()[..count];
        let (listing, pages) = Listing::assemble(entries);
        assert_eq!(listing.count(), u64::try_from(count).unwrap());
        assert_eq!(pages.len(), count / PAGE_ENTRIES);
        assert!(pages.iter().all(|page| page.bytes.len() == PAGE_BYTES));
        assert_eq!(listing.resolve(from(&pages)).as_deref(), Ok(entries));
    }
}

#[test]
fn pages_before_a_change_stay_the_same() {
    let mut entries = many();
    let (before, _) = Listing::assemble(&entries);
    entries[PAGE_ENTRIES + 7].bytes += 1;
    entries.push(entry(99_999, (99_999, 99_999)));
    let (after, _) = Listing::assemble(&entries);
    assert_eq!(before.pages[0], after.pages[0]);
    assert_ne!(before.pages[1], after.pages[1]);
}

#[test]
fn a_page_that_is_not_the_one_named_is_refused() {
    let (listing, pages) = Listing::assemble(&many());
    let wanted = &pages[0].reference.digest;
    assert_eq!(listing.resolve(|_| None), Err(Unresolved::Missing(*wanted)));
    let other = |_: &PageRef| Some(pages[1].bytes.clone());
    assert_eq!(listing.resolve(other), Err(Unresolved::Foreign(*wanted)));
    let mut damaged = pages.clone();
    for at in (0..PAGE_BYTES).step_by(97) {
        let mut bytes = pages[0].bytes.to_vec();
        bytes[at] ^= 4;
        damaged[0].bytes = bytes.into();
        assert_eq!(listing.resolve(from(&damaged)), Err(Unresolved::Foreign(*wanted)));
        assert!(Page::decode(&damaged[0].bytes).is_err(), "{at}");
    }
}

#[test]
fn a_page_that_is_named_rightly_and_is_none_is_refused() {
    let (_, pages) = Listing::assemble(&many());
    for len in [0, 4, 16, PAGE_BYTES - 1] {
        let bytes = pages[0].bytes.slice(..len);
        let reference = PageRef { digest: Digest::of(&bytes), ..pages[0].reference };
        let refused = reference.open(&bytes);
        assert!(matches!(refused, Err(Unresolved::Malformed { .. })), "{len}");
    }
}

fn arbitrary_entry() -> impl Strategy<Value = Entry> {
    let numbers = any::<[u64; 6]>();
    (numbers, any::<u32>(), any::<bool>()).prop_map(
        |([id, nonce, bytes, first, last, records], mark, hole)| Entry {
            id: SegmentId::new(id),
            nonce: Nonce::new(nonce),
            bytes,
            mark,
            first_lsn: Lsn::new(first),
            last_lsn: Lsn::new(last),
            records,
            presence: if hole { Presence::Hole } else { Presence::Stored },
        },
    )
}

fn arbitrary_listing() -> impl Strategy<Value = Listing> {
    let full = (u32::try_from(PAGE_ENTRIES).unwrap(), u32::try_from(PAGE_BYTES).unwrap());
    let page = any::<[u8; 32]>().prop_map(move |raw| PageRef {
        digest: Digest::new(raw),
        entries: full.0,
        bytes: full.1,
    });
    (vec(page, 0..5), vec(arbitrary_entry(), 0..20))
        .prop_map(|(pages, rest)| Listing { pages, rest })
}

proptest! {
    #[test]
    fn roundtrip(
        ids in any::<([u8; 16], [u8; 32], [u8; 16])>(),
        numbers in any::<[u64; 9]>(),
        small in any::<[u32; 3]>(),
        segments in arbitrary_listing(),
        ledgers in arbitrary_listing(),
    ) {
        let manifest = Manifest {
            store: StoreId(ids.0),
            generation: Generation::new(numbers[0]),
            before: Digest::new(ids.1),
            claim: Claim(ids.2),
            writer_epoch: numbers[1],
            created: WallMs::new(numbers[2]),
            recoveries: small[0],
            folded: Link { lsn: Lsn::new(numbers[3]), crc: small[1] },
            through: Link { lsn: Lsn::new(numbers[4]), crc: small[2] },
            next_stream: StreamId::new(numbers[5]),
            next_subscription: numbers[6],
            next_segment: SegmentId::new(numbers[7]),
            store_ms: StoreMs::new(numbers[8]),
            segments,
            ledgers,
        };
        let encoded = manifest.encode();
        prop_assert_eq!(Manifest::decode(&encoded.bytes), Ok(manifest));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        head in any::<bool>(),
        bytes in vec(prop_oneof![3 => 0..4u8, 1 => any::<u8>()], 0..400),
    ) {
        let mut whole = BytesMut::new();
        if head {
            whole.extend_from_slice(b"WEIRMANI\x01\0\0\0");
        }
        whole.extend_from_slice(&bytes);
        whole.extend_from_slice(&[0; 4]);
        drop(Manifest::decode(&reseal(&mut whole)));
        drop(Page::decode(&bytes.into()));
    }
}
