//! Many cases, in child processes: a simulation has its process to itself, because task ids and
//! `SQLite`'s generator are counted per process. At most one child per core.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context;

use crate::{case::Case, run::Over, slots};

/// Cases that one child runs at most: a command line has its bounds.
const SHARE_MAX: usize = 500;

/// What a swarm found.
#[derive(Clone, Debug, Default)]
pub struct Swarm {
    /// Hash by seed, of those that held.
    pub hashes: BTreeMap<u64, u64>,
    /// First line of each failure, by seed.
    pub failures: BTreeMap<u64, String>,
    /// Rare branches that were reached.
    pub marks: BTreeSet<String>,
    pub simulated_ms: u64,
    pub requests: u64,
    pub boots: u64,
    /// Everything that the children said of failures.
    pub reports: String,
}

/// Address space of a child, in KiB: a defect that eats memory must not take the machine along.
const MEMORY_MAX_KIB: u64 = 8 << 20;

/// Runs cases in `jobs` children of the program `exe` at a time, but no more than there are cores,
/// each a share of them. A case whose child dies has failed, and the others of its share go on in
/// another child.
///
/// # Errors
/// A child could not be started or waited for.
pub fn run(exe: &Path, cases: &[Case], jobs: usize) -> anyhow::Result<Swarm> {
    let jobs = children(jobs);
    let mut swarm = Swarm::default();
    for batch in cases.chunks(SHARE_MAX * jobs) {
        let mut shares = shares(batch, jobs);
        while shares.iter().any(|share| !share.is_empty()) {
            let mut children = Vec::new();
            for share in shares.into_iter().filter(|share| !share.is_empty()) {
                children.push((start(exe, &[], &share)?, share));
            }
            let left = children.into_iter().map(|(child, share)| swarm.wait(child, share));
            shares = left.collect::<anyhow::Result<_>>()?;
        }
    }
    Ok(swarm)
}

/// How many children run at once if so many are asked for.
#[must_use]
pub fn children(jobs: usize) -> usize {
    jobs.clamp(1, slots::cores())
}

/// A batch as it is dealt out: those over HTTP take longer than others, so each child gets its part
/// of both.
fn shares(batch: &[Case], jobs: usize) -> Vec<Vec<Case>> {
    let (engine, http): (Vec<_>, Vec<_>) = batch.iter().partition(|it| it.over == Over::Engine);
    let dealt: Vec<&Case> = engine.into_iter().chain(http).collect();
    (0..jobs).map(|job| dealt.iter().copied().skip(job).step_by(jobs).cloned().collect()).collect()
}

/// Which cases the child ran that ran `seed` in such a swarm, up to that one.
#[must_use]
pub fn company(cases: &[Case], jobs: usize, seed: u64) -> Vec<Case> {
    let jobs = children(jobs);
    let mut all = cases.chunks(SHARE_MAX * jobs).flat_map(|batch| shares(batch, jobs));
    let share = all.find(|share| share.iter().any(|case| case.seed == seed)).unwrap_or_default();
    let last = share.iter().position(|case| case.seed == seed);
    share.into_iter().take(last.map_or(0, |last| last + 1)).collect()
}

/// The trace of the last of these cases, run in one process behind the others.
///
/// # Errors
/// The child could not be started or waited for.
pub fn trace(exe: &Path, cases: &[Case]) -> anyhow::Result<Vec<String>> {
    let child = start(exe, &["--trace-last"], cases)?;
    let ended = child.wait_with_output().context("waiting for a child")?;
    let told = String::from_utf8_lossy(&ended.stdout);
    let result = |line: &&str| !line.starts_with("held ") && !line.starts_with("mark ");
    Ok(told.lines().filter(result).map(str::to_owned).collect())
}

fn start(exe: &Path, options: &[&str], share: &[Case]) -> anyhow::Result<Child> {
    Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -v {MEMORY_MAX_KIB}; exec \"$0\" cases \"$@\""))
        .arg(exe)
        .args(options)
        .args(share.iter().map(Case::to_string))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", exe.display()))
}

