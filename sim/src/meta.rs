//! Whether a seed reproduces everything: each case runs in two processes, behind other cases, and
//! both must have done the same. If not, both are run again as they were and the first line in which
//! their traces differ is shown.

use std::path::Path;

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
    /// Seeds that held twice and did not do the same, and what is to be said of them.
    pub differing: Vec<(u64, String)>,
    /// Seeds that did not hold in either run.
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
        match (one.hashes.get(&case.seed), two.hashes.get(&case.seed)) {
            (Some(one), Some(two)) if one == two => {}
            (None, None) => failed.push(case.seed),
            (one, two) => {
                let mut what = format!("{case}: {one:?} and {two:?}\n");
                if differing.len() < SHOWN_MAX {
                    what.push_str(&look_into(exe, cases, case.seed)?);
                }
                differing.push((case.seed, what));
            }
        }
    }
    Ok(Compared { one, differing, failed })
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
