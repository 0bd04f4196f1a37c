//! The tail of a manifest: commits that its rows may already show, as they lie in the log. They
//! must lead from *folded* to *through*, each naming the one before.

use std::sync::Arc;

use crate::{
    ledger::Ledger,
    log::{
        commit::{self, Link},
        entry,
    },
    publish::manifest::Manifest,
    types::Lsn,
};

/// How far the commits of a tail lead.
pub(crate) struct Follow<'a> {
    manifest: &'a Manifest,
    link: Link,
    /// What is wrong with the first that does not follow.
    wrong: Option<String>,
}

impl<'a> Follow<'a> {
    pub(crate) const fn new(manifest: &'a Manifest) -> Self {
        Self { manifest, link: manifest.folded, wrong: None }
    }

    /// Takes the next commit.
    pub(crate) fn take(&mut self, lsn: Lsn, bytes: &bytes::Bytes) {
        if self.wrong.is_none() {
            match self.next(lsn, bytes) {
                Ok(link) => self.link = link,
                Err(what) => self.wrong = Some(what),
            }
        }
    }

    fn next(&self, lsn: Lsn, bytes: &bytes::Bytes) -> Result<Link, String> {
        let (header, next, body) =
            commit::open(bytes).map_err(|bad| format!("commit {lsn}: {bad}"))?;
        if (header.store, header.lsn) != (self.manifest.store, lsn) || header.before != self.link {
            return Err(format!("commit {lsn} does not follow commit {}", self.link.lsn));
        }
        let entries = entry::decode_all(body).map_err(|bad| format!("commit {lsn}: {bad}"))?;
        if u32::try_from(entries.len()) != Ok(header.entries) {
            return Err(format!("commit {lsn} has another number of entries than it says"));
        }
        Ok(next)
    }

    /// Says what is wrong, if they do not lead to the manifest's last.
    pub(crate) fn end(self) -> Result<(), String> {
        match self.wrong {
            Some(what) => Err(what),
            None if self.link == self.manifest.through => Ok(()),
            None => Err(format!("it ends with commit {}", self.link.lsn)),
        }
    }
}

/// Says what is wrong with the tail in the newest ledger.
pub(super) fn check(newest: &Arc<Ledger>, manifest: &Manifest) -> Result<(), String> {
    let mut follow = Follow::new(manifest);
    for found in newest.commits() {
        let (lsn, bytes) = found.map_err(|lost| lost.to_string())?;
        follow.take(lsn, &bytes);
    }
    follow.end()
}
