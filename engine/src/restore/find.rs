//! What the manifest names that is to be restored.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use weir_io::{
    objects::{Key, LIST_MAX, ObjectError},
    retry::Retrying,
};

use super::{
    Moment, RestoreError,
    object::{Bad, TRIES_MAX, measure},
    report::Finding,
    search::{End, Searched, search},
};
use crate::{
    motion::publish::{Problem, Stored},
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
    pub(crate) end: End,
    /// The newest manifest that can be read.
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
    /// What is wrong with the manifest itself, and with those that were stepped over.
    pub(crate) findings: Vec<Finding>,
    /// Some ledgers are not even known.
    pub(crate) ledgers_are_known: bool,
    /// Objects that were published are in no list that can be read.
    pub(crate) lists_are_lost: bool,
}

/// Finds the manifest of a moment and reads its listings.
pub(crate) async fn find(bucket: &Retrying, at: Moment) -> Result<Choice, RestoreError> {
    let searched = search(bucket, at).await?;
    let another = searched.is_another();
    let Searched { end, newest, chosen, mut findings, kept, oldest } = searched;
    if chosen.manifest.store != newest.manifest.store {
        return Err(RestoreError::Foreign("manifests of two stores are in the bucket".into()));
    }
    let stepped_over = findings.len();
    let segments = resolve(bucket, &chosen.manifest.segments, &mut findings).await?;
    let before = findings.len();
    let ledgers = resolve(bucket, &chosen.manifest.ledgers, &mut findings).await?;
    let ledgers_are_known = findings.len() == before;
    let lists_are_lost = another || findings.len() > stepped_over;
    findings.extend(broken_rules(&chosen, &segments, &ledgers));
    Ok(Choice {
        end,
        newest,
        chosen,
        segments,
        ledgers,
        kept,
        oldest,
        findings,
        ledgers_are_known,
        lists_are_lost,
    })
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
    for _ in 0..TRIES_MAX {
        let limit = u64::try_from(PAGE_BYTES).expect("a small constant");
        let bytes: Bytes = match bucket.get(&key, limit).await {
            Ok(bytes) => bytes,
            Err(ObjectError::NotFound) => return lost("it is not in the bucket".into()),
            Err(ObjectError::Refused(reason)) => {
                // Of one that is as long as it should be it is not the object that is to blame.
                return match measure(bucket, &key, page.bytes.into()).await {
                    Ok(()) => Err(Problem::from(ObjectError::Refused(reason)).into()),
                    Err(Bad::Unknown(error)) => Err(error),
                    Err(bad) => lost(bad.to_string()),
                };
            }
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
