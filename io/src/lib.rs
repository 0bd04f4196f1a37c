//! Everything Streamweir asks of the world outside: time, chance, tasks, disk,
//! SQLite, sockets and buckets, each behind a small trait and handed in as one [`World`].
//!
//! The traits state contracts (what holds after a crash, what may be reordered);
//! `laws` tests them on every implementation. `os` is the production world and the
//! only place where the bans of `clippy.toml` are lifted; `memory` is the world
//! that a seed can replay. Knows nothing of streams.

pub mod clock;
pub mod disk;
pub mod laws;
pub mod memory;
pub mod net;
pub mod objects;
pub mod os;
pub mod process;
pub mod random;
pub mod retry;
mod sabotage;
pub mod sometimes;
pub mod sqlite;
pub mod tasks;
mod world;

pub use clock::Clock;
pub use disk::{Disk, File};
pub use process::Process;
pub use random::Entropy;
pub use sabotage::Sabotage;
pub use sqlite::Sqlite;
pub use tasks::{Blocking, Tasks};
pub use world::World;
