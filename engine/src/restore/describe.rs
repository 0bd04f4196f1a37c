//! Stored things in readable form: what they say of themselves, and what is wrong with them.
//!
//! Never fails: what can't be read is said so, and what lies before it is shown.

use std::{
    fmt::{self, Write as _},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use weir_io::{World, sqlite::Role};

use super::window::Window;
use crate::{
    ledger::{Change, Ledger, Op, Source},
    log::{
        commit::{self, Link},
        entry,
    },
    publish::{
        listing::{Entry, Listing, Page, Presence},
        manifest::Manifest,
    },
    segment::Segment,
    state::catalogue,
    types::Lsn,
};

/// Items of one kind that are shown.
const SHOWN_MAX: usize = 10_000;

/// Shows a segment, ledger, manifest, page or commit by its bytes.
#[must_use]
pub fn describe(bytes: &Bytes) -> String {
    let mut out = String::new();
    let written = match bytes.get(..8) {
        Some(b"WEIRSEG1") => segment(&mut out, bytes),
        Some(b"WEIRROW1") => ledger(&mut out, bytes),
        Some(b"WEIRMANI") => manifest(&mut out, bytes),
        Some(b"WEIRPAGE") => page(&mut out, bytes),
        Some(b"WEIRLOG1") => self::commit(&mut out, bytes),
        Some(b"SQLite f") => writeln!(out, "an SQLite database: it is looked at as a log"),
        _ => writeln!(out, "nothing that a store or its bucket has: {} bytes", bytes.len()),
    };
    written.expect("a string takes everything");
    out
}

/// Shows the commits in the log of a store, by the path of its database.
#[must_use]
pub fn describe_log(world: &World, path: &Path) -> String {
    let mut out = String::new();
    let conn = match world.sqlite.open(path, Role::Looker) {
        Ok(conn) => conn,
        Err(error) => return format!("{}: {error}\n", path.display()),
    };
    let mut shown = 0;
    let scanned = catalogue::scan_log(&conn, Lsn::ZERO, |_, bytes| {
        shown += 1;
        if shown <= SHOWN_MAX {
            self::commit(&mut out, &Bytes::from(bytes)).expect("a string takes everything");
        }
        Ok(())
    });
    let end = match scanned {
        Ok(()) => format!("{shown} commits\n"),
        Err(error) => format!("not readable: {error}\n"),
    };
    out + &end
}

fn segment(out: &mut String, bytes: &Bytes) -> fmt::Result {
    let segment = match Segment::open(Arc::new(Window::whole(bytes.clone()))) {
        Ok(segment) => segment,
        Err(bad) => return writeln!(out, "a segment: {bad}"),
    };
    let footer = segment.footer();
    writeln!(out, "segment      {}", segment.id())?;
    writeln!(out, "store        {}", hex(&segment.store()))?;
    writeln!(out, "commits      {} to {}", footer.first_lsn, footer.last_lsn)?;
    writeln!(out, "records      {} of {} streams", footer.records, footer.streams)?;
    writeln!(out, "bytes        {} ({} raw)", footer.file_bytes(), footer.raw_bytes)?;
    writeln!(out, "timestamps   {} to {}", footer.oldest, footer.newest)?;
    writeln!(out, "mark         {:08x}", footer.mark())?;
    for no in segment.blocks().take(SHOWN_MAX) {
        match segment.block(no) {
            Ok(block) => {
                writeln!(out, "block        {no:?}")?;
                for part in block.parts() {
                    let (first, limit) = (part.first(), part.limit());
                    writeln!(out, "  stream {} records {first} to {limit}", part.stream())?;
                }
            }
            Err(bad) => writeln!(out, "block        {no:?}: {bad}")?,
        }
    }
    Ok(())
}

fn ledger(out: &mut String, bytes: &Bytes) -> fmt::Result {
    let ledger = match Ledger::open(Source::Memory(bytes.clone())) {
        Ok(ledger) => Arc::new(ledger),
        Err(bad) => return writeln!(out, "a ledger: {bad}"),
    };
    let footer = ledger.footer();
    writeln!(out, "ledger       {}", ledger.id())?;
    writeln!(out, "store        {}", hex(&ledger.store().0))?;
    writeln!(out, "commits      {} to {}", footer.first_lsn, footer.last_lsn)?;
    writeln!(out, "rows         {}, of which {} delete", footer.rows, footer.deletions)?;
    writeln!(out, "tail         {} commits", footer.commits)?;
    writeln!(out, "bytes        {} ({} raw)", footer.file_bytes(), footer.raw_bytes)?;
    writeln!(out, "mark         {:08x}", footer.mark())?;
    for change in ledger.rows().take(SHOWN_MAX) {
        match change {
            Ok(change) => row(out, &change)?,
            Err(lost) => writeln!(out, "{lost}: {}", lost.error)?,
        }
    }
    for found in ledger.commits().take(SHOWN_MAX) {
        match found {
            Ok((_, bytes)) => self::commit(out, &bytes)?,
            Err(lost) => writeln!(out, "{lost}: {}", lost.error)?,
        }
    }
    Ok(())
}

fn row(out: &mut String, change: &Change) -> fmt::Result {
    match &change.op {
        Op::DeleteBelow => writeln!(out, "- {} and below", change.key),
        Op::Delete => writeln!(out, "- {}", change.key),
        Op::Put(_) => match crate::ledger::Row::decode(change) {
            Ok(Some(row)) => writeln!(out, "+ {}: {row:?}", change.key),
            Ok(None) => Ok(()),
            Err(bad) => writeln!(out, "+ {}: {bad}", change.key),
        },
    }
}

fn manifest(out: &mut String, bytes: &Bytes) -> fmt::Result {
    let manifest = match Manifest::decode(bytes) {
        Ok(manifest) => manifest,
        Err(bad) => return writeln!(out, "a manifest: {bad}"),
    };
    let link = |link: Link| format!("commit {} ({:08x})", link.lsn, link.crc);
    writeln!(out, "manifest     {}", manifest.generation)?;
    writeln!(out, "store        {}", hex(&manifest.store.0))?;
    writeln!(out, "follows      {}", manifest.before)?;
    writeln!(out, "claim        {}", hex(&manifest.claim.0))?;
    writeln!(out, "writer epoch {}", manifest.writer_epoch)?;
    writeln!(out, "created      {} ms", manifest.created)?;
    writeln!(out, "recoveries   {}", manifest.recoveries)?;
    writeln!(out, "folded       {}", link(manifest.folded))?;
    writeln!(out, "through      {}", link(manifest.through))?;
    writeln!(
        out,
        "next         stream {}, subscription {}, file {}",
        manifest.next_stream, manifest.next_subscription, manifest.next_segment
    )?;
    writeln!(out, "store time   {} ms", manifest.store_ms)?;
    listing(out, "segments", &manifest.segments, |entry| entry.segment().key().to_string())?;
    listing(out, "ledgers", &manifest.ledgers, |entry| entry.ledger().key().to_string())
}

fn listing(
    out: &mut String,
    what: &str,
    listing: &Listing,
    name: impl Fn(&Entry) -> String,
) -> fmt::Result {
    writeln!(out, "{what:<12} {}", listing.count())?;
    for page in &listing.pages {
        writeln!(out, "  {} ({} entries)", page.artifact().key(), page.entries)?;
    }
    listing.rest.iter().try_for_each(|entry| self::entry(out, &name(entry), entry))
}

fn page(out: &mut String, bytes: &Bytes) -> fmt::Result {
    match Page::decode(bytes) {
        Ok(entries) => {
            writeln!(out, "page         {} entries", entries.len())?;
            entries.iter().try_for_each(|entry| {
                // Segments and ledgers look alike here.
                let name = format!("{:016x}-{:016x}", entry.id.get(), entry.nonce.get());
                self::entry(out, &name, entry)
            })
        }
        Err(bad) => writeln!(out, "a page: {bad}"),
    }
}

fn entry(out: &mut String, name: &str, entry: &Entry) -> fmt::Result {
    let Entry { bytes, mark, first_lsn, last_lsn, records, presence, .. } = entry;
    let hole = if *presence == Presence::Hole { ", a hole" } else { "" };
    writeln!(
        out,
        "  {name}: commits {first_lsn} to {last_lsn}, {records} entries, {bytes} bytes, mark \
         {mark:08x}{hole}"
    )
}

fn commit(out: &mut String, bytes: &Bytes) -> fmt::Result {
    let (header, link, body) = match commit::open(bytes) {
        Ok(opened) => opened,
        Err(bad) => return writeln!(out, "a commit: {bad}"),
    };
    writeln!(
        out,
        "commit {} ({:08x}) after {} ({:08x}), writer {}, wall {} ms, store time {} ms",
        link.lsn,
        link.crc,
        header.before.lsn,
        header.before.crc,
        header.writer_epoch,
        header.wall,
        header.store_ms
    )?;
    match entry::decode_all(body) {
        Ok(entries) => entries.iter().try_for_each(|entry| writeln!(out, "  {}", brief(entry))),
        Err(bad) => writeln!(out, "  {bad}"),
    }
}

/// An entry without its records.
fn brief(entry: &entry::Entry) -> String {
    match entry {
        entry::Entry::Create(create) => {
            let fork = create.fork.as_ref().map_or_else(String::new, |fork| {
                format!(", fork of stream {} at {}", fork.source, fork.at)
            });
            format!("create stream {} '{}'{fork}", create.stream, create.name)
        }
        entry::Entry::Write(write) => {
            let count = write.records.as_ref().map_or(0, crate::types::Records::count);
            let bytes = write.records.as_ref().map_or(0, |records| records.payload.len());
            let closes = if write.closes { ", closes" } else { "" };
            let producer = write.producer.as_ref().map_or_else(String::new, |it| {
                format!(", producer '{}' {}/{}", it.id.as_str(), it.epoch, it.seq)
            });
            let first = write.first;
            format!(
                "write stream {} at {first}: {count} records, {bytes} bytes{producer}{closes}",
                write.stream
            )
        }
        entry::Entry::Delete(delete) => {
            format!("delete stream {} '{}' ({:?})", delete.stream, delete.name, delete.why)
        }
        entry::Entry::Renew { stream, deadline } => {
            format!("renew stream {stream} until {deadline} ms")
        }
        entry::Entry::Trim(trim) => {
            let entry::Trim { stream, earliest, dropped, .. } = trim;
            format!("trim stream {stream} to {earliest}: {dropped} bytes go")
        }
        entry::Entry::Retain { stream, retention } => {
            format!("limit stream {stream} ({retention:?})")
        }
        entry::Entry::Retire { stream, why } => format!("retire stream {stream} ({why:?})"),
        entry::Entry::Subscription(entry) => format!("subscription: {entry:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes it");
        text
    })
}
