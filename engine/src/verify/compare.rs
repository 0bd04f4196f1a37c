//! What the tables of a store say, against what its bucket says.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::{
    ledger::{Change, Key},
    motion::publish::Stored,
    publish::{keys::Generation, listing::Entry, manifest::Manifest},
    state::{catalogue::SegmentRow, files::Cut},
    types::SegmentId,
};

/// What the tables of a store say, for a comparison with its bucket.
pub(super) struct Rows {
    pub(super) published: Option<Stored>,
    pub(super) cut: Option<Cut>,
    /// The ledgers say all that the tables do.
    pub(super) comparable: bool,
    /// The ledgers that the tables name, oldest first.
    pub(super) ledgers: Vec<SegmentId>,
    /// The segments that the bucket has, as the tables say: a read may need them.
    pub(super) uploaded: Vec<SegmentRow>,
    /// As a ledger would have them; kept while nobody changes them.
    pub(super) rows: BTreeMap<Key, Change>,
}

impl Rows {
    pub(super) fn nothing() -> Self {
        Self {
            published: None,
            cut: None,
            comparable: false,
            ledgers: Vec::new(),
            uploaded: Vec::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Whether the bucket's newest manifest is this store's. `end`: the generation of the last one, which
    /// may be one that can't be read.
    pub(super) fn compare(&self, end: Generation, newest: &Stored, found: &mut Findings) {
        let Some(published) = &self.published else { return };
        let (mine, theirs) = (published.manifest.generation, newest.manifest.generation);
        // Manifests that follow mine may be this store's, of a process that is running.
        if mine == theirs && published.digest != newest.digest {
            let text = "the one in the bucket is not the one that this store published";
            found.add("manifest", newest.manifest.artifact().key(), text);
        }
        if newest.manifest.store != published.manifest.store {
            let text = "the bucket belongs to another store";
            found.add("manifest", newest.manifest.artifact().key(), text);
        } else if newest.manifest.recoveries > published.manifest.recoveries {
            let text = format!(
                "another process recovered the store from the bucket after manifest {mine}, the last of \
                 this one, and has taken over: what was acked here since is nowhere else"
            );
            found.add("overtaken", newest.manifest.artifact().key(), text);
        } else if mine > end {
            let text = format!("the bucket's newest is {end}, this store published {mine}");
            found.add("manifest", published.manifest.artifact().key(), text);
        }
    }

    /// Whether it may be that the bucket has no manifest.
    pub(super) fn compare_none(&self, found: &mut Findings) {
        if let Some(published) = &self.published {
            let generation = published.manifest.generation;
            let text = format!("the bucket has none, this store published {generation}");
            found.add("manifest", published.manifest.artifact().key(), text);
        }
    }

    /// Those of the uploaded segments that the newest manifest does not name: nobody has looked at them
    /// yet.
    pub(super) fn unnamed<'a>(&'a self, named: &[Entry]) -> impl Iterator<Item = &'a SegmentRow> {
        let named: BTreeSet<SegmentId> = named.iter().map(|entry| entry.id).collect();
        self.uploaded.iter().filter(move |row| !named.contains(&row.id))
    }

    /// Whether the bucket's rows are those of the tables, if these show the same commits.
    pub(super) fn compare_all(
        &self,
        manifest: &Manifest,
        ledgers: &[Entry],
        shown: &[Change],
        found: &mut Findings,
    ) {
        // After a recovery, and while files wait for a manifest, the tables are ahead of it.
        let same = self.cut.is_some_and(|cut| cut.folded == manifest.folded)
            && ledgers.iter().map(|entry| entry.id).eq(self.ledgers.iter().copied());
        if !self.comparable || !same {
            return;
        }
        for change in shown {
            match self.rows.get(&change.key) {
                Some(row) if row == change => {}
                Some(_) => found.add("rows", &change.key, "the tables say something else"),
                None => found.add("rows", &change.key, "the tables do not have it"),
            }
        }
        let known: BTreeSet<&Key> = shown.iter().map(|it| &it.key).collect();
        for key in self.rows.keys().filter(|key| !known.contains(key)) {
            found.add("rows", key, "no ledger in the bucket has it");
        }
    }
}
