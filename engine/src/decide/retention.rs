//! When a stream lets go of its oldest records, and of how many.
//!
//! ```text
//! position   0 ······· 4 ─────── 7 ─────────── 9
//! trimmed    ░░░░░░░░░
//! older than max-age   ▓▓▓▓▓▓▓▓▓                   these go
//! newest max-bytes               ───────────────   these stay
//! ```
//! A limit is looked at again only when it is passed by a part of itself, so that a stream that
//! grows record by record is trimmed now and then and not for each record: it keeps a little more
//! than asked, never less. Ages are of the wall clock, as the records' timestamps are.

use super::Now;
use crate::{
    log::entry::Trim,
    state::kept::Kept,
    types::{Chunk, Form, Retention, Seq, StreamId, WallMs},
};

/// Longest time for which more is kept than asked.
const QUANTUM_MS_MAX: u64 = 3_600_000;
/// Most bytes that are kept more than asked, a larger record excepted.
const SLACK_BYTES_MAX: u64 = 64 << 10;
/// Bytes that one walk looks at.
const WALK_BYTES_MAX: u64 = 64 << 20;

const _: () = assert!(SLACK_BYTES_MAX <= WALK_BYTES_MAX);

/// How far beyond its age the oldest record may come before a stream is trimmed.
pub(crate) fn quantum_ms(max_age_ms: u64) -> u64 {
    (max_age_ms / 16).min(QUANTUM_MS_MAX)
}

/// How many bytes beyond its limit a stream may have before it is trimmed.
pub(crate) fn slack_bytes(max_bytes: u64) -> u64 {
    (max_bytes / 8).min(SLACK_BYTES_MAX)
}

/// From when on, by the wall clock, a stream has something to let go of; `None`: not before it
/// takes records or other limits.
pub(crate) fn due(kept: &Kept, own_start: Seq) -> Option<WallMs> {
    let Retention { max_age_ms, max_bytes } = kept.retention;
    if let Some(max) = max_bytes.map(u64::from)
        && kept.bytes > max.saturating_add(slack_bytes(max))
    {
        // The first record may be more than what is too much: then the next appends decide.
        let head_goes = kept.bytes.saturating_sub(kept.head_bytes) >= max;
        if head_goes || kept.earliest < own_start {
            return Some(WallMs::ZERO);
        }
    }
    let max_age_ms = max_age_ms?.get();
    let late = max_age_ms.saturating_add(quantum_ms(max_age_ms));
    Some(WallMs::new(kept.oldest?.get().saturating_add(late)))
}

/// What may go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goal {
    /// Records older than this; zero: none for their age.
    pub(crate) older_than: WallMs,
    /// The oldest of its own records that together have no more than this.
    pub(crate) excess: u64,
    /// Everything inherited, whatever its age.
    pub(crate) inherited: bool,
}

/// What may go now, if it is time to look.
pub(crate) fn goal(kept: &Kept, own_start: Seq, now: Now) -> Option<Goal> {
    if due(kept, own_start).is_none_or(|due| due > now.wall) {
        return None;
    }
    let older_than = kept.retention.max_age_ms;
    let older_than = older_than.map_or(0, |age| now.wall.get().saturating_sub(age.get()));
    let excess = kept.retention.max_bytes.and_then(|max| kept.bytes.checked_sub(max.get()));
    Some(Goal {
        older_than: WallMs::new(older_than),
        excess: excess.unwrap_or(0),
        inherited: excess.is_some(),
    })
}

/// A walk along a stream's own records, oldest first, as far as they may go.
#[derive(Debug)]
pub(crate) struct Walk {
    goal: Goal,
    form: Form,
    /// Everything before this goes.
    pub(crate) at: Seq,
    dropped: u64,
    left: u64,
    /// Timestamp and bytes of the first record that stays, once it was met.
    stays: Option<(WallMs, u64)>,
}

impl Walk {
    /// Begins at `at`, which is the stream's own.
    pub(crate) const fn new(goal: Goal, form: Form, at: Seq) -> Self {
        Self { goal, form, at, dropped: 0, left: WALK_BYTES_MAX, stays: None }
    }

    /// Whether it has met a record that stays.
    pub(crate) const fn is_over(&self) -> bool {
        self.stays.is_some()
    }

