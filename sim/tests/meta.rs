//! Two runs of a seed are compared, and what differs is named.

#![expect(clippy::disallowed_methods, reason = "a report is a real file")]

mod common;

use std::process::Command;

use sim::sabotage::{Catcher, Sabotage};

/// Any seed: the defects here show in each of them.
const SEED: &str = "3";

/// What `meta` said of a seed, and whether it was content.
fn meta(more: &[&str]) -> (String, bool) {
    let mut sim = Command::new(env!("CARGO_BIN_EXE_sim"));
    let said = sim.args(["meta", "--seed", SEED, "--seeds", "1"]).args(more).output();
    let said = said.expect("the simulator can be started");
    (String::from_utf8_lossy(&said.stdout).into_owned(), said.status.success())
}

#[test]
fn chance_that_is_not_the_seeds_is_noticed_and_the_first_line_that_differs_is_named() {
    let by_meta: Vec<_> = Sabotage::all().filter(|it| it.catcher() == Catcher::Meta).collect();
    assert_eq!(by_meta, [Sabotage::RealChance], "each that a single run can't notice is here");
    let (said, content) = meta(&["--sabotage", "real-chance"]);
    assert!(!content, "{said}");
    let case = format!("two runs differ of --seed {SEED} --sabotage real-chance: held, ");
    assert!(said.contains(&case), "{said}");
    let (_, shown) = said.split_once("the first difference is in line ").expect("it is named");
    let line = |mark: &str| shown.lines().find_map(|line| line.strip_prefix(mark));
    let (one, two) = (line("- "), line("+ "));
    assert!(one.is_some() && one != two, "{said}");
    assert!(said.contains(" 1 differ, 0 failed; "), "{said}");
}

#[test]
fn without_it_the_same_seed_does_the_same_twice() {
    let (said, content) = meta(&["--set", "bucket=false"]);
    assert!(content, "{said}");
    assert!(said.contains(" 0 differ, 0 failed; "), "{said}");
}

#[test]
fn what_was_compared_is_kept_in_a_file() {
    let unique = format!("weir-sim-report-{}.md", std::process::id());
    let file = std::env::temp_dir().join(unique);
    let path = file.to_str().expect("a plain name");
    let (said, content) =
        meta(&["--set", "bucket=false", "--report", path, "--revision", "of today"]);
    assert!(content, "{said}");
    let kept = std::fs::read_to_string(&file).expect("it was written");
    std::fs::remove_file(&file).expect("it is there");
    assert!(kept.contains("\n| revision | of today |\n"), "{kept}");
    assert!(kept.contains("\n| held | 1 |\n| failed | 0 |\n"), "{kept}");
}

#[test]
fn a_seed_that_fails_twice_in_the_same_way_has_failed_and_does_not_differ() {
    let (said, content) = meta(&["--sabotage", "reads-skip"]);
    assert!(!content, "{said}");
    assert!(said.contains(" 0 differ, 1 failed; "), "{said}");
}
