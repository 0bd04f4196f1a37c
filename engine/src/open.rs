//! Opening a store: lock, tables, segments, replay, then the loops.

mod files;

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use weir_io::{
    World,
    disk::{Lock, is_full},
    objects::Objects,
    sqlite::Role,
};

use self::files::{Found, Lacking};
use crate::{
    Config, Layout, OpenError,
    core::{Core, Slice, database, ledger_dir, segment_dir},
    history::{self, Bucket, History},
    log::{
        commit::{Link, StoreId},
        replay,
        sequencer::Sequencer,
        writer::Writer,
    },
    motion::{
        checkpoint, heal, keeper, merge,
        publish::{self, chain},
        retention, seal, wipe,
    },
    rack::Rack,
    read::segments::SegmentSet,
    segment::BlockCache,
    state::{
        catalogue::{self, Failure, Origin},
        files::Files,
        readers::Readers,
        shelf::Shelf,
    },
    subscribe::{registry::Registry, waker},
    types::{Epoch, Lsn, StoreMs, StreamId, WallMs},
};

/// Version of everything below the directory of a store.
pub(crate) const FORMAT: u64 = 3;
/// A page and its frame header in the WAL.
const FRAME_BYTES: u64 = 4096 + 24;
/// Slices waiting for the writer.
const SLICES_MAX: usize = 4;

/// A store that is open but whose loops do not run yet.
struct Opened {
    core: Arc<Core>,
    lock: Box<dyn Lock>,
    conn: Connection,
    link: Link,
    writer_epoch: u64,
    slices: mpsc::Receiver<Slice>,
}

/// How a try to open came out.
enum Tried {
    Opened(Box<Opened>),
    /// Copies are missing or damaged of which the bucket has the originals.
    Lacks(Box<dyn Lock>, Vec<Lacking>),
}

/// Opens the store and starts its loops. The lock is held as long as what is returned.
pub(crate) async fn open(
    world: World,
    config: Config,
    bucket: Option<Arc<dyn Objects>>,
    holder: &str,
) -> Result<(Arc<Core>, Box<dyn Lock>), OpenError> {
    let holder = holder.to_owned();
    let bucket = bucket.map(|it| Arc::new(Bucket::new(it, Arc::clone(&world.entropy))));
    let (shared, place) = (world.clone(), config.clone());
    let locked =
        weir_io::tasks::run(&*world.blocking, move || prepare_directory(&shared, &place, &holder));
    let mut lock = locked.await.map_err(gone)??;
    let mut asked = BTreeSet::new();
    let opened = loop {
        let (shared, place, asked_of) = (world.clone(), config.clone(), bucket.clone());
        let tried = weir_io::tasks::run(&*world.blocking, move || {
            open_locked(shared, place, asked_of, lock)
        });
        match tried.await.map_err(gone)?? {
            Tried::Opened(opened) => break *opened,
            Tried::Lacks(back, lacking) => {
                files::bring(&world, &config, bucket.as_deref(), &lacking, &mut asked).await?;
                lock = back;
            }
        }
    };
    let Opened { core, lock, mut conn, link, writer_epoch, slices } = opened;
    watch_wal(&core, &mut conn)?;
    start(&core, conn, link, writer_epoch, slices);
    Ok((core, lock))
}

/// Folds what the log of a store has into its catalogue, without any of the loops that would add
/// to it. Gives the lock back.
pub(crate) async fn fold_at_rest(
    world: &World,
    config: &Config,
    lock: Box<dyn Lock>,
) -> Result<Box<dyn Lock>, OpenError> {
    // What was just restored is not to be forgotten.
    let config = Config { bucket_is_volatile: false, ..config.clone() };
    let shared = world.clone();
    let opened =
        weir_io::tasks::run(&*world.blocking, move || open_locked(shared, config, None, lock));
    let Tried::Opened(opened) = opened.await.map_err(gone)?? else {
        unreachable!("without a bucket nothing is missing that could be had");
    };
    let Opened { core, lock, mut conn, mut slices, .. } = *opened;
    let (closed, closing) = oneshot::channel();
    let lane = world.clone();
    world.tasks.dedicate(
        "fold",
        Box::new(move || {
            Box::pin(async move {
                while let Some(slice) = slices.recv().await {
                    (slice.job)(&mut conn);
                    if let Some(pause) = lane.blocking.pause() {
                        tokio::time::sleep(pause).await;
                    }
                    if lane.disk.is_dead() {
                        std::future::pending::<()>().await;
                    }
                }
                drop(conn);
                // Fails if whoever asked has gone.
                let _ = closed.send(());
            })
        }),
    );
    // Also without anything to fold: the ledgers are to be written anew.
    core.unfolded.lock().since.get_or_insert(StoreMs::ZERO);
    seal::run(&core).await;
    let folded = core.files.lock().cut().is_some_and(|cut| cut.folded == core.durable_link());
    drop(core);
    closing.await.map_err(|_| gone(weir_io::tasks::Gone))?;
    match folded {
        true => Ok(lock),
        false => Err(OpenError::Io {
            what: "folding the log".into(),
            source: io::Error::other("the log says why"),
        }),
    }
}

