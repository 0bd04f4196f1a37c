//! What ends a server, and what does not.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::{Running, ask, names, support::fresh_dir, weir};

#[test]
fn it_ends_when_its_input_closes_if_asked_to() {
    let root = fresh_dir();
    let mut command = weir(&root, &["start", "--json", "--until-stdin-closes"]);
    command.stdin(Stdio::piped());
    let mut server = Running::with(command);
    let stdin: ChildStdin = server.child.stdin.take().expect("piped");
    assert_eq!(ask(server.url(), "PUT", "/v1/stream/s", "kept").0, 201);
    drop(stdin);
    assert_eq!(server.end(), Some(0));
    assert_eq!(names(&root.join("default")), ["durable-streams.sqlite", "server.lock"]);
}

#[test]
fn a_terminals_interrupt_is_left_to_the_process_that_holds_its_input() {
    let root = fresh_dir();
    let mut command = weir(&root, &["start", "--json", "--until-stdin-closes", "--log", "info"]);
    command.stdin(Stdio::piped());
    let mut server = Running::with(command);
    let stdin: ChildStdin = server.child.stdin.take().expect("piped");
    signal(&server.child, "INT");
    let mut log = BufReader::new(server.child.stderr.take().expect("piped")).lines();
    let told = log.by_ref().map(|line| line.expect("text")).find(|line| line.contains("SIGINT"));
    assert!(told.as_ref().is_some_and(|line| line.contains("is left to")), "{told:?}");
    assert_eq!(ask(server.url(), "PUT", "/v1/stream/s", "kept").0, 201);
    drop(stdin);
    assert_eq!(server.end(), Some(0));
    // Other signals are its own, and without such a process that one too.
    for (flags, name) in [(&["--until-stdin-closes"][..], "TERM"), (&[], "INT")] {
        let args = [&["start", "--json"], flags].concat();
        let mut command = weir(&root, &args);
        command.stdin(Stdio::piped());
        let mut server = Running::with(command);
        let stdin: ChildStdin = server.child.stdin.take().expect("piped");
        signal(&server.child, name);
        assert_eq!(server.end(), Some(0), "{name}");
        drop(stdin);
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
    assert!(sent.expect("kill exists").success());
}
