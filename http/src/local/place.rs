//! Where the files of a named server are.
//!
//! ```text
//! <root>/<name>/durable-streams.sqlite   everything stored (and -wal, -shm while it runs)
//! <root>/<name>/server.lock              held while it runs; says who holds it
//! <root>/<name>/server.json              where it listens
//! ```

use std::{
    fmt,
    path::{Path, PathBuf},
};

use weir_engine::Layout;

use super::LocalError;
use crate::config::Environment;

/// Longest name of a server.
const NAME_BYTES_MAX: usize = 128;
/// How every file of SQLite's begins.
pub(crate) const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The peer's name in the directories of users, with the suffix that its library adds.
const APPLICATION: &str = "prisma-dev-nodejs";

/// A name that is also a good name of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name of a server that has no other.
    pub const DEFAULT: &str = "default";

    /// Takes letters, digits, `.`, `_` and `-`; spaces around them do not count.
    ///
    /// # Errors
    /// It has something else or nothing, or is `.` or `..`, or too long.
    pub fn new(text: &str) -> Result<Self, LocalError> {
        let name = text.trim();
        let fits = name.len() <= NAME_BYTES_MAX && name.bytes().all(is_good);
        if !fits || matches!(name, "" | "." | "..") {
            return Err(LocalError::Name(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_good(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// The rule that a name which is none does not keep.
pub(super) fn rule(name: &str) -> String {
    const LETTERS: &str = "letters, digits, '.', '_' and '-'";
    match name {
        "" => format!("one or more {LETTERS}"),
        "." | ".." => format!("{LETTERS}, but not '.' or '..' alone"),
        name if name.bytes().all(is_good) => {
            format!("at most {NAME_BYTES_MAX} {LETTERS}, and these are {}", name.len())
        }
        _ => format!("{LETTERS} only"),
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directory of a server.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: Name,
    pub(crate) dir: PathBuf,
}

impl Place {
    pub(crate) fn new(root: &Path, name: Name) -> Self {
        let dir = root.join(name.as_str());
        Self { name, dir }
    }

    pub(crate) fn sqlite(&self) -> PathBuf {
        self.dir.join(Layout::OneFile.database())
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join(Layout::OneFile.lock())
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.dir.join("server.json")
    }
}

/// The directory of all servers: `DS_LOCAL_DATA_ROOT`, or else the user's own of the peer.
///
/// # Errors
/// Neither it nor the user's home is known.
pub(crate) fn root(environment: &Environment) -> Result<PathBuf, LocalError> {
    let given = environment.get("DS_LOCAL_DATA_ROOT").map(str::trim);
    let root = match given {
        Some(root) => PathBuf::from(root),
        None => of_user(environment, std::env::consts::OS).ok_or(LocalError::Root)?,
    };
    std::path::absolute(&root)
        .map_err(|source| LocalError::Io { what: format!("finding {}", root.display()), source })
}

/// Where programs keep a user's data on this kind of system.
fn of_user(environment: &Environment, system: &str) -> Option<PathBuf> {
    let home = || environment.get("HOME").map(PathBuf::from);
    let data = match system {
        "macos" => home()?.join("Library/Application Support").join(APPLICATION),
        "windows" => PathBuf::from(environment.get("LOCALAPPDATA")?).join(APPLICATION).join("Data"),
        _ => {
            let data = environment.get("XDG_DATA_HOME").map(PathBuf::from);
            data.or_else(|| Some(home()?.join(".local/share")))?.join(APPLICATION)
        }
    };
    Some(data.join("durable-streams"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_good_names_of_directories() {
        for (text, expect) in [
            ("a", Some("a")),
            ("My_app-1.2", Some("My_app-1.2")),
            ("  spaced\n", Some("spaced")),
            ("", None),
            (" \n", None),
            ("...", Some("...")),
            (".", None),
            ("..", None),
            (" .. ", None),
            ("a/b", None),
            ("../x", None),
            ("a b", None),
            ("ä", None),
            ("a\0", None),
            (&"n".repeat(128), Some(&*"n".repeat(128))),
            (&"n".repeat(129), None),
        ] {
            let name = Name::new(text);
            assert_eq!(name.as_ref().ok().map(Name::as_str), expect, "{text:?}");
            assert!(
                name.is_ok() || name.unwrap_err().to_string().starts_with("invalid server name")
            );
        }
    }

    #[test]
    fn a_name_that_is_none_is_told_the_rule_that_it_breaks() {
        for (text, expect) in [
            (" ", "one or more letters"),
            (".", "but not '.' or '..' alone"),
            ("..", "but not '.' or '..' alone"),
            (&"n".repeat(129), "at most 128 letters, digits, '.', '_' and '-', and these are 129"),
            ("a b", "(letters, digits, '.', '_' and '-' only)"),
            (&"/".repeat(129), "'-' only"),
        ] {
            let refused = Name::new(text).expect_err("no name").to_string();
            assert!(refused.contains(expect), "{refused}");
        }
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_root_is_the_peers_unless_it_is_given() {
        let home = [("HOME", "/home/u"), ("LOCALAPPDATA", "C:/L")];
        for (system, expect) in [
            ("linux", "/home/u/.local/share/prisma-dev-nodejs/durable-streams"),
            ("macos", "/home/u/Library/Application Support/prisma-dev-nodejs/durable-streams"),
            ("windows", "C:/L/prisma-dev-nodejs/Data/durable-streams"),
        ] {
            let root = of_user(&environment(&home), system);
            assert_eq!(root, Some(PathBuf::from(expect)), "{system}");
        }
        let xdg = environment(&[("HOME", "/home/u"), ("XDG_DATA_HOME", "/data")]);
        let expect = PathBuf::from("/data/prisma-dev-nodejs/durable-streams");
        assert_eq!(of_user(&xdg, "linux"), Some(expect));
        let given = environment(&[("DS_LOCAL_DATA_ROOT", " /elsewhere ")]);
        assert_eq!(root(&given).expect("given"), PathBuf::from("/elsewhere"));
        let relative = environment(&[("DS_LOCAL_DATA_ROOT", "here")]);
        assert!(root(&relative).expect("given").is_absolute());
        let blank = environment(&[("DS_LOCAL_DATA_ROOT", "  "), ("HOME", "/h")]);
        assert!(root(&blank).expect("of the user").starts_with("/h"));
        assert!(matches!(root(&environment(&[])), Err(LocalError::Root)));
    }
}
