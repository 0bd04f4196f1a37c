//! All subscriptions of a store: by id, by number and by what concerns them; and what durable
//! commits do to them.
//!
//! The writer and the replay go through the same functions, in the order of the log. A store
//! without subscriptions pays one atomic load per append; with them, a stream remembers whom it
//! concerns until the set of subscriptions changes.
//!
//! Locks, in this order: `inner`, then a subscription's `durable`, then the calendar or a list.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::sync::Notify;

use super::{
    calendar::Calendar,
    concerned::Concerned,
    control::{Control, Kind, Out, Phase},
    entry::{Acked, Entry, Number, Placed},
    index::Index,
    request::{LinkType, SubscriptionId},
    subscription::{Durable, Subscription},
};
use crate::{
    Metrics,
    state::view::Stream,
    types::{Lsn, Offset, StoreMs, StreamId, StreamName},
};

/// The subscriptions of a store.
pub(crate) struct Registry {
    /// How many there are: none costs an append nothing but a look at this.
    count: AtomicUsize,
    inner: RwLock<Inner>,
    /// The log is being replayed: rows of links that a fold which was cut short has removed are not
    /// there any more, so what took a link away is written down again even if it finds nothing.
    replaying: AtomicBool,
    /// The number of the next one.
    pub(crate) next_number: AtomicU64,
    /// Held by whoever makes or deletes one.
    pub(crate) making: Arc<tokio::sync::Mutex<()>>,
    pub(crate) calendar: Calendar,
    pub(crate) deliveries: Mutex<std::collections::VecDeque<Arc<Subscription>>>,
    /// Rings when a delivery waits.
    pub(crate) delivery_waits: Notify,
    pub(crate) unfolded: Mutex<Unfolded>,
    pub(crate) figures: Figures,
}

#[derive(Default)]
struct Inner {
    /// Counts the changes of what concerns whom; what streams remember carries it.
    version: u64,
    by_id: BTreeMap<SubscriptionId, Arc<Subscription>>,
    by_number: BTreeMap<Number, Arc<Subscription>>,
    index: Index,
}

/// What the next fold has to write.
#[derive(Default)]
pub(crate) struct Unfolded {
    pub(crate) subscriptions: Vec<Arc<Subscription>>,
    /// Deleted ones.
    pub(crate) burials: Vec<Number>,
}

/// What is counted; the same values as in [`Metrics`](crate::Metrics).
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) subscriptions: Gauge,
    pub(crate) pending: Gauge,
    pub(crate) wakes: Counter,
    pub(crate) leases_expired: Counter,
    pub(crate) acks: Counter,
}

impl Figures {
    /// The figures of a store, with these among them.
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics {
            subscriptions: self.subscriptions.clone(),
            subscriptions_pending: self.pending.clone(),
            subscription_wakes: self.wakes.clone(),
            subscription_leases_expired: self.leases_expired.clone(),
            subscription_acks: self.acks.clone(),
            ..Metrics::default()
        }
    }
}

