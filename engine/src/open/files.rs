//! The files of a store that opens: each that the catalogue names is opened, every other one is removed.
//!
//! The copy of a segment that the bucket has is a cache at a start too: one that is missing, or damaged
//! where its blocks are found by, is made anew from the object. Damaged blocks are found when they are
//! read. A segment that only this disk has, and that is damaged so that nothing of it can be opened, keeps
//! no store from opening: its file stays, and reads of its records fail. One whose file is missing does,
//! unless a manifest names it as a hole already: somebody may know where it is.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{StreamExt, stream};
use rusqlite::Connection;
use weir_io::World;

use super::{failure, io_error};
use crate::{
    Config, Layout, OpenError,
    core::{ledger_dir, ledger_path, segment_dir, segment_path},
    history::{AdoptError, Adoption, Bucket, adopt},
    log::commit::StoreId,
    motion::publish::{self, chain},
    publish::listing::{Entry, Presence},
    rack::{self, Rack},
    segment::{Known, Lost, ReadError, Segment},
    state::{
        catalogue::{self, Failure, Place, SegmentRow, pieces},
        files::{Cut, Files, Held},
    },
    types::{Lsn, SegmentId},
};

/// Pieces taken out in one transaction.
const PIECES_PER_STEP: u32 = 256;
/// Copies made anew at a time. Each has the end of its segment in memory, 64 KiB of most.
const COPIES_AT_ONCE: usize = 16;

/// What was found of the files that the catalogue names.
pub(super) struct Found {
    pub(super) files: Files,
    pub(super) segments: Vec<Arc<Segment>>,
    /// Copies that are to be made anew before the store can open.
    pub(super) lacking: Vec<Lacking>,
}

/// A copy of what the bucket has that can't be used.
pub(super) struct Lacking {
    store: StoreId,
    row: SegmentRow,
    shown: String,
    why: String,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.shown, self.why)
    }
}

/// What must be whole of a segment's file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// All by which blocks are found: the bucket has it, too.
    Everything,
    /// What the blocks do not tell themselves.
    Blocks,
}

