//! Names, manifests, pages and rules.
//!
//! Here: a store's manifest and listings as they might be.

mod invariants;
mod keys;
mod manifest;

use bytes::Bytes;

use super::{
    keys::{Digest, Generation, Nonce},
    listing::{Entry, Listing, Page, Presence},
    manifest::{Claim, Manifest},
};
use crate::{
    log::commit::{Link, StoreId},
    types::{Lsn, SegmentId, StoreMs, StreamId, WallMs},
};

fn link(lsn: u64) -> Link {
    let crc = u32::try_from(lsn).unwrap().wrapping_mul(0x0101_0101);
    Link { lsn: Lsn::new(lsn), crc }
}

fn entry(id: u64, commits: (u64, u64)) -> Entry {
    Entry {
        id: SegmentId::new(id),
        nonce: Nonce::new(0x1122_3344_5566_7788),
        bytes: 1000 + id,
        mark: 0xdead_beef,
        first_lsn: Lsn::new(commits.0),
        last_lsn: Lsn::new(commits.1),
        records: 10 * id,
        presence: Presence::Stored,
    }
}

/// Three segments, one of them lost, and two ledgers.
fn listings() -> (Vec<Entry>, Vec<Entry>) {
    let lost = Entry { presence: Presence::Hole, ..entry(5, (7, 9)) };
    (vec![entry(2, (1, 6)), lost, entry(6, (8, 9))], vec![entry(3, (1, 6)), entry(7, (7, 9))])
}

fn manifest() -> Manifest {
    let (segments, ledgers) = listings();
    Manifest {
        store: StoreId(*b"0123456789abcdef"),
        generation: Generation::new(12),
        before: Digest::of(b"the one before"),
        claim: Claim([7; 16]),
        writer_epoch: 3,
        created: WallMs::new(1_700_000_000_000),
        recoveries: 1,
        folded: link(9),
        through: link(11),
        next_stream: StreamId::new(40),
        next_subscription: 5,
        next_segment: SegmentId::new(8),
        store_ms: StoreMs::new(75_000),
        segments: Listing::assemble(&segments).0,
        ledgers: Listing::assemble(&ledgers).0,
    }
}

/// More entries than two pages take.
fn many() -> Vec<Entry> {
    (1..=2 * 4096 + 5).map(|id| entry(id, (id, id))).collect()
}

/// Finds a page by its name, as a bucket does.
fn from<'a>(pages: &'a [Page]) -> impl Fn(&super::listing::PageRef) -> Option<Bytes> + 'a {
    |wanted| {
        let found = pages.iter().find(|page| page.reference.artifact() == wanted.artifact());
        found.map(|page| page.bytes.clone())
    }
}
