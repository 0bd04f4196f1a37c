//! The waker: looks at subscriptions when they are due, and begins, repeats and ends wakes.
//!
//! What it writes shares groups with everything else: a round puts up to [`ROUND_MAX`] entries
//! into the log and waits for them together, so that ten thousand subscriptions that one append
//! concerns cost a few commits.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use smallvec::smallvec;

use super::{
    control::{Chance, Control, Kind, Phase, Situation, Turn as Step},
    entry::Entry,
    request::{Delivery, WakeId},
    subscription::{Change, Subscription, Turn, Weight},
};
use crate::{
    core::Core,
    decide::Now,
    log::{
        gate::{Gate, Outcome},
        sequencer::{Announced, Mode, Origin},
    },
    request::Error,
    types::StreamName,
};

/// Subscriptions looked at before their commits are waited for.
const ROUND_MAX: usize = 1024;
/// When to look again at a subscription whose entry could not be written, or whose webhook was
/// given back.
pub(super) const AGAIN_MS: u64 = 1000;
/// When to look again at a subscription whose turn somebody else had.
const BUSY_MS: u64 = 10;
/// Longest sleep; a look that is due later is found then.
const SLEEP_MS_MAX: u64 = 3_600_000;

/// Runs until the store goes down.
pub(crate) async fn run(core: Arc<Core>) {
    let mut leaving = core.leaving.subscribe();
    let calendar = &core.subscriptions.calendar;
    while !*leaving.borrow_and_update() {
        let now = core.store_now();
        let due = calendar.due(now, ROUND_MAX);
        if !due.is_empty() {
            round(&core, due).await;
            continue;
        }
        let wait_ms = calendar.next().map_or(SLEEP_MS_MAX, |next| {
            // Time is cut down to milliseconds: one more, or the look would come too early.
            next.get().saturating_sub(now.get()).saturating_add(1).min(SLEEP_MS_MAX)
        });
        tokio::select! {
            biased;
            left = leaving.changed() => {
                if left.is_err() {
                    return;
                }
            }
            () = calendar.nearer() => {}
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
        }
    }
}

async fn round(core: &Arc<Core>, due: Vec<Arc<Subscription>>) {
    let calendar = &core.subscriptions.calendar;
    let postpone = |subscription: &Arc<Subscription>| {
        calendar.postpone(subscription, core.store_now().plus(AGAIN_MS));
    };
    if core.sequencer.mode() != Mode::Serving {
        // On a full disk nothing but deletions may use what room is left.
        due.iter().for_each(postpone);
        return;
    }
    let mut waiting = Vec::with_capacity(due.len());
    for subscription in due {
        // Whoever has the turn may be waiting for a commit: the others of the round are not to.
        let Ok(turn) = Arc::clone(&subscription.turn).try_lock_owned() else {
            calendar.postpone(&subscription, core.store_now().plus(BUSY_MS));
            continue;
        };
        match step(core, &subscription, turn).await {
            Ok(Some(gate)) => waiting.push((subscription, gate)),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(subscription = %subscription.config.id, %error, "no wake");
                postpone(&subscription);
            }
        }
    }
    for (subscription, gate) in waiting {
        if gate.wait().await != Outcome::Durable {
            weir_io::sometimes!("a wake could not be written and was put off");
            postpone(&subscription);
        }
    }
}

/// What a look at a subscription found.
struct Found {
    step: Step,
    now: Now,
    /// A worker had the lease.
    held: bool,
    /// A delivery failed before.
    failed: bool,
    /// A stream with work.
    first: Option<StreamName>,
}

/// Looks at a subscription, in its turn; `None`: there is nothing to do.
fn look(core: &Core, subscription: &Arc<Subscription>) -> Option<Found> {
    let now = core.now();
    let chance = Chance { wake_id: fresh_wake(core), jitter: core.world.entropy.next_u64() };
    let mut durable = subscription.durable.lock();
    if durable.gone {
        return None;
    }
    let (pending, out) = (durable.is_pending(), durable.delivery.out);
    let situation = Situation { pending, out, now: now.store };
    let step = durable.control.look(subscription.terms, situation, chance);
    if step == Step::Rest {
        core.subscriptions.calendar.note(subscription, &mut durable);
        return None;
    }
    let held = matches!(durable.control.phase, Phase::Held { .. });
    let failed = durable.control.failures > 0;
    Some(Found { step, now, held, failed, first: durable.links.first_pending().cloned() })
}

