//! What the tables of a store say, against what its bucket says.

use std::collections::BTreeSet;

use super::Findings;
use crate::{
    motion::publish::Stored,
    publish::{keys::Generation, listing::Entry},
    state::catalogue::SegmentRow,
    types::SegmentId,
};

/// What the tables of a store say, for a comparison with its bucket.
pub(super) struct Rows {
    pub(super) published: Option<Stored>,
    /// Nobody changed the tables when they were looked at, and they could be read.
    pub(super) comparable: bool,
    /// The segments that the bucket has, as the tables say: a read may need them.
    pub(super) uploaded: Vec<SegmentRow>,
}

impl Rows {
    pub(super) fn nothing() -> Self {
        Self { published: None, comparable: false, uploaded: Vec::new() }
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
}
