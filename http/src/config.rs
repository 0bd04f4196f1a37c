//! Settings of the server: from flags and the environment, validated once, printed at start.
//!
//! The only place that reads the environment. A flag wins over an environment variable, which
//! wins over the default.

mod environment;
mod proxies;
mod storage;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use hyper::http::uri::{Authority, Uri};
use weir_engine::types::OffsetFormat;

pub use self::{
    environment::Environment,
    proxies::{BadNetwork, Network},
    storage::{Publishing, StoreSettings},
};

use crate::{
    cli::{
        flags::{AuthStrategy, ServeFlags},
        offline::Restore,
    },
    webhook::Loopback,
};

/// Bytes of requests that may wait for a commit; no body may be larger.
const BODY_BYTES_LIMIT: usize = 64 << 20;
const READ_BYTES_LIMIT: usize = 256 << 20;
const WEBHOOK_TIME_LIMIT: Duration = Duration::from_secs(120);
const API_KEY_UNITS_MIN: usize = 10;

/// What the server needs to know, whoever runs it.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Who may ask.
    pub auth: Auth,
    /// Which `Host` a request may name.
    pub hosts: Hosts,
    /// Where clients see this server, if that is not where they connect to.
    pub public_url: Option<PublicUrl>,
    /// Peers that are believed when they say where clients see this server.
    pub trusted_proxies: Vec<Network>,
    /// How offsets are written.
    pub offset_format: OffsetFormat,
    /// How long a long-poll waits that does not say.
    pub long_poll_timeout: Duration,
    /// How long a long-poll may ask to wait.
    pub long_poll_max: Duration,
    /// How long an event stream lives before the client must reconnect.
    pub sse_recycle: Duration,
    /// How long an event stream is silent.
    pub sse_keepalive: Duration,
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies that are being read or committed.
    pub bodies_bytes_max: usize,
    /// Payload bytes of one page of a catch-up read.
    pub read_bytes_max: usize,
    /// Open connections.
    pub connections_max: u32,
    /// How long slow peers are waited for.
    pub patience: Patience,
    /// Whether webhooks may go to this machine.
    pub loopback_webhooks: Loopback,
    /// From the look-up of a receiver to the end of its answer.
    pub webhook_timeout: Duration,
    /// The memory in MiB that the bounds were chosen for, if they were chosen together.
    pub preset_mb: Option<u32>,
}

/// How long slow peers are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From its first byte (or the connection's start) to the end of a request's head.
    pub head: Duration,
    /// Silence in a request's body, at any moment of it: a body has this long plus the time
    /// its bytes take at [`Patience::body_bytes_per_second`].
    pub body: Duration,
    /// The slowest rate a body may come in at in the long run.
    pub body_bytes_per_second: u32,
    /// A connection without a request.
    pub idle: Duration,
    /// A peer that takes nothing of what is written to it.
    pub stall: Duration,
    /// From the call to stop until open connections are cut.
    pub drain: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(15),
            body: Duration::from_secs(30),
            body_bytes_per_second: 4096,
            idle: Duration::from_secs(180),
            stall: Duration::from_secs(30),
            drain: Duration::from_secs(4),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            auth: Auth::Open,
            hosts: Hosts::Any,
            public_url: None,
            trusted_proxies: Vec::new(),
            offset_format: OffsetFormat::Reference,
            long_poll_timeout: Duration::from_secs(3),
            long_poll_max: Duration::from_secs(60),
            sse_recycle: Duration::from_secs(60),
            sse_keepalive: Duration::from_secs(15),
            body_bytes_max: 10 << 20,
            bodies_bytes_max: 256 << 20,
            read_bytes_max: 4 << 20,
            connections_max: 65_536,
            patience: Patience::default(),
            loopback_webhooks: Loopback::Refused,
            webhook_timeout: Duration::from_secs(15),
            preset_mb: None,
        }
    }
}

