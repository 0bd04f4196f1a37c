//! Lays ledgers over each other: the newest change of a key wins, and what is deleted hides what
//! older ledgers have.
//!
//! ```text
//! oldest   put 1·3   put 1·7   put 1·7·1·p
//!          put 1·3             delete below 1·7      put 2·a
//! newest                                             put 2·a
//! merged   put 1·3   delete below 1·7                put 2·a
//! ```

use std::{collections::VecDeque, io, sync::Arc};

use super::{
    Builder,
    change::{Change, Op},
    key::Key,
    reader::{Ledger, Lost, LostCommits, Rows},
};

/// What lies below the ledgers that are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    /// Older ledgers: deletions are kept, they concern those too.
    Others,
    /// Nothing: there is nothing left to delete.
    Nothing,
}

/// Whether the commits behind the newest input are written, too. Only the newest ledger's are ever
/// replayed; all others keep what may long be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Keep,
    Drop,
}

/// Why a merge has no result. What it wrote so far is to be thrown away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// An input can't be read.
    #[error(transparent)]
    Rows(#[from] Box<Lost>),
    /// The tail of the newest input can't be read.
    #[error(transparent)]
    Tail(#[from] Box<LostCommits>),
    /// The output can't be written.
    #[error("merged ledger can't be written")]
    Write(#[from] io::Error),
}

/// Writes what `inputs`, oldest first, say together into `target`.
pub(crate) fn merge(
    inputs: &[Arc<Ledger>],
    below: Below,
    tail: Tail,
    target: &mut Builder<'_>,
) -> Result<(), MergeError> {
    for change in Merge::new(inputs, below) {
        target.push(&change.map_err(Box::new)?)?;
    }
    if tail == Tail::Drop {
        return Ok(());
    }
    let newest = inputs.last().expect("a merge has inputs");
    for commit in newest.commits() {
        let (lsn, commit) = commit.map_err(Box::new)?;
        target.commit(lsn, &commit)?;
    }
    Ok(())
}

/// Decides what a key becomes of which several ledgers say something. Keys have their turns in order.
pub(crate) struct Overlay {
    below: Below,
    /// Deletions that concern the keys to come, each longer than the one before, and how new
    /// they are.
    deletions: Vec<(Key, usize)>,
    /// What was said of the key whose turn it is, and how new that is.
    row: Option<(usize, Op)>,
    deletion: Option<usize>,
}

impl Overlay {
    pub(crate) const fn new(below: Below) -> Self {
        Self { below, deletions: Vec::new(), row: None, deletion: None }
    }

    /// Takes what a ledger says of the key whose turn it is, older ledgers first.
    pub(crate) fn take(&mut self, age: usize, op: Op) {
        match op {
            Op::DeleteBelow => self.deletion = Some(age),
            op => self.row = Some((age, op)),
        }
    }

    /// Decides what that key becomes.
    pub(crate) fn settle(&mut self, key: &Key, ready: &mut VecDeque<Change>) {
        while self.deletions.pop_if(|(prefix, _)| !key.is_below(prefix)).is_some() {}
        if let Some(age) = self.deletion.take() {
            // One inside another says nothing new to older ledgers, but much to those here.
            if self.concerns_others() {
                ready.push_back(Change::delete_below(key.clone()));
            }
            self.deletions.push((key.clone(), age));
        }
        if let Some((age, op)) = self.row.take() {
            let hidden = self.deletions.iter().any(|(_, newer)| *newer > age);
            let said = matches!(op, Op::Put(_)) || self.concerns_others();
            if !hidden && said {
                ready.push_back(Change { key: key.clone(), op });
            }
        }
    }

    /// Whether a deletion tells older ledgers what they are not told yet.
    fn concerns_others(&self) -> bool {
        self.below == Below::Others && self.deletions.is_empty()
    }
}

/// What several ledgers say together, in order of keys.
///
/// A block that can't be read is an error, which comes before every key of the range it has
/// cost: from there on older ledgers show through.
pub(crate) struct Merge {
    /// Oldest first.
    cursors: Vec<Cursor>,
    overlay: Overlay,
    lost: VecDeque<Lost>,
    ready: VecDeque<Change>,
}

struct Cursor {
    rows: Rows,
    head: Option<Change>,
}

impl Merge {
    /// Begins to read `inputs`, oldest first.
    pub(crate) fn new(inputs: &[Arc<Ledger>], below: Below) -> Self {
        let footers = inputs.windows(2).map(|pair| (pair[0].footer(), pair[1].footer()));
        for (older, newer) in footers {
            assert!(older.last_lsn < newer.first_lsn, "ledgers are merged in their order");
        }
        let cursors =
            inputs.iter().map(|ledger| Cursor { rows: ledger.rows(), head: None }).collect();
        let mut merge = Self {
            cursors,
            overlay: Overlay::new(below),
            lost: VecDeque::new(),
            ready: VecDeque::new(),
        };
        for age in 0..merge.cursors.len() {
            merge.advance(age);
        }
        merge
    }

    /// Takes what a cursor is at and goes on to the next change that can be read.
    fn advance(&mut self, age: usize) -> Option<Change> {
        let cursor = &mut self.cursors[age];
        let taken = cursor.head.take();
        for change in cursor.rows.by_ref() {
            match change {
                Ok(change) => {
                    cursor.head = Some(change);
                    break;
                }
                Err(lost) => self.lost.push_back(lost),
            }
        }
        taken
    }

    /// Decides what the lowest key becomes; false at the end.
    fn step(&mut self) -> bool {
        // A handful of inputs: a linear search beats a heap.
        let heads = self.cursors.iter().filter_map(|cursor| cursor.head.as_ref());
        let Some(key) = heads.map(|change| &change.key).min().cloned() else { return false };
        for age in 0..self.cursors.len() {
            while self.cursors[age].head.as_ref().is_some_and(|change| change.key == key) {
                let change = self.advance(age).expect("just looked at");
                self.overlay.take(age, change.op);
            }
        }
        self.overlay.settle(&key, &mut self.ready);
        true
    }
}

impl Iterator for Merge {
    type Item = Result<Change, Lost>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(lost) = self.lost.pop_front() {
                return Some(Err(lost));
            }
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            if !self.step() {
                // The last step may have found the end of an input damaged.
                return self.lost.pop_front().map(Err);
            }
        }
    }
}
