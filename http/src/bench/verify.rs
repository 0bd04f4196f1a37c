//! Whether what was read is what was acknowledged: nothing lost, nothing twice, all in order.
//!
//! A writer numbers its records in each stream from 0 and has one request on the way at a time, so
//! in the stream its numbers must grow by one. Requests whose outcome it never learned may or may
//! not have left records; requests refused outright have not.

use std::collections::{BTreeMap, BTreeSet};

use super::record::Mark;

/// Numbers that are waited for, of one writer; more are counted as lost at once.
const MISSING_MAX: usize = 100_000;

/// What is wrong with what was read. All zero: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Violations {
    /// Records that were acknowledged and not there.
    pub(super) lost: u64,
    /// Records that were there again.
    pub(super) repeated: u64,
    /// Records after a later one of their writer.
    pub(super) out_of_order: u64,
    /// Records of writers that never wrote there.
    pub(super) foreign: u64,
    /// Records with other bytes than were sent.
    pub(super) damaged: u64,
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
#[derive(Debug, Default)]
pub(super) struct Checker {
    writers: BTreeMap<u32, Progress>,
    violations: Violations,
    pub(super) records: u64,
}

#[derive(Debug, Default)]
struct Progress {
    next: u64,
    missing: BTreeSet<u64>,
}

impl Checker {
    /// Takes the next record of the stream.
    pub(super) fn see(&mut self, mark: Mark) {
        self.records += 1;
        let progress = self.writers.entry(mark.writer).or_default();
        let number = mark.number;
        if number >= progress.next {
            for missing in progress.next..number {
                if progress.missing.len() == MISSING_MAX {
                    self.violations.lost += number - missing;
                    break;
                }
                progress.missing.insert(missing);
            }
            progress.next = number + 1;
        } else if progress.missing.remove(&number) {
            self.violations.out_of_order += 1;
        } else {
            self.violations.repeated += 1;
        }
    }

    /// So many of the records had other bytes.
    pub(super) fn damaged(&mut self, records: u64) {
        self.violations.damaged += records;
    }

    /// The verdict, now that the stream has been read to its end.
    pub(super) fn judge(mut self, written: &BTreeMap<u32, Written>) -> Violations {
        let mut violations = self.violations;
        for (writer, written) in written {
            let Progress { next, missing } = self.writers.remove(writer).unwrap_or_default();
            // Those that were sent after the last one seen, and those passed over.
            let tail = (next..written.sent).filter(|it| !written.doubtful.contains(it)).count();
            let passed = missing.iter().filter(|it| !written.doubtful.contains(it)).count();
            violations.lost += u64::try_from(tail + passed).expect("a count fits");
            // What nobody sent.
            violations.foreign += next.saturating_sub(written.sent);
        }
        for progress in self.writers.values() {
            let missing = u64::try_from(progress.missing.len()).expect("a count fits");
            violations.foreign += progress.next - missing;
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check(seen: &[(u32, u64)], expect: Violations) {
        let mut checker = Checker::default();
        for (writer, number) in seen {
            checker.see(Mark { writer: *writer, number: *number, sent: Duration::ZERO });
        }
        let one = Written { sent: 4, doubtful: BTreeSet::new() };
        let two = Written { sent: 3, doubtful: BTreeSet::from([1]) };
        let found = checker.judge(&BTreeMap::from([(1, one), (2, two)]));
        assert_eq!(found, expect, "{seen:?}");
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
}
