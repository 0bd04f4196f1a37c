//! The chain of manifests: dense from the boundary to the newest, each linked to the one before and
//! obeying the rules, and every object that one of them needs there.

use std::collections::{BTreeMap, BTreeSet};

use weir_io::objects::Key;

use super::{Finding, Newest, Objects, content, note, streams};
use crate::{
    publish::{
        invariants::{self, Kind, Proposal},
        keys::{Artifact, Digest, Generation},
        listing::{Entry, Listing, Presence},
        manifest::{Manifest, Published},
    },
    types::StoreMs,
};

/// Probes leave objects behind when they are cut off.
const PROBES: &str = "probe/";

/// A manifest with its entries.
pub(super) struct Opened {
    pub(super) manifest: Manifest,
    digest: Digest,
    bytes: usize,
    pub(super) segments: Vec<Entry>,
    pub(super) ledgers: Vec<Entry>,
}

impl Opened {
    fn entries(&self) -> impl Iterator<Item = (Kind, &Entry)> {
        let segments = self.segments.iter().map(|entry| (Kind::Segment, entry));
        segments.chain(self.ledgers.iter().map(|entry| (Kind::Ledger, entry)))
    }

    /// Every object that it needs, itself among them.
    fn named(&self) -> impl Iterator<Item = Key> {
        let stored = self.entries().filter(|(_, entry)| entry.presence == Presence::Stored);
        let files = stored.map(|(kind, entry)| key_of(kind, entry));
        let pages = self.manifest.segments.pages.iter().chain(&self.manifest.ledgers.pages);
        files.chain(pages.map(|page| page.artifact().key())).chain([self.manifest.artifact().key()])
    }
}

pub(super) fn key_of(kind: Kind, entry: &Entry) -> Key {
    match kind {
        Kind::Segment => entry.segment().key(),
        Kind::Ledger => entry.ledger().key(),
    }
}

/// Looks at every manifest and at what they need.
pub(super) fn look(
    objects: &Objects<'_>,
    whole_since: StoreMs,
    findings: &mut Vec<Finding>,
) -> Option<Newest> {
    let mut chain: BTreeMap<Generation, Option<Opened>> = BTreeMap::new();
    let mut boundary = Generation::NONE.next();
    for key in &objects.keys {
        match Artifact::parse(key) {
            Some(Artifact::Manifest(generation)) => {
                chain.insert(generation, open(objects, generation, findings));
            }
            Some(Artifact::Boundary(found)) => boundary = boundary.max(found),
            Some(_) => {}
            None if key.as_str().starts_with(PROBES) => {}
            None => note(findings, key, "is no name of ours"),
        }
    }
    let (newest, _) = chain.last_key_value()?;
    let newest = *newest;
    if boundary > newest {
        note(findings, Artifact::Boundary(boundary).key(), "is above every manifest");
    }
    // What lies below belongs to nobody: on its way out, or of a writer that came too late.
    chain.retain(|generation, _| *generation >= boundary);
    let mut expected = boundary;
    for generation in chain.keys() {
        if *generation != expected {
            note(findings, expected, format!("manifest is missing, {generation} is there"));
        }
        expected = generation.next();
    }
    linked(&chain, findings);
    let needed = needed(&chain, whole_since);
    // Most objects are named by many manifests; each is read once.
    let mut read = BTreeSet::new();
    for opened in needed {
        for (kind, entry) in opened.entries() {
            let key = key_of(kind, entry);
            if entry.presence == Presence::Stored && read.insert(key.clone()) {
                content::check(objects, &opened.manifest, (kind, entry), &key, findings);
            }
        }
    }
    let kept = chain.values().flatten().flat_map(Opened::named).collect();
    let opened = chain.remove(&newest).flatten()?;
    Some(Newest {
        generation: newest.get(),
        created: opened.manifest.created,
        recoveries: opened.manifest.recoveries,
        through: opened.manifest.through.lsn.get(),
        named: opened.named().collect(),
        kept,
        streams: streams::published(objects, &opened, findings),
    })
}

/// The manifests whose objects must all be there: the newest, and those that were superseded
/// since.
fn needed(
    chain: &BTreeMap<Generation, Option<Opened>>,
    whole_since: StoreMs,
) -> impl Iterator<Item = &Opened> {
    chain.iter().filter_map(move |(generation, opened)| {
        let successor = chain.get(&generation.next());
        let superseded = successor.and_then(Option::as_ref).map(|next| next.manifest.store_ms);
        let whole = superseded.is_none_or(|at| at > whole_since);
        opened.as_ref().filter(|_| whole)
    })
}

fn open(
    objects: &Objects<'_>,
    generation: Generation,
    findings: &mut Vec<Finding>,
) -> Option<Opened> {
    let key = Artifact::Manifest(generation).key();
    let bytes = objects.get(&key)?;
    let manifest = match Manifest::decode(&bytes) {
        Ok(manifest) => manifest,
        Err(bad) => {
            note(findings, key, bad);
            return None;
        }
    };
    if manifest.generation != generation {
        note(findings, &key, format!("says that it is manifest {}", manifest.generation));
    }
    let mut resolve = |listing: &Listing| {
        let resolved = listing.resolve(|page| objects.get(&page.artifact().key()));
        resolved.map_err(|bad| note(findings, &key, bad)).ok()
    };
    let (segments, ledgers) = (resolve(&manifest.segments)?, resolve(&manifest.ledgers)?);
    Some(Opened { digest: Digest::of(&bytes), bytes: bytes.len(), manifest, segments, ledgers })
}

/// Asks the rules of each manifest, in the light of the one before if that is kept.
fn linked(chain: &BTreeMap<Generation, Option<Opened>>, findings: &mut Vec<Finding>) {
    let mut before: Option<Published> = None;
    for (generation, opened) in chain {
        let Some(opened) = opened else {
            before = None;
            continue;
        };
        let manifest = &opened.manifest;
        let previous = before.take().filter(|it| it.generation.next() == *generation);
        let proposal = Proposal {
            manifest,
            segments: &opened.segments,
            ledgers: &opened.ledgers,
            bytes: opened.bytes,
            // What must be there is read, which says more.
            is_uploaded: &|_, _| true,
        };
        for broken in invariants::violations(&proposal, previous.as_ref()) {
            let first = generation.get() == 1;
            let unknown = previous.is_none() && !first;
            if !(unknown && matches!(broken.rule, "generation" | "predecessor")) {
                note(findings, manifest.artifact().key(), broken);
            }
        }
        before = Some(Published::new(manifest, opened.digest));
    }
}
