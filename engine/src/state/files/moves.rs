//! What became of segments lately: from this, whoever knows which of them hold a stream learns
//! what is new without asking all of them again.

use std::{collections::VecDeque, sync::Arc};

use super::Held;
use crate::{
    state::{
        catalogue::Place,
        view::{Key, Move, Seen, Tally},
    },
    types::StreamId,
};

/// Moves that are remembered: who is further behind asks every segment.
const MOVES_KEPT: usize = 256;

/// The last moves, each with a number, dense from zero.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Number of the first that is remembered.
    first: u64,
    kept: VecDeque<Move>,
}

impl Moves {
    pub(super) fn came(&mut self, held: &Held) {
        self.push(Move::Came(Arc::downgrade(&held.segment), seen(held)));
    }

    pub(super) fn turned(&mut self, held: &Held) {
        self.push(Move::Turned(Key::of(&held.segment), seen(held)));
    }

    pub(super) fn went(&mut self, held: &Held) {
        self.push(Move::Went(Key::of(&held.segment)));
    }

    fn push(&mut self, it: Move) {
        if self.kept.len() == MOVES_KEPT {
            self.kept.pop_front();
            self.first += 1;
        }
        self.kept.push_back(it);
    }

    /// A tally with all moves in it: the one before, or a new one of all segments.
    pub(super) fn tally<'a>(
        &self,
        before: Option<Box<Tally>>,
        stream: StreamId,
        all: impl Iterator<Item = &'a Held>,
    ) -> Box<Tally> {
        let known = before.as_ref().and_then(|it| it.next().checked_sub(self.first));
        if let (Some(mut tally), Some(known)) = (before, known) {
            let known = usize::try_from(known).expect("no more than are kept");
            self.kept.range(known..).for_each(|it| tally.take(it));
            return tally;
        }
        let next = self.first + u64::try_from(self.kept.len()).expect("usize fits u64");
        let mut tally = Tally::new(stream, next);
        all.for_each(|held| tally.add(&held.segment, seen(held)));
        Box::new(tally)
    }
}

fn seen(held: &Held) -> Seen {
    match held.row.place {
        Place::Bucket => Seen::Uploaded,
        Place::Local | Place::Hole => Seen::Here,
    }
}
