//! The checks bite: planted defects are caught, each by the invariant it breaks, and what catches
//! one holds without it.

mod common;

use common::planted::{self, ANY, Choices, Planted};
use sim::{
    run::Over,
    sabotage::{Catcher, Sabotage},
};

/// Seeds within which a defect must be caught.
const SEEDS: u64 = 96;

/// Commits that take long, and machines that die in them.
const CUT_OFF: Choices =
    &[("slow_disk", "true"), ("crash_at_op", "true"), ("crash_at_time", "true"), ("think_ms", "5")];
/// Streams that are sealed, folded and forgotten as soon as they are written.
const FORGETFUL: Choices =
    &[("streams_cached_max", "1"), ("seal_age_ms", "50"), ("memtable_bytes_max", "1024")];
/// A bit of a file flips at the end.
const FLIPPED: Choices = &[("bit_flip", "true"), ("one_file", "false")];
/// A bucket, and machines that die in the middle of something.
const PUBLISHING: Choices =
    &[("bucket", "true"), ("crash_at_op", "true"), ("crash_at_time", "true")];
const SLOW: Choices = &[("slow_disk", "true")];
/// Two machines on one bucket.
const RIVALS: Choices = &[("rivals", "true")];
/// A bucket whose answers are lost.
const LOSING: Choices = &[("bucket_lost_answers", "true")];
/// An operator recovers a store again and again.
const DRILL: Choices = &[("drill", "true")];

/// Those that end with INV-20 are files and rows that are not what others say of them. The next start
/// notices, and refuses; nobody is served what is wrong, so nothing else can break first.
const DEFECTS: [Planted; 68] = [
    Planted(Sabotage::LyingFsync, "INV-1", 0, ANY),
    Planted(Sabotage::AckBeforeFsync, "INV-1", 6, ANY),
    Planted(Sabotage::NoDirectorySync, "INV-1", 0, ANY),
    Planted(Sabotage::NoSegmentSync, "INV-21", 0, ANY),
    Planted(Sabotage::NothingRemoved, "INV-14", 1, ANY),
    Planted(Sabotage::CommitsLost, "INV-20", 3, ANY),
    Planted(Sabotage::TrimmedTooEarly, "INV-20", 3, ANY),
    Planted(Sabotage::TrimmedUnpublished, "INV-1", 30, PUBLISHING),
    Planted(Sabotage::ReplayStopsShort, "INV-1", 1, ANY),
    Planted(Sabotage::FastClock, "INV-12", 1, ANY),
    Planted(Sabotage::WallForElapsed, "INV-27", 4, ANY),
    Planted(Sabotage::LostJobs, "INV-20", 2, ANY),
    Planted(Sabotage::NoKeeper, "INV-13", 2, ANY),
    Planted(Sabotage::NoCheckpoints, "INV-20", 1, ANY),
    Planted(Sabotage::WalNeverRestarts, "INV-13", 4, ANY),
    Planted(Sabotage::LockIgnored, "INV-29", 4, ANY),
    Planted(Sabotage::DedupeLost, "INV-5", 1, ANY),
    Planted(Sabotage::EpochsLost, "INV-10", 1, ANY),
    Planted(Sabotage::RowsStay, "INV-11", 4, ANY),
    Planted(Sabotage::SegmentRowsLost, "INV-21", 0, ANY),
    Planted(Sabotage::ForgedChecksums, "INV-21", 0, FLIPPED),
    Planted(Sabotage::VisibleBeforeDurable, "INV-2", 19, CUT_OFF),
    Planted(Sabotage::StaleLoad, "INV-11", 56, FORGETFUL),
    Planted(Sabotage::ProducerBeforeSequence, "INV-5", 1, ANY),
    Planted(Sabotage::StaleAfterRecreate, "INV-11", 27, ANY),
    Planted(Sabotage::BellBeforeCommit, "INV-18", 15, SLOW),
    Planted(Sabotage::UndurableDuplicate, "INV-8", 52, CUT_OFF),
    Planted(Sabotage::UndurableRefusal, "INV-11", 9, CUT_OFF),
    Planted(Sabotage::ToldBeforeVisible, "INV-32", 1, ANY),
    Planted(Sabotage::RefusedIsWritten, "INV-15", 4, ANY),
    Planted(Sabotage::ClosedForgotten, "INV-6", 1, FORGETFUL),
    Planted(Sabotage::ReadsSkip, "INV-3", 1, ANY),
    Planted(Sabotage::KeyOverlooked, "INV-17", 4, ANY),
    Planted(Sabotage::SinceTooLate, "INV-9", 4, ANY),
    Planted(Sabotage::RowUnlisted, "INV-19", 0, ANY),
    Planted(Sabotage::SealPassesOver, "INV-7", 1, ANY),
    Planted(Sabotage::SourcesLost, "INV-23", 4, ANY),
    Planted(Sabotage::PointsTooLow, "INV-23", 4, ANY),
    Planted(Sabotage::PointsTooHigh, "INV-24", 1, ANY),
    Planted(Sabotage::RetirementsLost, "INV-11", 1, ANY),
    Planted(Sabotage::ForkRowsStay, "INV-22", 2, ANY),
    Planted(Sabotage::BeginningsTooLate, "INV-31", 4, ANY),
    Planted(Sabotage::TrimsForgotten, "INV-31", 1, ANY),
    Planted(Sabotage::DeathsLost, "INV-30", 9, ANY),
    Planted(Sabotage::LinksLost, "INV-25", 2, ANY),
    Planted(Sabotage::LinksStay, "INV-25", 2, ANY),
    Planted(Sabotage::CursorsTooHigh, "INV-25", 1, ANY),
    Planted(Sabotage::CursorsPublished, "INV-25", 0, ANY),
    Planted(Sabotage::NoWaker, "INV-28", 0, ANY),
    Planted(Sabotage::ControlLost, "INV-26", 1, ANY),
    Planted(Sabotage::ControlLost, "INV-27", 2, ANY),
    Planted(Sabotage::SubscriptionsLost, "INV-26", 10, ANY),
    Planted(Sabotage::BoundaryHidden, "INV-40", 79, RIVALS),
    Planted(Sabotage::SuccessorHidden, "INV-48", 0, RIVALS),
    Planted(Sabotage::UploadsLate, "INV-40", 0, ANY),
    Planted(Sabotage::UploadsCut, "INV-40", 0, ANY),
    Planted(Sabotage::LostIsDone, "INV-40", 9, LOSING),
    Planted(Sabotage::LostIsTaken, "INV-48", 1, ANY),
    Planted(Sabotage::CollectedTooEarly, "INV-41", 0, ANY),
    Planted(Sabotage::TailsLost, "INV-40", 1, ANY),
    Planted(Sabotage::LedgerRowsLost, "INV-40", 1, ANY),
    Planted(Sabotage::LedgerRowsLost, "INV-46", 0, ANY),
    Planted(Sabotage::LedgerRowsLost, "INV-47", 2, ANY),
    Planted(Sabotage::LedgerSkipped, "INV-49", 3, DRILL),
    Planted(Sabotage::OldEra, "INV-42", 0, DRILL),
    Planted(Sabotage::NotClaimed, "INV-43", 3, DRILL),
    Planted(Sabotage::AsideTooEarly, "INV-44", 20, DRILL),
    Planted(Sabotage::VerifyForgets, "INV-45", 10, DRILL),
];

#[test]
fn every_planted_defect_is_caught_by_the_invariant_it_breaks() {
    planted::check(Catcher::Engine, Over::Engine, SEEDS, &DEFECTS);
}
