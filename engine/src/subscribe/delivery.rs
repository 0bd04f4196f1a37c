//! Webhooks to call: handed out once per attempt, given up when their wake is over.
//!
//! What is handed out holds no links: it may wait long until its receiver has room. The lease and
//! the list of what there is to do are of the moment when the call begins. One that is dropped
//! before that is handed out again.

use std::sync::{Arc, OnceLock};

use super::{
    LINKS_LISTED_MAX,
    control::{Beginning, Chance, Out, Phase, Situation},
    entry::Acked,
    request::{Delivered, Delivery, Refused, SubscriptionId, Wake, WakeId},
    subscription::{Begun, Durable, Subscription, Weight},
    waker::{AGAIN_MS, fresh_wake},
    working::wake_of,
};
use crate::{core::Core, engine::durable, request::Error};

/// A webhook to call. Dropping it before [`Due::begin`] has answered with a wake hands it out
/// again a little later; dropping it after that without [`Due::finish`] leaves the wake to its
/// lease.
pub struct Due {
    /// Which subscription.
    pub subscription: SubscriptionId,
    /// Where to.
    pub url: String,
    /// [`Subscribe::base`](super::Subscribe::base).
    pub base: Option<String>,
    /// How often this was tried before.
    pub failures: u32,
    core: Arc<Core>,
    of: Arc<Subscription>,
    /// Which wake, and its generation.
    current: (WakeId, u64),
    /// Since the call began: what is processed if the worker says so at once, the listed work up
    /// to its tails.
    begun: OnceLock<Vec<Acked>>,
}

impl Due {
    /// Resolves when the wake is over while the delivery is still under way: the lease has
    /// passed, the worker has reported its end, or the subscription is gone. The delivery is
    /// then to be abandoned.
    pub async fn superseded(&self) {
        loop {
            let bell = self.of.bell.notified();
            let mut bell = std::pin::pin!(bell);
            // Enlist before looking, or a ring in between would be missed.
            bell.as_mut().enable();
            let begun = if self.begun.get().is_some() { Begun::Yes } else { Begun::No };
            if !self.of.is_under_way(self.current.0, self.failures, begun) {
                return;
            }
            bell.await;
        }
    }

    /// The call begins: what to say, as of now. The lease starts anew if the wait took more than a
    /// quarter of it. `None`: there is nothing to call for any more. Cancel safe.
    ///
    /// # Errors
    /// The store takes no writes.
    pub async fn begin(&self) -> Result<Option<Wake>, Error> {
        assert!(self.begun.get().is_none(), "a call begins once");
        let turn = Arc::clone(&self.of.turn).lock_owned().await;
        let beginning = self.beginning(&self.of.durable.lock());
        let gate = match beginning {
            Err(_) => return Ok(None),
            Ok(Beginning::Ready) => return Ok(self.began()),
            Ok(Beginning::Renew(next)) => {
                weir_io::sometimes!("a webhook waited for its receiver and its lease began anew");
                self.core.decided(&self.of, next, Vec::new(), Weight::Light, turn)?
            }
            Ok(Beginning::Retire(next)) => {
                weir_io::sometimes!("a webhook had nothing to say when it could be called");
                self.core.decided(&self.of, next, Vec::new(), Weight::Full, turn)?
            }
        };
        durable(&gate).await?;
        Ok(self.began())
    }

    fn beginning(&self, state: &Durable) -> Result<Beginning, Refused> {
        if state.gone {
            return Err(Refused::Fenced);
        }
        let (pending, out) = (state.is_pending(), state.delivery.out);
        let situation = Situation { pending, out, now: self.core.store_now() };
        state.control.begin(self.of.terms, self.current, self.failures, situation)
    }

    /// From here on the lease runs; `None` if the wake is over.
    fn began(&self) -> Option<Wake> {
        let mut state = self.of.durable.lock();
        // The turn ended when the entry was durable: somebody else may have had it since.
        self.beginning(&state).ok().filter(|it| !matches!(it, Beginning::Retire(_)))?;
        state.delivery.out = Out::Begun;
        let (wake_id, generation) = self.current;
        let wake = wake_of(&self.of, wake_id, generation, &state);
        let first = self.begun.set(state.links.snapshot(LINKS_LISTED_MAX)).is_ok();
        assert!(first, "a call begins once");
        self.core.subscriptions.calendar.note(&self.of, &mut state);
        Some(wake)
    }

