//! Node and npm: checked for, the pinned packages installed, vitest run.
//!
//! A missing tool is an error that says what to install; nothing is skipped.
//! The packages are installed once per lock file: a copy of it inside
//! `node_modules` says what is there, and the lock file itself is locked
//! meanwhile, so that two test processes never install at once.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    binary::package,
    expected::{self, Report},
    server::Scratch,
};

/// The oldest major version of Node that the pinned vitest runs on.
const NODE_MAJOR_MIN: u32 = 20;

/// A vitest run: which configuration, told what.
pub struct Run<'a> {
    /// A file of this package.
    pub config: &'a str,
    pub variables: &'a [(&'a str, &'a OsStr)],
}

/// What vitest found out.
pub struct Verdict {
    pub report: Report,
    /// Whether vitest itself ended with success.
    pub success: bool,
}

/// Installs what is missing and runs vitest; its own output goes to the test's.
pub fn vitest(run: &Run<'_>) -> Result<Verdict> {
    let modules = install()?;
    let scratch = Scratch::new()?;
    let output = scratch.path().join("report.json");
    let mut command = Command::new("node");
    command
        .current_dir(package())
        .arg(modules.join("vitest/vitest.mjs"))
        .args(["run", "--config", run.config, "--reporter=dot", "--reporter=json"])
        .arg(format!("--outputFile.json={}", output.display()))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    for (name, value) in run.variables {
        command.env(name, value);
    }
    let finished = command.output().context("node was there a moment ago")?;
    let words = String::from_utf8_lossy(&finished.stdout);
    let complaints = String::from_utf8_lossy(&finished.stderr);
    println!("{words}\n{complaints}");
    let json = fs::read_to_string(&output)
        .with_context(|| format!("vitest wrote no report:\n{words}\n{complaints}"))?;
    Ok(Verdict { report: expected::parse_report(&json)?, success: finished.status.success() })
}

/// The folder of the pinned packages, installed by now.
pub(crate) fn install() -> Result<PathBuf> {
    require_node()?;
    let modules = package().join("node_modules");
    let lock_path = package().join("package-lock.json");
    let lock_file = File::open(&lock_path).context("package-lock.json is committed")?;
    lock_file.lock().context("package-lock.json can be locked")?;
    let wanted = fs::read(&lock_path)?;
    let stamp = modules.join(".installed-from");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        require_one_vitest(&modules)?;
        return Ok(modules);
    }
    let output = npm(&["ci", "--ignore-scripts", "--no-audit", "--no-fund"])?;
    ensure!(
        output.status.success(),
        "`npm ci` failed in {}:\n{}",
        package().display(),
        String::from_utf8_lossy(&output.stderr)
    );
    require_one_vitest(&modules)?;
    fs::write(&stamp, wanted)?;
    Ok(modules)
}

fn require_node() -> Result<()> {
    let missing = format!(
        "Node is not installed: install Node {NODE_MAJOR_MIN}, 22 or 24 with npm, the conformance \
         suite and the published clients run on it"
    );
    let output = match Command::new("node").arg("--version").stdin(Stdio::null()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(missing),
        other => other.context("node could not be started")?,
    };
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|n| n.parse().ok());
    let Some(major) = major else { bail!("`node --version` says {version:?}") };
    let recent: u32 = major;
    ensure!(recent >= NODE_MAJOR_MIN, "Node {version} is too old: {missing}");
    Ok(())
}

fn npm(arguments: &[&str]) -> Result<std::process::Output> {
    let mut command = Command::new("npm");
    command.current_dir(package()).args(arguments).stdin(Stdio::null());
    match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("npm is not installed: install the npm that belongs to your Node")
        }
        other => other.context("npm could not be started"),
    }
}

/// With two copies of vitest the suite registers its tests in the wrong one.
fn require_one_vitest(modules: &Path) -> Result<()> {
    let nested = modules.join("@durable-streams/server-conformance-tests/node_modules/vitest");
    ensure!(!nested.exists(), "npm installed a second vitest in {}", nested.display());
    Ok(())
}
