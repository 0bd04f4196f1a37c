//! Collection: objects that no manifest of the last grace period names go, and manifests that were
//! superseded before it.
//!
//! ```text
//! dropped from the catalogue ─▶ garbage ─ not in the newest manifest ─▶ retired ─ grace ─▶ gone
//! in the bucket, nobody's    ─────────────────────────────────────────▶ retired ─ grace ─▶ gone
//! ```
//! Pages have no rows: those that manifests name no more are found among what is nobody's. So are
//! manifests below all that are kept, of writers that came too late. Segments and ledgers that a
//! list may have named which a recovery could not read are spared.
//! The boundary in the bucket rises before a manifest goes: a slot below it may look free and is
//! not. Nothing is deleted unless this process is still the writer, which is asked again every few
//! deletions; who finds that it is not is fenced, however long it was at rest. What only a listing shows is
//! collected no sooner than this store has been the writer for a grace period of its running time,
//! restarts or not: what earlier writers retired is older then.
//!
//! A manifest goes before what it names (INV-41). An upload that ended without an answer, or with a
//! process, may leave what no row tells of, now or some time later: a grace period after the last such
//! the bucket is listed once, though nothing else waits there.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rusqlite::Connection;
use weir_io::{
    objects::{Key, LIST_MAX, ObjectError},
    retry::Retrying,
};

use super::{
    Problem,
    chain::{Attached, Chain, Stored},
    settled,
};
use crate::{
    core::Core,
    publish::{
        keys::{self, Artifact, Generation},
        listing::Entry,
    },
    state::catalogue::{self, Failure},
    types::StoreMs,
};

/// Deletions at a time.
const DELETIONS_MAX: usize = 8;
/// Deletions before it is asked again who the writer is.
const SURE_MAX: usize = 64;
/// Objects collected in one go.
const BATCH: u32 = 1000;
/// When, in store time, the bucket was last swept, or this store became the writer.
const SWEPT: &str = "swept";
/// When, in store time, something may last have been left in the bucket that no row tells of; none
/// once it has been looked for.
const UNSURE: &str = "unsure";

/// After a manifest, or when there is nothing new to say: what the newest one does not name any more
/// begins to wait.
pub(super) async fn retire(
    core: &Arc<Core>,
    segments: &[Entry],
    ledgers: &[Entry],
    state: &Attached,
) -> Result<(), Problem> {
    let mut named: BTreeSet<Key> = segments.iter().map(|entry| entry.segment().key()).collect();
    named.extend(ledgers.iter().map(|entry| entry.ledger().key()));
    if let Some(last) = &state.last {
        let pages = last.manifest.segments.pages.iter().chain(&last.manifest.ledgers.pages);
        named.extend(pages.map(|page| page.artifact().key()));
    }
    let now = core.store_now();
    let mut after = String::new();
    loop {
        let from = after.clone();
        let waiting = core.on_reader(move |conn| catalogue::unretired(conn, &from, BATCH));
        let waiting = waiting.await.map_err(|bad| Problem::Local(bad.to_string()))?;
        let Some(last) = waiting.last().cloned() else { return Ok(()) };
        after = last;
        let retired: Vec<String> =
            waiting.into_iter().filter(|key| !named.contains(key.as_str())).collect();
        if retired.is_empty() {
            continue;
        }
        let noted = core.on_writer("retire", move |conn| -> Result<(), Failure> {
            let tx = conn.transaction()?;
            retired.iter().try_for_each(|key| catalogue::retire(&tx, key, now))?;
            Ok(tx.commit()?)
        });
        settled(noted.await)?;
    }
}

/// Collects what is due. Returns when to look again, if anything waits.
pub(super) async fn run(core: &Arc<Core>) -> Option<Duration> {
    let bucket = core.bucket.clone()?;
    let mut chain = core.chain.lock().await;
    let Chain::Attached(state) = &mut *chain else { return None };
    if state.unresolved.is_some() {
        // It would be taken for another writer's (INV-48).
        return Some(super::PAUSE);
    }
    match collect(core, &bucket.patient, state).await {
        Ok(next) => next,
        Err(Problem::Fenced(reason)) => {
            weir_io::sometimes!("a writer at rest found that it was overtaken");
            super::fence(core, &mut chain, reason);
            None
        }
        Err(problem) => {
            weir_io::sometimes!("a collection failed and was tried again");
            tracing::warn!(%problem, "not collected");
            Some(core.config.gc_grace / 8)
        }
    }
}

