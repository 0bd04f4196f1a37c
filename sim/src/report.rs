//! The report of many seeds as a file: what was run, of which revision, and what came of it.
#![expect(
    clippy::disallowed_methods,
    reason = "a report is a real file, and what is reported is asked of git"
)]

use std::{fmt::Write as _, fs, path::Path, process::Command, time::Duration};

use anyhow::Context as _;
use weir_io::memory::Trace;

use crate::{case::Case, run::Over, swarm::Swarm};

/// What was run, and for how long.
#[derive(Clone, Debug)]
pub struct Run {
    /// The command line, without the program.
    pub command: String,
    /// Of the sources; none if nobody knows.
    pub revision: Option<String>,
    pub kinds: Kinds,
    pub took: Duration,
}

/// How many seeds there were, and of what kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    pub from: u64,
    /// The first that was not run.
    pub next: u64,
    pub engine: u64,
    pub http: u64,
    pub with_bucket: u64,
}

impl Kinds {
    /// None yet, the first of them is this.
    #[must_use]
    pub fn from(seed: u64) -> Self {
        Self { from: seed, next: seed, ..Self::default() }
    }

    /// Counts the next cases.
    ///
    /// # Errors
    /// A choice that is overruled does not exist.
    pub fn count(&mut self, cases: &[Case]) -> anyhow::Result<()> {
        for case in cases {
            match case.over {
                Over::Engine => self.engine += 1,
                Over::Http => self.http += 1,
            }
            self.with_bucket += u64::from(case.options()?.bucket.there);
            self.next += 1;
        }
        Ok(())
    }
}

impl std::fmt::Display for Kinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, next, engine, http, with_bucket } = self;
        write!(
            f,
            "seeds {from}..{next}: {engine} in the engine's process, {http} over HTTP, \
             {with_bucket} of all with a bucket"
        )
    }
}

/// Which revision this is, as git tells, and whether anything was changed since; `None`: it does not.
#[must_use]
pub fn revision() -> Option<String> {
    let dir = env!("CARGO_MANIFEST_DIR");
    let described = Command::new("git")
        .args(["-C", dir, "describe", "--always", "--dirty", "--abbrev=10"])
        .output()
        .ok()?;
    let text = String::from_utf8(described.stdout).ok()?;
    let text = text.trim();
    (described.status.success() && !text.is_empty()).then(|| text.to_owned())
}

