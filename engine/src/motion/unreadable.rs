//! Files that could not be read when somebody wanted all of them: to merge or to upload them.
//! Nobody wants them again before they were looked at anew; everybody else goes on without them.
//!
//! Said once when a file gets here and once when it can be read again; looked at ever more
//! rarely, and given up for now after [`TRIES_MAX`]. Here is the list alone, which knows no disk;
//! [`super::heal`] looks.

use std::collections::BTreeMap;

use crate::types::{SegmentId, StoreMs};

/// The pause before a file is looked at again; it doubles each time.
const PAUSE_MS: u64 = 1000;
/// The longest pause.
const PAUSE_MAX_MS: u64 = 3_600_000;
/// After so many looks in vain, about four minutes, nobody waits for a file any more.
const TRIES_MAX: u32 = 8;

/// The list. It has no more entries than the store has files.
#[derive(Debug, Default)]
pub(crate) struct Unreadable {
    files: BTreeMap<SegmentId, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tries: u32,
    again: StoreMs,
}

/// Whether something is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    New,
    /// It was told before.
    Known,
    /// It was told before, and from now on nobody waits for the file.
    GivenUp,
}

impl Unreadable {
    /// A file could not be read.
    pub(crate) fn put(&mut self, id: SegmentId, now: StoreMs) -> News {
        let tries = self.files.get(&id).map_or(0, |entry| entry.tries).saturating_add(1);
        let pause = PAUSE_MS << (tries - 1).min(32);
        self.files.insert(id, Entry { tries, again: now.plus(pause.min(PAUSE_MAX_MS)) });
        match tries {
            1 => News::New,
            TRIES_MAX => News::GivenUp,
            _ => News::Known,
        }
    }

    /// Nobody waits for a file, as nobody did before this start.
    pub(crate) fn give_up(&mut self, id: SegmentId, now: StoreMs) {
        self.files.insert(id, Entry { tries: TRIES_MAX, again: now.plus(PAUSE_MAX_MS) });
    }

    /// A file can be read again, or is gone. Whether it was here.
    pub(crate) fn remove(&mut self, id: SegmentId) -> bool {
        self.files.remove(&id).is_some()
    }

    /// Keeps those files only.
    pub(crate) fn retain(&mut self, wanted: impl Fn(SegmentId) -> bool) {
        self.files.retain(|id, _| wanted(*id));
    }

    /// Whether nobody should want this file now.
    pub(crate) fn has(&self, id: SegmentId) -> bool {
        self.files.contains_key(&id)
    }

    /// Whether nobody waits for this file any more.
    pub(crate) fn is_given_up(&self, id: SegmentId) -> bool {
        self.files.get(&id).is_some_and(|entry| entry.tries >= TRIES_MAX)
    }

    /// The files that are to be looked at.
    pub(crate) fn due(&self, now: StoreMs) -> Vec<SegmentId> {
        let due = self.files.iter().filter(|(_, entry)| entry.again <= now);
        due.map(|(id, _)| *id).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_at_ever_more_rarely_and_told_of_once() {
        let mut files = Unreadable::default();
        let id = SegmentId::new(7);
        let mut now = StoreMs::ZERO;
        let mut pauses = Vec::new();
        for tries in 1..=16 {
            let expected = match tries {
                1 => News::New,
                TRIES_MAX => News::GivenUp,
                _ => News::Known,
            };
            assert_eq!(files.put(id, now), expected, "{tries}");
            assert_eq!(files.is_given_up(id), tries >= TRIES_MAX, "{tries}");
            let pause = (1..).find(|pause| !files.due(now.plus(pause * 1000)).is_empty());
            let pause = pause.expect("some time");
            pauses.push(pause);
            now = now.plus(pause * 1000);
        }
        assert_eq!(pauses[..4], [1, 2, 4, 8]);
        assert_eq!(pauses[12..], [3600; 4]);
        assert!(files.has(id));
        assert!(files.remove(id));
        assert!(!files.remove(id));
        assert_eq!(files.len(), 0);
        assert_eq!(files.put(id, now), News::New, "another time is another time");
    }
}
