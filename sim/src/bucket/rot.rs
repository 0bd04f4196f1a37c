//! Local copies that rot while they are in use: a bit flips in a segment file whose object the bucket
//! has. Nobody may notice, but for readers that meet it while the bucket has a bad day.

use std::{path::PathBuf, time::Duration};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_io::{World, sqlite::Role};

use crate::{faults::DIR, world::Sim};

/// Flips a bit now and then, as long as the store runs.
pub(crate) async fn run(sim: &Sim, world: &World, c: &mut ChaCha8Rng) {
    if !sim.options.rots() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(c.random_range(100..5000))).await;
        flip(sim, world, c);
    }
}

/// Flips a bit of a copy of a segment that is uploaded, if there is any.
fn flip(sim: &Sim, world: &World, c: &mut ChaCha8Rng) {
    let Ok(uploaded) = uploaded(sim, world) else { return };
    if uploaded.is_empty() {
        return;
    }
    let path = &uploaded[c.random_range(0..uploaded.len())];
    let len = world.disk.open(path).and_then(|file| file.len()).unwrap_or(0);
    let (byte, bit) = (c.random_range(0..len.max(1)), c.random_range(0..8));
    if sim.machine.drive().flip_bit(path, byte, bit).is_ok() {
        weir_io::sometimes!("a bit of a local copy flipped while it was in use");
        sim.note(&format!("bit {bit} of byte {byte} of {} flips", path.display()));
    }
}

fn uploaded(sim: &Sim, world: &World) -> rusqlite::Result<Vec<PathBuf>> {
    let conn = world.sqlite.open(&sim.options.database(), Role::Reader)?;
    let mut query = conn.prepare("SELECT id FROM segments WHERE place = 1 ORDER BY id")?;
    let ids = query.query_map([], |row| row.get::<_, i64>(0))?;
    let dir = PathBuf::from(DIR).join("segments");
    ids.map(|id| Ok(dir.join(format!("{:016x}.seg", id?)))).collect()
}
