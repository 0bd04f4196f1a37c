//! When to look at which subscription. One that has work and no wake is due at once, so every
//! change of a subscription ends with a visit here and no wake is lost (INV-28).

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    control::Out,
    entry::Number,
    subscription::{Durable, Subscription},
};
use crate::types::StoreMs;

/// Subscriptions by the moment of the next look, each at most once.
#[derive(Default)]
pub(crate) struct Calendar {
    looks: Mutex<BTreeMap<(StoreMs, Number), Arc<Subscription>>>,
    /// Rings when the first look has come nearer.
    bell: Notify,
}

impl Calendar {
    /// Notes when to look at a subscription next, by what is durable of it.
    pub(crate) fn note(&self, subscription: &Arc<Subscription>, durable: &mut Durable) {
        let next = durable.next_look(subscription.terms);
        let idle = durable.gone || !durable.is_pending();
        // Whoever has a webhook that waits to be called begins the call or gives it back.
        let waits = matches!(durable.delivery.out, Out::Waits { .. });
        assert!(idle || waits || next.is_some(), "INV-28 no pending subscription is left alone");
        self.put(subscription, durable, next);
    }

    /// Notes a look at another moment: what was due could not be done.
    pub(crate) fn postpone(&self, subscription: &Arc<Subscription>, until: StoreMs) {
        let mut durable = subscription.durable.lock();
        let next = durable.next_look(subscription.terms).map(|next| next.max(until));
        self.put(subscription, &mut durable, next);
    }

    fn put(&self, subscription: &Arc<Subscription>, durable: &mut Durable, next: Option<StoreMs>) {
        if durable.look_at == next {
            return;
        }
        let number = subscription.number;
        let mut looks = self.looks.lock();
        if let Some(before) = durable.look_at {
            looks.remove(&(before, number));
        }
        durable.look_at = next;
        let Some(next) = next else { return };
        let first = looks.keys().next().is_none_or(|(at, _)| next < *at);
        looks.insert((next, number), Arc::clone(subscription));
        drop(looks);
        if first {
            self.bell.notify_one();
        }
    }

    /// Takes out up to `limit` subscriptions that are due.
    pub(crate) fn due(&self, now: StoreMs, limit: usize) -> Vec<Arc<Subscription>> {
        let mut due = Vec::new();
        while due.len() < limit {
            let mut looks = self.looks.lock();
            let Some(entry) = looks.first_entry().filter(|entry| entry.key().0 <= now) else {
                break;
            };
            let (at, _) = *entry.key();
            let subscription = entry.remove();
            drop(looks);
            // Taken in the other order than it is put in, so not both locks at once; a change in
            // between has put it in again.
            let mut durable = subscription.durable.lock();
            if durable.look_at == Some(at) {
                durable.look_at = None;
            }
            drop(durable);
            due.push(subscription);
        }
        due
    }

    /// When the next look is due.
    pub(crate) fn next(&self) -> Option<StoreMs> {
        self.looks.lock().keys().next().map(|(at, _)| *at)
    }

    /// Resolves when the first look has come nearer since the last call.
    pub(crate) async fn nearer(&self) {
        self.bell.notified().await;
    }
}
