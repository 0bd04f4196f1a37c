//! Comparing a store with its bucket: whose manifest is the newest there?
//!
//! | the store's last | newest in the bucket | then |
//! |---|---|---|
//! | none | none | a new store, a new bucket |
//! | G | G, the same bytes | go on |
//! | G, or none | what this store was about to publish | the answer was lost: it is published |
//! | anything else | | another process writes there, or it is the wrong bucket |

use weir_io::{objects::ObjectError, retry::Retrying};

use super::{
    Problem,
    chain::{self, Attached, Contact, Stored},
};
use crate::{
    core::Core,
    limits::MANIFEST_BYTES_MAX,
    publish::keys::{self, Artifact, Generation},
};

/// Manifests asked for beyond the newest listed one: a listing may lag behind.
const PROBES_MAX: u32 = 10_000;
/// Times a manifest is read again that is none: it may have been damaged on its way.
const READS_MAX: u32 = 4;

/// Reads the newest manifest in a bucket, if there is one.
pub(crate) async fn newest(bucket: &Retrying) -> Result<Option<Stored>, Problem> {
    let listed = bucket.list(keys::MANIFESTS, None, 1).await?;
    let mut newest = match listed.first() {
        None => Generation::NONE,
        Some(meta) => match Artifact::parse(&meta.key) {
            Some(Artifact::Manifest(generation)) => generation,
            _ => return Err(Problem::Foreign(format!("'{}' is no manifest", meta.key))),
        },
    };
    for _ in 0..PROBES_MAX {
        let next = newest.next();
        if bucket.head(&Artifact::Manifest(next).key()).await?.is_none() {
            break;
        }
        weir_io::sometimes!("a listing lagged behind the newest manifest");
        newest = next;
    }
    if newest == Generation::NONE {
        return Ok(None);
    }
    read(bucket, newest).await.map(Some)
}

/// Reads one manifest.
pub(crate) async fn read(bucket: &Retrying, generation: Generation) -> Result<Stored, Problem> {
    let limit = u64::try_from(MANIFEST_BYTES_MAX).expect("a small constant");
    let key = Artifact::Manifest(generation).key();
    let mut reads = 0;
    let stored = loop {
        match Stored::read(bucket.get(&key, limit).await?) {
            Ok(stored) => break stored,
            Err(bad) if reads == READS_MAX => {
                return Err(Problem::Unreadable(format!("'{key}': {bad}")));
            }
            Err(bad) => {
                weir_io::sometimes!("a manifest that arrived damaged was read again");
                tracing::debug!(%key, %bad, "a manifest arrived damaged and is read again");
                reads += 1;
            }
        }
    };
    let named = stored.manifest.generation;
    if named != generation {
        return Err(Problem::Foreign(format!("'{key}' says that it is manifest {named}")));
    }
    Ok(stored)
}

/// Compares the store with its bucket.
pub(super) async fn attach(
    core: &std::sync::Arc<Core>,
    bucket: &Retrying,
) -> Result<Attached, Problem> {
    let known = core.on_reader(|conn| Ok((chain::published(conn)?, chain::pending(conn)?)));
    let (published, pending) = known.await.map_err(|bad| Problem::Local(bad.to_string()))?;
    // What it finds is known as of now, whenever the answers are looked at.
    let contact = Contact::now(core);
    let found = newest(bucket).await?;
    let last = match (published, found) {
        (None, None) => None,
        (Some(mine), Some(found)) if mine.bytes == found.bytes => Some(found),
        (mine, Some(found)) if pending.as_ref().is_some_and(|it| it.bytes == found.bytes) => {
            weir_io::sometimes!("a manifest whose answer was lost was found at the next start");
            let before = mine.map_or(Generation::NONE, |mine| mine.manifest.generation);
            tracing::info!(
                generation = %found.manifest.generation, %before,
                "the manifest that was under way when the process ended is in the bucket"
            );
            super::note(core, &found).await?;
            Some(found)
        }
        (Some(mine), None) => {
            return Err(Problem::Fenced(format!(
                "the bucket lacks manifest {}, which this store published: it is another bucket \
                 or prefix, or it was emptied",
                mine.manifest.generation
            )));
        }
        (mine, Some(found)) => return Err(Problem::Fenced(foreign(core, mine.as_ref(), &found))),
    };
    let next = last.as_ref().map_or(Generation::NONE, |it: &Stored| it.manifest.generation).next();
    Ok(Attached {
        last,
        unresolved: pending.filter(|pending| pending.manifest.generation == next),
        version: None,
        contact,
        unsure: None,
    })
}

fn foreign(core: &Core, mine: Option<&Stored>, found: &Stored) -> String {
    let generation = found.manifest.generation;
    if found.manifest.store != core.store {
        return format!(
            "the bucket belongs to another store (its newest manifest is {generation}): give this \
             one a bucket or prefix of its own, or recover from it with --bootstrap"
        );
    }
    let last = mine.map_or(Generation::NONE, |mine| mine.manifest.generation);
    format!(
        "another process has published manifest {generation} of this store, whose own last is \
         {last}: what it holds beyond that is not in the bucket"
    )
}

/// Asks whether manifests of `generation` are still kept.
pub(super) async fn is_kept(
    bucket: &Retrying,
    generation: Generation,
) -> Result<bool, ObjectError> {
    Ok(generation >= boundary(bucket).await?)
}

/// The first generation whose manifest, and what it names, is sure not to be collected yet.
pub(crate) async fn boundary(bucket: &Retrying) -> Result<Generation, ObjectError> {
    let listed = bucket.list(keys::BOUNDARIES, None, 1).await?;
    Ok(match listed.first().and_then(|meta| Artifact::parse(&meta.key)) {
        Some(Artifact::Boundary(boundary)) => boundary,
        _ => Generation::NONE,
    })
}