impl HttpConfig {
    /// Takes over what the environment says of requests, reads and connections.
    ///
    /// # Errors
    /// A number that is none, or out of bounds.
    pub(crate) fn heed(&mut self, environment: &Environment) -> Result<(), ConfigError> {
        let body = number(None, "DS_APPEND_MAX_BODY_BYTES", environment)?;
        let read = number(None, "DS_READ_MAX_BYTES", environment)?;
        let idle = number(None, "DS_HTTP_IDLE_TIMEOUT_SECONDS", environment)?;
        self.body_bytes_max = body.unwrap_or(self.body_bytes_max);
        self.read_bytes_max = read.unwrap_or(self.read_bytes_max);
        self.patience.idle = idle.map_or(self.patience.idle, Duration::from_secs);
        self.check()
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (holds, or_else) in [
            (!self.patience.idle.is_zero(), "the idle timeout must not be zero"),
            (
                (1..=BODY_BYTES_LIMIT).contains(&self.body_bytes_max),
                "--body-max must be between 1 byte and 64 MiB",
            ),
            (
                (1..=READ_BYTES_LIMIT).contains(&self.read_bytes_max),
                "--read-bytes-max must be between 1 byte and 256 MiB",
            ),
        ] {
            if !holds {
                return Err(ConfigError::Conflict(or_else));
            }
        }
        Ok(())
    }
}

/// Who may ask.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Everybody who can connect.
    Open,
    /// Who knows the key.
    ApiKey(ApiKey),
}

/// A secret. Never printed.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes a key of at least ten UTF-16 units, the peer's measure.
    ///
    /// # Errors
    /// It is shorter.
    pub fn new(key: String) -> Result<Self, ConfigError> {
        if key.encode_utf16().count() < API_KEY_UNITS_MIN {
            return Err(ConfigError::ApiKey);
        }
        Ok(Self(key))
    }

    /// Whether `offered` is the key. Takes the same time whatever the difference.
    #[must_use]
    pub fn is(&self, offered: &[u8]) -> bool {
        let key = self.0.as_bytes();
        let differing = (0..key.len().max(offered.len())).fold(0_u8, |differing, at| {
            let ours = key.get(at).copied().unwrap_or(0);
            let theirs = offered.get(at).copied().unwrap_or(0);
            differing | std::hint::black_box(ours ^ theirs)
        });
        std::hint::black_box(differing) == 0 && key.len() == offered.len()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// Which `Host` a request may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Any.
    Any,
    /// Loopback names and addresses, and these. A web page that had its own name resolve to
    /// 127.0.0.1 cannot talk to such a server.
    LoopbackAnd(Vec<String>),
}

impl Hosts {
    /// Whether a request to `authority` is meant for this server.
    #[must_use]
    pub fn allow(&self, authority: &Authority) -> bool {
        let Self::LoopbackAnd(others) = self else { return true };
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            || others.iter().any(|other| other.eq_ignore_ascii_case(bare))
    }
}

/// The scheme and authority that clients see, and a path before all paths if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    text: String,
    host: String,
}

impl PublicUrl {
    /// Reads an `http` or `https` URL without query.
    ///
    /// # Errors
    /// It is none.
    pub fn new(text: &str) -> Result<Self, ConfigError> {
        let bad = || ConfigError::Invalid { what: "--public-url", value: text.to_owned() };
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let plain = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
        let host = uri.host().filter(|_| plain).ok_or_else(bad)?;
        Ok(Self { text: text.trim_end_matches('/').to_owned(), host: host.to_owned() })
    }

