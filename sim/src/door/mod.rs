//! How a workload reaches the store: through the engine in its own process, or over HTTP from
//! another machine. Both doors take the same requests and give the same answers, so that one
//! workload, one model and one set of checks hold for both.

pub mod answer;
pub mod events;
pub mod outside;
pub mod request;
pub mod retention;
pub mod subscriptions;
pub mod tags;

use std::cell::RefCell;

use weir_engine::{
    Change, Engine, Health, Metrics,
    request::{Append, Appended, Create, Created, Error, From, Head, List, ListRow, Page, Read},
    subscribe::{
        Credential, Report, Reported, Subscribe, Subscribed, SubscriptionId, SubscriptionView, Via,
        Wake, WakeId,
    },
    types::{Offset, Retention, StreamName},
};

pub use self::{outside::Outside, retention::Kept};

/// A way to the store.
#[derive(Clone)]
pub enum Door {
    /// The engine itself.
    Inside(Engine),
    /// A client on another machine.
    Outside(Outside),
}

type Answer<T> = Result<T, Error>;

impl Door {
    /// As the engine's.
    ///
    /// # Errors
    /// As the engine's; [`Error::Unknown`] also if the answer was lost on the way.
    pub async fn create(&self, create: Create) -> Answer<Created> {
        match self {
            Door::Inside(engine) => engine.create(create).await,
            Door::Outside(client) => client.create(create).await,
        }
    }

    /// As the engine's.
    ///
    /// # Errors
    /// As [`Door::create`].
    pub async fn append(&self, append: Append) -> Answer<Appended> {
        match self {
            Door::Inside(engine) => engine.append(append).await,
            Door::Outside(client) => client.append(append).await,
        }
    }

    /// As the engine's.
    ///
    /// # Errors
    /// As [`Door::create`].
    pub async fn delete(&self, name: &StreamName, expected: Option<Offset>) -> Answer<()> {
        match self {
            Door::Inside(engine) => engine.delete_at(name, expected).await,
            Door::Outside(client) => client.delete(name, expected).await,
        }
    }

    /// As the engine's.
    ///
    /// # Errors
    /// As the engine's; [`Error::Draining`] also if the answer was lost on the way.
    pub async fn head(&self, name: &StreamName) -> Answer<Head> {
        match self {
            Door::Inside(engine) => engine.head(name).await,
            Door::Outside(client) => client.head(name).await,
        }
    }

    /// As the engine's.
    ///
    /// # Errors
    /// As [`Door::head`].
    pub async fn read(&self, read: Read) -> Answer<Page> {
        match self {
            Door::Inside(engine) => engine.read(read).await,
            Door::Outside(client) => client.read(read).await,
        }
    }

    /// As the engine's.
    ///
    /// # Errors
    /// As [`Door::head`].
    pub async fn list(&self, list: List) -> Answer<Vec<ListRow>> {
        match self {
            Door::Inside(engine) => engine.list(list).await,
            Door::Outside(client) => client.list(&list).await,
        }
    }

    /// As the engine's.
    ///
    /// # Errors
    /// As [`Door::head`].
    pub async fn watch(&self, name: &StreamName) -> Answer<Watch> {
        match self {
            Door::Inside(engine) => engine.watch(name).await.map(Watch::Inside),
            Door::Outside(client) => {
                client.head(name).await?;
                let (client, name) = (client.clone(), name.clone());
                Ok(Watch::Outside { client, name, polled: RefCell::default() })
            }
        }
    }

    /// Gives a stream other limits.
    ///
    /// # Errors
    /// As [`Door::create`].
    pub async fn retain(&self, name: &StreamName, retention: Retention) -> Answer<Kept> {
        match self {
            Door::Inside(engine) => {
                let head = engine.retain(name, retention).await?;
                let (retention, earliest) = (head.retention, head.earliest);
                Ok(Kept { retention, earliest, head: Some(head) })
            }
            Door::Outside(client) => client.retain(name, retention).await,
        }
    }

    /// Makes or confirms a subscription.
    ///
    /// # Errors
    /// As [`Door::create`].
    pub async fn subscribe(&self, subscribe: Subscribe) -> Answer<Subscribed> {
        match self {
            Door::Inside(engine) => engine.subscriptions().put(subscribe).await,
            Door::Outside(client) => client.subscribe(subscribe).await,
        }
    }

    /// Shows a subscription. Over HTTP it does not tell which streams were linked by name when it
    /// was made.
    ///
    /// # Errors
    /// As [`Door::head`].
    pub async fn view(&self, id: &SubscriptionId) -> Answer<SubscriptionView> {
        match self {
            Door::Inside(engine) => engine.subscriptions().get(id).await,
            Door::Outside(client) => client.view(id).await,
        }
    }

