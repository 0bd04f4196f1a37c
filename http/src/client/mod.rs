//! A client of durable-streams servers: ours and others.
//!
//! ```text
//! Client ─▶ Stream ─▶ create, append, page, head, close, delete, fork
//!             ├─▶ Follower   what is there, then what comes, over lost connections
//!             └─▶ Producer   appends that are carried out exactly once
//! ```
//! Requests that may be repeated are, with pauses by chance, for as long as [`Patience`] says. All
//! errors say what to do next. Knows the protocol and nothing of the server in this crate.

mod call;
mod error;
mod events;
mod follow;
mod inspect;
mod names;
mod producer;
mod stream;
mod subscriptions;
mod target;

pub(crate) use call::tls_failed;
pub use call::{Absent, Patience};
pub use error::Error;
pub use follow::{Batch, Follower, Live};
pub use inspect::Known;
pub use producer::{Done, Producer};
pub use stream::{Append, Client, Create, From, Info, Page, Position, Stream};
pub use subscriptions::{Claim, Claimed, PendingStream, Subscriptions};
pub use target::{BadAuth, BadUrl, ROOT, Scheme, Target};