    /// What comes before the path of a request.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Everything `weir serve` runs with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to bind.
    pub host: IpAddr,
    /// Port to bind; 0 takes a free one.
    pub port: u16,
    /// Directory of everything stored.
    pub data: PathBuf,
    /// Where sealed segments are published to.
    pub object_store: StoreSettings,
    /// How they get there.
    pub publishing: Publishing,
    /// What to restore from there before anything is served.
    pub bootstrap: Option<Restore>,
    /// Unsealed record bytes that start a seal.
    pub memtable_bytes_max: usize,
    /// Bytes of local copies of segments that the bucket holds too.
    pub local_bytes_max: u64,
    /// Age of the oldest unsealed record that starts a seal.
    pub seal_age: Duration,
    /// Time within which what is deleted leaves the disk.
    pub erase_within: Duration,
    /// The operator's own signing key.
    pub signing_key: Option<PathBuf>,
    /// What is logged.
    pub log: String,
    /// The server's own.
    pub http: HttpConfig,
}

/// Settings that cannot be run with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Both ways to say who may ask.
    #[error("--no-auth and --auth-strategy exclude each other: give one of them")]
    AuthTwice,
    /// Neither, where it matters.
    #[error(
        "{0} can be reached from other machines: say who may ask, with --auth-strategy api-key \
         (and API_KEY) or with --no-auth"
    )]
    AuthMissing(IpAddr),
    /// No usable key.
    #[error("API_KEY must be present and contain at least {API_KEY_UNITS_MIN} characters")]
    ApiKey,
    /// A cloud without the name of a bucket.
    #[error("--object-store {store} wants the name of a bucket: give --bucket or set {variable}")]
    Bucket {
        /// Which cloud.
        store: &'static str,
        /// What may name it too.
        variable: &'static str,
    },
    /// A value out of its range or shape.
    #[error("{what}: {value:?} is not valid")]
    Invalid {
        /// Flag or variable.
        what: &'static str,
        /// What it was.
        value: String,
    },
    /// Two values that do not go together.
    #[error("{0}")]
    Conflict(&'static str),
}

