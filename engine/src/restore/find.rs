//! Which manifest to restore, and what it names.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use weir_io::{
    objects::{Key, LIST_MAX, ObjectError},
    retry::Retrying,
};

use super::{Moment, RestoreError, report::Finding};
use crate::{
    motion::publish::{self, Problem, Stored},
    publish::{
        invariants::{self, Proposal},
        keys::{self, Artifact, Generation},
        listing::{Entry, Listing, PAGE_BYTES, PageRef},
        manifest::Published,
    },
};

/// Pages fetched at a time.
const PAGES_AT_ONCE: usize = 8;

/// A manifest and everything it names.
pub(crate) struct Choice {
    /// The end of the chain: whose successor is claimed.
    pub(crate) newest: Stored,
    /// What is restored.
    pub(crate) chosen: Stored,
    /// In the order in which they are read.
    pub(crate) segments: Vec<Entry>,
    /// Oldest first.
    pub(crate) ledgers: Vec<Entry>,
    /// The generations that the bucket has, newest first.
    pub(crate) kept: Vec<Generation>,
    /// The oldest of them all of whose objects are sure to be kept.
    pub(crate) oldest: Generation,
    /// What is wrong with the manifest itself.
    pub(crate) findings: Vec<Finding>,
    /// Some ledgers are not even known.
    pub(crate) ledgers_are_known: bool,
}

/// Finds the manifest of a moment and reads its listings.
pub(crate) async fn find(bucket: &Retrying, at: Moment) -> Result<Choice, RestoreError> {
    let newest = publish::newest(bucket).await?.ok_or(RestoreError::Empty)?;
    let mut kept = generations(bucket).await?;
    let last = newest.manifest.generation;
    if kept.first() != Some(&last) {
        // A listing may lag behind.
        kept.retain(|it| *it < last);
        kept.insert(0, last);
    }
    let boundary = publish::boundary(bucket).await.map_err(Problem::from)?;
    let whole: Vec<Generation> = kept.iter().copied().filter(|it| *it >= boundary).collect();
    let chosen = match at {
        Moment::Newest => newest.clone(),
        Moment::Generation(wanted) if Generation::new(wanted) < boundary => {
            let what = format!(
                "manifest {wanted} was superseded more than a grace period ago, and what it names \
                 may be gone"
            );
            return Err(none(&whole, &what));
        }
        Moment::Generation(wanted) => {
            of_generation(bucket, &whole, Generation::new(wanted)).await?
        }
        Moment::Time(time) => {
            let found = newest_before(bucket, &whole, time).await?;
            found.ok_or_else(|| none(&whole, "no manifest that is whole was made that early"))?
        }
    };
    if chosen.manifest.store != newest.manifest.store {
        return Err(RestoreError::Foreign("manifests of two stores are in the bucket".into()));
    }
    let mut findings = Vec::new();
    let segments = resolve(bucket, &chosen.manifest.segments, &mut findings).await?;
    let before = findings.len();
    let ledgers = resolve(bucket, &chosen.manifest.ledgers, &mut findings).await?;
    let ledgers_are_known = findings.len() == before;
    findings.extend(broken_rules(&chosen, &segments, &ledgers));
    let oldest = whole.last().copied().unwrap_or(last);
    Ok(Choice { newest, chosen, segments, ledgers, kept, oldest, findings, ledgers_are_known })
}

/// Every object that a listing shows, with its size.
pub(crate) type Shown = BTreeMap<Key, u64>;

/// All objects below a prefix.
pub(crate) async fn list(bucket: &Retrying, prefix: &str) -> Result<Shown, RestoreError> {
    let mut shown = Shown::new();
    let mut after: Option<Key> = None;
    loop {
        let page = bucket.list(prefix, after.as_ref(), LIST_MAX).await.map_err(Problem::from)?;
        let whole = page.len() < LIST_MAX;
        after = page.last().map(|meta| meta.key.clone());
        shown.extend(page.into_iter().map(|meta| (meta.key, meta.size)));
        if whole {
            return Ok(shown);
        }
    }
}

/// The generations that a listing shows, newest first.
pub(crate) async fn generations(bucket: &Retrying) -> Result<Vec<Generation>, RestoreError> {
    let shown = list(bucket, keys::MANIFESTS).await?;
    let generations = shown.keys().filter_map(|key| match Artifact::parse(key) {
        Some(Artifact::Manifest(generation)) => Some(generation),
        _ => None,
    });
    Ok(generations.collect())
}

