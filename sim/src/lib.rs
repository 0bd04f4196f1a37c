//! Deterministic simulation: the real engine in a world that one seed replays.
//!
//! ```text
//! seed ─▶ options ─▶ rounds: boot ─▶ verify ─▶ workload + faults ─▶ crash or restart ─┐
//!                      ▲                                                             │
//!                      └─────────────────────────────────────────────────────────────┘
//!         finally: faults healed, boot, verify everything, flip a bit, hash of the trace
//! ```
//! The model holds what clients know: every answer adds to it, every answer is compared with
//! it. Whatever contradicts is a [`Breach`] of an invariant of docs/INVARIANTS.md. The store
//! is an engine in a paused runtime, or stands behind its HTTP server in a simulated network ([`town`]).

pub mod bucket;
pub mod case;
pub mod checks;
pub mod door;
pub mod faults;
pub mod log;
pub mod meta;
pub mod model;
pub mod payload;
pub mod report;
pub mod run;
pub mod sabotage;
pub mod schedule;
pub mod shrink;
pub mod slots;
pub mod swarm;
pub mod town;
pub mod verify;
pub mod workload;
pub mod world;

pub use checks::Breach;
