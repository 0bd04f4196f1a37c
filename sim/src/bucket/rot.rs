//! Files that rot while they are in use: a bit flips in a segment file whose object the bucket has, or
//! in index or filter of one that only this disk has. Nobody may notice, but for readers that meet the
//! former while the bucket has a bad day.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use weir_io::{World, sqlite::Role};

use crate::{faults::DIR, world::Sim};

/// Lengths of the last parts of a segment, and where in its footer it says where its index begins.
const FOOTER_BYTES: u64 = 100;
const TRAILER_BYTES: u64 = 28;
const INDEX_AT: u64 = 60;

/// Flips a bit now and then, as long as the store runs.
pub(crate) async fn run(sim: &Sim, world: &World, c: &mut ChaCha8Rng) {
    if !sim.options.rots() {
        return std::future::pending().await;
    }
    let mut fresh = sim.chance(1014);
    loop {
        tokio::time::sleep(Duration::from_millis(c.random_range(100..5000))).await;
        flip(sim, world, c);
        if fresh.random_bool(0.3) {
            flip_beside(sim, world, &mut fresh);
        }
    }
}

/// Flips a bit of what the blocks tell themselves in a file that is not uploaded yet, if there is any.
fn flip_beside(sim: &Sim, world: &World, c: &mut ChaCha8Rng) {
    let Ok(local) = placed(sim, world, 0) else { return };
    let Some(path) = local.get(c.random_range(0..local.len().max(1))) else { return };
    let Some((from, to)) = beside(world, path) else { return };
    let (byte, bit) = (c.random_range(from..to), c.random_range(0..8));
    if sim.machine.drive().flip_bit(path, byte, bit).is_ok() {
        weir_io::sometimes!("a bit of an index flipped before it was uploaded");
        sim.note(&format!("bit {bit} of byte {byte} of {} flips", path.display()));
    }
}

/// Where index and filter lie, by the footer (docs/FORMATS.md, Segment).
fn beside(world: &World, path: &Path) -> Option<(u64, u64)> {
    let file = world.disk.open(path).ok()?;
    let footer = file.len().ok()?.checked_sub(FOOTER_BYTES + TRAILER_BYTES)?;
    let mut index = [0; 8];
    file.read_exact_at(&mut index, footer + INDEX_AT).ok()?;
    Some((u64::from_le_bytes(index), footer)).filter(|(from, to)| from < to)
}

/// Flips a bit of a copy of a segment that is uploaded, if there is any.
fn flip(sim: &Sim, world: &World, c: &mut ChaCha8Rng) {
    let Ok(uploaded) = placed(sim, world, 1) else { return };
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

/// The files of segments that are where the catalogue says with this code.
fn placed(sim: &Sim, world: &World, place: u8) -> rusqlite::Result<Vec<PathBuf>> {
    let conn = world.sqlite.open(&sim.options.database(), Role::Reader)?;
    let mut query = conn.prepare("SELECT id FROM segments WHERE place = ?1 ORDER BY id")?;
    let ids = query.query_map([place], |row| row.get::<_, i64>(0))?;
    let dir = PathBuf::from(DIR).join("segments");
    ids.map(|id| Ok(dir.join(format!("{:016x}.seg", id?)))).collect()
}