async fn of_generation(
    bucket: &Retrying,
    kept: &[Generation],
    wanted: Generation,
) -> Result<Stored, RestoreError> {
    match publish::read(bucket, wanted).await {
        Err(Problem::Bucket(ObjectError::NotFound)) => {
            Err(none(kept, &format!("manifest {wanted} is not in the bucket")))
        }
        read => Ok(read?),
    }
}

fn none(kept: &[Generation], what: &str) -> RestoreError {
    let (newest, oldest) = (kept.first().copied(), kept.last().copied());
    let (newest, oldest) = (newest.unwrap_or_default(), oldest.unwrap_or_default());
    RestoreError::NoSuchMoment(format!("{what}: it has {oldest} to {newest}"))
}

/// The newest manifest that was made at or before `time`, by halving: clocks that were set back
/// may cost precision.
async fn newest_before(
    bucket: &Retrying,
    kept: &[Generation],
    time: crate::types::WallMs,
) -> Result<Option<Stored>, RestoreError> {
    // Those in `..late` are younger, those from `early` on are not.
    let (mut late, mut early) = (0, kept.len());
    let mut found = None;
    while late < early {
        let middle = late.midpoint(early);
        let stored = publish::read(bucket, kept[middle]).await?;
        if stored.manifest.created <= time {
            early = middle;
            found = Some(stored);
        } else {
            late = middle + 1;
        }
    }
    Ok(found)
}

/// All entries of a listing, but those of pages that can't be read.
pub(crate) async fn resolve(
    bucket: &Retrying,
    listing: &Listing,
    findings: &mut Vec<Finding>,
) -> Result<Vec<Entry>, RestoreError> {
    let pages = stream::iter(&listing.pages).map(|page| fetch_page(bucket, page));
    let pages: Vec<Result<Vec<Entry>, Finding>> =
        pages.buffered(PAGES_AT_ONCE).try_collect().await?;
    let mut entries = Vec::new();
    for page in pages {
        match page {
            Ok(some) => entries.extend(some),
            Err(finding) => findings.push(finding),
        }
    }
    entries.extend_from_slice(&listing.rest);
    Ok(entries)
}

/// The entries of a page, or what is wrong with it.
async fn fetch_page(
    bucket: &Retrying,
    page: &PageRef,
) -> Result<Result<Vec<Entry>, Finding>, RestoreError> {
    let key = page.artifact().key();
    let lost = |text: String| {
        let text = format!("{text}; the {} files that it lists are lost", page.entries);
        Ok(Err(Finding::new("page", &key, text)))
    };
    let mut wrong = String::new();
    // What was spoiled on its way is asked for again.
    for _ in 0..super::fetch::TRIES_MAX {
        let limit = u64::try_from(PAGE_BYTES).expect("a small constant");
        let bytes: Bytes = match bucket.get(&key, limit).await {
            Ok(bytes) => bytes,
            Err(ObjectError::NotFound) => return lost("it is not in the bucket".into()),
            Err(ObjectError::Refused(reason)) => return lost(reason),
            Err(error) => return Err(Problem::from(error).into()),
        };
        match page.open(&bytes) {
            Ok(entries) => return Ok(Ok(entries)),
            Err(bad) => wrong = bad.to_string(),
        }
    }
    lost(wrong)
}

/// The rules that a manifest breaks, as far as it tells by itself.
fn broken_rules(stored: &Stored, segments: &[Entry], ledgers: &[Entry]) -> Vec<Finding> {
    let manifest = &stored.manifest;
    let generation = Generation::new(manifest.generation.get().saturating_sub(1));
    // A predecessor that says the same: what only a comparison could tell is not asked here.
    let before = Published { generation, ..Published::new(manifest, manifest.before) };
    let proposal = Proposal {
        manifest,
        segments,
        ledgers,
        bytes: stored.bytes.len(),
        is_uploaded: &|_, _| true,
    };
    let key = manifest.artifact().key();
    let broken = invariants::violations(&proposal, Some(&before));
    broken.map(|it| Finding::new("manifest", &key, it.to_string())).collect()
}
