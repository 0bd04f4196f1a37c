//! A case that fails becomes a smaller one that fails in the same way, and its file can be played
//! again.

#![expect(clippy::disallowed_methods, reason = "cases are kept in real files")]

mod common;

use std::{fs, process::Command};

use sim::{case::Case, faults::Options, run::Over, sabotage::Sabotage, shrink};

/// A case that a defect was planted in, and how many smaller ones are tried.
const SEED: u64 = 1;
const DEFECT: Sabotage = Sabotage::DedupeLost;
const TRIES: &str = "40";

/// How much happens in a case: rounds, clients, tenths of seconds, kinds of faults.
fn size(options: &Options) -> [usize; 4] {
    let number = |it: u32| usize::try_from(it).expect("small");
    let tenths = usize::try_from(options.round.as_millis() / 100).expect("short");
    [number(options.rounds), number(options.clients), tenths, options.switched_on().len()]
}

#[test]
fn a_smaller_case_fails_in_the_same_way_and_is_played_from_its_file() {
    let case = Case::new(SEED, Over::Engine, DEFECT);
    let swarm = common::cases(std::slice::from_ref(&case), 1);
    let complaint = swarm.failures.get(&SEED).expect("the defect is caught");
    let file = std::env::temp_dir().join(format!("weir-sim-case-{}.txt", std::process::id()));
    let sim = || Command::new(env!("CARGO_BIN_EXE_sim"));

    let said = sim()
        .args(["shrink", "--seed", &SEED.to_string(), "--sabotage", "dedupe-lost"])
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
    let (before, after) = (size(&before), size(&after));
    assert!(before.iter().zip(&after).all(|(before, after)| after <= before), "{line}");
    assert!(after.iter().sum::<usize>() < before.iter().sum(), "{after:?} of {before:?}: {line}");

    let said = sim().arg("replay").arg(&file).output().expect("the simulator can be started");
    let told = String::from_utf8_lossy(&said.stdout).into_owned();
    let failed = told.lines().find_map(|it| it.strip_prefix(&format!("failed {SEED} ")));
    let failed = failed.unwrap_or_else(|| panic!("it does not fail any more: {told}"));
    assert_eq!(shrink::breaks(failed), shrink::breaks(complaint));
    assert!(!said.status.success());
    assert!(told.contains(&format!("reproduce: {}", smaller.command())), "{told}");
    fs::remove_file(file).expect("it is there");
}
