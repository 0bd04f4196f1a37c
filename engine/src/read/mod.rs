//! Reading: from a position to a page of records, out of segments and memory.
//!
//! A read takes what it plans with it (segments by reference count, records in memory as shared
//! bytes), so that a seal or a merge beside it can neither skip nor repeat a record.

pub(crate) mod gather;
pub(crate) mod inherited;
pub(crate) mod segments;
mod sight;

use std::sync::Arc;

use bytes::Bytes;
use weir_io::Sabotage;

use self::gather::Gather;
use crate::{
    core::Core,
    history::Deadline,
    request::{Error, From, Page, Rejection},
    state::{
        stream::Identity,
        view::{Durable, Stream},
    },
    types::{Chunk, Offset, Place, Seq, WallMs},
};

/// Payload bytes a keyed read may pass over in one page.
const SCAN_BYTES_MAX: usize = 16 << 20;

/// What limits a page.
pub(crate) struct Want {
    pub(crate) from: From,
    pub(crate) key: Option<Bytes>,
    pub(crate) bytes_max: usize,
}

/// Where a read begins, or why it has nothing to do.
enum Start {
    At(Seq),
    Beyond(Offset),
    /// The first record not before this, among those in segments.
    Search(WallMs),
}

/// Reads one page of one incarnation.
pub(crate) async fn page(
    core: &Arc<Core>,
    stream: &Arc<Stream>,
    want: Want,
) -> Result<Page, Error> {
    let form = stream.identity.content.form();
    let (start, earliest) = {
        let durable = stream.durable.lock();
        (begin(&durable, want.from)?, durable.state.kept.earliest)
    };
    let deadline = Deadline::of_now();
    let start = match start {
        Start::At(seq) => astray(core, stream, want.from, seq),
        Start::Beyond(offset) => return Ok(beyond(stream, offset)),
        Start::Search(since) => {
            let found = search(core, stream, earliest, since, deadline).await;
            let found = found.map_err(|error| unless_over(stream, earliest, error))?;
            belated(core, stream, found).max(earliest)
        }
    };
    let mut gather = Gather::new(form, want.key, want.bytes_max, SCAN_BYTES_MAX, start, deadline);
    loop {
        let inherited = stream.identity.fork.as_ref().filter(|fork| gather.next < fork.at);
        {
            let durable = stream.durable.lock();
            durable.presence()?;
            if inherited.is_none() && gather.next >= durable.sealed {
                gather.take_chunks(&durable.chunks, durable.state.next);
                return Ok(finish(stream, &durable, gather, start));
            }
            if gather.is_done() {
                return Ok(finish(stream, &durable, gather, start));
            }
        }
        let read = match inherited {
            Some(ancestry) => inherited::read(core, stream, ancestry, gather).await,
            None => {
                let Identity { id, name, .. } = &stream.identity;
                segments::read(core, *id, name, Seq::LAST, gather).await
            }
        };
        gather = read.map_err(|error| unless_over(stream, start, error))?;
    }
}

/// What a search found, unless a defect is planted that ends it one record late.
fn belated(core: &Core, stream: &Stream, found: Seq) -> Seq {
    match core.world.sabotage {
        Sabotage::SinceTooLate => found.after(1).min(stream.durable.lock().sealed).max(found),
        _ => found,
    }
}

/// Where a read begins, unless a defect is planted that lets it skip a record.
fn astray(core: &Core, stream: &Stream, from: From, start: Seq) -> Seq {
    let planted = core.world.sabotage == Sabotage::ReadsSkip && matches!(from, From::At(_));
    if planted && start < stream.durable.lock().state.next { start.after(1) } else { start }
}

