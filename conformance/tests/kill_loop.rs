//! A few rounds of the kill loop; `kill-loop.sh` runs more of them.
#![expect(
    clippy::disallowed_methods,
    reason = "a new seed is drawn from the real clock, and printed"
)]

use std::{env, time::SystemTime};

use conformance::{kill, server::Server};

const ROUNDS: u64 = 12;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().expect("the kill loop's variables are numbers"))
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::from(now.expect("it is after 1970").subsec_nanos())
}

#[test]
fn every_acked_record_survives_kill_nine() {
    let seed = number("WEIR_KILL_SEED").unwrap_or_else(fresh_seed);
    let rounds = number("WEIR_KILL_ROUNDS").unwrap_or(ROUNDS);
    println!("WEIR_KILL_SEED={seed} WEIR_KILL_ROUNDS={rounds}");
    let mut server = Server::start().expect("weir starts on an empty directory");
    kill::run(&mut server, seed, rounds)
        .expect("what was acknowledged is kept, once and in its place");
}
