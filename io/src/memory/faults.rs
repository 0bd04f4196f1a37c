//! What may go wrong on a drive, and how often.
//!
//! Probabilities are per operation and drawn from the drive's stream; one of exactly zero
//! draws nothing. The default is a healthy drive: power loss is not a fault, it is asked for.

use std::io;

/// Probabilities of injected faults.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A read fails and says so.
    pub read: f64,
    /// A write, truncation or extension fails before it changed anything.
    pub write: f64,
    /// A create, rename, remove or directory sync fails before it changed anything.
    pub name: f64,
    /// A sync of a file fails.
    pub sync: f64,
    /// A failed sync that also forgets: some of the unsynced writes reached the medium, the
    /// others never will, and later syncs succeed as Linux's do. A share of `sync`.
    pub sync_forgets: f64,
    /// A failed sync that tells of something long over: everything written is durable all the same.
    /// A share of the rest of `sync`.
    pub sync_late: f64,
    /// A write finds no space, half the time after writing a part of its bytes.
    pub full: f64,
    /// A sync of a file says Ok and does nothing. A drive with this is broken by intent: no
    /// software can survive it, and a harness which does not notice has no teeth.
    pub sync_lies: f64,
    /// Bytes the drive holds in all; growing beyond finds no space. `None`: any number.
    pub capacity_bytes: Option<u64>,
}

/// What every operation says once the power is gone.
pub(super) fn dead() -> io::Error {
    io::Error::other("the simulated machine has lost power")
}

/// A fault that a real drive reports as EIO.
pub(super) fn broken(what: &'static str) -> io::Error {
    io::Error::other(what)
}

pub(super) fn no_space() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "no space left on the simulated drive")
}
