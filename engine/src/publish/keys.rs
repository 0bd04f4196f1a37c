//! Names of objects, and what a listing's names mean.
//!
//! | key | object |
//! |---|---|
//! | `segments/<id>-<nonce>.seg` | a segment, both numbers 16 hex digits |
//! | `rows/<id>-<nonce>.rows` | a ledger |
//! | `pages/<sha-256>.page` | a page of a listing |
//! | `manifest/<2^64 − 1 − generation>.mf` | a manifest, 20 digits: a listing has the newest first |
//! | `gc/<2^64 − 1 − boundary>` | manifests of lower generations may be gone, 20 digits |
//! | `spared/<2^64 − 1 − id>` | segments and ledgers of lower ids stay, named or not, 20 digits |
//!
//! A name has one spelling: what [`Artifact::parse`] takes, [`Artifact::key`] makes.

use std::fmt;

use ring::digest;
use weir_io::objects::Key;

use crate::types::SegmentId;

/// Where segments are.
pub(crate) const SEGMENTS: &str = "segments/";
/// Where ledgers are.
pub(crate) const LEDGERS: &str = "rows/";
/// Where pages are.
pub(crate) const PAGES: &str = "pages/";
/// Where manifests are, the newest first.
pub(crate) const MANIFESTS: &str = "manifest/";
/// Where boundaries are, the highest first.
pub(crate) const BOUNDARIES: &str = "gc/";
/// Where it is said what is spared, the most first.
pub(crate) const SPARED: &str = "spared/";
/// The bytes of a boundary. Its name says all: nobody reads them.
pub(crate) const BOUNDARY: &str = "boundary\n";

/// Place of a manifest in its chain; the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation(u64);

impl Generation {
    /// Before the first manifest.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn new(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The one after.
    pub(crate) fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("fewer than 2^64 manifests"))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells objects of one number that different processes wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Nonce(u64);

impl Nonce {
    pub(crate) const fn new(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// The SHA-256 of an object's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// Stands for the predecessor of the first manifest.
    pub(crate) const NONE: Self = Self([0; 32]);

    pub(crate) const fn new(raw: [u8; 32]) -> Self {
        Self(raw)
    }

    pub(crate) const fn get(&self) -> &[u8; 32] {
        &self.0
    }

    /// That of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, bytes);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut raw = [0; 32];
        if text.len() != 2 * raw.len() || !text.bytes().all(is_hex) {
            return None;
        }
        for (at, byte) in raw.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(raw))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an object is, as far as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Artifact {
    /// Records.
    Segment(SegmentId, Nonce),
    /// Rows that a fold changed.
    Ledger(SegmentId, Nonce),
    /// Entries of a listing.
    Page(Digest),
    /// What the store was at one moment.
    Manifest(Generation),
    /// Manifests below this one may be gone.
    Boundary(Generation),
    /// Segments and ledgers below this one may be what a lost list named.
    Spared(SegmentId),
}

impl Artifact {
    /// The name of the object.
    pub(crate) fn key(&self) -> Key {
        let name = match self {
            Self::Segment(id, nonce) => {
                format!("{SEGMENTS}{:016x}-{:016x}.seg", id.get(), nonce.get())
            }
            Self::Ledger(id, nonce) => {
                format!("{LEDGERS}{:016x}-{:016x}.rows", id.get(), nonce.get())
            }
            Self::Page(digest) => format!("{PAGES}{digest}.page"),
            Self::Manifest(generation) => {
                format!("{MANIFESTS}{}.mf", descending(generation.get()))
            }
            Self::Boundary(boundary) => format!("{BOUNDARIES}{}", descending(boundary.get())),
            Self::Spared(limit) => format!("{SPARED}{}", descending(limit.get())),
        };
        Key::new(name).expect("made of a few plain characters")
    }

    /// What the object of this name is; `None` if the name is not one of ours.
    pub(crate) fn parse(key: &Key) -> Option<Self> {
        let name = key.as_str();
        if let Some(rest) = name.strip_prefix(SEGMENTS) {
            let (id, nonce) = numbered(rest.strip_suffix(".seg")?)?;
            return Some(Self::Segment(id, nonce));
        }
        if let Some(rest) = name.strip_prefix(LEDGERS) {
            let (id, nonce) = numbered(rest.strip_suffix(".rows")?)?;
            return Some(Self::Ledger(id, nonce));
        }
        if let Some(rest) = name.strip_prefix(PAGES) {
            return Digest::parse(rest.strip_suffix(".page")?).map(Self::Page);
        }
        if let Some(rest) = name.strip_prefix(MANIFESTS) {
            return ascending(rest.strip_suffix(".mf")?).map(Generation::new).map(Self::Manifest);
        }
        if let Some(rest) = name.strip_prefix(SPARED) {
            return ascending(rest).map(SegmentId::new).map(Self::Spared);
        }
        ascending(name.strip_prefix(BOUNDARIES)?).map(Generation::new).map(Self::Boundary)
    }
}

/// Twenty digits that fall as the number rises.
fn descending(number: u64) -> String {
    format!("{:020}", u64::MAX - number)
}

fn ascending(text: &str) -> Option<u64> {
    if text.len() != 20 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let complement: u64 = text.parse().ok()?;
    Some(u64::MAX - complement)
}

fn numbered(text: &str) -> Option<(SegmentId, Nonce)> {
    let (id, nonce) = text.split_once('-')?;
    Some((SegmentId::new(number(id)?), Nonce::new(number(nonce)?)))
}

fn number(text: &str) -> Option<u64> {
    if text.len() != 16 || !text.bytes().all(is_hex) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

const fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
