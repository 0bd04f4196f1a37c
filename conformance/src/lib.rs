//! What the server is held to by programs that are not ours: the upstream
//! conformance suite, the published clients, and `kill -9`.
//!
//! Everything here runs the real `weir` binary as a process of its own, on a
//! real directory and a real socket, and knows the server only by its command
//! line, its printed address and its HTTP answers. Nothing of the engine is
//! linked in, so nothing here can share a mistake with it.
//!
//! What a kill proves is recovery: the operating system keeps what was written
//! but not synced. Claims about lost syncs rest on the simulated disk.
#![expect(
    clippy::disallowed_methods,
    reason = "this package drives real processes: real files, real time, real threads"
)]

pub mod binary;
pub mod server;

pub mod http;
pub mod sse;

pub mod embed;
pub mod expected;
pub mod gate;
pub mod moto;
pub mod node;
pub mod python;
pub mod suite;

pub mod kill;
pub mod life;
