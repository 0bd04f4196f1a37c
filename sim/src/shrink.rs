//! Makes a failing case smaller: fewer kinds of faults, then fewer rounds and clients, shorter rounds
//! and bodies, as long as it still breaks the same invariant. Every try is a child process, like every
//! simulation; how few are needed is decided here, and nothing here knows what a fault does.
//!
//! Faults are turned off all at once, then by halves, by quarters and so on down to single ones (delta
//! debugging); a number is halved towards what fails. What was turned off stays off: after a success
//! the search goes on where it was, and begins again only when it has come to the end.

use std::{collections::BTreeSet, path::Path};

use crate::{case::Case, faults::Options, swarm};

/// What a case breaks: the id of the invariant, or the whole complaint if it names none.
#[must_use]
pub fn breaks(complaint: &str) -> &str {
    let word = complaint.split_whitespace().next().unwrap_or_default();
    if word.starts_with("INV-") { word } else { complaint }
}

/// The smallest case that was found in so many tries, with what it says. `None`: the case does not
/// fail.
///
/// # Errors
/// A child could not be started.
pub fn shrink(exe: &Path, case: &Case, tries_max: u32) -> anyhow::Result<Option<(Case, String)>> {
    search(case, tries_max, |case| {
        let swarm = swarm::run(exe, std::slice::from_ref(case), 1)?;
        Ok(swarm.failures.into_values().next())
    })
}

/// A choice of a case that is a number, in the steps in which it is made smaller.
struct Number {
    name: &'static str,
    value: fn(&Options) -> u64,
    step: u64,
}

/// Those that are made smaller, down to one step.
const NUMBERS: [Number; 4] = [
    Number { name: "rounds", value: |it| it.rounds.into(), step: 1 },
    Number { name: "clients", value: |it| it.clients.into(), step: 1 },
    Number {
        name: "round_ms",
        value: |it| u64::try_from(it.round.as_millis()).unwrap_or(u64::MAX),
        step: 100,
    },
    Number {
        name: "fill_max",
        value: |it| u64::try_from(it.fill_max).unwrap_or(u64::MAX),
        step: 10,
    },
];

/// Looks for a smaller case with `run`, which says what a case that failed said.
fn search(
    case: &Case,
    tries_max: u32,
    mut run: impl FnMut(&Case) -> anyhow::Result<Option<String>>,
) -> anyhow::Result<Option<(Case, String)>> {
    let Some(complaint) = run(case)? else { return Ok(None) };
    let broken = breaks(&complaint).to_owned();
    let best = case.clone();
    let mut search =
        Search { run, tries: tries_max, tried: BTreeSet::new(), broken, best, complaint };
    let mut group = usize::MAX;
    loop {
        let before = search.best.clone();
        search.turn_off(group)?;
        for number in &NUMBERS {
            search.lower(number)?;
        }
        if search.best == before || search.tries == 0 {
            return Ok(Some((search.best, search.complaint)));
        }
        // In a case with smaller numbers one or the other fault is not needed any more.
        group = 1;
    }
}

/// What was found so far.
struct Search<F> {
    run: F,
    /// How many cases may still be run.
    tries: u32,
    /// Cases that were run.
    tried: BTreeSet<String>,
    /// What every smaller case must break.
    broken: String,
    best: Case,
    complaint: String,
}

impl<F: FnMut(&Case) -> anyhow::Result<Option<String>>> Search<F> {
    /// Whether a candidate fails in the same way: then it is the best one from now on.
    fn fails(&mut self, candidate: Case) -> anyhow::Result<bool> {
        let mut choices = candidate.clone();
        choices.set.sort();
        if self.tries == 0 || !self.tried.insert(choices.to_string()) {
            return Ok(false);
        }
        self.tries -= 1;
        let complaint = (self.run)(&candidate)?.filter(|it| breaks(it) == self.broken);
        let Some(complaint) = complaint else { return Ok(false) };
        println!("smaller: {candidate}");
        (self.best, self.complaint) = (candidate, complaint);
        Ok(true)
    }

    /// Turns faults off, so many at a time at first, and half as many whenever all were tried.
    fn turn_off(&mut self, group: usize) -> anyhow::Result<()> {
        let mut group = group;
        loop {
            let mut on = self.best.options()?.switched_on(self.best.over);
            group = group.min(on.len());
            let mut at = 0;
            while at < on.len() {
                let part = at..on.len().min(at + group);
                let off = |case: Case, name: &&str| case.with(name, "false");
                let candidate = on[part.clone()].iter().fold(self.best.clone(), off);
                if self.fails(candidate)? {
                    // What follows has moved up.
                    drop(on.drain(part));
                } else {
                    at = part.end;
                }
            }
            if group <= 1 {
                return Ok(());
            }
            group = group.div_ceil(2);
        }
    }

