//! What a fork reads of the streams it draws on: one run of records after the other, each from
//! where it lies, the memory of its stream or segments. The forks in between cost nothing.

use std::sync::Arc;

use super::{gather::Gather, segments};
use crate::{
    core::Core,
    decide::create::Cut,
    history::Deadline,
    request::Error,
    state::view::Stream,
    types::{Ancestry, Chunk, Seq, StreamId, WallMs},
};

/// Goes on with a page whose next record is inherited, through the runs that lie in memory or, if
/// the first does not, through those that lie in segments.
pub(crate) async fn read(
    core: &Arc<Core>,
    fork: &Arc<Stream>,
    ancestry: &Arc<Ancestry>,
    mut gather: Gather,
) -> Result<Gather, Error> {
    let before = gather.next;
    while let Some(run) = ancestry.run_of(gather.next).filter(|_| !gather.is_done()) {
        let Some(source) = core.shelf.source(run.stream) else { break };
        let durable = source.durable.lock();
        if gather.next < durable.sealed {
            break;
        }
        let at = gather.next;
        gather.take_chunks(&durable.chunks, run.limit);
        if gather.next == at && !gather.is_done() {
            return Err(lost(fork, at));
        }
    }
    if gather.next > before || gather.is_done() {
        return Ok(within(fork, gather));
    }
    weir_io::sometimes!("a fork read its source's records out of segments");
    let gather = segments::read_runs(core, fork, ancestry, gather).await?;
    // A seal may have moved the records meanwhile, never away.
    if gather.next == before && !gather.is_done() {
        return Err(lost(fork, before));
    }
    Ok(within(fork, gather))
}

fn within(fork: &Stream, gather: Gather) -> Gather {
    let point = fork.identity.own_start();
    assert!(gather.next <= point, "INV-24 a fork shows nothing of its source past the point");
    gather
}

fn lost(fork: &Stream, seq: Seq) -> Error {
    Error::Corrupt(format!("record {seq}, inherited by '{}', is lost", fork.identity.name))
}

/// Where a position of a stream lies.
fn home(stream: &Stream, seq: Seq) -> StreamId {
    let run = stream.identity.fork.as_ref().and_then(|fork| fork.run_of(seq));
    run.map_or(stream.identity.id, |run| run.stream)
}

/// The record at a position before the durable tail, with its key and its timestamp.
async fn record(
    core: &Arc<Core>,
    stream: &Arc<Stream>,
    seq: Seq,
    deadline: Deadline,
) -> Result<Chunk, Error> {
    let home = home(stream, seq);
    let source = match home == stream.identity.id {
        true => Some(Arc::clone(stream)),
        false => core.shelf.source(home),
    };
    if let Some(source) = source
        && let Some(chunk) = source.durable.lock().chunk_of(seq)
    {
        return Ok(chunk);
    }
    segments::record(core, home, &stream.identity.name, seq, deadline).await
}

/// The record at a position, for a sub-offset to cut; `None` beyond the durable tail.
pub(crate) async fn cut(
    core: &Arc<Core>,
    stream: &Arc<Stream>,
    at: Seq,
) -> Result<Option<Cut>, Error> {
    if at >= stream.durable.lock().state.next {
        return Ok(None);
    }
    let Chunk { first, records, timestamp, key } =
        record(core, stream, at, Deadline::of_now()).await?;
    let index = usize::try_from(at.since(first)).expect("inside the chunk");
    let form = stream.identity.content.form();
    let range = records.ends.slice(index..index + 1, records.payload.len(), form);
    Ok(Some(Cut { at, record: records.payload.slice(range), key, timestamp }))
}

/// When the record at a position was appended.
pub(crate) async fn timestamp(
    core: &Arc<Core>,
    stream: &Arc<Stream>,
    seq: Seq,
) -> Result<WallMs, Error> {
    Ok(record(core, stream, seq, Deadline::of_now()).await?.timestamp)
}

/// The first inherited position from `earliest` on whose timestamp is not before `since`; the fork
/// point if there is none. Timestamps never decrease along a fork either, so halving finds it.
pub(crate) async fn since(
    core: &Arc<Core>,
    stream: &Arc<Stream>,
    earliest: Seq,
    since: WallMs,
    deadline: Deadline,
) -> Result<Seq, Error> {
    let (mut older, mut limit) = (earliest, stream.identity.own_start());
    while older < limit {
        let middle = Seq::new(older.get().midpoint(limit.get()));
        let found = record(core, stream, middle, deadline).await?;
        if found.timestamp < since { older = middle.after(1) } else { limit = middle }
    }
    Ok(older)
}
