//! What a fork shares with the streams it comes from: references, never copies.
//!
//! ```text
//! a   0 ─────── 5 ────── 8
//! b             └ 5 ──── 7 ── 9        b = fork of a at 5, wrote 4 of its own
//! c                      └ 7 ───       c = fork of b at 7: runs (a, 5), (b, 7)
//! ```
//! The runs of a fork name the streams under which its inherited records really lie, so a read
//! goes straight to them whatever the number of forks in between.

use super::{Offset, Seq, StreamId, StreamName};

/// A stretch of inherited records: from the limit of the run before it (or the start) to `limit`
/// they lie under `stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) stream: StreamId,
    pub(crate) limit: Seq,
}

/// Where a fork comes from. Never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ancestry {
    /// The stream it was forked from; it stays, deleted or not, as long as its forks do.
    pub(crate) source: StreamId,
    pub(crate) source_name: StreamName,
    /// The first position that is the fork's own.
    pub(crate) at: Seq,
    /// The point as the request named it; `None`: the source's tail.
    pub(crate) asked: Option<Offset>,
    /// The position that meant.
    pub(crate) anchor: Seq,
    /// How many forks lie between it and a stream that is none, itself included.
    pub(crate) depth: u32,
    /// The sub-offset as the request named it.
    pub(crate) sub_offset: u64,
    /// The request left the expiry to the source.
    pub(crate) expiry_inherited: bool,
    pub(crate) runs: Box<[Run]>,
}

impl Ancestry {
    /// Where an inherited position lies; `None` for the fork's own.
    pub(crate) fn run_of(&self, seq: Seq) -> Option<Run> {
        let index = self.runs.partition_point(|run| run.limit <= seq);
        self.runs.get(index).copied()
    }

    /// The runs of what is inherited before `at` from `source`, itself a fork with this ancestry
    /// or none. `None`: more than a fork may have.
    pub(crate) fn runs_before(
        at: Seq,
        source: StreamId,
        ancestry: Option<&Self>,
    ) -> Option<Box<[Run]>> {
        let above = ancestry.map_or(&[][..], |it| &it.runs);
        let mut runs = Vec::with_capacity(above.len() + 1);
        for run in above {
            let limit = run.limit.min(at);
            if runs.last().is_none_or(|last: &Run| last.limit < limit) && limit > Seq::ZERO {
                runs.push(Run { stream: run.stream, limit });
            }
        }
        let own_start = ancestry.map_or(Seq::ZERO, |it| it.at);
        if at > own_start {
            runs.push(Run { stream: source, limit: at });
        }
        (runs.len() <= crate::limits::FORK_RUNS_MAX).then(|| runs.into())
    }

    /// Takes what a codec read; `None` unless the runs rise up to `at`.
    pub(crate) fn checked(self) -> Option<Self> {
        let rises = self.runs.windows(2).all(|pair| pair[0].limit < pair[1].limit);
        let ends = self.runs.last().map_or(Seq::ZERO, |last| last.limit) == self.at;
        let starts = self.runs.first().is_none_or(|first| first.limit > Seq::ZERO);
        (rises && ends && starts).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fork(at: u64, source: u64, above: Option<&Ancestry>) -> Ancestry {
        let (at, source) = (Seq::new(at), StreamId::new(source));
        Ancestry {
            source,
            source_name: StreamName::new("s").expect("a name"),
            at,
            asked: None,
            anchor: at,
            depth: above.map_or(1, |above| above.depth + 1),
            sub_offset: 0,
            expiry_inherited: true,
            runs: Ancestry::runs_before(at, source, above).expect("few"),
        }
    }

    proptest! {
        /// A chain of forks at any points against the walk up the chain, position by position.
        #[test]
        fn runs_name_the_stream_that_wrote_each_position(
            points in proptest::collection::vec((0u64..30, 0u64..10), 1..12),
        ) {
            // Stream 0 wrote 0..20; each next one forks the last at a point of it, then writes.
            let mut writers: Vec<u64> = vec![0; 20];
            let mut last: Option<Ancestry> = None;
            for (number, (at, wrote)) in points.into_iter().enumerate() {
                let number = u64::try_from(number).expect("small");
                let tail = u64::try_from(writers.len()).expect("small");
                let at = at.min(tail);
                let this = fork(at, number, last.as_ref());
                prop_assert_eq!(this.clone().checked(), Some(this.clone()));
                writers.truncate(usize::try_from(at).expect("small"));
                for (position, writer) in (0..).zip(&writers) {
                    let run = this.run_of(Seq::new(position)).expect("inherited");
                    prop_assert_eq!(run.stream, StreamId::new(*writer));
                }
                prop_assert_eq!(this.run_of(Seq::new(at)), None);
                writers.extend(std::iter::repeat_n(number + 1, usize::try_from(wrote).expect("small")));
                last = Some(this);
            }
        }
    }
}
