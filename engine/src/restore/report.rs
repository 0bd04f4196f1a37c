//! What a bootstrap restored, and everything that it could not.

use std::{fmt, path::PathBuf};

use super::{find::Choice, search::CHAIN};
use crate::types::WallMs;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What should hold, in a word or two that never change.
    pub rule: &'static str,
    /// The object, file or row.
    pub object: String,
    /// What is wrong with it, and what that costs.
    pub text: String,
}

impl Finding {
    pub(crate) fn new(
        rule: &'static str,
        object: impl fmt::Display,
        text: impl Into<String>,
    ) -> Self {
        Self { rule, object: object.to_string(), text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.rule, self.object, self.text)
    }
}

/// A file that was lost before it was published: the manifest says so itself.
pub(super) const HOLE: &str = "hole";
/// A cursor was beyond what was restored.
pub(super) const CURSOR: &str = "cursor";

/// What a bootstrap restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The manifest it was restored from.
    pub generation: u64,
    /// When that was made.
    pub created: WallMs,
    /// The last commit in it.
    pub through: u64,
    /// The manifest that claims the bucket; 0 if nothing was claimed.
    pub claimed: u64,
    /// How many bootstraps the store has behind it.
    pub recoveries: u32,
    /// How many streams there are; 0 if nothing was restored.
    pub streams: u64,
    /// How many segments the manifest names.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// How many ledgers the manifest names.
    pub ledgers: u64,
    /// Their bytes.
    pub ledger_bytes: u64,
    /// The oldest manifest that could be restored instead.
    pub oldest: u64,
    /// The newest one.
    pub newest: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// Where the store is now that was there before.
    pub set_aside: Option<PathBuf>,
}

impl Report {
    pub(super) fn of(choice: &Choice) -> Self {
        let manifest = &choice.chosen.manifest;
        let bytes = |entries: &[crate::publish::listing::Entry]| {
            entries.iter().map(|entry| entry.bytes).sum()
        };
        Self {
            generation: manifest.generation.get(),
            created: manifest.created,
            through: manifest.through.lsn.get(),
            claimed: 0,
            recoveries: manifest.recoveries,
            streams: 0,
            segments: manifest.segments.count(),
            segment_bytes: bytes(&choice.segments),
            ledgers: manifest.ledgers.count(),
            ledger_bytes: bytes(&choice.ledgers),
            oldest: choice.oldest.get(),
            newest: choice.newest.manifest.generation.get(),
            findings: choice.findings.clone(),
            set_aside: None,
        }
    }

    /// What the manifest names and can't be restored. What was lost before it was published, cursors
    /// that were put back, and manifests that nobody asked for are none of it.
    pub fn losses(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|it| ![HOLE, CURSOR, CHAIN].contains(&it.rule))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "manifest     {} (commit {})", self.generation, self.through)?;
        writeln!(f, "segments     {}, {} bytes", self.segments, self.segment_bytes)?;
        writeln!(f, "ledgers      {}, {} bytes", self.ledgers, self.ledger_bytes)?;
        writeln!(f, "restorable   manifests {} to {}", self.oldest, self.newest)?;
        if self.claimed > 0 {
            writeln!(f, "claimed      manifest {}", self.claimed)?;
            writeln!(f, "recoveries   {}", self.recoveries)?;
            writeln!(f, "streams      {}", self.streams)?;
        }
        if let Some(path) = &self.set_aside {
            writeln!(f, "set aside    {}", path.display())?;
        }
        writeln!(f, "problems     {}", self.findings.len())?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))
    }
}
