//! Claims, reports and releases: what workers do with wakes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use smallvec::smallvec;

use super::{
    LINKS_LISTED_MAX,
    control::{Control, Ending, check_kind},
    entry::{Acked, Entry},
    request::{Ack, Credential, Refused, Report, Reported, SubscriptionId, Via, Wake, WakeId},
    subscription::{Change, Durable, Subscription, Turn, Weight},
    waker::fresh_wake,
};
use crate::{
    core::Core,
    engine::{durable, unreadable},
    limits,
    log::{gate::Gate, sequencer::Origin},
    request::Error,
    state::{catalogue, shelf::Folds},
    types::{Offset, StreamId, StreamName},
};

impl Core {
    /// A worker takes the work.
    pub(super) async fn claim(&self, id: &SubscriptionId, worker: &str) -> Result<Wake, Error> {
        let (subscription, turn) = self.turn(id).await?;
        let now = self.now().store;
        let (control, woken) = {
            let durable = subscription.durable.lock();
            let before = &durable.control;
            let pending = durable.is_pending();
            let fresh = fresh_wake(self);
            let next = before.claim(subscription.terms, worker, pending, now, fresh)?;
            let woken = next.generation > before.generation;
            (next, woken)
        };
        let next = control.clone();
        let gate = self.decided(&subscription, control, Vec::new(), Weight::Full, turn)?;
        if woken {
            self.subscriptions.figures.wakes.inc();
        }
        durable(&gate).await?;
        let wake_id = next.wake_id().expect("a claim is of a wake");
        Ok(wake_of(&subscription, wake_id, next.generation, &subscription.durable.lock()))
    }

    /// A worker reports.
    pub(super) async fn report(
        self: &Arc<Self>,
        id: &SubscriptionId,
        via: Via,
        report: Report,
    ) -> Result<Reported, Error> {
        let (subscription, turn) = self.turn(id).await?;
        check_kind(subscription.terms, via)?;
        let ending = if report.done { Ending::Ends } else { Ending::GoesOn };
        let wake = (report.wake_id, report.generation);
        let decide = |durable: &Durable| {
            check_credential(&subscription, report.credential, report.generation)?;
            let now = self.now().store;
            durable.control.report(subscription.terms, via, wake, ending, now)
        };
        // What is refused anyway need not be looked up.
        decide(&subscription.durable.lock()).inspect_err(fenced)?;
        if report.acks.len() > limits::ACKS_MAX {
            return Err(Refused::TooMany("more acks than one report may have").into());
        }
        let (control, acks) = loop {
            let unlisted = self.unlisted(&subscription, &report.acks).await?;
            // Between two commits: a tail that the links have not been told of must not be acked.
            let _whole = self.settling.lock();
            let durable = subscription.durable.lock();
            let control = decide(&durable).inspect_err(fenced)?;
            if let Some(acks) = self.check_acks(&durable, &report.acks, &unlisted)? {
                break (control, acks);
            }
            weir_io::sometimes!("a report raced a fold and was looked up again");
        };
        let light = !report.done && acks.is_empty();
        let weight = if light { Weight::Light } else { Weight::Full };
        let count = u64::try_from(acks.len()).expect("usize fits u64");
        let gate = self.decided(&subscription, control, acks, weight, turn)?;
        durable(&gate).await?;
        self.subscriptions.figures.acks.inc_by(count);
        let next_wake = report.done && subscription.durable.lock().is_pending();
        Ok(Reported { next_wake })
    }

    /// A worker gives the work back.
    pub(super) async fn release(
        &self,
        id: &SubscriptionId,
        credential: Credential,
        wake: (WakeId, u64),
    ) -> Result<(), Error> {
        let (subscription, turn) = self.turn(id).await?;
        let now = self.now().store;
        check_kind(subscription.terms, Via::Pull)?;
        check_credential(&subscription, credential, wake.1).inspect_err(fenced)?;
        let control = {
            let durable = subscription.durable.lock();
            let released =
                durable.control.report(subscription.terms, Via::Pull, wake, Ending::Ends, now);
            released.inspect_err(fenced)?
        };
        let gate = self.decided(&subscription, control, Vec::new(), Weight::Full, turn)?;
        durable(&gate).await
    }

    /// Writes what was decided for a subscription in its turn.
    pub(super) fn decided(
        &self,
        subscription: &Arc<Subscription>,
        control: Control,
        acks: Vec<Acked>,
        weight: Weight,
        turn: Turn,
    ) -> Result<Arc<Gate>, Error> {
        let number = subscription.number;
        let change = Change {
            subscription: Arc::clone(subscription),
            entry: Entry::Control { number, control, acks },
            weight,
            turns: smallvec![turn],
        };
        self.sequencer.subscription(change, Origin::Client)
    }

