//! Whether what was read is what was acknowledged: nothing lost, nothing twice, all in order.
//!
//! A writer numbers its records in each stream from 0 and has one request on the way at a time, so
//! in the stream its numbers must grow by one. Requests whose outcome it never learned may or may
//! not have left records; requests refused outright have not.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Flaws, Mark};

/// Numbers that are waited for, of one writer; more are counted as lost at once.
const MISSING_MAX: usize = 100_000;
/// Violations that are told one by one.
const FOUND_MAX: usize = 20;

/// What is wrong with what was read. All zero: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Violations {
    /// Records that were acknowledged and not there.
    pub(super) lost: u64,
    /// Records that were there again.
    pub(super) repeated: u64,
    /// Records after a later one of their writer.
    pub(super) out_of_order: u64,
    /// Records of writers that never wrote there, and whatever else is no record of this run.
    pub(super) foreign: u64,
    /// Records with other bytes than were sent.
    pub(super) damaged: u64,
    /// Whole reads with other bytes than a read before had at the same place.
    pub(super) changed: u64,
}

impl Violations {
    pub(super) fn any(self) -> bool {
        self != Self::default()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.out_of_order += other.out_of_order;
        self.foreign += other.foreign;
        self.damaged += other.damaged;
        self.changed += other.changed;
    }
}

/// How something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Lost,
    Repeated,
    OutOfOrder,
    Foreign,
    Damaged,
    Changed,
}

impl Kind {
    /// As a field of the report is called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Repeated => "repeated",
            Self::OutOfOrder => "out_of_order",
            Self::Foreign => "foreign",
            Self::Damaged => "damaged",
            Self::Changed => "changed",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) kind: Kind,
    pub(super) stream: usize,
    /// Writer and number of the record, where it is one of a writer's that is wrong.
    pub(super) record: Option<(u32, u64)>,
    /// Where the page was read in which it was seen.
    pub(super) offset: String,
    /// Bytes of two reads that should hold the same: the one before, and this one.
    pub(super) bytes: Option<(u64, u64)>,
}

/// What came of a reading: how many records there were, and what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) records: u64,
    pub(super) counts: Violations,
    /// The first of what is wrong.
    pub(super) found: Vec<Violation>,
}

impl Verdict {
    pub(super) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.counts.add(other.counts);
        let room = FOUND_MAX - self.found.len();
        self.found.extend(other.found.into_iter().take(room));
    }

    /// A whole read of a stream had other bytes than one before.
    pub(super) fn changed(&mut self, stream: usize, offset: &str, bytes: (u64, u64)) {
        self.counts.changed += 1;
        let offset = offset.to_owned();
        let kind = Kind::Changed;
        self.note(Violation { kind, stream, record: None, offset, bytes: Some(bytes) });
    }

    /// What is missing may be there: nobody could be asked for it.
    pub(super) fn excuse_lost(&mut self) {
        self.counts.lost = 0;
        self.found.retain(|it| it.kind != Kind::Lost);
    }

    fn note(&mut self, violation: Violation) {
        if self.found.len() < FOUND_MAX {
            self.found.push(violation);
        }
    }
}

/// What one writer knows of its records in one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Numbers below this were sent.
    pub(super) sent: u64,
    /// Those of them whose outcome is not known, as they are.
    pub(super) doubtful: BTreeSet<u64>,
}

/// One reader of one stream, from its beginning.
#[derive(Debug)]
pub(super) struct Checker {
    stream: usize,
    /// Where the page was read that is looked at.
    offset: String,
    writers: BTreeMap<u32, Progress>,
    verdict: Verdict,
}

#[derive(Debug, Default)]
struct Progress {
    next: u64,
    missing: BTreeSet<u64>,
}

impl Checker {
    /// One that has seen nothing of the stream.
    pub(super) fn new(stream: usize) -> Self {
        Self {
            stream,
            offset: "-1".to_owned(),
            writers: BTreeMap::new(),
            verdict: Verdict::default(),
        }
    }

    /// What comes now was read at this offset.
    pub(super) fn at(&mut self, offset: &str) {
        if self.offset != offset {
            offset.clone_into(&mut self.offset);
        }
    }

    /// How many records of these writers came, not counting those that came again.
    pub(super) fn distinct(&self, written: &BTreeMap<u32, Written>) -> u64 {
        let seen = written.keys().filter_map(|writer| self.writers.get(writer));
        let count =
            |it: &Progress| it.next - u64::try_from(it.missing.len()).expect("a count fits");
        seen.map(count).sum()
    }

    /// Takes the next record of the stream.
    pub(super) fn see(&mut self, mark: Mark) {
        self.verdict.records += 1;
        let progress = self.writers.entry(mark.writer).or_default();
        let number = mark.number;
        let wrong = if number >= progress.next {
            for missing in progress.next..number {
                if progress.missing.len() == MISSING_MAX {
                    self.verdict.counts.lost += number - missing;
                    break;
                }
                progress.missing.insert(missing);
            }
            progress.next = number + 1;
            None
        } else if progress.missing.remove(&number) {
            self.verdict.counts.out_of_order += 1;
            Some(Kind::OutOfOrder)
        } else {
            self.verdict.counts.repeated += 1;
            Some(Kind::Repeated)
        };
        if let Some(kind) = wrong {
            self.note(kind, mark.writer, number);
        }
    }

