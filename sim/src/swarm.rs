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

/// Runs cases in `jobs` children of the program `exe` at a time, each a share of them.
///
/// # Errors
/// A child could not be started or died without a word.
pub fn run(exe: &Path, cases: &[Case], jobs: usize) -> anyhow::Result<Swarm> {
    let jobs = jobs.max(1);
    let mut swarm = Swarm::default();
    for batch in cases.chunks(SHARE_MAX * jobs) {
        let mut children = Vec::new();
        for job in 0..jobs {
            let share: Vec<String> =
                batch.iter().skip(job).step_by(jobs).map(Case::to_string).collect();
            if !share.is_empty() {
                children.push(start(exe, &share)?);
            }
        }
        for child in children {
            swarm.wait(child)?;
        }
    }
    Ok(swarm)
}

fn start(exe: &Path, share: &[String]) -> anyhow::Result<Child> {
    Command::new(exe)
        .arg("cases")
        .args(share)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", exe.display()))
}

impl Swarm {
    fn wait(&mut self, child: Child) -> anyhow::Result<()> {
        let ended = child.wait_with_output().context("waiting for a child")?;
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let before = self.failures.len();
        for line in said.lines() {
            self.take(line);
        }
        if !ended.status.success() && self.failures.len() == before {
            let why = String::from_utf8_lossy(&ended.stderr);
            anyhow::bail!("a child died: {}: {why}{said}", ended.status);
        }
        Ok(())
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
