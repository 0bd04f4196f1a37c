//! The checks bite: planted defects are caught, each by the invariant it breaks.

mod common;

use sim::{case::Case, run::Over, sabotage::Sabotage};

/// Seeds within which a defect must be caught.
const SEEDS: u64 = 64;
/// Seeds that are run before it is looked whether it was.
const AT_ONCE: usize = 4;

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

/// Defects, the invariants of which one must catch each, and where it is looked for.
const DEFECTS: [(Sabotage, &[&str], Choices); 46] = [
    (Sabotage::LyingFsync, &["INV-1", "INV-20"], ANY),
    (Sabotage::AckBeforeFsync, &["INV-1"], ANY),
    (Sabotage::NoDirectorySync, &["INV-1", "INV-20"], ANY),
    (Sabotage::NoSegmentSync, &["INV-20", "INV-21"], ANY),
    (Sabotage::NothingRemoved, &["INV-14"], ANY),
    (Sabotage::CommitsLost, &["INV-1", "INV-20"], ANY),
    (Sabotage::TrimmedTooEarly, &["INV-1", "INV-20"], ANY),
    (Sabotage::ReplayStopsShort, &["INV-1"], ANY),
    (Sabotage::FastClock, &["INV-12"], ANY),
    (Sabotage::WallForElapsed, &["INV-12", "INV-27"], ANY),
    (Sabotage::LostJobs, &["INV-20"], ANY),
    (Sabotage::NoKeeper, &["INV-12", "INV-13"], ANY),
    (Sabotage::NoCheckpoints, &["INV-13", "INV-20"], ANY),
    (Sabotage::LockIgnored, &["INV-29"], ANY),
    (Sabotage::DedupeLost, &["INV-5"], ANY),
    (Sabotage::EpochsLost, &["INV-10", "INV-11"], ANY),
    (Sabotage::RowsStay, &["INV-10", "INV-11", "INV-21"], ANY),
    (Sabotage::SegmentRowsLost, &["INV-1", "INV-21"], ANY),
    (Sabotage::StaleLoad, &["INV-1", "INV-4", "INV-11", "INV-23"], FORGETFUL),
    (Sabotage::ProducerBeforeSequence, &["INV-1", "INV-5", "INV-8"], ANY),
    (Sabotage::StaleAfterRecreate, &["INV-1", "INV-4", "INV-11"], ANY),
    (Sabotage::BellBeforeCommit, &["INV-18"], SLOW),
    (Sabotage::UndurableDuplicate, &["INV-1", "INV-2", "INV-8", "INV-28"], CUT_OFF),
    (Sabotage::UndurableRefusal, &["INV-1", "INV-2", "INV-11"], CUT_OFF),
    (Sabotage::SourcesLost, &["INV-23"], ANY),
    (Sabotage::PointsTooLow, &["INV-23"], ANY),
    (Sabotage::RetirementsLost, &["INV-11", "INV-22"], ANY),
    (Sabotage::ForkRowsStay, &["INV-11", "INV-22"], ANY),
    (Sabotage::BeginningsTooLate, &["INV-23", "INV-31"], ANY),
    (Sabotage::TrimsForgotten, &["INV-31"], ANY),
    (Sabotage::DeathsLost, &["INV-30"], ANY),
    (Sabotage::LinksLost, &["INV-25", "INV-28"], ANY),
    (Sabotage::LinksStay, &["INV-25"], ANY),
    (Sabotage::CursorsTooHigh, &["INV-25"], ANY),
    (Sabotage::NoWaker, &["INV-28"], ANY),
    (Sabotage::ControlLost, &["INV-26", "INV-27"], ANY),
    (Sabotage::SubscriptionsLost, &["INV-1", "INV-20"], ANY),
    (Sabotage::BoundaryHidden, &["INV-40", "INV-48"], RIVALS),
    (Sabotage::SuccessorHidden, &["INV-20", "INV-40", "INV-41", "INV-48"], RIVALS),
    (Sabotage::UploadsLate, &["INV-40", "INV-41"], ANY),
    (Sabotage::UploadsCut, &["INV-40"], ANY),
    (Sabotage::LostIsDone, &["INV-40"], LOSING),
    (Sabotage::LostIsTaken, &["INV-48"], ANY),
    (Sabotage::CollectedTooEarly, &["INV-40", "INV-41"], ANY),
    (Sabotage::TailsLost, &["INV-40"], ANY),
    (Sabotage::LedgerRowsLost, &["INV-46", "INV-47"], ANY),
];

#[test]
fn every_planted_defect_is_caught_by_the_invariant_it_breaks() {
    for planted in Sabotage::ALL {
        assert!(DEFECTS.iter().any(|(defect, ..)| *defect == planted), "{planted:?} is not tested");
    }
    let escaped: Vec<String> =
        DEFECTS.iter().filter_map(|(defect, ids, choices)| escape(*defect, ids, choices)).collect();
    assert!(escaped.is_empty(), "{}", escaped.join("\n"));
}

/// What the seeds said, if none of them caught the defect.
fn escape(defect: Sabotage, invariants: &[&str], choices: Choices) -> Option<String> {
    let case = |seed| {
        let case = Case::new(seed, Over::Engine, defect);
        choices.iter().fold(case, |case, (name, value)| case.with(name, value))
    };
    let cases: Vec<Case> = (0..SEEDS).map(case).collect();
    let mut said = Vec::new();
    for cases in cases.chunks(AT_ONCE) {
        let swarm = common::cases(cases, 2);
        let caught =
            |what: &String| invariants.iter().any(|id| what.starts_with(&format!("{id} ")));
        if swarm.failures.values().any(caught) {
            return None;
        }
        said.extend(swarm.failures);
    }
    Some(format!("{defect:?} escaped: {said:?}"))
}
