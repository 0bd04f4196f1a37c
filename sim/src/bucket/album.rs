//! What is kept of a bucket and of its store at some moments, to be looked at when the seed is over:
//! then nothing that is done with it can change what else the seed does.

use std::{cell::RefCell, rc::Rc};

use weir_io::memory::{Machine, MemoryBucket};

use crate::world::Sim;

/// So many moments are kept, the last ones.
const PHOTOS_MAX: usize = 4;

/// One moment between two boots.
pub(super) struct Photo {
    pub(super) bucket: MemoryBucket,
    /// The store's own drive, if a seed looks at that too.
    machine: Option<Machine>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Album {
    between: RefCell<Vec<Photo>>,
    /// The bucket at peace: before everything that nobody needs has gone, and after.
    at_rest: RefCell<Vec<MemoryBucket>>,
}

/// Keeps this moment, if the seed looks back.
pub(super) fn keep(sim: &Rc<Sim>) {
    let bucket = &sim.options.bucket;
    let looks = bucket.travels || bucket.dry_runs || bucket.ruins || bucket.spoils;
    if !bucket.there || !looks || sim.machine.bucket().keys().is_empty() {
        return;
    }
    let machine = bucket.spoils.then(|| sim.machine.twin(sim.seed ^ 0x5b01));
    let mut between = sim.depot.album.between.borrow_mut();
    if between.len() == PHOTOS_MAX {
        between.remove(0);
    }
    between.push(Photo { bucket: sim.machine.bucket().copied(sim.seed), machine });
}

/// Keeps the bucket as it is at peace.
pub(super) fn at_rest(sim: &Sim) {
    if sim.options.bucket.dry_runs {
        let copy = sim.machine.bucket().copied(sim.seed);
        sim.depot.album.at_rest.borrow_mut().push(copy);
    }
}

impl Album {
    /// Takes out what was kept between boots.
    pub(super) fn between(&self) -> Vec<Photo> {
        self.between.take()
    }

    /// Takes out the bucket before and after everything went that nobody needed.
    pub(super) fn rest(&self) -> Option<[MemoryBucket; 2]> {
        self.at_rest.take().try_into().ok()
    }
}

impl Photo {
    /// A machine without a store, on a copy of this bucket.
    pub(super) fn bare(&self, seed: u64) -> Machine {
        let mut machine = Machine::new(seed);
        machine.share_bucket(&self.bucket.copied(seed));
        machine
    }

    /// The store's machine, on a copy of this bucket.
    pub(super) fn settled(&self, seed: u64) -> Option<Machine> {
        let mut machine = self.machine.clone()?;
        machine.share_bucket(&self.bucket.copied(seed));
        Some(machine)
    }
}
