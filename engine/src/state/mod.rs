//! State as the fold of the log: what streams are, where they are kept in memory, and the
//! catalogue they are folded into. The catalogue is the only place that speaks SQL.

pub(crate) mod catalogue;
pub(crate) mod chunks;
pub(crate) mod deaths;
pub(crate) mod files;
pub(crate) mod kept;
pub(crate) mod readers;
pub(crate) mod rows;
pub(crate) mod shelf;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod uploads;
pub(crate) mod view;
