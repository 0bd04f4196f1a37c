//! Streams in memory by name: a bounded cache of the catalogue plus everything that differs
//! from it.
//!
//! A slot that differs from the catalogue stays; the others are evicted by a clock hand. A
//! lookup that missed carries the number of folds it was made under, and its result is put on
//! the shelf only if no fold has finished since: else a stale row could replace a newer one
//! that was folded and evicted meanwhile (INV-11).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use indexmap::IndexMap;
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::{catalogue::Found, view::Stream};
use crate::{
    log::gate::Gate,
    types::{Epoch, StreamId, StreamName},
};

/// What is known of a name.
#[derive(Clone, Default)]
pub(crate) struct Slot {
    /// The stream that readers see.
    pub(crate) visible: Option<Arc<Stream>>,
    /// The stream that the sequencer sees; `None` if it has decided that there is none.
    pub(crate) latest: Option<Arc<Stream>>,
    /// The last epoch this name was used under.
    pub(crate) epoch: Option<Epoch>,
    /// The group that made `latest` what it is, until it is durable.
    pub(crate) gate: Option<Arc<Gate>>,
    /// Ends of earlier streams of this name that the catalogue does not know yet.
    pub(crate) burials: u32,
    /// Requests that need to know that the name is free hold this.
    needed: Option<Arc<()>>,
}

