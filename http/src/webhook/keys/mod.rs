//! The keys that deliveries are signed with, and what the world may know of them.
//!
//! One key is active; keys that were are published for a while longer, so that a receiver can
//! check what was signed just before. Rotation happens beside the server (`weir keys rotate`):
//! [`Keys::reread`] picks it up. Private parts live in `store/keys` or in the operator's file
//! and nowhere else: not in the log, not in an error, not in a trace.

mod files;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use ring::{
    digest,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::json;
use weir_io::{Clock, World, tasks};

use self::files::Files;
pub(crate) use self::files::rotate;

/// How long a retired key is published. Receivers accept signatures up to five minutes old; the
/// rest is for clocks that differ and for a server that has not reread its keys yet.
const PUBLISHED_SECONDS: u64 = 600;

/// Why the keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The disk refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {what}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Somebody else changes the keys, and did not end in time.
    #[error("the keys in {} are being changed by another process", _0.display())]
    Busy(PathBuf),
    /// Too many keys were retired in a short time.
    #[error("too many rotations: wait until earlier keys are published no more")]
    TooMany,
    /// The active key is the operator's.
    #[error("the active key comes from --signing-key: replace that file and restart the server")]
    FromFlag,
    /// The store did not give what it keeps of them, or has something else there.
    #[error("the keys that the store keeps can't be used: {0}")]
    Noted(String),
    /// The process is going down.
    #[error(transparent)]
    Gone(#[from] tasks::Gone),
}

/// The public half of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey {
    kid: String,
    x: String,
}

impl PublicKey {
    fn new(raw: &[u8]) -> Self {
        let x = BASE64_URL_SAFE_NO_PAD.encode(raw);
        // RFC 7638: the required members in lexical order, without white space.
        let thumbprint = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let hash = digest::digest(&digest::SHA256, thumbprint.as_bytes());
        Self { kid: format!("ds_{}", BASE64_URL_SAFE_NO_PAD.encode(hash)), x }
    }

    /// As a member of a JWK Set.
    pub(crate) fn jwk(&self) -> serde_json::Value {
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "kid": self.kid,
            "use": "sig",
            "alg": "EdDSA",
            "x": self.x,
        })
    }
}

/// A key that signs.
pub(crate) struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// The key that RFC 8032 derives from this secret.
    pub(crate) fn from_seed(seed: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Self::new)
    }

    /// A PKCS#8 key in PEM, as `openssl genpkey -algorithm ed25519` writes it.
    fn from_pem(pem: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
        pair.ok().map(Self::new)
    }

    fn new(pair: Ed25519KeyPair) -> Self {
        let public = PublicKey::new(pair.public_key().as_ref());
        Self { pair, public }
    }

    /// The key's name: `ds_` and its RFC 7638 thumbprint.
    pub(crate) fn kid(&self) -> &str {
        &self.public.kid
    }

    pub(crate) const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The 64 bytes of the signature.
    pub(crate) fn sign(&self, message: &[u8]) -> impl AsRef<[u8]> + use<> {
        self.pair.sign(message)
    }
}

/// Shows what everybody may know.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.public.fmt(f)
    }
}

/// A key that signs no more.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Retired {
    public: PublicKey,
    /// When, in seconds since 1970.
    at: u64,
}

impl Retired {
    /// Whether somebody may still hold a signature of it that he would accept.
    const fn is_published(&self, now: u64) -> bool {
        now < self.at.saturating_add(PUBLISHED_SECONDS)
    }
}

/// The keys of a running server.
pub(crate) struct Keys {
    /// Where they are kept; `None`: as a note in the store, where they do not change.
    files: Option<Arc<Files>>,
    clock: Arc<dyn Clock>,
    /// The active key comes from the operator, whatever the directory says.
    external: bool,
    held: Mutex<Arc<Held>>,
}

#[derive(Debug)]
struct Held {
    active: Arc<SigningKey>,
    retired: Vec<Retired>,
}

impl Keys {
    /// Opens the keys in `dir`, made if there are none, and the key that tokens are made with.
    /// `signing_key` is the operator's own key, which then is the active one.
    pub(crate) async fn open(
        world: &World,
        dir: PathBuf,
        signing_key: Option<PathBuf>,
    ) -> Result<(Self, [u8; 32]), KeysError> {
        let files = Arc::new(Files::new(Arc::clone(&world.disk), dir));
        let (clock, entropy) = (Arc::clone(&world.clock), Arc::clone(&world.entropy));
        let lock = files::prepared(world, &files).await?;
        let opened = tasks::run(&*world.blocking, move || {
            let external = signing_key.map(|path| files.read_pem(&path)).transpose()?;
            let is_external = external.is_some();
            let _lock = lock;
            let token = files.token_key(&*entropy)?;
            let (active, index) = files.activate(external, &*entropy, seconds(&*clock))?;
            let held = Held { active: Arc::new(active), retired: index.retired };
            let held = Mutex::new(Arc::new(held));
            Ok((Self { files: Some(files), clock, external: is_external, held }, token))
        });
        opened.await?
    }

    /// The one key of this seed, for good.
    pub(crate) fn of_seed(clock: Arc<dyn Clock>, seed: &[u8; 32]) -> Self {
        let active = SigningKey::from_seed(seed).expect("every 32 bytes are a seed");
        let held = Held { active: Arc::new(active), retired: Vec::new() };
        Self { files: None, clock, external: false, held: Mutex::new(Arc::new(held)) }
    }

    /// Signs with the key that is active now.
    pub(crate) fn sign(&self, body: &[u8]) -> hyper::header::HeaderValue {
        super::sign::header(&self.held().active, seconds(&*self.clock), body)
    }

    /// The name of the key that is active now.
    pub(crate) fn active_kid(&self) -> String {
        self.held().active.kid().to_owned()
    }

    /// A JWK Set: the active key first, then those retired not long ago.
    pub(crate) fn jwks_json(&self) -> String {
        let (held, now) = (self.held(), seconds(&*self.clock));
        let retired = held.retired.iter().filter(|it| it.is_published(now)).map(|it| &it.public);
        let keys = std::iter::once(held.active.public()).chain(retired).map(PublicKey::jwk);
        json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
    }

    /// Looks whether the keys were rotated. What can't be read changes nothing. Blocks.
    pub(crate) fn reread(&self) -> Result<(), KeysError> {
        let Some(files) = &self.files else { return Ok(()) };
        let Some(index) = files.index()? else { return Ok(()) };
        let held = self.held();
        let active = if self.external || index.active == *held.active.public() {
            Arc::clone(&held.active)
        } else {
            Arc::new(files.signing_key(&index.active)?)
        };
        *self.held.lock() = Arc::new(Held { active, retired: index.retired });
        Ok(())
    }

    fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.lock())
    }
}

fn seconds(clock: &dyn Clock) -> u64 {
    clock.wall_ms() / 1000
}

/// Where a store keeps its keys.
pub(crate) fn dir(store: &Path) -> PathBuf {
    store.join("keys")
}

#[cfg(test)]
mod tests;
