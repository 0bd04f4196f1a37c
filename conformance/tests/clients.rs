//! The published clients against the real binary. Their tests are written in
//! their own languages under `clients/`; they start, kill and restart servers
//! themselves. Here they are run, and held to having run: a failure, a skip, an
//! empty file and a missing tool are all red.

use std::ffi::OsStr;

use conformance::{
    binary,
    expected::Outcome,
    node::{self, Run},
    python,
};

/// Runs one file of `clients/` and fails with the names of what did not pass.
fn every_test_passes(file: &str) {
    let weir = binary::weir().expect("weir builds");
    let verdict = node::vitest(&Run {
        config: "vitest.clients.config.mjs",
        variables: &[("WEIR_BINARY", weir.as_os_str()), ("CLIENT_TESTS", OsStr::new(file))],
    })
    .expect("vitest runs");
    let mut wrong = Vec::new();
    for (name, outcome) in &verdict.report {
        match outcome {
            Outcome::Passed => {}
            Outcome::Failed { message } => wrong.push(format!("failed: {name}\n    {message}")),
            Outcome::NotRun { status } => wrong.push(format!("did not run ({status}): {name}")),
        }
    }
    assert!(wrong.is_empty(), "{file}:\n  {}", wrong.join("\n  "));
    assert!(verdict.success, "every test of {file} passed, yet vitest reports an error");
}

#[test]
fn typescript_client() {
    every_test_passes("client");
}

#[test]
fn typescript_state_database() {
    every_test_passes("state");
}

#[test]
fn yjs_layer_server() {
    every_test_passes("yjs");
}

#[test]
fn python_client() {
    let weir = binary::weir().expect("weir builds");
    python::unittest("clients/python_client.py", &[("WEIR_BINARY", weir.as_os_str())])
        .expect("the tests of the Python client pass");
}