    /// Deletes a subscription.
    ///
    /// # Errors
    /// As [`Door::create`].
    pub async fn unsubscribe(&self, id: &SubscriptionId) -> Answer<()> {
        match self {
            Door::Inside(engine) => engine.subscriptions().delete(id).await,
            Door::Outside(client) => client.unsubscribe(id).await,
        }
    }

    /// Links a stream by name.
    ///
    /// # Errors
    /// As [`Door::create`].
    pub async fn link(&self, id: &SubscriptionId, stream: &StreamName) -> Answer<()> {
        match self {
            Door::Inside(engine) => engine.subscriptions().add(id, vec![stream.clone()]).await,
            Door::Outside(client) => client.link(id, stream).await,
        }
    }

    /// Takes a link by name back.
    ///
    /// # Errors
    /// As [`Door::create`].
    pub async fn unlink(&self, id: &SubscriptionId, stream: &StreamName) -> Answer<()> {
        match self {
            Door::Inside(engine) => engine.subscriptions().remove(id, stream).await,
            Door::Outside(client) => client.unlink(id, stream).await,
        }
    }

    /// Takes the work.
    ///
    /// # Errors
    /// As [`Door::create`].
    pub async fn claim(&self, id: &SubscriptionId, worker: &str) -> Answer<Wake> {
        match self {
            Door::Inside(engine) => engine.subscriptions().claim(id, worker).await,
            Door::Outside(client) => client.claim(id, worker).await,
        }
    }

    /// Reports on work.
    ///
    /// # Errors
    /// As [`Door::create`].
    pub async fn report(&self, id: &SubscriptionId, via: Via, report: Report) -> Answer<Reported> {
        match self {
            Door::Inside(engine) => engine.subscriptions().report(id, via, report).await,
            Door::Outside(client) => client.report(id, via, report).await,
        }
    }

    /// Gives work back.
    ///
    /// # Errors
    /// As [`Door::create`].
    pub async fn release(
        &self,
        id: &SubscriptionId,
        credential: Credential,
        wake: WakeId,
    ) -> Answer<()> {
        let generation = credential.generation;
        match self {
            Door::Inside(engine) => {
                engine.subscriptions().release(id, credential, wake, generation).await
            }
            Door::Outside(client) => client.release(id, credential, wake).await,
        }
    }

    /// Whether the store takes writes: what an all-seeing judge knows, not what a client does.
    #[must_use]
    pub fn health(&self) -> Health {
        match self {
            Door::Inside(engine) => engine.health(),
            Door::Outside(client) => {
                client.engine().map_or(Health::Draining, |engine| engine.health())
            }
        }
    }

    /// The engine behind it, while it runs.
    #[must_use]
    pub fn engine(&self) -> Option<Engine> {
        match self {
            Door::Inside(engine) => Some(engine.clone()),
            Door::Outside(client) => client.engine(),
        }
    }

    /// Whether answers may be lost on the way.
    #[must_use]
    pub const fn may_lose(&self) -> bool {
        matches!(self, Door::Outside(_))
    }

    /// What the store counts, while it runs.
    pub fn metrics<T>(&self, look: impl FnOnce(&Metrics) -> T) -> Option<T> {
        match self {
            Door::Inside(engine) => Some(look(engine.metrics())),
            Door::Outside(client) => client.engine().map(|engine| look(engine.metrics())),
        }
    }
}

/// A live reader.
pub enum Watch {
    /// Attached to the engine.
    Inside(weir_engine::Watch),
    /// Polls from another machine.
    Outside {
        /// Who.
        client: Outside,
        /// Whom.
        name: StreamName,
        /// What the last poll brought.
        polled: RefCell<Option<Box<Answer<Page>>>>,
    },
}

impl Watch {
    /// What the wait that just ended has brought along, once: a poll answers with the records it waited
    /// for.
    pub fn polled(&self) -> Option<Answer<Page>> {
        match self {
            Watch::Inside(_) => None,
            Watch::Outside { polled, .. } => polled.take().map(|answer| *answer),
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// As [`Door::read`].
    pub async fn read(&self, from: From, key: Option<&[u8]>, bytes_max: usize) -> Answer<Page> {
        match self {
            Watch::Inside(watch) => watch.read(from, key, bytes_max).await,
            Watch::Outside { client, name, .. } => {
                let key = key.map(bytes::Bytes::copy_from_slice);
                client.read(Read { name: name.clone(), from, key, bytes_max }).await
            }
        }
    }

    /// Waits for news after a position.
    pub async fn changed(&self, from: Offset) -> Change {
        match self {
            Watch::Inside(watch) => watch.changed(from).await,
            Watch::Outside { client, name, polled } => {
                let (change, answer) = client.changed(name, from).await;
                polled.replace(answer.map(Box::new));
                change
            }
        }
    }
}
