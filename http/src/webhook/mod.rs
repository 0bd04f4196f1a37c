//! Webhooks, as the server sends them: whom it may call, what it says, how it signs, and what
//! the receiver may report with.
//!
//! ```text
//! engine ─Due─▶ deliver ─▶ message ─▶ sign ─▶ client ─▶ guard ─▶ the receiver
//!                  └──────────────── how it went ──────────────────┘
//! ```
//! When to call, and when again, is the engine's to say; nothing here is remembered but keys.

mod client;
mod deliver;
mod guard;
mod hosts;
pub(crate) mod keys;
mod message;
mod sign;
pub(crate) mod token;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use tokio::sync::{oneshot, watch};
use tracing::{debug, warn};
use weir_engine::Engine;
use weir_io::{World, os::tls::Tls, tasks};

use self::{client::Client, deliver::Courier, keys::Keys, message::Bases, token::Tokens};
use crate::{App, app::Phase, config::HttpConfig};

pub use guard::Loopback;
pub(crate) use guard::Rejected;
pub use keys::KeysError;

/// The note with the key of the tokens and the seed of the signing key, 32 bytes each.
const KEYS_NOTE: &str = "webhook-keys";
/// How often a running server looks whether its keys were rotated.
const REREAD_INTERVAL: Duration = Duration::from_secs(60);

/// What a server needs to send webhooks and to check what comes back.
pub struct Webhooks {
    loopback: Loopback,
    client: Client,
    pub(crate) keys: Arc<Keys>,
    pub(crate) tokens: Tokens,
    bound: OnceLock<SocketAddr>,
}

impl Webhooks {
    /// Opens the keys in the directory of a store, or makes them. `signing_key` is a file with
    /// the operator's own key.
    ///
    /// # Errors
    /// A key can't be read or written: [`KeysError`] names the file.
    pub async fn open(
        world: &World,
        store: &Path,
        config: &HttpConfig,
        signing_key: Option<PathBuf>,
    ) -> Result<Self, KeysError> {
        let (keys, token_key) = Keys::open(world, keys::dir(store), signing_key).await?;
        Ok(Self::with(world, config, keys, &token_key))
    }

    /// As [`Webhooks::open`], for a store that keeps its keys as a note in its own file.
    ///
    /// # Errors
    /// The note can't be read or written.
    pub async fn open_noted(
        world: &World,
        engine: &Engine,
        config: &HttpConfig,
    ) -> Result<Self, KeysError> {
        let noted = |error: weir_engine::request::Error| KeysError::Noted(error.to_string());
        let secret = match engine.note(KEYS_NOTE).await.map_err(noted)? {
            Some(text) => BASE64_URL_SAFE_NO_PAD.decode(text).ok(),
            None => {
                let mut secret = vec![0; 64];
                world.entropy.fill(&mut secret);
                let text = BASE64_URL_SAFE_NO_PAD.encode(&secret);
                engine.keep_note(KEYS_NOTE, text).await.map_err(noted)?;
                Some(secret)
            }
        };
        let halves = secret.as_deref().and_then(|it| it.split_first_chunk::<32>());
        let Some((token_key, seed)) = halves else {
            return Err(KeysError::Noted("they are no 64 bytes in base64url".to_owned()));
        };
        let Ok(seed) = seed.try_into() else {
            return Err(KeysError::Noted("they are not 64 bytes long".to_owned()));
        };
        let keys = Keys::of_seed(Arc::clone(&world.clock), seed);
        Ok(Self::with(world, config, keys, token_key))
    }

    fn with(world: &World, config: &HttpConfig, keys: Keys, token_key: &[u8; 32]) -> Self {
        let (clock, entropy) = (Arc::clone(&world.clock), Arc::clone(&world.entropy));
        let loopback = config.loopback_webhooks;
        let outbound = Arc::clone(&world.outbound);
        Self {
            loopback,
            client: Client::new(outbound, Tls::new(world), loopback, config.webhook_timeout),
            keys: Arc::new(keys),
            tokens: Tokens::new(token_key, clock, entropy),
            bound: OnceLock::new(),
        }
    }

    /// Whether a subscription may name this receiver. Its addresses are judged again whenever
    /// it is called.
    pub(crate) fn check_url(&self, url: &str) -> Result<(), Rejected> {
        guard::check_url(url, self.loopback).map(drop)
    }

    /// Where this server listens, as a client on this machine would write it.
    fn own_base(&self) -> String {
        let Some(bound) = self.bound.get() else { return "http://localhost".to_owned() };
        let address = match bound.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            address => address,
        };
        format!("http://{}", SocketAddr::new(address, bound.port()))
    }
}

impl App {
    /// Where receivers find this server.
    fn webhook_bases(&self) -> Bases {
        let public = self.config.public_url.as_ref().map(|url| url.as_str().to_owned());
        Bases { public, own: self.webhooks.own_base() }
    }
}

/// Sends webhooks until the server drains; the answer comes when the last one is over. `bound`
/// is where the server listens.
pub(crate) fn start(app: &Arc<App>, bound: Option<SocketAddr>) -> oneshot::Receiver<()> {
    if let Some(bound) = bound {
        // A second listener of the same server reaches it as well as the first.
        app.webhooks.bound.get_or_init(|| bound);
    }
    let (ended, end) = oneshot::channel();
    let server = Arc::clone(app);
    let work = async move {
        let courier = Arc::new(Courier::new(&server));
        let queue = server.engine.subscriptions();
        let phase = server.phase.subscribe();
        let deliveries = deliver::run(courier, queue, phase.clone(), server.config.patience.drain);
        tokio::join!(deliveries, follow_rotations(&server, phase));
        // Dropped, it speaks as well.
        drop(ended);
    };
    app.world.tasks.spawn("webhooks", Box::pin(work));
    end
}

async fn follow_rotations(app: &App, mut phase: watch::Receiver<Phase>) {
    loop {
        let drained = phase.wait_for(|it| *it != Phase::Serving);
        if tokio::time::timeout(REREAD_INTERVAL, drained).await.is_ok() {
            return;
        }
        let keys = Arc::clone(&app.webhooks.keys);
        match tasks::run(&*app.world.blocking, move || keys.reread()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "signing keys not reread: the ones before stay"),
            Err(gone) => debug!(%gone, "signing keys not reread"),
        }
    }
}

#[cfg(test)]
mod tests;
