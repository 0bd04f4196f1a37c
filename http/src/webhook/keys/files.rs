//! The directory of the keys: what its files hold and how they change.
//!
//! ```text
//! keys/token.key          32 random bytes       both: base64url without padding, one line
//! keys/signing-<kid>.key  the 32-byte seed
//! keys/keys.json          {"version":1,
//!                          "active":{"kid","x","from":"directory"|"flag"},
//!                          "retired":[{"kid","x","at"}]}     at: seconds since 1970
//! keys/lock               held while any of them changes
//! ```
//! The directory is its owner's alone (0700), and so are its files (0600). `keys.json` says what
//! is true: it is replaced as a whole after the key it names is there, and a seed it does not
//! name is removed after it was replaced. A retired key needs no private half, so only its
//! public half is kept.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use weir_io::{
    Disk, Entropy, World,
    disk::{Create, Lock},
    tasks,
};

use super::{KeysError, PublicKey, Retired, SigningKey, seconds};

const SECRET_BYTES: usize = 32;
const VERSION: u64 = 1;
/// No file here is larger.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// How long to wait for another process that changes the keys: a change takes a few syncs.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often to look whether it is done.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);
/// Keys retired and still published.
const RETIRED_MAX: usize = 16;

/// The directory.
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// What `keys.json` says.
pub(super) struct Index {
    pub(super) active: PublicKey,
    from: Origin,
    pub(super) retired: Vec<Retired>,
}

/// Where the active key's private half is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Directory,
    Flag,
}

impl Origin {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Flag => "flag",
        }
    }
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rotated {
    /// The key that signs from now on.
    pub(crate) active: String,
    /// The one that did, if there was one.
    pub(crate) retired: Option<String>,
}

/// Makes a new key active in the directory of a store that may be running: a server follows
/// within a minute.
///
/// # Errors
/// [`KeysError`].
pub(crate) async fn rotate(world: &World, dir: PathBuf) -> Result<Rotated, KeysError> {
    let files = Arc::new(Files::new(Arc::clone(&world.disk), dir));
    let (clock, entropy) = (Arc::clone(&world.clock), Arc::clone(&world.entropy));
    let lock = prepared(world, &files).await?;
    let rotated = tasks::run(&*world.blocking, move || {
        let _lock = lock;
        let before = files.index()?;
        if before.as_ref().is_some_and(|it| it.from == Origin::Flag) {
            return Err(KeysError::FromFlag);
        }
        let retired = before.as_ref().map(|it| it.active.kid.clone());
        let (active, _) = files.switch(before, None, &*entropy, seconds(&*clock))?;
        Ok(Rotated { active: active.public.kid, retired })
    });
    rotated.await?
}

/// As [`Files::prepare`], and waits a while for somebody else who changes the keys just now.
pub(super) async fn prepared(
    world: &World,
    files: &Arc<Files>,
) -> Result<Box<dyn Lock>, KeysError> {
    let began = world.clock.elapsed();
    loop {
        let tried = Arc::clone(files);
        match tasks::run(&*world.blocking, move || tried.prepare()).await? {
            Err(KeysError::Busy(_))
                if world.clock.elapsed().saturating_sub(began) < LOCK_WAIT_MAX =>
            {
                tokio::time::sleep(LOCK_INTERVAL).await;
            }
            prepared => return prepared,
        }
    }
}

