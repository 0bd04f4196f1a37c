//! Audit: what a bucket says of its store, from its objects alone, and what is wrong with them.
//!
//! ```text
//! keys ─▶ chain of manifests ─▶ every object they name ─▶ rows + tail ─▶ streams, without a gap
//! ```
//! Nothing is believed: every checksum is computed, every rule is asked again. Knows no running
//! store and asks nobody: whoever has the bytes hands them in. It reads everything, so it is for
//! stores that can be read whole.

mod chain;
mod content;
mod streams;

use std::{collections::BTreeSet, fmt};

use bytes::Bytes;
use weir_io::objects::Key;

pub use self::streams::Published;
use crate::types::{StoreMs, WallMs};

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The object, by its key, or what else it is about.
    pub object: String,
    /// What is, and what should be.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}

/// What a bucket holds.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// What is wrong. Empty: everything that can be known from the bucket is in order.
    pub findings: Vec<Finding>,
    /// What the newest manifest says; `None` without a manifest that can be read.
    pub newest: Option<Newest>,
}

/// What the newest manifest says.
#[derive(Clone, Debug)]
pub struct Newest {
    /// Its place in the chain.
    pub generation: u64,
    /// When it was made.
    pub created: WallMs,
    /// How many recoveries the chain has seen.
    pub recoveries: u32,
    /// Everything up to this commit would come back.
    pub through: u64,
    /// The objects that it needs, itself among them.
    pub named: BTreeSet<Key>,
    /// Objects of the manifests before it that are kept.
    pub kept: BTreeSet<Key>,
    /// The streams that would come back, by name.
    pub streams: Vec<Published>,
}

/// Where the bytes of objects come from.
pub(crate) struct Objects<'a> {
    keys: BTreeSet<&'a Key>,
    get: &'a dyn Fn(&Key) -> Option<Bytes>,
}

impl Objects<'_> {
    fn get(&self, key: &Key) -> Option<Bytes> {
        self.keys.contains(key).then(|| (self.get)(key)).flatten()
    }
}

/// Takes a bucket apart. `keys` are all that it has, `get` gives the bytes of one. Manifests that
/// were superseded by ones of before `whole_since` may name objects that are gone.
#[must_use]
pub fn bucket(keys: &[Key], get: &dyn Fn(&Key) -> Option<Bytes>, whole_since: StoreMs) -> Audit {
    let objects = Objects { keys: keys.iter().collect(), get };
    let mut findings = Vec::new();
    let newest = chain::look(&objects, whole_since, &mut findings);
    Audit { findings, newest }
}

/// Notes something that is wrong.
fn note(findings: &mut Vec<Finding>, object: impl fmt::Display, what: impl fmt::Display) {
    findings.push(Finding { object: object.to_string(), what: what.to_string() });
}
