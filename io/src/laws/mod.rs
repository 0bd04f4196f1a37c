//! The contracts of the traits, as checks that run on every implementation.
//!
//! Each law is a function that panics where an implementation breaks its promise. The tests
//! of this crate run all of them on the production world and on the simulated one; a third
//! world starts by passing them. What holds after a power cut is tested on the simulated
//! drive alone, where power can be cut.

pub mod disk;
pub mod net;
pub mod objects;
pub mod sqlite;
pub mod world;
