//! A name has one spelling, and a listing has the newest first.

use proptest::prelude::*;
use weir_io::objects::Key;

use super::*;
use crate::{
    ledger::tests::{assert_snapshot, dump},
    publish::keys::{Artifact, BOUNDARIES, BOUNDARY, LEDGERS, MANIFESTS, PAGES, SEGMENTS, SPARED},
};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[test]
fn the_bytes_of_a_boundary_are_as_specified() {
    let key = Artifact::Boundary(Generation::new(12)).key();
    assert_snapshot("boundary__v1", format!("{key}\n\n{}", dump(BOUNDARY.as_bytes())));
}

#[test]
fn names_are_as_specified() {
    let (id, nonce) = (SegmentId::new(0x2a), Nonce::new(0xfe));
    let digest = Digest::of(b"abc");
    assert_eq!(
        digest.to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    for (artifact, name) in [
        (Artifact::Segment(id, nonce), "segments/000000000000002a-00000000000000fe.seg".into()),
        (Artifact::Ledger(id, nonce), "rows/000000000000002a-00000000000000fe.rows".into()),
        (Artifact::Page(digest), format!("pages/{digest}.page")),
        (Artifact::Manifest(Generation::new(1)), "manifest/18446744073709551614.mf".into()),
        (
            Artifact::Manifest(Generation::new(u64::MAX - 9)),
            "manifest/00000000000000000009.mf".into(),
        ),
        (Artifact::Boundary(Generation::new(16)), "gc/18446744073709551599".into()),
        (Artifact::Spared(SegmentId::new(16)), "spared/18446744073709551599".into()),
    ] {
        assert_eq!(artifact.key().as_str(), name);
        assert_eq!(Artifact::parse(&key(&name)), Some(artifact));
    }
}

#[test]
fn a_name_that_is_none_of_ours_means_nothing() {
    let digest = Digest::of(b"abc").to_string();
    for name in [
        "probe/1",
        "segments/2a-fe.seg",
        "segments/000000000000002A-00000000000000fe.seg",
        "segments/_00000000000002a-00000000000000fe.seg",
        "segments/000000000000002a-00000000000000fe.rows",
        "segments/000000000000002a-00000000000000fe.seg.tmp",
        "segments/000000000000002a00000000000000fe.seg",
        "rows/000000000000002a-00000000000000fe.seg",
        "manifest/18446744073709551616.mf",
        "manifest/1844674407370955161.mf",
        "manifest/18446744073709551614",
        "manifest/18446744073709551614.mf/x",
        "gc/18446744073709551599.mf",
        "gc/_8446744073709551599",
        "gc/99999999999999999999",
        "spared/99999999999999999999",
        "spared/18446744073709551599.seg",
        &format!("pages/{}.page", digest.to_uppercase()),
        &format!("pages/{}.page", &digest[1..]),
        &format!("x/pages/{digest}.page"),
    ] {
        assert_eq!(Artifact::parse(&key(name)), None, "{name}");
    }
}

proptest! {
    #[test]
    fn roundtrip(kind in 0..6u8, a: u64, b: u64, raw: [u8; 32]) {
        let artifact = match kind {
            0 => Artifact::Segment(SegmentId::new(a), Nonce::new(b)),
            1 => Artifact::Ledger(SegmentId::new(a), Nonce::new(b)),
            2 => Artifact::Page(Digest::new(raw)),
            3 => Artifact::Manifest(Generation::new(a)),
            4 => Artifact::Boundary(Generation::new(a)),
            _ => Artifact::Spared(SegmentId::new(a)),
        };
        let key = artifact.key();
        prop_assert_eq!(Artifact::parse(&key), Some(artifact));
        let prefix = [SEGMENTS, LEDGERS, PAGES, MANIFESTS, BOUNDARIES, SPARED][usize::from(kind)];
        prop_assert!(key.as_str().starts_with(prefix));
    }

    #[test]
    fn what_is_parsed_is_spelled_the_same(
        name in "(segments|rows|pages|manifest|gc|spared)/[0-9a-fA-F_.-]{16,66}(\\.seg|\\.rows|\\.page|\\.mf|)",
    ) {
        if let Ok(key) = Key::new(name) && let Some(artifact) = Artifact::parse(&key) {
            prop_assert_eq!(artifact.key(), key);
        }
    }

    #[test]
    fn the_newest_comes_first(a: u64, b: u64) {
        let key = |raw| Artifact::Manifest(Generation::new(raw)).key();
        prop_assert_eq!(a.cmp(&b), key(b).cmp(&key(a)));
    }
}
