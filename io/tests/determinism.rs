//! A seed reproduces everything. Alone in its process: SQLite's generator belongs to all
//! threads, so nothing else may use it meanwhile.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{path::Path, time::Duration};

use tokio::task::LocalSet;
use weir_io::{
    memory::{Faults, Machine, reseed_sqlite},
    sqlite::Role,
    tasks,
};

fn run(seed: u64) -> u64 {
    reseed_sqlite(seed);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let machine = Machine::new(seed);
        for round in 0..3_u32 {
            let world = machine.boot(Duration::from_secs(u64::from(round)));
            world.disk.create_dir_all(Path::new("/data")).unwrap();
            world.disk.sync_dir(Path::new("/")).unwrap();
            let writer = world.sqlite.open(Path::new("/data/weir.db"), Role::Writer).unwrap();
            writer.execute_batch("CREATE TABLE IF NOT EXISTS t (id, random, wall)").unwrap();
            machine.drive().set_faults(Faults { full: 0.05, ..Faults::default() });
            for id in 0..20_i64 {
                let wall = world.clock.wall_ms().to_string();
                // A full drive refuses some: that too must be the same each time.
                drop(writer.execute("INSERT INTO t VALUES (?1, random(), ?2)", (id, wall)));
                tasks::run(&*world.blocking, || ()).await.unwrap();
            }
            machine.drive().set_faults(Faults::default());
            machine.drive().kill();
            drop(writer);
            machine.drive().power_cycle();
        }
        machine.fingerprint()
    })
}

#[test]
fn a_seed_reproduces_every_byte_and_two_seeds_differ() {
    let first: Vec<u64> = (0..20).map(run).collect();
    let second: Vec<u64> = (0..20).map(run).collect();
    assert_eq!(first, second);
    assert!(first.windows(2).all(|pair| pair[0] != pair[1]));
}
