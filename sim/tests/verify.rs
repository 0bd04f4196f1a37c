//! A verification of a store that nobody has open, when somebody opens it: what was asked in between
//! is asked again.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use rusqlite::Connection;
use tokio::task::LocalSet;
use weir_engine::{
    Config, Engine,
    request::{Append, Create},
    types::{ContentType, StreamName},
    verify::Depth,
};
use weir_io::{Sqlite, World, memory::Machine, sqlite::Role};

const DIR: &str = "/data/store";

/// A SQLite with which something happens before a connection is made to look.
struct Attended<F> {
    sqlite: Arc<dyn Sqlite>,
    event: F,
}

impl<F: Fn() + Send + Sync> Sqlite for Attended<F> {
    fn open(&self, path: &Path, role: Role) -> rusqlite::Result<Connection> {
        if role == Role::Looker {
            (self.event)();
        }
        self.sqlite.open(path, role)
    }
}

fn database() -> PathBuf {
    let Config { dir, layout, .. } = Config::new(DIR);
    dir.join(layout.database())
}

/// One process on the machine.
fn life(machine: &Machine, at: Duration, test: impl AsyncFnOnce(World)) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    let world = runtime.block_on(async { machine.boot(at) });
    LocalSet::new().block_on(&runtime, test(world));
}

#[test]
fn a_look_during_which_a_server_begins_is_repeated() {
    let machine = Machine::new(204);
    life(&machine, Duration::ZERO, async |world| {
        let engine = Engine::open(world, Config::new(DIR), "a test").await.expect("opens");
        let (name, content) = (StreamName::new("a"), ContentType::parse("text/plain"));
        let name = name.expect("a good name");
        let create = Create { body: Bytes::new(), ..Create::new(name.clone(), content.clone()) };
        engine.create(create).await.expect("is made");
        let append = Append::new(name, content, Bytes::from_static(b"one "));
        engine.append(append).await.expect("is written");
        engine.close().await;
    });
    life(&machine, Duration::from_secs(3600), async |world| {
        let server = Arc::new(Mutex::new(None));
        let (begun, sqlite) = (Arc::clone(&server), Arc::clone(&world.sqlite));
        // The database was found without a log by then, and it is not opened yet.
        let event = move || {
            begun.lock().expect("one thread").get_or_insert_with(|| {
                let writer = sqlite.open(&database(), Role::Writer).expect("it is there");
                writer.execute("UPDATE segments SET place = place", []).expect("it is written to");
                writer
            });
        };
        let sqlite = Arc::new(Attended { sqlite: Arc::clone(&world.sqlite), event });
        let world = World { sqlite, ..world };
        let found = Engine::verify(world, Config::new(DIR), None, Depth::Local).await;
        let found = found.expect("there is something to look at").findings;
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, [""; 0]);
        assert!(server.lock().expect("one thread").is_some());
    });
    let mark = "a server began while its store was verified";
    assert!(weir_io::sometimes::reached().contains(mark), "the first answer was not taken");
}