/// Does what a look at a subscription asks for. Returns what to wait for.
async fn step(
    core: &Arc<Core>,
    subscription: &Arc<Subscription>,
    turn: Turn,
) -> Result<Option<Arc<Gate>>, Error> {
    let Some(Found { step, now, held, failed, first }) = look(core, subscription) else {
        return Ok(None);
    };
    let figures = &core.subscriptions.figures;
    if held || matches!(step, Step::GiveUp(_)) {
        figures.leases_expired.inc();
    }
    let next = match step {
        Step::Rest => return Ok(None),
        Step::Deliver => {
            if failed {
                weir_io::sometimes!("a failed delivery was tried again");
            }
            core.subscriptions.hand_out(subscription, now.store);
            return Ok(None);
        }
        Step::GiveUp(next) | Step::Retire(next) => {
            let change = change(subscription, next, turn);
            return core.sequencer.subscription(change, Origin::Server).map(Some);
        }
        Step::Wake(next) => next,
    };
    if held {
        weir_io::sometimes!("a lease ended and its work was woken again");
    }
    figures.wakes.inc();
    match (&subscription.config.delivery, first) {
        (Delivery::PullWake { wake_stream }, Some(first)) => {
            let event = event(subscription, &first, next.generation, now);
            let change = change(subscription, next, turn);
            announce(core, change, wake_stream, &event, now).await.map(Some)
        }
        _ => {
            let change = change(subscription, next, turn);
            core.sequencer.subscription(change, Origin::Server).map(Some)
        }
    }
}

/// An id that no wake has.
pub(super) fn fresh_wake(core: &Core) -> WakeId {
    let mut id = [0; 12];
    core.world.entropy.fill(&mut id);
    WakeId(id)
}

fn change(subscription: &Arc<Subscription>, control: Control, turn: Turn) -> Change {
    let number = subscription.number;
    Change {
        subscription: Arc::clone(subscription),
        entry: Entry::Control { number, control, acks: Vec::new() },
        weight: Weight::Full,
        turns: smallvec![turn],
    }
}

/// Writes a wake, and the event that announces it if the application has made a stream for that.
async fn announce(
    core: &Arc<Core>,
    mut change: Change,
    wake_stream: &StreamName,
    event: &Bytes,
    now: Now,
) -> Result<Arc<Gate>, Error> {
    assert!(change.subscription.terms.kind == Kind::Pull, "webhooks are called");
    loop {
        match core.sequencer.announce(change, wake_stream, event, now)? {
            Announced::Load(missing, back) => {
                change = back;
                // Held until the next try, so that it is not evicted.
                let _kept = core.load(missing).await?;
            }
            Announced::Put(gate, Ok(())) => return Ok(gate),
            Announced::Put(gate, Err(rejection)) => {
                weir_io::sometimes!("a wake found no stream to be announced in");
                tracing::debug!(stream = %wake_stream, %rejection, "a wake was not announced");
                return Ok(gate);
            }
        }
    }
}

/// What a wake stream says of a wake.
fn event(subscription: &Subscription, stream: &StreamName, generation: u64, now: Now) -> Bytes {
    let mut text = String::with_capacity(160);
    text.push_str("{\"type\":\"wake\",\"subscription_id\":");
    put_quoted(subscription.config.id.as_str(), &mut text);
    text.push_str(",\"stream\":");
    put_quoted(stream.as_str(), &mut text);
    text.push_str(&format!(",\"generation\":{generation},\"ts\":{}}}", now.wall.get()));
    text.into()
}

/// A JSON string. Neither ids nor names have control characters in the ASCII range.
fn put_quoted(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

#[cfg(test)]
mod tests;
