//! How far a stream's records are in the bucket, told from the folds that sealed them: a manifest
//! covers whole folds.

use smallvec::SmallVec;

use crate::types::{Lsn, Seq};

/// Folds of one stream that are remembered while the bucket is behind.
const FOLDS_MAX: usize = 8;

/// How far records of a stream reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reach {
    /// All before this.
    pub(crate) seq: Seq,
    /// Payload bytes of the stream's own among them, those included that it has let go of since.
    pub(crate) bytes: u64,
}

/// The folds of a stream that may not be published yet.
#[derive(Clone, Debug)]
pub(crate) struct Uploads {
    /// What is in the bucket.
    through: Reach,
    /// Through which commit a fold went, and what was sealed by then. Oldest first.
    folds: SmallVec<[(Lsn, Reach); 2]>,
}

impl Uploads {
    /// Of a stream whose own records begin at `start` and whose row shows commits up to `lsn`.
    pub(crate) fn new(start: Seq, lsn: Lsn, sealed: Reach) -> Self {
        let through = Reach { seq: start, bytes: 0 };
        Self { through, folds: SmallVec::from_slice(&[(lsn, sealed)]) }
    }

    /// A fold through `lsn` has sealed everything up to `sealed`; `published`: the fold that
    /// the newest manifest shows.
    pub(crate) fn folded(&mut self, lsn: Lsn, sealed: Reach, published: Lsn) {
        self.through = self.reach(published);
        self.folds.retain(|(lsn, _)| *lsn > published);
        if self.folds.len() == FOLDS_MAX {
            // The second newest says least: without it the position moves a little later.
            self.folds.pop();
        }
        self.folds.push((lsn, sealed));
    }

    /// What is in the bucket if the newest manifest shows the fold `published`.
    pub(crate) fn reach(&self, published: Lsn) -> Reach {
        let covered = self.folds.iter().rev().find(|(lsn, _)| *lsn <= published);
        covered.map_or(self.through, |(_, sealed)| self.through.max(*sealed))
    }

    /// Records before this are in the bucket if the newest manifest shows the fold `published`.
    pub(crate) fn through(&self, published: Lsn) -> Seq {
        self.reach(published).seq
    }
}

#[cfg(test)]
mod tests {
    use super::{FOLDS_MAX, Reach, Uploads};
    use crate::types::{Lsn, Seq};

    #[test]
    fn what_is_uploaded_follows_the_manifests_and_never_runs_ahead() {
        let (lsn, seq) = (Lsn::new, Seq::new);
        let reach = |at| Reach { seq: seq(at), bytes: 7 * at };
        let mut uploads = Uploads::new(seq(0), lsn(5), reach(3));
        assert_eq!(uploads.through(lsn(4)), seq(0));
        assert_eq!(uploads.through(lsn(5)), seq(3));
        for fold in 1..40 {
            uploads.folded(lsn(10 * fold), reach(10 * fold), lsn(5));
        }
        assert!(uploads.folds.len() <= FOLDS_MAX);
        assert_eq!(uploads.through(lsn(5)), seq(3));
        assert_eq!(uploads.through(lsn(25)), seq(20));
        let late = uploads.through(lsn(200));
        assert!(seq(20) <= late && late <= seq(200), "{late}");
        assert_eq!(uploads.through(lsn(390)), seq(390));
        uploads.folded(lsn(400), reach(400), lsn(390));
        assert_eq!(uploads.through(lsn(390)), seq(390));
        assert_eq!(uploads.reach(lsn(390)), reach(390));
    }
}
