//! The checks bite: planted defects are caught, each by the invariant it breaks, and what catches
//! one holds without it.

mod common;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use sim::{case::Case, run::Over, sabotage::Sabotage};

/// Seeds within which a defect must be caught.
const SEEDS: u64 = 64;
/// Defects that are looked for at a time.
const JOBS: usize = 2;

/// Overruled choices of the seeds.
type Choices = &'static [(&'static str, &'static str)];

/// As the seeds are.
const ANY: Choices = &[];
/// Commits that take long, and machines that die in them.
const CUT_OFF: Choices =
    &[("slow_disk", "true"), ("crash_at_op", "true"), ("crash_at_time", "true"), ("think_ms", "5")];
/// Streams that are sealed, folded and forgotten as soon as they are written.
const FORGETFUL: Choices =
    &[("streams_cached_max", "1"), ("seal_age_ms", "50"), ("memtable_bytes_max", "1024")];
const SLOW: Choices = &[("slow_disk", "true")];
/// Two machines on one bucket.
const RIVALS: Choices = &[("rivals", "true")];
/// A bucket whose answers are lost.
const LOSING: Choices = &[("bucket_lost_answers", "true")];
/// An operator recovers a store again and again.
const DRILL: Choices = &[("drill", "true")];

/// A planted defect.
struct Planted(
    Sabotage,
    /// The invariant that must catch it. It may show as another one in other seeds: what a lost row
    /// does depends on who asks first.
    &'static str,
    /// A seed that catches it as that today; the others are tried when it does not any more.
    u64,
    Choices,
);

/// Those that end with INV-20 are files and rows that are not what others say of them. The next start
/// notices, and refuses; nobody is served what is wrong, so nothing else can break first.
const DEFECTS: [Planted; 66] = [
    Planted(Sabotage::LyingFsync, "INV-1", 0, ANY),
    Planted(Sabotage::AckBeforeFsync, "INV-1", 0, ANY),
    Planted(Sabotage::NoDirectorySync, "INV-1", 0, ANY),
    Planted(Sabotage::NoSegmentSync, "INV-20", 0, ANY),
    Planted(Sabotage::NothingRemoved, "INV-14", 0, ANY),
    Planted(Sabotage::CommitsLost, "INV-20", 3, ANY),
    Planted(Sabotage::TrimmedTooEarly, "INV-20", 3, ANY),
    Planted(Sabotage::TrimmedUnpublished, "INV-1", 0, ANY),
    Planted(Sabotage::ReplayStopsShort, "INV-1", 0, ANY),
    Planted(Sabotage::FastClock, "INV-12", 0, ANY),
    Planted(Sabotage::WallForElapsed, "INV-27", 15, ANY),
    Planted(Sabotage::LostJobs, "INV-20", 2, ANY),
    Planted(Sabotage::NoKeeper, "INV-13", 2, ANY),
    Planted(Sabotage::NoCheckpoints, "INV-20", 1, ANY),
    Planted(Sabotage::WalNeverRestarts, "INV-13", 4, ANY),
    Planted(Sabotage::LockIgnored, "INV-29", 0, ANY),
    Planted(Sabotage::DedupeLost, "INV-5", 0, ANY),
    Planted(Sabotage::EpochsLost, "INV-10", 0, ANY),
    Planted(Sabotage::RowsStay, "INV-11", 4, ANY),
    Planted(Sabotage::SegmentRowsLost, "INV-21", 0, ANY),
    Planted(Sabotage::StaleLoad, "INV-11", 56, FORGETFUL),
    Planted(Sabotage::ProducerBeforeSequence, "INV-5", 1, ANY),
    Planted(Sabotage::StaleAfterRecreate, "INV-11", 13, ANY),
    Planted(Sabotage::BellBeforeCommit, "INV-18", 1, SLOW),
    Planted(Sabotage::UndurableDuplicate, "INV-8", 14, CUT_OFF),
    Planted(Sabotage::UndurableRefusal, "INV-11", 4, CUT_OFF),
    Planted(Sabotage::ToldBeforeVisible, "INV-32", 1, ANY),
    Planted(Sabotage::RefusedIsWritten, "INV-15", 4, ANY),
    Planted(Sabotage::ClosedForgotten, "INV-6", 1, FORGETFUL),
    Planted(Sabotage::ReadsSkip, "INV-3", 0, ANY),
    Planted(Sabotage::KeyOverlooked, "INV-17", 0, ANY),
    Planted(Sabotage::SinceTooLate, "INV-9", 0, ANY),
    Planted(Sabotage::RowUnlisted, "INV-19", 0, ANY),
    Planted(Sabotage::SealPassesOver, "INV-7", 0, ANY),
    Planted(Sabotage::SourcesLost, "INV-23", 4, ANY),
    Planted(Sabotage::PointsTooLow, "INV-23", 4, ANY),
    Planted(Sabotage::PointsTooHigh, "INV-24", 0, ANY),
    Planted(Sabotage::RetirementsLost, "INV-11", 1, ANY),
    Planted(Sabotage::ForkRowsStay, "INV-22", 2, ANY),
    Planted(Sabotage::BeginningsTooLate, "INV-31", 4, ANY),
    Planted(Sabotage::TrimsForgotten, "INV-31", 0, ANY),
    Planted(Sabotage::DeathsLost, "INV-30", 9, ANY),
    Planted(Sabotage::LinksLost, "INV-25", 0, ANY),
    Planted(Sabotage::LinksStay, "INV-25", 2, ANY),
    Planted(Sabotage::CursorsTooHigh, "INV-25", 0, ANY),
    Planted(Sabotage::CursorsPublished, "INV-25", 0, ANY),
    Planted(Sabotage::NoWaker, "INV-28", 0, ANY),
    Planted(Sabotage::ControlLost, "INV-26", 1, ANY),
    Planted(Sabotage::ControlLost, "INV-27", 0, ANY),
    Planted(Sabotage::SubscriptionsLost, "INV-1", 1, ANY),
    Planted(Sabotage::BoundaryHidden, "INV-40", 11, RIVALS),
    Planted(Sabotage::SuccessorHidden, "INV-48", 0, RIVALS),
    Planted(Sabotage::UploadsLate, "INV-40", 0, ANY),
    Planted(Sabotage::UploadsCut, "INV-40", 0, ANY),
    Planted(Sabotage::LostIsDone, "INV-40", 9, LOSING),
    Planted(Sabotage::LostIsTaken, "INV-48", 1, ANY),
    Planted(Sabotage::CollectedTooEarly, "INV-41", 0, ANY),
    Planted(Sabotage::TailsLost, "INV-40", 1, ANY),
    Planted(Sabotage::LedgerRowsLost, "INV-40", 0, ANY),
    Planted(Sabotage::LedgerRowsLost, "INV-46", 2, ANY),
    Planted(Sabotage::LedgerRowsLost, "INV-47", 7, ANY),
    Planted(Sabotage::LedgerSkipped, "INV-49", 3, DRILL),
    Planted(Sabotage::OldEra, "INV-42", 0, DRILL),
    Planted(Sabotage::NotClaimed, "INV-43", 3, DRILL),
    Planted(Sabotage::AsideTooEarly, "INV-44", 20, DRILL),
    Planted(Sabotage::VerifyForgets, "INV-45", 0, DRILL),
];

