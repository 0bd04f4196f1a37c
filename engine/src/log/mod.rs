//! The log: entries, the commits that carry them, the sequencer that fills groups and the
//! writer that makes them durable, one row and one fsync each.

pub(crate) mod ancestry;
pub(crate) mod codec;
pub(crate) mod commit;
pub(crate) mod entry;
pub(crate) mod gate;
pub(crate) mod group;
pub(crate) mod replay;
pub(crate) mod sequencer;
#[cfg(test)]
mod tests;
pub(crate) mod writer;
