//! Makes a failing case smaller: fewer rounds, fewer clients, fewer kinds of faults, as long as it
//! still breaks the same invariant. Every try is a child process, like every simulation.

use std::path::Path;

use crate::{case::Case, swarm};

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
    let mut tries = 0;
    let mut fails = |case: &Case| -> anyhow::Result<Option<String>> {
        tries += 1;
        if tries > tries_max {
            return Ok(None);
        }
        let swarm = swarm::run(exe, std::slice::from_ref(case), 1)?;
        Ok(swarm.failures.values().next().cloned())
    };
    let Some(complaint) = fails(case)? else { return Ok(None) };
    let broken = breaks(&complaint).to_owned();
    let mut best = (case.clone(), complaint);
    loop {
        let mut smaller = None;
        for candidate in candidates(&best.0)? {
            if let Some(complaint) = fails(&candidate)?.filter(|it| breaks(it) == broken) {
                smaller = Some((candidate, complaint));
                break;
            }
        }
        match smaller {
            Some(found) => {
                println!("smaller: {}", found.0);
                best = found;
            }
            None => return Ok(Some(best)),
        }
    }
}

/// Cases that are smaller by one step, the boldest first.
fn candidates(case: &Case) -> anyhow::Result<Vec<Case>> {
    let options = case.options()?;
    let mut all = Vec::new();
    let mut number = |name: &str, value: u64, least: u64| {
        for next in [least, value / 2, value.saturating_sub(1)] {
            if next >= least && next < value {
                all.push(case.with(name, &next.to_string()));
            }
        }
    };
    number("rounds", u64::from(options.rounds), 1);
    number("clients", u64::from(options.clients), 1);
    let round_ms = u64::try_from(options.round.as_millis()).unwrap_or(u64::MAX);
    number("round_ms", round_ms / 100 * 100, 100);
    for name in options.switched_on() {
        all.push(case.with(name, "false"));
    }
    Ok(all)
}
