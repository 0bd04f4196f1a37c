//! What the parts of a running store share.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use weir_io::{
    World,
    sqlite::Role,
    tasks::{self, Gone},
};

use crate::{
    Config, Metrics,
    decide::Now,
    history::{Bucket, History},
    log::{
        commit::{Link, StoreId},
        sequencer::Sequencer,
    },
    motion::{
        publish::{Chain, InBucket},
        unreadable::Unreadable,
    },
    rack::Rack,
    read::segments::SegmentSet,
    request,
    segment::BlockCache,
    state::{
        catalogue::Failure,
        deaths::Deaths,
        files::Files,
        readers::Readers,
        shelf::Shelf,
        view::{Crowds, Stream},
    },
    subscribe::registry::Registry,
    types::{Ancestry, Epoch, ProducerId, SegmentId, StoreMs, StreamId, StreamName, WallMs},
};

/// A piece of work for the writer between two commits: at most one short transaction.
pub(crate) struct Slice {
    /// For logs and figures.
    pub(crate) what: &'static str,
    pub(crate) job: Box<dyn FnOnce(&mut Connection) + Send>,
}

/// A running store.
pub(crate) struct Core {
    pub(crate) world: World,
    pub(crate) config: Config,
    pub(crate) store: StoreId,
    /// Where segments lie on this machine.
    pub(crate) rack: Rack,
    /// Where segments are kept for good; `None`: on the local disk alone.
    pub(crate) bucket: Option<Arc<Bucket>>,
    /// What comes from the bucket, and what of it stays here.
    pub(crate) history: History,
    pub(crate) metrics: Metrics,
    pub(crate) sequencer: Sequencer,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) subscriptions: Registry,
    pub(crate) segments: ArcSwap<SegmentSet>,
    /// By segment, what in it nobody can read any more; as the catalogue has it.
    pub(crate) deaths: Mutex<Deaths>,
    /// Counts the changes of what lies in which segment.
    pub(crate) moves: watch::Sender<u64>,
    pub(crate) blocks: BlockCache<ahash::RandomState>,
    pub(crate) unfolded: Mutex<Unfolded>,
    /// Payload bytes in chunks that no segment holds yet.
    pub(crate) memtable_bytes: AtomicUsize,
    /// Bytes of commits since the last seal began: what a boot would replay.
    pub(crate) log_bytes: AtomicU64,
    /// The last durable commit. Set after the streams it touched are on the list in `unfolded`.
    pub(crate) durable: Mutex<Link>,
    /// Bytes in the WAL since it last started over, as SQLite counts them.
    pub(crate) wal_bytes: AtomicU64,
    /// A sync of the database file failed: no checkpoint may follow in this process.
    pub(crate) unsynced: AtomicBool,
    /// Held by whoever checkpoints.
    pub(crate) checkpointing: Mutex<()>,
    /// Streams with a sliding window and attached readers.
    pub(crate) watched: Mutex<BTreeMap<StreamId, Arc<Stream>>>,
    /// Who waits for which stream.
    pub(crate) crowds: Mutex<Crowds>,
    /// Streams with a touch that the log could not take: they stay in memory until it does.
    pub(crate) owed: Mutex<BTreeMap<StreamId, Arc<Stream>>>,
    /// Held while a commit is made visible: a state row must reflect whole commits (INV-1).
    pub(crate) settling: Mutex<()>,
    pub(crate) slices: mpsc::Sender<Slice>,
    /// Held by whoever seals, and by a merge while it writes: one at a time, or a later seal could
    /// move `folded_through` past rows that an earlier one has yet to write. The evictor holds it for
    /// one file at a time. Nobody waits for the bucket with it.
    pub(crate) sealing: tokio::sync::Mutex<()>,
    /// Held by whoever merges: the files of a merge are its own until it is done.
    pub(crate) merging: tokio::sync::Mutex<()>,
    /// Rings when there may be something to merge.
    pub(crate) merger: Notify,
    /// Files that could not be read.
    pub(crate) unreadable: Mutex<Unreadable>,
    /// The database has become shorter: it is to be checkpointed, however little that is.
    pub(crate) shortened: AtomicBool,
    /// Rings when the keeper should look around.
    pub(crate) keeper: Notify,
    /// Rings when local copies may have become too many.
    pub(crate) evictor: Notify,
    /// Reading connections.
    pub(crate) readers: Arc<Readers>,
    /// The loops are to end.
    pub(crate) stopping: AtomicBool,
    /// Nothing will be handed to the writer any more.
    pub(crate) writer_may_end: AtomicBool,
    /// Turns true when live readers must go.
    pub(crate) leaving: watch::Sender<bool>,
    /// Store time when this process's clock started.
    pub(crate) store_base: StoreMs,
    /// What that clock showed then.
    pub(crate) started_ms: u64,
    /// Number of the next file, segment or ledger.
    pub(crate) next_file: AtomicU64,
    /// Goes into the names of this process's objects.
    pub(crate) nonce: u64,
    /// The live files and the point of the log up to which they tell all.
    pub(crate) files: Mutex<Files>,
    /// Bytes of sealed files that only this disk has.
    pub(crate) backlog: Arc<AtomicU64>,
    /// The ledgers say all that the catalogue does.
    pub(crate) ledgers_whole: AtomicBool,
    /// Changes in all ledgers when the rows of the catalogue were last counted.
    pub(crate) ledgers_counted: AtomicU64,
    /// When the tail of each ledger begins, if it has one.
    pub(crate) tails: Mutex<BTreeMap<SegmentId, Option<WallMs>>>,
    /// When what the database no longer holds was last wiped out of its files.
    pub(crate) wiped: AtomicU64,
    /// How many recoveries from a bucket the store has behind it.
    pub(crate) recoveries: u32,
    /// Counts the processes that opened the store.
    pub(crate) writer_epoch: u64,
    /// Where the store stands with its bucket.
    pub(crate) chain: tokio::sync::Mutex<Chain>,
    /// What is in the bucket, for those who look.
    pub(crate) in_bucket: Mutex<Option<InBucket>>,
    /// Rings when there may be something to publish.
    pub(crate) publisher: Notify,
    /// Turns true when the writer's lane has ended.
    pub(crate) ended: watch::Sender<bool>,
}

