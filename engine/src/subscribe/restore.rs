//! Subscriptions at start: the rows of the catalogue first, then the log above `folded_through`,
//! entry by entry, through the same functions as when it was written.
//!
//! A crash may leave rows ahead of the fold. Such a row has the entries up to its lsn in it, and
//! those are skipped. A row that the cut-off fold removed can't say so, but needs not: whatever
//! took a link away (an ack, an end, an unlinking) follows in the log after what made it, so
//! going over both ends where it ended before. A subscription made above `folded_through` comes to
//! be when its entry is met, row or not: writes before it must not touch its links.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use rusqlite::Connection;

use super::{
    entry::{Entry, Number},
    registry::Registry,
    request::Subscribe,
    subscription::Subscription,
};
use crate::{
    state::catalogue::{self, Failure},
    types::{Lsn, WallMs},
};

/// Subscriptions while the log is replayed.
pub(crate) struct Restore {
    registry: Registry,
    /// Rows ahead of the fold whose creation is yet to be met.
    early: BTreeMap<Number, Arc<Subscription>>,
    /// Named by entries but nowhere: a fold that was cut short has removed them, so each of their
    /// ends must follow in the log.
    orphans: BTreeSet<Number>,
}

impl Restore {
    /// Reads the rows.
    pub(crate) fn load(conn: &Connection, folded: Lsn) -> Result<Self, Failure> {
        let next_number = catalogue::meta_u64(conn, "next_subscription")?.max(1);
        let mut rows = BTreeMap::new();
        catalogue::scan_subscriptions(conn, |row| {
            let subscription = Subscription::new(row.number, row.config, row.created);
            let mut durable = subscription.durable.lock();
            durable.born = row.born;
            durable.control = row.control;
            if row.lsn > folded {
                weir_io::sometimes!("replay met a subscription row ahead of the fold");
                durable.reflected.row = row.lsn;
            }
            drop(durable);
            rows.insert(row.number, Arc::new(subscription));
            Ok(())
        })?;
        catalogue::scan_links(conn, |row| {
            let Some(subscription) = rows.get(&row.number) else {
                let text = format!("a link of subscription {}, which is nowhere", row.number);
                return Err(Failure::Damaged(text));
            };
            let mut durable = subscription.durable.lock();
            if row.lsn > folded {
                durable.reflected.links.insert(row.path.clone(), row.lsn);
            }
            durable.links.put(row.path, row.link);
            Ok(())
        })?;
        let registry = Registry::new(next_number);
        let mut early = BTreeMap::new();
        for (number, subscription) in rows {
            let born = subscription.durable.lock().born;
            if born > folded {
                early.insert(number, subscription);
                continue;
            }
            registry.restore(&subscription);
        }
        Ok(Self { registry, early, orphans: BTreeSet::new() })
    }

    /// Folds an entry in.
    pub(crate) fn entry(&mut self, entry: &Entry, lsn: Lsn) -> Result<(), Failure> {
        let number = entry.number();
        let next = &self.registry.next_number;
        next.fetch_max(number.get() + 1, Ordering::Relaxed);
        let subscription = match entry {
            Entry::Subscribe { config, created, .. } => {
                self.orphans.remove(&number);
                let early = self.early.remove(&number);
                early.unwrap_or_else(|| Self::made(number, config, *created))
            }
            _ => match self.registry.by_number(number) {
                Some(subscription) => subscription,
                None => {
                    weir_io::sometimes!(
                        "replay met a subscription that a cut-off fold had removed"
                    );
                    match entry {
                        Entry::Unsubscribe { .. } => {
                            self.orphans.remove(&number);
                            self.registry.unfolded.lock().burials.push(number);
                        }
                        _ => drop(self.orphans.insert(number)),
                    }
                    return Ok(());
                }
            },
        };
        if let Entry::Control { control, .. } = entry {
            let durable = subscription.durable.lock();
            let ahead = lsn <= durable.reflected.row;
            if !ahead && control.generation < durable.control.generation {
                return Err(Failure::Damaged(format!(
                    "log commit {lsn}: subscription {number} falls back to generation {}",
                    control.generation
                )));
            }
        }
        self.registry.apply(&subscription, entry, lsn);
        Ok(())
    }

    fn made(number: Number, config: &Arc<Subscribe>, created: WallMs) -> Arc<Subscription> {
        Arc::new(Subscription::new(number, Arc::clone(config), created))
    }

    /// The registry, for what is written to streams.
    pub(crate) const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The end of the log.
    pub(crate) fn finish(self) -> Result<Registry, Failure> {
        if let Some(number) = self.orphans.first() {
            let text = format!("the log names subscription {number}, which is nowhere");
            return Err(Failure::Damaged(text));
        }
        if let Some((number, _)) = self.early.first_key_value() {
            let text = format!("subscription {number} is ahead of a log that does not make it");
            return Err(Failure::Damaged(text));
        }
        self.registry.replayed();
        Ok(self.registry)
    }
}
