//! Webhooks to call: handed out once per attempt, given up when their wake is over.

use std::sync::Arc;

use super::{
    LINKS_LISTED_MAX,
    control::{Chance, Phase},
    entry::Acked,
    request::{Delivered, Delivery, Refused, SubscriptionId, Wake},
    subscription::{Subscription, Weight},
    waker::fresh_wake,
    working::wake_of,
};
use crate::{core::Core, engine::durable, request::Error};

/// A webhook to call now. Dropping it without [`Due::finish`] leaves the wake to its lease.
pub struct Due {
    /// Which subscription.
    pub subscription: SubscriptionId,
    /// Where to.
    pub url: String,
    /// [`Subscribe::base`](super::Subscribe::base).
    pub base: Option<String>,
    /// What to say.
    pub wake: Wake,
    /// How often this was tried before.
    pub failures: u32,
    core: Arc<Core>,
    of: Arc<Subscription>,
    /// What is processed if the worker says so at once: the listed work, up to its tails.
    snapshot: Vec<Acked>,
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
            if !self.of.is_under_way(self.wake.wake_id, self.failures) {
                return;
            }
            bell.await;
        }
    }

    /// Tells how it went.
    ///
    /// # Errors
    /// [`Refused::Fenced`] if the wake is over, or that the store takes no writes.
    pub async fn finish(self, delivered: Delivered) -> Result<(), Error> {
        let Self { core, of, wake, failures, snapshot, .. } = self;
        let turn = Arc::clone(&of.turn).lock_owned().await;
        let now = core.now().store;
        let chance = Chance { wake_id: fresh_wake(&core), jitter: core.world.entropy.next_u64() };
        let current = (wake.wake_id, wake.generation);
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
        let gate = core.decided(&of, next, acks, Weight::Full, turn)?;
        durable(&gate).await?;
        core.subscriptions.figures.acks.inc_by(count);
        Ok(())
    }
}

impl Core {
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
            let waits = state.delivery.out && !state.delivery.taken && !state.gone;
            let Phase::Waking { wake_id, .. } = state.control.phase else { continue };
            let Delivery::Webhook { url } = &subscription.config.delivery else { continue };
            if !waits {
                weir_io::sometimes!("a delivery was over before it was taken up");
                continue;
            }
            state.delivery.taken = true;
            let failures = state.control.failures;
            let wake = wake_of(&subscription, wake_id, state.control.generation, &state);
            let snapshot = state.links.snapshot(LINKS_LISTED_MAX);
            drop(state);
            return Some(Due {
                subscription: subscription.config.id.clone(),
                url: url.clone(),
                base: subscription.config.base.clone(),
                wake,
                failures,
                core: Arc::clone(self),
                of: Arc::clone(&subscription),
                snapshot,
            });
        }
    }
}