    /// Makes a number smaller: the least at once, or by halves of what lies between one that does
    /// not fail and one that does.
    fn lower(&mut self, number: &Number) -> anyhow::Result<()> {
        let value = (number.value)(&self.best.options()?);
        let with =
            |best: &Case, steps: u64| best.with(number.name, &(steps * number.step).to_string());
        // In steps. A value between two of them counts as the higher one, which is not the same case.
        let (mut holds, mut fails) = (1, value.div_ceil(number.step));
        if fails <= holds || self.fails(with(&self.best, holds))? {
            return Ok(());
        }
        while fails - holds > 1 {
            let middle = holds + (fails - holds) / 2;
            if self.fails(with(&self.best, middle))? {
                fails = middle;
            } else {
                holds = middle;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{run::Over, sabotage::Sabotage};

    /// What was found of a case that fails as long as these faults are on and its numbers, in the
    /// order of [`NUMBERS`], are not below these.
    struct Found {
        on: Vec<&'static str>,
        numbers: Vec<u64>,
        runs: Vec<Case>,
    }

    fn look(case: &Case, tries_max: u32, needs: &[&str], least: [u64; 4]) -> Found {
        let mut runs = Vec::new();
        let numbers = |options: &Options| -> Vec<u64> {
            NUMBERS.iter().map(|number| (number.value)(options)).collect()
        };
        let found = search(case, tries_max, |case| {
            runs.push(case.clone());
            let options = case.options()?;
            let on = options.switched_on(case.over);
            let breaks = needs.iter().all(|name| on.contains(name));
            let large = numbers(&options).iter().zip(least).all(|(value, least)| *value >= least);
            Ok((breaks && large).then(|| format!("INV-1 {} faults are on", on.len())))
        });
        let (smallest, _) = found.expect("it runs").expect("it fails");
        let options = smallest.options().expect("good");
        Found { on: options.switched_on(smallest.over), numbers: numbers(&options), runs }
    }

    /// A case with all faults that its kind can have.
    fn cruel(over: Over) -> Case {
        let case = Case::new(1, over, Sabotage::None);
        let all = case.options().expect("good").effective(over);
        let case = all.iter().fold(case, |case, (name, _)| case.with(name, "true"));
        let large =
            [("rounds", "5"), ("clients", "20"), ("round_ms", "7801"), ("fill_max", "20000")];
        large.iter().fold(case, |case, (name, value)| case.with(name, value))
    }

    #[test]
    fn all_that_is_not_needed_goes_and_numbers_come_down_to_what_is() {
        let cases: [&[&str]; 4] = [
            &[],
            &["stops"],
            &["crash_at_op", "bucket", "bucket_late"],
            &["disk_full", "bucket", "bucket_lags"],
        ];
        for needs in cases {
            let found = look(&cruel(Over::Engine), 200, needs, [2, 3, 1_234, 0]);
            assert_eq!(found.on, needs);
            assert_eq!(found.numbers, [2, 3, 1_300, 10]);
            // Of 32 faults and four numbers.
            assert!(found.runs.len() < 80, "{} runs for {needs:?}", found.runs.len());
        }
    }

    #[test]
    fn a_case_that_needs_no_fault_is_found_at_once() {
        let found = look(&cruel(Over::Engine), 5, &[], [0; 4]);
        assert!(found.on.is_empty());
        assert_eq!(found.numbers, [1, 1, 100, 10]);
        assert_eq!(found.runs.len(), 6, "as it was, without faults, and one for each number");
    }

    #[test]
    fn nothing_is_tried_twice_nor_what_has_no_effect_there() {
        for (over, town) in [(Over::Engine, false), (Over::Http, true)] {
            let found = look(&cruel(over), 500, &["slow_disk", "wall_jumps"], [3, 5, 700, 0]);
            let off = |case: &Case, name: &str| {
                case.set.iter().any(|(known, value)| known == name && value == "false")
            };
            assert_eq!(found.runs.iter().any(|case| off(case, "cuts")), town);
            assert_eq!(found.runs.iter().any(|case| off(case, "crash_loop")), !town);
            let choices = |case: &Case| {
                let mut case = case.clone();
                case.set.sort();
                case.to_string()
            };
            let different: BTreeSet<String> = found.runs.iter().map(choices).collect();
            assert_eq!(different.len(), found.runs.len());
            assert_eq!(found.on, ["slow_disk", "wall_jumps"]);
        }
    }

    #[test]
    fn tries_are_counted() {
        let found = look(&cruel(Over::Http), 7, &["cuts"], [1; 4]);
        assert_eq!(found.runs.len(), 8, "and the case itself");
    }
}
