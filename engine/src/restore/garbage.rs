//! What a bucket has that its newest manifest does not name, told from the bucket alone: nothing
//! is deleted here. That is the server's to do, who knows for how long nobody has named it.
//!
//! If the newest manifest or one of its pages can't be read, nobody can tell from the bucket what is
//! needed, as it may name any object that is there: then nothing is listed. What is wrong with an older
//! one costs no more than the knowledge which manifest was the last to name an object.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weir_io::{
    World,
    objects::{Key, ObjectError, Objects},
    retry::Retrying,
};

use super::{RestoreError, find, report::Finding, search::CHAIN};
use crate::{
    history::Bucket,
    motion::publish::{self, Problem, Spoiled},
    publish::{
        keys::{self, Artifact, Digest, Generation},
        listing::{Entry, Listing},
        manifest::Manifest,
    },
    types::WallMs,
};

/// What follows for who asks if a list that must be known can't be read.
const UNKNOWN: &str = "which objects it names nobody can tell, so none is called unneeded";

/// What a bucket has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// The newest manifest.
    pub newest: u64,
    /// When it was made.
    pub created: WallMs,
    /// The oldest manifest that is kept.
    pub oldest: u64,
    /// How many there are.
    pub manifests: u64,
    /// Objects that the newest manifest names.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the newest manifest does not name, by key, then manifests and boundaries of old. A server
    /// deletes all of it that is not spared, now or later.
    pub unneeded: Vec<Unneeded>,
    /// Older manifests, and pages of such, that can't be read: what only they named is listed as if none
    /// did.
    pub unreadable: Vec<Finding>,
}

/// An object that the newest manifest does not need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unneeded {
    /// Its key.
    pub object: String,
    /// Its length.
    pub bytes: u64,
    /// The newest manifest that names it; `None`: none does, so it was never published, or every
    /// manifest that named it is gone, or it is itself a manifest or a boundary.
    pub named_by: Option<u64>,
    /// When the manifest after that was made: the grace period runs since then. Of a manifest the
    /// same.
    pub since: Option<WallMs>,
    /// No server deletes it: a recovery could not read the list that may have named it.
    pub spared: bool,
}

/// Says what could be deleted, now or once it has waited for the grace period.
///
/// # Errors
/// The bucket did not answer, or has no manifest, or its newest one can't be read.
pub async fn garbage(world: &World, bucket: Arc<dyn Objects>) -> Result<Garbage, RestoreError> {
    let bucket = Bucket::new(bucket, Arc::clone(&world.entropy));
    look(&bucket.patient).await
}

async fn look(bucket: &Retrying) -> Result<Garbage, RestoreError> {
    let end = publish::newest_slot(bucket).await?.ok_or(RestoreError::Empty)?;
    let newest = publish::read_slot(bucket, end).await?.map_err(|Spoiled { what, .. }| {
        RestoreError::Unreadable(format!(
            "{}: the newest manifest is damaged: {what}; {UNKNOWN}: start the server that published \
             it, which publishes another one, or if there is none recover with `weir bootstrap \
             --partial`, and look again",
            Artifact::Manifest(end).key()
        ))
    })?;
    let kept = find::generations(bucket).await?;
    let mut names = Names { bucket, pages: BTreeMap::new() };
    let mut unreadable = Vec::new();
    let needed = names.of(&newest.manifest, &mut unreadable).await?;
    if let Some(page) = unreadable.first() {
        return Err(RestoreError::Unreadable(format!(
            "{page}; {UNKNOWN}: restore it from the bucket's own versions, if it keeps any, or \
             recover with `weir bootstrap --partial`, and look again"
        )));
    }
    let Older { later, old } = names.older(&newest.manifest, &kept, &mut unreadable).await?;
    let mut garbage = Garbage {
        newest: newest.manifest.generation.get(),
        created: newest.manifest.created,
        oldest: kept.last().copied().unwrap_or_default().get(),
        manifests: u64::try_from(kept.len()).unwrap_or(u64::MAX),
        unreadable,
        ..Garbage::default()
    };
    let limit = publish::spared(bucket).await.map_err(Problem::from)?;
    for prefix in [keys::SEGMENTS, keys::LEDGERS, keys::PAGES] {
        for (key, bytes) in find::list(bucket, prefix).await? {
            let Some(artifact) = Artifact::parse(&key) else { continue };
            if needed.contains(&key) {
                garbage.objects += 1;
                garbage.bytes += bytes;
                continue;
            }
            let last = later.get(&key);
            // What was named since the recovery has been dropped, and is known to the server.
            let spared = match artifact {
                Artifact::Segment(id, _) | Artifact::Ledger(id, _) => {
                    last.is_none() && limit.is_some_and(|limit| id < limit)
                }
                _ => false,
            };
            garbage.unneeded.push(Unneeded {
                object: key.to_string(),
                bytes,
                named_by: last.map(|(by, _)| *by),
                since: last.map(|(_, since)| *since),
                spared,
            });
        }
    }
    for (key, bytes) in find::list(bucket, keys::MANIFESTS).await? {
        if let Some(since) = old.get(&key).copied() {
            let (object, since) = (key.to_string(), Some(since));
            let of_old = Unneeded { object, bytes, named_by: None, since, spared: false };
            garbage.unneeded.push(of_old);
        }
    }
    // A listing has the highest first.
    for (key, bytes) in find::list(bucket, keys::BOUNDARIES).await?.into_iter().skip(1) {
        let object = key.to_string();
        let lower = Unneeded { object, bytes, named_by: None, since: None, spared: false };
        garbage.unneeded.push(lower);
    }
    Ok(garbage)
}

