//! Processes of the machine: whether one is there, since when, and asking it to end.
//!
//! A number says little: it is given to another process some time after its own has ended. The
//! moment a process started makes the two one of a kind.

use std::{fs, io, io::Read as _, thread};

use rustix::process::{Pid, Signal};
use tokio::sync::oneshot;

/// The number of this process.
#[must_use]
pub fn id() -> u32 {
    std::process::id()
}

/// Whether there is a process of this number.
#[must_use]
pub fn is_alive(number: u32) -> bool {
    let Some(pid) = pid(number) else { return false };
    match rustix::process::test_kill_process(pid) {
        Ok(()) => true,
        // There is one, and it belongs to somebody else.
        Err(error) => error == rustix::io::Errno::PERM,
    }
}

/// When a process started, in a unit and from a moment that are the machine's own until it
/// boots anew. `None`: there is no such process, or the system does not tell.
#[must_use]
pub fn started(number: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Asks a process to end (`SIGTERM`).
///
/// # Errors
/// There is none, or it may not be asked.
pub fn terminate(number: u32) -> io::Result<()> {
    let pid = pid(number).ok_or(io::ErrorKind::NotFound)?;
    Ok(rustix::process::kill_process(pid, Signal::TERM)?)
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}

/// Speaks once, when standard input is closed: as a pipe from another process is when that ends,
/// however it does.
#[must_use]
pub fn stdin_closed() -> oneshot::Receiver<()> {
    let (closed, closing) = oneshot::channel();
    // No thread of the runtime: that would not end before its input does.
    let read = move || {
        let mut buffer = [0; 1024];
        while io::stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
        // Fails if nobody waits any more.
        let _ = closed.send(());
    };
    if let Err(error) = thread::Builder::new().name("stdin".to_owned()).spawn(read) {
        // The sender is dropped, which speaks as well: better ended than left over.
        tracing::error!(%error, "standard input can't be watched");
    }
    closing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_there_and_so_is_no_other_of_its_kind() {
        assert!(is_alive(id()));
        assert_eq!(started(id()), started(id()));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let number = child.id();
        assert!(is_alive(number));
        terminate(number).expect("it is there");
        child.wait().expect("it ends");
        assert!(!is_alive(number) && started(number).is_none());
        assert!(terminate(number).is_err() && terminate(0).is_err() && !is_alive(u32::MAX));
    }
}
