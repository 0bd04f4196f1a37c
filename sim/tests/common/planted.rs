//! Planted defects that must be caught, each by the invariant it breaks, and by a case that holds
//! without it.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use sim::{
    case::Case,
    run::Over,
    sabotage::{Catcher, Sabotage},
};

/// Defects that are looked for at a time.
const JOBS: usize = 2;

/// Overruled choices of the seeds.
pub(crate) type Choices = &'static [(&'static str, &'static str)];

/// As the seeds are.
pub(crate) const ANY: Choices = &[];

/// A planted defect.
pub(crate) struct Planted(
    pub(crate) Sabotage,
    /// The invariant that must catch it. It may show as another one in other seeds: what a lost row
    /// does depends on who asks first.
    pub(crate) &'static str,
    /// A seed that catches it as that today; the others are tried when it does not any more.
    pub(crate) u64,
    pub(crate) Choices,
);

/// Fails unless each of the defects is caught within so many seeds, and with them every one that this
/// catcher must catch.
pub(crate) fn check(catcher: Catcher, over: Over, seeds: u64, defects: &[Planted]) {
    for planted in Sabotage::all().filter(|it| it.catcher() == catcher) {
        assert!(defects.iter().any(|it| it.0 == planted), "{planted:?} is not tested");
    }
    // One child after the other on each core: a defect may take a seed's patience, or none of it.
    let next = AtomicUsize::new(0);
    let turn = || {
        let mut wrong = Vec::new();
        while let Some(planted) = defects.get(next.fetch_add(1, Ordering::Relaxed)) {
            wrong.extend(planted.escapes(over, seeds));
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
    fn escapes(&self, over: Over, seeds: u64) -> Option<String> {
        let Self(defect, id, known, _) = self;
        assert!(*known < seeds, "{defect:?} is to be caught within {seeds} seeds");
        let mut said = Vec::new();
        for seed in [*known].into_iter().chain((0..seeds).filter(|seed| seed != known)) {
            let Some(what) = failure(&self.case(over, seed, *defect)) else { continue };
            if !breaks(&what, id) {
                said.push((seed, what));
                continue;
            }
            if seed != *known {
                println!("{defect:?} as {id}: seed {seed}, {known} does not catch it any more");
            }
            let held = failure(&self.case(over, seed, Sabotage::None));
            return held.map(|what| format!("{seed} fails without {defect:?} too: {what}"));
        }
        Some(format!("{defect:?} escaped {id}: {said:?}"))
    }

    /// A seed with what is planted and, without it, everything else as it was.
    pub(crate) fn case(&self, over: Over, seed: u64, planted: Sabotage) -> Case {
        let there = if self.0.is_of_bucket() { "true" } else { "false" };
        let case = Case::new(seed, over, planted).with("bucket", there);
        self.3.iter().fold(case, |case, (name, value)| case.with(name, value))
    }
}

/// What was said of a case that did not hold.
fn failure(case: &Case) -> Option<String> {
    super::cases(std::slice::from_ref(case), 1).failures.into_values().next()
}

/// Whether an invariant was broken: a check of the simulator says so, or an assertion of the engine.
fn breaks(what: &str, id: &str) -> bool {
    what.starts_with(&format!("{id} "))
        || (what.starts_with("panicked at") && what.contains(&format!(" {id} ")))
}
