//! Subscriptions: durable cursors over streams that wake workers (protocol §6, §7).

pub(crate) mod calendar;
pub(crate) mod concerned;
pub(crate) mod control;
mod delivery;
pub(crate) mod entry;
pub(crate) mod fold;
pub(crate) mod glob;
pub(crate) mod index;
pub(crate) mod links;
mod making;
pub(crate) mod registry;
pub(crate) mod request;
pub(crate) mod restore;
pub(crate) mod rows;
mod showing;
pub(crate) mod subscription;
pub(crate) mod touches;
pub(crate) mod waker;
mod working;

pub use delivery::Due;
pub use glob::{BadPattern, Pattern};
pub use request::{
    Ack, Credential, Delivered, Delivery, Link, LinkType, Links, Refused, Report, Reported,
    Standing, Subscribe, Subscribed, SubscriptionId, SubscriptionView, Via, Wake, WakeId,
};

use std::sync::Arc;

use crate::{core::Core, request::Error, types::StreamName};

/// Most links that one answer or wake lists.
pub const LINKS_LISTED_MAX: usize = 1000;

/// The subscriptions of a store. Clones share it.
#[derive(Clone)]
pub struct Subscriptions {
    core: Arc<Core>,
}

impl Subscriptions {
    pub(crate) const fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Creates or confirms (protocol: `PUT`).
    ///
    /// # Errors
    /// [`Refused::Exists`], [`Refused::TooMany`], or that the store takes no writes.
    pub async fn put(&self, subscribe: Subscribe) -> Result<Subscribed, Error> {
        self.core.subscribe(subscribe).await
    }

    /// Whether [`Subscriptions::put`] would create, confirm or refuse, as it stands just now.
    /// Looks at memory only.
    #[must_use]
    pub fn compare(&self, subscribe: &Subscribe) -> Standing {
        self.core.compare(subscribe).0
    }

    /// Shows.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub async fn get(&self, id: &SubscriptionId) -> Result<SubscriptionView, Error> {
        let subscription = self.core.subscriptions.find(id).ok_or(Refused::NotFound)?;
        self.core.view(&subscription).await
    }

    /// Deletes; nothing happens if there is none. Ends its lease and its deliveries.
    ///
    /// # Errors
    /// The store takes no writes.
    pub async fn delete(&self, id: &SubscriptionId) -> Result<(), Error> {
        self.core.unsubscribe(id).await
    }

    /// Links streams by name, at their tails; those linked by name already stay as they are.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::TooMany`].
    pub async fn add(&self, id: &SubscriptionId, streams: Vec<StreamName>) -> Result<(), Error> {
        self.core.link(id, streams).await
    }

    /// Ends a link by name; a match of the pattern stays.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub async fn remove(&self, id: &SubscriptionId, stream: &StreamName) -> Result<(), Error> {
        self.core.unlink(id, stream).await
    }

    /// A pull-wake worker takes the work.
    ///
    /// # Errors
    /// [`Refused::AlreadyClaimed`], [`Refused::NoPendingWork`], [`Refused::WrongType`],
    /// [`Refused::NotFound`].
    pub async fn claim(&self, id: &SubscriptionId, worker: &str) -> Result<Wake, Error> {
        self.core.claim(id, worker).await
    }

    /// A worker reports: acks, and a heartbeat or the end of its work.
    ///
    /// # Errors
    /// [`Refused::Fenced`], [`Refused::InvalidOffset`], [`Refused::WrongType`],
    /// [`Refused::NotFound`].
    pub async fn report(
        &self,
        id: &SubscriptionId,
        via: Via,
        report: Report,
    ) -> Result<Reported, Error> {
        self.core.report(id, via, report).await
    }

    /// A pull-wake worker gives the work back.
    ///
    /// # Errors
    /// As [`Subscriptions::report`].
    pub async fn release(
        &self,
        id: &SubscriptionId,
        credential: Credential,
        wake_id: WakeId,
        generation: u64,
    ) -> Result<(), Error> {
        self.core.release(id, credential, (wake_id, generation)).await
    }

    /// Waits for the next webhook to call; `None` when the store is going down. Cancel safe. Its
    /// lease does not run until [`Due::begin`].
    pub async fn next_delivery(&self) -> Option<Due> {
        self.core.next_delivery().await
    }
}
