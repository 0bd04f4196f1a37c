//! Publish: what a fold or a merge changed becomes objects, then one new manifest names them.
//!
//! ```text
//! picture ─▶ upload files ─▶ pages ─▶ rules ─▶ note ─▶ create manifest ─▶ note ─▶ garbage
//! ```
//! The manifest's generation is a slot that only one writer can take: who finds it taken by
//! another stops for good. Every step may be repeated; nothing that the newest manifest needs is
//! ever changed or removed. A store at rest asks the bucket nothing.

mod attach;
pub(crate) mod chain;
mod draw;
mod sweep;
mod upload;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use weir_io::{
    objects::ObjectError,
    retry::{Outcome, Retrying},
};

pub(crate) use self::{
    attach::{Spoiled, boundary, newest_slot, read, read_slot, spared},
    chain::{Chain, Stored},
    upload::{ledger_key, segment_key, segment_object},
};
use self::{
    chain::{Attached, Contact},
    draw::{draw, ledger_entry, presence, segment_entry, shows_the_same},
};
use crate::{
    core::Core,
    limits::GC_GRACE_MIN,
    publish::{
        invariants::{self, Proposal},
        keys::{Digest, Generation},
        listing::{Entry, Presence},
        manifest::Manifest,
    },
    state::{
        catalogue::{self, Place},
        files::{Held, Picture},
    },
    types::{SegmentId, StoreMs},
};

/// Pause after a try that failed; it doubles with each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// Longer than any process runs.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Why something is not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The bucket refused or did not answer.
    #[error("the bucket: {0}")]
    Bucket(#[from] ObjectError),
    /// This store's own disk.
    #[error("{0}")]
    Local(String),
    /// The files changed meanwhile: there is a newer picture.
    #[error("the files changed meanwhile")]
    Changed,
    /// The bucket holds what no process of ours would put there.
    #[error("the bucket holds something foreign: {0}")]
    Foreign(String),
    /// A manifest's bytes are none: damaged there, or each time on their way.
    #[error("a manifest in the bucket is damaged: {0}")]
    Unreadable(String),
    /// Files that only this disk has can't be read; the others are in the bucket.
    #[error("{0} files that the bucket does not have can't be read")]
    Awaited(usize),
    /// Another process is the writer.
    #[error("{0}")]
    Fenced(String),
    /// The manifest would break a rule.
    #[error(transparent)]
    Rule(#[from] invariants::Violation),
}

/// What is in the bucket, for those who look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InBucket {
    pub(crate) generation: Generation,
    pub(crate) digest: Digest,
    /// Everything up to here is in published segments.
    pub(crate) folded: crate::types::Lsn,
    /// Everything up to here would come back.
    pub(crate) through: crate::types::Lsn,
    pub(crate) created: crate::types::WallMs,
    pub(crate) bytes: u64,
}

/// Publishes until the store has ended.
pub(crate) async fn run(core: Arc<Core>) {
    if core.bucket.is_none() {
        return;
    }
    let mut ended = core.ended.subscribe();
    tokio::select! {
        biased;
        // Only fails if the writer's lane is gone already.
        _ = ended.wait_for(|ended| *ended) => {}
        () = keep_on(&core) => {}
    }
}

/// Before a stop: publishes what there is, if the bucket answers in time.
pub(crate) async fn finish(core: &Arc<Core>) {
    if core.bucket.is_none() {
        return;
    }
    let all = async {
        loop {
            match once(core).await {
                Err(Problem::Changed) => {}
                done => return done,
            }
        }
    };
    match tokio::time::timeout(core.config.publish_at_stop, all).await {
        Ok(Ok(()) | Err(Problem::Fenced(_))) => {}
        Ok(Err(problem)) => {
            tracing::warn!(%problem, "not everything is in the bucket: the next start goes on");
        }
        Err(_) => tracing::warn!("the bucket is slow: the next start goes on publishing"),
    }
}

async fn keep_on(core: &Arc<Core>) {
    let mut pause = PAUSE;
    while !core.stopping.load(Ordering::Acquire) {
        match once(core).await {
            Ok(()) => {
                if pause > PAUSE {
                    tracing::info!("publishing goes on");
                }
                pause = PAUSE;
                // Nothing to collect, nothing to wait for: a store at rest asks nothing.
                let next = sweep::run(core).await.unwrap_or(FOR_EVER);
                tokio::select! {
                    biased;
                    () = core.publisher.notified() => {}
                    () = tokio::time::sleep(next) => {}
                }
            }
            Err(Problem::Changed) => {}
            Err(Problem::Fenced(_)) => return,
            Err(problem) => {
                weir_io::sometimes!("publishing failed and was tried again");
                core.metrics.publish.failed.inc();
                tracing::warn!(%problem, again_in = ?pause, "not published");
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
            }
        }
    }
}

