//! The upstream conformance suite against the real binary, on an empty
//! directory, in local mode, and on a directory that has seen a kill.
//!
//! One run at a time: the suite measures times to live and names its streams by
//! the clock.

use std::sync::{Mutex, PoisonError};

use conformance::{
    life,
    server::{Mode, Server},
    suite,
};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn suite_full_mode() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start().expect("weir starts on an empty directory");
    suite::run(&server.url()).expect("the suite ends as listed");
}

#[test]
fn suite_local_mode() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start_in(Mode::Local).expect("weir starts in an empty directory");
    suite::run(&server.url()).expect("the suite ends as listed in local mode");
}

#[test]
fn suite_after_kill() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut server = Server::start().expect("weir starts on an empty directory");
    let memory = life::first_half(&mut server.client()).expect("the first half of a life");
    server.kill().expect("weir dies of kill -9");
    server.restart().expect("weir starts on what the kill left");
    life::second_half(&mut server.client(), &memory).expect("the second half of the same life");
    suite::run(&server.url()).expect("the suite ends as listed after a kill");
}
