//! Lineages: which epoch counts which positions of a stream (design: Identity).

use smallvec::SmallVec;

use super::{Epoch, Offset, Seq};

/// Which epoch counts which positions: (epoch, first position), both increasing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lineage(SmallVec<[(Epoch, Seq); 1]>);

/// What an offset means in a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// This position.
    At(Seq),
    /// Beyond every position there is.
    Beyond,
    /// In a stretch that was left behind; reading goes on at this position.
    Lost(Seq),
}

impl Lineage {
    pub(crate) fn starting(epoch: Epoch) -> Self {
        Self(smallvec::smallvec![(epoch, Seq::ZERO)])
    }

    /// Takes what a codec read; `None` unless both parts increase and there is one.
    pub(crate) fn from_parts(parts: SmallVec<[(Epoch, Seq); 1]>) -> Option<Self> {
        let rises = parts.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        (!parts.is_empty() && rises).then_some(Self(parts))
    }

    pub(crate) fn parts(&self) -> &[(Epoch, Seq)] {
        &self.0
    }

    pub(crate) fn newest(&self) -> Epoch {
        self.0.last().expect("a lineage has at least one epoch").0
    }

    /// What a fork inherits before `at`, under a name that was last used under `last`.
    ///
    /// A name that was never used shares its source's epochs, those of this era. One that was gets a
    /// new epoch for the whole: the source's may be those of its own earlier lives, whose offsets,
    /// and pages that caches keep for ever, must not meet the fork (INV-10).
    /// `floor`: the first epoch that was never used before the last recovery.
    pub(crate) fn inherited(&self, at: Seq, last: Option<Epoch>, floor: Epoch) -> Self {
        if let Some(last) = last {
            let newest = self.newest().max(last).get();
            return Self::starting(Epoch::new(newest + 1).max(floor));
        }
        let parts = self.0.iter().copied().filter(|(_, first)| *first <= at);
        let mut inherited = Self(parts.collect());
        inherited.raise(floor, at);
        // A life of the fork's name that a recovery lost may have used any epoch of the eras before: an
        // offset, or a cached page, of that life must not meet the fork.
        inherited.0.retain(|(epoch, _)| epoch.era() >= floor.era());
        inherited.0.first_mut().expect("it was raised to this era").1 = Seq::ZERO;
        inherited
    }

    /// Lets every era up to that of `floor` count the positions from `at` on that it counts first
    /// (design: Identity). What was minted for records that a recovery lost stays lost.
    pub(crate) fn raise(&mut self, floor: Epoch, at: Seq) {
        while self.newest().era() < floor.era() {
            self.0.push((Epoch::first_of(self.newest().era() + 1), at));
        }
    }

    /// The offset of a position, minted under the newest epoch that counts it.
    pub(crate) fn offset(&self, next: Seq) -> Offset {
        let epoch = self.0.iter().rev().find(|(_, first)| *first <= next);
        let (epoch, _) = epoch.or(self.0.first()).expect("a lineage has at least one epoch");
        Offset { epoch: *epoch, next }
    }

    /// Where an offset points to (design: Identity).
    pub(crate) fn place(&self, offset: Offset, tail: Seq) -> Place {
        if offset == Offset::START {
            return Place::At(Seq::ZERO);
        }
        if offset.epoch > self.newest() {
            return Place::Beyond;
        }
        let Some(index) = self.0.iter().position(|(epoch, _)| *epoch == offset.epoch) else {
            let (_, first) = self.0.iter().find(|(epoch, _)| *epoch > offset.epoch).expect(
                "the epoch is not above the newest and not in the lineage, so one above it is",
            );
            return Place::Lost(*first);
        };
        let (_, first) = self.0[index];
        match self.0.get(index + 1) {
            _ if offset.next < first => Place::Lost(first),
            Some((_, limit)) if offset.next > *limit => Place::Lost(*limit),
            None if offset.next > tail => Place::Beyond,
            _ => Place::At(offset.next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lineage;
    use crate::types::{Epoch, Offset, Seq, lineage::Place};

    #[test]
    fn a_fork_made_after_a_recovery_meets_no_offset_of_a_life_that_was_lost() {
        let (epoch, seq) = (Epoch::new, Seq::new);
        let floor = Epoch::first_of(2);
        let mut source = Lineage::starting(Epoch::ZERO);
        source.raise(floor, seq(10));
        for at in [0, 4, 10, 15] {
            let fork = source.inherited(seq(at), None, floor);
            // Whatever the name was used for before, it was under one of these.
            for lost in [epoch(0), epoch(1), Epoch::first_of(1)] {
                for next in 1..=at {
                    let offset = Offset { epoch: lost, next: seq(next) };
                    assert_eq!(fork.place(offset, seq(20)), Place::Lost(Seq::ZERO), "{offset:?}");
                }
            }
            let own = Offset { epoch: floor, next: seq(at) };
            assert_eq!(fork.place(own, seq(20)), Place::At(seq(at)));
            assert_eq!(fork.offset(Seq::ZERO).epoch, floor);
        }
        // Without a recovery a fork shares what its source has.
        let source = Lineage::starting(epoch(3));
        assert_eq!(source.inherited(seq(4), None, Epoch::ZERO), source);
    }
}
