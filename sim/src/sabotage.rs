//! Planted defects, to prove that the checks bite: each replaces one injected part of the world
//! by one that lies; a few lie in the engine's own order, and are a value of the world. None of them
//! is reachable but from the simulator's command line.

mod liars;

use std::sync::{Arc, atomic::AtomicU64};

use clap::ValueEnum as _;
use weir_io::{Sabotage as Inside, World, os::OsEntropy};

use self::liars::{LosingJobs, LyingClock, LyingDisk, LyingSqlite, forgetting};
use crate::bucket;

/// A defect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// None.
    #[default]
    None,
    /// The drive says that it synced and did not.
    LyingFsync,
    /// SQLite commits without a sync: an acknowledgement before durability.
    AckBeforeFsync,
    /// Directories are never synced.
    NoDirectorySync,
    /// Segment files are never synced.
    NoSegmentSync,
    /// Removed files stay.
    NothingRemoved,
    /// Elapsed time runs four times too fast.
    FastClock,
    /// Elapsed time follows the wall clock's jumps.
    WallForElapsed,
    /// Every 200th blocking job never runs.
    LostJobs,
    /// Producers' states are not stored.
    DedupeLost,
    /// The epochs of deleted names are not stored.
    EpochsLost,
    /// Rows of deleted streams stay.
    RowsStay,
    /// Rows of segments are not stored.
    SegmentRowsLost,
    /// Every 50th commit is not stored.
    CommitsLost,
    /// The log is trimmed as soon as it is written.
    TrimmedTooEarly,
    /// What forks come from is not stored where merges look.
    SourcesLost,
    /// Forks are stored as if they drew on one record less.
    PointsTooLow,
    /// That a deleted stream is kept for its forks is not stored.
    RetirementsLost,
    /// Rows of forks that have ended stay.
    ForkRowsStay,
    /// What subscriptions have to do is not stored.
    LinksLost,
    /// What workers have done is not stored.
    LinksStay,
    /// Wakes and leases of subscriptions are not stored.
    ControlLost,
    /// Subscriptions are not stored.
    SubscriptionsLost,
    /// A publisher that was away is told that every slot is still kept.
    BoundaryHidden,
    /// A collector is told that it is still the writer.
    SuccessorHidden,
    /// Files are said to be in the bucket before they are.
    UploadsLate,
    /// Files lose their end on their way into the bucket.
    UploadsCut,
    /// An upload whose answer was lost is taken for done.
    LostIsDone,
    /// A manifest whose answer was lost is taken for somebody else's.
    LostIsTaken,
    /// Objects are collected without waiting.
    CollectedTooEarly,
    /// Ledgers lack the commits that came while they were written.
    TailsLost,
    /// Every third row of ledgers is not stored.
    LedgerRowsLost,
    /// Streams are stored as if they began a few records later.
    BeginningsTooLate,
    /// When streams are to be trimmed is not stored.
    TrimsForgotten,
    /// When records died is not stored.
    DeathsLost,
    /// The lock of the directory is always granted.
    LockIgnored,
    /// A start does not see the last commit of the log.
    ReplayStopsShort,
    /// What workers have acked is stored as the tail of the stream.
    CursorsTooHigh,
    /// Nothing is sealed or ended by itself.
    NoKeeper,
    /// Nobody is woken.
    NoWaker,
    /// Nothing of the WAL is ever moved into the database.
    NoCheckpoints,
    /// Live readers are woken before the commit.
    BellBeforeCommit,
    /// A repeated request is answered before what it repeats is durable.
    UndurableDuplicate,
    /// A refusal is told before what it rests on is durable.
    UndurableRefusal,
    /// What a fold has overtaken is shelved.
    StaleLoad,
    /// A producer counts as having written before its request's `Stream-Seq` is looked at.
    ProducerBeforeSequence,
    /// Under a name that was created anew the shelf goes on saying that nobody has it.
    StaleAfterRecreate,
    /// What is looked up of a stream says that it is open.
    ClosedForgotten,
    /// Reads by key pass over the first record that they come to in a block.
    KeyOverlooked,
    /// A search by time ends one record late.
    SinceTooLate,
    /// A list leaves out a row.
    RowUnlisted,
    /// Requests are answered a moment before what they did can be seen.
    ToldBeforeVisible,
    /// An append that its `Stream-Seq` refuses is written all the same.
    RefusedIsWritten,
    /// A seal passes over a run of records.
    SealPassesOver,
    /// Readers see what is written before it is durable.
    VisibleBeforeDurable,
    /// A damaged block has the right checksums.
    ForgedChecksums,
    /// Forks draw on one record more than they were asked to.
    PointsTooHigh,
    /// Reads begin one record after where they were asked to.
    ReadsSkip,
    /// Checkpoints run, and a reader that never ends keeps the WAL from starting over.
    WalNeverRestarts,
    /// The log is trimmed as soon as a ledger has it, before a manifest names that.
    TrimmedUnpublished,
    /// Ledgers, and so manifests, say of subscriptions that everything was acked.
    CursorsPublished,
    /// A recovery does not look at the newest ledger's rows.
    LedgerSkipped,
    /// A recovery goes on in the era before.
    OldEra,
    /// A recovery does not claim the bucket.
    NotClaimed,
    /// A recovery sets the old store aside before the new one is made.
    AsideTooEarly,
    /// Whoever verifies forgets deleted names.
    VerifyForgets,
    /// Of the tasks that slept while the process was stopped, every third never wakes.
    TasksOversleep,
    /// What a reset cuts off a request's body is made up.
    TornBodies,
    /// Whatever a reader does not take is kept for it in memory.
    EndlessBuffers,
    /// While one reader takes nothing, nobody else is answered.
    WritersWait,
    /// After some hundred connections nobody is let in any more.
    DeafAfterMany,
    /// Every second webhook is said to be done, and nobody is called.
    CallsFeigned,
    /// Answers say of every stream that it begins with its very first record.
    BeginningsUntold,
    /// Tags of pages name neither the life nor the epoch that they are of.
    TagsOfNoLife,
    /// The store's chance is the operating system's, not the seed's.
    RealChance,
}

