//! Subscriptions in a fold: rows of what changed, and the removal of what is deleted.
//!
//! Rows are read and written in the writer's lane, between two commits: so each shows whole
//! commits, and says by its lsn which. What changes after the batch was taken is on the next
//! list too.

use std::{collections::BTreeSet, sync::Arc};

use super::{entry::Number, registry::Registry, rows, subscription::Subscription};
use crate::{
    core::Core,
    motion::{
        fold::{Step, in_slices},
        seal::Failed,
    },
    state::catalogue,
    types::StreamName,
};

/// Links of a deleted subscription removed in one slice.
const LINKS_PER_SLICE: usize = 256;

/// What one fold writes.
#[derive(Clone, Default)]
pub(crate) struct Batch {
    changed: Vec<Changed>,
    burials: Vec<Number>,
}

#[derive(Clone)]
struct Changed {
    subscription: Arc<Subscription>,
    row: bool,
    links: BTreeSet<StreamName>,
}

impl Batch {
    /// The subscriptions whose rows it writes, and, with a path, those of links.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (Number, Option<&StreamName>)> {
        self.changed.iter().flat_map(|Changed { subscription, row, links }| {
            let number = subscription.number;
            let own = row.then_some((number, None));
            own.into_iter().chain(links.iter().map(move |path| (number, Some(path))))
        })
    }

    /// The subscriptions it removes with their links.
    pub(crate) fn burials(&self) -> &[Number] {
        &self.burials
    }
}

impl Registry {
    /// Takes the list of what changed. Called between two commits.
    pub(crate) fn freeze(&self) -> Batch {
        let mut unfolded = self.unfolded.lock();
        let subscriptions = std::mem::take(&mut unfolded.subscriptions);
        let burials = std::mem::take(&mut unfolded.burials);
        drop(unfolded);
        let changed = subscriptions.into_iter().map(|subscription| {
            let dirty = std::mem::take(&mut subscription.durable.lock().unfolded);
            Changed { subscription, row: dirty.row, links: dirty.links }
        });
        Batch { changed: changed.collect(), burials }
    }

    /// Puts everything back.
    pub(crate) fn thaw(&self, batch: Batch) {
        let mut unfolded = self.unfolded.lock();
        let newer = std::mem::replace(&mut unfolded.burials, batch.burials);
        unfolded.burials.extend(newer);
        drop(unfolded);
        for Changed { subscription, row, links } in batch.changed {
            let mut durable = subscription.durable.lock();
            durable.unfolded.row |= row;
            durable.unfolded.links.extend(links);
            self.list(&subscription, &mut durable);
        }
    }

    /// Whether a fold has something to write.
    pub(crate) fn has_unfolded(&self) -> bool {
        let unfolded = self.unfolded.lock();
        !unfolded.subscriptions.is_empty() || !unfolded.burials.is_empty()
    }
}

/// Writes a batch.
pub(crate) async fn run(core: &Arc<Core>, batch: &Batch) -> Result<(), Failed> {
    let burials: Arc<[Number]> = batch.burials.as_slice().into();
    in_slices(core, "subscription burials", burials.len(), move |tx, index| {
        let number = burials[index];
        // The links of one subscription can be many: some at a time, the subscription last.
        if catalogue::drop_links(tx, number, LINKS_PER_SLICE)? == LINKS_PER_SLICE {
            return Ok(Step::Again);
        }
        catalogue::drop_subscription(tx, number)?;
        Ok(Step::Next)
    })
    .await?;
    let mut rows: Vec<(Arc<Subscription>, Option<StreamName>)> = Vec::new();
    for Changed { subscription, row, links } in &batch.changed {
        if *row {
            rows.push((Arc::clone(subscription), None));
        }
        rows.extend(links.iter().map(|path| (Arc::clone(subscription), Some(path.clone()))));
    }
    let shared = Arc::clone(core);
    in_slices(core, "subscriptions", rows.len(), move |tx, index| {
        let (subscription, path) = &rows[index];
        let lsn = shared.durable_link().lsn;
        let durable = subscription.durable.lock();
        // A deleted one is buried by this fold or the next.
        if durable.gone {
            return Ok(Step::Next);
        }
        let number = subscription.number;
        match path {
            Some(path) => catalogue::put_link(tx, number, path, durable.links.get(path), lsn)?,
            None => {
                let config = &subscription.config;
                let body = rows::encode_subscription(
                    config,
                    subscription.created,
                    durable.born,
                    &durable.control,
                );
                catalogue::put_subscription(tx, number, &config.id, lsn, &body)?;
            }
        }
        Ok(Step::Next)
    })
    .await
}