    /// Walks over records that begin at or before where the walk is.
    pub(crate) fn pass(&mut self, chunk: &Chunk) {
        if self.is_over() {
            return;
        }
        assert!(chunk.first <= self.at, "INV-4 no hole between the records of a walk");
        let skip = usize::try_from(self.at.since(chunk.first)).expect("records fit memory");
        let count = usize::try_from(chunk.records.count()).expect("records fit memory");
        let is_old = chunk.timestamp < self.goal.older_than;
        for index in skip..count {
            if self.is_over() {
                return;
            }
            let bytes = chunk.records.bytes_of(index, self.form);
            let too_much = self.dropped.saturating_add(bytes) <= self.goal.excess;
            if self.left == 0 || !(is_old || too_much) {
                self.stays = Some((chunk.timestamp, bytes));
                return;
            }
            self.left = self.left.saturating_sub(bytes);
            self.dropped += bytes;
            self.at = self.at.after(1);
        }
    }

    /// Walks over records up to `limit` that nobody can read: no more than `bytes` of them, none
    /// younger than `newest`. They go together or not at all.
    pub(crate) fn pass_unread(&mut self, limit: Seq, bytes: u64, newest: WallMs) {
        assert!(limit > self.at, "a walk goes on");
        let is_old = newest < self.goal.older_than;
        let too_much = self.dropped.saturating_add(bytes) <= self.goal.excess;
        if self.left == 0 || !(is_old || too_much) {
            self.stays = Some((newest, bytes.max(1)));
            return;
        }
        self.left = self.left.saturating_sub(bytes);
        self.dropped = self.dropped.saturating_add(bytes);
        self.at = limit;
    }

    /// What the walk came to, of a stream that kept so many bytes. A walk that met no record to
    /// stay must have been over all there are. Bytes that were not read are counted too high, never
    /// too low, so that the stream keeps rather more than asked.
    pub(crate) fn trim(&self, stream: StreamId, kept_bytes: u64) -> Trim {
        let dropped = self.dropped.min(kept_bytes);
        let head_bytes = self.stays.map_or(0, |(_, bytes)| bytes);
        Trim {
            stream,
            earliest: self.at,
            dropped,
            oldest: self.stays.map(|(at, _)| at),
            head_bytes: head_bytes.min((kept_bytes - dropped).max(1)),
        }
    }
}

