//! The HTTP face of Streamweir: the durable-streams protocol on an engine.
//!
//! ```text
//! socket ─▶ server (limits, framing) ─▶ handle (one verb a file) ─▶ engine
//!                                         ▲
//!                                        wire (pure: headers, queries, events)
//! ```
//! Knows status codes, headers, flags and the environment; knows nothing of how records are
//! stored. [`server::serve`] runs on any [`weir_io::net::Listener`], so the simulator drives
//! the same server as production.

mod app;
pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
mod handle;
pub mod local;
#[doc(hidden)]
pub mod measured;
mod metrics;
pub mod object_store;
mod prices;
pub mod server;
mod webhook;
mod wire;

pub use app::App;
pub use config::HttpConfig;
pub use object_store::ObjectStore;
pub use webhook::{KeysError, Loopback, Webhooks};