/// How many things of a kind there are in so many seconds.
#[must_use]
pub fn per_second(count: f64, took: Duration) -> f64 {
    count / took.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// The hash of the hashes of all seeds that held, by seed.
#[must_use]
pub fn hash(swarm: &Swarm) -> u64 {
    let mut trace = Trace::new();
    for (seed, hash) in &swarm.hashes {
        trace.add(*seed);
        trace.add(*hash);
    }
    trace.value()
}

/// The report of seeds that were run once.
#[must_use]
pub fn of_swarm(run: &Run, swarm: &Swarm) -> String {
    let mut text = head(run, swarm);
    failures(
        &mut text,
        &swarm.failures.iter().map(|(seed, what)| (*seed, &**what)).collect::<Vec<_>>(),
    );
    let _ = writeln!(text, "\n## Rare branches that were reached: {}\n", swarm.marks.len());
    for mark in &swarm.marks {
        let _ = writeln!(text, "- {mark}");
    }
    text
}

/// The report of seeds that were run twice: `swarm` is the first run, these seeds did not do the same
/// again.
#[must_use]
pub fn of_meta(run: &Run, swarm: &Swarm, differing: &[(u64, String)]) -> String {
    let mut text = head(run, swarm);
    let first = |what: &str| what.lines().next().unwrap_or_default().to_owned();
    let mut all: Vec<(u64, String)> =
        differing.iter().map(|(seed, what)| (*seed, format!("differs: {}", first(what)))).collect();
    let differs = |seed: &u64| differing.iter().any(|(known, _)| known == seed);
    let failed = swarm.failures.iter().filter(|(seed, _)| !differs(seed));
    all.extend(failed.map(|(seed, what)| (*seed, what.clone())));
    failures(&mut text, &all.iter().map(|(seed, what)| (*seed, &**what)).collect::<Vec<_>>());
    text
}

fn head(run: &Run, swarm: &Swarm) -> String {
    let simulated = Duration::from_millis(swarm.simulated_ms);
    let rate = |count: f64| per_second(count, run.took);
    let seeds = f64::from(u32::try_from(run.kinds.next - run.kinds.from).unwrap_or(u32::MAX));
    let rows = [
        ("command", format!("`sim {}`", run.command)),
        ("revision", run.revision.clone().unwrap_or_else(|| "unknown".to_owned())),
        ("run", run.kinds.to_string()),
        ("held", swarm.hashes.len().to_string()),
        ("failed", swarm.failures.len().to_string()),
        (
            "real time",
            format!("{:.0} s, {:.2} seeds a second", run.took.as_secs_f64(), rate(seeds)),
        ),
        (
            "simulated time",
            format!("{simulated:?}, {:.0} s a real second", rate(simulated.as_secs_f64())),
        ),
        ("boots", swarm.boots.to_string()),
        ("work", swarm.work()),
        ("hash of all hashes", format!("`{:016x}`", hash(swarm))),
    ];
    let verb = run.command.split(' ').next().unwrap_or_default();
    let mut text = format!("# sim {verb}\n\n| | |\n|---|---|\n");
    for (name, value) in rows {
        let _ = writeln!(text, "| {name} | {} |", value.replace('|', "\\|"));
    }
    text
}

fn failures(text: &mut String, failed: &[(u64, &str)]) {
    let _ = writeln!(text, "\n## Failures: {}", failed.len());
    if !failed.is_empty() {
        text.push('\n');
    }
    for (seed, what) in failed {
        let _ = writeln!(text, "- {seed}: {}", what.replace('\n', " / "));
    }
}

/// Writes a report.
///
/// # Errors
/// The file can't be written.
pub fn keep(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            command: "swarm --from 7 --seeds 3".to_owned(),
            revision: Some("abc".to_owned()),
            kinds: Kinds { from: 7, next: 10, engine: 2, http: 1, with_bucket: 1 },
            took: Duration::from_secs(2),
        }
    }

    fn swarm() -> Swarm {
        let mut swarm = Swarm { simulated_ms: 5000, boots: 12, ..Swarm::default() };
        swarm.hashes.extend([(7, 1), (9, 2)]);
        swarm.failures.insert(8, "INV-1 acked is kept: one\ntwo".to_owned());
        swarm.marks.insert("it was rare".to_owned());
        swarm
    }

    #[test]
    fn a_report_says_what_was_run_and_what_came_of_it() {
        let text = of_swarm(&run(), &swarm());
        for line in [
            "# sim swarm",
            "| command | `sim swarm --from 7 --seeds 3` |",
            "| revision | abc |",
            "| run | seeds 7..10: 2 in the engine's process, 1 over HTTP, 1 of all with a bucket |",
            "| held | 2 |",
            "| failed | 1 |",
            "| real time | 2 s, 1.50 seeds a second |",
            "| simulated time | 5s, 2 s a real second |",
            "| boots | 12 |",
            "## Failures: 1",
            "- 8: INV-1 acked is kept: one / two",
            "## Rare branches that were reached: 1",
            "- it was rare",
        ] {
            assert!(text.lines().any(|it| it == line), "'{line}' is missing in:\n{text}");
        }
    }

    #[test]
    fn seeds_that_differ_are_told_apart_from_those_that_failed_twice() {
        let differing = [(8, "--seed 8: held, 1 and held, 2\nthe first difference".to_owned())];
        let text = of_meta(&run(), &swarm(), &differing);
        assert!(text.contains("\n- 8: differs: --seed 8: held, 1 and held, 2\n"), "{text}");
        assert!(text.contains("## Failures: 1\n") && !text.contains("INV-1"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("| hash of all hashes | `")), "{text}");
    }

    #[test]
    fn the_hash_of_all_hashes_is_of_seeds_and_hashes_in_order() {
        let mut other = swarm();
        assert_eq!(hash(&swarm()), hash(&other));
        other.hashes.insert(9, 3);
        assert_ne!(hash(&swarm()), hash(&other), "another hash");
        other.hashes.remove(&9);
        other.hashes.insert(10, 2);
        assert_ne!(hash(&swarm()), hash(&other), "another seed");
    }
}
