//! What comes back from a bucket when the disk is gone, what never does, and what is found when
//! somebody looks.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod beside;
mod chain;
mod crashes;
mod damage;
mod erased;
mod looking;
mod published;
mod subscriptions;
mod town;
