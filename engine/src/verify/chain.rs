//! The bucket: manifests that link to each other without a gap, rules that each keeps, objects
//! that are there.
//!
//! A server may collect meanwhile. It raises the boundary before it deletes a manifest, and that
//! before what only such manifests name: so what is missing is looked for behind the boundary
//! before it is a finding.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use weir_io::{objects::Key, retry::Retrying};

use super::{Depth, Findings, VerifyError, damage};
use crate::{
    motion::publish::{self, Problem, Stored},
    publish::{
        invariants::{self, Proposal},
        keys::{self, Artifact, Digest, Generation},
        listing::{Entry, Listing, PageRef, Presence},
        manifest::Published,
    },
    restore::{
        RestoreError,
        fetch::{is_the_ledger, is_the_segment},
        find,
        find::Shown,
        object::{Bad, measure},
        search::{Readable, newest_readable},
        window,
    },
};

/// Objects looked at together.
const OBJECTS_AT_ONCE: usize = 16;

/// The newest manifest that can be read, and what it names.
pub(super) struct Remote {
    /// The generation of the last manifest, readable or not.
    pub(super) end: Generation,
    pub(super) newest: Stored,
    pub(super) segments: Vec<Entry>,
    pub(super) ledgers: Vec<Entry>,
}

/// Looks at the chain from its end, or from the newest manifest that can be read. `None`: there is none.
pub(super) async fn look(
    bucket: &Retrying,
    depth: Depth,
    found: &mut Findings,
) -> Result<Option<Remote>, VerifyError> {
    let Some((end, newest)) = newest(bucket, found).await? else { return Ok(None) };
    let mut walk = Walk { bucket, found, pages: BTreeMap::new(), shown: Shown::new() };
    for prefix in [keys::SEGMENTS, keys::LEDGERS, keys::PAGES] {
        walk.shown.append(&mut find::list(bucket, prefix).await?);
    }
    let (segments, ledgers) = walk.chain(&newest).await?;
    let remote = Remote { end, newest, segments, ledgers };
    if depth != Depth::Deep {
        marks(bucket, &remote, found).await?;
    }
    Ok(Some(remote))
}