    /// This was wrong with the bytes that were read.
    pub(super) fn flawed(&mut self, flaws: &Flaws) {
        let Flaws { damaged, strange } = flaws;
        self.verdict.counts.damaged += u64::try_from(damaged.len()).expect("a count fits");
        for mark in damaged.iter().take(FOUND_MAX) {
            self.note(Kind::Damaged, mark.writer, mark.number);
        }
        self.verdict.counts.foreign += strange;
        if *strange > 0 {
            self.note_of(Kind::Foreign, None);
        }
    }

    fn note(&mut self, kind: Kind, writer: u32, number: u64) {
        self.note_of(kind, Some((writer, number)));
    }

    fn note_of(&mut self, kind: Kind, record: Option<(u32, u64)>) {
        let (stream, offset) = (self.stream, self.offset.clone());
        self.verdict.note(Violation { kind, stream, record, offset, bytes: None });
    }

    /// The verdict, now that the stream has been read to its end.
    pub(super) fn judge(mut self, written: &BTreeMap<u32, Written>) -> Verdict {
        for (writer, written) in written {
            let Progress { next, missing } = self.writers.remove(writer).unwrap_or_default();
            // Those passed over, and those that were sent after the last one seen.
            let passed = missing.into_iter().filter(|it| !written.doubtful.contains(it));
            let tail = (next..written.sent).filter(|it| !written.doubtful.contains(it));
            for number in passed.chain(tail) {
                self.verdict.counts.lost += 1;
                self.note(Kind::Lost, *writer, number);
            }
            // What nobody sent.
            let foreign = next.saturating_sub(written.sent);
            if foreign > 0 {
                self.verdict.counts.foreign += foreign;
                self.note(Kind::Foreign, *writer, written.sent);
            }
        }
        for (writer, progress) in std::mem::take(&mut self.writers) {
            let missing = u64::try_from(progress.missing.len()).expect("a count fits");
            self.verdict.counts.foreign += progress.next - missing;
            self.note(Kind::Foreign, writer, progress.next - 1);
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check(seen: &[(u32, u64)], expect: Violations) {
        let mut checker = Checker::new(0);
        for (writer, number) in seen {
            checker.see(Mark { writer: *writer, number: *number, sent: Duration::ZERO });
        }
        let one = Written { sent: 4, doubtful: BTreeSet::new() };
        let two = Written { sent: 3, doubtful: BTreeSet::from([1]) };
        let found = checker.judge(&BTreeMap::from([(1, one), (2, two)]));
        assert_eq!(found.counts, expect, "{seen:?}");
        assert_eq!(found.found.is_empty(), !expect.any(), "{seen:?}");
    }

    #[test]
    fn what_was_acknowledged_is_there_once_and_in_order() {
        let sound = Violations::default();
        check(&[(1, 0), (2, 0), (1, 1), (1, 2), (2, 1), (2, 2), (1, 3)], sound);
        // What is in doubt may be missing.
        check(&[(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 2)], sound);
    }

    #[test]
    fn each_kind_of_damage_has_its_name() {
        let sound = Violations::default();
        let all = [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2)];
        for lost in [0, 1, 2, 3, 4, 6] {
            let mut seen = all.to_vec();
            seen.remove(lost);
            check(&seen, Violations { lost: 1, ..sound });
        }
        check(&[], Violations { lost: 6, ..sound });
        let mut seen = all.to_vec();
        seen.insert(3, (1, 1));
        check(&seen, Violations { repeated: 1, ..sound });
        let mut seen = all.to_vec();
        seen.swap(1, 2);
        check(&seen, Violations { out_of_order: 1, ..sound });
        let mut seen = all.to_vec();
        seen.extend([(3, 0), (3, 1), (2, 3)]);
        check(&seen, Violations { foreign: 3, ..sound });
    }
    #[test]
    fn what_is_wrong_is_told_with_its_place_and_only_so_often() {
        let mark = |number| Mark { writer: 7, number, sent: Duration::ZERO };
        let mut checker = Checker::new(3);
        checker.see(mark(0));
        checker.at("0_9");
        checker.see(mark(0));
        checker.flawed(&Flaws { damaged: vec![mark(0)], strange: 2 });
        let written = Written { sent: 100, doubtful: BTreeSet::new() };
        let written = BTreeMap::from([(7, written)]);
        assert_eq!(checker.distinct(&written), 1);
        let mut verdict = checker.judge(&written);
        assert_eq!((verdict.records, verdict.counts.lost, verdict.found.len()), (2, 99, FOUND_MAX));
        let first = &verdict.found[0];
        assert_eq!((first.kind, first.stream, first.record), (Kind::Repeated, 3, Some((7, 0))));
        assert_eq!((&*first.offset, verdict.found[1].kind), ("0_9", Kind::Damaged));
        let strange = &verdict.found[2];
        assert_eq!((strange.kind, strange.record, &*strange.offset), (Kind::Foreign, None, "0_9"));
        assert_eq!((verdict.counts.damaged, verdict.counts.foreign), (1, 2));
        verdict.excuse_lost();
        assert_eq!((verdict.counts.lost, verdict.found.len()), (0, 3));
    }
}