impl Files {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir }
    }

    /// Makes the directory and keeps everybody else from changing what is in it.
    pub(super) fn prepare(&self) -> Result<Box<dyn Lock>, KeysError> {
        let made = self.disk.create_private_dir(&self.dir);
        made.map_err(|source| KeysError::Io { path: self.dir.clone(), source })?;
        if let Some(parent) = self.dir.parent() {
            self.tried(parent, self.disk.sync_dir(parent))?;
        }
        let path = self.dir.join("lock");
        let lock = self.tried(&path, self.disk.lock(&path))?;
        lock.ok_or_else(|| KeysError::Busy(self.dir.clone()))
    }

    /// The key of the tokens, made if there is none.
    pub(super) fn token_key(&self, entropy: &dyn Entropy) -> Result<[u8; 32], KeysError> {
        let path = self.dir.join("token.key");
        if self.tried(&path, self.disk.exists(&path))? {
            return self.secret(&path);
        }
        let mut key = [0; SECRET_BYTES];
        entropy.fill(&mut key);
        self.replace("token.key", &line(&key))?;
        Ok(key)
    }

    /// The key to sign with, which is the operator's if there is one, and what else is known.
    pub(super) fn activate(
        &self,
        external: Option<SigningKey>,
        entropy: &dyn Entropy,
        now: u64,
    ) -> Result<(SigningKey, Index), KeysError> {
        match (self.index()?, external) {
            (Some(index), None) if index.from == Origin::Directory => {
                let active = self.signing_key(&index.active)?;
                self.sweep(&index)?;
                Ok((active, index))
            }
            (Some(index), Some(key)) if index.active == key.public => Ok((key, index)),
            (index, external) => self.switch(index, external, entropy, now),
        }
    }

    /// Makes another key active, a new one if none is given, and retires the one before.
    pub(super) fn switch(
        &self,
        before: Option<Index>,
        external: Option<SigningKey>,
        entropy: &dyn Entropy,
        now: u64,
    ) -> Result<(SigningKey, Index), KeysError> {
        let mut retired = before.as_ref().map_or_else(Vec::new, |it| it.retired.clone());
        retired.extend(before.map(|it| Retired { public: it.active, at: now }));
        retired.retain(|it| it.is_published(now));
        if retired.len() > RETIRED_MAX {
            return Err(KeysError::TooMany);
        }
        let (key, from) = match external {
            Some(key) => (key, Origin::Flag),
            None => (self.generate(entropy)?, Origin::Directory),
        };
        retired.retain(|it| it.public != key.public);
        let index = Index { active: key.public.clone(), from, retired };
        self.replace("keys.json", &index.encode())?;
        self.sweep(&index)?;
        Ok((key, index))
    }

    fn generate(&self, entropy: &dyn Entropy) -> Result<SigningKey, KeysError> {
        let mut seed = [0; SECRET_BYTES];
        entropy.fill(&mut seed);
        let key = SigningKey::from_seed(&seed).expect("every 32 bytes are a seed");
        self.replace(&file_name(&key.public), &line(&seed))?;
        Ok(key)
    }

    /// What is active and retired; `None` before the first start.
    pub(super) fn index(&self) -> Result<Option<Index>, KeysError> {
        let path = self.dir.join("keys.json");
        if !self.tried(&path, self.disk.exists(&path))? {
            return Ok(None);
        }
        let bytes = self.read(&path)?;
        let what = "this is no list of keys that this version wrote";
        Index::decode(&bytes).map(Some).ok_or(KeysError::Corrupt { path, what })
    }

    /// The private half of a key of this directory.
    pub(super) fn signing_key(&self, public: &PublicKey) -> Result<SigningKey, KeysError> {
        let path = self.dir.join(file_name(public));
        let key = SigningKey::from_seed(&self.secret(&path)?).filter(|it| it.public == *public);
        let what = "the seed is not that of the key in the file's name";
        key.ok_or(KeysError::Corrupt { path, what })
    }

    /// A key in the operator's file.
    pub(super) fn read_pem(&self, path: &Path) -> Result<SigningKey, KeysError> {
        let what = "not an Ed25519 key in PEM (openssl genpkey -algorithm ed25519 makes one)";
        let key = SigningKey::from_pem(&self.read(path)?);
        key.ok_or_else(|| KeysError::Corrupt { path: path.to_owned(), what })
    }

    /// Removes seeds that nothing will be signed with, and what a crash left half-written.
    fn sweep(&self, index: &Index) -> Result<(), KeysError> {
        let kept = (index.from == Origin::Directory).then(|| file_name(&index.active));
        let mut removed = false;
        for path in self.tried(&self.dir, self.disk.list(&self.dir))? {
            let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
            let seed = name.starts_with("signing-") && kept.as_deref() != Some(name);
            if seed || name.ends_with(".new") {
                self.tried(&path, self.disk.remove(&path))?;
                removed = true;
            }
        }
        if removed { self.tried(&self.dir, self.disk.sync_dir(&self.dir)) } else { Ok(()) }
    }

    fn secret(&self, path: &Path) -> Result<[u8; 32], KeysError> {
        let bytes = self.read(path)?;
        let secret = BASE64_URL_SAFE_NO_PAD.decode(bytes.trim_ascii_end()).ok();
        let what = "not 32 bytes in base64url without padding";
        let secret = secret.and_then(|it| it.try_into().ok());
        secret.ok_or_else(|| KeysError::Corrupt { path: path.to_owned(), what })
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, KeysError> {
        let file = self.tried(path, self.disk.open(path))?;
        let len = self.tried(path, file.len())?;
        if len > FILE_BYTES_MAX {
            return Err(KeysError::Corrupt { path: path.to_owned(), what: "too large for a key" });
        }
        let mut bytes = vec![0; usize::try_from(len).expect("bounded above")];
        self.tried(path, file.read_exact_at(&mut bytes, 0))?;
        Ok(bytes)
    }

    /// Puts a file in place as a whole: after a crash it is what it was or what it should be.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), KeysError> {
        let path = self.dir.join(name);
        let temporary = self.dir.join(format!("{name}.new"));
        match self.disk.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(KeysError::Io { path: temporary, source: error });
            }
            Ok(()) | Err(_) => {}
        }
        let file = self.tried(&temporary, self.disk.create(&temporary, Create::Private))?;
        self.tried(&temporary, file.write_all_at(bytes, 0))?;
        self.tried(&temporary, file.sync())?;
        self.tried(&path, self.disk.rename(&temporary, &path))?;
        self.tried(&self.dir, self.disk.sync_dir(&self.dir))
    }

    fn tried<T>(&self, path: &Path, result: io::Result<T>) -> Result<T, KeysError> {
        result.map_err(|source| KeysError::Io { path: path.to_owned(), source })
    }
}

