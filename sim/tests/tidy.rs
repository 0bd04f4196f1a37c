//! The rules of the house that no compiler checks, over all packages.

#![expect(clippy::disallowed_methods, reason = "the test reads sources from the real disk")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const PACKAGES: [&str; 5] = ["io", "engine", "http", "sim", "conformance"];
/// Lines of code in a file, tests not counted.
const LINES_MAX: usize = 500;

/// Ranks inside the engine, as its imports are: a module imports from its own rank and below.
const RANKS: [(&str, u32); 63] = [
    ("limits", 0),
    ("inflate", 0),
    ("types", 1),
    ("config", 1),
    ("metrics", 1),
    ("request", 2),
    ("segment", 2),
    ("log::ancestry", 2),
    ("log::codec", 2),
    ("log::entry", 2),
    ("log::commit", 2),
    ("log::gate", 2),
    ("subscribe::glob", 2),
    ("subscribe::request", 2),
    ("subscribe::control", 2),
    ("subscribe::links", 2),
    ("subscribe::entry", 2),
    ("subscribe::rows", 2),
    ("subscribe::index", 2),
    ("publish", 3),
    ("admit", 3),
    ("state::kept", 3),
    ("state::stream", 3),
    ("state::rows", 4),
    ("decide", 4),
    ("ledger", 4),
    ("subscribe::subscription", 4),
    ("subscribe::concerned", 4),
    ("subscribe::calendar", 5),
    ("state::chunks", 5),
    ("state::catalogue", 5),
    ("state::uploads", 5),
    ("state::view", 5),
    ("state::deaths", 6),
    ("state::files", 6),
    ("state::readers", 6),
    ("log::group", 6),
    ("state::shelf", 6),
    ("subscribe::registry", 6),
    ("subscribe::touches", 6),
    ("log::sequencer", 7),
    ("subscribe::restore", 7),
    ("core", 8),
    ("rack", 8),
    ("log::writer", 8),
    ("log::replay", 8),
    ("history", 8),
    ("motion", 8),
    ("read", 8),
    ("subscribe::fold", 8),
    ("subscribe::waker", 8),
    ("audit", 9),
    ("live", 9),
    ("open", 9),
    ("engine", 9),
    ("inspect", 9),
    ("subscribe", 9),
    ("restore", 9),
    ("verify", 9),
    ("log", 10),
    ("state", 10),
    ("measured", 10),
    ("lib", 10),
];

struct Source {
    path: PathBuf,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "node_modules" && name != "target" {
                walk(&path, found);
            }
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8(bytes).expect("sources are UTF-8")
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for package in PACKAGES {
        walk(&root().join(package), &mut paths);
    }
    paths.sort();
    paths.into_iter().map(|path| Source { text: read(&path), path }).collect()
}

impl Source {
    fn is_test(&self) -> bool {
        let parts: Vec<_> = self.path.components().map(|it| it.as_os_str().to_owned()).collect();
        parts.iter().any(|part| part == "tests" || part == "tests.rs")
    }

    /// Lines before the tests inside the file that are neither blank nor comments.
    fn code(&self) -> impl Iterator<Item = &str> {
        let whole = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
        whole.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with("//"))
    }
}

fn complain(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_fits() {
    let mut found = Vec::new();
    for source in sources() {
        let shown = source.path.display();
        if !source.text.starts_with("//!") {
            found.push(format!("{shown} has no module doc"));
        }
        let lines = source.code().count();
        if lines > LINES_MAX && !source.is_test() {
            found.push(format!("{shown} has {lines} lines of code"));
        }
    }
    complain("files", &found);
}

#[test]
fn a_todo_has_a_number() {
    let word = ["TO", "DO"].concat();
    let mut found = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            let rest = line.split_once(word.as_str()).map(|(_, rest)| rest);
            if rest.is_some_and(|rest| !rest.starts_with("(#")) && !source.path.ends_with("tidy.rs")
            {
                found.push(format!("{}:{}", source.path.display(), index + 1));
            }
        }
    }
    complain("work to be done without a number", &found);
}