    /// The acked streams that the pattern links but that are not kept, those without work, as the
    /// catalogue has them: all in one job.
    async fn unlisted(
        self: &Arc<Self>,
        subscription: &Subscription,
        acks: &[Ack],
    ) -> Result<Unlisted, Error> {
        let asked = self.shelf.folds();
        let names: BTreeSet<&StreamName> = acks.iter().map(|ack| &ack.stream).collect();
        let names: Vec<StreamName> =
            names.into_iter().filter(|name| subscription.merely_matches(name)).cloned().collect();
        if names.is_empty() {
            return Ok(Unlisted { asked, stored: BTreeMap::new() });
        }
        let found = self.on_reader(move |conn| {
            let tails = catalogue::tails(conn, &names)?;
            Ok(names.into_iter().zip(tails).collect())
        });
        Ok(Unlisted { asked, stored: found.await.map_err(unreadable)? })
    }

    /// Checks all acks; those that change something come back, each stream once. `None`: what was
    /// looked up is not true any more. Called between two commits.
    fn check_acks(
        &self,
        durable: &Durable,
        acks: &[Ack],
        unlisted: &Unlisted,
    ) -> Result<Option<Vec<Acked>>, Refused> {
        if self.shelf.folds() != unlisted.asked {
            return Ok(None);
        }
        let mut through: BTreeMap<&StreamName, (StreamId, Offset)> = BTreeMap::new();
        for Ack { stream: name, offset } in acks {
            let refuse = |reason| Refused::InvalidOffset { stream: name.clone(), reason };
            let (acked, tail, id) = match durable.links.get(name) {
                Some(link) => {
                    let id = link.stream().ok_or_else(|| refuse("there is no such stream"))?;
                    (link.acked(), link.tail(), id)
                }
                None => {
                    let Some(stored) = unlisted.stored.get(name) else {
                        return Err(refuse("the stream is not linked"));
                    };
                    let quiet = self.quiet(name, *stored);
                    let (id, tail) = quiet.ok_or_else(|| refuse("the stream is not linked"))?;
                    (tail, tail, id)
                }
            };
            check_offset(*offset, acked, tail).map_err(refuse)?;
            if *offset > acked {
                let furthest = through.entry(name).or_insert((id, *offset));
                furthest.1 = furthest.1.max(*offset);
            }
        }
        let acked = through.into_iter().map(|(path, (stream, offset))| Acked {
            path: path.clone(),
            stream,
            offset,
        });
        Ok(Some(acked.collect()))
    }

    /// A stream and its tail, both durable, if it is there. What is not in memory is as the
    /// catalogue says (INV-11).
    fn quiet(
        &self,
        name: &StreamName,
        stored: Option<(StreamId, Offset)>,
    ) -> Option<(StreamId, Offset)> {
        let Some(visible) = self.shelf.get(name, |slot| slot.visible.clone()) else {
            return stored;
        };
        let stream = visible.filter(|stream| !stream.is_absent())?;
        let tail = stream.durable.lock().state.tail();
        Some((stream.identity.id, tail))
    }
}

/// What the catalogue has of streams.
struct Unlisted {
    /// Before which fold.
    asked: Folds,
    stored: BTreeMap<StreamName, Option<(StreamId, Offset)>>,
}

/// What to tell a worker.
pub(super) fn wake_of(
    subscription: &Subscription,
    wake_id: WakeId,
    generation: u64,
    durable: &Durable,
) -> Wake {
    Wake {
        incarnation: subscription.number.get(),
        wake_id,
        generation,
        lease_ttl_ms: subscription.terms.lease_ttl_ms,
        links: durable.links.list(LINKS_LISTED_MAX),
    }
}

fn check_credential(
    subscription: &Subscription,
    credential: Credential,
    generation: u64,
) -> Result<(), Refused> {
    let own = credential.incarnation == subscription.number.get();
    if own && credential.generation == generation { Ok(()) } else { Err(Refused::Fenced) }
}

fn fenced(refused: &Refused) {
    if *refused == Refused::Fenced {
        weir_io::sometimes!("a worker reported on a wake that was over");
    }
}

fn check_offset(offset: Offset, acked: Offset, tail: Offset) -> Result<(), &'static str> {
    if offset == Offset::START {
        return Err("the start of a stream acknowledges nothing");
    }
    if offset < acked {
        return Err("regresses behind what is acknowledged");
    }
    // The position too: an offset of an earlier epoch may count beyond that epoch's end.
    if offset > tail || offset.next > tail.next {
        return Err("lies beyond the tail");
    }
    Ok(())
}
