//! The durable-streams engine: a log, its fold, and the segments it is sealed into.
//!
//! ```text
//! request ─▶ admit ─▶ decide ─▶ log ─fsync─▶ state (memtable) ─▶ answer, wake readers
//!                                              │ seal
//!                                              ▼
//!                                           segment ─▶ read
//! ```
//! Knows no HTTP status, header, environment or flag. Every I/O goes through
//! [`weir_io::World`]. Ranks, lowest first: `types`, the pure parts (`decide`, codecs),
//! `state`, then the loops and verbs.

mod admit;
pub mod audit;
pub mod config;
mod core;
mod decide;
mod engine;
mod history;
mod inflate;
pub mod inspect;
mod ledger;
pub mod limits;
mod live;
mod log;
#[doc(hidden)]
pub mod measured;
pub mod metrics;
mod motion;
mod open;
mod publish;
mod rack;
mod read;
pub mod request;
pub mod restore;
mod segment;
mod state;
pub mod subscribe;
pub mod types;
pub mod verify;

pub use config::{BadConfig, Config, Layout};
pub use engine::{Engine, Health, OpenError};
pub use live::{Change, Watch};
pub use metrics::Metrics;
pub use open::is_foreign;