/// The generation of the last manifest, and the newest that can be read. Those after that are findings.
async fn newest(
    bucket: &Retrying,
    found: &mut Findings,
) -> Result<Option<(Generation, Stored)>, VerifyError> {
    let Readable { end, newest, spoiled } = match newest_readable(bucket).await {
        Ok(Some(readable)) => readable,
        Ok(None) => return Ok(None),
        Err(RestoreError::Foreign(text)) => {
            found.add("manifest", "newest", text);
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let instead = match &newest {
        Some(newest) => format!("what follows is said of manifest {}", newest.manifest.generation),
        None => "nor can an older one be read".to_owned(),
    };
    for (generation, what) in spoiled {
        let key = Artifact::Manifest(generation).key();
        found.add("manifest", key, format!("it {what}; {instead}"));
    }
    Ok(newest.map(|newest| (end, newest)))
}

struct Walk<'a> {
    bucket: &'a Retrying,
    found: &'a mut Findings,
    /// Entries of the pages that were met; `None`: a page that can't be read.
    pages: BTreeMap<Digest, Option<Vec<Entry>>>,
    shown: Shown,
}

impl Walk<'_> {
    /// Follows the chain down to where it may end. Returns what the newest names.
    async fn chain(&mut self, newest: &Stored) -> Result<(Vec<Entry>, Vec<Entry>), VerifyError> {
        let kept: BTreeSet<Generation> =
            find::generations(self.bucket).await?.into_iter().collect();
        let boundary = boundary(self.bucket).await?;
        let lowest = kept.first().copied().unwrap_or_default().max(boundary);
        let mut missing: BTreeSet<Key> = BTreeSet::new();
        let mut named = None;
        let mut at = Some(newest.clone());
        while let Some(stored) = at {
            self.found.checked.manifests += 1;
            let manifest = &stored.manifest;
            let segments = self.resolve(&manifest.segments).await?;
            let ledgers = self.resolve(&manifest.ledgers).await?;
            let before = match manifest.generation.get().checked_sub(1).map(Generation::new) {
                Some(before) if before >= lowest && before != Generation::NONE => {
                    self.manifest(before).await?
                }
                _ => None,
            };
            self.rules(&stored, before.as_ref(), &segments, &ledgers);
            let entries = segments.iter().map(|it| (it, it.segment()));
            let entries = entries.chain(ledgers.iter().map(|it| (it, it.ledger())));
            for (entry, artifact) in entries {
                let key = artifact.key();
                let there = self.shown.get(&key) == Some(&entry.bytes);
                let hole = entry.presence == Presence::Hole;
                if there || hole || !missing.insert(key.clone()) {
                    continue;
                }
                // A listing may lag behind.
                if let Err(bad) = measure(self.bucket, &key, entry.bytes).await
                    && is_kept(self.bucket, manifest.generation).await?
                {
                    let text =
                        format!("{}; manifest {} names it", damage(bad)?, manifest.generation);
                    self.found.add("object", &key, text);
                }
            }
            named.get_or_insert((segments, ledgers));
            at = before;
        }
        let (segments, ledgers) = named.unwrap_or_default();
        for hole in segments.iter().filter(|it| it.presence == Presence::Hole) {
            let text = "it was damaged before it was uploaded: what it held is lost";
            self.found.add("hole", hole.segment().key(), text);
        }
        self.found.checked.objects += u64::try_from(segments.len() + ledgers.len()).unwrap_or(0);
        Ok((segments, ledgers))
    }

    async fn manifest(&mut self, generation: Generation) -> Result<Option<Stored>, VerifyError> {
        let key = Artifact::Manifest(generation).key();
        let what = match publish::read(self.bucket, generation).await {
            Ok(stored) => return Ok(Some(stored)),
            Err(Problem::Foreign(what) | Problem::Unreadable(what)) => what,
            Err(Problem::Bucket(weir_io::objects::ObjectError::NotFound)) => {
                "it is missing, though later ones follow".to_owned()
            }
            Err(problem) => return Err(problem.into()),
        };
        if is_kept(self.bucket, generation).await? {
            self.found.add("chain", &key, what);
        } else {
            weir_io::sometimes!("a manifest was collected while the chain was verified");
        }
        Ok(None)
    }

    async fn resolve(&mut self, listing: &Listing) -> Result<Vec<Entry>, VerifyError> {
        let mut entries = Vec::new();
        for page in &listing.pages {
            entries.extend_from_slice(self.page(page).await?.unwrap_or_default());
        }
        entries.extend_from_slice(&listing.rest);
        Ok(entries)
    }

    async fn page(&mut self, page: &PageRef) -> Result<Option<&[Entry]>, VerifyError> {
        if !self.pages.contains_key(&page.digest) {
            let one = Listing { pages: vec![*page], rest: Vec::new() };
            let mut findings = Vec::new();
            let entries = find::resolve(self.bucket, &one, &mut findings).await?;
            let read = findings.is_empty();
            self.found.findings.extend(findings);
            self.pages.insert(page.digest, read.then_some(entries));
        }
        Ok(self.pages[&page.digest].as_deref())
    }

    /// Asks the rules, and whether the manifest names the one before.
    fn rules(
        &mut self,
        stored: &Stored,
        before: Option<&Stored>,
        segments: &[Entry],
        ledgers: &[Entry],
    ) {
        let manifest = &stored.manifest;
        let generation = Generation::new(manifest.generation.get().saturating_sub(1));
        // One that is gone is taken to have said the same.
        let like = Published { generation, ..Published::new(manifest, manifest.before) };
        let summary = before.map_or(like, Stored::summary);
        let first = generation == Generation::NONE;
        let proposal = Proposal {
            manifest,
            segments,
            ledgers,
            bytes: stored.bytes.len(),
            is_uploaded: &|_, _| true,
        };
        let key = manifest.artifact().key();
        for broken in invariants::violations(&proposal, (!first).then_some(&summary)) {
            self.found.add("rule", &key, format!("'{}': {}", broken.rule, broken.text));
        }
    }
}

/// The generation below which manifests may be gone.
async fn boundary(bucket: &Retrying) -> Result<Generation, VerifyError> {
    let listed = bucket.list(keys::BOUNDARIES, None, 1).await.map_err(Problem::from)?;
    Ok(match listed.first().and_then(|meta| Artifact::parse(&meta.key)) {
        Some(Artifact::Boundary(boundary)) => boundary,
        _ => Generation::NONE,
    })
}

/// Whether a manifest and what it names must still be there.
pub(super) async fn is_kept(
    bucket: &Retrying,
    generation: Generation,
) -> Result<bool, VerifyError> {
    Ok(boundary(bucket).await? <= generation)
}

/// Looks at the ends of objects: are they what was published?
async fn marks(
    bucket: &Retrying,
    remote: &Remote,
    found: &mut Findings,
) -> Result<(), VerifyError> {
    let store = remote.newest.manifest.store;
    let stored = |entry: &&Entry| entry.presence == Presence::Stored;
    let segments = stream::iter(remote.segments.iter().filter(stored)).map(|entry| async move {
        let key = entry.segment().key();
        let opened = window::open(bucket, &key, entry.bytes).await;
        (key, opened.and_then(|it| is_the_segment(&it, store, entry)))
    });
    let ledgers = stream::iter(remote.ledgers.iter().filter(stored)).map(|entry| async move {
        let key = entry.ledger().key();
        let opened = window::open_ledger(bucket, &key, entry.bytes).await;
        (key, opened.and_then(|(it, _)| is_the_ledger(&it, store, entry)))
    });
    let mut results: Vec<(Key, Result<(), Bad>)> =
        segments.buffered(OBJECTS_AT_ONCE).collect().await;
    results.extend(ledgers.buffered(OBJECTS_AT_ONCE).collect::<Vec<_>>().await);
    for (key, result) in results {
        match result {
            // That it is missing was found before.
            Ok(()) | Err(Bad::Missing) => {}
            Err(bad) => found.add("mark", &key, damage(bad)?),
        }
    }
    Ok(())
}