#[test]
fn unsafe_code_lies_beside_sqlite_only() {
    let allowed = Path::new("io/src/sqlite");
    let word = ["unsafe", " "].concat();
    let found: Vec<_> = sources()
        .iter()
        .filter(|source| source.code().any(|line| line.contains(&word)))
        .filter(|source| !source.path.to_string_lossy().contains(&*allowed.to_string_lossy()))
        .map(|source| source.path.display().to_string())
        .collect();
    complain("unsafe", &found);
}

#[test]
fn packages_depend_downwards() {
    let allowed: [(&str, &[&str]); 5] = [
        ("io", &[]),
        ("engine", &["weir-io"]),
        ("http", &["weir-io", "weir-engine"]),
        ("sim", &["weir-io", "weir-engine", "weir-http"]),
        ("conformance", &["weir-io", "weir-engine", "weir-http"]),
    ];
    let mut found = Vec::new();
    for (package, below) in allowed {
        let manifest = read(&root().join(package).join("Cargo.toml"));
        for line in manifest.lines().filter(|line| line.starts_with("weir-")) {
            let name = line.split(['.', ' ', '=']).next().unwrap_or("");
            if !below.contains(&name) {
                found.push(format!("{package} depends on {name}"));
            }
        }
    }
    complain("edges", &found);
}

/// Paths that begin with `crate::` or `super::`, braces expanded.
fn imports(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in text.match_indices(start) {
            expand("", &text[at..], &mut all);
        }
    }
    all
}

/// Expands a use tree up to where it ends. Returns the rest.
fn expand<'a>(prefix: &str, text: &'a str, all: &mut Vec<String>) -> &'a str {
    let end = text.find(|it: char| !(it.is_alphanumeric() || it == '_' || it == ':'));
    let (path, mut rest) = text.split_at(end.unwrap_or(text.len()));
    let here = format!("{prefix}{path}");
    if !path.ends_with("::") || !rest.starts_with('{') {
        all.push(here);
        // What it is called here does not matter.
        let renamed = rest.strip_prefix(" as ");
        return renamed.map_or(rest, |name| {
            name.trim_start_matches(|it: char| it.is_alphanumeric() || it == '_')
        });
    }
    rest = &rest[1..];
    loop {
        rest = rest.trim_start_matches([' ', '\n', ',']);
        if rest.is_empty() || rest.starts_with('}') {
            return rest.get(1..).unwrap_or("");
        }
        let before = rest.len();
        rest = expand(&here, rest, all);
        if rest.len() == before {
            return rest;
        }
    }
}

fn rank(path: &str) -> Option<(&'static str, u32)> {
    let fits = |name: &str| path == name || path.starts_with(&format!("{name}::"));
    RANKS.iter().filter(|(name, _)| fits(name)).max_by_key(|(name, _)| name.len()).copied()
}

#[test]
fn the_engine_imports_downwards() {
    // What `lib.rs` gives a second name.
    let names = [
        ("Config", "config"),
        ("Metrics", "metrics"),
        ("Watch", "live"),
        ("OpenError", "engine"),
        ("Engine", "engine"),
        ("Health", "engine"),
    ];
    let names: BTreeMap<&str, &str> = names.into();
    let base = root().join("engine/src");
    let mut found = Vec::new();
    for source in sources() {
        let Ok(relative) = source.path.strip_prefix(&base) else { continue };
        let name = relative.with_extension("").to_string_lossy().replace('/', "::");
        let module = name.trim_end_matches("::mod").to_owned();
        if source.is_test() || module == "lib" {
            continue;
        }
        let Some((_, own)) = rank(&module) else {
            found.push(format!("{module} has no rank"));
            continue;
        };
        let code: Vec<&str> = source.code().collect();
        for path in imports(&code.join("\n")) {
            let path = match path.strip_prefix("super::") {
                Some(rest) if name != module => format!("{}::{rest}", module),
                Some(rest) => match module.rsplit_once("::") {
                    Some((parent, _)) => format!("{parent}::{rest}"),
                    None => rest.to_owned(),
                },
                None => path.trim_start_matches("crate::").to_owned(),
            };
            let first = path.split("::").next().unwrap_or("");
            let path = names.get(first).map_or(path.clone(), |it| (*it).to_owned());
            if let Some((target, above)) = rank(&path)
                && above > own
                && !module.starts_with(target)
            {
                found.push(format!("{module} (rank {own}) imports {path} (rank {above})"));
            }
        }
    }
    complain("imports", &found);
}

