//! Finds the `weir` binary, building it first.
//!
//! `WEIR_BINARY` names one to use as it is. Without it, cargo is asked to build
//! the workspace's binary in the profile the tests were built in, and says in
//! its own messages where the executable lies; no path is guessed, so a stale
//! binary is never tested. The answer is found once per test process.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// The folder of this package.
pub fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The server under test.
pub fn weir() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| find().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow!("no weir binary to test: {error}"))
}

fn find() -> Result<PathBuf> {
    if let Some(named) = env::var_os("WEIR_BINARY") {
        let path = PathBuf::from(named);
        ensure!(path.is_file(), "WEIR_BINARY is {} which is not a file", path.display());
        return path.canonicalize().context("WEIR_BINARY has no absolute path");
    }
    build()
}

fn build() -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let output = Command::new(cargo)
        .current_dir(package())
        .args(["build", "--package", "weir-http", "--bin", "weir"])
        .args(["--profile", profile(), "--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    ensure!(output.status.success(), "`cargo build --package weir-http --bin weir` failed");
    let messages = String::from_utf8(output.stdout).context("cargo writes UTF-8")?;
    for line in messages.lines() {
        if let Some(path) = executable(line) {
            return Ok(path);
        }
    }
    bail!("cargo built weir-http but named no executable `weir`");
}

/// The profile of the code that asks: the tests' own for a debug build, so that
/// both share their compiled dependencies, and `release` for a release build.
fn profile() -> &'static str {
    if cfg!(debug_assertions) { "test" } else { "release" }
}

/// The path in one of cargo's messages, if that message announces our binary.
fn executable(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let announced = message["reason"] == "compiler-artifact" && message["target"]["name"] == "weir";
    if !announced {
        return None;
    }
    message["executable"].as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::executable;

    #[test]
    fn only_the_message_of_the_binary_names_the_binary() {
        let check = |line: &str, expect: Option<&str>| {
            assert_eq!(executable(line), expect.map(PathBuf::from), "{line}");
        };
        check("", None);
        check("not json", None);
        check(r#"{"reason":"build-finished","success":true}"#, None);
        check(
            r#"{"reason":"compiler-artifact","target":{"name":"weir_http"},"executable":null}"#,
            None,
        );
        check(
            r#"{"reason":"compiler-artifact","target":{"name":"weir"},"executable":"/t/weir"}"#,
            Some("/t/weir"),
        );
    }
}
