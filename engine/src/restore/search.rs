//! Which manifest of a chain is meant. Those that can't be read are stepped over and named: one
//! that may have been meant is a loss, of any other it is good to know.
//!
//! ```text
//! generation   1   2   3   4   5   6
//! readable     ×   ×   ×       ×        the end of the chain is 6, the newest is 5
//! ```
//! What is claimed is the slot after the end. Whoever wrote there may have recovered before, once
//! for each manifest that can't be read, so eras are counted on from there (INV-42).

use std::{collections::BTreeMap, ops::RangeInclusive};

use weir_io::{objects::ObjectError, retry::Retrying};

use super::{Moment, RestoreError, find, report::Finding};
use crate::{
    motion::publish::{self, Problem, Spoiled, Stored},
    publish::keys::{Artifact, Digest, Generation},
    types::WallMs,
};

/// A manifest that has nothing to do with what is restored can't be read.
pub(super) const CHAIN: &str = "chain";
/// The manifest that was meant can't be read.
const MANIFEST: &str = "manifest";

/// The end of a chain, readable or not: whose successor is claimed.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) generation: Generation,
    /// Of the bytes that are there.
    pub(crate) digest: Digest,
    /// How many bootstraps the chain has seen: so many at least, so many at most.
    pub(crate) recoveries: RangeInclusive<u32>,
}

/// What was found of a chain.
pub(super) struct Searched {
    pub(super) end: End,
    /// The newest manifest that can be read.
    pub(super) newest: Stored,
    /// The one that is meant, or the next older one that can be read.
    pub(super) chosen: Stored,
    /// What was stepped over.
    pub(super) findings: Vec<Finding>,
    /// The generations that the bucket has, newest first.
    pub(super) kept: Vec<Generation>,
    /// The oldest of them all of whose objects are sure to be kept.
    pub(super) oldest: Generation,
}

impl Searched {
    /// Whether the one that is meant can't be read.
    pub(super) fn is_another(&self) -> bool {
        self.findings.iter().any(|it| it.rule == MANIFEST)
    }
}

/// The newest manifest of a chain that can be read, and those after it.
pub(crate) struct Readable {
    /// The generation of the last one, readable or not.
    pub(crate) end: Generation,
    /// None is there that can be read and whose objects are sure to be kept.
    pub(crate) newest: Option<Stored>,
    /// What is wrong with each that was stepped over, newest first.
    pub(crate) spoiled: Vec<(Generation, String)>,
}

/// Finds the newest manifest that can be read. `None`: there is no manifest.
pub(crate) async fn newest_readable(bucket: &Retrying) -> Result<Option<Readable>, RestoreError> {
    let Some(end) = publish::newest_slot(bucket).await? else { return Ok(None) };
    let mut slots = Slots { bucket, spoiled: BTreeMap::new() };
    let mut newest = slots.read(end).await?;
    if newest.is_none() {
        let boundary = publish::boundary(bucket).await.map_err(Problem::from)?;
        let mut kept = find::generations(bucket).await?;
        kept.retain(|it| (boundary..end).contains(it));
        newest = slots.first(&kept).await?;
    }
    let spoiled = slots.spoiled.into_iter().rev().collect();
    Ok(Some(Readable { end, newest, spoiled }))
}

/// Finds the manifest of a moment.
pub(super) async fn search(bucket: &Retrying, at: Moment) -> Result<Searched, RestoreError> {
    let last = publish::newest_slot(bucket).await?.ok_or(RestoreError::Empty)?;
    let mut slots = Slots { bucket, spoiled: BTreeMap::new() };
    let slot = publish::read_slot(bucket, last).await?;
    let mut kept = find::generations(bucket).await?;
    if kept.first() != Some(&last) {
        // A listing may lag behind.
        kept.retain(|it| *it < last);
        kept.insert(0, last);
    }
    let boundary = publish::boundary(bucket).await.map_err(Problem::from)?;
    let whole: Vec<Generation> = kept.iter().copied().filter(|it| *it >= boundary).collect();
    let (newest, digest) = match slot {
        Ok(newest) => (newest.clone(), newest.digest),
        Err(Spoiled { what, digest }) => {
            slots.spoiled.insert(last, format!("is damaged: {what}"));
            let found = slots.first(&whole).await?;
            let none = || none(&whole, "no manifest that is whole can be read");
            (found.ok_or_else(none)?, digest)
        }
    };
    let chosen = match at {
        Moment::Newest => newest.clone(),
        Moment::Generation(wanted) if Generation::new(wanted) < boundary => {
            let what = format!(
                "manifest {wanted} was superseded more than a grace period ago, and what it names \
                 may be gone"
            );
            return Err(none(&whole, &what));
        }
        Moment::Generation(wanted) => slots.one(&whole, Generation::new(wanted)).await?,
        Moment::Time(time) => {
            let found = slots.newest_before(&whole, time).await?;
            found.ok_or_else(|| none(&whole, "no manifest that is whole was made that early"))?
        }
    };
    let findings = slots.findings(at, &whole, chosen.manifest.generation);
    let end = End { generation: last, digest, recoveries: recoveries(&newest, last) };
    let oldest = whole.last().copied().unwrap_or(last);
    Ok(Searched { end, newest, chosen, findings, kept, oldest })
}

