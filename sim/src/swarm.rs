//! Many cases, in child processes: a simulation has its process to itself, because task ids and
//! `SQLite`'s generator are counted per process. At most one child per core.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context;

use crate::case::Case;

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

/// Runs cases in `jobs` children of the program `exe` at a time, each a share of them. A case whose
/// child dies has failed, and the others of its share go on in another child.
///
/// # Errors
/// A child could not be started or waited for.
pub fn run(exe: &Path, cases: &[Case], jobs: usize) -> anyhow::Result<Swarm> {
    let jobs = jobs.max(1);
    let mut swarm = Swarm::default();
    for batch in cases.chunks(SHARE_MAX * jobs) {
        let share = |job| batch.iter().skip(job).step_by(jobs).cloned().collect();
        let mut shares: Vec<Vec<Case>> = (0..jobs).map(share).collect();
        while shares.iter().any(|share| !share.is_empty()) {
            let mut children = Vec::new();
            for share in shares.into_iter().filter(|share| !share.is_empty()) {
                children.push((start(exe, &share)?, share));
            }
            let left = children.into_iter().map(|(child, share)| swarm.wait(child, share));
            shares = left.collect::<anyhow::Result<_>>()?;
        }
    }
    Ok(swarm)
}

fn start(exe: &Path, share: &[Case]) -> anyhow::Result<Child> {
    Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -v {MEMORY_MAX_KIB}; exec \"$0\" cases \"$@\""))
        .arg(exe)
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
            let why = String::from_utf8_lossy(&ended.stderr);
            let last = why.lines().last().unwrap_or("without a word").to_owned();
            let what = format!("its process died, {}: {last}", ended.status);
            let report = format!("failed {} {what}\n{why}\n", victim.seed);
            self.reports.push_str(&report);
            self.failures.insert(victim.seed, what);
        }
        Ok(left)
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
