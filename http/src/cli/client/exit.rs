//! Exit codes, and errors with what to do next.

use std::{fmt, io};

use serde_json::json;

use crate::client::{BadAuth, BadUrl, Error};

/// It was done.
pub const DONE: u8 = 0;
/// It failed for a reason that has no code of its own.
pub const FAILED: u8 = 1;
/// The command line was not understood.
pub const USAGE: u8 = 2;
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
    /// Part of it was done, and what was not is told already.
    Partly(u8),
}

/// How to speak on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// To people.
    Words,
    /// To programs: JSON, one object a line.
    Json,
}

impl Voice {
    /// That of a command with or without `--json`.
    pub(crate) const fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Words }
    }

    /// Says something that is no failure.
    pub(crate) fn note(self, text: &str) {
        match self {
            Self::Words => eprintln!("weir: {text}"),
            Self::Json => eprintln!("{}", json!({ "note": text })),
        }
    }

    /// Says something about a place in a stream.
    pub(crate) fn note_at(self, text: &str, offset: Option<&str>) {
        match (self, offset) {
            (Self::Json, Some(offset)) => {
                eprintln!("{}", json!({ "note": text, "offset": offset }));
            }
            _ => self.note(text),
        }
    }

    /// Says what went wrong and what to do next. Returns the exit code.
    pub(crate) fn explain(self, error: &anyhow::Error) -> u8 {
        let told = error.downcast_ref().map(|told: &Told| told.advice.clone());
        self.explain_with(error, told.or_else(|| error.downcast_ref().and_then(Error::advice)))
    }

    /// The same, with what to do next.
    pub(crate) fn explain_with(self, error: &anyhow::Error, advice: Option<String>) -> u8 {
        let code = match error.downcast_ref() {
            Some(error) => code(error),
            None if error.is::<Usage>() || error.is::<BadAuth>() || error.is::<BadUrl>() => USAGE,
            None => FAILED,
        };
        self.explain_as(error, code, advice)
    }

    /// The same, with the code too.
    pub(crate) fn explain_as(self, error: &anyhow::Error, code: u8, advice: Option<String>) -> u8 {
        if is_broken_pipe(error) {
            // Whoever read the output has enough of it.
            return DONE;
        }
        match self {
            Self::Words => {
                eprintln!("weir: {error:#}");
                advice.iter().for_each(|advice| eprintln!("      {advice}"));
            }
            Self::Json => {
                let mut error = json!({ "code": code, "message": format!("{error:#}") });
                if let Some(advice) = advice {
                    error["advice"] = advice.into();
                }
                eprintln!("{}", json!({ "error": error }));
            }
        }
        code
    }
}

/// What is wrong with the command line, where that is not told by its grammar.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) &'static str);

/// What an error is about, and what to do next where its own advice says too little.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) what: String,
    pub(crate) advice: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}

pub(super) const fn code(error: &Error) -> u8 {
    match error {
        Error::NotFound { .. } | Error::NoSubscription { .. } | Error::Gone { .. } => NOT_THERE,
        Error::Closed { .. }
        | Error::Fenced { .. }
        | Error::OutOfSequence { .. }
        | Error::Conflict { .. }
        | Error::SubscriptionConflict { .. } => CONFLICT,
        Error::Unauthorized { .. } | Error::KeyMissing { .. } | Error::Forbidden { .. } => {
            UNAUTHORIZED
        }
        Error::Unreachable { .. } | Error::BrokenOff { .. } | Error::Busy { .. } => AWAY,
        Error::Unknown { .. } | Error::SubscriptionUnknown { .. } => UNKNOWN,
        Error::NoProducers
        | Error::TooLarge { .. }
        | Error::Unsupported { .. }
        | Error::Refused { .. }
        | Error::Strange(_) => FAILED,
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
        assert_eq!(Voice::Words.explain(&wrapped), NOT_THERE);
        let pipe = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(Voice::Words.explain(&pipe.context("cannot print")), DONE);
        assert_eq!(Voice::Words.explain(&anyhow::anyhow!("something else")), FAILED);
        assert_eq!(Voice::Words.explain(&Usage("which one?").into()), USAGE);
    }
}
