//! The tail of a manifest: commits that its rows may already show, as they lie in the log. They
//! must lead from *folded* to *through*, each naming the one before.

use std::sync::Arc;

use crate::{
    ledger::Ledger,
    log::{commit, entry},
    publish::manifest::Manifest,
};

/// Says what is wrong with the tail in the newest ledger.
pub(crate) fn check(newest: &Arc<Ledger>, manifest: &Manifest) -> Result<(), String> {
    let mut link = manifest.folded;
    for found in newest.commits() {
        let (lsn, bytes) = found.map_err(|lost| lost.to_string())?;
        let (header, next, body) =
            commit::open(&bytes).map_err(|bad| format!("commit {lsn}: {bad}"))?;
        if header.store != manifest.store || header.lsn != lsn || header.before != link {
            return Err(format!("commit {lsn} does not follow commit {}", link.lsn));
        }
        let entries = entry::decode_all(body).map_err(|bad| format!("commit {lsn}: {bad}"))?;
        if u32::try_from(entries.len()) != Ok(header.entries) {
            return Err(format!("commit {lsn} has another number of entries than it says"));
        }
        link = next;
    }
    if link == manifest.through {
        return Ok(());
    }
    Err(format!("it ends with commit {}", link.lsn))
}
