//! Blocks for code that must not wait: it runs where blocking is allowed, sees memory and local
//! copies, and says so when it needs a block that only the bucket has. Then it is run again with
//! that block in its hands, so a cache of any size will do.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    core::Core,
    history::{self, Cold, Deadline, Purpose},
    request::Error,
    segment::{Block, BlockNo, ReadError, Segment},
    types::SegmentId,
};

/// What reading code sees of segments.
pub(super) struct Sight<'a> {
    pub(super) core: &'a Core,
    brought: &'a Brought,
}

/// Blocks that were brought for one read, and what is wrong with those that can't be. It keeps them to
/// its end: a page has them all in it.
type Brought = BTreeMap<(SegmentId, BlockNo), Result<Arc<Block>, String>>;

/// Why reading code ended early.
pub(super) enum Stop {
    /// It must be run again with these blocks.
    Cold(Cold),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Sight<'_> {
    /// A block, from memory or from the local copy.
    pub(super) fn block(
        &self,
        segment: &Arc<Segment>,
        no: BlockNo,
        purpose: Purpose,
    ) -> Result<Arc<Block>, Stop> {
        let core = self.core;
        core.metrics.blocks_asked.inc();
        if let Some(brought) = self.brought.get(&(segment.id(), no)) {
            return brought.clone().map_err(|damaged| Error::Corrupt(damaged).into());
        }
        segment.touch(core.history.now());
        if let Some(block) = core.blocks.get(segment.id(), no) {
            core.metrics.blocks_hit.inc();
            return Ok(block);
        }
        let error = match core.blocks.block(segment, no) {
            Ok(block) => return Ok(block),
            Err(error) => error,
        };
        if core.bucket.is_none() || segment.remote().is_none() {
            return Err(Stop::Failed(read_error(segment, &error)));
        }
        if segment.is_whole() {
            weir_io::sometimes!("a damaged local block was fetched from the bucket");
            tracing::warn!(segment = %segment.id(), %error, "a local block is fetched again");
        }
        Err(Stop::Cold(history::plan(core, segment, no, purpose)))
    }
}

/// Runs reading code, and runs it again as often as it needs a block from the bucket, until its
/// deadline. A block that is damaged there too is an error where the code asks for it.
pub(super) async fn ask<R: Send + 'static>(
    core: &Arc<Core>,
    deadline: Deadline,
    job: impl Fn(&Sight<'_>) -> Result<R, Stop> + Send + 'static,
) -> Result<R, Error> {
    work(core, deadline, (), move |sight, ()| job(sight)).await?.1
}

/// As [`ask`], for code that goes on where it was when it is run again: `state` is what it has
/// done, and is returned however it ends.
pub(super) async fn work<S: Send + 'static, R: Send + 'static>(
    core: &Arc<Core>,
    deadline: Deadline,
    mut state: S,
    mut job: impl Fn(&Sight<'_>, &mut S) -> Result<R, Stop> + Send + 'static,
) -> Result<(S, Result<R, Error>), Error> {
    let mut brought = Brought::new();
    loop {
        let shared = Arc::clone(core);
        let ran = weir_io::tasks::run(&*core.world.blocking, move || {
            let result = job(&Sight { core: &shared, brought: &brought }, &mut state);
            (result, state, job, brought)
        });
        let result;
        (result, state, job, brought) = ran.await.map_err(|_| Error::Draining)?;
        let cold = match result {
            Ok(result) => return Ok((state, Ok(result))),
            Err(Stop::Failed(error)) => return Ok((state, Err(error))),
            Err(Stop::Cold(cold)) => cold,
        };
        let (id, first, bytes) = (cold.segment.id(), cold.blocks.start, cold.first_bytes());
        match deadline.wait(bytes, history::bring(core, cold)).await {
            Ok(blocks) => {
                brought.extend(blocks.iter().map(|(no, it)| ((id, *no), Ok(Arc::clone(it)))));
            }
            // Merged meanwhile, and perhaps collected: the records are elsewhere now.
            Err(_) if !core.segments.load().has(id) => {}
            // What is looked for may lie in another one: that is for the job to know.
            Err(Error::Corrupt(damaged)) => drop(brought.insert((id, first), Err(damaged))),
            Err(error) => return Ok((state, Err(error))),
        }
    }
}

fn read_error(segment: &Segment, error: &ReadError) -> Error {
    match error {
        ReadError::Damaged(damaged) => {
            Error::Corrupt(format!("segment {}: {damaged}", segment.id()))
        }
        ReadError::Failed { source, .. } => {
            Error::ReadFailed(format!("segment {}: {error}: {source}", segment.id()))
        }
    }
}