/// Compares the store with its bucket, before it serves.
pub(crate) async fn attach(core: &Arc<Core>) -> Result<(), Problem> {
    let Some(bucket) = core.bucket.clone() else { return Ok(()) };
    let mut chain = core.chain.lock().await;
    attached(core, &bucket.patient, &mut chain).await.map(|_| ())
}

/// Whether the store was ever published: then it may start while the bucket is away.
pub(crate) async fn is_known(core: &Arc<Core>) -> bool {
    core.on_reader(chain::published).await.is_ok_and(|it| it.is_some())
}

async fn attached<'a>(
    core: &Arc<Core>,
    bucket: &Retrying,
    chain: &'a mut Chain,
) -> Result<&'a mut Attached, Problem> {
    if matches!(chain, Chain::Unattached) {
        match attach::attach(core, bucket).await {
            Ok(mut found) => {
                if sweep::may_have_been_left(core, &found).await? {
                    sweep::doubt(core, &mut found).await;
                }
                show(core, found.last.as_ref());
                *chain = Chain::Attached(Box::new(found));
            }
            Err(Problem::Fenced(reason)) => fence(core, chain, reason),
            Err(problem) => return Err(problem),
        }
    }
    match chain {
        Chain::Attached(attached) => Ok(attached),
        Chain::Fenced(reason) => Err(Problem::Fenced(reason.clone())),
        Chain::Unattached => unreachable!("attached or fenced above"),
    }
}

/// Another process publishes: this one must not take writes that it could never publish.
fn fence(core: &Core, chain: &mut Chain, reason: String) {
    weir_io::sometimes!("a second writer was fenced");
    tracing::error!(%reason, "fenced: no more writes, nothing more is published");
    core.metrics.publish.fenced.set(1);
    core.sequencer.fence(&format!("fenced: {reason}"));
    *chain = Chain::Fenced(reason);
}

/// Publishes what is to be published now, if anything.
pub(crate) async fn once(core: &Arc<Core>) -> Result<(), Problem> {
    let Some(bucket) = core.bucket.clone() else { return Ok(()) };
    let bucket = &bucket.patient;
    let mut chain = core.chain.lock().await;
    let state = attached(core, bucket, &mut chain).await?;
    match catch_up(core, bucket, state).await {
        Err(Problem::Fenced(reason)) => {
            fence(core, &mut chain, reason.clone());
            Err(Problem::Fenced(reason))
        }
        done => done,
    }
}

async fn catch_up(
    core: &Arc<Core>,
    bucket: &Retrying,
    state: &mut Attached,
) -> Result<(), Problem> {
    // First of all, whatever there is to be published: who looks at the bucket with a manifest on its
    // way would take that for another writer's (INV-48).
    if let Some(stored) = state.unresolved.clone() {
        settle(core, bucket, state, stored).await?;
    }
    let Some(picture) = core.files.lock().picture() else { return Ok(()) };
    if state.version == Some(picture.version) {
        return Ok(());
    }
    if !core.ledgers_whole.load(Ordering::Acquire) {
        // A fold has written rows that no ledger has: without them a manifest would not be a
        // whole cut (INV-40). The next fold writes all rows.
        weir_io::sometimes!(
            "a store whose ledgers were not whole wrote all rows before it published"
        );
        core.unfolded.lock().since.get_or_insert(StoreMs::ZERO);
        core.keeper.notify_one();
        return Ok(());
    }
    if let Err(problem) = upload::run(core, bucket, &picture).await {
        sweep::doubt(core, state).await;
        return Err(problem);
    }
    // What was uploaded is marked now; and a merge may have changed what is shown.
    let Some(picture) = core.files.lock().picture() else { return Ok(()) };
    let lacking = lacking(core, &picture)?;
    let published = publish(core, bucket, state, (&picture, &lacking)).await;
    if published.is_err() && state.unresolved.is_none() {
        // Pages that were made for a manifest that never was on its way.
        sweep::doubt(core, state).await;
    }
    published
}