/// What the next fold has to write.
#[derive(Default)]
pub(crate) struct Unfolded {
    pub(crate) streams: Vec<Arc<Stream>>,
    pub(crate) burials: Vec<Burial>,
    /// Producers whose rows a fold that was cut short has written: the next ledger needs them too.
    pub(crate) ahead: Vec<(StreamId, ProducerId)>,
    /// Names whose presence differs from the catalogue's, with the stream that has it now.
    pub(crate) names: BTreeMap<StreamName, Option<Arc<Stream>>>,
    /// The same for the changes that a running fold is writing.
    pub(crate) folding: BTreeMap<StreamName, Option<Arc<Stream>>>,
    /// Store time of the oldest unsealed change.
    pub(crate) since: Option<StoreMs>,
}

/// A stream that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Burial {
    pub(crate) id: StreamId,
    /// Payload bytes it ever took.
    pub(crate) bytes: u64,
    pub(crate) name: StreamName,
    pub(crate) epoch: Epoch,
    /// What it drew on, if it was a fork.
    pub(crate) fork: Option<Arc<Ancestry>>,
}

impl Core {
    pub(crate) fn now(&self) -> Now {
        Now { wall: WallMs::new(self.world.clock.wall_ms()), store: self.store_now() }
    }

    /// Bytes in the WAL since it last started over.
    pub(crate) fn wal_bytes(&self) -> u64 {
        self.wal_bytes.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Whether commits must wait for the checkpointer.
    pub(crate) fn wal_is_full(&self) -> bool {
        self.wal_bytes() >= self.config.wal_bytes_max
    }

    /// What waits to be sealed: the larger of what memory holds and what a boot would replay.
    pub(crate) fn unsealed_bytes(&self) -> usize {
        let held = self.memtable_bytes.load(std::sync::atomic::Ordering::Relaxed);
        let log = self.log_bytes.load(std::sync::atomic::Ordering::Relaxed);
        held.max(usize::try_from(log).unwrap_or(usize::MAX))
    }

    /// Whether enough waits to be sealed.
    pub(crate) fn wants_seal(&self) -> bool {
        self.unsealed_bytes() >= self.config.memtable_bytes_max
    }

    /// Whether there is room for what clients write.
    ///
    /// # Errors
    /// So much waits to be uploaded, or to be sealed, that they must wait.
    pub(crate) fn has_room(&self) -> Result<(), request::Error> {
        if self.is_backlogged() {
            return Err(request::Error::Backlogged);
        }
        if self.unsealed_bytes() >= Self::unsealed_bytes_max(&self.config) {
            return Err(request::Error::Busy);
        }
        Ok(())
    }

    /// Whether so much waits to be uploaded that appends must wait too.
    pub(crate) fn is_backlogged(&self) -> bool {
        let waiting = self.backlog.load(std::sync::atomic::Ordering::Relaxed);
        self.bucket.is_some() && waiting >= self.config.backlog_bytes_max
    }

    /// Unsealed bytes at which appends must wait.
    pub(crate) const fn unsealed_bytes_max(config: &Config) -> usize {
        config.memtable_bytes_max.saturating_mul(2)
    }

    pub(crate) fn store_now(&self) -> StoreMs {
        let elapsed = self.world.clock.elapsed().as_millis();
        let elapsed = u64::try_from(elapsed).expect("584 million years of uptime");
        self.store_base.plus(elapsed.saturating_sub(self.started_ms))
    }

    pub(crate) fn durable_link(&self) -> Link {
        *self.durable.lock()
    }

    /// Takes the number of a new file.
    pub(crate) fn new_file(&self) -> SegmentId {
        SegmentId::new(self.next_file.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }

    /// Runs a job on the writer's connection between two commits.
    pub(crate) async fn on_writer<R: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut Connection) -> R + Send + 'static,
    ) -> Result<R, Gone> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |conn: &mut Connection| drop(reply.send(job(conn))));
        let slice = Slice { what, job };
        self.slices.send(slice).await.map_err(|_| Gone)?;
        self.sequencer.work.notify_one();
        answer.await.map_err(|_| Gone)
    }

    /// What `work` gives, or nothing if the store leaves first: a stop waits for whoever merges, and must
    /// not wait for the bucket.
    pub(crate) async fn unless_leaving<R>(&self, work: impl Future<Output = R>) -> Option<R> {
        let mut leaving = self.leaving.subscribe();
        tokio::select! {
            biased;
            _ = leaving.wait_for(|leaving| *leaving) => None,
            done = work => Some(done),
        }
    }

    /// Runs a job where blocking is allowed, with a connection that reads.
    pub(crate) async fn on_reader<R: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Connection) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, Failure> {
        let (core, reader) = (Arc::clone(self), self.readers.enter());
        let ran = tasks::run(&*self.world.blocking, move || {
            reader.ask(|| core.world.sqlite.open(&core.database(), Role::Reader), job)
        });
        ran.await
            .unwrap_or_else(|Gone| Err(Failure::Damaged("the process is shutting down".into())))
    }

    pub(crate) fn database(&self) -> PathBuf {
        database(&self.config)
    }
}

pub(crate) fn database(config: &Config) -> PathBuf {
    config.dir.join(config.layout.database())
}

pub(crate) fn segment_dir(config: &Config) -> PathBuf {
    config.dir.join("segments")
}

pub(crate) fn ledger_dir(config: &Config) -> PathBuf {
    config.dir.join("rows")
}

/// The file of a ledger.
pub(crate) fn ledger_path(config: &Config, id: SegmentId) -> PathBuf {
    ledger_dir(config).join(format!("{:016x}.rows", id.get()))
}

/// The file of a segment.
pub(crate) fn segment_path(config: &Config, id: SegmentId) -> PathBuf {
    segment_dir(config).join(format!("{:016x}.seg", id.get()))
}
