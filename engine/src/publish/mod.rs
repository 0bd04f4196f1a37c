//! What a bucket holds of a store: the names of its objects, the manifests that say which of
//! them are the store, and the rules that a manifest keeps.
//!
//! ```text
//! manifest/<generation> ─▶ pages/<digest> ─▶ segments/<id>-<nonce>.seg
//!    │  ▲ digest of the one before         ─▶ rows/<id>-<nonce>.rows
//!    └──┘
//! ```
//! Everything here is pure: bytes and values, no bucket, no engine state.

pub(crate) mod invariants;
pub(crate) mod keys;
pub(crate) mod listing;
pub(crate) mod manifest;

#[cfg(test)]
mod tests;
