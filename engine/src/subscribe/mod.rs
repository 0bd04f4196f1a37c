//! Subscriptions: durable cursors over streams that wake workers (protocol §6, §7).

pub(crate) mod control;
pub(crate) mod entry;
pub(crate) mod glob;
pub(crate) mod index;
pub(crate) mod links;
pub(crate) mod request;
pub(crate) mod rows;

pub use glob::{BadPattern, Pattern};
pub use request::{
    Ack, Credential, Delivered, Delivery, Link, LinkType, Links, Refused, Report, Reported,
    Subscribe, Subscribed, SubscriptionId, SubscriptionView, Via, Wake, WakeId,
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
    pub async fn put(&self, _subscribe: Subscribe) -> Result<Subscribed, Error> {
        Err(self.unavailable())
    }

    /// Shows.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub async fn get(&self, _id: &SubscriptionId) -> Result<SubscriptionView, Error> {
        Err(self.unavailable())
    }

    /// Deletes; nothing happens if there is none. Ends its lease and its deliveries.
    ///
    /// # Errors
    /// The store takes no writes.
    pub async fn delete(&self, _id: &SubscriptionId) -> Result<(), Error> {
        Err(self.unavailable())
    }

    /// Links streams by name, at their tails; those linked by name already stay as they are.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::TooMany`].
    pub async fn add(&self, _id: &SubscriptionId, _streams: Vec<StreamName>) -> Result<(), Error> {
        Err(self.unavailable())
    }

    /// Ends a link by name; a match of the pattern stays.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub async fn remove(&self, _id: &SubscriptionId, _stream: &StreamName) -> Result<(), Error> {
        Err(self.unavailable())
    }

    /// A pull-wake worker takes the work.
    ///
    /// # Errors
    /// [`Refused::AlreadyClaimed`], [`Refused::NoPendingWork`], [`Refused::WrongType`],
    /// [`Refused::NotFound`].
    pub async fn claim(&self, _id: &SubscriptionId, _worker: &str) -> Result<Wake, Error> {
        Err(self.unavailable())
    }

    /// A worker reports: acks, and a heartbeat or the end of its work.
    ///
    /// # Errors
    /// [`Refused::Fenced`], [`Refused::InvalidOffset`], [`Refused::WrongType`],
    /// [`Refused::NotFound`].
    pub async fn report(
        &self,
        _id: &SubscriptionId,
        _via: Via,
        _report: Report,
    ) -> Result<Reported, Error> {
        Err(self.unavailable())
    }

    /// A pull-wake worker gives the work back.
    ///
    /// # Errors
    /// As [`Subscriptions::report`].
    pub async fn release(
        &self,
        _id: &SubscriptionId,
        _credential: Credential,
        _wake_id: WakeId,
        _generation: u64,
    ) -> Result<(), Error> {
        Err(self.unavailable())
    }

    /// Waits for the next webhook to call; `None` when the store is going down. Cancel safe.
    pub async fn next_delivery(&self) -> Option<Due> {
        None
    }

    fn unavailable(&self) -> Error {
        let _ = &self.core;
        Error::Draining
    }
}

/// A webhook to call now. Dropping it without [`Due::finish`] leaves the wake to its lease.
pub struct Due {
    /// Which subscription.
    pub subscription: SubscriptionId,
    /// Where to.
    pub url: String,
    /// What to say.
    pub wake: Wake,
    /// How often this was tried before.
    pub failures: u32,
}

impl Due {
    /// Resolves when the wake is over while the delivery is still under way: the lease has
    /// passed, the worker has reported its end, or the subscription is gone. The delivery is
    /// then to be abandoned.
    pub async fn superseded(&self) {
        std::future::pending::<()>().await;
    }

    /// Tells how it went.
    ///
    /// # Errors
    /// [`Refused::Fenced`] if the wake is over, or that the store takes no writes.
    pub async fn finish(self, _delivered: Delivered) -> Result<(), Error> {
        Err(Error::Draining)
    }
}
