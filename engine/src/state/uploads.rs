//! How far a stream's records are in the bucket, told from the folds that sealed them: a manifest
//! covers whole folds.

use smallvec::SmallVec;

use crate::types::{Lsn, Seq};

/// Folds of one stream that are remembered while the bucket is behind.
const FOLDS_MAX: usize = 8;

/// The folds of a stream that may not be published yet.
#[derive(Clone, Debug)]
pub(crate) struct Uploads {
    /// Records before this are in the bucket.
    through: Seq,
    /// Through which commit a fold went, and which records it sealed. Oldest first.
    folds: SmallVec<[(Lsn, Seq); 2]>,
}

impl Uploads {
    /// Of a stream whose row shows commits up to `lsn`.
    pub(crate) fn new(start: Seq, lsn: Lsn, sealed: Seq) -> Self {
        Self { through: start, folds: SmallVec::from_slice(&[(lsn, sealed)]) }
    }

    /// A fold through `lsn` has sealed everything before `sealed`; `published`: the fold that
    /// the newest manifest shows.
    pub(crate) fn folded(&mut self, lsn: Lsn, sealed: Seq, published: Lsn) {
        self.through = self.through(published);
        self.folds.retain(|(lsn, _)| *lsn > published);
        if self.folds.len() == FOLDS_MAX {
            // The second newest says least: without it the position moves a little later.
            self.folds.pop();
        }
        self.folds.push((lsn, sealed));
    }

    /// Records before this are in the bucket if the newest manifest shows the fold `published`.
    pub(crate) fn through(&self, published: Lsn) -> Seq {
        let covered = self.folds.iter().rev().find(|(lsn, _)| *lsn <= published);
        covered.map_or(self.through, |(_, sealed)| self.through.max(*sealed))
    }
}

#[cfg(test)]
mod tests {
    use super::{FOLDS_MAX, Uploads};
    use crate::types::{Lsn, Seq};

    #[test]
    fn what_is_uploaded_follows_the_manifests_and_never_runs_ahead() {
        let (lsn, seq) = (Lsn::new, Seq::new);
        let mut uploads = Uploads::new(seq(0), lsn(5), seq(3));
        assert_eq!(uploads.through(lsn(4)), seq(0));
        assert_eq!(uploads.through(lsn(5)), seq(3));
        for fold in 1..40 {
            uploads.folded(lsn(10 * fold), seq(10 * fold), lsn(5));
        }
        assert!(uploads.folds.len() <= FOLDS_MAX);
        assert_eq!(uploads.through(lsn(5)), seq(3));
        assert_eq!(uploads.through(lsn(25)), seq(20));
        let late = uploads.through(lsn(200));
        assert!(seq(20) <= late && late <= seq(200), "{late}");
        assert_eq!(uploads.through(lsn(390)), seq(390));
        uploads.folded(lsn(400), seq(400), lsn(390));
        assert_eq!(uploads.through(lsn(390)), seq(390));
    }
}
