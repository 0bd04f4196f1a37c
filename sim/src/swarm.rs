//! Many cases, in child processes: a simulation has its process to itself, because task ids and
//! `SQLite`'s generator are counted per process. At most one child per core.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::Once,
    thread::{self, JoinHandle},
};

use anyhow::Context;

use crate::{case::Case, run::Over, slots};

/// Cases that one child runs at most: a command line has its bounds.
const SHARE_MAX: usize = 500;

/// A seed with fewer requests with records has hardly been tried.
const REQUESTS_LEAST: u64 = 50;

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
    /// Requests with records by seed, of those that held.
    pub requests: BTreeMap<u64, u64>,
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
    let ended = start(exe, &["--trace-last"], cases)?.wait()?;
    let told = ended.told;
    let result = |line: &&str| !line.starts_with("held ") && !line.starts_with("mark ");
    Ok(told.lines().filter(result).map(str::to_owned).collect())
}

fn start(exe: &Path, options: &[&str], share: &[Case]) -> anyhow::Result<Child> {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -v {MEMORY_MAX_KIB}; exec \"$0\" cases \"$@\""))
        .arg(exe)
        .args(options)
        .args(share.iter().map(Case::to_string));
    Child::start(command).with_context(|| format!("starting {}", exe.display()))
}

/// A child at work. Its standard error is read as it comes, so that who waits for a place is heard.
struct Child {
    process: std::process::Child,
    why: JoinHandle<String>,
}

/// What became of a child.
struct Ended {
    status: ExitStatus,
    /// Its standard output.
    told: String,
    /// Its standard error, but for what it said of places.
    why: String,
}

impl Child {
    #[expect(
        clippy::disallowed_methods,
        reason = "children are real processes, and run beside this"
    )]
    fn start(mut command: Command) -> io::Result<Self> {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let errors = process.stderr.take().expect("it is piped");
        // One child's waiting is all children's.
        static TOLD: Once = Once::new();
        let say = |line: &str| TOLD.call_once(|| drop(writeln!(io::stderr(), "{line}")));
        Ok(Self { process, why: thread::spawn(move || hear(errors, say)) })
    }

    fn wait(self) -> anyhow::Result<Ended> {
        let ended = self.process.wait_with_output().context("waiting for a child")?;
        let why = self.why.join().expect("whoever listens does not panic");
        let told = String::from_utf8_lossy(&ended.stdout).into_owned();
        Ok(Ended { status: ended.status, told, why })
    }
}

/// All that is said, but that somebody waits for a place, which is passed on at once.
fn hear(errors: impl Read, mut say: impl FnMut(&str)) -> String {
    let (mut errors, mut why, mut line) = (BufReader::new(errors), String::new(), Vec::new());
    // A pipe that breaks has ended.
    while errors.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let text = String::from_utf8_lossy(&line);
        match text.starts_with(slots::WAITING) {
            true => say(text.trim_end()),
            false => why.push_str(&text),
        }
        line.clear();
    }
    why
}

impl Swarm {
    /// Takes what a child said of its share. Returns the cases that it did not come to.
    fn wait(&mut self, child: Child, share: Vec<Case>) -> anyhow::Result<Vec<Case>> {
        let ended = child.wait()?;
        ended.told.lines().for_each(|line| self.take(line));
        let told = |case: &Case| {
            self.hashes.contains_key(&case.seed) || self.failures.contains_key(&case.seed)
        };
        let mut left: Vec<Case> = share.into_iter().skip_while(told).collect();
        if !left.is_empty() {
            let victim = left.remove(0);
            self.died(&victim, &ended.status.to_string(), &ended.why);
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
                    self.requests.insert(seed, number(4).unwrap_or(0));
                }
                self.simulated_ms += number(3).unwrap_or(0);
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

    /// How much its seeds asked for: a sum alone hides those in which next to nothing happened.
    #[must_use]
    pub fn work(&self) -> String {
        let mut sorted: Vec<u64> = self.requests.values().copied().collect();
        sorted.sort_unstable();
        let sum: u64 = sorted.iter().sum();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        let idle = sorted.partition_point(|count| *count < REQUESTS_LEAST);
        format!(
            "{sum} requests with records, {median} in the median seed, fewer than \
             {REQUESTS_LEAST} in {idle} seeds"
        )
    }

    /// Adds what another one found.
    pub fn add(&mut self, other: Self) {
        self.hashes.extend(other.hashes);
        self.failures.extend(other.failures);
        self.marks.extend(other.marks);
        self.simulated_ms += other.simulated_ms;
        self.requests.extend(other.requests);
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
        let child = Child::start(child).expect("a shell");
        let left = swarm.wait(child, cases()[1..4].to_vec()).expect("it ends");
        assert_eq!(left, cases()[3..4]);
        assert!(swarm.failures[&2].contains("its process died"), "{:?}", swarm.failures);
        assert!(swarm.failures[&2].ends_with(": why"), "{:?}", swarm.failures);
        let command = "reproduce: cargo run -p sim -- run --seed 2 --over http\n";
        assert!(swarm.reports.contains(command), "{}", swarm.reports);
    }

    #[test]
    fn who_waits_for_a_place_is_heard_and_it_is_no_reason_to_die_of() {
        let line = format!("{}2 places, which are locks in /tmp", slots::WAITING);
        let mut said = Vec::new();
        let why = hear(format!("{line}\nwhy\n").as_bytes(), |line| said.push(line.to_owned()));
        assert_eq!((why.as_str(), said), ("why\n", vec![line]));
    }

    #[test]
    fn seeds_in_which_next_to_nothing_happened_are_counted() {
        let mut swarm = Swarm::default();
        let said = |swarm: &Swarm| swarm.work();
        assert!(said(&swarm).starts_with("0 requests with records, 0 in the median seed"));
        for (seed, requests) in [(1, 900), (2, 49), (3, 50), (4, 0), (5, 1000)] {
            swarm.take(&format!("held {seed} 7 1000 {requests} 3"));
        }
        let expect = "1999 requests with records, 50 in the median seed, fewer than 50 in 2 seeds";
        assert_eq!(said(&swarm), expect);
        let mut other = Swarm::default();
        other.take("held 6 7 1000 1 3");
        swarm.add(other);
        let expect = "2000 requests with records, 50 in the median seed, fewer than 50 in 3 seeds";
        assert_eq!(said(&swarm), expect);
    }
}
