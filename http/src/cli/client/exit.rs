//! Exit codes, and errors with what to do next.

use std::io;

use crate::client::Error;

/// It was done.
pub const DONE: u8 = 0;
/// It failed for a reason that has no code of its own.
pub const FAILED: u8 = 1;
/// The stream or subscription is not there, or not any more.
pub const NOT_THERE: u8 = 4;
/// What is there stands in the way: it exists and is another, is closed, or somebody else has it.
pub const CONFLICT: u8 = 5;
/// The server wants a key, or another one.
pub const UNAUTHORIZED: u8 = 6;
/// The server is not there or busy: try again later.
pub const AWAY: u8 = 7;
/// The answer was lost: nobody knows whether it was done.
pub const UNKNOWN: u8 = 8;
/// Somebody wanted it to end.
pub const INTERRUPTED: u8 = 130;

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// All of it was done.
    Done,
    /// It was told to end before.
    Interrupted,
}

/// Says what went wrong and what to do next. Returns the exit code.
pub(super) fn explain(error: &anyhow::Error) -> u8 {
    if is_broken_pipe(error) {
        // Whoever read the output has enough of it.
        return DONE;
    }
    eprintln!("weir: {error:#}");
    let Some(error) = error.downcast_ref::<Error>() else { return FAILED };
    if let Some(advice) = error.advice() {
        eprintln!("      {advice}");
    }
    code(error)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}

const fn code(error: &Error) -> u8 {
    match error {
        Error::NotFound { .. } | Error::Gone { .. } => NOT_THERE,
        Error::Closed { .. }
        | Error::Fenced { .. }
        | Error::OutOfSequence { .. }
        | Error::Conflict { .. } => CONFLICT,
        Error::Unauthorized { .. } => UNAUTHORIZED,
        Error::Unreachable { .. } | Error::Busy { .. } => AWAY,
        Error::Unknown { .. } => UNKNOWN,
        Error::Unsupported { .. } | Error::Refused { .. } | Error::Strange(_) => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn context_hides_no_code() {
        let error = Error::NotFound { what: "a".to_owned() };
        let wrapped = Err::<(), _>(error).context("while importing").expect_err("an error");
        assert_eq!(explain(&wrapped), NOT_THERE);
        let pipe = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(explain(&pipe.context("cannot print")), DONE);
        assert_eq!(explain(&anyhow::anyhow!("something else")), FAILED);
    }
}
