//! One seed from an empty drive to the last check: rounds of boot, workload and the end of the
//! machine, then a world without faults in which everything must be in order.

pub(crate) mod boot;
mod damage;
pub(crate) mod drain;
mod finale;
pub(crate) mod round;
mod sweep;

pub(crate) use drain::run as drain;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use weir_io::memory::{chance, reseed_sqlite};

use crate::{
    bucket,
    case::Case,
    faults::STREAM_RUN,
    town,
    world::{self, Sim},
};

/// What clients talk to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Over {
    /// The engine, in its own process.
    #[default]
    Engine,
    /// The HTTP server, over a network.
    Http,
}

/// What a seed did, if nothing was wrong.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub seed: u64,
    /// Equal on every run of the seed.
    pub hash: u64,
    pub boots: u32,
    pub requests: usize,
    pub simulated: Duration,
}

/// What was wrong, and what led to it.
#[derive(Clone, Debug)]
pub struct Failure {
    pub case: Case,
    pub what: String,
    pub tail: String,
}

static PANICKED: Mutex<Option<String>> = Mutex::new(None);

/// What the last panic said since this was asked before.
pub(crate) fn panicked() -> Option<String> {
    PANICKED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Keeps what a panic says for the report of its seed.
pub fn watch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let text = format!("{panic}");
        if cfg!(panic = "abort") {
            // Nothing comes after this but the end of the process.
            eprintln!("{text}");
        }
        PANICKED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
    }));
}

/// Runs a case.
///
/// # Errors
/// The [`Failure`] names the broken invariant or the panic.
pub fn case(case: &Case, echo: bool) -> Result<Report, Failure> {
    let Case { seed, over, .. } = *case;
    let options = case.options().map_err(|bad| Failure {
        case: case.clone(),
        what: bad.to_string(),
        tail: String::new(),
    })?;
    world::align_task_ids();
    reseed_sqlite(seed);
    drop(panicked());
    let sim = Sim::new(case, options, echo);
    let ran = catch_unwind(AssertUnwindSafe(|| simulate(&sim, over)));
    let panicked = panicked().or(ran.err().map(|_| "a panic without words".to_owned()));
    let what = sim.breach().map(|breach| breach.to_string()).or(panicked);
    let mut log = sim.log.borrow_mut();
    if let Some(what) = what {
        return Err(Failure { case: case.clone(), what, tail: log.tail() });
    }
    let fingerprint = sim.machine.fingerprint();
    log.aside(&[fingerprint], || format!("the machine, after all: {fingerprint:016x}"));
    Ok(Report {
        seed,
        hash: log.hash(),
        boots: sim.boots(),
        requests: sim.model.borrow().requests.len(),
        simulated: sim.now(),
    })
}

fn simulate(sim: &std::rc::Rc<Sim>, over: Over) {
    let mut c = chance(sim.seed, STREAM_RUN);
    sim.note(&format!("{:?}", sim.options));
    sim.set_faults(sim.calm());
    if over == Over::Http {
        town::run(sim);
        if sim.breach().is_none() {
            bucket::rehearse(sim, &mut c);
        }
    }
    for _ in 0..sim.options.rounds {
        if sim.breach().is_some() {
            return;
        }
        if over == Over::Engine {
            round::run(sim, &mut c);
            if sim.breach().is_none() {
                bucket::rehearse(sim, &mut c);
            }
        }
    }
    if sim.breach().is_some() {
        return;
    }
    finale::run(sim, &mut c);
}
