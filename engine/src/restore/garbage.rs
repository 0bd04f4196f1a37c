//! What a bucket has that its newest manifest does not name, told from the bucket alone: nothing
//! is deleted here. That is the server's to do, who knows for how long nobody has named it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use weir_io::{
    World,
    objects::{Key, Objects},
    retry::Retrying,
};

use super::{RestoreError, find};
use crate::{
    history::Bucket,
    motion::publish::{self, Problem},
    publish::{
        keys::{self, Artifact, Digest},
        listing::Listing,
    },
    types::WallMs,
};

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

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "manifests    {} ({} to {})", self.manifests, self.oldest, self.newest)?;
        writeln!(f, "needed       {} objects, {} bytes", self.objects, self.bytes)?;
        let bytes: u64 = self.unneeded.iter().map(|it| it.bytes).sum();
        writeln!(f, "not needed   {} objects, {bytes} bytes", self.unneeded.len())?;
        for it in &self.unneeded {
            let why = match (it.named_by, it.since) {
                (Some(by), Some(since)) => {
                    format!("manifest {by} was the last to name it; waits since {since} ms")
                }
                (None, Some(since)) => format!("superseded; waits since {since} ms"),
                _ if it.object.starts_with(keys::BOUNDARIES) => {
                    "a higher boundary says more".to_owned()
                }
                _ if it.spared => "spared: a list that may have named it is lost".to_owned(),
                _ => "no manifest names it".to_owned(),
            };
            writeln!(f, "  {}: {} bytes, {why}", it.object, it.bytes)?;
        }
        writeln!(f, "a server deletes each that is not spared once it has waited for --gc-grace")?;
        writeln!(
            f,
            "what no manifest names may be on its way into the next one: only the server knows"
        )
    }
}

/// Says what could be deleted, now or once it has waited for the grace period.
///
/// # Errors
/// The bucket did not answer, or has no manifest.
pub async fn garbage(world: &World, bucket: Arc<dyn Objects>) -> Result<Garbage, RestoreError> {
    let bucket = Bucket::new(bucket, Arc::clone(&world.entropy));
    look(&bucket.patient).await
}

async fn look(bucket: &Retrying) -> Result<Garbage, RestoreError> {
    let newest = publish::newest(bucket).await?.ok_or(RestoreError::Empty)?;
    let kept = find::generations(bucket).await?;
    let mut names = Names { bucket, pages: BTreeMap::new() };
    let needed = names.of(&newest.manifest).await?;
    let mut later: BTreeMap<Key, (u64, WallMs)> = BTreeMap::new();
    let mut old = BTreeMap::new();
    let mut superseded = newest.manifest.created;
    for generation in kept.iter().filter(|it| **it < newest.manifest.generation) {
        let manifest = match publish::read(bucket, *generation).await {
            Ok(stored) => stored.manifest,
            // Collected since it was listed.
            Err(Problem::Bucket(weir_io::objects::ObjectError::NotFound)) => continue,
            Err(problem) => return Err(problem.into()),
        };
        old.insert(Artifact::Manifest(*generation).key(), superseded);
        for key in names.of(&manifest).await? {
            later.entry(key).or_insert((generation.get(), superseded));
        }
        superseded = manifest.created;
    }
    let mut garbage = Garbage {
        newest: newest.manifest.generation.get(),
        created: newest.manifest.created,
        oldest: kept.last().copied().unwrap_or_default().get(),
        manifests: u64::try_from(kept.len()).unwrap_or(u64::MAX),
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

/// Says which objects manifests name.
struct Names<'a> {
    bucket: &'a Retrying,
    pages: BTreeMap<(Digest, bool), Vec<Key>>,
}

impl Names<'_> {
    async fn of(
        &mut self,
        manifest: &crate::publish::manifest::Manifest,
    ) -> Result<BTreeSet<Key>, RestoreError> {
        let mut named = BTreeSet::new();
        for (listing, segments) in [(&manifest.segments, true), (&manifest.ledgers, false)] {
            for page in &listing.pages {
                named.insert(page.artifact().key());
                if !self.pages.contains_key(&(page.digest, segments)) {
                    let one = Listing { pages: vec![*page], rest: Vec::new() };
                    let mut findings = Vec::new();
                    let entries = find::resolve(self.bucket, &one, &mut findings).await?;
                    if let Some(finding) = findings.first() {
                        // What it names must not look as if nobody needed it.
                        return Err(RestoreError::Foreign(finding.to_string()));
                    }
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

fn key(entry: &crate::publish::listing::Entry, segment: bool) -> Key {
    if segment { entry.segment().key() } else { entry.ledger().key() }
}
