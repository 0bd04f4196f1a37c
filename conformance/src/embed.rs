//! Programs in JavaScript that embed a local server: run by Node or by Bun, and their report read.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{binary::package, node, server::Scratch};

/// What runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    Node,
    Bun,
}

/// What the program printed.
#[derive(Debug)]
pub struct Report {
    /// Names of the cases that passed.
    pub passed: Vec<String>,
    /// Those that did not, with the reason.
    pub failed: Vec<String>,
    /// All of it.
    pub text: String,
}

/// Runs the cases of the npm package against this binary.
pub fn run(runtime: Runtime, weir: &Path) -> Result<Report> {
    let modules = node::install()?;
    let program = match runtime {
        Runtime::Node => PathBuf::from("node"),
        Runtime::Bun => bun(&modules)?,
    };
    let output = Command::new(&program)
        .current_dir(package())
        .arg("embed/package.mjs")
        .env("WEIR_BINARY", weir)
        .env_remove("XDG_DATA_HOME")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} could not be started", program.display()))?;
    let out = String::from_utf8_lossy(&output.stdout);
    let text = format!("{out}\n{}", String::from_utf8_lossy(&output.stderr));
    let lines = |word: &str| -> Vec<String> {
        out.lines().filter_map(|line| line.strip_prefix(word)).map(str::to_owned).collect()
    };
    let report = Report { passed: lines("pass "), failed: lines("fail "), text };
    let ended_well = output.status.success() || !report.failed.is_empty();
    ensure!(ended_well, "it ended with {}:\n{}", output.status, report.text);
    Ok(report)
}

/// Has the compiler check the types of the npm package against `embed/types.ts`. Returns what it
/// complains of, nothing if all is well.
pub fn check_types() -> Result<String> {
    let modules = node::install()?;
    let compiler = modules.join("typescript/bin/tsc");
    ensure!(compiler.is_file(), "npm installed no compiler: {}", compiler.display());
    // Installed as a program has it, so that what package.json says of its types is checked too.
    let scratch = Scratch::new()?;
    let installed = scratch.path().join("node_modules/streamweir-local");
    fs::create_dir_all(&installed)?;
    copy_files(&package().join("../http/npm"), &installed)?;
    copy_files(&package().join("embed"), scratch.path())?;
    let output = Command::new("node")
        .current_dir(scratch.path())
        .arg(compiler)
        .args(["--project", "tsconfig.json", "--pretty", "false"])
        .stdin(Stdio::null())
        .output()
        .context("node was there a moment ago")?;
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words).trim().to_owned();
    ensure!(output.status.success() || !words.is_empty(), "it ended with {}", output.status);
    Ok(words)
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("{} is there", from.display()))? {
        let path = entry?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

/// The binary for this machine among the pinned packages: the package `bun` itself has only a
/// script that would put it in place.
fn bun(modules: &Path) -> Result<PathBuf> {
    let system = match env::consts::OS {
        "macos" => "darwin",
        system => system,
    };
    let machine = match env::consts::ARCH {
        "x86_64" => "x64",
        machine => machine,
    };
    for libc in ["", "-musl"] {
        let path = modules.join(format!("@oven/bun-{system}-{machine}{libc}/bin/bun"));
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("npm installed no Bun for {system} on {machine} in {}", modules.display())
}