/// Why a segment's file is not used.
enum Unusable {
    /// The disk refused.
    Refused(OpenError),
    /// There is none.
    Missing,
    /// It is whole, and not this segment's.
    Another(&'static str),
    /// It is not what was written. What is left of it, if that is known.
    Bad(String, Option<Lost>),
}

impl Unusable {
    fn why(&self) -> String {
        match self {
            Self::Refused(error) => error.to_string(),
            Self::Missing => "the file is missing".to_owned(),
            Self::Another(why) => (*why).to_owned(),
            Self::Bad(why, _) => why.clone(),
        }
    }
}

/// Opens every file that the catalogue names and, if none is lacking, removes every other one. Nothing
/// can be lacking without a bucket to have it from.
pub(super) fn open(
    world: &World,
    config: &Config,
    rack: &Rack,
    conn: &Connection,
    store: StoreId,
    has_bucket: bool,
) -> Result<Found, OpenError> {
    let rows = catalogue::segments(conn).map_err(failure)?;
    let cut = Cut::load(conn).map_err(failure)?;
    let folded = cut.map_or(Lsn::ZERO.next(), |cut| cut.folded.lsn);
    let mut held = Vec::with_capacity(rows.len());
    let mut lacking = Vec::new();
    let mut named = BTreeSet::new();
    for row in rows {
        named.insert(row.id);
        let shown = rack::shown(config, row.id);
        let need = match row.place {
            Place::Bucket if has_bucket => Need::Everything,
            Place::Bucket | Place::Local | Place::Hole => Need::Blocks,
        };
        let segment = match open_one(rack, &row, store, (&shown, need)) {
            Ok(segment) => segment,
            Err(unusable) if row.place != Place::Bucket => {
                match known_hole(conn, &row).map_err(failure)? {
                    Some(hole) => lost(store, &row, &hole, &unusable),
                    None => damaged(store, &row, folded, unusable)
                        .map_err(|unusable| unopened(config.layout, &shown, unusable))?,
                }
            }
            Err(Unusable::Refused(error)) => return Err(error),
            Err(unusable) if need == Need::Everything => {
                lacking.push(Lacking { store, row, shown, why: unusable.why() });
                continue;
            }
            Err(unusable) => {
                return Err(OpenError::Corrupt(format!("{shown}: {}", unusable.why())));
            }
        };
        if row.place == Place::Bucket {
            segment.set_remote(publish::segment_object(&row));
        }
        held.push(Held { row, segment: Arc::new(segment) });
    }
    let ledgers = catalogue::ledgers(conn).map_err(failure)?;
    if lacking.is_empty() {
        match config.layout {
            Layout::Tree => {
                let segments = named.iter().map(|id| segment_path(config, *id));
                remove_unnamed(world, &segment_dir(config), &segments.collect())?;
                let ledgers = ledgers.iter().map(|it| ledger_path(config, it.id));
                remove_unnamed(world, &ledger_dir(config), &ledgers.collect())?;
            }
            Layout::OneFile => take_out_unnamed(conn, &named).map_err(failure)?,
        }
    }
    let segments = held.iter().map(|held| Arc::clone(&held.segment)).collect();
    Ok(Found { files: Files::new(held, ledgers, cut), segments, lacking })
}

/// What a manifest, or what is noted of a hole, says of a segment that is one.
fn known_hole(conn: &Connection, row: &SegmentRow) -> Result<Option<Entry>, Failure> {
    let is_it = |hole: &Entry| (hole.bytes, hole.nonce.get()) == (row.bytes, row.nonce);
    if let Some(noted) = catalogue::hole(conn, row.id)? {
        return Ok(Some(noted).filter(is_it));
    }
    // Stores of earlier versions have no notes.
    for stored in [chain::published(conn)?, chain::pending(conn)?].into_iter().flatten() {
        let mut entries = stored.manifest.segments.rest.into_iter();
        let found = entries.find(|it| it.id == row.id && it.presence == Presence::Hole);
        if found.is_some() {
            return Ok(found.filter(is_it));
        }
    }
    Ok(None)
}

/// What stands for a segment that can't be used and is known to be a hole.
fn lost(store: StoreId, row: &SegmentRow, hole: &Entry, unusable: &Unusable) -> Segment {
    let why = unusable.why();
    weir_io::sometimes!("a start went on without a segment that was given up before");
    tracing::error!(
        segment = %row.id, %why,
        "a segment that was given up as a hole can't be opened: reads of its records fail"
    );
    Segment::lost(&Lost {
        store: store.0,
        id: row.id,
        bytes: row.bytes,
        mark: hole.mark,
        first_lsn: hole.first_lsn,
        last_lsn: hole.last_lsn,
        records: hole.records,
    })
}

/// What stands for a segment that only this disk has and of which nothing can be opened. If not even its
/// footer can be read, it has its place with what was folded last.
fn damaged(
    store: StoreId,
    row: &SegmentRow,
    folded: Lsn,
    unusable: Unusable,
) -> Result<Segment, Unusable> {
    let Unusable::Bad(why, remains) = unusable else { return Err(unusable) };
    tracing::error!(
        segment = %row.id, %why,
        "a segment that only this disk has is damaged, and can't be opened: its file is kept, and reads \
         of its records fail"
    );
    Ok(Segment::lost(&remains.unwrap_or(Lost {
        store: store.0,
        id: row.id,
        bytes: row.bytes,
        mark: 0,
        first_lsn: folded,
        last_lsn: folded,
        records: 0,
    })))
}

/// Why a start can't go on without a segment that only this disk had, and what to do about it.
fn unopened(layout: Layout, shown: &str, unusable: Unusable) -> OpenError {
    let elsewhere = match layout {
        Layout::Tree => {
            "; if there is none, keep the directory, make the store anew out of its bucket (`weir \
             bootstrap`), and look for what was never published (`weir inspect unpublished`)"
        }
        Layout::OneFile => "",
    };
    match unusable {
        Unusable::Refused(error) => error,
        unusable => OpenError::Corrupt(format!(
            "{shown}: {}, and nobody else has what was in it: put it back from wherever there is a \
             copy, and start again{elsewhere}",
            unusable.why()
        )),
    }
}

fn open_one(
    rack: &Rack,
    row: &SegmentRow,
    store: StoreId,
    (shown, need): (&str, Need),
) -> Result<Segment, Unusable> {
    let file = rack.open(row.id).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unusable::Missing,
        _ => Unusable::Refused(io_error(format!("opening {shown}"))(error)),
    })?;
    let known = Known { store: store.0, id: row.id, bytes: row.bytes };
    let opened = match need {
        Need::Everything => Segment::open(Arc::clone(&file)).map(|segment| (segment, None)),
        Need::Blocks => Segment::recover(Arc::clone(&file), &known),
    };
    let bad = |why: String| Unusable::Bad(why, Segment::remains(&*file, &known));
    let (segment, wrong) = opened.map_err(|error| match error {
        error @ ReadError::Damaged(_) => bad(error.to_string()),
        ReadError::Failed { source, .. } if need == Need::Blocks => {
            // Nobody knows what is there.
            Unusable::Refused(OpenError::Corrupt(format!("{shown}: {source}")))
        }
        failed => bad(failed.to_string()),
    })?;
    if let Some(wrong) = wrong {
        weir_io::sometimes!("a start did without an index or a filter that was damaged");
        tracing::warn!(segment = %row.id, %wrong, "a segment is damaged beside its blocks, which are all there");
    }
    if segment.store() != store.0 || segment.id() != row.id {
        return Err(Unusable::Another("it belongs to another store or row"));
    }
    if segment.footer().file_bytes() != row.bytes {
        return Err(Unusable::Another("it is not as long as its row says"));
    }
    Ok(segment)
}

