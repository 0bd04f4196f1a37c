//! Brings blocks from the bucket: once for all who wait, verified, and put back into the local copy.
//!
//! Whoever needs a block first flies for it; the others wait for the landing. If the one who flies
//! goes away, one of them flies next: nothing here outlives the requests that asked for it. An
//! answer that does not verify is asked for again: bytes that are the same twice are what the
//! bucket has, others were spoiled on the way.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{SemaphorePermit, watch};
use weir_io::{objects::ObjectError, retry::Retrying};

use super::{
    Cold, FETCH_BYTES_MAX, FETCH_BYTES_MIN, FETCH_TURN_MAX, History,
    budget::{Room, put_back},
};
use crate::{
    core::Core,
    request::Error,
    segment::{Block, BlockNo, Damaged, Segment},
    types::SegmentId,
};

/// Answers that are asked for until two agree or one verifies.
const ANSWERS_MAX: usize = 4;

/// Blocks that came from the bucket.
pub(super) type Landed = Arc<[(BlockNo, Arc<Block>)]>;

type Outcome = Result<Landed, Failed>;

/// Why blocks could not be brought, for everybody who waits.
#[derive(Clone, Debug)]
pub(super) enum Failed {
    /// The bucket has other bytes than were uploaded, or none.
    Corrupt(String),
    /// The bucket did not answer; it may yet.
    Unanswered(String),
    /// The process is going down.
    Gone,
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Corrupt(what) => Self::Corrupt(what),
            Failed::Unanswered(what) => Self::Away(what),
            Failed::Gone => Self::Draining,
        }
    }
}

/// Who is on the way for what.
#[derive(Default)]
pub(super) struct Flights {
    under_way: Mutex<BTreeMap<SegmentId, Vec<Flight>>>,
}

struct Flight {
    blocks: Range<BlockNo>,
    landing: watch::Receiver<Option<Outcome>>,
}

/// A place in a flight.
enum Seat<'a> {
    Passenger(watch::Receiver<Option<Outcome>>),
    Pilot(Pilot<'a>),
}

/// The one who flies. Dropping it ends the flight, landed or not.
struct Pilot<'a> {
    flights: &'a Flights,
    segment: SegmentId,
    blocks: Range<BlockNo>,
    landing: watch::Sender<Option<Outcome>>,
}

impl Drop for Pilot<'_> {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way.lock();
        if let Some(flights) = under_way.get_mut(&self.segment) {
            flights.retain(|flight| flight.blocks != self.blocks);
            if flights.is_empty() {
                under_way.remove(&self.segment);
            }
        }
    }
}

impl Flights {
    /// Joins the flight that brings the first block, or begins one that brings nothing which
    /// another flight brings.
    fn board(&self, segment: SegmentId, blocks: &Range<BlockNo>) -> Seat<'_> {
        let mut under_way = self.under_way.lock();
        let flights = under_way.entry(segment).or_default();
        if let Some(flight) = flights.iter().find(|flight| flight.blocks.contains(&blocks.start)) {
            return Seat::Passenger(flight.landing.clone());
        }
        let later = flights.iter().map(|flight| flight.blocks.start);
        let limit = later.filter(|start| *start > blocks.start).min();
        let blocks = blocks.start..limit.map_or(blocks.end, |limit| limit.min(blocks.end));
        let (landing, receiver) = watch::channel(None);
        flights.push(Flight { blocks: blocks.clone(), landing: receiver });
        Seat::Pilot(Pilot { flights: self, segment, blocks, landing })
    }
}

impl History {
    /// Waits until so many bytes may be asked for. The larger an answer, the fewer at once.
    pub(super) async fn turn(&self, bytes: u64) -> Result<SemaphorePermit<'_>, Failed> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let kib = bytes.clamp(FETCH_BYTES_MIN, FETCH_BYTES_MAX) >> 10;
        let kib = u32::try_from(kib).expect("64 MiB are 65,536 KiB");
        let turn = tokio::time::timeout(FETCH_TURN_MAX, self.room.acquire_many(kib));
        match turn.await {
            Ok(permit) => permit.map_err(|_| Failed::Gone),
            Err(_) => {
                weir_io::sometimes!("a fetch did not get its turn");
                Err(Failed::Unanswered("too many reads wait for the bucket".to_owned()))
            }
        }
    }
}

/// Brings at least the first of these blocks.
///
/// # Errors
/// [`Error::Corrupt`]: the bucket's bytes of the first block do not verify either, or the object is
/// gone. [`Error::Away`]: the bucket did not answer; the next read asks again.
pub(crate) async fn bring(core: &Arc<Core>, cold: Cold) -> Result<Landed, Error> {
    let Cold { segment, blocks } = cold;
    let needed = blocks.start;
    loop {
        match core.history.flights.board(segment.id(), &blocks) {
            Seat::Passenger(mut landing) => {
                weir_io::sometimes!("a reader waited for a block that another one fetches");
                // An error: who flew went away. Then one of those who waited flies.
                let Ok(landed) = landing.wait_for(Option::is_some).await.map(|it| it.clone())
                else {
                    continue;
                };
                let landed = landed.expect("waited for")?;
                if landed.iter().any(|(no, _)| *no == needed) {
                    return Ok(landed);
                }
            }
            Seat::Pilot(pilot) => {
                // A flight may have landed since this reader saw that it needs the block.
                if let Some(block) = core.blocks.get(segment.id(), needed) {
                    return Ok([(needed, block)].into());
                }
                let landed = fly(core, &segment, pilot.blocks.clone()).await;
                if landed.is_err() {
                    core.metrics.fetches_failed.inc();
                }
                pilot.landing.send_replace(Some(landed.clone()));
                return Ok(landed?);
            }
        }
    }
}

