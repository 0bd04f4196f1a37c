//! Comparing a store with its bucket: whose manifest is the newest there?
//!
//! | the store's last | newest in the bucket | then |
//! |---|---|---|
//! | none | none | a new store, a new bucket |
//! | G | G, the same bytes | go on |
//! | G | G, and its bytes there are damaged | go on: the slot was ours; the next one follows soon |
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
    publish::{
        keys::{self, Artifact, Digest, Generation},
        manifest::Manifest,
    },
    types::SegmentId,
};

/// Manifests asked for beyond the newest listed one: a listing may lag behind.
const PROBES_MAX: u32 = 10_000;
/// Times a manifest is read again that is none: it may have been damaged on its way.
const READS_MAX: u32 = 4;

/// The generation of the newest manifest in a bucket, readable or not.
pub(crate) async fn newest_slot(bucket: &Retrying) -> Result<Option<Generation>, Problem> {
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
    Ok(Some(newest).filter(|it| *it != Generation::NONE))
}

/// Bytes in the slot of a manifest that are none.
#[derive(Clone, Debug)]
pub(crate) struct Spoiled {
    /// What is wrong with them.
    pub(crate) what: String,
    /// Their digest; none if there are more than a manifest may have.
    pub(crate) digest: Digest,
}

/// Reads one manifest.
pub(crate) async fn read(bucket: &Retrying, generation: Generation) -> Result<Stored, Problem> {
    let slot = read_slot(bucket, generation).await?;
    slot.map_err(|Spoiled { what, .. }| {
        Problem::Unreadable(format!("'{}': {what}", Artifact::Manifest(generation).key()))
    })
}

/// Reads one manifest, or says what is there instead.
pub(crate) async fn read_slot(
    bucket: &Retrying,
    generation: Generation,
) -> Result<Result<Stored, Spoiled>, Problem> {
    let limit = u64::try_from(MANIFEST_BYTES_MAX).expect("a small constant");
    let key = Artifact::Manifest(generation).key();
    let mut reads = 0;
    let stored = loop {
        let bytes = match bucket.get(&key, limit).await {
            Ok(bytes) => bytes,
            Err(ObjectError::Refused(reason)) => {
                // Only of one that is too long it is the object's fault.
                let size = bucket.head(&key).await?.map(|meta| meta.size);
                return match size.filter(|size| *size > limit) {
                    Some(_) => Ok(Err(Spoiled { what: reason, digest: Digest::NONE })),
                    None => Err(ObjectError::Refused(reason).into()),
                };
            }
            Err(error) => return Err(error.into()),
        };
        match Stored::read(bytes.clone()) {
            Ok(stored) => break stored,
            Err(bad) if reads == READS_MAX => {
                if Manifest::is_whole(&bytes) {
                    let text = format!("'{key}' is as it was written, and yet: {bad}");
                    return Err(Problem::Foreign(text));
                }
                return Ok(Err(Spoiled { what: bad.to_string(), digest: Digest::of(&bytes) }));
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
    Ok(Ok(stored))
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
    let mut is_spoiled = false;
    let found = match newest_slot(bucket).await? {
        None => None,
        Some(generation) => Some(match read_slot(bucket, generation).await? {
            Ok(found) => found,
            Err(Spoiled { what, .. }) => {
                let noted = published.as_ref();
                let mine = noted.filter(|mine| mine.manifest.generation == generation).cloned();
                let key = Artifact::Manifest(generation).key();
                let mine = mine.ok_or_else(|| Problem::Unreadable(format!("'{key}': {what}")))?;
                // A slot is taken once: whatever is there now was this manifest.
                tracing::warn!(
                    %key, %what,
                    "the newest manifest is damaged in the bucket: this store has noted what it \
                     said and publishes another one"
                );
                is_spoiled = true;
                mine
            }
        }),
    };
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
        is_spoiled,
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

/// The first segment or ledger that is collected if nobody names it; `None`: the first of all.
pub(crate) async fn spared(bucket: &Retrying) -> Result<Option<SegmentId>, ObjectError> {
    let listed = bucket.list(keys::SPARED, None, 1).await?;
    Ok(match listed.first().and_then(|meta| Artifact::parse(&meta.key)) {
        Some(Artifact::Spared(limit)) => Some(limit),
        _ => None,
    })
}
