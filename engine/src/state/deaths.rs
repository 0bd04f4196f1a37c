//! Segments with dead records, as the catalogue has them: by segment, in the order in which they began
//! to die, and summed up. All three change together, so that a look at the sums and at what is due
//! costs the same however many there are.

use std::collections::{BTreeMap, BTreeSet};

use super::catalogue::{DEAD_BYTES_MAX, Death};
use crate::types::{SegmentId, WallMs};

/// A segment with dead records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dying {
    pub(crate) death: Death,
    /// It could not be written anew: not again before this.
    pub(crate) not_before: WallMs,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Deaths {
    dying: BTreeMap<SegmentId, Dying>,
    /// The same, those first in which something has been dead for longest.
    order: BTreeSet<(WallMs, SegmentId)>,
    /// The sum of their dead bytes.
    bytes: u64,
}

impl FromIterator<(SegmentId, Death)> for Deaths {
    fn from_iter<I: IntoIterator<Item = (SegmentId, Death)>>(all: I) -> Self {
        let mut deaths = Self::default();
        for (id, death) in all {
            deaths.add(id, death);
        }
        deaths
    }
}

impl Deaths {
    /// Adds to what is dead in a segment, as [`add_death`](super::catalogue::add_death) does.
    pub(crate) fn add(&mut self, id: SegmentId, death: Death) {
        let known = self.remove(id);
        let sum = match known {
            None => Death { bytes: death.bytes.min(DEAD_BYTES_MAX), ..death },
            Some(Dying { death: known, .. }) => Death {
                bytes: known.bytes.saturating_add(death.bytes).min(DEAD_BYTES_MAX),
                since: known.since.min(death.since),
            },
        };
        let not_before = known.map_or(WallMs::ZERO, |known| known.not_before);
        self.dying.insert(id, Dying { death: sum, not_before });
        self.order.insert((sum.since, id));
        self.bytes += sum.bytes;
        self.check();
    }

    /// Forgets a segment.
    pub(crate) fn remove(&mut self, id: SegmentId) -> Option<Dying> {
        let gone = self.dying.remove(&id)?;
        self.order.remove(&(gone.death.since, id));
        self.bytes -= gone.death.bytes;
        self.check();
        Some(gone)
    }

    /// A segment, if it is dying, is not written anew before this.
    pub(crate) fn put_off(&mut self, id: SegmentId, not_before: WallMs) {
        if let Some(dying) = self.dying.get_mut(&id) {
            dying.not_before = not_before;
        }
    }

    pub(crate) fn get(&self, id: SegmentId) -> Option<&Dying> {
        self.dying.get(&id)
    }

    /// How many segments.
    pub(crate) fn len(&self) -> usize {
        self.dying.len()
    }

    /// About how many bytes of them are dead.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the first record died that is still in one of them.
    pub(crate) fn since(&self) -> Option<WallMs> {
        self.order.first().map(|(since, _)| *since)
    }

    /// Those in which something had died by then, the oldest first.
    pub(crate) fn until(&self, then: WallMs) -> impl Iterator<Item = &Dying> {
        let old = self.order.iter().take_while(move |(since, _)| *since <= then);
        old.map(|(_, id)| &self.dying[id])
    }

    fn check(&self) {
        debug_assert!(self.order.len() == self.dying.len(), "each has its place in the order");
        debug_assert!(
            self.bytes == self.dying.values().map(|it| it.death.bytes).sum::<u64>(),
            "the sum is that of a walk over all"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(bytes: u64, since: u64) -> Death {
        Death { bytes, since: WallMs::new(since) }
    }

    #[test]
    fn the_sums_are_those_of_a_walk_whatever_comes_and_goes() {
        let mut deaths = Deaths::default();
        let mut noise = 1_u64;
        for _ in 0..2000 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            let id = SegmentId::new((noise >> 40) % 20);
            match (noise >> 33) % 4 {
                0 => drop(deaths.remove(id)),
                1 => deaths.put_off(id, WallMs::new(noise >> 50)),
                _ => deaths.add(id, death((noise >> 20) % 1000, (noise >> 10) % 100)),
            }
            let all = || deaths.dying.values().map(|it| it.death);
            assert_eq!(deaths.bytes(), all().map(|it| it.bytes).sum::<u64>());
            assert_eq!(deaths.since(), all().map(|it| it.since).min());
            assert_eq!(deaths.len(), all().count());
            let then = WallMs::new(50);
            assert_eq!(deaths.until(then).count(), all().filter(|it| it.since <= then).count());
        }
    }

    #[test]
    fn a_death_adds_to_the_one_before_as_in_the_catalogue_and_keeps_when_it_is_tried_again() {
        let id = SegmentId::new(7);
        let mut deaths: Deaths = [(id, death(10, 20))].into_iter().collect();
        deaths.put_off(id, WallMs::new(99));
        deaths.add(id, death(5, 30));
        let dying = deaths.get(id).copied().expect("there");
        assert_eq!((dying.death, dying.not_before), (death(15, 20), WallMs::new(99)));
        deaths.add(id, death(u64::MAX, 10));
        assert_eq!((deaths.bytes(), deaths.since()), (DEAD_BYTES_MAX, Some(WallMs::new(10))));
        assert!(deaths.remove(id).is_some());
        assert_eq!((deaths.len(), deaths.bytes(), deaths.since()), (0, 0, None));
    }
}
