//! One bit of one segment flips, in a file or in a row of a store in one file: every answer is right or
//! an error (INV-21). Then it flips back.

use std::{path::PathBuf, rc::Rc};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rusqlite::params;
use weir_io::{Disk, World, sqlite::Role};

use super::boot;
use crate::{
    faults::{DIR, Options},
    sabotage::Sabotage,
    world::Sim,
};

/// What begins a block, the length of its header, and where in it the checksums are: of what follows it
/// and of itself (docs/FORMATS.md, Segments).
const BLOCK: &[u8; 4] = b"WBLK";
const HEADER_BYTES: usize = 24;
const BODY_CRC_AT: usize = 16;
const HEADER_CRC_AT: usize = 20;
const STORED_LEN_AT: usize = 12;

/// Where a part of a segment lies.
#[derive(Clone, Debug)]
enum Place {
    File(PathBuf),
    /// A row of `pieces`.
    Piece(i64, i64),
}

/// What was changed, and how it was.
struct Damage {
    place: Place,
    before: Vec<u8>,
}

/// Damages something, reads everything, and mends it.
pub(super) fn run(sim: &Rc<Sim>, c: &mut ChaCha8Rng) {
    let mut damage = None;
    boot::boot(sim, false, async |world| {
        damage = inflict(sim, &world, c);
        sim.machine.drive().kill();
    });
    let Some(damage) = damage else { return };
    sim.damaged.set(true);
    boot::boot(sim, false, async |world| {
        if let Some(host) = boot::open(sim, world, true).await {
            boot::verify_all(&host, c).await;
        }
        sim.machine.drive().kill();
    });
    sim.damaged.set(false);
    // A merge may have made the place superfluous: then the damage was where nothing is kept, and
    // the last verification, which takes no excuses, must find everything elsewhere.
    boot::boot(sim, false, async |world| {
        let back = damage.place.write(sim, &world, &damage.before);
        sim.note(&format!("the bit flips back: {back:?}"));
        sim.machine.drive().kill();
    });
}

/// Flips a bit somewhere. `None`: there is no segment.
fn inflict(sim: &Sim, world: &World, c: &mut ChaCha8Rng) -> Option<Damage> {
    let places = places(&sim.options, world);
    let place = places.get(c.random_range(0..places.len().max(1)))?.clone();
    let before = place.read(sim, world)?;
    let (byte, bit) = (c.random_range(0..before.len().max(1)), c.random_range(0..8));
    let mut after = before.clone();
    if sim.sabotage == Sabotage::ForgedChecksums {
        forge(&mut after)?;
    } else {
        *after.get_mut(byte)? ^= 1 << bit;
    }
    sim.note(&format!("bit {bit} of byte {byte} of {place:?} flips"));
    place.write(sim, world, &after)?;
    if matches!(place, Place::Piece(..)) {
        weir_io::sometimes!("a bit flipped in a store in one file");
    }
    Some(Damage { place, before })
}

fn places(options: &Options, world: &World) -> Vec<Place> {
    if !options.is_one_file() {
        let dir = PathBuf::from(DIR).join("segments");
        return world.disk.list(&dir).unwrap_or_default().into_iter().map(Place::File).collect();
    }
    let listed = || -> rusqlite::Result<Vec<Place>> {
        let conn = world.sqlite.open(&options.database(), Role::Writer)?;
        let mut query = conn.prepare("SELECT segment, at FROM pieces ORDER BY segment, at")?;
        let rows = query.query_map([], |row| Ok(Place::Piece(row.get(0)?, row.get(1)?)))?;
        rows.collect()
    };
    listed().unwrap_or_default()
}

impl Place {
    fn read(&self, sim: &Sim, world: &World) -> Option<Vec<u8>> {
        match self {
            Self::File(path) => {
                let file = world.disk.open(path).ok()?;
                let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
                file.read_exact_at(&mut bytes, 0).ok()?;
                Some(bytes)
            }
            Self::Piece(segment, at) => {
                let conn = world.sqlite.open(&sim.options.database(), Role::Writer).ok()?;
                let sql = "SELECT body FROM pieces WHERE segment = ?1 AND at = ?2";
                conn.query_row(sql, params![segment, at], |row| row.get(0)).ok()
            }
        }
    }

    /// Puts bytes in its place and makes that last; `None` if it is gone.
    fn write(&self, sim: &Sim, world: &World, bytes: &[u8]) -> Option<()> {
        match self {
            Self::File(path) => put(&*world.disk, path, bytes).ok(),
            Self::Piece(segment, at) => {
                let conn = world.sqlite.open(&sim.options.database(), Role::Writer).ok()?;
                let sql = "UPDATE pieces SET body = ?3 WHERE segment = ?1 AND at = ?2";
                let changed = conn.execute(sql, params![segment, at, bytes]).ok()?;
                (changed == 1).then_some(())
            }
        }
    }
}

fn put(disk: &dyn Disk, path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let file = disk.open_to_write(path)?;
    file.write_all_at(bytes, 0)?;
    file.sync()
}

/// A planted defect: the last byte of the last block's payload changes and every checksum over it is right,
/// as if none had been looked at.
fn forge(bytes: &mut [u8]) -> Option<()> {
    let at = bytes.windows(BLOCK.len()).rposition(|window| window == BLOCK)?;
    let stored = bytes.get(at + STORED_LEN_AT..at + STORED_LEN_AT + 4)?;
    let stored = usize::try_from(u32::from_le_bytes(stored.try_into().ok()?)).ok()?;
    let block = bytes.get_mut(at..at + HEADER_BYTES + stored)?;
    *block.last_mut()? ^= 1;
    let crc = crc32c::crc32c(&block[HEADER_BYTES..]).to_le_bytes();
    block[BODY_CRC_AT..HEADER_CRC_AT].copy_from_slice(&crc);
    let crc = crc32c::crc32c(&block[..HEADER_CRC_AT]).to_le_bytes();
    block[HEADER_CRC_AT..HEADER_BYTES].copy_from_slice(&crc);
    Some(())
}