impl Swarm {
    /// Takes what a child said of its share. Returns the cases that it did not come to.
    fn wait(&mut self, child: Child, share: Vec<Case>) -> anyhow::Result<Vec<Case>> {
        let ended = child.wait_with_output().context("waiting for a child")?;
        for line in String::from_utf8_lossy(&ended.stdout).lines() {
            self.take(line);
        }
        let told = |case: &Case| {
            self.hashes.contains_key(&case.seed) || self.failures.contains_key(&case.seed)
        };
        let mut left: Vec<Case> = share.into_iter().skip_while(told).collect();
        if !left.is_empty() {
            let victim = left.remove(0);
            self.died(&victim, &ended.status.to_string(), &String::from_utf8_lossy(&ended.stderr));
        }
        Ok(left)
    }

    /// A child ended without having said what became of a case.
    fn died(&mut self, victim: &Case, status: &str, why: &str) {
        let last = why.lines().last().unwrap_or("without a word");
        let what = format!("its process died, {status}: {last}");
        let report = format!(
            "failed {} {what}\n{}\n  reproduce: {}\n",
            victim.seed,
            why.trim_end(),
            victim.command()
        );
        self.reports.push_str(&report);
        self.failures.insert(victim.seed, what);
    }

    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
        match words[0] {
            "held" => {
                if let (Some(seed), Some(hash)) = (number(1), number(2)) {
                    self.hashes.insert(seed, hash);
                }
                self.simulated_ms += number(3).unwrap_or(0);
                self.requests += number(4).unwrap_or(0);
                self.boots += number(5).unwrap_or(0);
            }
            "failed" => {
                if let Some(seed) = number(1) {
                    self.failures.insert(seed, words[2..].join(" "));
                }
                self.reports.push_str(line);
                self.reports.push('\n');
            }
            "mark" => {
                self.marks.insert(words[1..].join(" "));
            }
            _ => {
                self.reports.push_str(line);
                self.reports.push('\n');
            }
        }
    }

    /// Adds what another one found.
    pub fn add(&mut self, other: Self) {
        self.hashes.extend(other.hashes);
        self.failures.extend(other.failures);
        self.marks.extend(other.marks);
        self.simulated_ms += other.simulated_ms;
        self.requests += other.requests;
        self.boots += other.boots;
        self.reports.push_str(&other.reports);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sabotage::Sabotage;

    fn cases() -> Vec<Case> {
        let over = |seed: u64| if seed.is_multiple_of(2) { Over::Http } else { Over::Engine };
        (0..8).map(|seed| Case::new(seed, over(seed), Sabotage::None)).collect()
    }

    #[test]
    fn every_child_gets_its_part_of_the_slow_cases() {
        let seeds = |share: &Vec<Case>| share.iter().map(|it| it.seed).collect::<Vec<_>>();
        let dealt: Vec<_> = shares(&cases(), 2).iter().map(seeds).collect();
        assert_eq!(dealt, [[1, 5, 0, 4], [3, 7, 2, 6]]);
    }

    #[test]
    fn company_is_what_was_run_before() {
        let before = company(&cases(), 1, 7);
        assert_eq!(before.iter().map(|it| it.seed).collect::<Vec<_>>(), [1, 3, 5, 7]);
    }

    #[test]
    fn a_case_whose_process_dies_is_reported_with_its_command() {
        let mut swarm = Swarm::default();
        let mut child = Command::new("sh");
        child.args(["-c", "echo held 1 5; echo why >&2; kill -9 $$"]);
        let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let left = swarm.wait(child.expect("a shell"), cases()[1..4].to_vec()).expect("it ends");
        assert_eq!(left, cases()[3..4]);
        assert!(swarm.failures[&2].contains("its process died"), "{:?}", swarm.failures);
        let command = "reproduce: cargo run -p sim -- run --seed 2 --over http\n";
        assert!(swarm.reports.contains(command), "{}", swarm.reports);
    }
}
