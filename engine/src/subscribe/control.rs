//! The wakes and leases of one subscription, decided purely (protocol §7).
//!
//! ```text
//!         pending                   claim · accepted · report
//!  Idle ──────────▶ Waking ───────────────────────────────────▶ Held
//!   ▲                │  ▲ failed: same wake, later                │
//!   │ nothing pending│  └─ lease over, not claimed: next wake     │
//!   └────────────────┴──────────── done · release · lease over ───┘
//! ```
//! A webhook that is handed out waits until its receiver has room for a call; its lease runs from
//! when the call begins, or little before, so that waiting fails nobody.
//!
//! Every wake has a generation of its own; only the newest may report. Each function takes the
//! state and gives the one after it; nothing here knows a clock, a lock or the links.

use std::sync::Arc;

use super::request::{Delivered, Refused, Via, WakeId};
use crate::types::StoreMs;

/// First wait after a failed delivery.
const RETRY_MS_MIN: u64 = 1000;
/// Longest wait after a failed delivery, chance aside.
const RETRY_MS_MAX: u64 = 60_000;
/// Longest wait until a wake that nobody claims is announced again.
const ANNOUNCE_MS_MAX: u64 = 600_000;

/// Where a subscription stands. Part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    /// Of the newest wake; 0 before the first.
    pub(crate) generation: u64,
    pub(crate) phase: Phase,
    /// Webhook: failed attempts since the last sign of life. Pull-wake: announcements of the
    /// present work that nobody took up.
    pub(crate) failures: u32,
    /// Webhook: when the failed delivery is tried again.
    pub(crate) next_attempt: Option<StoreMs>,
    /// The last delivery failed.
    pub(crate) failing: bool,
}

/// What is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    /// A worker has been called and has not answered.
    Waking {
        wake_id: WakeId,
        /// Webhook: the end of the lease. Pull-wake: when it is announced again.
        deadline: StoreMs,
    },
    /// A worker is at work.
    Held {
        wake_id: WakeId,
        /// As it calls itself; empty for a webhook.
        holder: Arc<str>,
        deadline: StoreMs,
    },
}

/// Which way workers learn of work, and how long they may be silent. Never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) kind: Kind,
    pub(crate) lease_ttl_ms: u64,
}

/// See [`Delivery`](super::request::Delivery).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Webhook,
    Pull,
}

/// What a look at a subscription rests on beside its control.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    /// Some stream has work.
    pub(crate) pending: bool,
    /// How far the delivery of the present wake is.
    pub(crate) out: Out,
    pub(crate) now: StoreMs,
}

/// How far the delivery of a wake is; a restart forgets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Out {
    /// It is not handed out.
    #[default]
    No,
    /// Handed out, not called yet: its lease stands still.
    Waits {
        /// When it was handed out.
        since: StoreMs,
    },
    /// The receiver is being called.
    Begun,
}

/// What the beginning of a call asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// The lease goes on as it is.
    Ready,
    /// The wait took too much of the lease: it starts anew.
    Renew(Control),
    /// Nothing is pending any more.
    Retire(Control),
}

/// Chance, drawn beforehand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance {
    /// For a wake, if one begins.
    pub(crate) wake_id: WakeId,
    /// For the length of a wait.
    pub(crate) jitter: u64,
}

/// What a look at a subscription asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing until [`Control::due`].
    Rest,
    /// Hand the webhook out; nothing changes by that.
    Deliver,
    /// A wake begins.
    Wake(Control),
    /// A delivery took longer than the lease: it counts as failed.
    GiveUp(Control),
    /// Nothing is pending any more.
    Retire(Control),
}

impl Control {
    /// Of a subscription that has just been made.
    pub(crate) const fn new() -> Self {
        Self { generation: 0, phase: Phase::Idle, failures: 0, next_attempt: None, failing: false }
    }

    /// Whether an attempt to deliver that was under way before `next` still is after it.
    pub(crate) fn same_attempt(&self, next: &Self) -> bool {
        self.wake_id() == next.wake_id() && self.failures == next.failures
    }