/// Makes copies anew from the bucket, several at a time. `asked`: those that this start has already made.
///
/// # Errors
/// The bucket does not answer, or does not have what it should; or a copy that was just made can't be
/// used either.
pub(super) async fn bring(
    world: &World,
    config: &Config,
    bucket: Option<&Bucket>,
    lacking: &[Lacking],
    asked: &mut BTreeSet<SegmentId>,
) -> Result<(), OpenError> {
    let again = lacking.iter().find(|copy| !asked.insert(copy.row.id));
    let (Some(bucket), None) = (bucket, again) else {
        let copy = again.unwrap_or(&lacking[0]);
        return Err(OpenError::Corrupt(copy.to_string()));
    };
    // After the first that fails none is begun, but those under way end: nobody must write here any
    // more once this start has given the directory up (INV-29).
    let failed = AtomicBool::new(false);
    let copies = stream::iter(lacking).map(|copy| async {
        if failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let made = anew(world, config, bucket, copy).await;
        failed.fetch_or(made.is_err(), Ordering::Relaxed);
        made
    });
    let made: Vec<Result<(), OpenError>> = copies.buffered(COPIES_AT_ONCE).collect().await;
    made.into_iter().collect::<Result<(), OpenError>>()?;
    let (disk, dir) = (Arc::clone(&world.disk), segment_dir(config));
    let synced = weir_io::tasks::run(&*world.blocking, move || disk.sync_dir(&dir));
    synced.await.map_err(super::gone)?.map_err(io_error("syncing the segments".into()))
}

async fn anew(
    world: &World,
    config: &Config,
    bucket: &Bucket,
    copy: &Lacking,
) -> Result<(), OpenError> {
    tracing::warn!(segment = %copy.row.id, why = %copy.why, "a local copy is made anew");
    weir_io::sometimes!("a start made a local copy anew that could not be used");
    let adoption = Adoption {
        store: copy.store.0,
        id: copy.row.id,
        mark: None,
        remote: publish::segment_object(&copy.row),
        path: segment_path(config, copy.row.id),
    };
    let adopted = adopt(world, &bucket.reading, &adoption).await;
    adopted.map(drop).map_err(|error| match error {
        AdoptError::Unanswered { .. } => OpenError::Bucket(format!(
            "{copy}, and it can't be had from the bucket now: {error}; start again when the bucket \
             answers"
        )),
        error => OpenError::Corrupt(format!("{copy}, nor can it be had from the bucket: {error}")),
    })
}

/// Takes pieces out that no row of a segment names: what a crash left behind.
fn take_out_unnamed(conn: &Connection, named: &BTreeSet<SegmentId>) -> Result<(), Failure> {
    for id in pieces::segments(conn)? {
        if !named.contains(&id) {
            weir_io::sometimes!("boot took pieces out that a crash had left behind");
            tracing::info!(segment = %id, "took out a segment that no row names");
            while pieces::remove(conn, id, PIECES_PER_STEP)? > 0 {}
        }
    }
    Ok(())
}

fn remove_unnamed(world: &World, dir: &Path, named: &BTreeSet<PathBuf>) -> Result<(), OpenError> {
    for path in world.disk.list(dir).map_err(io_error(format!("listing {}", dir.display())))? {
        if !named.contains(&path) {
            weir_io::sometimes!("boot removed a segment file that a crash had left behind");
            tracing::info!(path = %path.display(), "removed a file that no row names");
            let what = format!("removing {}", path.display());
            world.disk.remove(&path).map_err(io_error(what))?;
        }
    }
    Ok(())
}