async fn collect(
    core: &Arc<Core>,
    bucket: &Retrying,
    state: &mut Attached,
) -> Result<Option<Duration>, Problem> {
    let Some(last) = &state.last else { return Ok(None) };
    let newest = last.manifest.generation;
    let pages = pages(last);
    let grace = u64::try_from(core.config.gc_grace.as_millis()).unwrap_or(u64::MAX);
    let now = core.store_now();
    let before = StoreMs::new(now.get().saturating_sub(grace));
    let found = core.on_reader(move |conn| Due::find(conn, before, BATCH)).await;
    let due = found.map_err(|bad| Problem::Local(bad.to_string()))?;
    if !due.manifests.is_empty() || !due.objects.is_empty() {
        let mut sure = Sure::ask(bucket, newest).await?;
        remove_manifests(core, &mut sure, due.manifests).await?;
        remove_objects(core, &mut sure, due.objects, &pages).await?;
    }
    if due.more {
        // What is to be published has its turn in between.
        weir_io::sometimes!("more was to be collected than goes in one turn");
        return Ok(Some(Duration::ZERO));
    }
    let known = core.on_reader(|conn| Ok((moment(conn, SWEPT)?, moment(conn, UNSURE)?))).await;
    let (swept, unsure) = known.map_err(|bad| Problem::Local(bad.to_string()))?;
    let unsure = unsure.max(state.unsure);
    let is_over = |since: StoreMs| now >= since.plus(grace);
    let owed = unsure.is_some_and(is_over);
    if owed || swept.is_some_and(is_over) {
        find_orphans(core, bucket, newest, &pages).await?;
    }
    if owed || swept.is_none_or(is_over) {
        let noted = core.on_writer("swept", move |conn| -> Result<(), Failure> {
            let tx = conn.transaction()?;
            catalogue::put_meta(&tx, SWEPT, &now.get().to_le_bytes())?;
            if owed {
                weir_io::sometimes!(
                    "what an upload without an answer may have left was looked for"
                );
                catalogue::drop_meta(&tx, UNSURE)?;
            }
            Ok(tx.commit()?)
        });
        settled(noted.await)?;
    }
    let unsure = unsure.filter(|_| !owed);
    state.unsure = unsure;
    let oldest = core.on_reader(catalogue::oldest_waiting).await;
    let oldest = oldest.map_err(|bad| Problem::Local(bad.to_string()))?;
    let until = |since: StoreMs| {
        let due = since.get().saturating_add(grace).saturating_add(1);
        // No more than a few rounds in a grace period, however many objects trickle in.
        Duration::from_millis(due.saturating_sub(now.get())).max(core.config.gc_grace / 8)
    };
    Ok(oldest.into_iter().chain(unsure).min().map(until))
}

/// A moment of store time that was noted.
fn moment(conn: &Connection, key: &str) -> Result<Option<StoreMs>, Failure> {
    let noted = catalogue::meta(conn, key)?;
    Ok(noted.and_then(|bytes| Some(StoreMs::new(u64::from_le_bytes(bytes.try_into().ok()?)))))
}

/// Notes that something may be in the bucket, or come to be there, that no row tells of.
pub(super) async fn doubt(core: &Arc<Core>, state: &mut Attached) {
    let now = core.store_now();
    state.unsure = Some(now);
    let noted = core.on_writer("unsure", move |conn| {
        catalogue::put_meta(conn, UNSURE, &now.get().to_le_bytes())
    });
    if let Err(problem) = settled(noted.await) {
        // This process knows, and the next finds that something was not published.
        tracing::debug!(%problem, "it was not noted that uploads were cut short");
    }
}

/// Whether earlier processes, of this store or of the one that it was recovered from, may have left
/// something in the bucket that no row tells of: they ended with something to publish, or nobody
/// knows how they ended.
pub(super) async fn may_have_been_left(
    core: &Arc<Core>,
    state: &Attached,
) -> Result<bool, Problem> {
    let (cut, local) = {
        let files = core.files.lock();
        (files.cut(), files.local_files())
    };
    let shown = state.last.as_ref().map(|last| (last.manifest.folded, last.manifest.through));
    if local > 0 || state.unresolved.is_some() || cut.map(|it| (it.folded, it.through)) != shown {
        return Ok(true);
    }
    let swept = core.on_reader(|conn| moment(conn, SWEPT)).await;
    let swept = swept.map_err(|bad| Problem::Local(bad.to_string()))?;
    Ok(state.last.is_some() && swept.is_none())
}

/// What is due, no more of a kind than goes in one turn.
struct Due {
    manifests: Vec<Generation>,
    objects: Vec<String>,
    /// There may be more.
    more: bool,
}

impl Due {
    /// Objects have their turn when no manifest is left that may name them: those of the grace period
    /// do not, and all others are among these, or there are more of them.
    fn find(conn: &Connection, before: StoreMs, batch: u32) -> Result<Self, Failure> {
        let is_full = |count| u32::try_from(count).is_ok_and(|count| count >= batch);
        let manifests = catalogue::superseded(conn, before, batch)?;
        if is_full(manifests.len()) {
            return Ok(Self { manifests, objects: Vec::new(), more: true });
        }
        let objects = catalogue::collectable(conn, before, batch)?;
        let more = is_full(objects.len());
        Ok(Self { manifests, objects, more })
    }
}