impl Settings {
    /// Puts flags, environment and defaults together and checks them.
    ///
    /// # Errors
    /// [`ConfigError`] says what to change.
    pub fn resolve(flags: ServeFlags, environment: &Environment) -> Result<Self, ConfigError> {
        let defaults = HttpConfig::default();
        let host = host(flags.host, environment)?;
        let public_url = flags.public_url.as_deref().map(PublicUrl::new).transpose()?;
        let auth = auth(flags.no_auth, flags.auth_strategy, host, environment)?;
        let hosts = hosts(&auth, host, public_url.as_ref());
        let data = data(flags.data, environment);
        let object_store = StoreSettings::resolve(&flags.store, &data, environment)?;
        let publishing = Publishing::resolve(flags.publish, flags.memtable_bytes)?;
        let body_bytes = number(flags.body_max, "DS_APPEND_MAX_BODY_BYTES", environment)?;
        let read_bytes = number(flags.read_bytes_max, "DS_READ_MAX_BYTES", environment)?;
        let idle =
            number(None, "DS_HTTP_IDLE_TIMEOUT_SECONDS", environment)?.map(Duration::from_secs);
        let http = HttpConfig {
            auth,
            hosts,
            public_url,
            trusted_proxies: flags.trusted_proxy,
            offset_format: flags.offset_format.into(),
            long_poll_timeout: flags.long_poll_timeout,
            long_poll_max: flags.long_poll_max,
            sse_recycle: flags.sse_recycle,
            sse_keepalive: flags.sse_keepalive,
            body_bytes_max: body_bytes.unwrap_or(defaults.body_bytes_max),
            read_bytes_max: read_bytes.unwrap_or(defaults.read_bytes_max),
            connections_max: flags.connections_max,
            patience: Patience {
                idle: flags.idle_timeout.or(idle).unwrap_or(defaults.patience.idle),
                ..defaults.patience
            },
            loopback_webhooks: if flags.allow_loopback_webhooks {
                Loopback::Allowed
            } else {
                Loopback::Refused
            },
            webhook_timeout: flags.webhook_timeout,
            ..defaults
        };
        let settings = Self {
            host,
            port: number(flags.port, "PORT", environment)?.unwrap_or(8080),
            data,
            object_store,
            publishing,
            bootstrap: flags.bootstrap.restore(flags.erase_within),
            memtable_bytes_max: flags.memtable_bytes,
            local_bytes_max: u64::try_from(flags.cache_bytes).unwrap_or(u64::MAX),
            seal_age: flags.seal_age,
            erase_within: flags.erase_within,
            signing_key: flags.signing_key,
            log: flags
                .log
                .or_else(|| environment.get("RUST_LOG").map(str::to_owned))
                .unwrap_or_else(|| "info".to_owned()),
            http,
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let http = &self.http;
        http.check()?;
        for (holds, or_else) in [
            (
                http.long_poll_timeout <= http.long_poll_max,
                "--long-poll-timeout must not exceed --long-poll-max",
            ),
            (!http.sse_keepalive.is_zero(), "--sse-keepalive must not be zero"),
            (!http.sse_recycle.is_zero(), "--sse-recycle must not be zero"),
            (
                (Duration::from_secs(1)..=WEBHOOK_TIME_LIMIT).contains(&http.webhook_timeout),
                "--webhook-timeout must be between 1 second and 2 minutes",
            ),
            (http.connections_max > 0, "--connections-max must not be zero"),
            (
                http.trusted_proxies.len() <= proxies::PROXIES_MAX,
                "--trusted-proxy is given more than 256 times",
            ),
            (
                http.body_bytes_max <= self.memtable_bytes_max,
                "--memtable-bytes must be at least --body-max",
            ),
        ] {
            if !holds {
                return Err(ConfigError::Conflict(or_else));
            }
        }
        Ok(())
    }
}

fn host(flag: Option<String>, environment: &Environment) -> Result<IpAddr, ConfigError> {
    match flag.as_deref().or_else(|| environment.get("DS_HOST")) {
        None => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Some("localhost") => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Some(text) => text
            .parse()
            .map_err(|_| ConfigError::Invalid { what: "--host", value: text.to_owned() }),
    }
}

/// The directory of everything stored.
pub(crate) fn data(flag: Option<PathBuf>, environment: &Environment) -> PathBuf {
    let variable = || environment.get("DS_ROOT").map(PathBuf::from);
    flag.or_else(variable).unwrap_or_else(|| PathBuf::from("./weir-data"))
}

fn auth(
    no_auth: bool,
    strategy: Option<AuthStrategy>,
    host: IpAddr,
    environment: &Environment,
) -> Result<Auth, ConfigError> {
    match (no_auth, strategy) {
        (true, Some(_)) => Err(ConfigError::AuthTwice),
        (false, Some(AuthStrategy::ApiKey)) => {
            let key = environment.get("API_KEY").ok_or(ConfigError::ApiKey)?;
            ApiKey::new(key.to_owned()).map(Auth::ApiKey)
        }
        (false, None) if !host.is_loopback() => Err(ConfigError::AuthMissing(host)),
        (true | false, None) => Ok(Auth::Open),
    }
}

/// An open server on the loopback interface trusts who can reach it, so it must make sure that
/// a web page does not reach it by a name of its own.
fn hosts(auth: &Auth, host: IpAddr, public_url: Option<&PublicUrl>) -> Hosts {
    match auth {
        Auth::Open if host.is_loopback() => {
            let public = public_url.map(|url| url.host.clone());
            Hosts::LoopbackAnd(public.into_iter().collect())
        }
        Auth::Open | Auth::ApiKey(_) => Hosts::Any,
    }
}

fn number<N: std::str::FromStr>(
    flag: Option<N>,
    variable: &'static str,
    environment: &Environment,
) -> Result<Option<N>, ConfigError> {
    match (flag, environment.get(variable)) {
        (Some(flag), _) => Ok(Some(flag)),
        (None, None) => Ok(None),
        (None, Some(text)) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(ConfigError::Invalid { what: variable, value: text.to_owned() }),
        },
    }
}

#[cfg(test)]
mod tests;
