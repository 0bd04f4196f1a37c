//! What runs by itself: the keeper, who seals, folds and ends streams whose time has passed; the
//! trimmer, who lets streams with limits begin later; the merger, who merges and erases what they
//! leave; the checkpointer, who keeps SQLite's write-ahead log small; and the publisher, who brings all of
//! it into the bucket.

pub(crate) mod checkpoint;
mod condense;
pub(crate) mod deaths;
pub(crate) mod fold;
pub(crate) mod heal;
mod intact;
pub(crate) mod keeper;
pub(crate) mod ledgers;
pub(crate) mod merge;
pub(crate) mod publish;
pub(crate) mod retention;
pub(crate) mod seal;
mod stow;
#[cfg(test)]
mod tests;
pub(crate) mod unreadable;
pub(crate) mod wipe;