/// The segments of a picture that a manifest must do without: only this disk has them, and it has
/// not given them for so long that nobody waits for them any more. Everything else that was acked
/// would be lost with this disk if nothing were published; so the manifest names them as holes, and
/// the next one after they could be read and uploaded names them as what they are.
fn lacking(core: &Core, picture: &Picture) -> Result<BTreeSet<SegmentId>, Problem> {
    let local = picture.segments.iter().filter(|held| held.row.place == Place::Local);
    let segments: BTreeSet<SegmentId> = local.map(|held| held.row.id).collect();
    let ledgers = picture.ledgers.iter().filter(|row| row.place == Place::Local);
    // Rows are written again where a ledger is lost: never is a manifest without them.
    let ledgers: Vec<SegmentId> = ledgers.map(|row| row.id).collect();
    let unreadable = core.unreadable.lock();
    if !segments.iter().chain(&ledgers).all(|id| unreadable.has(*id)) {
        return Err(Problem::Changed);
    }
    let awaited = segments.iter().filter(|id| !unreadable.is_given_up(**id)).count();
    match awaited + ledgers.len() {
        0 => Ok(segments),
        files => Err(Problem::Awaited(files)),
    }
}

async fn publish(
    core: &Arc<Core>,
    bucket: &Retrying,
    state: &mut Attached,
    (picture, lacking): (&Picture, &BTreeSet<SegmentId>),
) -> Result<(), Problem> {
    // What is lacking may come without any other change.
    let version = Some(picture.version).filter(|_| lacking.is_empty());
    let entry = |held: &Held| Entry {
        presence: match lacking.contains(&held.row.id) {
            true => Presence::Hole,
            false => presence(held.row.place),
        },
        ..segment_entry(held)
    };
    let segments: Vec<Entry> = picture.segments.iter().map(entry).collect();
    let ledgers: Vec<Entry> = picture.ledgers.iter().map(ledger_entry).collect();
    let (manifest, pages) = draw(core, state.last.as_ref(), picture, (&segments, &ledgers));
    let says_it = |last: &Stored| shows_the_same(&last.manifest, &manifest);
    if !state.is_spoiled && state.last.as_ref().is_some_and(says_it) {
        named(picture);
        // A process that ended after its last manifest may have left that undone.
        sweep::retire(core, &segments, &ledgers, state).await?;
        state.version = version;
        return Ok(());
    }
    for page in pages {
        let known = state.last.as_ref().is_some_and(|last| {
            let (a, b) = (&last.manifest.segments.pages, &last.manifest.ledgers.pages);
            a.contains(&page.reference) || b.contains(&page.reference)
        });
        if !known {
            bucket.create(&page.reference.artifact().key(), &page.bytes.into()).await?;
        }
    }
    let stored = Stored::new(manifest);
    let proposed = (&stored.manifest, &segments[..], &ledgers[..]);
    allow(state.last.as_ref(), picture, proposed, stored.bytes.len())?;
    let holes = segments.iter().filter(|entry| lacking.contains(&entry.id)).copied().collect();
    note_pending(core, &stored, holes).await?;
    state.unresolved = Some(stored.clone());
    settle(core, bucket, state, stored).await?;
    named(picture);
    if !lacking.is_empty() {
        weir_io::sometimes!("a manifest named a segment that could not be read as a hole");
        tracing::error!(segments = ?lacking, "published without segments that can't be read");
    }
    sweep::retire(core, &segments, &ledgers, state).await?;
    state.version = version;
    Ok(())
}

/// Notes that the newest manifest names what the bucket has of a picture.
fn named(picture: &Picture) {
    let stored = picture.segments.iter().filter(|held| held.row.place == Place::Bucket);
    stored.for_each(|held| held.segment.set_published());
}

/// Asks the rules.
fn allow(
    last: Option<&Stored>,
    picture: &Picture,
    (manifest, segments, ledgers): (&Manifest, &[Entry], &[Entry]),
    bytes: usize,
) -> Result<(), invariants::Violation> {
    let before = last.map(Stored::summary);
    let of_segments = picture.segments.iter().map(|held| (held.row.id, held.row.place));
    let of_ledgers = picture.ledgers.iter().map(|row| (row.id, row.place));
    let stored = of_segments.chain(of_ledgers).filter(|(_, place)| *place == Place::Bucket);
    let stored: BTreeSet<SegmentId> = stored.map(|(id, _)| id).collect();
    let proposal = Proposal {
        manifest,
        segments,
        ledgers,
        bytes,
        is_uploaded: &|_, entry| stored.contains(&entry.id),
    };
    invariants::check(&proposal, before.as_ref())
}

