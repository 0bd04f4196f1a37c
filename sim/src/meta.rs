//! Whether a seed reproduces everything: each case runs in two processes, behind other cases, and
//! both must have done the same, and complained of the same if they did not hold. If not, both are run
//! again as they were and the first line in which their traces differ is shown.

use std::{fmt, path::Path};

use crate::{
    case::Case,
    swarm::{self, Swarm},
};

/// Children that run the cases the first time; the second time all are in one.
const JOBS: usize = 2;
/// Differing cases that are looked into.
const SHOWN_MAX: usize = 3;
/// Lines before and after the first difference that are shown.
const BEFORE: usize = 12;
const AFTER: usize = 3;

/// What two runs of each case came to.
#[derive(Debug)]
pub struct Compared {
    /// The first run.
    pub one: Swarm,
    /// Seeds that did not do the same twice, and what is to be said of them.
    pub differing: Vec<(u64, String)>,
    /// Seeds that failed twice, with the same complaint.
    pub failed: Vec<u64>,
}

/// Runs every case twice.
///
/// # Errors
/// A child could not be started.
pub fn compare(exe: &Path, cases: &[Case]) -> anyhow::Result<Compared> {
    let one = swarm::run(exe, cases, JOBS)?;
    let two = swarm::run(exe, cases, 1)?;
    let (mut differing, mut failed) = (Vec::new(), Vec::new());
    for case in cases {
        let (first, second) = (Outcome::of(&one, case.seed), Outcome::of(&two, case.seed));
        if first != second {
            let mut what = format!("{case}: {first} and {second}\n");
            if differing.len() < SHOWN_MAX {
                what.push_str(&look_into(exe, cases, case.seed)?);
            }
            differing.push((case.seed, what));
        } else if !matches!(first, Outcome::Held(_)) {
            failed.push(case.seed);
        }
    }
    Ok(Compared { one, differing, failed })
}

/// What one run of a case came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome<'a> {
    /// The hash of all that happened.
    Held(u64),
    /// The complaint.
    Failed(&'a str),
    /// Nobody said a word of it.
    Untold,
}

impl Outcome<'_> {
    fn of(swarm: &Swarm, seed: u64) -> Outcome<'_> {
        // A child may tell that a case held and die of it.
        match (swarm.failures.get(&seed), swarm.hashes.get(&seed)) {
            (Some(complaint), _) => Outcome::Failed(complaint),
            (None, Some(hash)) => Outcome::Held(*hash),
            (None, None) => Outcome::Untold,
        }
    }
}

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Held(hash) => write!(f, "held, {hash:016x}"),
            Outcome::Failed(complaint) => write!(f, "failed, {complaint}"),
            Outcome::Untold => f.write_str("nothing"),
        }
    }
}

/// Runs a case again in both of its companies, with traces.
fn look_into(exe: &Path, cases: &[Case], seed: u64) -> anyhow::Result<String> {
    let traced = |jobs| swarm::trace(exe, &swarm::company(cases, jobs, seed));
    let (one, two) = (traced(JOBS)?, traced(1)?);
    let same = || format!("traced, both did the same, in {} lines\n", one.len());
    Ok(first_difference(&one, &two).unwrap_or_else(same))
}

/// The first lines of two traces that differ, with what came before and after them.
#[must_use]
pub fn first_difference(one: &[String], two: &[String]) -> Option<String> {
    let most = one.len().max(two.len());
    let at = (0..most).find(|at| one.get(*at) != two.get(*at))?;
    let mut told = format!("the first difference is in line {}:\n", at + 1);
    let mut tell = |mark: &str, lines: &[String], from: usize, limit: usize| {
        for line in lines.iter().take(limit).skip(from) {
            told.push_str(&format!("{mark} {line}\n"));
        }
    };
    tell(" ", one, at.saturating_sub(BEFORE), at);
    tell("-", one, at, at + 1 + AFTER);
    tell("+", two, at, at + 1 + AFTER);
    Some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_came_to_is_its_hash_or_its_complaint() {
        let mut swarm = Swarm::default();
        swarm.hashes.extend([(1, 7), (2, 7)]);
        swarm.failures.insert(2, "INV-1 acked is kept: one".to_owned());
        swarm.failures.insert(3, "INV-1 acked is kept: two".to_owned());
        let said = [1, 2, 3, 4].map(|seed| Outcome::of(&swarm, seed).to_string());
        let failed = "failed, INV-1 acked is kept:";
        assert_eq!(said[0], "held, 0000000000000007");
        assert_eq!(said[1..], [format!("{failed} one"), format!("{failed} two"), "nothing".into()]);
        assert_ne!(Outcome::of(&swarm, 2), Outcome::of(&swarm, 3), "one invariant, two complaints");
    }

    #[test]
    fn the_first_difference_is_shown_with_what_led_to_it() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (one, two, expect) in [
            ("a b c", "a b c", None),
            ("a b c", "a x c", Some("line 2:\n  a\n- b\n- c\n+ x\n+ c\n")),
            ("a", "a b", Some("line 2:\n  a\n+ b\n")),
        ] {
            let told = first_difference(&lines(one), &lines(two));
            let expect = expect.map(|it| format!("the first difference is in {it}"));
            assert_eq!(told, expect, "{one} | {two}");
        }
    }
}