/// What must catch a defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catcher {
    /// A check, in a seed whose clients talk to the engine.
    Engine,
    /// A check, in a seed whose clients talk HTTP.
    Town,
    /// Two runs of a seed, of which neither does anything wrong.
    Meta,
}

impl Sabotage {
    /// Every defect.
    pub fn all() -> impl Iterator<Item = Sabotage> {
        Self::value_variants().iter().copied().filter(|it| *it != Self::None)
    }

    /// What must catch it. Each of them has a test that names all that it must catch.
    #[must_use]
    pub const fn catcher(self) -> Catcher {
        match self {
            Self::RealChance => Catcher::Meta,
            Self::TasksOversleep
            | Self::TornBodies
            | Self::EndlessBuffers
            | Self::WritersWait
            | Self::DeafAfterMany
            | Self::CallsFeigned
            | Self::BeginningsUntold
            | Self::TagsOfNoLife => Catcher::Town,
            _ => Catcher::Engine,
        }
    }

    /// Whether it shows only where there is a bucket.
    #[must_use]
    pub const fn is_of_bucket(self) -> bool {
        bucket::sabotage(self)
            || matches!(
                self,
                Self::CollectedTooEarly
                    | Self::TailsLost
                    | Self::LedgerRowsLost
                    | Self::TrimmedUnpublished
                    | Self::CursorsPublished
                    | Self::LedgerSkipped
                    | Self::OldEra
                    | Self::NotClaimed
                    | Self::AsideTooEarly
                    | Self::VerifyForgets
            )
    }

