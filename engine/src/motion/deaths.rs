//! Deaths: which segments hold records that nobody may read any more, since when, and about how
//! many bytes of them. Kept in the catalogue, so that a restart puts no erasure off.
//!
//! Marked during a fold, before its rows are written: a fold that a crash cuts off is done again
//! and marks again, so no death goes unseen (INV-30). A mark may be one too many, if a fork still
//! reads what its source has let go of: then a segment is written anew once for nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use rusqlite::Connection;

use super::{
    fold::{Step, in_slices},
    seal::{Failed, Snapshot},
};
use crate::{
    core::{Burial, Core},
    read::segments,
    segment::Segment,
    state::{
        catalogue::{self, Death, Failure},
        deaths::Dying,
    },
    types::{Ancestry, Lsn, SegmentId, Seq, StreamId, WallMs},
};

/// When it is tried again to write a segment anew that could not be.
const AGAIN_MS: u64 = 60_000;
/// Everything a stream has.
const ALL: Range<Seq> = Seq::ZERO..Seq::LAST;

/// What a fold is about to end, in the order of streams.
#[derive(Default)]
struct Ends {
    /// Streams with the range of their own records that dies, and the part of it whose bytes are not
    /// counted yet.
    dying: BTreeMap<StreamId, (Range<Seq>, Range<Seq>)>,
    /// The same with the commit of the trim.
    trimmed: Vec<(StreamId, Lsn, Range<Seq>, Range<Seq>)>,
    /// What forks no longer read of what they inherit: everything up to a position.
    left: Vec<(Arc<Ancestry>, Seq)>,
    /// The same of forks that were trimmed by a commit.
    left_by_trim: Vec<(Arc<Ancestry>, Seq, Lsn)>,
}

impl Ends {
    fn of(snapshots: &[Snapshot], burials: &[Burial]) -> Self {
        let mut ends = Self::default();
        for snapshot in snapshots {
            let (identity, state) = (&snapshot.row.identity, &snapshot.row.state);
            let kept = &state.kept;
            if state.retired {
                // How much of it forks still read is seen when it is merged.
                ends.dying.insert(identity.id, (ALL, Seq::ZERO..Seq::ZERO));
                ends.left.extend(identity.fork.clone().map(|fork| (fork, Seq::LAST)));
            } else if kept.trimmed > Lsn::ZERO {
                let all = Seq::ZERO..kept.earliest;
                let fresh = snapshot.counted..kept.earliest;
                ends.trimmed.push((identity.id, kept.trimmed, all, fresh));
                let left = identity.fork.clone().map(|fork| (fork, kept.earliest, kept.trimmed));
                ends.left_by_trim.extend(left);
            }
        }
        for burial in burials.iter() {
            ends.left.extend(burial.fork.clone().map(|fork| (fork, Seq::LAST)));
            if burial.bytes > 0 {
                ends.dying.insert(burial.id, (ALL, ALL));
            }
        }
        ends
    }

    fn is_none(&self) -> bool {
        self.dying.is_empty() && self.trimmed.is_empty() && self.left.is_empty()
    }

    /// Leaves out what a fold before this one has marked, and adds what only the forks that end
    /// may have read: records of streams that are retired or trimmed themselves.
    fn complete(&mut self, conn: &Connection) -> Result<(), Failure> {
        let folded = catalogue::meta_u64(conn, "folded_through").map(Lsn::new)?;
        for (stream, trimmed, all, fresh) in self.trimmed.drain(..) {
            if trimmed > folded {
                // One that ends in the same fold dies whole.
                self.dying.entry(stream).or_insert((all, fresh));
            }
        }
        let trims = self.left_by_trim.drain(..).filter(|(_, _, trimmed)| *trimmed > folded);
        self.left.extend(trims.map(|(fork, limit, _)| (fork, limit)));
        let mut asked = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (fork, limit) in self.left.drain(..) {
            for run in fork.runs.iter().filter(|run| seen.insert((run.stream, run.limit, limit))) {
                let lets_go = match asked.get(&run.stream) {
                    Some(lets_go) => *lets_go,
                    None => catalogue::lets_go(conn, run.stream)?,
                };
                asked.insert(run.stream, lets_go);
                if lets_go {
                    let limit = run.limit.min(limit);
                    let none = Seq::ZERO..Seq::ZERO;
                    let (all, _) = self.dying.entry(run.stream).or_insert((none.clone(), none));
                    all.end = all.end.max(limit);
                }
            }
        }
        Ok(())
    }
}