/// Keeps what a request was found to need on the shelf until it is decided: a creation of a fork
/// needs two names, a cascade of ends many more, and the shelf by itself may keep a single one.
pub(crate) enum Pin {
    Stream(#[expect(dead_code, reason = "held, not read")] Arc<Stream>),
    Name(#[expect(dead_code, reason = "held, not read")] Arc<()>),
}

/// How many folds had finished when a lookup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Folds(u64);

/// The shelf.
pub(crate) struct Shelf {
    slots: RwLock<Slots>,
    /// Streams in memory that have forks, by the number under which the forks know them.
    sources: RwLock<BTreeMap<StreamId, Weak<Stream>>>,
    folds: AtomicU64,
}

struct Slots {
    by_name: IndexMap<StreamName, Slot, ahash::RandomState>,
    hand: usize,
    cached_max: usize,
}

impl Shelf {
    pub(crate) fn new(cached_max: usize, seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        let hasher = ahash::RandomState::with_seeds(a, b, c, d);
        let by_name = IndexMap::with_hasher(hasher);
        Self {
            slots: RwLock::new(Slots { by_name, hand: 0, cached_max }),
            sources: RwLock::default(),
            folds: AtomicU64::new(0),
        }
    }

    pub(crate) fn folds(&self) -> Folds {
        Folds(self.folds.load(Ordering::Acquire))
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.read().by_name.len()
    }

    /// What is known of a name; `None`: ask the catalogue.
    pub(crate) fn get<T>(&self, name: &StreamName, look: impl FnOnce(&Slot) -> T) -> Option<T> {
        let slots = self.slots.read();
        let slot = slots.by_name.get(name)?;
        if let Some(stream) = &slot.latest {
            stream.recent.store(true, Ordering::Relaxed);
        }
        Some(look(slot))
    }

    /// Puts what the catalogue said of a name on the shelf, unless a fold has finished since
    /// the question; then the question must be asked again (`false`).
    pub(crate) fn admit(&self, name: &StreamName, found: Found, asked: Folds) -> bool {
        let mut slots = self.slots.write();
        if self.folds() != asked {
            weir_io::sometimes!("a state load raced a fold and was repeated");
            return false;
        }
        if slots.by_name.contains_key(name) {
            return true;
        }
        for gone in slots.evict() {
            self.unregister(gone);
        }
        let slot = match found {
            Found::Absent(epoch) => Slot { epoch, ..Slot::default() },
            Found::Stream(row) => {
                let epoch = row.state.lineage.newest();
                let has_forks = row.state.refs > 0;
                let stream = Arc::new(Stream::loaded(row.identity, row.state, row.sealed));
                if has_forks {
                    self.register(&stream);
                }
                Slot {
                    visible: Some(Arc::clone(&stream)),
                    latest: Some(stream),
                    epoch: Some(epoch),
                    ..Slot::default()
                }
            }
        };
        slots.by_name.insert(name.clone(), slot);
        true
    }

    /// Keeps what is known of a name on the shelf; `None` if that is nothing.
    pub(crate) fn pin(&self, name: &StreamName) -> Option<Pin> {
        let mut slots = self.slots.write();
        let slot = slots.by_name.get_mut(name)?;
        Some(match &slot.visible {
            Some(stream) => Pin::Stream(Arc::clone(stream)),
            None => Pin::Name(Arc::clone(slot.needed.get_or_insert_default())),
        })
    }

    /// A stream that forks draw on, if it is in memory. If it is not, all its records are in
    /// segments.
    pub(crate) fn source(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.sources.read().get(&id)?.upgrade()
    }

    /// Makes a stream known to its forks.
    pub(crate) fn register(&self, source: &Arc<Stream>) {
        self.sources.write().insert(source.identity.id, Arc::downgrade(source));
    }

    /// The stream is gone, and with it all its forks.
    pub(crate) fn unregister(&self, id: StreamId) {
        if self.sources.read().contains_key(&id) {
            self.sources.write().remove(&id);
        }
    }

    /// Changes a slot that is on the shelf, or puts an empty one there first.
    pub(crate) fn change<T>(&self, name: &StreamName, change: impl FnOnce(&mut Slot) -> T) -> T {
        let mut slots = self.slots.write();
        change(slots.by_name.entry(name.clone()).or_default())
    }

    /// A fold has finished; it has written the ends of these streams.
    pub(crate) fn fold_finished(&self, buried: &[StreamName]) {
        let mut slots = self.slots.write();
        self.folds.fetch_add(1, Ordering::AcqRel);
        for name in buried {
            let slot = slots.by_name.get_mut(name).expect("INV-11 an unfolded name is shelved");
            slot.burials -= 1;
            if slot.burials == 0
                && slot.latest.is_none()
                && slot.visible.is_none()
                && slot.gate.is_none()
            {
                slots.by_name.swap_remove(name);
            }
        }
    }
}

impl Slots {
    /// Makes room for one more slot if the cache is full: advances the hand over at most a few
    /// slots, so that an insert stays cheap even when nothing can be evicted. Returns the streams that
    /// went.
    fn evict(&mut self) -> SmallVec<[StreamId; 1]> {
        const STEPS_MAX: usize = 16;
        let mut gone = SmallVec::new();
        for _ in 0..STEPS_MAX {
            if self.by_name.len() < self.cached_max {
                break;
            }
            if self.hand >= self.by_name.len() {
                self.hand = 0;
            }
            let (_, slot) = self.by_name.get_index(self.hand).expect("the hand is in range");
            if slot.is_idle() {
                gone.extend(slot.latest.as_ref().map(|stream| stream.identity.id));
                self.by_name.swap_remove_index(self.hand);
            } else {
                self.hand += 1;
            }
        }
        gone
    }
}

impl Slot {
    /// Nothing but the shelf refers to it and the catalogue says the same.
    fn is_idle(&self) -> bool {
        if self.burials > 0 || self.gate.is_some() {
            return false;
        }
        match (&self.visible, &self.latest) {
            (None, None) => self.needed.as_ref().is_none_or(|it| Arc::strong_count(it) == 1),
            (Some(visible), Some(latest)) if Arc::ptr_eq(visible, latest) => {
                // The slot itself holds two; a request, a group or the list of dirty streams
                // would hold more. New ones need the lock that the caller has.
                Arc::strong_count(visible) == 2 && !visible.recent.swap(false, Ordering::Relaxed)
            }
            _ => false,
        }
    }
}