/// How many bootstraps a chain may have seen that ends with `last`: each manifest after the newest
/// that can be read may be the claim of one, and who stepped over some counted these too.
fn recoveries(newest: &Stored, last: Generation) -> RangeInclusive<u32> {
    let (least, at) = (newest.manifest.recoveries, newest.manifest.generation);
    let unread = u32::try_from(last.get().saturating_sub(at.get())).unwrap_or(u32::MAX);
    least..=least.saturating_add(unread)
}

fn none(kept: &[Generation], what: &str) -> RestoreError {
    let (newest, oldest) = (kept.first().copied(), kept.last().copied());
    let (newest, oldest) = (newest.unwrap_or_default(), oldest.unwrap_or_default());
    RestoreError::NoSuchMoment(format!("{what}: it has {oldest} to {newest}"))
}

/// Reads manifests, and remembers those that can't be read.
struct Slots<'a> {
    bucket: &'a Retrying,
    /// What is wrong with each.
    spoiled: BTreeMap<Generation, String>,
}

impl Slots<'_> {
    async fn read(&mut self, generation: Generation) -> Result<Option<Stored>, RestoreError> {
        if self.spoiled.contains_key(&generation) {
            return Ok(None);
        }
        let what = match publish::read_slot(self.bucket, generation).await {
            Ok(Ok(stored)) => return Ok(Some(stored)),
            Ok(Err(Spoiled { what, .. })) => format!("is damaged: {what}"),
            Err(Problem::Bucket(ObjectError::NotFound)) => "is not in the bucket".to_owned(),
            Err(problem) => return Err(problem.into()),
        };
        self.spoiled.insert(generation, what);
        Ok(None)
    }

    /// The first that can be read.
    async fn first(&mut self, of: &[Generation]) -> Result<Option<Stored>, RestoreError> {
        for generation in of {
            if let Some(found) = self.read(*generation).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn one(
        &mut self,
        kept: &[Generation],
        wanted: Generation,
    ) -> Result<Stored, RestoreError> {
        if let Some(found) = self.read(wanted).await? {
            return Ok(found);
        }
        Err(none(kept, &format!("manifest {wanted} {}", self.spoiled[&wanted])))
    }

    /// The newest manifest that was made at or before `time`, by halving: clocks that were set back
    /// may cost precision.
    async fn newest_before(
        &mut self,
        kept: &[Generation],
        time: WallMs,
    ) -> Result<Option<Stored>, RestoreError> {
        // Those in `..late` are younger, those from `early` on are not, or can't be read.
        let (mut late, mut early) = (0, kept.len());
        let mut found = None;
        while late < early {
            let middle = late.midpoint(early);
            // If that can't be read, the next older one tells.
            let mut told = None;
            for (at, generation) in kept.iter().enumerate().take(early).skip(middle) {
                if let Some(stored) = self.read(*generation).await? {
                    told = Some((at, stored));
                    break;
                }
            }
            match told {
                Some((at, stored)) if stored.manifest.created > time => late = at + 1,
                Some((_, stored)) => (early, found) = (middle, Some(stored)),
                None => early = middle,
            }
        }
        Ok(found)
    }

    /// Names what was stepped over. Those between the chosen one and the next younger one that can be
    /// read may have been meant.
    fn findings(&self, at: Moment, kept: &[Generation], chosen: Generation) -> Vec<Finding> {
        let younger = kept.iter().rev().skip_while(|it| **it <= chosen);
        let next = younger.copied().find(|it| !self.spoiled.contains_key(it));
        let is_meant = |it: Generation| {
            !matches!(at, Moment::Generation(_)) && it > chosen && next.is_none_or(|next| it < next)
        };
        let spoiled = self.spoiled.iter().rev();
        let finding = spoiled.map(|(generation, what)| {
            let key = Artifact::Manifest(*generation).key();
            match is_meant(*generation) {
                true => {
                    let text = format!("it {what}; all that came after manifest {chosen} is lost");
                    Finding::new(MANIFEST, key, text)
                }
                false => Finding::new(CHAIN, key, format!("it {what}; nothing needs it here")),
            }
        });
        finding.collect()
    }
}
