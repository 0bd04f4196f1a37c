//! What the next manifest says, and whether that is anything new.

use std::sync::atomic::Ordering;

use super::chain::Stored;
use crate::{
    core::Core,
    publish::{
        keys::{Digest, Generation, Nonce},
        listing::{Entry, Listing, Page, Presence},
        manifest::{Claim, Manifest},
    },
    state::{
        catalogue::{self, Place},
        files::{Held, Picture},
    },
    types::{SegmentId, StreamId},
};

/// What the next manifest says.
pub(super) fn draw(
    core: &Core,
    last: Option<&Stored>,
    picture: &Picture,
    (segments, ledgers): (&[Entry], &[Entry]),
) -> (Manifest, Vec<Page>) {
    let mut claim = [0; 16];
    core.world.entropy.fill(&mut claim);
    let (segments, mut pages) = Listing::assemble(segments);
    let (ledgers, more) = Listing::assemble(ledgers);
    pages.extend(more);
    let manifest = Manifest {
        store: core.store,
        generation: last.map_or(Generation::NONE, |last| last.manifest.generation).next(),
        before: last.map_or(Digest::NONE, |last| last.digest),
        claim: Claim(claim),
        writer_epoch: core.writer_epoch,
        created: core.now().wall,
        recoveries: core.recoveries,
        folded: picture.cut.folded,
        through: picture.cut.through,
        next_stream: StreamId::new(picture.cut.next_stream),
        next_subscription: picture.cut.next_subscription,
        next_segment: SegmentId::new(core.next_file.load(Ordering::Relaxed)),
        store_ms: picture.cut.store_ms,
        segments,
        ledgers,
    };
    (manifest, pages)
}

/// Whether a store recovered from either would be the same.
pub(super) fn shows_the_same(last: &Manifest, next: &Manifest) -> bool {
    (last.folded, last.through, last.recoveries) == (next.folded, next.through, next.recoveries)
        && last.segments == next.segments
        && last.ledgers == next.ledgers
}

pub(super) const fn presence(place: Place) -> Presence {
    match place {
        Place::Hole => Presence::Hole,
        Place::Local | Place::Bucket => Presence::Stored,
    }
}

/// What a manifest says of a segment.
pub(super) fn segment_entry(held: &Held) -> Entry {
    let footer = held.segment.footer();
    Entry {
        id: held.row.id,
        nonce: Nonce::new(held.row.nonce),
        bytes: held.row.bytes,
        mark: held.segment.mark(),
        first_lsn: footer.first_lsn,
        last_lsn: footer.last_lsn,
        records: footer.records,
        presence: presence(held.row.place),
    }
}

/// What it says of a ledger.
pub(super) fn ledger_entry(row: &catalogue::LedgerRow) -> Entry {
    Entry {
        id: row.id,
        nonce: Nonce::new(row.nonce),
        bytes: row.bytes,
        mark: row.mark,
        first_lsn: row.first_lsn,
        last_lsn: row.last_lsn,
        records: row.rows,
        presence: presence(row.place),
    }
}
