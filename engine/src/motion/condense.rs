//! Condensing: ledgers become fewer and smaller, so that all of them together stay within a bound
//! of what the catalogue has.
//!
//! ```text
//! oldest ████████████████ ████ ████ ██ █ █ █ newest
//!        └ the base        └ neighbours of one size become one
//! ```
//! Eight neighbours of which none outweighs the rest become one, whatever their size: so there is
//! a logarithmic number of them. When what lies above the base has half as many bytes or changes
//! as the base itself, or the base says much that is not true any more, all become one: so they
//! are at most some times as large as what they say.
//!
//! What lies behind the rows of a ledger, its tail, is replayed of the newest one alone. A merge
//! leaves out that of any other, and one that nothing merges in time is written anew without it:
//! what was deleted must not stay there (INV-30).
//!
//! Ledgers never change, so they are read without holding anybody up; only the moment in which the
//! new one takes the place of the old ones is a moment in which no fold may write another.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use super::{
    heal, ledgers,
    merge::{SMALL_BYTES_MAX, first_alike},
    seal::Failed,
};
use crate::{
    core::Core,
    ledger::{self, Below, Tail},
    log::commit,
    state::catalogue::{self, Failure, LedgerRow},
    types::{SegmentId, WallMs},
};

/// Changes in ledgers for each row of the catalogue at which all become one.
const CHANGES_PER_ROW_MAX: u64 = 4;

/// A ledger as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    bytes: u64,
    changes: u64,
}

/// Merges as long as something is to be merged. Whether anything was.
pub(super) async fn all(core: &Arc<Core>) -> Result<bool, Failed> {
    let mut merged = false;
    while !core.stopping.load(Ordering::Acquire) {
        let ledgers = core.files.lock().ledgers().to_vec();
        let readable = {
            let unreadable = core.unreadable.lock();
            !ledgers.iter().any(|row| unreadable.has(row.id))
        };
        // Where one lacks nobody knows what the others say; it is there again soon, or all rows
        // are written anew.
        if !readable {
            return Ok(merged);
        }
        let sizes: Vec<Size> =
            ledgers.iter().map(|row| Size { bytes: row.bytes, changes: row.rows }).collect();
        let chosen = match choose(&sizes) {
            Some(range) => Some(range),
            None => match stale(core, &sizes).await? {
                Some(range) => Some(range),
                None => overdue(core).map(|at| at..at + 1),
            },
        };
        let Some(range) = chosen else { return Ok(merged) };
        let below = if range.start == 0 { Below::Nothing } else { Below::Others };
        let inputs = &ledgers[range];
        match merge(core, inputs, below).await {
            Ok(true) => {
                weir_io::sometimes!("ledgers were merged");
                merged = true;
            }
            Ok(false) => {}
            Err(error) => {
                let bad = heal::blame_ledgers(core, inputs).await?;
                let are_live = are_live(core, inputs);
                if bad.is_empty() && are_live {
                    return Err(error);
                }
                for (row, error) in bad.iter().filter(|_| are_live) {
                    // One that the bucket has is here again at once, most often.
                    if heal::look_at_ledger(core, *row).await.is_err() {
                        heal::note(core, row.id, error);
                    }
                }
            }
        }
    }
    Ok(merged)
}

/// Which ledgers become one.
fn choose(ledgers: &[Size]) -> Option<Range<usize>> {
    let (base, above) = ledgers.split_first()?;
    let sum = |of: fn(&Size) -> u64| above.iter().map(of).sum::<u64>();
    let (bytes, changes) = (sum(|it| it.bytes), sum(|it| it.changes));
    let much = bytes > SMALL_BYTES_MAX && (bytes > base.bytes / 2 || changes > base.changes / 2);
    if much {
        weir_io::sometimes!("all ledgers became one");
        return Some(0..ledgers.len());
    }
    let sizes: Vec<u64> = ledgers.iter().map(|it| it.bytes).collect();
    first_alike(&sizes)
}

/// All ledgers, if they say much of what is there no more: a deletion is one change, whatever went
/// with it. The catalogue is counted no more than once for an eighth more of changes.
async fn stale(core: &Arc<Core>, ledgers: &[Size]) -> Result<Option<Range<usize>>, Failed> {
    let changes: u64 = ledgers.iter().map(|it| it.changes).sum();
    let bytes: u64 = ledgers.iter().map(|it| it.bytes).sum();
    if ledgers.len() < 2 || bytes <= 2 * SMALL_BYTES_MAX {
        return Ok(None);
    }
    let counted = core.ledgers_counted.load(Ordering::Relaxed);
    if changes >= counted && changes - counted < counted / 8 {
        return Ok(None);
    }
    let rows = core.on_reader(catalogue::count_rows).await?;
    core.ledgers_counted.store(changes, Ordering::Relaxed);
    Ok((changes > rows.saturating_mul(CHANGES_PER_ROW_MAX)).then_some(0..ledgers.len()))
}

/// Whether a ledger has a tail that nobody replays and that must go.
pub(super) async fn is_overdue(core: &Arc<Core>) -> bool {
    learn(core).await;
    overdue(core).is_some()
}

/// The first ledger behind whose rows commits lie that may have been deleted for as long as
/// anything may stay: a record can't have died before the commit that brought it. The newest
/// ledger's are needed; when something in them dies, the fold of that death makes a newer one.
fn overdue(core: &Core) -> Option<usize> {
    let within_ms = u64::try_from(core.config.erase_within.as_millis()).unwrap_or(u64::MAX);
    let now = core.now().wall;
    let files = core.files.lock();
    let (_, older) = files.ledgers().split_last()?;
    let tails = core.tails.lock();
    older.iter().position(|row| {
        let began = tails.get(&row.id).copied().flatten();
        began.is_some_and(|began| began.get().saturating_add(within_ms) <= now.get())
    })
}

