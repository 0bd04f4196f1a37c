//! The WAL index: memory that all connections to one database share, and its lock slots.
//!
//! On a real disk this is a mapped `-shm` file. Here it is heap that lives as long as any
//! connection has it open, which is also when SQLite stops trusting it: the first
//! connection after that rebuilds the index from the WAL.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering, fence},
};

use parking_lot::Mutex;
use rusqlite::ffi;

/// SQLite addresses the index in regions of this size.
pub(super) const REGION_BYTES: usize = 32 * 1024;
const SLOTS: usize = 8;
const _: () = assert!(ffi::SQLITE_SHM_NLOCK == 8, "one slot per lock of the WAL index");

/// Who holds a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    Free,
    Shared(u32),
    Exclusive,
}

/// The WAL index of one database.
#[derive(Debug, Default)]
pub(super) struct Shm {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Atomics, because SQLite writes through the pointers while others read them; never
    /// moved or freed while a connection is open.
    regions: Vec<Box<[AtomicU64]>>,
    slots: [Slot; SLOTS],
}

/// What to do with a range of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    LockShared,
    LockExclusive,
    Unlock,
}

impl Request {
    pub(super) fn from_flags(flags: i32) -> Request {
        match (flags & ffi::SQLITE_SHM_UNLOCK != 0, flags & ffi::SQLITE_SHM_SHARED != 0) {
            (true, _) => Request::Unlock,
            (false, true) => Request::LockShared,
            (false, false) => Request::LockExclusive,
        }
    }
}

/// One connection's use of the index.
#[derive(Debug)]
pub(super) struct Mapping {
    shm: Arc<Shm>,
    held: [Slot; SLOTS],
}

impl Mapping {
    pub(super) fn new(shm: Arc<Shm>) -> Mapping {
        Mapping { shm, held: [Slot::Free; SLOTS] }
    }

    /// The address of a region; `None` if it does not exist and must not be made.
    pub(super) fn region(&self, index: usize, extend: bool) -> Option<*mut u64> {
        let mut state = self.shm.state.lock();
        while extend && state.regions.len() <= index {
            let words = REGION_BYTES / size_of::<u64>();
            state.regions.push((0..words).map(|_| AtomicU64::new(0)).collect());
        }
        let region = state.regions.get(index)?;
        Some(region.first()?.as_ptr())
    }

    /// Locks or unlocks `count` slots from `first`, all or none. False: somebody else has one.
    pub(super) fn request(&mut self, first: usize, count: usize, request: Request) -> bool {
        let range = first..first + count;
        let mut state = self.shm.state.lock();
        let held = &mut self.held[range.clone()];
        let slots = &mut state.slots[range];
        let free = slots.iter().zip(&*held).all(|(slot, held)| match request {
            Request::Unlock => true,
            Request::LockShared => *held != Slot::Free || *slot != Slot::Exclusive,
            Request::LockExclusive => *held == Slot::Exclusive || *slot == Slot::Free,
        });
        if !free {
            return false;
        }
        for (slot, held) in slots.iter_mut().zip(held) {
            match request {
                Request::Unlock => slot.release(held),
                Request::LockShared => slot.share(held),
                Request::LockExclusive => {
                    *slot = Slot::Exclusive;
                    *held = Slot::Exclusive;
                }
            }
        }
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.request(0, SLOTS, Request::Unlock);
    }
}

impl Slot {
    fn share(&mut self, held: &mut Slot) {
        if *held != Slot::Free {
            return;
        }
        *held = Slot::Shared(1);
        *self = match *self {
            Slot::Shared(holders) => Slot::Shared(holders + 1),
            Slot::Free | Slot::Exclusive => Slot::Shared(1),
        };
    }

    fn release(&mut self, held: &mut Slot) {
        let mine = std::mem::take(held);
        *self = match (*self, mine) {
            (theirs, Slot::Free) => theirs,
            (Slot::Shared(holders), Slot::Shared(_)) if holders > 1 => Slot::Shared(holders - 1),
            _ => Slot::Free,
        };
    }
}

/// Orders the memory accesses around it.
pub(super) fn barrier() {
    fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::{Arc, Mapping, Request, Shm};

    #[test]
    fn an_exclusive_slot_excludes_and_shared_ones_do_not() {
        let shm = Arc::new(Shm::default());
        let mut one = Mapping::new(Arc::clone(&shm));
        let mut two = Mapping::new(shm);
        assert!(one.request(3, 1, Request::LockShared));
        assert!(two.request(3, 1, Request::LockShared));
        assert!(!two.request(2, 2, Request::LockExclusive), "slot 3 is shared");
        assert!(one.request(2, 1, Request::LockExclusive), "slot 2 was left alone");
        assert!(!two.request(2, 1, Request::LockShared));
        drop(one);
        assert!(two.request(2, 1, Request::LockShared));
    }

    #[test]
    fn regions_stay_where_they_are() {
        let mapping = Mapping::new(Arc::new(Shm::default()));
        assert_eq!(mapping.region(0, false), None);
        let first = mapping.region(0, true);
        assert!(first.is_some());
        assert!(mapping.region(40, true).is_some());
        assert_eq!(mapping.region(0, false), first);
    }
}