/// Merges leave out the records of a stream that has ended and those it has let go of: a read that
/// was under way then finds none, and that is no damage.
fn unless_over(stream: &Stream, start: Seq, error: Error) -> Error {
    let durable = stream.durable.lock();
    match durable.presence() {
        Ok(()) if start < durable.state.kept.earliest => {
            weir_io::sometimes!("a read was overtaken by a trim and a merge");
            Rejection::OffsetTrimmed { next: durable.state.earliest() }.into()
        }
        Ok(()) => error,
        Err(absence) => absence.into(),
    }
}

/// The first record not before a moment, among those that are not in this stream's memory.
async fn search(
    core: &Arc<Core>,
    stream: &Arc<Stream>,
    earliest: Seq,
    since: WallMs,
    deadline: Deadline,
) -> Result<Seq, Error> {
    let own_start = stream.identity.own_start();
    if own_start > earliest {
        let found = inherited::since(core, stream, earliest, since, deadline).await?;
        if found < own_start {
            return Ok(found);
        }
    }
    segments::since(core, stream, since, deadline).await
}

fn begin(durable: &Durable, from: From) -> Result<Start, Error> {
    durable.presence()?;
    let state = &durable.state;
    match from {
        From::Start => Ok(Start::At(state.kept.earliest)),
        From::Now => Ok(Start::At(state.next)),
        From::At(offset) => match state.lineage.place(offset, state.next) {
            Place::At(seq) if seq < state.kept.earliest => {
                Err(Rejection::OffsetTrimmed { next: state.earliest() }.into())
            }
            Place::At(seq) => Ok(Start::At(seq)),
            Place::Beyond => Ok(Start::Beyond(offset)),
            Place::Lost(next) => {
                let next = next.max(state.kept.earliest);
                Err(Rejection::OffsetLost { next: state.lineage.offset(next) }.into())
            }
        },
        From::Since(since) => Ok(begin_since(durable, since)),
    }
}

/// Timestamps never decrease, so if the first record in memory is older than `since`, everything
/// in segments is too.
fn begin_since(durable: &Durable, since: WallMs) -> Start {
    let is_older = |chunk: &Chunk| chunk.timestamp < since;
    if durable.sealed > Seq::ZERO && !durable.chunks.oldest().is_some_and(is_older) {
        return Start::Search(since);
    }
    let found = durable.chunks.beyond(is_older).next();
    let found = found.map_or(durable.state.next, |chunk| chunk.first);
    Start::At(found.max(durable.state.kept.earliest))
}

fn finish(stream: &Stream, durable: &Durable, gather: Gather, start: Seq) -> Page {
    let state = &durable.state;
    assert!(gather.next <= state.next, "INV-2 nothing beyond the durable tail is served");
    let up_to_date = gather.next == state.next;
    let (next, records) = (gather.next, gather.records);
    let scanned = next.since(start);
    let all = records == scanned || (gather.is_keyed() && records < scanned);
    assert!(
        all,
        "INV-17 a keyed read equals a scan: no record twice, and none left out but by key"
    );
    let (pieces, bytes) = gather.into_pieces();
    Page {
        content: stream.identity.content.clone(),
        expiry: stream.identity.expiry,
        retention: state.kept.retention,
        start: state.lineage.offset(start),
        next: state.lineage.offset(next),
        tail: state.tail(),
        up_to_date,
        closed: up_to_date && state.closed.is_some(),
        beyond_tail: false,
        pieces,
        bytes,
        records,
        incarnation: stream.identity.id.get(),
    }
}

/// Nothing, and the position as it was asked for.
fn beyond(stream: &Stream, offset: Offset) -> Page {
    let (tail, retention) = {
        let state = &stream.durable.lock().state;
        (state.tail(), state.kept.retention)
    };
    Page {
        content: stream.identity.content.clone(),
        expiry: stream.identity.expiry,
        retention,
        start: offset,
        next: offset,
        tail,
        up_to_date: false,
        closed: false,
        beyond_tail: true,
        pieces: Vec::new(),
        bytes: 0,
        records: 0,
        incarnation: stream.identity.id.get(),
    }
}