/// The knowledge that this process is the writer, which does not last.
struct Sure<'a> {
    bucket: &'a Retrying,
    newest: Generation,
    /// Deletions that it is still good for.
    left: usize,
}

impl<'a> Sure<'a> {
    async fn ask(bucket: &'a Retrying, newest: Generation) -> Result<Self, Problem> {
        still_writer(bucket, newest).await?;
        Ok(Self { bucket, newest, left: SURE_MAX })
    }

    /// Deletes; asks again in between, as the process may have been stopped since.
    async fn delete(&mut self, keys: Vec<Key>) -> Result<(), Problem> {
        let mut rest = &keys[..];
        while !rest.is_empty() {
            if self.left == 0 {
                still_writer(self.bucket, self.newest).await?;
                self.left = SURE_MAX;
            }
            let (some, later) = rest.split_at(self.left.min(rest.len()));
            delete(self.bucket, some).await?;
            self.left -= some.len();
            rest = later;
        }
        Ok(())
    }
}

/// Refuses unless nobody has published after us. The next slot may be free because whoever took it has
/// collected that manifest since; ours was superseded then, so the boundary has risen above it or it is
/// gone: asked in this order, one of the three shows it.
async fn still_writer(bucket: &Retrying, newest: Generation) -> Result<(), Problem> {
    let is_there = async |generation| {
        let found = bucket.head(&Artifact::Manifest(generation).key()).await?;
        Ok::<bool, ObjectError>(found.is_some())
    };
    let overtaken = is_there(newest.next()).await?
        || !super::attach::is_kept(bucket, newest).await?
        || !is_there(newest).await?;
    if !overtaken {
        return Ok(());
    }
    Err(Problem::Fenced(format!(
        "another process has published since manifest {newest}, the last of this one: nothing is \
         collected"
    )))
}

/// Raises the boundary above manifests, then deletes them.
async fn remove_manifests(
    core: &Arc<Core>,
    sure: &mut Sure<'_>,
    manifests: Vec<Generation>,
) -> Result<(), Problem> {
    let Some(highest) = manifests.last().copied() else { return Ok(()) };
    let boundary = Artifact::Boundary(highest.next()).key();
    sure.bucket.create(&boundary, &keys::BOUNDARY.into()).await?;
    let keys = manifests.iter().map(|it| Artifact::Manifest(*it).key()).collect();
    sure.delete(keys).await?;
    // Lower boundaries say less.
    let lower = sure.bucket.list(keys::BOUNDARIES, Some(&boundary), LIST_MAX).await?;
    sure.delete(lower.into_iter().map(|meta| meta.key).collect()).await?;
    core.metrics.publish.collected.inc_by(u64::try_from(manifests.len()).unwrap_or(u64::MAX));
    weir_io::sometimes!("old manifests were collected");
    let noted = core.on_writer("manifests", move |conn| -> Result<(), Failure> {
        let tx = conn.transaction()?;
        manifests.iter().try_for_each(|it| catalogue::drop_manifest(&tx, *it))?;
        Ok(tx.commit()?)
    });
    settled(noted.await)
}

async fn remove_objects(
    core: &Arc<Core>,
    sure: &mut Sure<'_>,
    objects: Vec<String>,
    pages: &BTreeSet<Key>,
) -> Result<(), Problem> {
    if objects.is_empty() {
        return Ok(());
    }
    let live: BTreeSet<Key> = live(core);
    let keys = objects.iter().filter_map(|key| Key::new(key.as_str()).ok());
    // A page is named after its content: one that was nobody's may have been needed again.
    let keys: Vec<Key> = keys.filter(|key| !pages.contains(key)).collect();
    assert!(keys.iter().all(|key| !live.contains(key)), "INV-41 nothing referenced is collected");
    sure.delete(keys).await?;
    weir_io::sometimes!("retired objects were collected");
    core.metrics.publish.collected.inc_by(u64::try_from(objects.len()).unwrap_or(u64::MAX));
    let noted = core.on_writer("collected", move |conn| -> Result<(), Failure> {
        let tx = conn.transaction()?;
        objects.iter().try_for_each(|key| catalogue::drop_garbage(&tx, key))?;
        Ok(tx.commit()?)
    });
    settled(noted.await)
}

async fn delete(bucket: &Retrying, keys: &[Key]) -> Result<(), Problem> {
    for some in keys.chunks(DELETIONS_MAX) {
        let mut under_way: FuturesUnordered<_> =
            some.iter().map(|key| bucket.delete(key)).collect();
        while let Some(deleted) = under_way.next().await {
            deleted?;
        }
    }
    Ok(())
}