#[test]
fn every_planted_defect_is_caught_by_the_invariant_it_breaks() {
    for planted in Sabotage::ALL {
        assert!(DEFECTS.iter().any(|it| it.0 == planted), "{planted:?} is not tested");
    }
    // One child after the other on each core: a defect may take a seed's patience, or none of it.
    let next = AtomicUsize::new(0);
    let turn = || {
        let mut wrong = Vec::new();
        while let Some(planted) = DEFECTS.get(next.fetch_add(1, Ordering::Relaxed)) {
            wrong.extend(planted.escapes());
        }
        wrong
    };
    let escaped: Vec<String> = thread::scope(|scope| {
        let jobs: Vec<_> = (0..JOBS).map(|_| scope.spawn(turn)).collect();
        jobs.into_iter().flat_map(|job| job.join().expect("it does not panic")).collect()
    });
    assert!(escaped.is_empty(), "{}", escaped.join("\n"));
}

impl Planted {
    /// What the seeds said, if none of them caught the defect, or if the one that did fails without.
    fn escapes(&self) -> Option<String> {
        let Self(defect, id, known, _) = self;
        assert!(*known < SEEDS, "{defect:?} is to be caught within {SEEDS} seeds");
        let mut said = Vec::new();
        for seed in [*known].into_iter().chain((0..SEEDS).filter(|seed| seed != known)) {
            let Some(what) = failure(&self.case(seed, *defect)) else { continue };
            if !breaks(&what, id) {
                said.push((seed, what));
                continue;
            }
            let held = failure(&self.case(seed, Sabotage::None));
            return held.map(|what| format!("{seed} fails without {defect:?} too: {what}"));
        }
        Some(format!("{defect:?} escaped {id}: {said:?}"))
    }

    /// A seed with what is planted and, without it, everything else as it was.
    fn case(&self, seed: u64, planted: Sabotage) -> Case {
        let there = if self.0.is_of_bucket() { "true" } else { "false" };
        let case = Case::new(seed, Over::Engine, planted).with("bucket", there);
        self.3.iter().fold(case, |case, (name, value)| case.with(name, value))
    }
}

/// What was said of a case that did not hold.
fn failure(case: &Case) -> Option<String> {
    common::cases(std::slice::from_ref(case), 1).failures.into_values().next()
}

/// Whether an invariant was broken: a check of the simulator says so, or an assertion of the engine.
fn breaks(what: &str, id: &str) -> bool {
    what.starts_with(&format!("{id} "))
        || (what.starts_with("panicked at") && what.contains(&format!(" {id} ")))
}
