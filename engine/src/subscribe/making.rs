//! Making, deleting and linking subscriptions.

use std::sync::{Arc, atomic::Ordering};

use smallvec::smallvec;

use super::{
    entry::{Entry, Number, Placed},
    request::{LinkType, Refused, Standing, Subscribe, Subscribed, SubscriptionId},
    subscription::{Change, Subscription, Turn, Weight},
};
use crate::{
    core::Core,
    engine::{durable, unreadable},
    limits,
    log::{
        gate::Gate,
        sequencer::{Origin, Tails},
    },
    request::Error,
    state::catalogue,
    types::StreamName,
};

impl Core {
    /// Makes a subscription or confirms that it is there.
    pub(super) async fn subscribe(
        self: &Arc<Self>,
        config: Subscribe,
    ) -> Result<Subscribed, Error> {
        if let Some(confirmed) = self.confirm(&config).await? {
            return Ok(confirmed);
        }
        let making = Arc::clone(&self.subscriptions.making).lock_owned().await;
        if let Some(confirmed) = self.confirm(&config).await? {
            return Ok(confirmed);
        }
        if self.subscriptions.len() >= limits::SUBSCRIPTIONS_MAX {
            return Err(Refused::TooMany("the store has as many subscriptions as it may").into());
        }
        let number = self.subscriptions.next_number.fetch_add(1, Ordering::Relaxed);
        let created = self.now().wall;
        let config = Arc::new(config);
        let subscription =
            Arc::new(Subscription::new(Number::new(number), Arc::clone(&config), created));
        let named = config.streams.iter().filter(|name| subscription.own_stream() != Some(*name));
        let named: Vec<_> = named.cloned().collect();
        check_explicit(named.len())?;
        let gate = self
            .place(&subscription, named, making, |links| Entry::Subscribe {
                number: subscription.number,
                config: Arc::clone(&config),
                created,
                links,
            })
            .await?;
        durable(&gate).await?;
        tracing::info!(subscription = %config.id, number, "subscribed");
        Ok(Subscribed { new: true, subscription: self.view(&subscription).await? })
    }

    /// What is there under an id, if it is the same.
    async fn confirm(self: &Arc<Self>, config: &Subscribe) -> Result<Option<Subscribed>, Error> {
        match self.compare(config) {
            (Standing::Taken, _) => Err(Refused::Exists.into()),
            (Standing::Free, _) | (Standing::Same, None) => Ok(None),
            (Standing::Same, Some(there)) => {
                let subscription = self.view(&there).await?;
                Ok(Some(Subscribed { new: false, subscription }))
            }
        }
    }

    /// How a configuration stands to what is there under its id, and what that is.
    pub(super) fn compare(&self, config: &Subscribe) -> (Standing, Option<Arc<Subscription>>) {
        let there = self.subscriptions.find(&config.id);
        let standing = match &there {
            None => Standing::Free,
            Some(there) if there.config.configures_as(config) => Standing::Same,
            Some(_) => Standing::Taken,
        };
        (standing, there)
    }

    /// Deletes a subscription, if there is one.
    pub(super) async fn unsubscribe(&self, id: &SubscriptionId) -> Result<(), Error> {
        let making = Arc::clone(&self.subscriptions.making).lock_owned().await;
        let Some(subscription) = self.subscriptions.find(id) else {
            return Ok(());
        };
        let turn = Arc::clone(&subscription.turn).lock_owned().await;
        let number = subscription.number;
        let change = Change {
            subscription,
            entry: Entry::Unsubscribe { number },
            weight: Weight::Full,
            turns: smallvec![making, turn],
        };
        let gate = self.sequencer.subscription(change, Origin::Server)?;
        durable(&gate).await?;
        tracing::info!(subscription = %id, number = number.get(), "unsubscribed");
        Ok(())
    }

    /// Links streams by name.
    pub(super) async fn link(
        self: &Arc<Self>,
        id: &SubscriptionId,
        streams: Vec<StreamName>,
    ) -> Result<(), Error> {
        let (subscription, turn) = self.turn(id).await?;
        let (named, before) = {
            let durable = subscription.durable.lock();
            let links = &durable.links;
            let is_new = |name: &StreamName| {
                let explicit = links.get(name).is_some_and(|it| it.kind() == LinkType::Explicit);
                !explicit && subscription.own_stream() != Some(name)
            };
            let named: Vec<_> = streams.into_iter().filter(is_new).collect();
            (named, links.explicit())
        };
        if named.is_empty() {
            return Ok(());
        }
        check_explicit(before + named.len())?;
        let number = subscription.number;
        let relink = |added| Entry::Relink { number, added, removed: Vec::new() };
        let gate = self.place(&subscription, named, turn, relink).await?;
        durable(&gate).await
    }

    /// Ends a link by name, if there is one.
    pub(super) async fn unlink(
        &self,
        id: &SubscriptionId,
        stream: &StreamName,
    ) -> Result<(), Error> {
        let (subscription, turn) = self.turn(id).await?;
        let kind = subscription.durable.lock().links.get(stream).map(super::links::Stored::kind);
        if kind != Some(LinkType::Explicit) {
            return Ok(());
        }
        let number = subscription.number;
        let removed = vec![stream.clone()];
        let change = Change {
            subscription,
            entry: Entry::Relink { number, added: Vec::new(), removed },
            weight: Weight::Full,
            turns: smallvec![turn],
        };
        let gate = self.sequencer.subscription(change, Origin::Client)?;
        durable(&gate).await
    }

    /// The subscription under an id, and the right to decide for it.
    pub(super) async fn turn(
        &self,
        id: &SubscriptionId,
    ) -> Result<(Arc<Subscription>, Turn), Error> {
        loop {
            let found = self.subscriptions.find(id);
            let subscription = found.ok_or(Refused::NotFound)?;
            let turn = Arc::clone(&subscription.turn).lock_owned().await;
            // It may have been deleted, and made anew, while this waited.
            if !subscription.durable.lock().gone {
                return Ok((subscription, turn));
            }
        }
    }

    /// Writes an entry whose links by name start at the tails that their streams have just there.
    async fn place(
        self: &Arc<Self>,
        subscription: &Arc<Subscription>,
        names: Vec<StreamName>,
        turn: Turn,
        entry: impl Fn(Vec<Placed>) -> Entry,
    ) -> Result<Arc<Gate>, Error> {
        let names: Arc<[StreamName]> = names.into();
        let mut turns = smallvec![turn];
        loop {
            let asked = self.shelf.folds();
            let tails = match names.is_empty() {
                true => Tails::new(),
                false => {
                    let asked = Arc::clone(&names);
                    let found = self.on_reader(move |conn| catalogue::tails(conn, &asked));
                    names.iter().cloned().zip(found.await.map_err(unreadable)?).collect()
                }
            };
            let placed = self.sequencer.place(&tails, asked, |links| Change {
                subscription: Arc::clone(subscription),
                entry: entry(links),
                weight: Weight::Full,
                turns: std::mem::take(&mut turns),
            })?;
            if let Some(gate) = placed {
                return Ok(gate);
            }
        }
    }
}

fn check_explicit(count: usize) -> Result<(), Refused> {
    match count > limits::EXPLICIT_LINKS_MAX {
        true => Err(Refused::TooMany("the subscription names as many streams as it may")),
        false => Ok(()),
    }
}
