//! What is in the bucket, past all faults, and what must be: the whole of it is read and every rule
//! is asked again, then it is held beside what was there before and what the store says.

use std::time::Duration;

use weir_engine::{
    Engine,
    audit::{self, Newest},
    request::List,
    types::StoreMs,
};
use weir_io::memory::MemoryBucket;

use super::alone;
use crate::{
    checks::{self, Breach},
    require,
    world::{Host, Sim},
};

/// Findings that a report names.
const SHOWN_MAX: usize = 4;
/// Streams whose details are looked at.
const DETAILS_MAX: usize = 4;

/// Audits the bucket when the store has been running for so long.
///
/// # Errors
/// Something in it is wrong, or less than it was.
pub(crate) fn look(sim: &Sim, running: StoreMs) -> Result<Option<Newest>, Breach> {
    let newest = audited(sim.machine.bucket(), whole_since(sim, running))?;
    if let Some(newest) = &newest {
        went_on(sim, newest)?;
    }
    require!(
        newest.is_some() || sim.depot.seen.get() == 0,
        checks::CUT,
        "manifest {} was there, and there is none",
        sim.depot.seen.get()
    );
    Ok(newest)
}

/// Reads everything in a bucket. Manifests that others have followed since are whole too.
///
/// # Errors
/// Something in it is wrong.
pub(super) fn audited(
    bucket: &MemoryBucket,
    whole_since: StoreMs,
) -> Result<Option<Newest>, Breach> {
    let keys = bucket.keys();
    let audit = audit::bucket(&keys, &|key| bucket.peek(key), whole_since);
    if !audit.findings.is_empty() {
        let named = |key: &str| audit.newest.as_ref().is_none_or(|it| it.named.contains(key));
        // What only an older manifest misses was collected before its time.
        let early =
            audit.findings.iter().all(|it| it.what.starts_with("is missing") && !named(&it.object));
        let shown: Vec<String> =
            audit.findings.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
        let broken = if early { checks::COLLECTED } else { checks::CUT };
        return Breach::of(broken, shown.join("; "));
    }
    Ok(audit.newest)
}

/// Since when manifests are whole: for the grace period, in which the store runs.
fn whole_since(sim: &Sim, running: StoreMs) -> StoreMs {
    let grace = u64::try_from(sim.options.bucket.grace.as_millis()).unwrap_or(u64::MAX);
    StoreMs::new(running.get().saturating_sub(grace))
}

/// Nothing that was published is less than it was before.
fn went_on(sim: &Sim, newest: &Newest) -> Result<(), Breach> {
    let seen = sim.depot.seen.replace(newest.generation);
    require!(
        newest.generation >= seen,
        checks::CUT,
        "the newest manifest is {}, it was {seen}",
        newest.generation
    );
    let mut tails = sim.depot.tails.borrow_mut();
    let found = newest
        .streams
        .iter()
        .map(|stream| (stream.name.clone(), (stream.next.epoch.get(), stream.next.next.get())));
    let found: std::collections::BTreeMap<_, _> = found.collect();
    for (name, (epoch, next)) in &found {
        // A name that is made again has another epoch.
        if let Some((before, tail)) = tails.get(name)
            && before == epoch
        {
            require!(
                next >= tail,
                checks::CUT,
                "'{name}' {epoch} ends at {next} in manifest {}, it ended at {tail} before",
                newest.generation
            );
        }
    }
    *tails = found;
    Ok(())
}

/// Audits the bucket beside the running store: nothing is there that the store does not have
/// sealed, and the store is the only one who writes there.
///
/// # Errors
/// As [`look`], or the store has less than its bucket.
pub(crate) async fn beside(host: &Host) -> Result<(), Breach> {
    if !host.sim.options.bucket.there {
        return Ok(());
    }
    let Some(engine) = host.door.engine() else { return Ok(()) };
    alone(host)?;
    let running = engine.server_details().running;
    let Some(newest) = look(&host.sim, running)? else { return Ok(()) };
    let listing = host.door.list(List { limit: 1000, ..List::default() });
    let Ok(Ok(rows)) = tokio::time::timeout(Duration::from_secs(30), listing).await else {
        return Ok(());
    };
    host.sim.note(&format!(
        "manifest {} through {} has {} streams",
        newest.generation,
        newest.through,
        newest.streams.len()
    ));
    for stream in &newest.streams {
        let Some(row) = rows.iter().find(|row| row.head.name == stream.name) else { continue };
        if row.head.next.epoch != stream.next.epoch {
            continue;
        }
        let (published, sealed) = (stream.sealed.next, row.sealed_through.next);
        require!(
            published <= sealed,
            checks::UPLOADED,
            "'{}' is in the bucket through {published}, and sealed through {sealed}",
            stream.name
        );
        let (published, next) = (stream.next.next, row.head.next.next);
        require!(
            published <= next,
            checks::UPLOADED,
            "'{}' ends at {published} in the bucket, and at {next} in the store",
            stream.name
        );
    }
    in_order(&engine, &newest).await
}

/// What the store says itself of how far its streams are uploaded.
async fn in_order(engine: &Engine, newest: &Newest) -> Result<(), Breach> {
    for stream in newest.streams.iter().take(DETAILS_MAX) {
        let Ok(details) = engine.details(&stream.name).await else { continue };
        let (uploaded, sealed) = (details.uploaded.through, details.sealed.through.next);
        let next = details.head.next.next;
        require!(
            uploaded <= sealed && sealed <= next,
            checks::UPLOADED,
            "'{}' is uploaded through {uploaded}, sealed through {sealed}, and ends at {next}",
            stream.name
        );
    }
    Ok(())
}