fn gone(gone: weir_io::tasks::Gone) -> OpenError {
    OpenError::Io { what: "opening the store".into(), source: io::Error::other(gone) }
}

/// Lets SQLite say after every transaction how far its WAL has grown.
fn watch_wal(core: &Arc<Core>, conn: &mut Connection) -> Result<(), OpenError> {
    let core = Arc::downgrade(core);
    let hook = move |_: &mut rusqlite::hooks::Wal, frames: i32| {
        if let Some(core) = core.upgrade() {
            let bytes = u64::from(frames.unsigned_abs()) * FRAME_BYTES;
            core.wal_bytes.store(bytes, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    };
    conn.wal_hook(Some(hook))
        .map_err(|source| OpenError::Sqlite { what: "watching the WAL".into(), source })
}

fn start(
    core: &Arc<Core>,
    conn: Connection,
    link: Link,
    writer_epoch: u64,
    slices: mpsc::Receiver<Slice>,
) {
    let tasks = Arc::clone(&core.world.tasks);
    let lane = Arc::clone(core);
    tasks.dedicate(
        "writer",
        Box::new(move || {
            Box::pin(async move {
                Writer::new(Arc::clone(&lane), conn, link, writer_epoch, slices).run().await;
                lane.ended.send_replace(true);
            })
        }),
    );
    tasks.spawn("keeper", Box::pin(keeper::run(Arc::clone(core))));
    tasks.spawn("evictor", Box::pin(history::run(Arc::clone(core))));
    tasks.spawn("merger", Box::pin(merge::run(Arc::clone(core))));
    tasks.spawn("trimmer", Box::pin(retention::run(Arc::clone(core))));
    tasks.spawn("publisher", Box::pin(publish::run(Arc::clone(core))));
    tasks.spawn("waker", Box::pin(waker::run(Arc::clone(core))));
    tasks.spawn("checkpoint", Box::pin(checkpoint::run(Arc::clone(core))));
}

fn io_error(what: String) -> impl FnOnce(io::Error) -> OpenError {
    move |source| {
        let what = if is_full(&source) { format!("{what}: {FULL}") } else { what };
        OpenError::Io { what, source }
    }
}

fn failure(error: Failure) -> OpenError {
    match error {
        Failure::Sqlite(source) => {
            let what = match source.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => format!("catalogue: {FULL}"),
                _ => "catalogue".into(),
            };
            OpenError::Sqlite { what, source }
        }
        Failure::Malformed(bad) => OpenError::Corrupt(bad.to_string()),
        Failure::Damaged(text) => OpenError::Corrupt(text),
    }
}

/// Of a start for which there is no room.
const FULL: &str = "the disk is full, and a start takes a little room; nothing is lost: free some space and start again";
/// Set in stores whose bucket is in memory.
const VOLATILE: &str = "bucket_is_volatile";

/// Opens a store whose lock is held.
fn open_locked(
    world: World,
    config: Config,
    bucket: Option<Arc<Bucket>>,
    lock: Box<dyn Lock>,
) -> Result<Tried, OpenError> {
    let path = database(&config);
    if config.layout == Layout::OneFile && is_foreign(&world, &path) {
        return Err(foreign(&path));
    }
    let mut conn = world
        .sqlite
        .open(&path, Role::Writer)
        .map_err(|source| unopened(&path, config.layout, source))?;
    let origin = catalogue::origin(&conn).map_err(failure)?;
    if origin == Origin::Foreign {
        return Err(foreign(&path));
    }
    if config.layout == Layout::OneFile {
        catalogue::keep_log_short(&conn, Some(config.wal_checkpoint_bytes)).map_err(failure)?;
    }
    catalogue::wipe_deleted(&conn).map_err(failure)?;
    if origin == Origin::New {
        begin(&world, &config, &mut conn)?;
    }
    let (store, writer_epoch) = claim(&conn)?;
    if config.bucket_is_volatile {
        forget_bucket(&mut conn)?;
    }
    let rack = Rack::new(&world, &config, Role::Reader);
    let found = files::open(&world, &config, &rack, &conn, store, bucket.is_some())?;
    let Found { mut files, segments, lacking } = found;
    if !lacking.is_empty() {
        return Ok(Tried::Lacks(lock, lacking));
    }
    let seed = std::array::from_fn(|_| world.entropy.next_u64());
    let shelf = Arc::new(Shelf::new(config.streams_cached_max, seed));
    let (mut found, subscriptions) = replay::run(&conn, &shelf, store).map_err(failure)?;
    replay::align(&found.unfolded.streams, &shelf);
    tracing::info!(
        commits = found.commits,
        streams = found.unfolded.streams.len(),
        subscriptions = subscriptions.len(),
        through = %found.link.lsn,
        "replayed the log"
    );
    let folded = files.cut().map_or(Lsn::ZERO, |cut| cut.folded.lsn);
    if folded < found.link.lsn {
        files.fold_begins();
        if segments.iter().any(|it| it.footer().last_lsn >= found.link.lsn) {
            let wall = WallMs::new(world.clock.wall_ms());
            replay::part(&conn, (store, writer_epoch, wall), &mut found).map_err(failure)?;
        }
    }
    let link = found.link;
    let (slices, received) = mpsc::channel(SLICES_MAX);
    let found = (found, subscriptions);
    let next_file = next_file(&conn).map_err(failure)?;
    let recoveries = catalogue::meta_u64(&conn, "recoveries").map_err(failure)?;
    let floor = u32::try_from(recoveries).map(Epoch::first_of);
    let floor = floor.map_err(|_| OpenError::Corrupt("recoveries are too many".into()))?;
    let ledgers_whole = catalogue::meta_u64(&conn, "ledgers_whole").map_err(failure)? == 1;
    let files = (rack, files, next_file, ledgers_whole, writer_epoch);
    let world = (world, config, bucket);
    let core = assemble(world, store, (seed, shelf, floor), found, slices, files);
    let lost = segments.iter().filter(|it| it.is_lost()).map(|it| it.id()).collect();
    core.put_segments(SegmentSet::new(segments));
    heal::give_up(&core, lost);
    let wiped = catalogue::meta_u64(&conn, wipe::WIPED).map_err(failure)?;
    core.wiped.store(wiped, Ordering::Relaxed);
    let deaths = catalogue::deaths(&conn).map_err(failure)?.into_iter();
    *core.deaths.lock() = deaths.collect();
    let opened = Opened { core, lock, conn, link, writer_epoch, slices: received };
    Ok(Tried::Opened(Box::new(opened)))
}

/// Makes an empty catalogue of a store that nobody else is.
fn begin(world: &World, config: &Config, conn: &mut Connection) -> Result<(), OpenError> {
    let mut id = [0; 16];
    world.entropy.fill(&mut id);
    let meta: [(&str, &[u8]); 2] = [("format", &FORMAT.to_le_bytes()), ("store", &id)];
    catalogue::create(conn, config.layout, &meta).map_err(failure)?;
    // SQLite does not make the name of a new database durable.
    world.disk.sync_dir(&config.dir).map_err(io_error("syncing the store directory".into()))
}

/// The number of the next file. Rows of files tell it, and manifests too: a file that was given up
/// has no row, but its number was taken when a manifest said which is next.
fn next_file(conn: &Connection) -> Result<u64, catalogue::Failure> {
    let mut next = catalogue::meta_u64(conn, "next_segment")?.max(1);
    for stored in [chain::published(conn)?, chain::pending(conn)?].into_iter().flatten() {
        next = next.max(stored.manifest.next_segment.get());
    }
    Ok(next)
}

/// Begins anew with a bucket that is empty at every start, unless the store had one that lasts.
fn forget_bucket(conn: &mut Connection) -> Result<(), OpenError> {
    let tx = conn.transaction().map_err(|error| failure(error.into()))?;
    let was_volatile = catalogue::meta_u64(&tx, VOLATILE).map_err(failure)? == 1;
    if !was_volatile && chain::published(&tx).map_err(failure)?.is_some() {
        return Err(OpenError::Bucket(
            "this store has published to a bucket that lasts: with one in memory it would forget \
             what lies there"
                .to_owned(),
        ));
    }
    catalogue::put_meta(&tx, VOLATILE, &1_u64.to_le_bytes()).map_err(failure)?;
    catalogue::forget_bucket(&tx).map_err(failure)?;
    tx.commit().map_err(|error| failure(error.into()))
}

/// Whether another program made the database at a path, found out without changing it: other programs
/// keep theirs under the same name. What can't be looked at is judged when it is opened.
pub fn is_foreign(world: &World, path: &Path) -> bool {
    let look = || -> Result<Origin, Failure> {
        let conn = world.sqlite.open(path, Role::Looker)?;
        catalogue::origin(&conn)
    };
    world.disk.exists(path).unwrap_or(false) && matches!(look(), Ok(Origin::Foreign))
}

/// Why a database did not open, and what to do about it.
fn unopened(path: &Path, layout: Layout, source: rusqlite::Error) -> OpenError {
    let path = path.display();
    let what = match (source.sqlite_error_code(), layout) {
        (Some(ErrorCode::DiskFull), _) => format!("{path}: {FULL}"),
        (Some(ErrorCode::SystemIoFailure), Layout::Tree) => format!(
            "{path}: the disk does not do what it should with the database or its log; start \
             again, and if that does not help keep the directory, make the store anew out of its \
             bucket on another disk (`weir bootstrap`), and look for what was never published \
             (`weir inspect unpublished`)"
        ),
        (Some(ErrorCode::SystemIoFailure), Layout::OneFile) => format!(
            "{path}: the disk does not do what it should with the database or its log; start \
             again, and if that does not help copy both to another disk, as far as they can be read"
        ),
        _ => path.to_string(),
    };
    OpenError::Sqlite { what, source }
}

fn foreign(path: &Path) -> OpenError {
    OpenError::Corrupt(format!("{} is another program's", path.display()))
}

/// Puts the parts together.
fn assemble(
    (world, config, bucket): (World, Config, Option<Arc<Bucket>>),
    store: StoreId,
    (seed, shelf, floor): ([u64; 4], Arc<Shelf>, Epoch),
    (found, subscriptions): (replay::Replayed, Registry),
    slices: mpsc::Sender<Slice>,
    (rack, files, next_file, ledgers_whole, writer_epoch): (Rack, Files, u64, bool, u64),
) -> Arc<Core> {
    let hasher = ahash::RandomState::with_seeds(seed[3], seed[2], seed[1], seed[0]);
    let started = u64::try_from(world.clock.elapsed().as_millis()).unwrap_or(0);
    let metrics = subscriptions.figures.metrics();
    Arc::new(Core {
        sequencer: Sequencer::new(
            Arc::clone(&shelf),
            found.link.lsn.next(),
            StreamId::new(found.next_stream.max(1)),
            floor,
            &config,
            world.sabotage,
        ),
        shelf,
        subscriptions,
        store,
        rack,
        bucket,
        history: History::new(),
        segments: ArcSwap::default(),
        deaths: Mutex::default(),
        moves: watch::Sender::new(0),
        blocks: BlockCache::new(config.block_cache_bytes, hasher, metrics.blocks_read.clone()),
        metrics,
        unfolded: Mutex::new(found.unfolded),
        memtable_bytes: AtomicUsize::new(found.memtable_bytes),
        log_bytes: AtomicU64::new(found.log_bytes),
        unsynced: AtomicBool::new(false),
        checkpointing: Mutex::default(),
        watched: Mutex::default(),
        crowds: Mutex::default(),
        owed: Mutex::default(),
        durable: Mutex::new(found.link),
        settling: Mutex::new(()),
        wal_bytes: AtomicU64::new(0),
        slices,
        sealing: tokio::sync::Mutex::new(()),
        merging: tokio::sync::Mutex::new(()),
        merger: Notify::new(),
        unreadable: Mutex::default(),
        shortened: AtomicBool::new(false),
        keeper: Notify::new(),
        evictor: Notify::new(),
        readers: Readers::new(),
        stopping: AtomicBool::new(false),
        writer_may_end: AtomicBool::new(false),
        leaving: watch::Sender::new(false),
        ended: watch::Sender::new(false),
        store_base: found.store_ms,
        started_ms: started,
        next_file: AtomicU64::new(next_file),
        nonce: world.entropy.next_u64(),
        backlog: files.backlog(),
        files: Mutex::new(files),
        ledgers_whole: AtomicBool::new(ledgers_whole),
        ledgers_counted: AtomicU64::new(0),
        tails: Mutex::default(),
        wiped: AtomicU64::new(0),
        recoveries: floor.era(),
        writer_epoch,
        chain: tokio::sync::Mutex::default(),
        in_bucket: Mutex::default(),
        publisher: Notify::new(),
        world,
        config,
    })
}

/// Makes the directories, takes the lock and sets space aside.
pub(crate) fn prepare_directory(
    world: &World,
    config: &Config,
    holder: &str,
) -> Result<Box<dyn Lock>, OpenError> {
    let disk = &*world.disk;
    let dir = &config.dir;
    let shown = dir.display().to_string();
    let made = match config.layout {
        Layout::Tree => vec![segment_dir(config), ledger_dir(config)],
        Layout::OneFile => vec![dir.clone()],
    };
    for made in &made {
        let what = format!("creating {}", made.display());
        disk.create_dir_all(made).map_err(io_error(what))?;
    }
    // Nothing that another process has may be touched before this is held (INV-29).
    let lock_path = dir.join(config.layout.lock());
    let lock = disk.lock(&lock_path).map_err(io_error(format!("locking {shown}")))?;
    let Some(lock) = lock else {
        return Err(OpenError::Locked { dir: shown, holder: read_holder(world, &lock_path) });
    };
    lock.describe(holder).map_err(io_error(format!("writing {}", lock_path.display())))?;
    let reserve = dir.join("reserve");
    if config.layout == Layout::Tree
        && !disk.exists(&reserve).unwrap_or(false)
        && let Err(error) = keeper::set_aside(disk, &reserve)
    {
        tracing::warn!(%error, "no space could be set aside: the disk is nearly full");
    }
    // Every directory above may be one that was just made. Those far above may belong to somebody
    // who lets nobody open them: such a one we have not made.
    let own = made.len();
    for (above, path) in made[0].ancestors().enumerate() {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match disk.sync_dir(path) {
            Err(error) if above > own && error.kind() == io::ErrorKind::PermissionDenied => break,
            synced => synced.map_err(io_error(format!("syncing {}", path.display())))?,
        }
    }
    Ok(lock)
}

pub(crate) fn read_holder(world: &World, path: &Path) -> String {
    let read = || -> io::Result<String> {
        let file = world.disk.open(path)?;
        let mut text = vec![0; usize::try_from(file.len()?.min(512)).unwrap_or(0)];
        file.read_exact_at(&mut text, 0)?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    };
    match read() {
        Ok(holder) if !holder.is_empty() => holder,
        _ => "another process".to_owned(),
    }
}

/// Checks the format, and counts this process as the newest writer.
fn claim(conn: &Connection) -> Result<(StoreId, u64), OpenError> {
    let format = catalogue::meta_u64(conn, "format").map_err(failure)?;
    if format != FORMAT {
        return Err(OpenError::Corrupt(format!(
            "the store has format {format}, this server reads format {FORMAT}"
        )));
    }
    let id = catalogue::meta(conn, "store").map_err(failure)?.unwrap_or_default();
    let id = id.try_into().map_err(|_| OpenError::Corrupt("the store has no identity".into()))?;
    let epoch = catalogue::meta_u64(conn, "writer_epoch").map_err(failure)? + 1;
    catalogue::put_meta(conn, "writer_epoch", &epoch.to_le_bytes()).map_err(failure)?;
    Ok((StoreId(id), epoch))
}
