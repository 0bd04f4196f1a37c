//! `weir --url URL head a`: flags of the server that is asked, given before the command.
//!
//! Each command has them for itself, behind its name, and they are put there. Anything else that
//! stands first is left to the grammar, which knows it or says what is wrong.

use std::ffi::OsString;

/// Flags with a value, and those without one.
const WITH_VALUE: [&str; 4] = ["--url", "--root", "--auth", "--retry-for"];
const ALONE: &str = "--json";
/// Commands that ask a server.
const COMMANDS: [&str; 12] = [
    "create", "append", "read", "tail", "head", "ls", "close", "rm", "fork", "details", "import",
    "export",
];
/// Those with commands of their own.
const GROUPS: [&str; 2] = ["sub", "bench"];
/// One whose commands ask no server, and can print JSON.
const LOCAL: &str = "local";

/// The command line with such flags behind their command.
pub(super) fn in_place(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut first = 1;
    while let Some(flag) = arguments.get(first).and_then(|it| it.to_str()) {
        let name = flag.split_once('=').map_or(flag, |(name, _)| name);
        first += match (WITH_VALUE.contains(&name), name == flag) {
            (true, true) => 2,
            (true, false) => 1,
            (false, _) if flag == ALONE => 1,
            (false, _) => break,
        };
    }
    let word = |at: usize| arguments.get(at).and_then(|it| it.to_str()).unwrap_or_default();
    let commands = match word(first) {
        command if COMMANDS.contains(&command) => 1,
        group if GROUPS.contains(&group) && !word(first + 1).starts_with('-') => 2,
        LOCAL if (1..first).all(|at| word(at) == ALONE) && !word(first + 1).starts_with('-') => 2,
        _ => return arguments,
    };
    let rest = (first + commands).min(arguments.len());
    let parts =
        [&arguments[..1], &arguments[first..rest], &arguments[1..first], &arguments[rest..]];
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_server_may_stand_first() {
        for (line, expect) in [
            ("weir --url X head a", "weir head --url X a"),
            ("weir --url=X --json --auth K sub ls a", "weir sub ls --url=X --json --auth K a"),
            ("weir --json bench append --rate 1", "weir bench append --json --rate 1"),
            ("weir --retry-for 1s append a -- -x", "weir append --retry-for 1s a -- -x"),
            ("weir --json local status a", "weir local status --json a"),
            ("weir --json local --help", "weir --json local --help"),
            ("weir --url X local status", "weir --url X local status"),
            ("weir head a --url X", "weir head a --url X"),
            // What is no command that asks a server, the grammar refuses.
            ("weir --url X", "weir --url X"),
            ("weir --url X serve", "weir --url X serve"),
            ("weir --url X sub --help", "weir --url X sub --help"),
            ("weir --port 7", "weir --port 7"),
            ("weir --url", "weir --url"),
            ("weir", "weir"),
        ] {
            let placed = in_place(line.split(' ').map(OsString::from).collect());
            let placed: Vec<_> = placed.iter().map(|it| it.to_str().expect("text")).collect();
            assert_eq!(placed.join(" "), expect);
        }
    }
}