async fn fly(core: &Arc<Core>, segment: &Arc<Segment>, blocks: Range<BlockNo>) -> Outcome {
    let Some(bucket) = &core.bucket else {
        return Err(Failed::Corrupt(format!("segment {} has no object", segment.id())));
    };
    fetch(core, &bucket.reading, segment, blocks, Room::Limited).await
}

/// Asks for a stretch of blocks until the first of them verifies.
pub(super) async fn fetch(
    core: &Arc<Core>,
    bucket: &Retrying,
    segment: &Arc<Segment>,
    mut blocks: Range<BlockNo>,
    room: Room,
) -> Outcome {
    let mut landed = Vec::new();
    let mut spoiled: Option<Bytes> = None;
    for _ in 0..ANSWERS_MAX {
        let answer = ask(core, bucket, segment, &blocks).await?;
        let span = segment.span(&blocks);
        if length(&answer) != span.end - span.start {
            weir_io::sometimes!("the bucket's answer was cut short");
            continue;
        }
        let arrival = land(core, segment, &blocks, answer, room).await?;
        landed.extend(arrival.blocks);
        let Some((damaged, bytes)) = arrival.first else {
            return Ok(landed.into());
        };
        if spoiled.as_ref() == Some(&bytes) {
            weir_io::sometimes!("an object was found damaged");
            let (id, key) = (segment.id(), key(segment));
            tracing::error!(segment = %id, %key, %damaged, "an object is damaged");
            return Err(Failed::Corrupt(format!("segment {id}, object {key}: {damaged}")));
        }
        weir_io::sometimes!("the bucket's answer was spoiled on the way");
        spoiled = Some(bytes);
        blocks = blocks.start..blocks.start.next();
    }
    Err(Failed::Unanswered(format!("object {}: every answer was another one", key(segment))))
}

async fn ask(
    core: &Core,
    bucket: &Retrying,
    segment: &Segment,
    blocks: &Range<BlockNo>,
) -> Result<Bytes, Failed> {
    let Some(remote) = segment.remote() else {
        return Err(Failed::Corrupt(format!("segment {} has no object", segment.id())));
    };
    let span = segment.span(blocks);
    let _turn = core.history.turn(span.end - span.start).await?;
    core.metrics.fetches.inc();
    let answer = bucket.get_range(&remote.key, span).await.map_err(|error| match error {
        ObjectError::NotFound => {
            tracing::error!(segment = %segment.id(), key = %remote.key, "an object is gone");
            Failed::Corrupt(format!("object {} is not in the bucket", remote.key))
        }
        error => Failed::Unanswered(format!("object {}: {error}", remote.key)),
    })?;
    core.metrics.fetched_bytes.inc_by(length(&answer));
    Ok(answer)
}

/// What was in an answer.
struct Arrival {
    blocks: Vec<(BlockNo, Arc<Block>)>,
    /// What is wrong with the first one, and its bytes.
    first: Option<(Damaged, Bytes)>,
}

/// Verifies the blocks of an answer, keeps them in memory and puts them back.
async fn land(
    core: &Arc<Core>,
    segment: &Arc<Segment>,
    blocks: &Range<BlockNo>,
    answer: Bytes,
    room: Room,
) -> Result<Arrival, Failed> {
    let (shared, segment, blocks) = (Arc::clone(core), Arc::clone(segment), blocks.clone());
    let landing = weir_io::tasks::run(&*core.world.blocking, move || {
        let start = segment.span(&blocks).start;
        let mut arrival = Arrival { blocks: Vec::new(), first: None };
        let mut verified = Vec::new();
        let mut no = blocks.start;
        while no < blocks.end {
            let span = segment.span(&(no..no.next()));
            let index = |at: u64| usize::try_from(at - start).expect("inside the answer");
            // Copied: a block that is kept must not keep the whole answer.
            let stored = Bytes::copy_from_slice(&answer[index(span.start)..index(span.end)]);
            match segment.decode(no, &stored) {
                Ok(block) => {
                    let block = Arc::new(block);
                    // What is fetched for a merge is read once.
                    if room == Room::Limited {
                        shared.blocks.put(segment.id(), no, Arc::clone(&block));
                    }
                    arrival.blocks.push((no, block));
                    verified.push((no, stored));
                }
                Err(damaged) if no == blocks.start => arrival.first = Some((damaged, stored)),
                // Whoever needs it asks for it by itself.
                Err(_) => {}
            }
            no = no.next();
        }
        let count = u64::try_from(verified.len()).expect("usize fits u64");
        shared.metrics.fetched_blocks.inc_by(count);
        put_back(&shared, &segment, &verified, room);
        arrival
    });
    landing.await.map_err(|_| Failed::Gone)
}

fn key(segment: &Segment) -> String {
    segment.remote().map_or_else(String::new, |remote| remote.key.to_string())
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("usize fits u64")
}
