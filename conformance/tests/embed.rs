//! The npm package `http/npm`, run by Node and by Bun. The cases are in `embed/package.mjs`; here
//! they are held to having run.

use conformance::{
    binary,
    embed::{self, Runtime},
};

/// Every case passes, and none is missing.
fn every_case_passes(runtime: Runtime) {
    let weir = binary::weir().expect("weir builds");
    let report = embed::run(runtime, weir).expect("the cases run");
    assert!(report.failed.is_empty(), "{runtime:?}:\n{}", report.text);
    assert_eq!(report.passed.len(), 20, "{runtime:?} ran every case:\n{}", report.text);
}

#[test]
fn the_package_works_in_node() {
    every_case_passes(Runtime::Node);
}

#[test]
fn the_package_works_in_bun() {
    every_case_passes(Runtime::Bun);
}

#[test]
fn the_types_of_the_package_are_what_its_programs_rely_on() {
    let complaints = embed::check_types().expect("the compiler runs");
    assert_eq!(complaints, "");
}