impl Registry {
    pub(crate) fn new(next_number: u64) -> Self {
        Self {
            count: AtomicUsize::new(0),
            // A stream that remembers nothing has version 0.
            inner: RwLock::new(Inner { version: 1, ..Inner::default() }),
            replaying: AtomicBool::new(true),
            next_number: AtomicU64::new(next_number),
            making: Arc::default(),
            calendar: Calendar::default(),
            deliveries: Mutex::default(),
            delivery_waits: Notify::new(),
            unfolded: Mutex::default(),
            figures: Figures::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn find(&self, id: &SubscriptionId) -> Option<Arc<Subscription>> {
        self.inner.read().by_id.get(id).cloned()
    }

    pub(crate) fn by_number(&self, number: Number) -> Option<Arc<Subscription>> {
        self.inner.read().by_number.get(&number).cloned()
    }

    /// Does what a durable entry says. `subscription` is the one with the entry's number.
    pub(crate) fn apply(&self, subscription: &Arc<Subscription>, entry: &Entry, lsn: Lsn) {
        assert!(entry.number() == subscription.number, "an entry is of one subscription");
        match entry {
            Entry::Subscribe { links, .. } => self.make(subscription, links, lsn),
            Entry::Unsubscribe { .. } => self.unmake(subscription),
            Entry::Relink { added, removed, .. } => {
                self.relink(subscription, added, removed, lsn);
            }
            Entry::Control { control, acks, .. } => {
                self.control(subscription, control, acks, lsn);
            }
        }
    }

    /// Records that became durable in a stream, whose tail was `before` and now is `after`.
    pub(crate) fn wrote(&self, stream: &Stream, before: Offset, after: Offset, lsn: Lsn) {
        let whom = self.concerned(stream);
        let (name, id) = (&stream.identity.name, stream.identity.id);
        for subscription in whom.iter() {
            self.change(subscription, |durable| {
                if !durable.reflects(name, lsn) && durable.links.touch(name, id, before, after) {
                    durable.unfolded.links.insert(name.clone());
                }
            });
        }
    }

    /// A stream has ended, or is kept for its forks only.
    pub(crate) fn ended(&self, name: &StreamName, id: StreamId, lsn: Lsn) {
        let inner = self.inner.read();
        let concerned = inner.index.concerned(name).into_iter();
        let whom: Vec<_> =
            concerned.filter_map(|(number, _)| inner.by_number.get(&number).cloned()).collect();
        drop(inner);
        let replaying = self.replaying.load(Ordering::Acquire);
        for subscription in whom {
            self.change(&subscription, |durable| {
                let ended = !durable.reflects(name, lsn) && durable.links.ended(name, id);
                if ended || replaying {
                    durable.unfolded.links.insert(name.clone());
                }
            });
        }
    }

    /// Whom a stream concerns, remembered by it if they are few.
    fn concerned(&self, stream: &Stream) -> Arc<[Arc<Subscription>]> {
        let inner = self.inner.read();
        let mut remembered = stream.concerned.lock();
        if let Some(whom) = remembered.at(inner.version) {
            return whom;
        }
        let found = inner.index.concerned(&stream.identity.name).into_iter();
        let found = found.filter_map(|(number, _)| inner.by_number.get(&number).cloned());
        let whom: Arc<[_]> = found.collect();
        *remembered = Concerned::new(inner.version, Arc::clone(&whom));
        whom
    }

    /// Takes in a subscription that the catalogue has whole.
    pub(crate) fn restore(&self, subscription: &Arc<Subscription>) {
        let born = subscription.durable.lock().born;
        self.make(subscription, &[], born);
        // It is as the catalogue has it.
        let mut unfolded = self.unfolded.lock();
        unfolded.subscriptions.pop();
        drop(unfolded);
        subscription.durable.lock().unfolded = super::subscription::Dirty::default();
    }

    fn make(&self, subscription: &Arc<Subscription>, links: &[Placed], lsn: Lsn) {
        let number = subscription.number;
        let mut durable = subscription.durable.lock();
        durable.born = lsn;
        durable.unfolded.row = true;
        for Placed { path, stream, acked } in links {
            if !durable.reflects(path, lsn) && durable.links.name(path, *stream, *acked) {
                durable.unfolded.links.insert(path.clone());
            }
        }
        let named: Vec<_> = durable.links.named().cloned().collect();
        if durable.is_pending() {
            // Only in a replay: its rows were ahead of the fold.
            self.figures.pending.inc();
        }
        self.list(subscription, &mut durable);
        self.calendar.note(subscription, &mut durable);
        drop(durable);
        let mut inner = self.inner.write();
        inner.version += 1;
        if let Some(pattern) = &subscription.config.pattern {
            inner.index.add_pattern(pattern, number);
        }
        if let Some(own) = subscription.own_stream() {
            inner.index.add_own(own, number);
        }
        named.iter().for_each(|name| inner.index.add_name(name, number));
        inner.by_id.insert(subscription.config.id.clone(), Arc::clone(subscription));
        let before = inner.by_number.insert(number, Arc::clone(subscription));
        assert!(before.is_none(), "a number is never used twice");
        drop(inner);
        self.count.fetch_add(1, Ordering::AcqRel);
        self.figures.subscriptions.inc();
    }

    fn unmake(&self, subscription: &Arc<Subscription>) {
        let number = subscription.number;
        let mut durable = subscription.durable.lock();
        durable.gone = true;
        let named: Vec<_> = durable.links.named().cloned().collect();
        if durable.is_pending() {
            self.figures.pending.dec();
        }
        self.calendar.note(subscription, &mut durable);
        drop(durable);
        let mut inner = self.inner.write();
        inner.version += 1;
        if let Some(pattern) = &subscription.config.pattern {
            inner.index.remove_pattern(pattern, number);
        }
        if let Some(own) = subscription.own_stream() {
            inner.index.remove_own(own, number);
        }
        named.iter().for_each(|name| inner.index.remove_name(name, number));
        let id = &subscription.config.id;
        if inner.by_id.get(id).is_some_and(|it| it.number == number) {
            inner.by_id.remove(id);
        }
        inner.by_number.remove(&number);
        drop(inner);
        self.unfolded.lock().burials.push(number);
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.figures.subscriptions.dec();
        subscription.bell.notify_waiters();
    }

    fn relink(
        &self,
        subscription: &Arc<Subscription>,
        added: &[Placed],
        removed: &[StreamName],
        lsn: Lsn,
    ) {
        let mut named = Vec::with_capacity(added.len() + removed.len());
        let replaying = self.replaying.load(Ordering::Acquire);
        self.change(subscription, |durable| {
            for Placed { path, stream, acked } in added {
                if !durable.reflects(path, lsn) && durable.links.name(path, *stream, *acked) {
                    durable.unfolded.links.insert(path.clone());
                }
            }
            for path in removed {
                let matches = subscription.matches(path);
                let unnamed = !durable.reflects(path, lsn) && durable.links.unname(path, matches);
                if unnamed || replaying {
                    durable.unfolded.links.insert(path.clone());
                }
            }
            for path in added.iter().map(|placed| &placed.path).chain(removed) {
                let link = durable.links.get(path);
                named.push((path, link.is_some_and(|it| it.kind() == LinkType::Explicit)));
            }
        });
        let mut inner = self.inner.write();
        inner.version += 1;
        for (path, explicit) in named {
            match explicit {
                true => inner.index.add_name(path, subscription.number),
                false => inner.index.remove_name(path, subscription.number),
            }
        }
    }

    fn control(
        &self,
        subscription: &Arc<Subscription>,
        control: &Control,
        acks: &[Acked],
        lsn: Lsn,
    ) {
        let replaying = self.replaying.load(Ordering::Acquire);
        self.change(subscription, |durable| {
            for Acked { path, stream, offset } in acks {
                let acked =
                    !durable.reflects(path, lsn) && durable.links.ack(path, *stream, *offset);
                if acked || replaying {
                    durable.unfolded.links.insert(path.clone());
                }
            }
            // A row that a crash left ahead of the fold has this entry in it already.
            if lsn > durable.reflected.row {
                durable.take_control(control);
                durable.unfolded.row = true;
            }
        });
        subscription.bell.notify_waiters();
    }

    /// Changes what is durable of a subscription, and sees to what follows from it.
    fn change(&self, subscription: &Arc<Subscription>, change: impl FnOnce(&mut Durable)) {
        let mut durable = subscription.durable.lock();
        if durable.gone {
            return;
        }
        let before = durable.is_pending();
        change(&mut durable);
        match (before, durable.is_pending()) {
            (false, true) => drop(self.figures.pending.inc()),
            (true, false) => drop(self.figures.pending.dec()),
            (true, true) | (false, false) => {}
        }
        self.list(subscription, &mut durable);
        self.calendar.note(subscription, &mut durable);
    }

    /// Puts a subscription on the list of the next fold if there is something to write.
    pub(crate) fn list(&self, subscription: &Arc<Subscription>, durable: &mut Durable) {
        let dirty = &mut durable.unfolded;
        if !dirty.listed && (dirty.row || !dirty.links.is_empty()) {
            dirty.listed = true;
            self.unfolded.lock().subscriptions.push(Arc::clone(subscription));
        }
    }

    /// Hands a webhook out to whoever takes the next one up. Called in the subscription's turn.
    pub(crate) fn hand_out(&self, subscription: &Arc<Subscription>, now: StoreMs) {
        let mut durable = subscription.durable.lock();
        let waking = matches!(durable.control.phase, Phase::Waking { .. });
        assert!(waking && subscription.terms.kind == Kind::Webhook, "only a wake is handed out");
        assert!(durable.delivery.out == Out::No, "an attempt is handed out once");
        durable.delivery.out = Out::Waits { since: now };
        durable.delivery.taken = false;
        if !std::mem::replace(&mut durable.delivery.listed, true) {
            self.deliveries.lock().push_back(Arc::clone(subscription));
        }
        self.calendar.note(subscription, &mut durable);
        drop(durable);
        self.delivery_waits.notify_one();
    }

    /// The replay is over: from here on every commit is new.
    pub(crate) fn replayed(&self) {
        self.replaying.store(false, Ordering::Release);
        for subscription in self.inner.read().by_number.values() {
            let mut durable = subscription.durable.lock();
            let ahead = std::mem::take(&mut durable.reflected);
            // Rows that a fold which was cut short has written: the next ledger needs them too.
            durable.unfolded.row |= ahead.row > Lsn::ZERO;
            durable.unfolded.links.extend(ahead.links.into_keys());
            self.list(subscription, &mut durable);
            if matches!(durable.control.phase, Phase::Waking { .. }) {
                weir_io::sometimes!("a wake was under way when the store went down");
            }
        }
    }
}
