//! The upstream suite against a running server, held to the committed list.

use std::ffi::OsStr;

use anyhow::{Result, ensure};

use crate::{
    expected::{self, Expectation},
    node::{self, Run},
};

/// Every test of the pinned suite with what is expected of it.
const LIST: &str = include_str!("../expected.txt");

/// Runs all of it with vitest's default timeouts; fails with every difference.
pub fn run(url: &str) -> Result<()> {
    let list = expected::parse_list(LIST)?;
    let verdict = node::vitest(&Run {
        config: "vitest.suite.config.mjs",
        variables: &[("CONFORMANCE_TEST_URL", OsStr::new(url))],
    })?;
    expected::ensure_same(&list, &verdict.report)?;
    // An error outside of every test shows in vitest's exit code alone.
    let all_pass = list.values().all(|expectation| *expectation == Expectation::Pass);
    ensure!(verdict.success || !all_pass, "every test passed, yet vitest reports an error");
    Ok(())
}
