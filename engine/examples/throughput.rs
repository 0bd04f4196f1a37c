//! Appends in a closed loop without HTTP: how fast the engine alone is on this disk.
//!
//! `cargo run --release -p weir-engine --example throughput -- DIR CLIENTS BYTES SECONDS [unwiped]`
//!
//! `unwiped` leaves deleted rows in SQLite's pages, to tell what `secure_delete=FAST` costs.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rusqlite::{
    Connection,
    hooks::{AuthAction, AuthContext, Authorization},
};
use weir_engine::{
    Config, Engine,
    request::{Append, Create},
    types::{ContentType, StreamName},
};
use weir_io::{Sqlite, sqlite::Role};

/// SQLite that is deaf to `PRAGMA secure_delete`.
struct Unwiped(Arc<dyn Sqlite>);

impl Sqlite for Unwiped {
    fn open(&self, path: &Path, role: Role) -> rusqlite::Result<Connection> {
        let mut conn = self.0.open(path, role)?;
        conn.authorizer(Some(|asked: AuthContext<'_>| match asked.action {
            AuthAction::Pragma { pragma_name: "secure_delete", .. } => Authorization::Ignore,
            _ => Authorization::Allow,
        }))?;
        Ok(conn)
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().expect("DIR");
    let mut number = || args.next().and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let (clients, bytes, seconds) = (number(), number(), number());
    let mut world = weir_io::os::world().expect("inside a runtime");
    match args.next().as_deref() {
        None => {}
        Some("unwiped") => world.sqlite = Arc::new(Unwiped(Arc::clone(&world.sqlite))),
        Some(other) => panic!("'{other}' is none of its flags"),
    }
    let engine = Engine::open(world, Config::new(dir), "bench").await.expect("opens");
    let content = ContentType::parse("application/octet-stream").expect("a type");
    let body = Bytes::from(vec![b'x'; usize::try_from(bytes).expect("small")]);
    let running = Arc::new(AtomicBool::new(true));
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for client in 0..clients {
        let name = StreamName::new(&format!("bench/{client}")).expect("a name");
        let create = Create::new(name.clone(), Some(content.clone()));
        engine.create(create).await.expect("creates");
        let append = Append::new(name, Some(content.clone()), body.clone());
        let (engine, running, done) = (engine.clone(), Arc::clone(&running), Arc::clone(&done));
        tasks.push(tokio::spawn(async move {
            while running.load(Ordering::Relaxed) {
                if engine.append(append.clone()).await.is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                } else {
                    tokio::task::yield_now().await;
                }
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    running.store(false, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("ends");
    }
    let metrics = engine.metrics();
    println!(
        "{} appends/s, {} commits, {} seals, wal {} B, longest hold {} us",
        done.load(Ordering::Relaxed) / seconds,
        metrics.commits.get(),
        metrics.seals.get(),
        metrics.wal_bytes.get(),
        metrics.writer_hold_max_us.get(),
    );
    engine.close().await;
}