/// Looks since when ledgers that are new have their tails. What can't be read is looked at again.
async fn learn(core: &Arc<Core>) {
    let live: Vec<SegmentId> = core.files.lock().ledgers().iter().map(|row| row.id).collect();
    let new: Vec<SegmentId> = {
        let mut tails = core.tails.lock();
        tails.retain(|id, _| live.contains(id));
        live.into_iter().filter(|id| !tails.contains_key(id)).collect()
    };
    if new.is_empty() {
        return;
    }
    let shared = Arc::clone(core);
    let read = weir_io::tasks::run(&*core.world.blocking, move || {
        new.into_iter().map(|id| (id, began(&shared, id))).collect::<Vec<_>>()
    });
    for (id, began) in read.await.unwrap_or_default() {
        match began {
            Ok(began) => drop(core.tails.lock().insert(id, began)),
            Err(error) => tracing::debug!(ledger = %id, %error, "its tail can't be read"),
        }
    }
}

/// When the first commit of a ledger's tail was made; `None`: it has no tail.
fn began(core: &Core, id: SegmentId) -> Result<Option<WallMs>, Failed> {
    let ledger = Arc::new(ledgers::open_file(core, id)?);
    let Some(first) = ledger.commits().next() else { return Ok(None) };
    let (_, bytes) = first.map_err(|lost| lost.error)?;
    let (header, _, _) = commit::open(&bytes).map_err(Failure::from)?;
    Ok(Some(header.wall))
}

/// Whether the ledgers are still in use.
fn are_live(core: &Core, inputs: &[LedgerRow]) -> bool {
    let files = core.files.lock();
    inputs.iter().all(|row| files.ledgers().iter().any(|it| it.id == row.id))
}

/// Puts one ledger in the place of some: false if a fold has put one in the place of all.
async fn merge(core: &Arc<Core>, inputs: &[LedgerRow], below: Below) -> Result<bool, Failed> {
    let (shared, rows) = (Arc::clone(core), inputs.to_vec());
    let newest = core.files.lock().ledgers().last().map(|row| row.id);
    let tail = if newest == inputs.last().map(|row| row.id) { Tail::Keep } else { Tail::Drop };
    if inputs.len() == 1 {
        weir_io::sometimes!("a ledger was written anew without its tail");
    }
    let new = weir_io::tasks::run(&*core.world.blocking, move || {
        let mut open = Vec::with_capacity(rows.len());
        for row in &rows {
            open.push(Arc::new(ledgers::open_file(&shared, row.id)?));
        }
        let range = (rows[0].first_lsn, rows[rows.len() - 1].last_lsn);
        let cut = || shared.stopping.load(Ordering::Acquire);
        ledgers::file(&shared, range, cut, |builder| {
            Ok(ledger::merge(&open, below, tail, builder)?)
        })
    });
    let new = new.await??;
    let _turn = core.sealing.lock().await;
    if !are_live(core, inputs) {
        weir_io::sometimes!("a fold wrote all rows while ledgers were merged");
        ledgers::remove_files(core, vec![new.id]).await;
        return Ok(false);
    }
    let old: Vec<LedgerRow> = inputs.to_vec();
    let stored = core.on_writer("merge ledgers", move |conn| -> Result<(), Failure> {
        let tx = conn.transaction()?;
        catalogue::put_ledger(&tx, &new)?;
        ledgers::drop_rows(&tx, &old)?;
        Ok(tx.commit()?)
    });
    if let Err(error) = stored.await? {
        ledgers::remove_refused(core, vec![new.id], &error).await;
        return Err(error.into());
    }
    let gone: Vec<SegmentId> = inputs.iter().map(|row| row.id).collect();
    core.files.lock().replace_ledgers(&gone, new);
    ledgers::remove_files(core, gone).await;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn size(bytes: u64) -> Size {
        Size { bytes, changes: bytes / 100 }
    }

    /// Merges as long as [`choose`] says so; each key is changed once in `live` bytes of them.
    fn settle(ledgers: &mut Vec<Size>, live: u64) -> u64 {
        let mut written = 0;
        while let Some(range) = choose(ledgers) {
            let bytes = ledgers[range.clone()].iter().map(|it| it.bytes).sum::<u64>().min(live);
            written += bytes;
            ledgers.splice(range, [size(bytes)]);
        }
        written
    }

    #[test]
    fn ledgers_of_any_size_stay_few_and_within_a_bound_of_what_is_there() {
        for (fold, live) in [(30 * MIB, 2000 * MIB), (MIB / 4, 500 * MIB), (2000, 400_000)] {
            let mut ledgers = Vec::new();
            let (mut written, mut added) = (0, 0);
            for _ in 0..5000 {
                ledgers.push(size(fold));
                added += fold;
                written += settle(&mut ledgers, live);
                let bytes: u64 = ledgers.iter().map(|it| it.bytes).sum();
                assert!(ledgers.len() <= 8 * 8, "{}", ledgers.len());
                assert!(bytes <= 2 * live + 2 * MIB, "{bytes} of {live}");
            }
            // Small ones are merged whatever lies beside them.
            assert!(live < SMALL_BYTES_MAX || written < 12 * added, "{written} of {added}");
        }
    }

    #[test]
    fn many_deletions_are_reason_enough_to_make_one_of_all() {
        let base = Size { bytes: 100 * MIB, changes: 1_000_000 };
        let deletions = Size { bytes: 2 * MIB, changes: 600_000 };
        assert_eq!(choose(&[base, deletions]), Some(0..2));
        let few = Size { changes: 400_000, ..deletions };
        assert_eq!(choose(&[base, few]), None);
    }
}