/// The objects that the catalogue names, there already or not.
fn live(core: &Core) -> BTreeSet<Key> {
    let files = core.files.lock();
    let segments = files.segments().map(|held| super::segment_key(&held.row));
    segments.chain(files.ledgers().iter().map(super::ledger_key)).collect()
}

/// The pages of a manifest.
fn pages(stored: &Stored) -> BTreeSet<Key> {
    let Stored { manifest, .. } = stored;
    let pages = manifest.segments.pages.iter().chain(&manifest.ledgers.pages);
    pages.map(|page| page.artifact().key()).collect()
}

/// Lists everything, and lets what belongs to nobody begin to wait.
async fn find_orphans(
    core: &Arc<Core>,
    bucket: &Retrying,
    newest: Generation,
    pages: &BTreeSet<Key>,
) -> Result<(), Problem> {
    let oldest = core.on_reader(catalogue::oldest_manifest).await;
    let oldest = oldest.map_err(|bad| Problem::Local(bad.to_string()))?.unwrap_or(newest);
    let mut orphans = Vec::new();
    for prefix in [keys::SEGMENTS, keys::LEDGERS, keys::PAGES, keys::MANIFESTS] {
        let mut after: Option<Key> = None;
        loop {
            let page = bucket.list(prefix, after.as_ref(), LIST_MAX).await?;
            after = page.last().map(|meta| meta.key.clone());
            let whole = page.len() < LIST_MAX;
            let live = live(core);
            let strangers = page.into_iter().map(|meta| meta.key);
            orphans.extend(strangers.filter(|key| !live.contains(key)));
            if whole {
                break;
            }
        }
    }
    // Seen while this process was the writer, so no younger writer's.
    still_writer(bucket, newest).await?;
    let now = core.store_now();
    let live = live(core);
    orphans.retain(|key| match Artifact::parse(key) {
        Some(Artifact::Manifest(generation)) => generation < oldest.min(newest),
        Some(Artifact::Page(_)) => !pages.contains(key),
        Some(_) => !live.contains(key),
        None => false,
    });
    spare(bucket, &mut orphans).await?;
    if orphans.is_empty() {
        return Ok(());
    }
    let noted = core.on_writer("orphans", move |conn| -> Result<(), Failure> {
        let tx = conn.transaction()?;
        for key in &orphans {
            if !catalogue::is_garbage(&tx, key.as_str())? {
                weir_io::sometimes!("an object that belonged to nobody was found");
                catalogue::put_garbage(&tx, key.as_str())?;
                catalogue::retire(&tx, key.as_str(), now)?;
            }
        }
        Ok(tx.commit()?)
    });
    settled(noted.await)
}

/// Leaves out what a list may have named that is lost.
async fn spare(bucket: &Retrying, orphans: &mut Vec<Key>) -> Result<(), Problem> {
    let file = |key: &Key| match Artifact::parse(key) {
        Some(Artifact::Segment(id, _) | Artifact::Ledger(id, _)) => Some(id),
        _ => None,
    };
    if orphans.iter().any(|key| file(key).is_some()) {
        let limit = super::attach::spared(bucket).await?;
        orphans.retain(|key| file(key).is_none_or(|id| limit.is_none_or(|limit| id >= limit)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;

    #[test]
    fn no_object_goes_before_every_manifest_that_may_name_it() {
        let mut conn = Connection::open_in_memory().expect("opens");
        catalogue::create(&mut conn, Layout::Tree, &[]).expect("a new catalogue");
        let key = |at: u64| format!("segments/{at}");
        for at in 0..6 {
            let (generation, since) = (Generation::new(at + 1), StoreMs::new(at));
            catalogue::put_manifest(&conn, generation, since).expect("writes");
            catalogue::put_garbage(&conn, &key(at)).expect("writes");
            catalogue::retire(&conn, &key(at), since).expect("writes");
        }
        let (mut turns, mut gone) = (Vec::new(), 0);
        loop {
            let due = Due::find(&conn, StoreMs::new(100), 2).expect("reads");
            // The newest stays.
            let left = 5 - gone;
            assert!(due.objects.is_empty() || due.manifests.len() == left, "{left} may name them");
            for it in &due.manifests {
                catalogue::drop_manifest(&conn, *it).expect("writes");
            }
            for it in &due.objects {
                catalogue::drop_garbage(&conn, it).expect("writes");
            }
            gone += due.manifests.len();
            turns.push((due.manifests.len(), due.objects.len()));
            if !due.more {
                break;
            }
        }
        assert_eq!(turns, [(2, 0), (2, 0), (1, 2), (0, 2), (0, 2), (0, 0)]);
    }
}
