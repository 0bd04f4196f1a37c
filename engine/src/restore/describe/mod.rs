//! Stored things in readable form: what they say of themselves, what is in them, and what is wrong
//! with them, item by item.
//!
//! Never fails: what can't be read is said so, and what lies before it is shown. No length in a
//! file is believed before the bytes it speaks of were found to be there. Knows nothing of how
//! items are written down.

mod item;
mod log;
mod rows;
mod unpublished;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use weir_io::{World, sqlite::Role};

use self::{
    item::{Batch, Whose, hex, mark, number, records, text},
    log::{Commits, Known},
};
pub use self::{
    item::{Each, Field, Flow, Item, Rank, Value},
    unpublished::unpublished,
};
use super::window::Window;
use crate::{
    ledger::{Change, Ledger, Op, Row, Source},
    log::commit::Link,
    publish::{
        listing::{Entry, Listing, Page, Presence},
        manifest::Manifest,
    },
    segment::{Part, Segment},
    state::catalogue::{self, Failure},
    types::{Lsn, Seq, StreamId},
};

/// Kinds of stored things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// Records of streams.
    Segment,
    /// Rows of streams, producers and subscriptions.
    Ledger,
    /// What a store was at one moment.
    Manifest,
    /// A part of a manifest's listing.
    Page,
    /// A group of entries of the log.
    Commit,
}

impl Thing {
    /// What these bytes are, by how they begin.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.get(..8)? {
            b"WEIRSEG1" => Some(Self::Segment),
            b"WEIRROW1" => Some(Self::Ledger),
            b"WEIRMANI" => Some(Self::Manifest),
            b"WEIRPAGE" => Some(Self::Page),
            b"WEIRLOG1" => Some(Self::Commit),
            _ => None,
        }
    }
}

/// Shows a segment, ledger, manifest, page or commit by its bytes.
pub fn describe(bytes: &Bytes, each: Each<'_>) -> Flow {
    match Thing::of(bytes) {
        Some(Thing::Segment) => segment(bytes, each),
        Some(Thing::Ledger) => ledger(bytes, each),
        Some(Thing::Manifest) => manifest(bytes, each),
        Some(Thing::Page) => page(bytes, each),
        Some(Thing::Commit) => Commits::new(&|_| None).commit(bytes, each),
        None => each(Item::damage(
            format!("{} bytes", bytes.len()),
            "they begin like nothing that a store or its bucket has",
        )),
    }
}

/// Shows the commits in the log of a store, by the path of its database.
pub fn describe_log(world: &World, path: &Path, each: Each<'_>) -> Flow {
    let conn = match world.sqlite.open(path, Role::Looker) {
        Ok(conn) => conn,
        Err(error) => return each(Item::damage(path.display().to_string(), error)),
    };
    each(Item::head("log", vec![("database", text(path.display().to_string()))]))?;
    let find = |id| find_stream(&conn, id);
    let mut commits = Commits::new(&find);
    let mut flow = Flow::Continue(());
    let scanned = catalogue::scan_log(&conn, Lsn::ZERO, |_, bytes| {
        flow = commits.commit(&Bytes::from(bytes), each);
        if flow.is_break() { Err(enough()) } else { Ok(()) }
    });
    flow?;
    match scanned {
        Ok(()) => Flow::Continue(()),
        Err(error) => each(Item::damage(format!("the log in {}", path.display()), error)),
    }
}

/// Ends a look through a table; nobody sees it.
fn enough() -> Failure {
    Failure::Damaged("enough was seen".into())
}

/// A stream in the tables, if it is there and can be read.
fn find_stream(conn: &rusqlite::Connection, id: StreamId) -> Option<Known> {
    let before = StreamId::new(id.get().checked_sub(1)?);
    let mut found = None;
    let scanned = catalogue::scan_streams_after(conn, before, 1, |row| {
        let identity = row.identity;
        if identity.id == id {
            found = Some(Known { form: identity.content.form(), name: identity.name });
        }
        Ok(())
    });
    scanned.ok().and(found)
}

fn segment(bytes: &Bytes, each: Each<'_>) -> Flow {
    let (segment, wrong) = match Segment::salvage(Arc::new(Window::whole(bytes.clone()))) {
        Ok(opened) => opened,
        Err(bad) => return each(Item::damage("a segment", bad)),
    };
    let footer = segment.footer();
    each(Item::head(
        "segment",
        vec![
            ("segment", number(segment.id().get())),
            ("store", hex(&segment.store())),
            ("first_commit", number(footer.first_lsn.get())),
            ("last_commit", number(footer.last_lsn.get())),
            ("records", number(footer.records)),
            ("streams", number(footer.streams)),
            ("bytes", number(footer.file_bytes())),
            ("raw_bytes", number(footer.raw_bytes)),
            ("oldest_ms", number(footer.oldest.get())),
            ("newest_ms", number(footer.newest.get())),
            ("mark", mark(footer.mark())),
        ],
    ))?;
    if let Some(wrong) = wrong {
        each(Item::damage("a segment", wrong))?;
    }
    for no in segment.blocks() {
        match segment.block(no) {
            Ok(block) => {
                block.parts().iter().try_for_each(|it| part(it, None, Seq::ZERO, each))?;
            }
            Err(bad) => each(Item::damage(format!("block {}", no.index()), bad))?,
        }
    }
    Flow::Continue(())
}

/// The records of a part from a position on.
fn part(part: &Part, name: Option<&str>, from: Seq, each: Each<'_>) -> Flow {
    let whose = Whose { stream: part.stream(), name };
    for chunk in part.chunks(from.max(part.first())..part.limit()) {
        let (first, timestamp) = (chunk.first, chunk.timestamp);
        let batch = Batch { first, records: &chunk.records, timestamp, key: chunk.key.as_ref() };
        records(whose, batch, first, Some(part.form()), each)?;
    }
    Flow::Continue(())
}

