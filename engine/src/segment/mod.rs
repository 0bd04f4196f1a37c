//! Segments: immutable files of records of many streams, sorted by (stream, sequence).
//!
//! ```text
//! header │ block │ block │ … │ index │ filter │ footer │ trailer
//!          └ part(stream 3, 0..9) part(stream 7, 40..41) …
//! ```
//! A [`Builder`] streams blocks into a sink and keeps only index and stream ids; a
//! [`Segment`] holds index and filter in memory and reads one block at a time. Every byte is
//! covered by a checksum or compared with a known value: a damaged file yields a named
//! [`format::Damaged`], never wrong records and never a panic. One whose blocks can be found without
//! what is damaged can be opened all the same ([`Segment::salvage`], [`Segment::recover`]). The bytes are specified in
//! docs/FORMATS.md. Knows no stream state, no log and no catalogue; all of it is
//! synchronous and runs where blocking is allowed.

mod block;
mod builder;
mod cache;
mod fields;
mod filter;
mod format;
mod local;
mod lost;
mod memory;
mod merge;
mod part;
mod reader;
mod salvage;

pub(crate) use block::Block;
pub(crate) use builder::Builder;
pub(crate) use cache::BlockCache;
pub(crate) use format::{BlockNo, Codec, Damaged, HEADER_LEN, ReadError, Section};
pub(crate) use local::{CopyError, write_bare};
pub(crate) use lost::Lost;
pub(crate) use memory::InMemory;
pub(crate) use merge::{MergeError, merge};
pub(crate) use part::Part;
pub(crate) use reader::{Remote, Segment, TAIL_LEN, outline, tail_start};
pub(crate) use salvage::Known;

#[cfg(test)]
mod tests;