/// Marks what dies by what a fold is about to write.
pub(super) async fn mark(
    core: &Arc<Core>,
    snapshots: &[Snapshot],
    burials: &[Burial],
) -> Result<(), Failed> {
    let mut ends = Ends::of(snapshots, burials);
    if !ends.is_none() {
        let shared = Arc::clone(core);
        let found = core.on_reader(move |conn| {
            ends.complete(conn)?;
            Ok(holding(&shared, &ends.dying))
        });
        note(core, found.await?).await?;
    }
    for snapshot in snapshots {
        snapshot.stream.durable.lock().counted = snapshot.row.state.kept.earliest;
    }
    Ok(())
}

/// The segments that hold what dies, with about how many bytes of it are not counted yet.
fn holding(
    core: &Core,
    dying: &BTreeMap<StreamId, (Range<Seq>, Range<Seq>)>,
) -> BTreeMap<SegmentId, u64> {
    let mut found = BTreeMap::new();
    let segments = core.segments.load();
    for (stream, (all, fresh)) in dying {
        for segment in segments.all().iter().filter(|segment| segment.holds(*stream)) {
            let Some(held) = segments::held_within(core, segment, *stream, all) else { continue };
            let bytes = match fresh {
                fresh if fresh.is_empty() => 0,
                fresh if fresh == all => held,
                fresh => segments::held_within(core, segment, *stream, fresh).unwrap_or(0),
            };
            *found.entry(segment.id()).or_default() += bytes;
        }
    }
    found
}

async fn note(core: &Arc<Core>, found: BTreeMap<SegmentId, u64>) -> Result<(), Failed> {
    let since = core.now().wall;
    let deaths: Arc<[(SegmentId, Death)]> =
        found.into_iter().map(|(id, bytes)| (id, Death { bytes, since })).collect();
    let written = Arc::clone(&deaths);
    in_slices(core, "deaths", written.len(), move |conn, index| {
        let (segment, death) = written[index];
        catalogue::add_death(conn, segment, death)?;
        Ok(Step::Next)
    })
    .await?;
    let mut known = core.deaths.lock();
    deaths.iter().for_each(|(segment, death)| known.add(*segment, *death));
    Ok(())
}

/// Whether something is to be erased that no seal brings about.
pub(super) fn is_overdue(core: &Core) -> bool {
    let now = core.now().wall;
    let Some(then) = over_since(core, now) else { return false };
    core.deaths.lock().until(then).any(|dying| dying.not_before <= now)
}

/// What had died by then must be gone; `None`: nothing must, in the first days of the clock.
fn over_since(core: &Core, now: WallMs) -> Option<WallMs> {
    let within_ms = u64::try_from(core.config.erase_within.as_millis()).unwrap_or(u64::MAX);
    now.get().checked_sub(within_ms).map(WallMs::new)
}

/// Which of these segments are to be written anew, oldest first: those whose time is up, or of
/// which a quarter is dead.
pub(super) fn rotting(core: &Core, segments: &[Arc<Segment>]) -> Vec<usize> {
    let now = core.now().wall;
    let then = over_since(core, now);
    let deaths = core.deaths.lock();
    let rots = |segment: &Arc<Segment>| {
        let Some(Dying { death, not_before }) = deaths.get(segment.id()) else { return false };
        let mostly = death.bytes > 0 && death.bytes >= segment.footer().file_bytes() / 4;
        let overdue = then.is_some_and(|then| death.since <= then);
        (overdue || mostly) && *not_before <= now
    };
    segments.iter().enumerate().filter(|(_, it)| rots(it)).map(|(at, _)| at).collect()
}

/// Segments could not be written anew: others have their turn first.
pub(super) fn put_off(core: &Core, segments: &[SegmentId]) {
    let again = WallMs::new(core.now().wall.get().saturating_add(AGAIN_MS));
    let mut deaths = core.deaths.lock();
    segments.iter().for_each(|id| deaths.put_off(*id, again));
}

/// What was to be erased of segments that are merged.
pub(super) fn left(core: &Core, old: &[SegmentId]) -> Option<Death> {
    let deaths = core.deaths.lock();
    let since = old.iter().filter_map(|id| Some(deaths.get(*id)?.death.since)).min()?;
    Some(Death { bytes: 0, since })
}

/// Segments were merged into a new one, which has these dead left.
pub(super) fn moved(core: &Core, old: &[SegmentId], left: Option<(SegmentId, Death)>) {
    let mut deaths = core.deaths.lock();
    for id in old {
        deaths.remove(*id);
    }
    if let Some((id, death)) = left {
        deaths.add(id, death);
    }
}
