//! What runs by itself: the keeper, who seals, folds, trims and ends streams whose time has passed,
//! and the checkpointer, who keeps SQLite's write-ahead log small.

pub(crate) mod checkpoint;
pub(crate) mod deaths;
pub(crate) mod fold;
pub(crate) mod keeper;
pub(crate) mod merge;
mod retention;
pub(crate) mod seal;
