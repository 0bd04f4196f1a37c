//! Retention: finds how far streams may let go of their oldest records, and has the sequencer
//! commit it. What went is unreadable from then on; its bytes go with the next merge of their
//! segments.
//!
//! Each record that goes is looked at once, to know its bytes: the cost is that of reading it once.
//! Records that are damaged for good are passed by what the index says of them. What is read may
//! lie in the bucket: the trimmer keeps nobody waiting but other streams that are to be trimmed.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    core::Core,
    decide::retention::{self, Goal, Walk},
    history::Deadline,
    log::{entry::Trim, gate::Outcome},
    read::{inherited, segments},
    request::Error,
    state::{catalogue, kept::Kept, view::Stream},
    types::{Chunk, Seq, StoreMs, StreamName},
};

/// How often it is looked for streams to trim.
const ROUND: Duration = Duration::from_secs(1);
/// Streams looked at in one round.
const STREAMS_PER_ROUND: u32 = 1000;
/// When a stream that could not be read is looked at again.
const AGAIN_MS: u64 = 60_000;
/// Streams that could not be read of which that is remembered.
const UNREADABLE_MAX: usize = 10_000;

/// Trims until the store stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut trimmer = Trimmer::default();
    while !core.stopping.load(Ordering::Acquire) {
        trimmer.run(&core).await;
        tokio::time::sleep(ROUND).await;
    }
}

/// Who trims streams.
#[derive(Default)]
struct Trimmer {
    /// Streams that could not be read, and when to look again: others have their turn, and nobody
    /// is told of the same thing every second.
    unreadable: BTreeMap<StreamName, StoreMs>,
}

impl Trimmer {
    /// Trims every stream of which the catalogue says that it is time to look.
    async fn run(&mut self, core: &Arc<Core>) {
        let (now, wall) = (core.store_now(), core.now().wall);
        self.unreadable.retain(|_, again| *again > now);
        let limit = STREAMS_PER_ROUND
            .saturating_add(u32::try_from(self.unreadable.len()).unwrap_or(u32::MAX));
        let due = core.on_reader(move |conn| catalogue::due_for_trim(conn, wall, limit));
        let due: Vec<StreamName> = match due.await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "could not look for streams to trim");
                return;
            }
        };
        for name in due {
            if core.stopping.load(Ordering::Acquire) {
                return;
            }
            if self.unreadable.contains_key(&name) {
                continue;
            }
            match trim(core, &name).await {
                // What has ended meanwhile keeps nothing.
                Ok(()) | Err(Error::Rejected(_)) => {}
                Err(error @ (Error::Corrupt(_) | Error::Away(_) | Error::ReadFailed(_))) => {
                    tracing::warn!(stream = %name, %error, "what a stream keeps can't be told");
                    if self.unreadable.len() < UNREADABLE_MAX {
                        self.unreadable.insert(name, now.plus(AGAIN_MS));
                    }
                }
                Err(error) => {
                    tracing::debug!(stream = %name, %error, "not trimmed");
                    return;
                }
            }
        }
    }
}

/// Trims one stream if it is time.
async fn trim(core: &Arc<Core>, name: &StreamName) -> Result<(), Error> {
    let Some(stream) = core.visible(name).await? else { return Ok(()) };
    let own_start = stream.identity.own_start();
    let (kept, tail) = {
        let durable = stream.durable.lock();
        if durable.presence().is_err() {
            return Ok(());
        }
        (durable.state.kept.clone(), durable.state.next)
    };
    let Some(goal) = retention::goal(&kept, own_start, core.now()) else { return Ok(()) };
    let trim = find(core, &stream, goal, (&kept, tail)).await?;
    if trim.earliest == kept.earliest {
        return Ok(());
    }
    let Some(gate) = core.sequencer.trim(&stream, trim, (&kept, tail))? else { return Ok(()) };
    if gate.wait().await != Outcome::Durable {
        return Err(Error::Unknown);
    }
    core.metrics.trims.inc();
    tracing::debug!(stream = %name, earliest = %trim.earliest, bytes = trim.dropped, "trimmed");
    Ok(())
}

/// How far a stream that kept `kept` and ended at `tail` may be trimmed.
async fn find(
    core: &Arc<Core>,
    stream: &Arc<Stream>,
    goal: Goal,
    (kept, tail): (&Kept, Seq),
) -> Result<Trim, Error> {
    let own_start = stream.identity.own_start();
    if kept.earliest < own_start && !goal.inherited {
        let deadline = Deadline::of_now();
        let at = inherited::since(core, stream, kept.earliest, goal.older_than, deadline).await?;
        if at < own_start {
            let oldest = inherited::timestamp(core, stream, at).await?;
            let id = stream.identity.id;
            let head_bytes = kept.head_bytes;
            return Ok(Trim {
                stream: id,
                earliest: at,
                dropped: 0,
                oldest: Some(oldest),
                head_bytes,
            });
        }
    }
    let form = stream.identity.content.form();
    let mut walk = Walk::new(goal, form, kept.earliest.max(own_start));
    while !walk.is_over() && walk.at < tail {
        match in_memory(stream, walk.at)? {
            Some(chunks) => chunks.iter().for_each(|chunk| walk.pass(chunk)),
            None => walk = in_segments(core, stream, walk).await?,
        }
    }
    Ok(walk.trim(stream.identity.id, kept.bytes))
}

/// Goes on through a segment, or beyond what is damaged there.
async fn in_segments(core: &Arc<Core>, stream: &Arc<Stream>, walk: Walk) -> Result<Walk, Error> {
    let before = walk.at;
    let (walk, ended) = segments::walk(core, stream, walk).await?;
    match ended {
        Ok(()) => Ok(walk),
        // What was passed counts.
        Err(_) if walk.at > before => Ok(walk),
        Err(Error::Corrupt(damage)) => {
            weir_io::sometimes!("retention went by the index over damaged records");
            tracing::debug!(stream = %stream.identity.name, %damage, "trimmed by the index");
            segments::pass_damage(core, stream, walk).await
        }
        Err(error) => Err(error),
    }
}

/// The records from a position on, if they lie in memory.
fn in_memory(stream: &Stream, at: Seq) -> Result<Option<Vec<Chunk>>, Error> {
    let durable = stream.durable.lock();
    durable.presence()?;
    if at < durable.sealed {
        return Ok(None);
    }
    Ok(Some(durable.chunks.beyond(|chunk| chunk.limit() <= at).cloned().collect()))
}