fn ledger(bytes: &Bytes, each: Each<'_>) -> Flow {
    let ledger = match Ledger::open(Source::Memory(bytes.clone())) {
        Ok(ledger) => Arc::new(ledger),
        Err(bad) => return each(Item::damage("a ledger", bad)),
    };
    let footer = ledger.footer();
    each(Item::head(
        "ledger",
        vec![
            ("ledger", number(ledger.id().get())),
            ("store", hex(&ledger.store().0)),
            ("first_commit", number(footer.first_lsn.get())),
            ("last_commit", number(footer.last_lsn.get())),
            ("rows", number(footer.rows)),
            ("deletions", number(footer.deletions)),
            ("tail_commits", number(footer.commits)),
            ("bytes", number(footer.file_bytes())),
            ("raw_bytes", number(footer.raw_bytes)),
            ("mark", mark(footer.mark())),
        ],
    ))?;
    // Whose records the commits of the tail have; nobody asks without a tail.
    let mut streams = BTreeMap::new();
    for change in ledger.rows() {
        match change {
            Ok(change) => {
                if footer.commits > 0
                    && let Ok(Some(Row::Stream(row))) = Row::decode(&change)
                {
                    let (name, form) = (row.identity.name, row.identity.content.form());
                    streams.insert(row.identity.id, Known { name, form });
                }
                each(row(&change))?;
            }
            Err(lost) => each(Item::damage(lost.to_string(), &lost.error))?,
        }
    }
    let find = |id| streams.get(&id).cloned();
    let mut commits = Commits::new(&find);
    for found in ledger.commits() {
        match found {
            Ok((_, bytes)) => commits.commit(&bytes, each)?,
            Err(lost) => each(Item::damage(lost.to_string(), &lost.error))?,
        }
    }
    Flow::Continue(())
}

fn row(change: &Change) -> Item {
    let named =
        |does: &'static str| vec![("does", text(does)), ("row", text(change.key.to_string()))];
    match &change.op {
        Op::DeleteBelow => Item::entry("row", named("delete-below")),
        Op::Delete => Item::entry("row", named("delete")),
        Op::Put(_) => match Row::decode(change) {
            Ok(row) => {
                let mut fields = named("put");
                fields.extend(row.iter().flat_map(rows::row));
                Item::entry("row", fields)
            }
            Err(bad) => Item::damage(format!("the row of {}", change.key), bad),
        },
    }
}

fn manifest(bytes: &Bytes, each: Each<'_>) -> Flow {
    let manifest = match Manifest::decode(bytes) {
        Ok(manifest) => manifest,
        Err(bad) => return each(Item::damage("a manifest", bad)),
    };
    let Link { lsn: folded, crc: folded_crc } = manifest.folded;
    let Link { lsn: through, crc: through_crc } = manifest.through;
    each(Item::head(
        "manifest",
        vec![
            ("generation", number(manifest.generation.get())),
            ("store", hex(&manifest.store.0)),
            ("follows", text(manifest.before.to_string())),
            ("claim", hex(&manifest.claim.0)),
            ("writer_epoch", number(manifest.writer_epoch)),
            ("created_ms", number(manifest.created.get())),
            ("recoveries", number(manifest.recoveries)),
            ("folded", number(folded.get())),
            ("folded_mark", mark(folded_crc)),
            ("through", number(through.get())),
            ("through_mark", mark(through_crc)),
            ("next_stream", number(manifest.next_stream.get())),
            ("next_subscription", number(manifest.next_subscription)),
            ("next_file", number(manifest.next_segment.get())),
            ("store_ms", number(manifest.store_ms.get())),
            ("segments", number(manifest.segments.count())),
            ("ledgers", number(manifest.ledgers.count())),
        ],
    ))?;
    listing("segment", &manifest.segments, |it| it.segment().key().to_string(), each)?;
    listing("ledger", &manifest.ledgers, |it| it.ledger().key().to_string(), each)
}

fn listing(
    what: &'static str,
    listing: &Listing,
    name: impl Fn(&Entry) -> String,
    each: Each<'_>,
) -> Flow {
    for page in &listing.pages {
        let key = text(page.artifact().key().to_string());
        let entries = number(u64::from(page.entries));
        each(Item::entry("page", vec![("of", text(what)), ("object", key), ("entries", entries)]))?;
    }
    listing.rest.iter().try_for_each(|it| each(entry(what, name(it), it)))
}

fn page(bytes: &Bytes, each: Each<'_>) -> Flow {
    let entries = match Page::decode(bytes) {
        Ok(entries) => entries,
        Err(bad) => return each(Item::damage("a page", bad)),
    };
    let count = u64::try_from(entries.len()).expect("usize fits u64");
    each(Item::head("page", vec![("entries", number(count))]))?;
    entries.iter().try_for_each(|it| {
        // Segments and ledgers look alike here.
        let name = format!("{:016x}-{:016x}", it.id.get(), it.nonce.get());
        each(entry("file", name, it))
    })
}

fn entry(what: &'static str, name: String, entry: &Entry) -> Item {
    Item::entry(
        what,
        vec![
            ("object", text(name)),
            ("first_commit", number(entry.first_lsn.get())),
            ("last_commit", number(entry.last_lsn.get())),
            ("entries", number(entry.records)),
            ("bytes", number(entry.bytes)),
            ("mark", mark(entry.mark)),
            ("hole", Value::Flag(entry.presence == Presence::Hole)),
        ],
    )
}
