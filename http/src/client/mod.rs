//! A client of durable-streams servers: ours and others.

mod target;

pub use target::{BadAuth, BadUrl, ROOT, Scheme, Target};