impl Index {
    fn encode(&self) -> Vec<u8> {
        let retired: Vec<Value> = self
            .retired
            .iter()
            .map(|it| json!({ "kid": it.public.kid, "x": it.public.x, "at": it.at }))
            .collect();
        let active = &self.active;
        let active = json!({ "kid": active.kid, "x": active.x, "from": self.from.as_str() });
        let index = json!({ "version": VERSION, "active": active, "retired": retired });
        format!("{index:#}\n").into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let index: Value = serde_json::from_slice(bytes).ok()?;
        if index.get("version")?.as_u64()? != VERSION {
            return None;
        }
        let active = index.get("active")?;
        let from = match active.get("from")?.as_str()? {
            "directory" => Origin::Directory,
            "flag" => Origin::Flag,
            _ => return None,
        };
        let retired = index.get("retired")?.as_array()?.iter();
        let retired = retired
            .map(|it| Some(Retired { public: public_key(it)?, at: it.get("at")?.as_u64()? }));
        Some(Self { active: public_key(active)?, from, retired: retired.collect::<Option<_>>()? })
    }
}

/// The key of an object with `kid` and `x` that belong together.
fn public_key(object: &Value) -> Option<PublicKey> {
    let raw = BASE64_URL_SAFE_NO_PAD.decode(object.get("x")?.as_str()?).ok()?;
    let key = (raw.len() == SECRET_BYTES).then(|| PublicKey::new(&raw))?;
    (object.get("kid")?.as_str()? == key.kid).then_some(key)
}

fn file_name(key: &PublicKey) -> String {
    format!("signing-{}.key", key.kid)
}

fn line(secret: &[u8]) -> Vec<u8> {
    format!("{}\n", BASE64_URL_SAFE_NO_PAD.encode(secret)).into_bytes()
}