    /// The wake under way.
    pub(crate) const fn wake_id(&self) -> Option<WakeId> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Waking { wake_id, .. } | Phase::Held { wake_id, .. } => Some(*wake_id),
        }
    }

    /// When to look again, if nothing happens before; `None`: only when work arrives, or when a
    /// webhook that waits to be called is called or given back.
    pub(crate) fn due(&self, terms: Terms, out: Out) -> Option<StoreMs> {
        match (&self.phase, terms.kind) {
            (Phase::Idle, _) => None,
            (Phase::Held { deadline, .. }, _) | (Phase::Waking { deadline, .. }, Kind::Pull) => {
                Some(*deadline)
            }
            (Phase::Waking { deadline, .. }, Kind::Webhook) => match out {
                Out::No => Some(self.next_attempt.unwrap_or(StoreMs::ZERO)),
                Out::Waits { .. } => None,
                Out::Begun => Some(*deadline),
            },
        }
    }

    /// What is to be done now.
    pub(crate) fn look(&self, terms: Terms, situation: Situation, chance: Chance) -> Turn {
        let Situation { pending, out, now } = situation;
        let webhook = terms.kind == Kind::Webhook;
        match &self.phase {
            Phase::Idle if !pending => Turn::Rest,
            Phase::Idle => Turn::Wake(self.wake(terms, now, chance.wake_id)),
            _ if self.due(terms, out).is_none_or(|due| now < due) => Turn::Rest,
            Phase::Waking { .. } if webhook && out == Out::Begun => {
                Turn::GiveUp(self.failed(now, chance))
            }
            _ if !pending => Turn::Retire(self.idle()),
            Phase::Waking { deadline, .. } if webhook && now < *deadline => Turn::Deliver,
            _ => Turn::Wake(self.wake(terms, now, chance.wake_id)),
        }
    }

    /// A receiver is about to be called with the present wake, which waited for that `since` then.
    ///
    /// # Errors
    /// [`Refused::Fenced`] if the wake, or this attempt, is over.
    pub(crate) fn begin(
        &self,
        terms: Terms,
        wake: (WakeId, u64),
        failures: u32,
        Situation { pending, out, now }: Situation,
    ) -> Result<Beginning, Refused> {
        let Phase::Waking { wake_id, deadline } = self.phase else {
            return Err(Refused::Fenced);
        };
        let Out::Waits { since } = out else { return Err(Refused::Fenced) };
        if (wake_id, self.generation) != wake || self.failures != failures {
            return Err(Refused::Fenced);
        }
        if !pending {
            return Ok(Beginning::Retire(self.idle()));
        }
        let patience = since.plus(terms.lease_ttl_ms / 4);
        if now <= patience && now < deadline {
            return Ok(Beginning::Ready);
        }
        let phase = Phase::Waking { wake_id, deadline: now.plus(terms.lease_ttl_ms) };
        Ok(Beginning::Renew(Self { phase, ..self.clone() }))
    }

    /// A worker takes the work.
    pub(crate) fn claim(
        &self,
        terms: Terms,
        worker: &str,
        pending: bool,
        now: StoreMs,
        fresh: WakeId,
    ) -> Result<Self, Refused> {
        check_kind(terms, Via::Pull)?;
        let (wake_id, generation) = match &self.phase {
            Phase::Held { deadline, holder, .. } if now < *deadline => {
                let (holder, generation) = (holder.to_string(), self.generation);
                return Err(Refused::AlreadyClaimed { holder, generation });
            }
            _ if !pending => return Err(Refused::NoPendingWork),
            Phase::Waking { wake_id, .. } => (*wake_id, self.generation),
            Phase::Idle | Phase::Held { .. } => (fresh, self.next_generation()),
        };
        let deadline = now.plus(terms.lease_ttl_ms);
        let phase = Phase::Held { wake_id, holder: worker.into(), deadline };
        Ok(Self { generation, phase, ..Self::new() })
    }

    /// A worker reports: it is alive, or (`Ending::Ends`) has finished.
    pub(crate) fn report(
        &self,
        terms: Terms,
        via: Via,
        wake: (WakeId, u64),
        ending: Ending,
        now: StoreMs,
    ) -> Result<Self, Refused> {
        check_kind(terms, via)?;
        let holder = self.holder(terms, wake, now)?;
        if ending == Ending::Ends {
            return Ok(Self { generation: self.generation, ..Self::new() });
        }
        let deadline = now.plus(terms.lease_ttl_ms);
        let phase = Phase::Held { wake_id: wake.0, holder, deadline };
        Ok(Self { generation: self.generation, phase, ..Self::new() })
    }

    /// How an attempt to deliver went; `failures` names the attempt. `None`: nothing changes.
    pub(crate) fn delivered(
        &self,
        terms: Terms,
        wake: (WakeId, u64),
        failures: u32,
        delivered: Delivered,
        now: StoreMs,
        chance: Chance,
    ) -> Result<Option<Self>, Refused> {
        let holder = self.holder(terms, wake, now)?;
        let waking = matches!(self.phase, Phase::Waking { .. });
        if waking && self.failures != failures {
            return Err(Refused::Fenced);
        }
        let deadline = now.plus(terms.lease_ttl_ms);
        Ok(match delivered {
            Delivered::Done => Some(Self { generation: self.generation, ..Self::new() }),
            Delivered::Accepted if waking => Some(Self {
                generation: self.generation,
                phase: Phase::Held { wake_id: wake.0, holder, deadline },
                ..Self::new()
            }),
            Delivered::Failed if waking => Some(self.failed(now, chance)),
            // The worker has reported meanwhile; that says more than how its answer ended.
            Delivered::Accepted | Delivered::Failed => None,
        })
    }

    /// Who may report on a wake now.
    fn holder(
        &self,
        terms: Terms,
        (wake_id, generation): (WakeId, u64),
        now: StoreMs,
    ) -> Result<Arc<str>, Refused> {
        let current = generation == self.generation;
        match &self.phase {
            Phase::Held { wake_id: own, holder, deadline }
                if current && *own == wake_id && now < *deadline =>
            {
                Ok(Arc::clone(holder))
            }
            // A webhook worker may call back before its answer has arrived.
            Phase::Waking { wake_id: own, deadline }
                if terms.kind == Kind::Webhook && current && *own == wake_id && now < *deadline =>
            {
                Ok("".into())
            }
            _ => Err(Refused::Fenced),
        }
    }

    fn wake(&self, terms: Terms, now: StoreMs, wake_id: WakeId) -> Self {
        let unclaimed = matches!(self.phase, Phase::Waking { .. });
        let (failures, wait_ms) = match terms.kind {
            Kind::Webhook => (self.failures, terms.lease_ttl_ms),
            Kind::Pull => {
                let failures = if unclaimed { self.failures.saturating_add(1) } else { 0 };
                (failures, doubled(terms.lease_ttl_ms, failures, ANNOUNCE_MS_MAX))
            }
        };
        Self {
            generation: self.next_generation(),
            phase: Phase::Waking { wake_id, deadline: now.plus(wait_ms) },
            failures,
            next_attempt: None,
            failing: self.failing,
        }
    }

    /// The present wake stays, to be tried again later.
    fn failed(&self, now: StoreMs, chance: Chance) -> Self {
        let wait_ms = doubled(RETRY_MS_MIN, self.failures, RETRY_MS_MAX);
        // A fifth less to a fifth more, so that those that failed together do not return together.
        let wait_ms = wait_ms - wait_ms / 5 + chance.jitter % (2 * wait_ms / 5 + 1);
        Self {
            generation: self.generation,
            phase: self.phase.clone(),
            failures: self.failures.saturating_add(1),
            next_attempt: Some(now.plus(wait_ms)),
            failing: true,
        }
    }

    /// The wake is over and there is no work; how deliveries went is remembered.
    const fn idle(&self) -> Self {
        Self {
            generation: self.generation,
            phase: Phase::Idle,
            failures: self.failures,
            next_attempt: None,
            failing: self.failing,
        }
    }

    fn next_generation(&self) -> u64 {
        self.generation.checked_add(1).expect("fewer than 2^64 wakes")
    }
}

/// Whether a report is the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The lease goes on.
    GoesOn,
    /// The lease ends.
    Ends,
}

/// Refuses a way in that belongs to the other kind of subscription.
pub(crate) const fn check_kind(terms: Terms, via: Via) -> Result<(), Refused> {
    match (terms.kind, via) {
        (Kind::Webhook, Via::Callback) | (Kind::Pull, Via::Pull) => Ok(()),
        (Kind::Webhook, Via::Pull) => {
            Err(Refused::WrongType("a webhook subscription is neither claimed, acked nor released"))
        }
        (Kind::Pull, Via::Callback) => {
            Err(Refused::WrongType("a pull-wake subscription has no callback"))
        }
    }
}

/// `first` doubled `times` times, at most `most`.
fn doubled(first: u64, times: u32, most: u64) -> u64 {
    // More doublings than this pass every bound; fewer can't overflow what clients may ask for.
    let times = times.min(20);
    first.saturating_mul(1 << times).min(most.max(first))
}

#[cfg(test)]
mod tests;
