//! Ledgers: immutable files of the catalogue rows that folds changed, sorted by key.
//!
//! ```text
//! header │ block of rows │ … │ block of commits │ … │ index │ footer │ trailer
//!          └ put 1·3, put 1·3·1·"p", delete everything below 1·7 …
//! ```
//! Laid over each other, oldest first, a store's ledgers are its catalogue as of a commit; the
//! *tail* of the newest, commits as they lie in the log, brings it to a later one. A
//! [`Builder`] streams, a [`Ledger`] holds the index and reads one block at a time. Every byte
//! is covered by a checksum: damage is named with the keys it may have cost, and what lies
//! behind it can be read. The bytes are specified in docs/FORMATS.md. Knows no bucket and no
//! engine state; all of it is synchronous and runs where blocking is allowed.

mod block;
mod builder;
mod change;
mod format;
mod key;
mod merge;
mod reader;
pub(crate) mod row;

pub(crate) use builder::Builder;
pub(crate) use change::{Change, Op};
pub(crate) use format::{Footer, ReadError};
pub(crate) use key::{Address, Key};
pub(crate) use merge::{Below, Merge, MergeError, Overlay, Tail, merge};
pub(crate) use reader::{Ledger, Lost, LostCommits, Source};
pub(crate) use row::Row;

#[cfg(test)]
pub(crate) mod tests;
