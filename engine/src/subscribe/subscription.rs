//! One subscription in memory: what is durable of it, and what only this process knows.
//!
//! Verbs decide on the durable state, one at a time: each takes the subscription's turn, and its
//! turn ends when its commit is visible. So there is no second, decided view of a subscription,
//! and a commit that a full disk refuses leaves nothing to undo.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{Notify, OwnedMutexGuard};

use super::{
    control::{Control, Kind, Out, Phase, Terms},
    entry::{Entry, Number},
    links::Links,
    request::{Delivery, Subscribe, WakeId},
};
use crate::types::{Lsn, StoreMs, StreamName, WallMs};

/// A subscription.
pub(crate) struct Subscription {
    pub(crate) number: Number,
    pub(crate) config: Arc<Subscribe>,
    pub(crate) created: WallMs,
    pub(crate) terms: Terms,
    /// Whose verb it is. Held from a decision until its commit is visible.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    pub(crate) durable: Mutex<Durable>,
    /// Rings when a wake may be over.
    pub(crate) bell: Notify,
}

/// The right to decide for a subscription, or for the making of one.
pub(crate) type Turn = OwnedMutexGuard<()>;

/// An entry that waits to become durable, with what it is about. Dropping it ends the turns.
pub(crate) struct Change {
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) entry: Entry,
    pub(crate) weight: Weight,
    pub(crate) turns: SmallVec<[Turn; 1]>,
}

/// Whether a change alone is worth a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// It only moves a deadline.
    Light,
    Full,
}

/// What is durable, and what follows from it.
pub(crate) struct Durable {
    pub(crate) control: Control,
    pub(crate) links: Links,
    /// The commit that made it.
    pub(crate) born: Lsn,
    /// It is deleted.
    pub(crate) gone: bool,
    pub(crate) delivery: Attempt,
    /// When it is on the calendar.
    pub(crate) look_at: Option<StoreMs>,
    pub(crate) unfolded: Dirty,
    /// While the log is replayed: what its rows have in them already.
    pub(crate) reflected: Reflected,
}

/// Where the delivery of the present wake is; only this process knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) out: Out,
    /// On the list of those to be taken up.
    pub(crate) listed: bool,
    /// Taken up; whoever has it begins the call or gives it back.
    pub(crate) taken: bool,
}

/// Whether the receiver has been called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    No,
    Yes,
}

/// What the next fold has to write.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// On the list of the next fold.
    pub(crate) listed: bool,
    pub(crate) row: bool,
    pub(crate) links: BTreeSet<StreamName>,
}

/// Commits that rows of a fold that was cut short have in them.
#[derive(Debug, Default)]
pub(crate) struct Reflected {
    pub(crate) row: Lsn,
    pub(crate) links: BTreeMap<StreamName, Lsn>,
}

impl Subscription {
    /// One that is not known to the log yet.
    pub(crate) fn new(number: Number, config: Arc<Subscribe>, created: WallMs) -> Self {
        let kind = match config.delivery {
            Delivery::Webhook { .. } => Kind::Webhook,
            Delivery::PullWake { .. } => Kind::Pull,
        };
        Self {
            number,
            created,
            terms: Terms { kind, lease_ttl_ms: config.lease_ttl_ms },
            config,
            turn: Arc::default(),
            durable: Mutex::new(Durable {
                control: Control::new(),
                links: Links::default(),
                born: Lsn::ZERO,
                gone: false,
                delivery: Attempt::default(),
                look_at: None,
                unfolded: Dirty::default(),
                reflected: Reflected::default(),
            }),
            bell: Notify::new(),
        }
    }

    /// The stream its wakes are written to, which never concerns it.
    pub(crate) fn own_stream(&self) -> Option<&StreamName> {
        match &self.config.delivery {
            Delivery::Webhook { .. } => None,
            Delivery::PullWake { wake_stream } => Some(wake_stream),
        }
    }

    /// Whether its pattern links a stream of this name.
    pub(crate) fn matches(&self, name: &StreamName) -> bool {
        let pattern = self.config.pattern.as_ref();
        self.own_stream() != Some(name) && pattern.is_some_and(|it| it.matches(name.as_str()))
    }

    /// Whether a stream of this name is linked by the pattern and has no work.
    pub(crate) fn merely_matches(&self, name: &StreamName) -> bool {
        self.matches(name) && self.durable.lock().links.get(name).is_none()
    }

    /// Whether an attempt to deliver is still worth beginning or, once `begun`, finishing.
    pub(crate) fn is_under_way(&self, wake_id: WakeId, failures: u32, begun: Begun) -> bool {
        let durable = self.durable.lock();
        let control = &durable.control;
        if durable.gone || control.wake_id() != Some(wake_id) {
            return false;
        }
        match control.phase {
            Phase::Idle => false,
            Phase::Waking { .. } => control.failures == failures,
            // A worker that reports before it answers goes on with the wake.
            Phase::Held { .. } => begun == Begun::Yes,
        }
    }
}

impl Durable {
    pub(crate) fn is_pending(&self) -> bool {
        self.links.pending() > 0
    }

    /// When to look at it next, if nothing happens before.
    pub(crate) fn next_look(&self, terms: Terms) -> Option<StoreMs> {
        if self.gone {
            return None;
        }
        if self.control.phase == Phase::Idle && self.is_pending() {
            return Some(StoreMs::ZERO);
        }
        self.control.due(terms, self.delivery.out)
    }

    /// Takes the control after an entry.
    pub(crate) fn take_control(&mut self, next: &Control) {
        let before = &self.control;
        let same_wake = before.wake_id() == next.wake_id();
        assert!(next.generation >= before.generation, "INV-26 a generation never repeats");
        assert!(
            same_wake || next.phase == Phase::Idle || next.generation > before.generation,
            "INV-26 a generation never repeats: another wake has another one"
        );
        if let (Phase::Held { holder, .. }, Phase::Held { holder: other, .. }) =
            (&before.phase, &next.phase)
        {
            assert!(
                holder == other || next.generation > before.generation,
                "INV-27 a subscription has one holder"
            );
        }
        if !before.same_attempt(next) {
            self.delivery.out = Out::No;
            self.delivery.taken = false;
        }
        self.control = next.clone();
    }

    /// Whether a fold that was cut short has written a link with this commit in it.
    pub(crate) fn reflects(&self, name: &StreamName, lsn: Lsn) -> bool {
        self.reflected.links.get(name).is_some_and(|reflected| *reflected >= lsn)
    }
}
