//! Seeds that found defects, which stay found.

mod common;

use sim::{case::Case, run::Over, sabotage::Sabotage};

/// Faults that came later: without them the seeds do what they did.
const LATER: [&str; 6] =
    ["sync_late", "stops", "second_process", "crash_loop", "bucket", "one_file"];

/// Seed and what it found, in the engine as it was then.
const FOUND: [(u64, &str); 16] = [
    (0, "an ancestor of a new store's directory was never made durable"),
    (3, "a creation's own closure was not visible until a restart"),
    (4, "many small commits grew the WAL past its bound"),
    (8, "as 0"),
    (13, "a full WAL kept the store from stopping"),
    (48, "the same, with clients still waiting"),
    (133, "a failed trim undid a finished fold and burials were counted twice"),
    (141, "the same, when the name had left the shelf"),
    (226, "since: a merged segment lay behind the seal that was tried again"),
    (271, "a failed trim, again"),
    (293, "the WAL, again"),
    (652, "the same"),
    (1021, "a read overtaken by a deletion and a merge spoke of damage"),
    (1192, "the simulated drive miscounted its files at a power cut"),
    (1217, "since: as 226"),
    (5005, "a fork's two names drove each other off a full shelf for ever"),
];

/// The same with every fault there is, as a swarm draws them: defects, and what the model had not
/// thought of.
const SWARM: [(u64, &str); 24] = [
    (200_437, "a stream that was trimmed and ended in one fold: what it had kept was never erased"),
    (200_501, "the end of a wake that was sent before the model knew who holds it"),
    (201_271, "a wake named a stream whose end could not be written down"),
    (202_719, "a recovery to one of two states that look alike"),
    (203_790, "a touch on a full disk was forgotten when its stream left memory"),
    (203_914, "as 200501"),
    (206_347, "a database without pages whose sync had failed"),
    (206_497, "a window's end that could not be written down, and a restart"),
    (206_560, "as 206347"),
    (208_232, "a fork made after a recovery met an offset of a life that was lost"),
    (208_385, "a fork whose window had passed, which could not be written down"),
    (209_192, "a commit that a full disk had refused was there after a restart"),
    (209_888, "as 208232"),
    (210_406, "as 208232"),
    (212_187, "each try to seal on a full disk left a file behind"),
    (301_195, "a fork that nobody was told of, made of one that began with a part of a record"),
    (302_947, "files that could not be removed stayed until the next start"),
    (304_316, "two seals that ended with one commit changed places when one was rewritten"),
    (306_496, "a file that a failed commit was to name, during a faulty start"),
    (311_294, "a drill met a stream whose creation nobody had answered"),
    (315_975, "a part of a record that begins as another part does, on a page by key"),
    (803_472, "a reader read on after a long stop, and a crash did not know of it"),
    (806_563, "a live reader of small pages had further to go than it was given time for"),
    (801_219, "a reader attached to a stream whose window had passed while its touch was written"),
];

/// The same over HTTP.
const SWARM_OVER_HTTP: [(u64, &str); 1] =
    [(1_202_055, "a start gave up its bucket in the moment after the weather had cleared")];

/// Cases with choices that their seeds did not make by themselves.
const TOLD: [(&str, &str); 11] = [
    ("1541 bucket evicts", "how long a live reader may wait for a bucket that has a bad day"),
    ("306496 bucket evicts", "a page waited for each of its blocks as long as for one"),
    ("600068 bucket evicts", "the same"),
    ("600190 bucket evicts", "nothing of a segment that is not here counted as dead"),
    ("600203 bucket evicts", "the same"),
    ("600293 bucket evicts", "the same"),
    ("601356 bucket evicts", "a process was stopped for longer than a read may wait"),
    ("610031 bucket evicts bit_flip", "damage at the end of a copy kept the store from starting"),
    ("610042 bucket evicts bit_flip", "the same in the filter"),
    ("610126 bucket evicts bit_flip", "the same in the header"),
    ("630429 bucket bit_flip", "an upload was forgotten in memory when another one failed"),
];

#[test]
fn seeds_that_were_told_what_to_choose_hold() {
    let case = |(told, _): &(&str, &str)| {
        let mut words = told.split(' ');
        let seed = words.next().and_then(|seed| seed.parse().ok()).expect("a seed comes first");
        let case = Case::new(seed, Over::Engine, Sabotage::None);
        words.fold(case, |case, choice| case.with(choice, "true"))
    };
    let cases: Vec<Case> = TOLD.iter().map(case).collect();
    let swarm = common::cases(&cases, 2);
    assert!(swarm.failures.is_empty(), "{}", swarm.reports);
}

#[test]
fn seeds_of_swarms_hold() {
    let case = |over| move |(seed, _): &(u64, &str)| Case::new(*seed, over, Sabotage::None);
    let cases = SWARM.iter().map(case(Over::Engine));
    let cases: Vec<Case> = cases.chain(SWARM_OVER_HTTP.iter().map(case(Over::Http))).collect();
    let swarm = common::cases(&cases, 2);
    assert!(swarm.failures.is_empty(), "{}", swarm.reports);
}

#[test]
fn seeds_that_found_defects_hold() {
    let case = |(seed, _): &(u64, &str)| {
        let case = Case::new(*seed, Over::Engine, Sabotage::None);
        LATER.iter().fold(case, |case, fault| case.with(fault, "false"))
    };
    let cases: Vec<Case> = FOUND.iter().map(case).collect();
    let swarm = common::cases(&cases, 2);
    assert!(swarm.failures.is_empty(), "{}", swarm.reports);
}