    /// Tells how it went. Before [`Due::begin`] nothing did: the wake is handed out again.
    ///
    /// # Errors
    /// [`Refused::Fenced`] if the wake is over, or that the store takes no writes.
    pub async fn finish(mut self, delivered: Delivered) -> Result<(), Error> {
        let Some(snapshot) = self.begun.get_mut().map(std::mem::take) else { return Ok(()) };
        let Self { core, of, current, failures, .. } = &self;
        let (current, failures) = (*current, *failures);
        let turn = Arc::clone(&of.turn).lock_owned().await;
        let now = core.now().store;
        let chance = Chance { wake_id: fresh_wake(core), jitter: core.world.entropy.next_u64() };
        let (next, acks) = {
            let state = of.durable.lock();
            if state.gone {
                return Err(Refused::Fenced.into());
            }
            let control = &state.control;
            let next = control.delivered(of.terms, current, failures, delivered, now, chance)?;
            let acks: Vec<_> = match delivered {
                Delivered::Done => {
                    let counts = |ack: &Acked| {
                        let link = state.links.get(&ack.path);
                        link.is_some_and(|it| {
                            it.stream() == Some(ack.stream) && it.acked() < ack.offset
                        })
                    };
                    snapshot.into_iter().filter(counts).collect()
                }
                Delivered::Accepted | Delivered::Failed => Vec::new(),
            };
            (next, acks)
        };
        let Some(next) = next else { return Ok(()) };
        let count = u64::try_from(acks.len()).expect("usize fits u64");
        let gate = core.decided(of, next, acks, Weight::Full, turn)?;
        durable(&gate).await?;
        core.subscriptions.figures.acks.inc_by(count);
        Ok(())
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        if self.begun.get().is_none() {
            self.core.give_back(&self.of, self.current.0, self.failures);
        }
    }
}

impl Core {
    /// Has a webhook handed out again that was not called, unless its wake is over.
    fn give_back(&self, subscription: &Arc<Subscription>, wake_id: WakeId, failures: u32) {
        {
            let mut state = subscription.durable.lock();
            let waits = state.delivery.taken && matches!(state.delivery.out, Out::Waits { .. });
            let control = &state.control;
            if !waits || control.wake_id() != Some(wake_id) || control.failures != failures {
                return;
            }
            state.delivery.out = Out::No;
            state.delivery.taken = false;
        }
        // Whoever gives it back takes nothing just now.
        let until = self.store_now().plus(AGAIN_MS);
        self.subscriptions.calendar.postpone(subscription, until);
    }

    /// Waits for the next webhook to call; `None` when the store is going down. Cancel safe.
    pub(super) async fn next_delivery(self: &Arc<Self>) -> Option<Due> {
        let mut leaving = self.leaving.subscribe();
        let registry = &self.subscriptions;
        loop {
            let waits = registry.delivery_waits.notified();
            let mut waits = std::pin::pin!(waits);
            // Enlist before looking, or a ring in between would be missed.
            waits.as_mut().enable();
            if *leaving.borrow_and_update() {
                return None;
            }
            if let Some(due) = self.take_up() {
                if !registry.deliveries.lock().is_empty() {
                    // One ring may stand for several deliveries, and others may wait too.
                    registry.delivery_waits.notify_one();
                }
                return Some(due);
            }
            tokio::select! {
                biased;
                left = leaving.changed() => {
                    if left.is_err() {
                        return None;
                    }
                }
                () = waits => {}
            }
        }
    }

    /// The next webhook whose wake is not over.
    fn take_up(self: &Arc<Self>) -> Option<Due> {
        loop {
            let subscription = self.subscriptions.deliveries.lock().pop_front()?;
            let mut state = subscription.durable.lock();
            state.delivery.listed = false;
            let out = matches!(state.delivery.out, Out::Waits { .. });
            let waits = out && !state.delivery.taken && !state.gone;
            let Phase::Waking { wake_id, .. } = state.control.phase else { continue };
            let Delivery::Webhook { url } = &subscription.config.delivery else { continue };
            if !waits {
                weir_io::sometimes!("a delivery was over before it was taken up");
                continue;
            }
            state.delivery.taken = true;
            let failures = state.control.failures;
            let current = (wake_id, state.control.generation);
            drop(state);
            return Some(Due {
                subscription: subscription.config.id.clone(),
                url: url.clone(),
                base: subscription.config.base.clone(),
                failures,
                core: Arc::clone(self),
                of: Arc::clone(&subscription),
                current,
                begun: OnceLock::new(),
            });
        }
    }
}