/// What manifests before the newest name.
#[derive(Default)]
struct Older {
    /// The newest of them that names an object, and when the one after that was made.
    later: BTreeMap<Key, (u64, WallMs)>,
    /// Themselves, and when the one after each was made.
    old: BTreeMap<Key, WallMs>,
}

/// Says which objects manifests name.
struct Names<'a> {
    bucket: &'a Retrying,
    /// Of pages that can't be read those are none.
    pages: BTreeMap<(Digest, bool), Vec<Key>>,
}

impl Names<'_> {
    /// What manifests before the newest name, as far as they can be read.
    async fn older(
        &mut self,
        newest: &Manifest,
        kept: &[Generation],
        unreadable: &mut Vec<Finding>,
    ) -> Result<Older, RestoreError> {
        let mut older = Older::default();
        let mut superseded = newest.created;
        for generation in kept.iter().filter(|it| **it < newest.generation) {
            let key = Artifact::Manifest(*generation).key();
            let slot = match publish::read_slot(self.bucket, *generation).await {
                Ok(slot) => slot,
                // Collected since it was listed.
                Err(Problem::Bucket(ObjectError::NotFound)) => continue,
                Err(problem) => return Err(problem.into()),
            };
            older.old.insert(key.clone(), superseded);
            let manifest = match slot {
                Ok(stored) => stored.manifest,
                Err(Spoiled { what, .. }) => {
                    unreadable.push(Finding::new(CHAIN, key, format!("it is damaged: {what}")));
                    continue;
                }
            };
            for key in self.of(&manifest, unreadable).await? {
                older.later.entry(key).or_insert((generation.get(), superseded));
            }
            superseded = manifest.created;
        }
        Ok(older)
    }

    /// What a manifest names, as far as its pages can be read. A page that can't is said once.
    async fn of(
        &mut self,
        manifest: &Manifest,
        unreadable: &mut Vec<Finding>,
    ) -> Result<BTreeSet<Key>, RestoreError> {
        let mut named = BTreeSet::new();
        for (listing, segments) in [(&manifest.segments, true), (&manifest.ledgers, false)] {
            for page in &listing.pages {
                named.insert(page.artifact().key());
                if !self.pages.contains_key(&(page.digest, segments)) {
                    let one = Listing { pages: vec![*page], rest: Vec::new() };
                    let entries = find::resolve(self.bucket, &one, unreadable).await?;
                    let keys = entries.iter().map(|it| key(it, segments)).collect();
                    self.pages.insert((page.digest, segments), keys);
                }
                named.extend(self.pages[&(page.digest, segments)].iter().cloned());
            }
            named.extend(listing.rest.iter().map(|it| key(it, segments)));
        }
        Ok(named)
    }
}

fn key(entry: &Entry, segment: bool) -> Key {
    if segment { entry.segment().key() } else { entry.ledger().key() }
}