fn ids(text: &str) -> BTreeSet<u32> {
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    text.split("INV-").skip(1).filter_map(|rest| digits(rest).parse().ok()).collect()
}

/// Where an id may be cited so that something happens when it is broken.
const ASSERTIONS: [&str; 5] = ["assert!(", "assert_eq!(", "assert_ne!(", ".expect(", "#[error("];
const CHECKS: [&str; 2] = ["require!(", "Breach::of("];
/// What stands in the table instead of a file.
const NO_ASSERTION: &str = "no assertion possible: because ";

/// Whether a place in the code lies inside the parentheses of one of these.
fn is_inside(code: &str, at: usize, openers: &[&str]) -> bool {
    let ends = openers.iter().filter_map(|it| code[..at].rfind(it).map(|found| found + it.len()));
    let Some(begin) = ends.max() else { return false };
    let mut depth = 1_i32;
    for found in code[begin..at].chars() {
        depth += i32::from(found == '(') - i32::from(found == ')');
        if depth == 0 {
            return false;
        }
    }
    true
}

/// The invariants that a source's assertions cite.
fn asserted(source: &Source) -> BTreeSet<u32> {
    let code = source.code().collect::<Vec<_>>().join("\n");
    let cited = code.match_indices("INV-").filter(|(at, _)| is_inside(&code, *at, &ASSERTIONS));
    cited.flat_map(|(at, _)| ids(code[at..].lines().next().unwrap_or(""))).collect()
}

/// The constants of the simulator's checks that breaches are made of, by id.
fn checked(all: &[Source]) -> BTreeSet<u32> {
    let start = root().join("sim/src");
    let inside = all.iter().filter(|it| it.path.starts_with(&start));
    let (named, others): (Vec<_>, Vec<_>) = inside.partition(|it| it.path.ends_with("checks.rs"));
    let codes: Vec<String> =
        others.iter().map(|it| it.code().collect::<Vec<_>>().join("\n")).collect();
    let is_used = |name: &str| {
        let name = format!("checks::{name}");
        let ends = |code: &str, at: usize| {
            !code[at + name.len()..].starts_with(|it: char| it.is_alphanumeric() || it == '_')
        };
        let used = |code: &String| {
            let mut found = code.match_indices(&name);
            found.any(|(at, _)| ends(code, at) && is_inside(code, at, &CHECKS))
        };
        codes.iter().any(used)
    };
    let constants = named.iter().flat_map(|it| it.text.split("pub const ").skip(1));
    let used = constants.filter_map(|it| {
        let (name, rest) = it.split_once(": Invariant =")?;
        let sentence = rest.split(';').next().unwrap_or("");
        is_used(name).then(|| ids(sentence))
    });
    used.flatten().collect()
}

/// Rows of the table: the id, and what stands under "asserted in".
fn table() -> Vec<(u32, String)> {
    let text = read(&root().join("docs/INVARIANTS.md"));
    let rows = text.lines().filter(|line| line.starts_with("| INV-"));
    let cells = rows.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    cells.filter_map(|it| Some((ids(it.get(1)?).first().copied()?, (*it.get(3)?).into()))).collect()
}

