//! A case that fails becomes a smaller one that fails in the same way, and its file can be played
//! again.

#![expect(clippy::disallowed_methods, reason = "cases are kept in real files")]

mod common;

use std::{fs, process::Command};

use sim::{case::Case, faults::Options, run::Over, sabotage::Sabotage, shrink};

/// Cases that a defect was planted in: one that any client meets, one that it takes a power cut to see.
const CASES: [(u64, Sabotage); 2] = [(1, Sabotage::ReadsSkip), (3, Sabotage::LyingFsync)];
/// How many smaller ones are tried.
const TRIES: &str = "60";
/// How many rounds and kinds of faults may be left of it.
const ROUNDS_MAX: u32 = 2;
const FAULTS_MAX: usize = 3;

#[test]
fn a_smaller_case_fails_in_the_same_way_and_is_played_from_its_file() {
    for (seed, defect) in CASES {
        check(&Case::new(seed, Over::Engine, defect));
    }
}

fn check(case: &Case) {
    let swarm = common::cases(std::slice::from_ref(case), 1);
    let complaint = swarm.failures.get(&case.seed).expect("the defect is caught");
    let name = format!("weir-sim-case-{}-{}.txt", case.seed, std::process::id());
    let file = std::env::temp_dir().join(name);
    let sim = || Command::new(env!("CARGO_BIN_EXE_sim"));

    let words = case.to_string();
    let said = sim()
        .arg("shrink")
        .args(words.split(' '))
        .args(["--tries", TRIES, "--out"])
        .arg(&file)
        .output()
        .expect("the simulator can be started");
    let told = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{told}");

    let kept = fs::read_to_string(&file).expect("the case is kept");
    let line = kept.lines().find(|line| !line.starts_with('#')).expect("a case is kept");
    let smaller: Case = line.parse().expect("it is one");
    let (before, after) = (case.options().expect("good"), smaller.options().expect("good"));
    let faults = |options: &Options| options.switched_on(Over::Engine).len();
    assert!(before.rounds > ROUNDS_MAX && faults(&before) > FAULTS_MAX, "{case}");
    assert!(after.rounds <= ROUNDS_MAX, "{line}");
    assert!(faults(&after) <= FAULTS_MAX, "{:?}: {line}", after.switched_on(Over::Engine));
    assert!(after.clients < before.clients, "{line}");
    assert!(after.round <= before.round && after.fill_max <= before.fill_max, "{line}");

    let said = sim().arg("replay").arg(&file).output().expect("the simulator can be started");
    let told = String::from_utf8_lossy(&said.stdout).into_owned();
    let failed = told.lines().find_map(|it| it.strip_prefix(&format!("failed {} ", case.seed)));
    let failed = failed.unwrap_or_else(|| panic!("it does not fail any more: {told}"));
    assert_eq!(shrink::breaks(failed), shrink::breaks(complaint));
    assert!(!said.status.success());
    assert!(told.contains(&format!("reproduce: {}", smaller.command())), "{told}");
    fs::remove_file(file).expect("it is there");
}