    /// The world with the defect in it.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table: in which part a defect lies")]
    pub fn plant(self, mut world: World) -> World {
        match self {
            // They lie between the store and its bucket.
            Sabotage::BoundaryHidden
            | Sabotage::SuccessorHidden
            | Sabotage::UploadsLate
            | Sabotage::UploadsCut
            | Sabotage::LostIsDone
            | Sabotage::LostIsTaken => {}
            // Those of a town are planted in its network.
            Sabotage::None
            | Sabotage::LyingFsync
            | Sabotage::TasksOversleep
            | Sabotage::TornBodies
            | Sabotage::EndlessBuffers
            | Sabotage::WritersWait
            | Sabotage::DeafAfterMany
            | Sabotage::CallsFeigned
            | Sabotage::BeginningsUntold
            | Sabotage::TagsOfNoLife => {}
            Sabotage::NoDirectorySync
            | Sabotage::NoSegmentSync
            | Sabotage::NothingRemoved
            | Sabotage::LockIgnored => {
                world.disk = Arc::new(LyingDisk { disk: world.disk, defect: self });
            }
            Sabotage::FastClock | Sabotage::WallForElapsed => {
                world.clock = Arc::new(LyingClock { clock: world.clock, defect: self });
            }
            Sabotage::LostJobs => {
                let count = AtomicU64::new(0);
                world.blocking = Arc::new(LosingJobs { blocking: world.blocking, count });
            }
            Sabotage::RealChance => {
                world.entropy = Arc::new(OsEntropy::new().expect("the system has chance to give"));
            }
            Sabotage::NoKeeper => world.tasks = forgetting(world.tasks, "keeper"),
            Sabotage::NoWaker => world.tasks = forgetting(world.tasks, "waker"),
            Sabotage::NoCheckpoints => world.tasks = forgetting(world.tasks, "checkpoint"),
            Sabotage::BellBeforeCommit
            | Sabotage::UndurableDuplicate
            | Sabotage::UndurableRefusal
            | Sabotage::StaleLoad
            | Sabotage::ProducerBeforeSequence
            | Sabotage::StaleAfterRecreate
            | Sabotage::ClosedForgotten
            | Sabotage::KeyOverlooked
            | Sabotage::SinceTooLate
            | Sabotage::RowUnlisted
            | Sabotage::ToldBeforeVisible
            | Sabotage::RefusedIsWritten
            | Sabotage::SealPassesOver
            | Sabotage::VisibleBeforeDurable
            | Sabotage::PointsTooHigh
            | Sabotage::ReadsSkip
            | Sabotage::LedgerSkipped
            | Sabotage::OldEra
            | Sabotage::NotClaimed
            | Sabotage::AsideTooEarly => world.sabotage = self.inside(),
            Sabotage::AckBeforeFsync
            | Sabotage::ForgedChecksums
            | Sabotage::DedupeLost
            | Sabotage::EpochsLost
            | Sabotage::RowsStay
            | Sabotage::SegmentRowsLost
            | Sabotage::CommitsLost
            | Sabotage::TrimmedTooEarly
            | Sabotage::SourcesLost
            | Sabotage::PointsTooLow
            | Sabotage::RetirementsLost
            | Sabotage::ForkRowsStay
            | Sabotage::LinksLost
            | Sabotage::LinksStay
            | Sabotage::ControlLost
            | Sabotage::SubscriptionsLost
            | Sabotage::CollectedTooEarly
            | Sabotage::TailsLost
            | Sabotage::LedgerRowsLost
            | Sabotage::BeginningsTooLate
            | Sabotage::TrimsForgotten
            | Sabotage::DeathsLost
            | Sabotage::ReplayStopsShort
            | Sabotage::CursorsTooHigh
            | Sabotage::WalNeverRestarts
            | Sabotage::TrimmedUnpublished
            | Sabotage::CursorsPublished
            | Sabotage::VerifyForgets => {
                world.sqlite = Arc::new(LyingSqlite::new(world.sqlite, self));
            }
        }
        world
    }

    /// A defect that lies in the engine's own order.
    const fn inside(self) -> Inside {
        match self {
            Sabotage::BellBeforeCommit => Inside::BellBeforeCommit,
            Sabotage::UndurableDuplicate => Inside::UndurableDuplicate,
            Sabotage::UndurableRefusal => Inside::UndurableRefusal,
            Sabotage::StaleLoad => Inside::StaleLoad,
            Sabotage::ProducerBeforeSequence => Inside::ProducerBeforeSequence,
            Sabotage::StaleAfterRecreate => Inside::StaleAfterRecreate,
            Sabotage::ClosedForgotten => Inside::ClosedForgotten,
            Sabotage::KeyOverlooked => Inside::KeyOverlooked,
            Sabotage::SinceTooLate => Inside::SinceTooLate,
            Sabotage::RowUnlisted => Inside::RowUnlisted,
            Sabotage::ToldBeforeVisible => Inside::ToldBeforeVisible,
            Sabotage::RefusedIsWritten => Inside::RefusedIsWritten,
            Sabotage::VisibleBeforeDurable => Inside::VisibleBeforeDurable,
            Sabotage::SealPassesOver => Inside::SealPassesOver,
            Sabotage::PointsTooHigh => Inside::PointsTooHigh,
            Sabotage::ReadsSkip => Inside::ReadsSkip,
            Sabotage::LedgerSkipped => Inside::LedgerSkipped,
            Sabotage::OldEra => Inside::OldEra,
            Sabotage::NotClaimed => Inside::NotClaimed,
            Sabotage::AsideTooEarly => Inside::AsideTooEarly,
            _ => Inside::None,
        }
    }

