//! The claim: the next manifest of the chain, which says what the restored one said and that a
//! bootstrap lies between. Whoever was the writer finds its slot taken. If the end of the chain can't
//! be read, it counts as one that has seen as many bootstraps as it may have.

use weir_io::{Sabotage, World, retry::Retrying};

use super::{RestoreError, find::Choice};
use crate::{
    motion::publish::{self, Problem, Stored},
    publish::manifest::{Claim, Manifest},
    types::{SegmentId, WallMs},
};

/// Bootstraps that a chain can see: epochs have 16 bits for their count.
const RECOVERIES_MAX: u32 = (1 << 16) - 1;

/// How a claim ended.
pub(super) enum Claimed {
    /// The slot is ours.
    Mine(Box<Stored>),
    /// The old writer was there first: what it published is to be restored instead.
    Taken,
}

/// Takes the slot after the end of the chain. `next_segment`: no file of a lower number is made anew.
pub(super) async fn claim(
    world: &World,
    bucket: &Retrying,
    choice: &Choice,
    next_segment: SegmentId,
) -> Result<Claimed, RestoreError> {
    let mine = Stored::new(draw(world, choice, next_segment)?);
    let key = mine.manifest.artifact().key();
    if world.sabotage == Sabotage::NotClaimed {
        return Ok(Claimed::Mine(Box::new(mine)));
    }
    let created = bucket.create(&key, &mine.bytes.clone().into()).await.map_err(Problem::from)?;
    if created == weir_io::retry::Outcome::Created {
        return Ok(Claimed::Mine(Box::new(mine)));
    }
    let found = publish::read(bucket, mine.manifest.generation).await?;
    if found.bytes == mine.bytes {
        weir_io::sometimes!(
            "a bootstrap's claim was found to be its own after its answer was lost"
        );
        return Ok(Claimed::Mine(Box::new(mine)));
    }
    if !choice.end.recoveries.contains(&found.manifest.recoveries) {
        weir_io::sometimes!("a bootstrap lost the race with another one");
        return Err(RestoreError::Raced(format!(
            "another process is recovering from this bucket and has claimed manifest {}",
            found.manifest.generation
        )));
    }
    Ok(Claimed::Taken)
}

/// What the claim says. Numbers never fall back behind what was ever published, even if it is an
/// older manifest that is restored; subscriptions are numbered by eras, as their wakes are.
fn draw(world: &World, choice: &Choice, next_segment: SegmentId) -> Result<Manifest, RestoreError> {
    let (newest, chosen) = (&choice.newest.manifest, &choice.chosen.manifest);
    let recoveries = choice.end.recoveries.end().checked_add(1).filter(|it| *it <= RECOVERIES_MAX);
    let recoveries = recoveries.ok_or_else(|| {
        RestoreError::Foreign(format!("{RECOVERIES_MAX} bootstraps of one chain are the most"))
    })?;
    let mut claim = [0; 16];
    world.entropy.fill(&mut claim);
    let era = era_floor(recoveries);
    Ok(Manifest {
        generation: choice.end.generation.next(),
        before: choice.end.digest,
        claim: Claim(claim),
        writer_epoch: chosen.writer_epoch.max(newest.writer_epoch),
        created: WallMs::new(world.clock.wall_ms()),
        recoveries,
        next_stream: chosen.next_stream.max(newest.next_stream),
        next_subscription: chosen.next_subscription.max(newest.next_subscription).max(era),
        next_segment: next_segment.max(chosen.next_segment).max(newest.next_segment),
        ..chosen.clone()
    })
}

/// The first number of an era, of subscriptions and of a subscription's wakes: above every one
/// that was used before that bootstrap, published or not. A JSON number holds it exactly.
pub(super) fn era_floor(recoveries: u32) -> u64 {
    const _: () = assert!((RECOVERIES_MAX as u64) << 32 < 1 << 53);
    u64::from(recoveries) << 32
}
