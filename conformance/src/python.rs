//! Python: virtual environments with pinned packages, and the client's tests run.
//!
//! Each environment lives in this package and is made anew whenever its list of
//! packages differs from the copy inside it. A missing Python or a
//! Python without `venv` is an error that says what to install.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::binary::package;

/// What an environment is for.
#[derive(Clone, Copy, Debug)]
pub enum Environment {
    /// The published client.
    Client,
    /// A mock of S3.
    Moto,
}

impl Environment {
    /// The list of packages, and the directory they are in.
    fn files(self) -> (&'static str, &'static str) {
        match self {
            Environment::Client => ("requirements.txt", ".venv"),
            Environment::Moto => ("requirements-moto.txt", ".venv-moto"),
        }
    }
}

/// Runs a `unittest` file of this package; fails with its output.
pub fn unittest(file: &str, variables: &[(&str, &OsStr)]) -> Result<()> {
    let interpreter = install(Environment::Client)?;
    let mut command = Command::new(interpreter);
    command.current_dir(package()).args(["-m", "unittest", "--verbose", file]);
    for (name, value) in variables {
        command.env(name, value);
    }
    let output = finish(&mut command)?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{file} failed:\n{words}");
    ensure!(!words.contains("skipped"), "{file} skipped a test:\n{words}");
    ensure!(!words.contains("Ran 0 tests"), "{file} ran no test:\n{words}");
    println!("{words}");
    Ok(())
}

/// The interpreter of an environment that holds the pinned packages.
pub fn install(environment: Environment) -> Result<PathBuf> {
    let (list, directory) = environment.files();
    let requirements = package().join(list);
    let lock = File::open(&requirements).with_context(|| format!("{list} is committed"))?;
    lock.lock().with_context(|| format!("{list} can be locked"))?;
    let environment = package().join(directory);
    let interpreter = environment.join("bin/python");
    let wanted = fs::read(&requirements)?;
    let stamp = environment.join(".installed-from");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) && runs(&interpreter) {
        return Ok(interpreter);
    }

    let mut create = Command::new("python3");
    create.args(["-m", "venv", "--clear"]).arg(&environment);
    let output = finish(&mut create)?;
    ensure!(
        output.status.success(),
        "Python cannot make a virtual environment: install python3-venv\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut fill = Command::new(&interpreter);
    fill.args(["-m", "pip", "install", "--quiet", "--require-hashes", "--requirement"]);
    let output = finish(fill.arg(&requirements))?;
    ensure!(
        output.status.success(),
        "pip could not install {list}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(stamp, wanted)?;
    Ok(interpreter)
}

/// An environment outlives the Python it was made from.
fn runs(interpreter: &Path) -> bool {
    let asked = Command::new(interpreter).arg("--version").output();
    asked.is_ok_and(|output| output.status.success())
}

fn finish(command: &mut Command) -> Result<Output> {
    match command.stdin(Stdio::null()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("Python is not installed: install Python 3.10 or newer with venv and pip")
        }
        other => other.with_context(|| format!("{command:?} could not be started")),
    }
}