#[test]
fn every_invariant_is_listed_and_checked() {
    let all = sources();
    let table = table();
    let listed: BTreeSet<u32> = table.iter().map(|(id, _)| *id).collect();
    let show =
        |found: BTreeSet<u32>| found.iter().map(|id| format!("INV-{id}")).collect::<Vec<_>>();
    let cited = all.iter().filter(|it| !it.path.starts_with(root().join("conformance")));
    let cited: BTreeSet<u32> = cited.flat_map(|it| ids(&it.text)).collect();
    complain("cited and not listed", &show(&cited - &listed));
    complain("listed and not checked by the simulator", &show(&listed - &checked(&all)));
}

#[test]
fn every_invariant_is_asserted_where_the_table_says() {
    let starts = ["engine/src", "io/src", "http/src"].map(|package| root().join(package));
    let all = sources();
    let inside = |it: &&Source| starts.iter().any(|start| it.path.starts_with(start));
    let all: Vec<&Source> = all.iter().filter(inside).filter(|it| !it.is_test()).collect();
    let mut found = Vec::new();
    for (id, cell) in table() {
        let asserting = all.iter().filter(|it| asserted(it).contains(&id));
        let asserting: Vec<&Path> = asserting.map(|it| it.path.as_path()).collect();
        if cell.starts_with(NO_ASSERTION) {
            if let Some(path) = asserting.first() {
                found.push(format!("INV-{id} is asserted after all, in {}", path.display()));
            }
            continue;
        }
        let named: Vec<&str> = cell.split('`').filter(|word| word.ends_with(".rs")).collect();
        if named.is_empty() {
            found.push(format!("INV-{id} names no file, and not why there is none"));
        }
        for name in named {
            if !asserting.iter().any(|path| path.ends_with(name)) {
                found.push(format!("INV-{id} is not asserted in {name}"));
            }
        }
    }
    complain("assertions", &found);
}

#[test]
fn every_module_is_named_and_every_snapshot_used() {
    let all = sources();
    let mut found = Vec::new();
    for source in all.iter().filter(|it| it.path.to_string_lossy().contains("/src/")) {
        let stem = source.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let dir = source.path.parent().unwrap_or(Path::new(""));
        let is_mod = stem == "mod";
        let (module, parents) = if is_mod {
            let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, dir.parent().unwrap_or(Path::new("")).to_owned())
        } else {
            (stem.clone(), dir.to_owned())
        };
        if matches!(stem.as_str(), "lib" | "main" | "build")
            || dir.file_name().is_some_and(|it| it == "bin")
        {
            continue;
        }
        let beside = parents.with_extension("rs");
        let holders = ["mod.rs", "lib.rs", "main.rs"].map(|name| parents.join(name));
        let named = holders.iter().chain([&beside]).any(|holder| {
            let text = read_if_there(holder);
            text.contains(&format!("mod {module};"))
        });
        let file = source.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let by_path = format!("#[path = \"{file}\"]");
        let by_path =
            all.iter().any(|it| it.path.parent() == Some(dir) && it.text.contains(&by_path));
        if !named && !by_path {
            found.push(format!("{} is no module", source.path.display()));
        }
    }
    let folders = ["snapshots", "snapshots/schedules", "snapshots/cost"];
    let folders = folders.map(|folder| root().join(folder));
    for entry in folders.iter().flat_map(|it| fs::read_dir(it).into_iter().flatten().flatten()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if folders.contains(&entry.path()) {
            continue;
        }
        let Some(name) = name.strip_suffix(".snap") else {
            found.push(format!("{name} is no snapshot"));
            continue;
        };
        if !all.iter().any(|source| source.text.contains(&format!("\"{name}\""))) {
            found.push(format!("snapshot {name} is not used"));
        }
    }
    complain("dead", &found);
}

fn read_if_there(path: &Path) -> String {
    if path.is_file() { read(path) } else { String::new() }
}