/// Whether a trim that was found while a stream kept `seen` and ended at `tail` holds for what has
/// been decided since.
pub(crate) fn holds(trim: &Trim, (seen, tail): (&Kept, Seq), kept: &Kept, next: Seq) -> bool {
    let same = kept.retention == seen.retention && kept.earliest == seen.earliest;
    // What was appended meanwhile comes first where nothing was left.
    let told = trim.oldest.is_some() && trim.head_bytes > 0;
    same && (told || next == tail) && trim.earliest > kept.earliest
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::types::{Ends, Lsn, Records, StoreMs};

    fn now(wall: u64) -> Now {
        Now { wall: WallMs::new(wall), store: StoreMs::ZERO }
    }

    fn kept(max_age_ms: u64, max_bytes: u64, sizes: &[u64], oldest: Option<u64>) -> Kept {
        Kept {
            retention: Retention {
                max_age_ms: NonZeroU64::new(max_age_ms),
                max_bytes: NonZeroU64::new(max_bytes),
            },
            earliest: Seq::ZERO,
            bytes: sizes.iter().sum(),
            dropped: 0,
            oldest: oldest.map(WallMs::new),
            head_bytes: sizes.first().copied().unwrap_or(0),
            trimmed: Lsn::ZERO,
        }
    }

    /// JSON records of these sizes, in chunks that begin at these times.
    fn chunks(appends: &[(u64, Vec<u64>)]) -> Vec<Chunk> {
        let mut first = Seq::ZERO;
        let mut chunk = |(time, sizes): &(u64, Vec<u64>)| {
            let ends = sizes.iter().scan(0u32, |end, size| {
                *end += u32::try_from(*size).expect("small") + u32::from(*end > 0);
                Some(*end)
            });
            let ends: Vec<u32> = ends.collect();
            let len = usize::try_from(*ends.last().expect("not empty")).expect("small");
            let payload = Bytes::from(vec![b'x'; len]);
            let ends = if ends.len() == 1 { Ends::One } else { Ends::Many(ends.into()) };
            let records = Records { payload, ends };
            let chunk = Chunk { first, records, timestamp: WallMs::new(*time), key: None };
            first = chunk.limit();
            chunk
        };
        appends.iter().map(&mut chunk).collect()
    }

    #[test]
    fn nothing_is_due_before_a_limit_is_passed_by_a_part_of_it() {
        for (age, bytes, sizes, oldest, expect) in [
            (0, 0, &[500, 500][..], Some(7), None),
            (0, 800, &[500, 400], Some(7), None),
            (0, 800, &[101, 800], Some(7), Some(0)),
            // The first record is more than what is too much.
            (0, 800, &[102, 799], Some(7), None),
            (1600, 0, &[1], Some(7), Some(1707)),
            (1600, 0, &[], None, None),
            (1600, 800, &[101, 800], Some(7), Some(0)),
            (1600, 800, &[500, 400], Some(7), Some(1707)),
            (u64::MAX, u64::MAX, &[1], Some(7), Some(u64::MAX)),
        ] {
            let due = due(&kept(age, bytes, sizes, oldest), Seq::ZERO);
            assert_eq!(due, expect.map(WallMs::new), "{age} {bytes} {sizes:?}");
        }
        // What is inherited goes as soon as the own records alone are enough.
        let own = kept(0, 800, &[1000], Some(7));
        assert_eq!(due(&own, Seq::new(3)), Some(WallMs::ZERO));
    }

    #[test]
    fn what_was_decided_meanwhile_undoes_a_trim_that_it_contradicts() {
        let seen = kept(0, 800, &[101, 800], Some(7));
        let goal = goal(&seen, Seq::ZERO, now(9)).expect("due");
        let mut walk = Walk::new(goal, Form::Json, Seq::ZERO);
        chunks(&[(7, vec![101, 800])]).iter().for_each(|chunk| walk.pass(chunk));
        let trim = walk.trim(StreamId::new(1), seen.bytes);
        assert_eq!((trim.earliest, trim.dropped, trim.head_bytes), (Seq::new(1), 101, 800));
        let tail = Seq::new(2);
        assert!(holds(&trim, (&seen, tail), &seen, tail));
        assert!(holds(&trim, (&seen, tail), &seen, Seq::new(9)), "appends do not matter");
        let wider = kept(0, 900, &[101, 800], Some(7));
        assert!(!holds(&trim, (&seen, tail), &wider, tail), "the limit is another");
        let ahead = Kept { earliest: Seq::new(1), ..seen.clone() };
        assert!(!holds(&trim, (&seen, tail), &ahead, tail), "it is trimmed already");
        let all = Trim { earliest: tail, oldest: None, head_bytes: 0, ..trim };
        assert!(holds(&all, (&seen, tail), &seen, tail));
        assert!(!holds(&all, (&seen, tail), &seen, Seq::new(3)), "there is a first record now");
    }

    proptest! {
        /// What goes is beyond a limit, what stays is within both but for the slack.
        #[test]
        fn a_walk_agrees_with_a_scan(
            appends in vec((0u64..50, vec(1u64..40, 1..5)), 1..12),
            age in 0u64..400,
            bytes in 0u64..300,
            later in 0u64..500,
        ) {
            let mut time = 1000;
            let appends: Vec<_> = appends
                .into_iter()
                .map(|(step, sizes)| {
                    time += step;
                    (time, sizes)
                })
                .collect();
            let each: Vec<(u64, u64)> = appends
                .iter()
                .flat_map(|(time, sizes)| sizes.iter().map(|size| (*time, *size)))
                .collect();
            let sizes: Vec<u64> = each.iter().map(|(_, size)| *size).collect();
            let kept = kept(age, bytes, &sizes, Some(each[0].0));
            let wall = time + later;
            let Some(goal) = goal(&kept, Seq::ZERO, now(wall)) else {
                let total: u64 = sizes.iter().sum();
                let fits = bytes == 0 || total <= bytes + slack_bytes(bytes)
                    || total - sizes[0] < bytes;
                prop_assert!(fits, "{total} bytes of {bytes}");
                prop_assert!(age == 0 || wall - each[0].0 < age + quantum_ms(age));
                return Ok(());
            };
            let mut walk = Walk::new(goal, Form::Json, Seq::ZERO);
            chunks(&appends).iter().for_each(|chunk| walk.pass(chunk));
            let trim = walk.trim(StreamId::new(1), kept.bytes);
            let gone = usize::try_from(trim.earliest.get()).expect("small");
            let (lost, left) = each.split_at(gone);
            let left_bytes: u64 = left.iter().map(|(_, size)| size).sum();
            prop_assert_eq!(trim.dropped, lost.iter().map(|(_, size)| size).sum::<u64>());
            prop_assert_eq!(trim.oldest, left.first().map(|(time, _)| WallMs::new(*time)));
            prop_assert_eq!(trim.head_bytes, left.first().map_or(0, |(_, size)| *size));
            let young = lost.iter().any(|(time, _)| wall - time <= age || age == 0);
            prop_assert!(!young || (bytes > 0 && left_bytes >= bytes), "gone without need");
            if let Some((time, size)) = left.first() {
                prop_assert!(age == 0 || wall - time <= age);
                prop_assert!(bytes == 0 || left_bytes - size < bytes);
            }
        }
    }
}