    /// What a writer's connection is made to do.
    fn statement(self) -> Option<String> {
        Some(match (self.lost(), self) {
            (Some(lost), _) => {
                format!("CREATE TEMP TRIGGER defect BEFORE {lost} BEGIN SELECT RAISE(IGNORE); END")
            }
            (None, Sabotage::AckBeforeFsync) => "PRAGMA synchronous=OFF".to_owned(),
            (None, Sabotage::TrimmedTooEarly) => {
                "CREATE TEMP TRIGGER defect AFTER INSERT ON main.log
                 BEGIN DELETE FROM main.log WHERE lsn < new.lsn - 20; END"
                    .to_owned()
            }
            (None, Sabotage::SourcesLost) => {
                "CREATE TEMP TRIGGER defect AFTER INSERT ON main.streams
                 WHEN new.source IS NOT NULL
                 BEGIN UPDATE streams SET source = NULL WHERE id = new.id; END"
                    .to_owned()
            }
            (None, Sabotage::PointsTooLow) => {
                "CREATE TEMP TRIGGER defect AFTER INSERT ON main.streams WHEN new.fork_at > 0
                 BEGIN UPDATE streams SET fork_at = fork_at - 1 WHERE id = new.id; END"
                    .to_owned()
            }
            (None, Sabotage::TrimmedUnpublished) => {
                "CREATE TEMP TRIGGER defect AFTER INSERT ON main.ledgers
                 BEGIN DELETE FROM log; END"
                    .to_owned()
            }
            (None, Sabotage::CollectedTooEarly) => {
                "CREATE TEMP TRIGGER defect AFTER UPDATE ON main.garbage WHEN new.retired > 0
                 BEGIN UPDATE garbage SET retired = 0 WHERE key = new.key; END"
                    .to_owned()
            }
            (None, Sabotage::BeginningsTooLate) => {
                "CREATE TEMP TRIGGER defect AFTER UPDATE OF earliest ON main.streams
                 WHEN new.earliest > old.earliest
                 BEGIN UPDATE streams SET earliest = earliest + 3 WHERE id = new.id; END"
                    .to_owned()
            }
            (None, Sabotage::TrimsForgotten) => {
                "CREATE TEMP TRIGGER defect AFTER UPDATE OF due_trim ON main.streams
                 WHEN new.due_trim IS NOT NULL
                 BEGIN UPDATE streams SET due_trim = NULL WHERE id = new.id; END"
                    .to_owned()
            }
            (None, Sabotage::ReplayStopsShort) => {
                "DELETE FROM log WHERE lsn = (SELECT max(lsn) FROM log)".to_owned()
            }
            (None, Sabotage::CursorsTooHigh) => {
                // Version, kind and stream, then the acked and the last offset: an epoch and a
                // position each, all of them numbers of one byte.
                "CREATE TEMP TRIGGER defect AFTER INSERT ON main.links WHEN length(new.row) = 7
                 BEGIN UPDATE links
                 SET row = CAST(substr(row, 1, 3) || substr(row, 6, 2) || substr(row, 6, 2) AS BLOB)
                 WHERE subscription = new.subscription AND path = new.path; END"
                    .to_owned()
            }
            (None, _) => return None,
        })
    }

    /// Which changes of the catalogue never happen, as a trigger names them.
    const fn lost(self) -> Option<&'static str> {
        Some(match self {
            Sabotage::DedupeLost => "INSERT ON main.producers",
            Sabotage::EpochsLost => "INSERT ON main.tombstones",
            Sabotage::RowsStay => "DELETE ON main.streams",
            Sabotage::SegmentRowsLost => "INSERT ON main.segments",
            Sabotage::CommitsLost => "INSERT ON main.log WHEN new.lsn % 50 = 0",
            Sabotage::RetirementsLost => "UPDATE ON main.streams WHEN new.retired",
            Sabotage::ForkRowsStay => "DELETE ON main.streams WHEN old.source IS NOT NULL",
            Sabotage::LinksLost => "INSERT ON main.links",
            Sabotage::LinksStay => "DELETE ON main.links",
            Sabotage::ControlLost => "UPDATE ON main.subscriptions",
            Sabotage::SubscriptionsLost => "INSERT ON main.subscriptions",
            Sabotage::LedgerRowsLost => "INSERT ON main.ledgers WHEN new.id % 3 = 0",
            Sabotage::DeathsLost => "INSERT ON main.deaths",
            _ => return None,
        })
    }
}