/// Takes the slot of a manifest that is noted as pending.
async fn settle(
    core: &Arc<Core>,
    bucket: &Retrying,
    state: &mut Attached,
    stored: Stored,
) -> Result<(), Problem> {
    let fenced = core.metrics.publish.fenced.get() > 0;
    assert!(!fenced, "INV-48 a bucket has one writer: who is overtaken publishes nothing more");
    // What an answer tells is as old as the question: the process may be stopped for any time before
    // it looks at the answer.
    let asked = Contact::now(core);
    claim(bucket, &stored).await?;
    // What is collected meanwhile is for others to say, who may have been given another grace period:
    // the shortest there is counts.
    if state.contact.is_older(core, core.config.gc_grace.min(GC_GRACE_MIN) / 4) {
        weir_io::sometimes!("a publisher that was away asked whether its slot is still kept");
        let generation = stored.manifest.generation;
        if !attach::is_kept(bucket, generation).await? {
            return Err(Problem::Fenced(format!(
                "this process was away for so long that others have published and removed \
                 manifest {generation}"
            )));
        }
    }
    state.contact = asked;
    note(core, &stored).await?;
    core.metrics.publish.manifests.inc();
    let manifest = &stored.manifest;
    tracing::debug!(
        generation = %manifest.generation, through = %manifest.through.lsn,
        segments = manifest.segments.count(), ledgers = manifest.ledgers.count(), "published"
    );
    show(core, Some(&stored));
    state.last = Some(stored);
    state.is_spoiled = false;
    state.unresolved = None;
    Ok(())
}

/// Takes the manifest's slot.
async fn claim(bucket: &Retrying, stored: &Stored) -> Result<(), Problem> {
    let key = stored.manifest.artifact().key();
    let outcome = bucket.create(&key, &stored.bytes.clone().into()).await?;
    if outcome == Outcome::Created {
        return Ok(());
    }
    match attach::read(bucket, stored.manifest.generation).await {
        Ok(found) if found.bytes == stored.bytes => {
            weir_io::sometimes!("a manifest was found to be ours after its answer was lost");
            return Ok(());
        }
        Ok(_) | Err(Problem::Foreign(_)) => {}
        Err(problem) => return Err(problem),
    }
    weir_io::sometimes!("a manifest's slot was taken by another writer");
    Err(Problem::Fenced(format!(
        "another process has published manifest {} of this store",
        stored.manifest.generation
    )))
}

/// Tells those who look what is in the bucket.
fn show(core: &Core, stored: Option<&Stored>) {
    let in_bucket = stored.map(|stored| InBucket {
        generation: stored.manifest.generation,
        digest: stored.digest,
        folded: stored.manifest.folded.lsn,
        through: stored.manifest.through.lsn,
        created: stored.manifest.created,
        bytes: u64::try_from(stored.bytes.len()).expect("usize fits u64"),
    });
    *core.in_bucket.lock() = in_bucket;
    core.moves.send_modify(|moves| *moves += 1);
}

/// Notes a manifest that is about to be published: after a crash it may be in the bucket. What it names
/// as holes, a start may do without.
async fn note_pending(core: &Arc<Core>, stored: &Stored, holes: Vec<Entry>) -> Result<(), Problem> {
    let bytes = stored.bytes.clone();
    let noted = core.on_writer("publishing", move |conn| -> Result<(), catalogue::Failure> {
        let tx = conn.transaction()?;
        holes.iter().try_for_each(|hole| catalogue::put_hole(&tx, hole))?;
        chain::put_pending(&tx, &bytes)?;
        Ok(tx.commit()?)
    });
    settled(noted.await)
}

/// Notes a manifest that is in the bucket.
async fn note(core: &Arc<Core>, stored: &Stored) -> Result<(), Problem> {
    let (bytes, since) = (stored.bytes.clone(), core.store_now());
    let generation = stored.manifest.generation;
    let noted = core.on_writer("published", move |conn| -> Result<(), catalogue::Failure> {
        let tx = conn.transaction()?;
        chain::put_published(&tx, &bytes)?;
        catalogue::put_manifest(&tx, generation, since)?;
        Ok(tx.commit()?)
    });
    settled(noted.await)
}

fn settled(
    noted: Result<Result<(), catalogue::Failure>, weir_io::tasks::Gone>,
) -> Result<(), Problem> {
    let noted = noted.map_err(|gone| Problem::Local(gone.to_string()))?;
    noted.map_err(|bad| Problem::Local(bad.to_string()))
}
